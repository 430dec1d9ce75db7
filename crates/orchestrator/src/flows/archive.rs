//! Archive: freeze → write → read back and verify → mark → wipe, or thaw.
//!
//! The mark and the thaw are rivals for the same record: whichever compare-and-set comes first, the
//! other finds another record than it read. The mark is also guarded by the task, so that a worker
//! whose task was taken over can neither mark nor, since only the mark makes the task of wiping, wipe.
//!
//! A freeze and a piece of an export name attempt and epoch, so they are asked for again when their answer is
//! lost: a controller answers the same while its group stands frozen for that, and refuses afterwards.

use std::{sync::Arc, time::Duration};

use convene_archive::{ArchiveError, SnapshotWriter, WriteOptions, verify};
use convene_model::{
    ArchiveId, Code, Problem,
    archive::{ExportQuery, ExportSection, FreezeRequest, Frozen, Header, Manifest, manifest_path},
    infra::{GroupStatus, HistoryMode},
    tasks::{Archived, TaskKind},
};

use super::{Ended, Job, new_task_id};
use crate::{
    Shared,
    controllers::lifecycle::until_answered,
    directory::{
        OwnedRecord, archives,
        steps::{Change, StepError},
        tasks::{NewTask, Outcome},
    },
    failpoints,
    lifecycle::Step,
    problem,
};

/// How long a controller may go on to say that it is too busy for the freeze or the next piece of an export and when to
/// come back: a node that is behind catches up, and to thaw the group would make it freeze once more for
/// nothing.
const BUSY_PATIENCE: Duration = Duration::from_secs(120);

/// Takes a group that is in use out of service and begins to write its snapshot in the background;
/// returns the task.
///
/// # Errors
/// [`Code::GroupNotActive`] with the group's `group_status`, and `task_id` where one holds the group;
/// [`Code::HistoryModeUnsupported`] for a group whose texts are not here.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    found: &OwnedRecord,
    actor: &str,
    reason: &str,
) -> Result<Job, Problem> {
    if found.record.history_mode == HistoryMode::External {
        let detail = "what was written is with the organization's own history service";
        return Err(Problem::new(Code::HistoryModeUnsupported).detail(detail));
    }
    let (task_id, now) = (new_task_id(), shared.now());
    let archive_id = ArchiveId::new(task_id.as_str()).expect("a task's id is an id");
    let task = NewTask {
        task_id: &task_id,
        kind: TaskKind::Archive,
        group_id: &found.record.group_id,
        org_id: &found.record.org_id,
        actor,
        reason,
        archive_id: Some(&archive_id),
        epoch: found.record.epoch,
        worker: &shared.runner.worker,
        lease_until: shared.lease_end(),
        now,
    };
    let (insert, claim) = task.insert();
    let change = Change {
        step: Step::BeginArchive,
        actor,
        reason,
        archive_id: Some(&archive_id),
        task_id: Some(&task_id),
        now,
    };
    match shared.directory.step(found, change, vec![insert]).await {
        Ok(_) => Ok(Job::new(&task, claim)),
        Err(StepError::Illegal(_)) => Err(not_active(found)),
        Err(error) => Err(error.into()),
    }
}

/// The refusal to archive a group that is neither active nor idle.
pub(crate) fn not_active(found: &OwnedRecord) -> Problem {
    let status = found.record.group_status.as_str();
    let problem = Problem::new(Code::GroupNotActive).with("group_status", status);
    match &found.task_id {
        Some(task_id) => problem.with("task_id", task_id.as_str()),
        None => problem,
    }
}

pub(super) async fn run(shared: &Arc<Shared>, job: &Job) -> Ended {
    let Some(archive_id) = job.archive_id.clone() else {
        return end(shared, job, Outcome::Failed(Code::Internal.into())).await;
    };
    if job.taken_over {
        let gone = Problem::new(Code::Unavailable)
            .detail("the process that wrote the snapshot went away; the group goes on");
        return give_up(shared, job, &archive_id, gone).await;
    }
    failpoints::reached(failpoints::ARCHIVE_BEGUN);
    match write(shared, job, &archive_id).await {
        Ok(manifest) => mark(shared, job, &manifest).await,
        Err(problem) => give_up(shared, job, &archive_id, problem).await,
    }
}

