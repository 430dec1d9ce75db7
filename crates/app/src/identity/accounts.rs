//! Accounts: a mail address, a name and a password's hash.

use convene_db::{Database, DbError, Row, Statement, params};
use convene_model::{Timestamp, UserId};

use crate::web::rows;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Who.
    pub(crate) user_id: UserId,
    /// The mail address, in lower case.
    pub(crate) email: String,
    /// The display name.
    pub(crate) name: String,
}

impl User {
    /// From the columns `user_id`, `email` and `name`.
    pub(crate) fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            user_id: rows::id(row, "user_id")?,
            email: row.get("email")?,
            name: row.get("name")?,
        })
    }
}

/// Adds an account; [`DbError::Unique`] when the address has one.
pub(crate) async fn insert(
    db: &dyn Database,
    user: &User,
    password_hash: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    const SQL: &str = "INSERT INTO users (user_id, email, name, password_hash, created_at)
        VALUES ($1, $2, $3, $4, $5)";
    let params =
        params![user.user_id.as_str(), &user.email, &user.name, password_hash, now.millis()];
    db.execute(Statement::new(SQL, params)).await.map(|_| ())
}

/// The account of an address, with its password's hash.
pub(crate) async fn with_hash(
    db: &dyn Database,
    email: &str,
) -> Result<Option<(User, String)>, DbError> {
    const SQL: &str = "SELECT user_id, email, name, password_hash FROM users WHERE email = $1";
    let found = db.query(Statement::new(SQL, params![email])).await?;
    found.first().map(|row| Ok((User::from_row(row)?, row.get("password_hash")?))).transpose()
}

/// Whether there is any account at all.
pub(crate) async fn any(db: &dyn Database) -> Result<bool, DbError> {
    const SQL: &str = "SELECT user_id FROM users LIMIT 1";
    Ok(!db.query(Statement::new(SQL, params![])).await?.is_empty())
}
