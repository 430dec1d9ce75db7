//! Why a snapshot could not be written or read.

use convene_model::{Code, Problem};

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What is stored is not the snapshot that it should be. It is left as it is.
    #[error("the snapshot {path} is damaged: {problem}")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The store does not answer, or with an error.
    #[error("the archive store failed at {path}: {source}")]
    Store {
        /// The file.
        path: String,
        /// What the store's client said.
        source: object_store::Error,
    },
    /// The group's lines are more than a snapshot may have.
    #[error("a snapshot may have {limit} bytes of lines, and the group has more")]
    TooLarge {
        /// The limit in bytes of uncompressed lines.
        limit: u64,
    },
    /// What was handed to the writer is not the export of the frozen group.
    #[error("the group's export is not what was frozen: {0}")]
    Export(String),
    /// Another snapshot has this id already.
    #[error("another snapshot is stored as {path}")]
    Conflict {
        /// Its manifest.
        path: String,
    },
    /// A page of this size is not offered.
    #[error("a page of {0} messages is not offered")]
    PageSize(usize),
    /// The work was given up before it was done: the process ends, or an earlier step failed.
    #[error("the work on the snapshot was given up")]
    GivenUp,
}

impl ArchiveError {
    pub(crate) fn corrupt(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn store(path: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        move |source| Self::Store { path: path.into(), source }
    }

    /// The error as callers of the service see it: what is wrong with a snapshot is named, what the
    /// store said is not.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Corrupt { path, problem } => {
                Problem::new(Code::SnapshotCorrupt).detail(problem).with("path", path.as_str())
            }
            Self::Conflict { path } => Problem::new(Code::SnapshotCorrupt)
                .detail("another snapshot has this id")
                .with("path", path.as_str()),
            Self::Store { .. } => Problem::new(Code::ArchiveStoreUnavailable),
            Self::TooLarge { limit } => {
                Problem::new(Code::SnapshotTooLarge).with("limit_bytes", *limit)
            }
            Self::PageSize(limit) => Problem::new(Code::ValidationFailed)
                .detail(format!("a page of {limit} messages is not offered")),
            Self::Export(_) => Problem::new(Code::GroupControllerUnavailable)
                .detail("the group's controller exported something else than what was frozen"),
            Self::GivenUp => Problem::new(Code::Unavailable),
        }
    }
}
