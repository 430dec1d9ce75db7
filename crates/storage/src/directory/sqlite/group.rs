//! Calls that wait for the writing connection share a transaction, and so its way to the disk.
//!
//! Each call is a savepoint in it: one that fails undoes itself alone, and the next one sees what those
//! before it did, as it would after their commits. Nobody is answered before the commit, since also a
//! refusal may rest on what somebody else has only just written. A call that waits for nobody has a
//! transaction to itself.

use std::{collections::VecDeque, sync::Arc};

use convene_db::{DbError, Statement};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Answer, Shared, from_sqlite, run_all};

/// Calls of one transaction at most, so that none waits long for those that came with it.
const MAX_CALLS: usize = 64;

/// What became of a call.
type Outcome = Result<Vec<Answer>, DbError>;

/// Calls in the order in which they came.
#[derive(Default)]
pub(super) struct Group {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    calls: VecDeque<Call>,
    /// Whether somebody takes calls from it.
    is_served: bool,
}

struct Call {
    statements: Vec<Statement>,
    reply: oneshot::Sender<Outcome>,
}

impl Group {
    /// Queues a call. Whether the caller is to begin serving the queue.
    pub(super) fn push(&self, statements: Vec<Statement>) -> (oneshot::Receiver<Outcome>, bool) {
        let (reply, answer) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.calls.push_back(Call { statements, reply });
        let begins = !std::mem::replace(&mut queue.is_served, true);
        (answer, begins)
    }

    /// The next calls; `None` when there are none, and from then on nobody serves the queue.
    fn take(&self) -> Option<Vec<Call>> {
        let mut queue = self.queue.lock();
        if queue.calls.is_empty() {
            queue.is_served = false;
            return None;
        }
        let count = queue.calls.len().min(MAX_CALLS);
        Some(queue.calls.drain(..count).collect())
    }

    /// Whoever served the queue is gone: those who wait are told, and the next one begins anew.
    fn abandon(&self) {
        let mut queue = self.queue.lock();
        queue.calls.clear();
        queue.is_served = false;
    }
}

/// The duty to serve the queue, which does not get lost when there is no thread for it.
pub(super) struct Writing {
    shared: Arc<Shared>,
    is_done: bool,
}

impl Writing {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, is_done: false }
    }

    /// Writes until nobody waits. Blocks.
    pub(super) fn run(mut self) {
        while let Some(calls) = self.shared.waiting.take() {
            let (statements, replies): (Vec<_>, Vec<_>) =
                calls.into_iter().map(|call| (call.statements, call.reply)).unzip();
            let outcomes = write(&mut self.shared.writer.lock(), &statements);
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may have given up.
                let _ = reply.send(outcome);
            }
        }
        self.is_done = true;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.waiting.abandon();
        }
    }
}

/// Writes calls, in one transaction if that can be, and says what became of each.
fn write(connection: &mut Connection, calls: &[Vec<Statement>]) -> Vec<Outcome> {
    if let [_, _, ..] = calls {
        match together(connection, calls) {
            Ok(outcomes) => return outcomes,
            Err(DbError::Unavailable(why)) => {
                let unavailable = || Err(DbError::Unavailable(why.clone()));
                return calls.iter().map(|_| unavailable()).collect();
            }
            // Nothing of it was written; whose fault it was shows when each is alone.
            Err(error) => tracing::warn!(%error, "calls are written one by one"),
        }
    }
    calls.iter().map(|call| alone(connection, call)).collect()
}

fn alone(connection: &mut Connection, call: &[Statement]) -> Outcome {
    let transaction = begin(connection)?;
    let answers = run_all(&transaction, call)?;
    transaction.commit().map_err(from_sqlite)?;
    Ok(answers)
}

