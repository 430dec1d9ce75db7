//! One call on one connection: a read, or a transaction under the schema's lock.

use std::{future::poll_fn, pin::Pin, task::Poll};

use convene_db::{DbError, Row, Statement};
use deadpool_postgres::Object;
use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;

use super::{
    Shared,
    error::{from_pool, from_postgres, is_conflict, wants_to_write},
    values::{self, Parameter},
};

/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 512;

/// Statements of a batch that are sent before the answer of the first is there.
const PIPELINED: usize = 64;

/// How often a read is tried on another connection, and a transaction that the server undid because
/// of somebody else is begun.
const MAX_ATTEMPTS: usize = 3;

/// What a statement came to.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// Rows returned by a statement that returns some, otherwise rows changed.
    pub(super) affected: u64,
}

/// Why a statement failed.
enum Failed {
    Postgres(tokio_postgres::Error),
    Port(DbError),
}

/// A connection that is closed, not reused, unless it is given back: whoever gives up waiting in
/// the middle of a transaction leaves nothing open.
struct Connection(Option<Object>);

impl Shared {
    /// Runs a statement that only reads; `None` when it writes.
    pub(super) async fn read(&self, statement: &Statement) -> Result<Option<Vec<Row>>, DbError> {
        let mut attempts = 1;
        loop {
            let connection = self.connect().await?;
            match connection.run_alone(statement).await {
                Ok(answer) => {
                    connection.give_back();
                    return Ok(Some(answer.rows));
                }
                Err(Failed::Postgres(error)) if wants_to_write(&error) => {
                    connection.give_back();
                    self.writing.lock().insert(statement.sql().to_owned());
                    return Ok(None);
                }
                // It may have died since it was last used, without anybody having noticed.
                Err(Failed::Postgres(error))
                    if error.as_db_error().is_none()
                        && connection.client().is_closed()
                        && attempts < MAX_ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(failed) => {
                    if failed.leaves_connection() {
                        connection.give_back();
                    }
                    return Err(failed.into());
                }
            }
        }
    }

    /// Runs statements in one transaction under the lock.
    pub(super) async fn write(&self, statements: &[Statement]) -> Result<Vec<Answer>, DbError> {
        let _turn = self
            .writers
            .acquire()
            .await
            .map_err(|error| DbError::Unavailable(error.to_string()))?;
        let mut attempts = 1;
        loop {
            let connection = self.connect().await?;
            // What has to be prepared is prepared before others wait for this transaction.
            let mut prepared = Vec::with_capacity(statements.len());
            for statement in statements {
                match connection.prepare(statement).await {
                    Ok(ready) => prepared.push((statement, ready)),
                    Err(failed) => {
                        if failed.leaves_connection() {
                            connection.give_back();
                        }
                        return Err(failed.into());
                    }
                }
            }
            let failed = match connection.transaction(&self.begin, &prepared).await {
                Ok(answers) => {
                    connection.give_back();
                    return Ok(answers);
                }
                Err(failed) => failed,
            };
            let rolled_back = failed.leaves_connection()
                && connection.client().batch_execute("ROLLBACK").await.is_ok();
            if rolled_back {
                connection.give_back();
            }
            if attempts == MAX_ATTEMPTS || !failed.is_conflict() {
                return Err(failed.into());
            }
            attempts += 1;
        }
    }

    async fn connect(&self) -> Result<Connection, DbError> {
        let object = self.pool.get().await.map_err(|error| from_pool(&error))?;
        if object.statement_cache.size() > STATEMENT_CACHE {
            object.statement_cache.clear();
        }
        Ok(Connection(Some(object)))
    }
}

impl Connection {
    fn client(&self) -> &Object {
        self.0.as_ref().expect("it is only taken when it is given back")
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }

    async fn run_alone(&self, statement: &Statement) -> Result<Answer, Failed> {
        let prepared = self.prepare(statement).await?;
        self.run(statement, &prepared).await
    }

