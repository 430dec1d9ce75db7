//! How internal failures become problems: the cause goes to the log, a stable code to the caller.

use convene_db::DbError;
use convene_model::{Code, Problem};

/// The problem that a caller sees when the directory failed.
pub(crate) fn of_directory(error: DbError) -> Problem {
    match error {
        DbError::Unavailable(cause) => {
            tracing::error!(cause, "the directory is unavailable");
            Code::Unavailable.into()
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
