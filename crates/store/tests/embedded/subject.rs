//! The store that the tests of the trait are run against here.

use store::Embedded;
use tempfile::TempDir;

/// The form of the store.
pub(crate) type Subject = Embedded;
/// Sequences of calls that are tried of it.
pub(crate) const CASES: u32 = 300;
/// What it lives in.
pub(crate) type Home = TempDir;

pub(crate) fn fresh() -> (Subject, Home) {
    let dir = tempfile::tempdir().unwrap();
    (Embedded::open(dir.path()).unwrap(), dir)
}

/// A new life of a store that was closed or dropped.
pub(crate) fn again(home: &Home) -> Subject {
    Embedded::open(home.path()).unwrap()
}