    async fn transaction(
        &self,
        begin: &str,
        prepared: &[(&Statement, tokio_postgres::Statement)],
    ) -> Result<Vec<Answer>, Failed> {
        let ends_with_it = matches!(prepared, [(statement, prepared)]
            if !statement.expects_rows() && prepared.columns().is_empty());
        let mut answers = Vec::with_capacity(prepared.len());
        for (nth, part) in prepared.chunks(PIPELINED).enumerate() {
            let mut requests: Vec<Pin<Box<dyn Future<Output = _> + Send + '_>>> = Vec::new();
            if nth == 0 {
                requests.push(Box::pin(self.command(begin)));
            }
            for (statement, prepared) in part {
                requests.push(Box::pin(self.run(statement, prepared)));
            }
            if ends_with_it {
                // A lone statement that fails makes a rollback of it.
                requests.push(Box::pin(self.command("COMMIT")));
            }
            let mut ran = in_order(requests).await.into_iter();
            if nth == 0 {
                ran.next().transpose()?;
            }
            for (index, (statement, _)) in part.iter().enumerate() {
                let answer = ran.next().expect("each request has its answer")?;
                if statement.expects_rows() && answer.affected == 0 {
                    let index = nth * PIPELINED + index;
                    return Err(Failed::Port(DbError::Unmet { index }));
                }
                answers.push(answer);
            }
            ran.next().transpose()?;
        }
        if !ends_with_it && !prepared.is_empty() {
            self.command("COMMIT").await?;
        }
        Ok(answers)
    }

    async fn command(&self, sql: &str) -> Result<Answer, Failed> {
        self.client().batch_execute(sql).await?;
        Ok(Answer { rows: Vec::new(), affected: 0 })
    }

    async fn prepare(&self, statement: &Statement) -> Result<tokio_postgres::Statement, Failed> {
        let prepared = self.client().prepare_cached(statement.sql()).await?;
        let (wanted, given) = (prepared.params().len(), statement.params().len());
        if wanted == given {
            return Ok(prepared);
        }
        Err(Failed::Port(DbError::Other(format!(
            "{given} parameters for a statement with {wanted}: {}",
            statement.sql()
        ))))
    }

    async fn run(
        &self,
        statement: &Statement,
        prepared: &tokio_postgres::Statement,
    ) -> Result<Answer, Failed> {
        let parameters: Vec<_> = statement.params().iter().map(Parameter).collect();
        let found = self.client().query_raw(prepared, parameters).await?;
        let mut found = std::pin::pin!(found);
        let names = values::names(prepared);
        let mut rows = Vec::new();
        while let Some(row) = found.try_next().await? {
            rows.push(values::row(&row, &names).map_err(Failed::Port)?);
        }
        let affected = if prepared.columns().is_empty() {
            found.rows_affected().unwrap_or(0)
        } else {
            rows.len() as u64
        };
        Ok(Answer { rows, affected })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl Failed {
    /// Whether the connection is good for something else once the transaction is rolled back.
    fn leaves_connection(&self) -> bool {
        match self {
            Self::Port(_) => true,
            Self::Postgres(error) => {
                // A plan that a migration of another process made useless goes with its connection.
                error.code() != Some(&SqlState::FEATURE_NOT_SUPPORTED)
                    && (is_conflict(error)
                        || !matches!(from_postgres(error), DbError::Unavailable(_)))
            }
        }
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Port(_) => false,
            Self::Postgres(error) => is_conflict(error),
        }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<Failed> for DbError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Postgres(error) => from_postgres(&error),
            Failed::Port(error) => error,
        }
    }
}

/// Polls all futures together, each for the first time in its turn: a request is sent when it is
/// first polled.
async fn in_order<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let Poll::Ready(answer) = future.as_mut().poll(context)
            {
                *slot = Some(answer);
            }
        }
        if done.iter().all(Option::is_some) {
            Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
        } else {
            Poll::Pending
        }
    })
    .await
}
