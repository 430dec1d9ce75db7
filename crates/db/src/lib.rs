//! The database port: statements, rows, guarded batches, migrations and leader leases.
//!
//! The App and the Orchestrator keep their SQL and hand it to a [`Database`]; the backends that run
//! it live in `convene-storage`. Owns the shapes only: it never opens a database, and it knows no
//! table of anybody but that of the leases.
//!
//! SQL is written once, in the common subset of SQLite and PostgreSQL: parameters are `$1`, `$2`, …;
//! integers (`BIGINT`) for times in milliseconds, counts and flags; `TEXT` for JSON; no arrays, no
//! locking clauses. `ON CONFLICT … DO UPDATE … RETURNING` and `IS NOT DISTINCT FROM` work in both.

mod lease;
mod row;
mod statement;
mod value;

use std::sync::Arc;

use async_trait::async_trait;

pub use lease::{LEASES_TABLE, Lease, leader};
pub use row::{FromValue, Row};
pub use statement::Statement;
pub use value::Value;

/// A shared handle on a database.
pub type Db = Arc<dyn Database>;

/// A database that runs statements of the common subset.
///
/// Every call is one transaction: when it returns `Ok`, its writes are durable; when it returns an
/// error other than [`DbError::Unavailable`], it changed nothing. After `Unavailable` the outcome
/// is unknown: read what stands.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Runs one statement and returns its rows; also for `INSERT … RETURNING` and the like.
    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbError>;

    /// Runs one statement and returns how many rows it affected.
    async fn execute(&self, statement: Statement) -> Result<u64, DbError>;

    /// Runs statements in one transaction, in order, and returns the rows of each.
    ///
    /// The transaction takes its write lock at the beginning, so what a statement reads stays true
    /// until the end. A statement with [`Statement::expect_rows`] that neither returns nor affects
    /// a row rolls everything back: [`DbError::Unmet`] with its index.
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, DbError>;

    /// Brings the schema up to date: runs, under a lock, each migration that has not run yet.
    ///
    /// Forward only. A migration that ran with other SQL before is refused.
    async fn migrate(&self, migrations: &[Migration]) -> Result<(), DbError>;
}

/// One step of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they run in this order, and each runs once.
    pub version: i32,
    /// A word or two for people, of `[a-z0-9_]`.
    pub name: &'static str,
    /// One or more statements, separated by semicolons.
    pub sql: &'static str,
}

/// Why a database did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// A statement of a batch that was to meet a row met none; nothing was changed.
    #[error("statement {index} of a batch met no row")]
    Unmet {
        /// Which statement, counted from 0.
        index: usize,
    },
    /// A row with the same key exists; nothing was changed.
    #[error("a row with the same key exists: {constraint}")]
    Unique {
        /// What the backend calls the key: for logs, since backends name it differently.
        constraint: String,
    },
    /// The database cannot be reached, is full, is locked for too long, or failed while it wrote.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A column does not hold what the code expects.
    #[error("column {column}: {problem}")]
    Decode {
        /// The column's name.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else: malformed SQL, a violated constraint, a migration that is refused.
    #[error("{0}")]
    Other(String),
}

impl DbError {
    /// A decode error, for code that turns columns into its own types.
    pub fn decode(column: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Decode { column: column.into(), problem: problem.to_string() }
    }
}
