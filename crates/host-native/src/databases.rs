//! The databases of the App and the Orchestrator: files of the data directory, or PostgreSQL where
//! the configuration names a server.

use std::{sync::Arc, time::Duration};

use convene_db::{Db, DbError, Statement};
use convene_storage::{PostgresDatabase, PostgresOptions, SqliteDatabase};
use tokio::time::{Instant, sleep};

use crate::{cli::CliError, config::Config};

/// How long a process that starts waits for its database server, which may be starting too.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The pause before a server that is not there yet is tried again.
const START_PAUSE: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// The Orchestrator's: schema `infra`, or `infra.db`.
    Infra,
    /// The App's: schema `workspace`, or `workspace.db`.
    Workspace,
}

impl Database {
    fn schema(self) -> &'static str {
        match self {
            Self::Infra => "infra",
            Self::Workspace => "workspace",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Infra => "infra.db",
            Self::Workspace => "workspace.db",
        }
    }
}

/// Opens a database to serve from; waits a while for a server that does not answer yet.
pub(crate) async fn open_when_there(config: &Config, which: Database) -> Result<Db, CliError> {
    let file = config.data_dir.join(which.file());
    let Some(postgres) = postgres(config, which)? else {
        return Ok(Arc::new(SqliteDatabase::open(file)?));
    };
    if file.exists() {
        tracing::warn!(file = %file.display(), "what is in this file is not served: the configuration names PostgreSQL");
    }
    let patience = Instant::now() + START_PATIENCE;
    loop {
        match postgres.query(Statement::new("SELECT 1 AS one", Vec::new())).await {
            Ok(_) => return Ok(postgres),
            Err(DbError::Unavailable(cause)) if Instant::now() < patience => {
                tracing::warn!(cause, "the database does not answer yet");
                sleep(START_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a database that has been served from before, for a command beside the services.
pub(crate) fn open_existing(config: &Config, which: Database) -> Result<Db, CliError> {
    if let Some(postgres) = postgres(config, which)? {
        return Ok(postgres);
    }
    let file = config.data_dir.join(which.file());
    if !file.is_file() {
        let shown = file.display();
        return Err(format!("there is no {shown}; say where the data is with --data-dir").into());
    }
    Ok(Arc::new(SqliteDatabase::open(file)?))
}

fn postgres(config: &Config, which: Database) -> Result<Option<Db>, CliError> {
    let Some(url) = config.database.postgres()? else { return Ok(None) };
    let max_connections = config.database.max_connections as usize;
    let options = PostgresOptions { schema: which.schema(), max_connections };
    Ok(Some(Arc::new(PostgresDatabase::open(&url, &options)?)))
}
