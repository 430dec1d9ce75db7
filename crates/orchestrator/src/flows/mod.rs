//! Archive, restore and delete: the steps between the states of a group's life.
//!
//! Each is a task ([`crate::directory::tasks`]) that one worker has at a time. It renews its lease
//! while it works and writes how far it has come; whoever finds a task whose worker is away takes it
//! over. Correctness never rests on a lease: every change of a record is a compare-and-set, and every
//! call to a controller names the epoch that it is for.

pub(crate) mod archive;
pub(crate) mod delete;
pub(crate) mod follow_up;
pub(crate) mod restore;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use convene_db::DbError;
use convene_model::{
    ArchiveId, Code, GroupId, OrgId, Problem, TaskId, Timestamp,
    archive::Digest,
    infra::{Activation, RoutingRecord},
    tasks::{TaskKind, TaskStatus},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Shared,
    directory::tasks::{Claim, NewTask, TaskRow},
    problem,
};

/// Progress is written at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How often a task that another process works on is looked at while a call waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The pause before a task that was put off is tried again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Who the audit says it was when scheduled work archives a group.
pub(crate) const SCHEDULED: &str = "orchestrator";

/// The pause before a group is archived by itself again after that failed: at first, and at most. It doubles
/// with each failure, and begins anew once somebody has used the group.
const ARCHIVE_PAUSE: (Duration, Duration) =
    (Duration::from_secs(10 * 60), Duration::from_secs(24 * 60 * 60));

/// What this process works on.
pub(crate) struct Runner {
    /// The name under which this process has tasks; another one after each start.
    pub(crate) worker: String,
    running: Mutex<HashMap<TaskId, watch::Receiver<()>>>,
    /// Wakes scheduled work before its period is over.
    pub(crate) asked: Notify,
}

/// A task that this process works on.
pub(crate) struct Job {
    pub(crate) kind: TaskKind,
    pub(crate) group_id: GroupId,
    pub(crate) org_id: OrgId,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) archive_id: Option<ArchiveId>,
    pub(crate) epoch: u64,
    pub(crate) claim: Claim,
    /// Whether somebody worked on it before.
    pub(crate) taken_over: bool,
    attempt: u64,
    lease_until: Timestamp,
    progress: Progress,
    /// Whether the controller may have begun an import for it.
    imported: AtomicBool,
    /// The snapshot that it may have written something of.
    written: Mutex<Option<Digest>>,
}

/// How far a task has come.
#[derive(Default)]
struct Progress {
    step: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
}

/// How the work on a task ended for now.
pub(crate) enum Ended {
    /// The task has ended, and that is written.
    Written,
    /// It cannot go on at the moment.
    PutOff(Problem),
    /// It is somebody else's, or the directory cannot be asked: nothing more is done here.
    Left,
}

impl Runner {
    pub(crate) fn new() -> Self {
        Self {
            worker: Uuid::new_v4().simple().to_string(),
            running: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// How many tasks this process works on.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().len()
    }

    /// Whether this process works on a task.
    pub(crate) fn works_on(&self, task_id: &TaskId) -> bool {
        self.running.lock().contains_key(task_id)
    }
}

impl Job {
    pub(crate) fn new(task: &NewTask<'_>, claim: Claim) -> Self {
        Self {
            kind: task.kind,
            group_id: task.group_id.clone(),
            org_id: task.org_id.clone(),
            actor: task.actor.to_owned(),
            reason: task.reason.to_owned(),
            archive_id: task.archive_id.cloned(),
            epoch: task.epoch,
            claim,
            taken_over: false,
            attempt: 1,
            lease_until: task.lease_until,
            progress: Progress::default(),
            imported: AtomicBool::new(false),
            written: Mutex::default(),
        }
    }

    pub(crate) fn taken_over(row: TaskRow, claim: Claim, lease_until: Timestamp) -> Self {
        Self {
            kind: row.task.kind,
            group_id: row.task.group_id,
            org_id: row.org_id,
            actor: row.actor,
            reason: row.reason,
            archive_id: row.archive_id,
            epoch: row.epoch,
            claim,
            taken_over: true,
            attempt: row.attempt + 1,
            lease_until,
            progress: Progress::default(),
            imported: AtomicBool::new(true),
            written: Mutex::default(),
        }
    }

    /// Says what the task is at.
    pub(crate) fn at(&self, step: &'static str, total: u64) {
        *self.progress.step.lock() = step;
        self.progress.done.store(0, Ordering::Relaxed);
        self.progress.total.store(total, Ordering::Relaxed);
    }

