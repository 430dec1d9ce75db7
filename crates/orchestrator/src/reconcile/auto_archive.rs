//! Archives groups that have slept for longer than their organization wants, and those of which that failed
//! after a pause that grows with each failure ([`crate::flows::archive_pause`]).

use std::sync::Arc;

use convene_db::DbError;
use convene_model::{GroupId, tasks::TaskStatus};
use tokio::task::JoinSet;

use crate::{
    Shared,
    flows::{SCHEDULED, archive, follow_up},
};

/// Groups that are looked at in one round.
const PER_ROUND: usize = 64;

/// Groups that are archived at the same time.
const AT_ONCE: usize = 2;

/// Why the audit says that it was.
const REASON: &str = "nobody used it";

/// What a round has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    pub(super) archived: u64,
    pub(super) failed: u64,
}

pub(super) async fn run(shared: &Arc<Shared>) -> Result<Round, DbError> {
    let default = shared.times.auto_archive_after;
    let unused = shared.directory.unused_groups(default, shared.now(), PER_ROUND).await?;
    let (mut unused, mut working, mut round) =
        (unused.into_iter(), JoinSet::new(), Round::default());
    loop {
        // After a failure the next one would most likely be frozen and thawed in vain as well.
        while working.len() < AT_ONCE
            && round.failed == 0
            && let Some(group_id) = unused.next()
        {
            let shared = Arc::clone(shared);
            working.spawn(async move { archive_one(&shared, &group_id).await });
        }
        let Some(worked) = working.join_next().await else { return Ok(round) };
        match worked {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(true))) => round.archived += 1,
            Ok(Ok(Some(false))) => round.failed += 1,
            Ok(Err(error)) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "an archive broke off");
                round.failed += 1;
            }
        }
    }
}

/// Archives a group; `None` when it is in use by now, `Some(false)` when it failed.
async fn archive_one(shared: &Arc<Shared>, group_id: &GroupId) -> Result<Option<bool>, DbError> {
    let Some(found) = shared.directory.record(group_id).await? else { return Ok(None) };
    if let Some(archive_id) = &found.archive_id {
        // The attempt before failed; its end comes first.
        let told = follow_up::tell_thawed(shared, &found, archive_id).await;
        return Ok(told.is_err().then_some(false));
    }
    let job = match archive::begin(shared, &found, SCHEDULED, REASON).await {
        Ok(job) => job,
        Err(problem) => {
            tracing::debug!(%group_id, code = problem.code.as_str(), "not archived");
            return Ok(None);
        }
    };
    let task_id = job.claim.task_id.clone();
    // A task of its own, so that a round that is given up takes no archive with it.
    shared.run(job);
    loop {
        let waited = shared.wait_for(&task_id, shared.times.call_waits).await;
        match waited.map(|row| row.task.status) {
            Ok(TaskStatus::Running) => {}
            Ok(TaskStatus::Done) => return Ok(Some(true)),
            Ok(TaskStatus::Failed) | Err(_) => return Ok(Some(false)),
        }
    }
}
