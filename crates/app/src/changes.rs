//! What App processes over one workspace database tell each other: a log of what changed.
//!
//! Each change is numbered in the transaction that makes it, in the order of the commits, so that a
//! process that reads on from a number misses nothing and sees nothing twice. A subject has one row,
//! which moves to the end when it changes again, so the log is as long as there are subjects. Never
//! says what changed into what: whoever hears of a change reads what stands.

use std::{sync::Arc, time::Duration};

use convene_db::{Db, DbError, Row, Statement, params};
use convene_model::{GroupId, UserId};
use tokio::sync::Notify;

use crate::web::rows;

/// How often the log is read for changes that other processes made; one's own are read at once.
pub(crate) const POLL_EVERY: Duration = Duration::from_secs(1);
/// The shortest pause between two readings, so that many changes are read together.
pub(crate) const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Changes that are read at a time.
const PAGE: u64 = 500;

/// Something that others may have to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// What was said in a group: its head moved.
    Head(GroupId),
    /// The group itself: made, renamed, opened or made private.
    Group(GroupId),
    /// How somebody stands with a group: what was read, whether it is muted.
    Reader(GroupId, UserId),
    /// What somebody may do: a membership, a session or a token.
    User(UserId),
    /// What somebody is called.
    Person(UserId),
}

impl Change {
    fn key(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Head(group) => ("head", group.as_str(), ""),
            Self::Group(group) => ("group", group.as_str(), ""),
            Self::Reader(group, user) => ("reader", group.as_str(), user.as_str()),
            Self::User(user) => ("user", "", user.as_str()),
            Self::Person(user) => ("person", "", user.as_str()),
        }
    }

    /// The statements that record it; they belong into the batch of the change itself.
    pub(crate) fn statements(&self) -> [Statement; 2] {
        const NEXT: &str = "UPDATE change_counter SET n = n + 1 WHERE one = 1";
        const RECORD: &str = "INSERT INTO changes (kind, group_id, user_id, change)
            SELECT $1, $2, $3, n FROM change_counter WHERE one = 1
            ON CONFLICT (kind, group_id, user_id) DO UPDATE SET change = excluded.change";
        let (kind, group, user) = self.key();
        [Statement::new(NEXT, params![]), Statement::new(RECORD, params![kind, group, user])]
    }

    fn read(row: &Row) -> Result<Self, DbError> {
        let kind: String = row.get("kind")?;
        Ok(match kind.as_str() {
            "head" => Self::Head(rows::id(row, "group_id")?),
            "group" => Self::Group(rows::id(row, "group_id")?),
            "reader" => Self::Reader(rows::id(row, "group_id")?, rows::id(row, "user_id")?),
            "user" => Self::User(rows::id(row, "user_id")?),
            "person" => Self::Person(rows::id(row, "user_id")?),
            other => {
                return Err(DbError::decode("changes.kind", format!("{other:?} is no kind")));
            }
        })
    }
}

/// Adds what others may have to hear of to a batch.
pub(crate) fn note(batch: &mut Vec<Statement>, change: &Change) {
    batch.extend(change.statements());
}

/// Wakes the reader of the log, after a change of this process was committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Notify>);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits for a change of this process, or for the time to look for those of others.
    pub(crate) async fn rung(&self) {
        let _ = tokio::time::timeout(POLL_EVERY, self.0.notified()).await;
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// A reader of the log.
pub(crate) struct Log {
    db: Db,
    read: u64,
}

impl Log {
    /// Begins behind everything that has changed until now.
    pub(crate) async fn open(db: Db) -> Result<Self, DbError> {
        const SQL: &str = "SELECT n FROM change_counter WHERE one = 1";
        let found = db.query(Statement::new(SQL, params![])).await?;
        let read = found.first().map_or(Ok(0), |row| row.get("n"))?;
        Ok(Self { db, read })
    }

    /// Whether an answer of [`Log::next`] was cut at its limit.
    pub(crate) fn has_more(&self, read: usize) -> bool {
        read as u64 >= PAGE
    }

    /// What has changed since the last call; the rest is there at the next one.
    pub(crate) async fn next(&mut self) -> Result<Vec<Change>, DbError> {
        const SQL: &str = "SELECT kind, group_id, user_id, change FROM changes
            WHERE change > $1 ORDER BY change LIMIT $2";
        let found = self.db.query(Statement::new(SQL, params![self.read, PAGE])).await?;
        let changes = found.iter().map(Change::read).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = found.last() {
            self.read = last.get("change")?;
        }
        Ok(changes)
    }
}
