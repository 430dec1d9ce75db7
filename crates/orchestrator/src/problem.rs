//! How internal failures become problems: the cause goes to the log, a stable code to the caller.

use convene_db::DbError;
use convene_model::{Code, Problem, limits::DATABASE_RETRY_MS};

/// The problem that a caller sees when the directory failed.
pub(crate) fn of_directory(error: DbError) -> Problem {
    match error {
        DbError::Unavailable(cause) => {
            tracing::error!(cause, "the directory is unavailable");
            Problem::new(Code::Unavailable).with("retry_after_ms", DATABASE_RETRY_MS)
        }
        DbError::Unmet { .. }
        | DbError::Unique { .. }
        | DbError::Decode { .. }
        | DbError::Other(_) => {
            tracing::error!(%error, "the directory failed");
            Code::Internal.into()
        }
    }
}