/// # Errors
/// [`DbError::Unavailable`] when it is not known whether the calls were written, anything else when
/// nothing was.
fn together(
    connection: &mut Connection,
    calls: &[Vec<Statement>],
) -> Result<Vec<Outcome>, DbError> {
    let mut transaction = begin(connection)?;
    let mut outcomes = Vec::with_capacity(calls.len());
    for call in calls {
        let savepoint = transaction.savepoint().map_err(from_sqlite)?;
        let outcome = run_all(&savepoint, call);
        match &outcome {
            Ok(_) => savepoint.commit().map_err(from_sqlite)?,
            Err(DbError::Unavailable(why)) => return Err(DbError::Unavailable(why.clone())),
            // Rolled back.
            Err(_) => savepoint.finish().map_err(from_sqlite)?,
        }
        outcomes.push(outcome);
    }
    transaction.commit().map_err(from_sqlite)?;
    Ok(outcomes)
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, DbError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convene_db::params;

    use super::*;

    fn open() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("t.db")).unwrap();
        let schema = "PRAGMA foreign_keys = ON;
            CREATE TABLE places (id BIGINT PRIMARY KEY, taken BIGINT NOT NULL);
            CREATE TABLE names (name TEXT PRIMARY KEY);
            CREATE TABLE of_names (name TEXT REFERENCES names DEFERRABLE INITIALLY DEFERRED);
            INSERT INTO places VALUES (1, 0)";
        connection.execute_batch(schema).unwrap();
        connection.busy_timeout(Duration::from_millis(1)).unwrap();
        (dir, connection)
    }

    fn take(name: &str, limit: i64) -> Vec<Statement> {
        vec![
            Statement::new("INSERT INTO names VALUES ($1)", params![name]),
            Statement::new("UPDATE places SET taken = taken + 1 WHERE taken < $1", params![limit])
                .expect_rows(),
        ]
    }

    fn count(connection: &Connection, sql: &str) -> i64 {
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn of_calls_that_share_a_transaction_each_sees_those_before_it_and_fails_alone() {
        let (_dir, mut connection) = open();
        let calls = [take("a", 2), take("a", 2), take("b", 1), take("b", 2), take("c", 2)];
        let outcomes = write(&mut connection, &calls);
        let errors: Vec<_> = outcomes.into_iter().map(Result::err).collect();
        assert!(errors[0].is_none(), "{errors:?}");
        assert!(matches!(errors[1], Some(DbError::Unique { .. })), "{errors:?}");
        assert_eq!(errors[2], Some(DbError::Unmet { index: 1 }));
        assert!(errors[3].is_none(), "what failed before left no trace: {errors:?}");
        assert_eq!(errors[4], Some(DbError::Unmet { index: 1 }));
        assert_eq!(count(&connection, "SELECT taken FROM places"), 2);
        assert_eq!(count(&connection, "SELECT count(*) FROM names"), 2);
    }

    #[test]
    fn one_that_fails_at_the_commit_takes_no_other_with_it() {
        let (_dir, mut connection) = open();
        let orphan = vec![Statement::new("INSERT INTO of_names VALUES ($1)", params!["nobody"])];
        let outcomes = write(&mut connection, &[take("a", 2), orphan, take("b", 2)]);
        let succeeded: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(succeeded, [true, false, true]);
        assert_eq!(count(&connection, "SELECT count(*) FROM of_names"), 0);
        assert_eq!(count(&connection, "SELECT taken FROM places"), 2);
    }

    #[test]
    fn a_file_that_somebody_else_writes_is_unavailable_to_all_and_nothing_is_written() {
        let (dir, mut connection) = open();
        let other = Connection::open(dir.path().join("t.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let outcomes = write(&mut connection, &[take("a", 2), take("b", 2)]);
        let unavailable = |outcome: &Outcome| matches!(outcome, Err(DbError::Unavailable(_)));
        assert!(outcomes.iter().all(unavailable));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(count(&connection, "SELECT count(*) FROM names"), 0);
        assert!(write(&mut connection, &[take("a", 2)])[0].is_ok(), "it is fit for use");
    }
}
