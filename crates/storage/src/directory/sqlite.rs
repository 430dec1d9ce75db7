//! The directory on SQLite: one file, one writer, a few readers.
//!
//! Calls run on the blocking pool. Writes go through the single writing connection, in `IMMEDIATE`
//! transactions with `synchronous=FULL`: calls that wait while one is under way share the next one
//! ([`group`]). Statements that only read use connections of their own, so a long read never holds up a
//! write.

mod group;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use convene_db::{Database, DbError, Migration, Row, Statement, Value};
use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, types::ValueRef};
use tokio::sync::Semaphore;

use self::group::Group;
use super::with_causes;
use crate::sqlite::{BUSY_TIMEOUT, Durability, is_unavailable, open_reader, open_writer};

/// Reads that run at the same time on one database; further ones wait.
const MAX_READERS: usize = 4;

/// The pause before a file that others are opening too is tried again.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 256;

/// A directory database in one SQLite file.
#[derive(Clone)]
pub struct SqliteDatabase {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Calls that write and wait for their transaction.
    waiting: Group,
    idle_readers: Mutex<Vec<Connection>>,
    reads: Semaphore,
}

impl SqliteDatabase {
    /// Opens the file, or makes it; its folder must exist. Blocks for a moment.
    ///
    /// # Errors
    /// [`DbError::Unavailable`] when the file cannot be opened, is no database, or cannot be
    /// written durably.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DbError> {
        let path = path.as_ref().to_owned();
        let writer = open_beside_others(&path)
            .map_err(|error| DbError::Unavailable(format!("{}: {error}", path.display())))?;
        writer.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                writer: Mutex::new(writer),
                waiting: Group::default(),
                idle_readers: Mutex::new(Vec::new()),
                reads: Semaphore::new(MAX_READERS),
            }),
        })
    }

    /// Runs statements in one transaction, perhaps together with those of others.
    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, DbError> {
        let (answer, begins) = self.shared.waiting.push(statements);
        if begins {
            let shared = Arc::clone(&self.shared);
            let writing = group::Writing::new(shared);
            tokio::task::spawn_blocking(move || writing.run());
        }
        answer.await.map_err(unavailable)?
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbError> {
        let permit = self.shared.reads.acquire().await.map_err(unavailable)?;
        let shared = Arc::clone(&self.shared);
        let (statement, rows) = blocking(move || {
            let rows = shared.read(&statement)?;
            Ok((statement, rows))
        })
        .await?;
        drop(permit);
        match rows {
            Some(rows) => Ok(rows),
            None => {
                let answers = self.write(vec![statement.unexpecting()]).await?;
                Ok(answers.into_iter().flat_map(|answer| answer.rows).collect())
            }
        }
    }

    async fn execute(&self, statement: Statement) -> Result<u64, DbError> {
        let answers = self.write(vec![statement.unexpecting()]).await?;
        Ok(answers.iter().map(|answer| answer.affected).sum())
    }

    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, DbError> {
        let answers = self.write(statements).await?;
        Ok(answers.into_iter().map(|answer| answer.rows).collect())
    }

    async fn migrate(&self, migrations: &[Migration]) -> Result<(), DbError> {
        let migrations = migrations
            .iter()
            .map(|migration| {
                let name = format!("V{}__{}", migration.version, migration.name);
                refinery::Migration::unapplied(&name, migration.sql)
                    .map_err(|error| DbError::Other(format!("migration {name}: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let lock = lock_path(&self.shared.path);
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            // SQLite's own locks end with each migration's transaction; this one spans them all.
            let lock = File::create(&lock).map_err(unavailable)?;
            lock.lock().map_err(unavailable)?;
            refinery::Runner::new(&migrations)
                .run(&mut *shared.writer.lock())
                .map(|_| ())
                .map_err(|error| DbError::Other(format!("migrations: {}", with_causes(&error))))
        })
        .await
    }
}

impl Shared {
    /// Runs a statement that only reads; `None` when it writes.
    fn read(&self, statement: &Statement) -> Result<Option<Vec<Row>>, DbError> {
        let idle = self.idle_readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = open_reader(&self.path).map_err(from_sqlite)?;
                connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
                connection
            }
        };
        let readonly = prepare(&connection, statement)?.readonly();
        let rows = if readonly { Some(run(&connection, statement)?.rows) } else { None };
        // A connection that failed is not kept.
        self.idle_readers.lock().push(connection);
        Ok(rows)
    }
}

/// Opens the file for writing while other processes may do the same: where one of them is about to
/// turn a new file to WAL, SQLite sometimes says that it is busy at once instead of waiting.
fn open_beside_others(path: &Path) -> Result<Connection, rusqlite::Error> {
    let mut waited = Duration::ZERO;
    loop {
        match open_writer(path, Durability::Full, "PRAGMA foreign_keys = ON") {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && waited < BUSY_TIMEOUT =>
            {
                std::thread::sleep(OPEN_PAUSE);
                waited += OPEN_PAUSE;
            }
            opened => return opened,
        }
    }
}

struct Answer {
    rows: Vec<Row>,
    /// Rows returned by a statement that returns some, otherwise rows changed.
    affected: u64,
}

/// Runs the statements of one call; the first that does not meet what it should ends it.
fn run_all(connection: &Connection, statements: &[Statement]) -> Result<Vec<Answer>, DbError> {
    let mut answers = Vec::with_capacity(statements.len());
    for (index, statement) in statements.iter().enumerate() {
        let answer = run(connection, statement)?;
        if statement.expects_rows() && answer.affected == 0 {
            return Err(DbError::Unmet { index });
        }
        answers.push(answer);
    }
    Ok(answers)
}

fn prepare<'c>(
    connection: &'c Connection,
    statement: &Statement,
) -> Result<CachedStatement<'c>, DbError> {
    connection.prepare_cached(&rewrite_parameters(statement.sql())).map_err(from_sqlite)
}