    /// Says that the controller may have something of an import from here on.
    pub(crate) fn imports(&self) {
        self.imported.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_imported(&self) -> bool {
        self.imported.load(Ordering::Relaxed)
    }

    /// Says that the store may have something of a snapshot from here on.
    pub(crate) fn writes(&self, snapshot_id: Digest) {
        *self.written.lock() = Some(snapshot_id);
    }

    pub(crate) fn has_written(&self) -> Option<Digest> {
        *self.written.lock()
    }

    /// Says how much more is done.
    pub(crate) fn advance(&self, by: u64) {
        self.progress.done.fetch_add(by, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The end of a lease that begins now.
    pub(crate) fn lease_end(&self) -> Timestamp {
        self.now() + self.times.task_lease
    }

    /// Works on a task in the background, to its end or until it is somebody else's.
    pub(crate) fn run(self: &Arc<Self>, job: Job) {
        let (ended, receiver) = watch::channel(());
        let task_id = job.claim.task_id.clone();
        self.runner.running.lock().insert(task_id.clone(), receiver);
        let shared = Arc::clone(self);
        let span = tracing::info_span!(
            "task", %task_id, kind = job.kind.as_str(), group_id = %job.group_id
        );
        let work = async move {
            shared.work(&job).await;
            shared.runner.running.lock().remove(&task_id);
            drop(ended);
        };
        tokio::spawn(work.instrument(span));
    }

    /// Works on a task until it has ended, is put off, or is somebody else's.
    pub(crate) async fn work(self: &Arc<Self>, job: &Job) {
        let ended = tokio::select! {
            ended = self.flow(job) => ended,
            () = self.keep(job) => Ended::Left,
        };
        match ended {
            Ended::Written => {}
            Ended::Left => {
                tracing::warn!("a task is left to whoever has it now");
                follow_up::take_back(self, job).await;
            }
            Ended::PutOff(problem) => {
                let code = problem.code.as_str();
                tracing::warn!(code, detail = problem.detail, "a task is put off");
                let doubled = PAUSE.0.saturating_mul(1 << job.attempt.min(16));
                let now = self.now();
                let due = now + doubled.min(PAUSE.1);
                if let Err(error) = self.directory.put_off(&job.claim, &problem, due, now).await {
                    // Its lease runs out, and then it is due.
                    tracing::warn!(%error, "a task could not be put off");
                }
            }
        }
    }

    async fn flow(self: &Arc<Self>, job: &Job) -> Ended {
        match job.kind {
            TaskKind::Archive => archive::run(self, job).await,
            TaskKind::Restore => restore::run(self, job).await,
            TaskKind::Delete => delete::run(self, job).await,
            TaskKind::Thaw => follow_up::thaw(self, job).await,
            TaskKind::Wipe => follow_up::wipe(self, job).await,
            TaskKind::CleanUp => follow_up::clean_up(self, job).await,
            TaskKind::Purge => follow_up::purge(self, job).await,
        }
    }

    /// Keeps a task's lease and writes its progress; returns when the task is somebody else's, or
    /// when the lease ran out because the directory could not be asked.
    async fn keep(&self, job: &Job) {
        let renew_every = (self.times.task_lease / 3).max(Duration::from_millis(10));
        let tick = PROGRESS_EVERY.min(renew_every);
        let (mut written, mut lease_until) = (("", 0, 0), job.lease_until);
        loop {
            sleep(tick).await;
            let step = *job.progress.step.lock();
            let done = job.progress.done.load(Ordering::Relaxed);
            let total = job.progress.total.load(Ordering::Relaxed);
            let now = self.now();
            if written == (step, done, total) && now + renew_every * 2 < lease_until {
                continue;
            }
            let until = now + self.times.task_lease;
            match self.directory.progress(&job.claim, step, (done, total), until, now).await {
                Ok(true) => (written, lease_until) = ((step, done, total), until),
                Ok(false) => return,
                Err(error) if self.now() >= lease_until => {
                    tracing::error!(%error, "a task's lease ran out");
                    return;
                }
                Err(error) => tracing::warn!(%error, "a task's lease could not be renewed"),
            }
        }
    }

    /// How a task stands once it has ended, or after `patience`.
    pub(crate) async fn wait_for(
        &self,
        task_id: &TaskId,
        patience: Duration,
    ) -> Result<TaskRow, Problem> {
        let deadline = Instant::now() + patience;
        let here = self.runner.running.lock().get(task_id).cloned();
        if let Some(mut here) = here {
            // The sender says nothing: that it is gone is what is waited for.
            let _ = timeout_at(deadline, here.changed()).await;
        }
        loop {
            let row = self.directory.task(task_id).await.map_err(problem::of_directory)?;
            let row = row.ok_or(Code::TaskNotFound)?;
            if row.task.status != TaskStatus::Running || Instant::now() >= deadline {
                return Ok(row);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the directory until it answers: what became of a step whose outcome is unknown is read,
    /// never assumed. Ends when the task's lease does.
    pub(crate) async fn insist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let until = Instant::now() + self.times.task_lease;
        loop {
            match ask().await {
                Err(DbError::Unavailable(why)) if Instant::now() < until => {
                    tracing::warn!(why, "the directory is asked again");
                    sleep(LOOK_EVERY).await;
                }
                answer => return answer,
            }
        }
    }
}

/// The pause before an automatic archive is tried again that has failed so many times before.
pub(crate) fn archive_pause(failed_before: u64) -> Duration {
    let doubled = 1_u32.checked_shl(u32::try_from(failed_before).unwrap_or(u32::MAX));
    let pause = doubled.map_or(ARCHIVE_PAUSE.1, |times| ARCHIVE_PAUSE.0.saturating_mul(times));
    pause.min(ARCHIVE_PAUSE.1)
}

pub(crate) fn new_task_id() -> TaskId {
    TaskId::new(Uuid::new_v4().simple().to_string()).expect("32 hexadecimal digits are an id")
}

/// What an activation and a restore answer.
pub(crate) fn activation(record: RoutingRecord) -> Activation {
    Activation {
        group_id: record.group_id,
        group_controller_id: record.group_controller_id,
        status: record.group_status,
        history_mode: record.history_mode,
        epoch: record.epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_an_archive_is_tried_again_doubles_from_ten_minutes_to_a_day() {
        let minutes = |failed| archive_pause(failed).as_secs() / 60;
        let pauses: Vec<_> = (0..9).map(minutes).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440]);
        assert_eq!(minutes(31), 1_440);
        assert_eq!(minutes(u64::MAX), 1_440);
    }
}
