//! The directory on PostgreSQL: a schema of its own in an operator's database, shared by several
//! processes.
//!
//! Everything that writes is a transaction under one advisory lock of the schema, taken at its
//! beginning: what a statement of a batch reads stays true until the end, as the port promises, and
//! nothing is ever undone because of somebody else. Reads take no lock and run beside it. The
//! server ends a transaction whose process stalls, and with it the lock.
//!
//! Never trusts a connection that failed: it is closed, which rolls back what was open on it.

mod error;
mod migrate;
mod session;
mod tls;
mod url;
mod values;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use convene_db::{Database, DbError, Migration, Row, Statement};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

pub use url::PostgresUrl;

use super::with_causes;

/// How long a connection may take to be made, and how long a call waits for a free one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a transaction waits for the lock that another one holds; the server counts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one statement may take; the server counts.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a transaction may be open without a statement before the server ends it. A process that
/// was stopped in the middle of one holds the others up for so long at most: less than they wait.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call may take as a whole, also where nothing comes back from the network.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// When a silent connection is probed, and how long it may leave data unconfirmed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How a [`PostgresDatabase`] is opened.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The schema that holds its tables, of `[a-z_]`; made by the first migration.
    pub schema: &'static str,
    /// Connections at most; at least 2.
    pub max_connections: usize,
}

/// A directory database in a schema of a PostgreSQL server.
#[derive(Clone)]
pub struct PostgresDatabase {
    shared: Arc<Shared>,
}

struct Shared {
    schema: &'static str,
    /// Without what a pool's connections are set to: migrations take their time.
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    pool: Pool,
    /// Writers wait for each other anyway: they do not take all connections from the readers.
    writers: Semaphore,
    /// Begins a transaction and takes the lock, in one message.
    begin: String,
    /// Statements that were given to be read and turned out to write.
    writing: Mutex<HashSet<String>>,
}

impl PostgresDatabase {
    /// A database at this address. Connects when it is first used.
    ///
    /// # Errors
    /// [`DbError::Other`] when the certificates that the address names cannot be read.
    pub fn open(url: &PostgresUrl, options: &PostgresOptions) -> Result<Self, DbError> {
        let tls = tls::connector(&url.tls).map_err(DbError::Other)?;
        let mut config = url.config.clone();
        if config.get_application_name().is_none() {
            config.application_name("convene");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 2);
        config.keepalives_retries(3).tcp_user_timeout(KEEPALIVE);
        let given = config.get_options().unwrap_or_default().to_owned();
        let schema = options.schema;
        config.options(
            format!("{given} -c search_path={schema} -c client_min_messages=warning").trim(),
        );
        let mut pooled = config.clone();
        pooled.options(format!(
            "{given} -c search_path={schema} -c client_min_messages=warning \
             -c default_transaction_read_only=on \
             -c lock_timeout={} -c statement_timeout={} -c idle_in_transaction_session_timeout={}",
            LOCK_TIMEOUT.as_millis(),
            STATEMENT_TIMEOUT.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        ));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(pooled, tls.clone(), recycling);
        let size = options.max_connections.max(2);
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| DbError::Other(error.to_string()))?;
        let (class, object) = migrate::lock_key("write", schema);
        let shared = Shared {
            schema,
            config,
            tls,
            pool,
            writers: Semaphore::new(size.div_ceil(2)),
            begin: format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                 SELECT pg_advisory_xact_lock({class}, {object})"
            ),
            writing: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbError> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move {
            let writes = shared.writing.lock().contains(statement.sql());
            if !writes && let Some(rows) = shared.read(&statement).await? {
                return Ok(rows);
            }
            let answers = shared.write(&[statement.unexpecting()]).await?;
            Ok(answers.into_iter().flat_map(|answer| answer.rows).collect())
        })
        .await
    }

    async fn execute(&self, statement: Statement) -> Result<u64, DbError> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move {
            let answers = shared.write(&[statement.unexpecting()]).await?;
            Ok(answers.iter().map(|answer| answer.affected).sum())
        })
        .await
    }

    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, DbError> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move {
            let answers = shared.write(&statements).await?;
            Ok(answers.into_iter().map(|answer| answer.rows).collect())
        })
        .await
    }

    async fn migrate(&self, migrations: &[Migration]) -> Result<(), DbError> {
        migrate::run(&self.shared, migrations).await
    }
}

/// Runs work to its end, also when nobody waits for it any more: a transaction that is broken off in
/// the middle costs a connection.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, DbError>> + Send + 'static,
) -> Result<T, DbError> {
    let timed = tokio::time::timeout(CALL_TIMEOUT, work);
    match tokio::spawn(timed.in_current_span()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(DbError::Unavailable("no answer came in time".into())),
        Err(error) => Err(DbError::Unavailable(error.to_string())),
    }
}