fn run(connection: &Connection, statement: &Statement) -> Result<Answer, DbError> {
    let mut prepared = prepare(connection, statement)?;
    let (wanted, given) = (prepared.parameter_count(), statement.params().len());
    if wanted != given {
        return Err(DbError::Other(format!(
            "{given} parameters for a statement with {wanted}: {}",
            statement.sql()
        )));
    }
    for (index, value) in statement.params().iter().enumerate() {
        bind(&mut prepared, index + 1, value).map_err(from_sqlite)?;
    }
    if prepared.column_count() == 0 {
        let affected = prepared.raw_execute().map_err(from_sqlite)? as u64;
        return Ok(Answer { rows: Vec::new(), affected });
    }
    let columns: Arc<[String]> = prepared.column_names().map(str::to_owned).collect();
    let mut rows = Vec::new();
    let mut found = prepared.raw_query();
    while let Some(row) = found.next().map_err(from_sqlite)? {
        let values = columns
            .iter()
            .enumerate()
            .map(|(index, column)| to_value(row.get_ref(index).map_err(from_sqlite)?, column))
            .collect::<Result<Vec<_>, _>>()?;
        rows.push(Row::new(Arc::clone(&columns), values));
    }
    let affected = rows.len() as u64;
    Ok(Answer { rows, affected })
}

fn bind(
    statement: &mut rusqlite::Statement<'_>,
    index: usize,
    value: &Value,
) -> Result<(), rusqlite::Error> {
    match value {
        Value::Null => statement.raw_bind_parameter(index, rusqlite::types::Null),
        Value::Int(int) => statement.raw_bind_parameter(index, int),
        Value::Text(text) => statement.raw_bind_parameter(index, text),
        Value::Blob(bytes) => statement.raw_bind_parameter(index, bytes),
    }
}

fn to_value(value: ValueRef<'_>, column: &str) -> Result<Value, DbError> {
    match value {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(int) => Ok(Value::Int(int)),
        ValueRef::Text(text) => String::from_utf8(text.to_vec())
            .map(Value::Text)
            .map_err(|_| DbError::decode(column, "text that is not UTF-8")),
        ValueRef::Blob(bytes) => Ok(Value::Blob(bytes.to_vec())),
        ValueRef::Real(_) => {
            Err(DbError::decode(column, "a floating-point number, which is in no table of ours"))
        }
    }
}

/// Turns `$1` into `?1`: SQLite takes `$1` for a name and would number it by first appearance.
/// Texts, quoted names and comments stay as they are.
fn rewrite_parameters(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '\'', '"', '-', '/']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = if rest.starts_with('$') {
            let number = rest[1..].starts_with(|c: char| c.is_ascii_digit());
            out.push(if number { '?' } else { '$' });
            rest = &rest[1..];
            continue;
        } else if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with(['\'', '"']) {
            // A doubled quote inside a text reads as two texts side by side, which is as good.
            let quote = &rest[..1];
            rest[1..].find(quote).map_or(rest.len(), |end| end + 2)
        } else {
            1
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out.push_str(rest);
    out
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-migrations.lock");
    name.into()
}

fn from_sqlite(error: rusqlite::Error) -> DbError {
    use rusqlite::ffi;
    if let rusqlite::Error::SqliteFailure(code, message) = &error
        && matches!(
            code.extended_code,
            ffi::SQLITE_CONSTRAINT_UNIQUE
                | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                | ffi::SQLITE_CONSTRAINT_ROWID
        )
    {
        let message = message.as_deref().unwrap_or_default();
        let constraint = message.rsplit_once(": ").map_or(message, |(_, columns)| columns);
        return DbError::Unique { constraint: constraint.to_owned() };
    }
    if is_unavailable(&error) {
        return DbError::Unavailable(error.to_string());
    }
    DbError::Other(error.to_string())
}

fn unavailable(error: impl std::fmt::Display) -> DbError {
    DbError::Unavailable(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_are_rewritten() {
        for (sql, expected) in [
            ("SELECT $1, $2", "SELECT ?1, ?2"),
            ("WHERE a = $12 AND b = $1", "WHERE a = ?12 AND b = ?1"),
            ("SELECT '$1', \"$2\", $3", "SELECT '$1', \"$2\", ?3"),
            ("SELECT 'it''s $1' || $2", "SELECT 'it''s $1' || ?2"),
            ("SELECT 1 -- $1\n, $2", "SELECT 1 -- $1\n, ?2"),
            ("SELECT /* $1 ' */ $2 - 1 / 2", "SELECT /* $1 ' */ ?2 - 1 / 2"),
            ("SELECT j->>'$.a', $1", "SELECT j->>'$.a', ?1"),
            ("SELECT $name, 'open", "SELECT $name, 'open"),
            ("", ""),
        ] {
            assert_eq!(rewrite_parameters(sql), expected);
        }
    }

    #[test]
    fn a_new_file_is_opened_by_many_at_the_same_moment() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let path = dir.path().join(format!("{round}.db"));
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                let open = || {
                    start.wait();
                    SqliteDatabase::open(&path).map(|_| ())
                };
                let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                for opened in opening {
                    assert_eq!(opened.join().unwrap(), Ok(()), "round {round}");
                }
            });
        }
    }
}
