//! Delete: the controller's state, the snapshots, the records; what stays is a tombstone.
//!
//! It cannot fail, only wait: what is away is asked again until it has confirmed.

use std::sync::Arc;

use convene_model::{Code, Problem, TaskId, infra::GroupStatus, tasks::TaskKind};

use super::{
    Ended, Job,
    archive::{end, failed, follow_up_task},
    new_task_id,
};
use crate::{
    Shared,
    directory::{
        OwnedRecord, archives,
        steps::{Change, StepError},
        tasks::{NewTask, Outcome},
    },
    failpoints,
    lifecycle::Step,
    problem,
};

/// A delete that was begun, or that was under way.
pub(crate) enum Begun {
    /// This process is to work on it.
    Here(Box<Job>),
    /// Somebody does.
    Already(TaskId),
}

/// Takes a group out of service for good.
///
/// # Errors
/// [`Code::GroupDeleted`] when it is gone.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    found: &OwnedRecord,
    actor: &str,
    reason: &str,
) -> Result<Begun, Problem> {
    match (found.record.group_status, &found.task_id) {
        (GroupStatus::Deleted, _) => return Err(Code::GroupDeleted.into()),
        (GroupStatus::Deleting, Some(task_id)) => return Ok(Begun::Already(task_id.clone())),
        (
            GroupStatus::Active
            | GroupStatus::Idle
            | GroupStatus::Archiving
            | GroupStatus::Archived
            | GroupStatus::Restoring
            | GroupStatus::Deleting,
            _,
        ) => {}
    }
    let (task_id, now) = (new_task_id(), shared.now());
    let task = NewTask {
        task_id: &task_id,
        kind: TaskKind::Delete,
        group_id: &found.record.group_id,
        org_id: &found.record.org_id,
        actor,
        reason,
        archive_id: None,
        epoch: found.record.epoch + 1,
        worker: &shared.runner.worker,
        lease_until: shared.lease_end(),
        now,
    };
    let (insert, claim) = task.insert();
    let change = Change {
        step: Step::BeginDelete,
        actor,
        reason,
        archive_id: None,
        task_id: Some(&task_id),
        now,
    };
    shared.directory.step(found, change, vec![insert]).await?;
    Ok(Begun::Here(Box::new(Job::new(&task, claim))))
}

pub(super) async fn run(shared: &Arc<Shared>, job: &Job) -> Ended {
    failpoints::reached(failpoints::DELETE_BEGUN);
    job.at("controller", 0);
    match shared.controllers.remove(&job.group_id, job.epoch).await {
        Ok(()) => {}
        Err(problem) if problem.code == Code::GroupNotFound => {}
        Err(problem) => return Ended::PutOff(problem),
    }
    failpoints::reached(failpoints::DELETE_REMOVED);
    job.at("snapshots", 0);
    if let Err(error) = convene_archive::purge(shared.archives.as_ref(), &job.group_id).await {
        return Ended::PutOff(failed(&error));
    }
    failpoints::reached(failpoints::DELETE_PURGED);
    job.at("records", 0);
    match shared.insist(|| bury(shared, job)).await {
        Ok(true) => {
            failpoints::reached(failpoints::DELETE_MARKED);
            tracing::info!("group deleted");
            Ended::Written
        }
        Ok(false) => end(shared, job, Outcome::Done(None)).await,
        Err(error) => Ended::PutOff(problem::of_directory(error)),
    }
}

/// Puts the tombstone in place; false when it stands, or the task is somebody else's.
async fn bury(shared: &Shared, job: &Job) -> Result<bool, convene_db::DbError> {
    let Some(found) = shared.directory.record(&job.group_id).await? else { return Ok(false) };
    if found.record.group_status != GroupStatus::Deleting {
        return Ok(false);
    }
    let (now, task_id) = (shared.now(), new_task_id());
    // Whoever was writing a snapshot when the group was deleted may be about to put it.
    let mut task = follow_up_task(shared, job, &task_id, TaskKind::Purge, found.record.epoch);
    task.lease_until = now + shared.times.longest_archive;
    let (insert, _) = task.insert();
    let change = Change {
        step: Step::FinishDelete,
        actor: &job.actor,
        reason: &job.reason,
        archive_id: None,
        task_id: None,
        now,
    };
    let mut beside = vec![job.claim.end(&Outcome::Done(None), now), insert];
    beside.extend(archives::forget_group(&job.group_id));
    match shared.directory.step(&found, change, beside).await {
        Ok(_) => Ok(true),
        Err(StepError::Db(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a tombstone was not put in place");
            Ok(false)
        }
    }
}
