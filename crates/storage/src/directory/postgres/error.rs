//! PostgreSQL's errors as those of the port. Texts carry no value of a row or a parameter.

use convene_db::DbError;
use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::SqlState};

use super::with_causes;

/// What went wrong with a statement.
pub(super) fn from_postgres(error: &Error) -> DbError {
    let Some(said) = error.as_db_error() else {
        // Encoding a parameter is the one thing that fails without the server.
        return if is_own_fault(error) {
            DbError::Other(with_causes(error))
        } else {
            DbError::Unavailable(with_causes(error))
        };
    };
    if *said.code() == SqlState::UNIQUE_VIOLATION {
        let constraint = said.constraint().unwrap_or_default().to_owned();
        return DbError::Unique { constraint };
    }
    let text = format!("{} ({})", said.message(), said.code().code());
    if is_unavailable(said.code()) { DbError::Unavailable(text) } else { DbError::Other(text) }
}

/// What keeps the pool from handing out a connection.
pub(super) fn from_pool(error: &PoolError) -> DbError {
    match error {
        PoolError::Backend(error) => match error.as_db_error() {
            // A wrong password or a database that is not there is as far away as a dead server.
            Some(said) => DbError::Unavailable(said.message().to_owned()),
            None => DbError::Unavailable(with_causes(error)),
        },
        PoolError::Timeout(_)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => DbError::Unavailable(with_causes(error)),
    }
}

/// Whether the server undid the transaction because of others: doing it again may succeed.
pub(super) fn is_conflict(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
    })
}

/// Whether a statement wants to write where only reading is allowed.
pub(super) fn wants_to_write(error: &Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

fn is_own_fault(error: &Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing") || text.starts_with("error encoding")
}

fn is_unavailable(code: &SqlState) -> bool {
    // Connection exceptions, insufficient resources, operator intervention (a restart, a time-out),
    // system errors and data that cannot be read.
    const CLASSES: [&str; 5] = ["08", "53", "57", "58", "XX"];
    CLASSES.iter().any(|class| code.code().starts_with(class))
        || [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            // A server that follows another one takes no writes until it is promoted.
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
}
