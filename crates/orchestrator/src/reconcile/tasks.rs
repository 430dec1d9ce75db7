//! Takes up tasks that nobody works on: those of a process that died, those that were put off, and
//! those that were due later from the beginning.

use std::sync::Arc;

use convene_db::DbError;
use futures_util::future::join_all;

use crate::{Shared, flows::Job};

/// Tasks that one process has in hand at the same time by taking them up.
const AT_ONCE: usize = 16;

/// Takes tasks up and works on them in the background.
pub(super) async fn take_up(shared: &Arc<Shared>) -> Result<(), DbError> {
    for job in claim(shared).await? {
        shared.run(job);
    }
    Ok(())
}

/// Takes tasks up and works on them until they end or are put off; how many.
pub(super) async fn run(shared: &Arc<Shared>) -> Result<u64, DbError> {
    let jobs = claim(shared).await?;
    join_all(jobs.iter().map(|job| shared.work(job))).await;
    Ok(jobs.len() as u64)
}

async fn claim(shared: &Arc<Shared>) -> Result<Vec<Job>, DbError> {
    let free = AT_ONCE.saturating_sub(shared.runner.running());
    let mut jobs = Vec::new();
    for row in shared.directory.due_tasks(shared.now(), free).await? {
        // A process that stood still for longer than its leases is not away: it goes on with what it was at,
        // unless another has taken that over, and finds that out by itself.
        if shared.runner.works_on(&row.task.task_id) {
            continue;
        }
        let (now, lease) = (shared.now(), shared.times.task_lease);
        let claimed = shared.directory.claim(&row, &shared.runner.worker, now, lease).await?;
        let Some(claim) = claimed else { continue };
        tracing::info!(
            task_id = %row.task.task_id, kind = row.task.kind.as_str(),
            group_id = %row.task.group_id, since = %row.lease_until, "a task is taken up"
        );
        jobs.push(Job::taken_over(row, claim, now + lease));
    }
    Ok(jobs)
}
