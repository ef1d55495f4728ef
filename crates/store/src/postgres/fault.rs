//! What PostgreSQL's errors mean to those who asked.

use std::{error::Error as _, fmt};

use tokio_postgres::error::SqlState;

use crate::StoreError;

/// Why a piece of work was not done.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server, or the way to it, failed.
    Sql(tokio_postgres::Error),
    /// No answer, or no connection.
    Gone(String),
    /// The same, when COMMIT was on its way.
    Cut(String),
    /// It must not be done.
    Refused(StoreError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(error) => f.write_str(&words(error)),
            Self::Gone(why) | Self::Cut(why) => f.write_str(why),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// What it is to who wrote.
    pub(crate) fn unwritable(self) -> StoreError {
        match self {
            Self::Sql(error) => StoreError::Unwritable(words(&error)),
            Self::Gone(why) | Self::Cut(why) => StoreError::Unwritable(why),
            Self::Refused(error) => error,
        }
    }

    /// What it is to who read.
    pub(crate) fn unreadable(self) -> StoreError {
        match self {
            Self::Sql(error) => StoreError::Unreadable(words(&error)),
            Self::Gone(why) | Self::Cut(why) => StoreError::Unreadable(why),
            Self::Refused(error) => error,
        }
    }

    /// Whether nobody was there to answer, or is about to be.
    pub(crate) fn is_absence(&self) -> bool {
        let Self::Sql(error) = self else { return matches!(self, Self::Gone(_) | Self::Cut(_)) };
        if let Some(code) = error.code() {
            return ends_connection(code);
        }
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        // A certificate that is not the one that was meant is an answer.
        source.is_some_and(|source| source.kind() != std::io::ErrorKind::InvalidData)
    }

    /// Whether the server takes no writes (any more): the one that does is another.
    pub(crate) fn is_read_only(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether the server itself said so, over a connection that goes on.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Sql(error) => error.code().is_some_and(|code| !ends_connection(code)),
            Self::Gone(_) | Self::Cut(_) => false,
            Self::Refused(_) => true,
        }
    }

    /// What it is where COMMIT was sent with what failed: without an answer, nobody knows.
    pub(crate) fn at_commit(self) -> Self {
        match self {
            Self::Sql(ref error) if !self.is_answer() => Self::Cut(words(error)),
            Self::Gone(why) => Self::Cut(why),
            answer => answer,
        }
    }

    /// Whether the same again may well succeed: two transactions were in each other's way.
    pub(crate) fn is_collision(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.code().is_some_and(|code| {
            // The last: a statement behind one that failed, whose own error was not read first. Asked again it tells its own.
            *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::IN_FAILED_SQL_TRANSACTION
        })
    }
}

fn ends_connection(code: &SqlState) -> bool {
    // Classes 57P (the server ends the session, or itself) and 08 (connection), and a silent transaction. And a server that
    // takes no writes any more: its sessions go on, and nothing but another connection finds the one that does.
    let alone = [SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, SqlState::READ_ONLY_SQL_TRANSACTION];
    code.code().starts_with("57P") || code.code().starts_with("08") || alone.contains(code)
}

/// An error with what it came from: its own words often are "db error" alone.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
