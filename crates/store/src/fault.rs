//! What SQLite's errors mean to those who asked.

use std::{fmt::Display, path::Path};

use crate::StoreError;

/// The extended code of a broken UNIQUE constraint.
const UNIQUE: i32 = rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;

pub(crate) fn unwritable(error: rusqlite::Error) -> StoreError {
    StoreError::Unwritable(error.to_string())
}

/// The error of an insert: [`StoreError::Exists`] where the key is taken.
pub(crate) fn uninsertable(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error() {
        Some(inner) if inner.extended_code == UNIQUE => StoreError::Exists,
        _ => unwritable(error),
    }
}

pub(crate) fn unreadable(error: rusqlite::Error) -> StoreError {
    StoreError::Unreadable(error.to_string())
}

pub(crate) fn unopenable(path: &Path, why: impl Display) -> StoreError {
    StoreError::Unopenable(format!("{}: {why}", path.display()))
}
