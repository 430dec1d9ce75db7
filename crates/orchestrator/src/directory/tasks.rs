//! Tasks: work that goes on after a crash.
//!
//! Whoever raises a task's `attempt` has it until its lease runs out, and what it writes is guarded
//! by that number: one that was away for too long can write nothing any more.

use std::time::Duration;

use convene_db::{DbError, Row, Statement, params};
use convene_model::{
    ArchiveId, GroupId, OrgId, Problem, TaskId, Timestamp,
    tasks::{Task, TaskKind, TaskStatus},
};

use super::Directory;

const COLUMNS: &str = "task_id, kind, group_id, org_id, status, step, done, total, problem, result,
    actor, reason, archive_id, epoch, worker, attempt, lease_until, created_at, updated_at";

/// A task that is to be.
#[derive(Debug, Clone)]
pub(crate) struct NewTask<'a> {
    pub(crate) task_id: &'a TaskId,
    pub(crate) kind: TaskKind,
    pub(crate) group_id: &'a GroupId,
    pub(crate) org_id: &'a OrgId,
    pub(crate) actor: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) archive_id: Option<&'a ArchiveId>,
    /// The epoch that it works under.
    pub(crate) epoch: u64,
    pub(crate) worker: &'a str,
    /// Until when its maker has it, or when it is due.
    pub(crate) lease_until: Timestamp,
    pub(crate) now: Timestamp,
}

/// A task as it stands.
#[derive(Debug, Clone)]
pub(crate) struct TaskRow {
    pub(crate) task: Task,
    pub(crate) org_id: OrgId,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) archive_id: Option<ArchiveId>,
    pub(crate) epoch: u64,
    pub(crate) attempt: u64,
    pub(crate) lease_until: Timestamp,
}

/// The right to work on a task.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) task_id: TaskId,
    worker: String,
    attempt: u64,
}

/// How a task ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Done(Option<serde_json::Value>),
    Failed(Problem),
}

impl NewTask<'_> {
    /// The statement that makes it, and the right to work on it.
    pub(crate) fn insert(&self) -> (Statement, Claim) {
        let statement = Statement::new(
            "INSERT INTO tasks
             (task_id, kind, group_id, org_id, status, step, done, total, actor, reason,
              archive_id, epoch, worker, attempt, lease_until, created_at, updated_at)
             VALUES ($1, $2, $3, $4, 'running', 'begin', 0, 0, $5, $6, $7, $8, $9, 1, $10, $11, $11)",
            params![
                self.task_id.as_str(),
                self.kind.as_str(),
                self.group_id.as_str(),
                self.org_id.as_str(),
                self.actor,
                self.reason,
                self.archive_id.map(|id| id.as_str().to_owned()),
                self.epoch,
                self.worker,
                self.lease_until.millis(),
                self.now.millis(),
            ],
        );
        let claim =
            Claim { task_id: self.task_id.clone(), worker: self.worker.to_owned(), attempt: 1 };
        (statement, claim)
    }
}

impl Claim {
    /// The statement that ends the task; in a batch it is the guard that it is still this one's.
    pub(crate) fn end(&self, outcome: &Outcome, now: Timestamp) -> Statement {
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let (status, problem, result) = match outcome {
            Outcome::Done(result) => {
                let result = result.as_ref().map(|result| json(serde_json::to_string(result)));
                (TaskStatus::Done, None, result)
            }
            Outcome::Failed(problem) => {
                (TaskStatus::Failed, Some(json(serde_json::to_string(problem))), None)
            }
        };
        let mut values = self.params();
        values.extend(params![status.as_str(), problem, result, now.millis()]);
        Statement::new(
            "UPDATE tasks SET status = $4, problem = $5, result = $6, updated_at = $7,
                    step = 'end', done = CASE WHEN $4 = 'done' THEN total ELSE done END
             WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND status = 'running'",
            values,
        )
        .expect_rows()
    }

    /// The guard that the task is still this one's.
    pub(crate) fn guard(&self, now: Timestamp) -> Statement {
        let mut values = self.params();
        values.extend(params![now.millis()]);
        Statement::new(
            "UPDATE tasks SET updated_at = $4
             WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND status = 'running'",
            values,
        )
        .expect_rows()
    }

    fn params(&self) -> Vec<convene_db::Value> {
        params![self.task_id.as_str(), &self.worker, self.attempt]
    }
}