/// Freezes the group, writes its snapshot, and reads it back.
async fn write(
    shared: &Arc<Shared>,
    job: &Job,
    archive_id: &ArchiveId,
) -> Result<Manifest, Problem> {
    job.at("freeze", 0);
    let freeze = FreezeRequest { archive_id: archive_id.clone(), epoch: job.epoch };
    let ask = || shared.controllers.freeze(&job.group_id, &freeze);
    let frozen = until_answered(BUSY_PATIENCE, ask).await?;
    failpoints::reached(failpoints::ARCHIVE_FROZEN);
    if frozen.archive_id != *archive_id || frozen.epoch != job.epoch {
        tracing::error!(?frozen, "a group was frozen for something else");
        return Err(Code::GroupControllerUnavailable.into());
    }
    let header = Header::of(job.group_id.clone(), job.org_id.clone(), &frozen);
    let snapshot_id = header.snapshot_id();
    let path = manifest_path(&job.group_id, &snapshot_id);
    let noted = shared
        .directory
        .begin_archive_row(
            &job.claim,
            (&job.group_id, &job.org_id),
            &frozen,
            &snapshot_id,
            shared.now(),
        )
        .await
        .map_err(problem::of_directory)?;
    if !noted {
        return Err(Code::Conflict.into());
    }
    failpoints::reached(failpoints::ARCHIVE_NOTED);
    job.writes(snapshot_id);
    let written = export(shared, job, header, &frozen).await?;
    failpoints::reached(failpoints::ARCHIVE_STORED);
    job.at("verify", written.bytes);
    let mut checked = 0;
    let verified =
        verify(Arc::clone(&shared.archives), &path, Some(shared.auth.own_keys()), |bytes| {
            job.advance(bytes.saturating_sub(checked));
            checked = bytes;
        })
        .await
        .map_err(|error| not_kept(&error))?;
    if verified != written {
        return Err(not_kept(&"the snapshot reads back as another one"));
    }
    failpoints::reached(failpoints::ARCHIVE_VERIFIED);
    Ok(verified)
}

