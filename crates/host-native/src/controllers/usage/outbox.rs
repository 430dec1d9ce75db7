//! The outbox of reports, and the marks up to which ends of runs have passed through it.

use convene_db::{Db, DbError, Migration, Statement, params};
use convene_model::GroupId;

/// Reports that are read at a time.
const READ_AT_ONCE: usize = 256;
/// Statements of one transaction at most.
const WRITTEN_AT_ONCE: usize = 512;

/// The tables.
pub(in crate::controllers) const MARKS_AND_OUTBOX: Migration = Migration {
    version: 2,
    name: "usage",
    sql: "CREATE TABLE usage_marks (
              group_id TEXT PRIMARY KEY,
              seq BIGINT NOT NULL
          );
          CREATE TABLE usage_outbox (
              group_id TEXT NOT NULL,
              report_key TEXT NOT NULL,
              epoch BIGINT NOT NULL,
              body TEXT NOT NULL,
              PRIMARY KEY (group_id, report_key)
          );",
};

/// Reports that are not acknowledged yet.
pub(super) struct Outbox {
    db: Db,
}

/// A report in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) group_id: GroupId,
    pub(super) key: String,
    pub(super) epoch: u64,
    pub(super) body: String,
}

/// The statement that gives a group its mark when it wakes for the first time: ends of runs up to the
/// event `seq` are somebody else's.
pub(in crate::controllers) fn begin_mark(group_id: &GroupId, seq: u64) -> Statement {
    Statement::new(
        "INSERT INTO usage_marks (group_id, seq) VALUES ($1, $2)
         ON CONFLICT (group_id) DO NOTHING",
        params![group_id.as_str(), seq],
    )
}

impl Outbox {
    pub(super) fn new(db: Db) -> Self {
        Self { db }
    }

    /// How many reports are in it.
    pub(super) async fn len(&self) -> Result<u64, DbError> {
        let sql = "SELECT COUNT(*) AS n FROM usage_outbox";
        let rows = self.db.query(Statement::new(sql, params![])).await?;
        rows.first().map_or(Ok(0), |row| row.get("n"))
    }

    /// Adds reports and raises marks. Reports come first, so that a mark never names what was not
    /// added.
    pub(super) async fn write(
        &self,
        rows: Vec<Row>,
        marks: Vec<(GroupId, u64)>,
    ) -> Result<(), DbError> {
        let rows = rows.into_iter().map(|row| {
            Statement::new(
                "INSERT INTO usage_outbox (group_id, report_key, epoch, body)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (group_id, report_key) DO NOTHING",
                params![row.group_id.as_str(), row.key, row.epoch, row.body],
            )
        });
        let marks = marks.into_iter().map(|(group_id, seq)| {
            Statement::new(
                "INSERT INTO usage_marks (group_id, seq) VALUES ($1, $2)
                 ON CONFLICT (group_id) DO UPDATE SET seq = excluded.seq
                 WHERE usage_marks.seq < excluded.seq",
                params![group_id.as_str(), seq],
            )
        });
        self.in_parts(rows.chain(marks).collect()).await
    }

    /// The reports that are next.
    pub(super) async fn first(&self) -> Result<Vec<Row>, DbError> {
        let sql = format!(
            "SELECT group_id, report_key, epoch, body FROM usage_outbox
             ORDER BY group_id, report_key LIMIT {READ_AT_ONCE}"
        );
        let rows = self.db.query(Statement::new(sql, params![])).await?;
        let read = rows.iter().map(|row| {
            let group_id: String = row.get("group_id")?;
            Ok(Row {
                group_id: GroupId::new(group_id)
                    .map_err(|error| DbError::decode("usage_outbox.group_id", error))?,
                key: row.get("report_key")?,
                epoch: row.get("epoch")?,
                body: row.get("body")?,
            })
        });
        read.collect()
    }

    /// Takes acknowledged reports out.
    pub(super) async fn remove(&self, rows: Vec<Row>) -> Result<(), DbError> {
        let remove = rows.into_iter().map(|row| {
            Statement::new(
                "DELETE FROM usage_outbox WHERE group_id = $1 AND report_key = $2",
                params![row.group_id.as_str(), row.key],
            )
        });
        self.in_parts(remove.collect()).await
    }

    /// The marks of those groups that have one.
    pub(super) async fn marks(
        &self,
        groups: &[(GroupId, u64)],
    ) -> Result<Vec<(GroupId, u64, u64)>, DbError> {
        let mut marks = Vec::new();
        for (group_id, epoch) in groups {
            let sql = "SELECT seq FROM usage_marks WHERE group_id = $1";
            let rows = self.db.query(Statement::new(sql, params![group_id.as_str()])).await?;
            if let Some(row) = rows.first() {
                marks.push((group_id.clone(), *epoch, row.get("seq")?));
            }
        }
        Ok(marks)
    }

    async fn in_parts(&self, mut statements: Vec<Statement>) -> Result<(), DbError> {
        while !statements.is_empty() {
            let rest = statements.split_off(statements.len().min(WRITTEN_AT_ONCE));
            self.db.batch(statements).await?;
            statements = rest;
        }
        Ok(())
    }
}
