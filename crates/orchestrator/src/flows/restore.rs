//! Restore: a place under the limit, import while the snapshot is verified, activate, or back to the archive.
//!
//! The snapshot is read once: its events go to the controller as they are checked. The group is brought to
//! life only when all of the snapshot was found to be what was marked, so one that is damaged leaves nothing.
//! The import goes on where it was when the controller, the store or this process went away. What a
//! restore that failed has left with the controller is removed under a higher epoch.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convene_archive::{ArchiveError, Checked, checked_events, events_from, read_manifest};
use convene_model::{
    Code, ImportId, Problem,
    archive::{BeginImport, Manifest, manifest_path},
    infra::{GroupStatus, Initialized},
    tasks::TaskKind,
};
use futures_util::TryStreamExt;
use tokio::time::{Instant, sleep};

use super::{
    Ended, Job,
    archive::{end, failed, follow_up_task},
    follow_up::confirm_wiped,
    new_task_id,
};
use crate::{
    Shared,
    controllers::lifecycle::{TRIES, TRY_PAUSE, is_away, told_to_come_back, unless_busy},
    directory::{
        OwnedRecord,
        archives::ArchiveRow,
        steps::{Change, StepError},
        tasks::{NewTask, Outcome},
    },
    failpoints,
    lifecycle::Step,
    problem,
};

/// The pause before a controller is asked again to bring a group to life, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a controller may take in all to bring an imported group to life.
const FINISH_PATIENCE: Duration = Duration::from_secs(600);

/// How long a controller may go on to say when to come back, since what the group had is still being
/// wiped or the node has no room: a restore that follows its archive at once has to wait for that.
const BUSY_PATIENCE: Duration = Duration::from_secs(600);