/// Streams the frozen group into the store, piece by piece.
async fn export(
    shared: &Shared,
    job: &Job,
    header: Header,
    frozen: &Frozen,
) -> Result<Manifest, Problem> {
    job.at("export", frozen.messages.saturating_add(frozen.events));
    let options = WriteOptions {
        max_plain_bytes: shared.times.max_snapshot_bytes,
        ..WriteOptions::default()
    };
    let mut writer = SnapshotWriter::begin(Arc::clone(&shared.archives), header, options)
        .await
        .map_err(|error| failed(&error))?;
    for section in ExportSection::ALL {
        let mut after = 0;
        loop {
            let query = ExportQuery {
                archive_id: frozen.archive_id.clone(),
                epoch: frozen.epoch,
                section,
                after,
            };
            let export = || shared.controllers.export(&job.group_id, &query);
            let exported = match until_answered(BUSY_PATIENCE, export).await {
                Ok(exported) => exported,
                Err(problem) => {
                    writer.abort().await;
                    return Err(problem);
                }
            };
            let lines = match writer.lines(section, exported.lines).await {
                Ok(lines) => lines,
                Err(error) => {
                    writer.abort().await;
                    return Err(failed(&error));
                }
            };
            match section {
                ExportSection::Messages | ExportSection::Events => job.advance(lines),
                ExportSection::State => {}
            }
            match exported.next {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    failpoints::reached(failpoints::ARCHIVE_EXPORTED);
    let stored = writer.store_content().await.map_err(|error| failed(&error))?;
    failpoints::reached(failpoints::ARCHIVE_CONTENT);
    let manifest = stored.sign(&shared.signer.key()).await.map_err(|error| failed(&error))?;
    // The chain speaks for the events; nothing but the controller's word does for the messages.
    if manifest.messages != frozen.messages {
        let (exported, messages) = (manifest.messages, frozen.messages);
        tracing::error!(exported, messages, "a controller exported not all of its messages");
        return Err(Code::GroupControllerUnavailable.into());
    }
    Ok(manifest)
}

/// The snapshot stands: the group is archived from here on, and its controller may forget it.
async fn mark(shared: &Arc<Shared>, job: &Job, manifest: &Manifest) -> Ended {
    job.at("mark", 0);
    let archived = Archived {
        group_id: manifest.group_id.clone(),
        archive_id: manifest.archive_id.clone(),
        snapshot_id: manifest.snapshot_id,
        path: manifest.content_path(),
        checksum: manifest.checksum,
        bytes: manifest.bytes,
        plain_bytes: manifest.plain_bytes,
        messages: manifest.messages,
        events: manifest.events,
        last_seq: manifest.last_seq,
    };
    let result = serde_json::to_value(&archived).ok();
    let marked = shared.insist(|| try_mark(shared, job, manifest, result.clone())).await;
    match marked {
        Ok(Some(wipe)) => {
            failpoints::reached(failpoints::ARCHIVE_MARKED);
            tracing::info!(
                path = archived.path,
                bytes = archived.bytes,
                messages = archived.messages,
                "group archived"
            );
            shared.run(wipe);
            Ended::Written
        }
        Ok(None) => Ended::Left,
        Err(error) => {
            tracing::error!(%error, "it is not known whether a group is archived");
            Ended::Left
        }
    }
}

/// Marks the group as archived; `None` when the group or the task is somebody else's by now.
async fn try_mark(
    shared: &Arc<Shared>,
    job: &Job,
    manifest: &Manifest,
    result: Option<serde_json::Value>,
) -> Result<Option<Job>, convene_db::DbError> {
    let archive_id = &manifest.archive_id;
    let Some(found) = shared.directory.record(&job.group_id).await? else { return Ok(None) };
    if found.archive_id.as_ref() != Some(archive_id) || found.record.epoch != job.epoch {
        return Ok(None);
    }
    let (now, task_id) = (shared.now(), new_task_id());
    let task = follow_up_task(shared, job, &task_id, TaskKind::Wipe, found.record.epoch);
    let (insert, claim) = task.insert();
    if found.record.group_status == GroupStatus::Archived {
        // It was marked by an attempt whose answer did not come; the wipe is due by itself.
        return Ok(None);
    }
    let change = Change {
        step: Step::Mark,
        actor: &job.actor,
        reason: &job.reason,
        archive_id: Some(archive_id),
        task_id: None,
        now,
    };
    let beside =
        vec![job.claim.end(&Outcome::Done(result), now), archives::keep(manifest, now), insert];
    match shared.directory.step(&found, change, beside).await {
        Ok(_) => Ok(Some(Job::new(&task, claim))),
        Err(StepError::Db(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a snapshot was not marked");
            Ok(None)
        }
    }
}

/// The group goes on, under a higher epoch. Whoever else has the record or the task by now decides.
async fn give_up(
    shared: &Arc<Shared>,
    job: &Job,
    archive_id: &ArchiveId,
    problem: Problem,
) -> Ended {
    tracing::warn!(
        code = problem.code.as_str(),
        detail = problem.detail,
        "a group is not archived"
    );
    job.at("thaw", 0);
    match shared.insist(|| try_thaw(shared, job, archive_id, &problem)).await {
        Ok(Some(thaw)) => {
            failpoints::reached(failpoints::THAW_MARKED);
            // The caller is told when the group goes on, or when that has to wait.
            Box::pin(shared.work(&thaw)).await;
            Ended::Written
        }
        Ok(None) => end(shared, job, Outcome::Failed(problem)).await,
        Err(error) => {
            tracing::error!(%error, "it is not known whether a group goes on");
            Ended::Left
        }
    }
}

/// Takes the group back; `None` when it is not this attempt's.
async fn try_thaw(
    shared: &Arc<Shared>,
    job: &Job,
    archive_id: &ArchiveId,
    problem: &Problem,
) -> Result<Option<Job>, convene_db::DbError> {
    let Some(found) = shared.directory.record(&job.group_id).await? else { return Ok(None) };
    if found.record.group_status != GroupStatus::Archiving
        || found.archive_id.as_ref() != Some(archive_id)
    {
        return Ok(None);
    }
    let (now, task_id) = (shared.now(), new_task_id());
    let task = follow_up_task(shared, job, &task_id, TaskKind::Thaw, found.record.epoch + 1);
    let (insert, claim) = task.insert();
    let change = Change {
        step: Step::Thaw,
        actor: &job.actor,
        reason: problem.code.as_str(),
        archive_id: Some(archive_id),
        task_id: None,
        now,
    };
    let beside = vec![job.claim.end(&Outcome::Failed(problem.clone()), now), insert];
    match shared.directory.step(&found, change, beside).await {
        Ok(_) => Ok(Some(Job::new(&task, claim))),
        Err(StepError::Db(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "a group was not thawed");
            Ok(None)
        }
    }
}

/// A task that follows on this one, in the hands of this process.
pub(super) fn follow_up_task<'a>(
    shared: &'a Shared,
    job: &'a Job,
    task_id: &'a convene_model::TaskId,
    kind: TaskKind,
    epoch: u64,
) -> NewTask<'a> {
    NewTask {
        task_id,
        kind,
        group_id: &job.group_id,
        org_id: &job.org_id,
        actor: &job.actor,
        reason: &job.reason,
        archive_id: job.archive_id.as_ref(),
        epoch,
        worker: &shared.runner.worker,
        lease_until: shared.lease_end(),
        now: shared.now(),
    }
}

/// Ends a task that changes nothing else.
pub(super) async fn end(shared: &Shared, job: &Job, outcome: Outcome) -> Ended {
    let ended =
        shared.insist(|| shared.directory.end_task(&job.claim, &outcome, shared.now())).await;
    match ended {
        Ok(true) => Ended::Written,
        Ok(false) => Ended::Left,
        Err(error) => Ended::PutOff(problem::of_directory(error)),
    }
}

/// What went wrong while the snapshot was written.
pub(super) fn failed(error: &ArchiveError) -> Problem {
    tracing::warn!(%error, "a snapshot cannot be written or read");
    error.problem()
}

/// The store did not keep what it was given.
fn not_kept(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a snapshot does not read back as it was written");
    Problem::new(Code::ArchiveStoreUnavailable)
        .detail("the store of archives did not keep what it was given")
}
