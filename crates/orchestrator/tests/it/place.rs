//! Where a world's database is: a file, or a PostgreSQL server when the suite is run on one.

use std::sync::Arc;

use convene_db::Db;
use convene_storage::{PostgresDatabase, PostgresOptions, SqliteDatabase};
use convene_testing::postgres::{DATABASE_VARIABLE, TestDatabase};
use tempfile::TempDir;

pub(crate) enum Place {
    Folder(TempDir),
    Server(TestDatabase),
}

impl Place {
    /// A new one, of the kind that `CONVENE_TEST_DATABASE` names.
    pub(crate) async fn new() -> Self {
        match std::env::var(DATABASE_VARIABLE).as_deref() {
            Ok("postgres") => Self::Server(TestDatabase::fresh().await),
            Ok("sqlite" | "") | Err(_) => Self::folder(),
            Ok(other) => panic!("{DATABASE_VARIABLE} is {other:?}"),
        }
    }

    /// A folder for a file, whatever else is named.
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    /// Opens the database that is there, or makes it.
    pub(crate) fn open(&self) -> Db {
        match self {
            Self::Folder(dir) => {
                Arc::new(SqliteDatabase::open(dir.path().join("infra.db")).unwrap())
            }
            Self::Server(database) => {
                let options = PostgresOptions { schema: "infra", max_connections: 8 };
                let url = database.url().parse().unwrap();
                Arc::new(PostgresDatabase::open(&url, &options).unwrap())
            }
        }
    }

    /// A query for the names of all tables.
    pub(crate) fn tables(&self) -> &'static str {
        match self {
            Self::Folder(_) => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
            Self::Server(_) => {
                "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables
                 WHERE table_schema = 'infra' ORDER BY name"
            }
        }
    }

    /// What rows that are only added are in the order of their writing by.
    pub(crate) fn writing_order(&self) -> &'static str {
        match self {
            Self::Folder(_) => "rowid",
            // The number of the transaction: writers take turns, and space is used again.
            Self::Server(_) => "CAST(CAST(xmin AS TEXT) AS BIGINT)",
        }
    }
}
