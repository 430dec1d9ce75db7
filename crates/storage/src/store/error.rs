//! Why the store refuses or fails.

use convene_model::GroupKey;

use crate::search::query::QueryError;

/// Why the store could not be opened, or could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The group's stored rows contradict each other. The group is served no more until an
    /// operator has looked at it; other groups are not touched.
    #[error("group {} is in quarantine: {detail}", hex(.group))]
    Quarantined {
        /// Which group.
        group: GroupKey,
        /// What was found.
        detail: String,
    },
    /// Events were asked for that the group does not have.
    #[error("events {from} to {to} were asked for, but {missing} is not there")]
    Missing {
        /// The first that was asked for.
        from: u64,
        /// The last that was asked for.
        to: u64,
        /// The first that is not there.
        missing: u64,
    },
    /// The limit of a history query or a search is 0 or too large.
    #[error("{0} is no page size")]
    PageSize(usize),
    /// A search query is none.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The files of the data directory do not belong together; nothing was changed.
    #[error("the data directory is refused: {0}")]
    Refused(String),
    /// SQLite or the file system failed.
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Nothing was queued, since too much waits already; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be written; try again in {retry_after_ms} ms")]
pub struct Overloaded {
    /// When it makes sense to try again, in milliseconds.
    pub retry_after_ms: u64,
}

/// Nothing new is taken at the moment; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Too much waits already.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The disk is full.
    #[error("the disk is full; try again in {retry_after_ms} ms")]
    DiskFull {
        /// When it makes sense to try again, in milliseconds.
        retry_after_ms: u64,
    },
}

impl NoRoom {
    /// When it makes sense to try again, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Overloaded(overloaded) => overloaded.retry_after_ms,
            Self::DiskFull { retry_after_ms } => *retry_after_ms,
        }
    }
}

/// A batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitFailed {
    /// The commit failed: it may or may not stand when the store is opened again.
    #[error("the commit failed, its outcome is unknown")]
    OutcomeUnknown,
    /// The group was put in quarantine before the batch was written: it was not written.
    #[error("the group is in quarantine: {0}")]
    Quarantined(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A key as people see it in a log.
pub(crate) fn hex(key: &GroupKey) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
