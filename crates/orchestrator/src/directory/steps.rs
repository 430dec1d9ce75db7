//! Steps of a group's life as transactions.
//!
//! Each is one batch: a compare-and-set of the record on all that it was read with (status, epoch,
//! attempt), the organization's count where the two states differ in it, an event, and what else the
//! caller needs to be true or written with it. Of two that want the same record one wins; the other
//! is told [`StepError::Changed`] and reads again.

use std::sync::atomic::{AtomicU32, Ordering};

use convene_db::{DbError, Statement, params};
use convene_hop::LIFECYCLE;
use convene_model::{ArchiveId, Code, Problem, TaskId, Timestamp, infra::GroupStatus};
use tracing::Level;
use uuid::Uuid;

use super::{Directory, OwnedRecord, usage};
use crate::{
    flows::{SCHEDULED, archive_pause},
    lifecycle::{Illegal, Step},
    problem,
};

/// A step and what it writes beside the status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) step: Step,
    /// Who took it: an issuer, `controllers`, or `orchestrator` for scheduled work.
    pub(crate) actor: &'a str,
    pub(crate) reason: &'a str,
    /// The attempt to archive that the record names afterwards.
    pub(crate) archive_id: Option<&'a ArchiveId>,
    /// The task that holds the group afterwards.
    pub(crate) task_id: Option<&'a TaskId>,
    pub(crate) now: Timestamp,
}

/// Why a step was not taken; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error("the record changed meanwhile")]
    Changed,
    #[error("{active} of {limit} groups are active")]
    Full { limit: u64, active: u64 },
    #[error("the task is somebody else's now")]
    LostTask,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<StepError> for Problem {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Illegal(illegal) => illegal.into(),
            StepError::Changed | StepError::LostTask => Code::Conflict.into(),
            StepError::Full { limit, active } => Self::new(Code::ActiveGroupLimitExceeded)
                .detail(error.to_string())
                .with("limit", limit)
                .with("active", active),
            StepError::Db(error) => problem::of_directory(error),
        }
    }
}

impl Directory {
    /// Takes a step from where a record stood when it was read; returns how it stands then.
    ///
    /// `beside` is written in the same transaction. A guard among it that is not met means that the
    /// caller's task is somebody else's.
    ///
    /// # Errors
    /// [`StepError`]. After [`DbError::Unavailable`] the outcome is unknown: read the record.
    pub(crate) async fn step(
        &self,
        found: &OwnedRecord,
        change: Change<'_>,
        beside: Vec<Statement>,
    ) -> Result<OwnedRecord, StepError> {
        let after = after(found, change)?;
        let mut statements = vec![compare_and_set(found, &after)];
        let mut place_index = None;
        match (found.record.group_status.counts(), after.record.group_status.counts()) {
            (true, true) | (false, false) => {}
            (true, false) => statements.push(self.count_down(found)),
            (false, true) if change.step.needs_place() => {
                place_index = Some(statements.len());
                statements.push(self.take_place(found));
                statements.push(usage::note_peak(&found.record.org_id, change.now));
            }
            (false, true) => {
                statements.push(count_up(found));
                statements.push(usage::note_peak(&found.record.org_id, change.now));
            }
        }
        statements.push(event(found.record.group_status.as_str(), &after, change));
        statements.extend(beside);
        match self.db.batch(statements).await {
            Ok(_) => {
                tell(found.record.group_status.as_str(), &after, change);
                Ok(after)
            }
            Err(DbError::Unmet { index: 0 }) => Err(StepError::Changed),
            Err(DbError::Unmet { index }) if Some(index) == place_index => {
                let (limit, active) = self.count(&found.record.org_id).await?;
                Err(StepError::Full { limit, active })
            }
            Err(DbError::Unmet { .. }) => Err(StepError::LostTask),
            Err(error) => Err(error.into()),
        }
    }

    fn take_place(&self, found: &OwnedRecord) -> Statement {
        Statement::new(
            "UPDATE org_counts SET active = active + 1
             WHERE org_id = $1 AND active < COALESCE(max_active, $2)",
            params![found.record.org_id.as_str(), self.default_max_active],
        )
        .expect_rows()
    }

    fn count_down(&self, found: &OwnedRecord) -> Statement {
        Statement::new(
            "UPDATE org_counts SET active = active - 1 WHERE org_id = $1 AND active > 0",
            params![found.record.org_id.as_str()],
        )
    }
}

fn count_up(found: &OwnedRecord) -> Statement {
    Statement::new(
        "UPDATE org_counts SET active = active + 1 WHERE org_id = $1",
        params![found.record.org_id.as_str()],
    )
}