/// Takes an archived group a place and begins to bring it back in the background.
///
/// # Errors
/// [`Code::ActiveGroupLimitExceeded`], [`Code::IllegalTransition`] with the group's `group_status`.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    found: &OwnedRecord,
    actor: &str,
    reason: &str,
) -> Result<Job, Problem> {
    let (task_id, now) = (new_task_id(), shared.now());
    let task = NewTask {
        task_id: &task_id,
        kind: TaskKind::Restore,
        group_id: &found.record.group_id,
        org_id: &found.record.org_id,
        actor,
        reason,
        archive_id: found.archive_id.as_ref(),
        epoch: found.record.epoch + 1,
        worker: &shared.runner.worker,
        lease_until: shared.lease_end(),
        now,
    };
    let (insert, claim) = task.insert();
    let change = Change {
        step: Step::BeginRestore,
        actor,
        reason,
        archive_id: found.archive_id.as_ref(),
        task_id: Some(&task_id),
        now,
    };
    match shared.directory.step(found, change, vec![insert]).await {
        Ok(_) => Ok(Job::new(&task, claim)),
        Err(StepError::Illegal(illegal)) => {
            let problem = Problem::from(illegal);
            Err(match &found.task_id {
                Some(task_id) => problem.with("task_id", task_id.as_str()),
                None => problem,
            })
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn run(shared: &Arc<Shared>, job: &Job) -> Ended {
    failpoints::reached(failpoints::RESTORE_BEGUN);
    match bring_back(shared, job).await {
        Ok(()) => {
            failpoints::reached(failpoints::RESTORE_FINISHED);
            activate(shared, job).await
        }
        Err(problem) => abandon(shared, job, problem).await,
    }
}

async fn bring_back(shared: &Arc<Shared>, job: &Job) -> Result<(), Problem> {
    let archive_id = job.archive_id.as_ref().ok_or(Code::Internal)?;
    let row = shared.directory.archive(archive_id).await.map_err(problem::of_directory)?;
    let row = row.ok_or_else(|| {
        tracing::error!(%archive_id, "nothing is known of an archived group's snapshot");
        Problem::new(Code::SnapshotCorrupt).detail("nothing is known of the group's snapshot")
    })?;
    if row.wiped_at.is_none() {
        job.at("wipe", 0);
        confirm_wiped(shared, job, &row).await?;
    }
    let manifest = marked(shared, job, &row).await?;
    import(shared, job, &manifest).await
}

/// The manifest of the snapshot that was marked: signed by us, and of exactly those bytes.
async fn marked(shared: &Shared, job: &Job, row: &ArchiveRow) -> Result<Manifest, Problem> {
    job.at("verify", 0);
    let path = manifest_path(&job.group_id, &row.snapshot_id);
    let keys = Some(shared.auth.own_keys());
    let manifest = read_manifest(shared.archives.as_ref(), &path, keys)
        .await
        .map_err(|error| failed(&error))?;
    let same = manifest.archive_id == row.archive_id
        && manifest.epoch == row.epoch
        && manifest.last_seq == row.last_seq
        && manifest.chain == row.chain
        && manifest.checksum == row.checksum;
    if same {
        Ok(manifest)
    } else {
        tracing::error!(path, "a snapshot is not the one that was marked");
        Err(Problem::new(Code::SnapshotCorrupt)
            .detail("it is not the snapshot that was written when the group was archived")
            .with("path", path))
    }
}

async fn import(shared: &Shared, job: &Job, manifest: &Manifest) -> Result<(), Problem> {
    let import_id = ImportId::new(job.claim.task_id.as_str()).map_err(|_| Code::Internal)?;
    let until = Instant::now() + BUSY_PATIENCE;
    let mut tries = 0;
    loop {
        match try_import(shared, job, manifest, &import_id).await {
            Err(problem) if is_away(&problem) && Instant::now() < until => {
                if let Some(pause) = told_to_come_back(&problem) {
                    sleep(pause).await;
                } else if tries < TRIES {
                    tracing::warn!(code = problem.code.as_str(), tries, "an import broke off");
                    sleep(TRY_PAUSE * 4_u32.pow(tries)).await;
                    tries += 1;
                } else {
                    return Err(problem);
                }
            }
            ended => return ended,
        }
    }
}

async fn try_import(
    shared: &Shared,
    job: &Job,
    manifest: &Manifest,
    import_id: &ImportId,
) -> Result<(), Problem> {
    let begin = BeginImport {
        import_id: import_id.clone(),
        archive_id: manifest.archive_id.clone(),
        epoch: job.epoch,
        last_seq: manifest.last_seq,
        chain: manifest.chain,
    };
    let begun = match shared.controllers.begin_import(&job.group_id, &begin).await {
        Ok(begun) => begun,
        // A group that lives refuses an import; so it does after this one was finished.
        Err(problem) if !is_away(&problem) && job.has_imported() => {
            return lives(shared, job, manifest).await.map_err(|_| problem);
        }
        Err(problem) => {
            if is_away(&problem) {
                job.imports();
            }
            return Err(problem);
        }
    };
    job.imports();
    let mut next = begun.next_seq;
    job.at("verify", manifest.bytes);
    let mut parts = checked_events(Arc::clone(&shared.archives), manifest.clone());
    let (mut imports, mut is_whole) = (false, false);
    while let Some(part) = parts.try_next().await.map_err(|error| failed(&error))? {
        match part {
            Checked::Passed { bytes } if !imports => job.advance(bytes),
            Checked::Passed { .. } => {}
            Checked::Events { first_seq, lines } => {
                if !imports {
                    job.at("import", manifest.events);
                    job.advance(next.saturating_sub(1));
                    imports = true;
                }
                let lines = events_from(next, first_seq, lines);
                if lines.is_empty() {
                    continue;
                }
                let after = piece(shared, job, import_id, next, lines).await?;
                job.advance(after - next);
                next = after;
                failpoints::reached(failpoints::RESTORE_IMPORTING);
            }
            Checked::Whole => is_whole = true,
        }
    }
    failpoints::reached(failpoints::RESTORE_IMPORTED);
    if !is_whole {
        return Err(failed(&ArchiveError::GivenUp));
    }
    failpoints::reached(failpoints::RESTORE_VERIFIED);
    job.at("activate", 0);
    finish(shared, job, manifest, import_id).await
}

/// Gives the controller the event lines from number `from` on, as soon as it has room for them; returns the
/// number that is next.
async fn piece(
    shared: &Shared,
    job: &Job,
    import_id: &ImportId,
    from: u64,
    lines: Bytes,
) -> Result<u64, Problem> {
    let import =
        || shared.controllers.import(&job.group_id, job.epoch, import_id, from, lines.clone());
    let answer = unless_busy(BUSY_PATIENCE, import).await?;
    if answer.next_seq <= from {
        tracing::error!(from, answered = answer.next_seq, "an import does not go on");
        return Err(Code::GroupControllerUnavailable.into());
    }
    Ok(answer.next_seq)
}

/// Brings the group to life. A controller that has many events to read may answer too late; it is
/// then asked again.
async fn finish(
    shared: &Shared,
    job: &Job,
    manifest: &Manifest,
    import_id: &ImportId,
) -> Result<(), Problem> {
    let until = Instant::now() + FINISH_PATIENCE;
    let (mut asked_before, mut pause) = (job.taken_over, TRY_PAUSE);
    loop {
        match shared.controllers.finish_import(&job.group_id, job.epoch, import_id).await {
            Ok(initialized) => return check(&initialized, job, manifest),
            Err(problem) if is_away(&problem) && Instant::now() < until => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(problem) if asked_before => {
                return lives(shared, job, manifest).await.map_err(|_| problem);
            }
            Err(problem) => return Err(problem),
        }
        asked_before = true;
    }
}

/// That the controller has the group, alive and whole.
async fn lives(shared: &Shared, job: &Job, manifest: &Manifest) -> Result<(), Problem> {
    let found = shared.directory.record(&job.group_id).await.map_err(problem::of_directory)?;
    let found = found.ok_or(Code::GroupNotFound)?;
    if found.record.epoch != job.epoch {
        return Err(Code::StaleEpoch.into());
    }
    let initialized = shared.controllers.initialize(&found).await?;
    check(&initialized, job, manifest)
}

fn check(initialized: &Initialized, job: &Job, manifest: &Manifest) -> Result<(), Problem> {
    let whole = initialized.epoch == job.epoch
        && initialized.head > manifest.last_seq
        && initialized.history == manifest.history;
    if whole {
        Ok(())
    } else {
        tracing::error!(?initialized, last_seq = manifest.last_seq, "a group came back otherwise");
        Err(Code::GroupControllerUnavailable.into())
    }
}

/// The group is active from here on.
async fn activate(shared: &Arc<Shared>, job: &Job) -> Ended {
    job.at("mark", 0);
    match shared.insist(|| try_activate(shared, job)).await {
        Ok(true) => {
            failpoints::reached(failpoints::RESTORE_MARKED);
            tracing::info!("group restored");
            Ended::Written
        }
        Ok(false) => Ended::Left,
        Err(error) => {
            tracing::error!(%error, "it is not known whether a group is restored");
            Ended::Left
        }
    }
}

async fn try_activate(shared: &Shared, job: &Job) -> Result<bool, convene_db::DbError> {
    let Some(found) = ours(shared, job).await? else { return Ok(false) };
    let mut active = found.record.clone();
    active.group_status = GroupStatus::Active;
    let result = serde_json::to_value(super::activation(active)).ok();
    let now = shared.now();
    let change = Change {
        step: Step::FinishRestore,
        actor: &job.actor,
        reason: &job.reason,
        archive_id: None,
        task_id: None,
        now,
    };
    let beside = vec![job.claim.end(&Outcome::Done(result), now)];
    match shared.directory.step(&found, change, beside).await {
        Ok(_) => Ok(true),
        Err(StepError::Db(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a restored group was not marked");
            Ok(false)
        }
    }
}

/// The group stays in its archive; what the controller has of it by now is removed.
async fn abandon(shared: &Arc<Shared>, job: &Job, problem: Problem) -> Ended {
    tracing::warn!(
        code = problem.code.as_str(),
        detail = problem.detail,
        "a group is not restored"
    );
    job.at("abandon", 0);
    match shared.insist(|| try_abandon(shared, job, &problem)).await {
        Ok(Abandoned::With(clean_up)) => {
            failpoints::reached(failpoints::ABANDON_MARKED);
            shared.run(*clean_up);
            Ended::Written
        }
        Ok(Abandoned::Untouched) => Ended::Written,
        Ok(Abandoned::NotOurs) => end(shared, job, Outcome::Failed(problem)).await,
        Err(error) => {
            tracing::error!(%error, "it is not known whether a restore is abandoned");
            Ended::Left
        }
    }
}

/// What became of a restore that is given up.
enum Abandoned {
    /// The controller may have something of it, which this task removes.
    With(Box<Job>),
    /// The controller was never asked to import.
    Untouched,
    /// It is somebody else's by now.
    NotOurs,
}

async fn try_abandon(
    shared: &Shared,
    job: &Job,
    problem: &Problem,
) -> Result<Abandoned, convene_db::DbError> {
    let Some(found) = ours(shared, job).await? else { return Ok(Abandoned::NotOurs) };
    let (now, task_id) = (shared.now(), new_task_id());
    let task = follow_up_task(shared, job, &task_id, TaskKind::CleanUp, found.record.epoch + 1);
    let (insert, claim) = task.insert();
    let change = Change {
        step: Step::AbandonRestore,
        actor: &job.actor,
        reason: problem.code.as_str(),
        archive_id: found.archive_id.as_ref(),
        task_id: None,
        now,
    };
    let mut beside = vec![job.claim.end(&Outcome::Failed(problem.clone()), now)];
    if job.has_imported() {
        beside.push(insert);
    }
    match shared.directory.step(&found, change, beside).await {
        Ok(_) if job.has_imported() => Ok(Abandoned::With(Box::new(Job::new(&task, claim)))),
        Ok(_) => Ok(Abandoned::Untouched),
        Err(StepError::Db(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a restore was not abandoned");
            Ok(Abandoned::NotOurs)
        }
    }
}

/// The record while it is in the hands of this task.
async fn ours(shared: &Shared, job: &Job) -> Result<Option<OwnedRecord>, convene_db::DbError> {
    let found = shared.directory.record(&job.group_id).await?;
    Ok(found.filter(|found| {
        found.record.group_status == GroupStatus::Restoring
            && found.task_id.as_ref() == Some(&job.claim.task_id)
            && found.record.epoch == job.epoch
    }))
}