impl Directory {
    /// A task, if there is one of that name.
    pub(crate) async fn task(&self, task_id: &TaskId) -> Result<Option<TaskRow>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE task_id = $1");
        let rows = self.db.query(Statement::new(sql, params![task_id.as_str()])).await?;
        rows.first().map(TaskRow::try_from).transpose()
    }

    /// Tasks that are due: nobody works on them, or whoever did is away.
    pub(crate) async fn due_tasks(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<TaskRow>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks WHERE status = 'running' AND lease_until <= $1
             ORDER BY lease_until LIMIT {limit}"
        );
        let rows = self.db.query(Statement::new(sql, params![now.millis()])).await?;
        rows.iter().map(TaskRow::try_from).collect()
    }

    /// Takes a due task over; `None` when somebody was faster.
    pub(crate) async fn claim(
        &self,
        row: &TaskRow,
        worker: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, DbError> {
        let claimed = self
            .db
            .execute(Statement::new(
                "UPDATE tasks SET worker = $2, attempt = attempt + 1, lease_until = $3,
                        updated_at = $4
                 WHERE task_id = $1 AND status = 'running' AND attempt = $5 AND lease_until <= $4",
                params![
                    row.task.task_id.as_str(),
                    worker,
                    (now + lease).millis(),
                    now.millis(),
                    row.attempt,
                ],
            ))
            .await?;
        Ok((claimed > 0).then(|| Claim {
            task_id: row.task.task_id.clone(),
            worker: worker.to_owned(),
            attempt: row.attempt + 1,
        }))
    }

    /// Writes how far a task has come, and keeps it until `lease_until`; false when it is somebody
    /// else's by now.
    pub(crate) async fn progress(
        &self,
        claim: &Claim,
        step: &str,
        (done, total): (u64, u64),
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let mut values = claim.params();
        values.extend(params![step, done, total, lease_until.millis(), now.millis()]);
        let written = self
            .db
            .execute(Statement::new(
                "UPDATE tasks SET step = $4, done = $5, total = $6, lease_until = $7, updated_at = $8
                 WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND status = 'running'",
                values,
            ))
            .await?;
        Ok(written > 0)
    }

    /// Puts a task off until `due`; false when it is somebody else's by now.
    pub(crate) async fn put_off(
        &self,
        claim: &Claim,
        problem: &Problem,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let mut values = claim.params();
        let problem = serde_json::to_string(problem).unwrap_or_default();
        values.extend(params![problem, due.millis(), now.millis()]);
        let written = self
            .db
            .execute(Statement::new(
                "UPDATE tasks SET problem = $4, lease_until = $5, updated_at = $6
                 WHERE task_id = $1 AND worker = $2 AND attempt = $3 AND status = 'running'",
                values,
            ))
            .await?;
        Ok(written > 0)
    }

    /// Ends a task that changes nothing else; false when it is somebody else's by now.
    pub(crate) async fn end_task(
        &self,
        claim: &Claim,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        Ok(self.db.execute(claim.end(outcome, now)).await? > 0)
    }

    /// Removes tasks that ended before `until`.
    pub(crate) async fn forget_tasks(&self, until: Timestamp) -> Result<u64, DbError> {
        self.db
            .execute(Statement::new(
                "DELETE FROM tasks WHERE status <> 'running' AND updated_at < $1",
                params![until.millis()],
            ))
            .await
    }
}

impl TryFrom<&Row> for TaskRow {
    type Error = DbError;

    fn try_from(row: &Row) -> Result<Self, DbError> {
        let text = |column: &str| row.get::<String>(column);
        let impossible = |column: &str, value: &str| {
            let task = text("task_id").unwrap_or_default();
            DbError::decode(format!("tasks.{column}"), format!("task {task:?} has {value:?}"))
        };
        let (kind, status) = (text("kind")?, text("status")?);
        let (task_id, group_id, org_id) = (text("task_id")?, text("group_id")?, text("org_id")?);
        let archive_id: Option<String> = row.get("archive_id")?;
        let (problem, result): (Option<String>, Option<String>) =
            (row.get("problem")?, row.get("result")?);
        let time = |column: &str| row.get(column).map(Timestamp::from_millis);
        Ok(Self {
            task: Task {
                task_id: TaskId::new(&task_id).map_err(|_| impossible("task_id", &task_id))?,
                kind: TaskKind::parse(&kind).ok_or_else(|| impossible("kind", &kind))?,
                group_id: GroupId::new(&group_id).map_err(|_| impossible("group_id", &group_id))?,
                status: TaskStatus::parse(&status).ok_or_else(|| impossible("status", &status))?,
                step: text("step")?,
                done: row.get("done")?,
                total: row.get("total")?,
                problem: problem
                    .map(|json| {
                        serde_json::from_str(&json).map_err(|_| impossible("problem", &json))
                    })
                    .transpose()?,
                result: result
                    .map(|json| {
                        serde_json::from_str(&json).map_err(|_| impossible("result", &json))
                    })
                    .transpose()?,
                created_at: time("created_at")?,
                updated_at: time("updated_at")?,
            },
            org_id: OrgId::new(&org_id).map_err(|_| impossible("org_id", &org_id))?,
            actor: text("actor")?,
            reason: text("reason")?,
            archive_id: archive_id
                .map(|id| ArchiveId::new(&id).map_err(|_| impossible("archive_id", &id)))
                .transpose()?,
            epoch: row.get("epoch")?,
            attempt: row.get("attempt")?,
            lease_until: time("lease_until")?,
        })
    }
}
