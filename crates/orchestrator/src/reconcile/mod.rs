//! Scheduled work: reconcilers that compare what is with what should be.
//!
//! Each takes no input, does a bounded piece of what is due, and is harmless when it is done twice or
//! by two processes at once: every change that it makes is a compare-and-set. A lease lets one of
//! several Orchestrators do it, so that the others need not try in vain. Each runs on a period of its
//! own, and at once when it is asked to ([`Shared::reconcile_soon`]).

mod auto_archive;
mod counts;
mod expired;
mod idle;
mod tasks;
mod tell;
mod usage;

use std::{sync::Arc, time::Duration};

use convene_db::DbError;
use tokio::time::{Instant, sleep};

use crate::Shared;

pub(crate) use tell::tell;

/// How often what has expired is removed and the counts are compared with the records.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10 * 60);

/// How much longer auto-archive waits after a round in which a group could not be archived: a store
/// that is away would otherwise have one group after another frozen and thawed in vain.
const AFTER_FAILURE: u32 = 24;

/// A lease outlives so many periods of its reconciler.
const PERIODS_PER_LEASE: u32 = 3;

/// The shortest lease is such a part of a task's lease: what a process that died was leading is then
/// led by another before its tasks are due.
const LEASES_PER_TASK_LEASE: u32 = 4;

/// What one round of scheduled work has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Controllers that were told of an epoch that was raised for all of an organization.
    pub told: u64,
    /// Tasks that nobody worked on and that were taken up.
    pub tasks: u64,
    /// Groups that were archived since nobody had used them.
    pub archived: u64,
    /// Groups that should have been archived and were not.
    pub failed: u64,
    /// Controllers that were asked whether their group is still in use.
    pub asked: u64,
    /// Rows that had expired.
    pub forgotten: u64,
    /// Organizations whose count was not that of their groups.
    pub repaired: u64,
    /// Reports of usage that were added up.
    pub folded: u64,
    /// Reservations that were settled at their full amount since their runs did not settle them.
    pub expired: u64,
}

/// A reconciler with a lease of its own, so that one that takes long holds up no other.
#[derive(Debug, Clone, Copy)]
enum Reconciler {
    Tasks,
    AutoArchive,
    Housekeeping,
    Usage,
}

impl Reconciler {
    const fn lease(self) -> &'static str {
        match self {
            Self::Tasks => "reconcile.tasks",
            Self::AutoArchive => "reconcile.auto_archive",
            Self::Housekeeping => "reconcile.housekeeping",
            Self::Usage => "reconcile.usage",
        }
    }

    /// Does what is due; returns after how long it is to be asked again.
    async fn run(self, shared: &Arc<Shared>) -> Result<Duration, DbError> {
        let every = shared.times.reconcile_every;
        match self {
            Self::Tasks => {
                tell::tell(shared).await?;
                tasks::take_up(shared).await?;
                Ok(every)
            }
            Self::AutoArchive => {
                idle::run(shared).await?;
                let round = auto_archive::run(shared).await?;
                let periods = if round.failed > 0 { AFTER_FAILURE } else { 1 };
                Ok(every.saturating_mul(periods))
            }
            Self::Housekeeping => {
                expired::run(shared).await?;
                counts::run(shared).await?;
                Ok(HOUSEKEEPING_EVERY)
            }
            Self::Usage => {
                usage::run(shared).await?;
                Ok(every)
            }
        }
    }
}

/// Does scheduled work, again and again.
pub(crate) async fn forever(shared: &Arc<Shared>) {
    tokio::join!(
        each(shared, Reconciler::Tasks),
        each(shared, Reconciler::AutoArchive),
        each(shared, Reconciler::Housekeeping),
        each(shared, Reconciler::Usage),
    );
}

/// Does all of it once and to its end.
pub(crate) async fn once(shared: &Arc<Shared>) -> Result<Reconciled, DbError> {
    let usage::Round { folded, expired } = usage::run(shared).await?;
    let told = tell::tell(shared).await?;
    let tasks = tasks::run(shared).await?;
    let asked = idle::run(shared).await?;
    let round = auto_archive::run(shared).await?;
    let forgotten = expired::run(shared).await?;
    let repaired = counts::run(shared).await?;
    let auto_archive::Round { archived, failed } = round;
    Ok(Reconciled { told, tasks, archived, failed, asked, forgotten, repaired, folded, expired })
}

/// Runs one reconciler again and again while this process leads it. The lease is kept in the pauses
/// too: another process would not keep to them.
async fn each(shared: &Arc<Shared>, reconciler: Reconciler) {
    let (name, every) = (reconciler.lease(), shared.times.reconcile_every);
    let lease = (every * PERIODS_PER_LEASE).max(shared.times.task_lease / LEASES_PER_TASK_LEASE);
    let mut due = Instant::now();
    loop {
        let leads = shared.directory.leads(name, &shared.runner.worker, shared.now(), lease).await;
        let failed = match leads {
            Ok(true) if Instant::now() < due => None,
            Ok(true) => {
                let ran = reconciler.run(shared).await;
                due = Instant::now() + *ran.as_ref().unwrap_or(&every);
                ran.err()
            }
            Ok(false) => {
                due = Instant::now();
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            tracing::warn!(%error, name, "scheduled work could not be done");
        }
        tokio::select! {
            () = sleep(every) => {}
            () = shared.runner.asked.notified() => due = Instant::now(),
        }
    }
}

impl Shared {
    /// Has scheduled work look at once whether there is something to do.
    pub(crate) fn reconcile_soon(&self) {
        self.runner.asked.notify_waiters();
    }
}