/// How a record stands after a step.
fn after(found: &OwnedRecord, change: Change<'_>) -> Result<OwnedRecord, Illegal> {
    let to = change.step.from(Some(found.record.group_status))?;
    let mut after = found.clone();
    after.record.group_status = to;
    after.record.epoch += u64::from(change.step.raises_epoch());
    after.archive_id = change.archive_id.cloned();
    after.task_id = change.task_id.cloned();
    after.record.idle_at = match to {
        GroupStatus::Idle => found.record.idle_at.or(Some(change.now)),
        GroupStatus::Active
        | GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => None,
    };
    (after.archive_failures, after.archive_due_at) = failures(found, change);
    match change.step {
        Step::Activate | Step::Wake | Step::FallAsleep | Step::FinishRestore => {
            after.record.last_active = found.record.last_active.max(change.now);
        }
        Step::Adopt
        | Step::BeginArchive
        | Step::Mark
        | Step::Thaw
        | Step::BeginRestore
        | Step::AbandonRestore
        | Step::BeginDelete
        | Step::FinishDelete => {}
    }
    Ok(after)
}

/// How often a group could not be archived by itself by then, and when that is tried again. Who archives a
/// group by hand, or uses it, is told or tries again; scheduled work has nothing but this.
fn failures(found: &OwnedRecord, change: Change<'_>) -> (u64, Option<Timestamp>) {
    let before = found.archive_failures;
    match change.step {
        Step::Thaw if change.actor == SCHEDULED => {
            (before.saturating_add(1), Some(change.now + archive_pause(before)))
        }
        Step::Thaw | Step::FallAsleep | Step::BeginArchive | Step::BeginDelete => {
            (before, found.archive_due_at)
        }
        Step::Adopt
        | Step::Activate
        | Step::Wake
        | Step::Mark
        | Step::BeginRestore
        | Step::FinishRestore
        | Step::AbandonRestore
        | Step::FinishDelete => (0, None),
    }
}

fn compare_and_set(found: &OwnedRecord, after: &OwnedRecord) -> Statement {
    let text = |id: Option<&str>| id.map(str::to_owned);
    Statement::new(
        "UPDATE routing_records
         SET status = $5, epoch = $6, archive_id = $7, task_id = $8, last_active = $9, idle_at = $10,
             archive_failures = $11, archive_due_at = $12
         WHERE group_id = $1 AND status = $2 AND epoch = $3
           AND archive_id IS NOT DISTINCT FROM $4",
        params![
            found.record.group_id.as_str(),
            found.record.group_status.as_str(),
            found.record.epoch,
            text(found.archive_id.as_ref().map(ArchiveId::as_str)),
            after.record.group_status.as_str(),
            after.record.epoch,
            text(after.archive_id.as_ref().map(ArchiveId::as_str)),
            text(after.task_id.as_ref().map(TaskId::as_str)),
            after.record.last_active.millis(),
            after.record.idle_at.map(Timestamp::millis),
            after.archive_failures,
            after.archive_due_at.map(Timestamp::millis),
        ],
    )
    .expect_rows()
}

/// Says in the log that a group's life has gone a step on.
pub(super) fn tell(from: &str, after: &OwnedRecord, change: Change<'_>) {
    let record = &after.record;
    let task_id = change.task_id.map(TaskId::as_str);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: LIFECYCLE, $level,
                group_id = %record.group_id, org_id = %record.org_id, from,
                to = record.group_status.as_str(), epoch = record.epoch, actor = change.actor,
                reason = change.reason, task_id, "group"
            )
        };
    }
    match change.step {
        // Groups fall asleep and wake all the time.
        Step::Wake | Step::FallAsleep => line!(Level::DEBUG),
        Step::Adopt
        | Step::Activate
        | Step::BeginArchive
        | Step::Mark
        | Step::Thaw
        | Step::BeginRestore
        | Step::FinishRestore
        | Step::AbandonRestore
        | Step::BeginDelete
        | Step::FinishDelete => line!(Level::INFO),
    }
}

/// The id of an event: those of one group that are of the same millisecond are in the order of their ids, too.
fn event_id(now: Timestamp) -> String {
    static EVENTS: AtomicU32 = AtomicU32::new(0);
    let nth = EVENTS.fetch_add(1, Ordering::Relaxed);
    let random = Uuid::new_v4().as_u128() & 0xffff_ffff_ffff;
    format!("{:012x}{nth:08x}{random:012x}", now.millis())
}

/// The event of a step; `from` is the name of the state that it led from.
pub(super) fn event(from: &str, after: &OwnedRecord, change: Change<'_>) -> Statement {
    Statement::new(
        "INSERT INTO lifecycle_events
         (event_id, at, group_id, org_id, from_status, to_status, epoch, actor, reason, task_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            event_id(change.now),
            change.now.millis(),
            after.record.group_id.as_str(),
            after.record.org_id.as_str(),
            from,
            after.record.group_status.as_str(),
            after.record.epoch,
            change.actor,
            change.reason,
            change.task_id.map(|id| id.as_str().to_owned()),
        ],
    )
}
