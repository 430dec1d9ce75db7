//! What is still to be done when a group's record has changed: telling the controller that its group
//! goes on or is gone, and clearing away what attempts have left behind.
//!
//! Each is repeated until it is confirmed, however often the process or its counterpart dies.

use std::sync::Arc;

use convene_model::{
    ArchiveId, Code, GroupId, Problem,
    archive::{Digest, ThawRequest, WipeRequest, content_path, manifest_path},
    infra::GroupStatus,
};
use object_store::{ObjectStoreExt, path::Path};

use super::{
    Ended, Job,
    archive::{end, failed},
};
use crate::{
    Shared,
    controllers::lifecycle::is_away,
    directory::{
        OwnedRecord,
        archives::{self, ArchiveRow},
        tasks::Outcome,
    },
    failpoints, problem,
};

/// Tells the controller that its group goes on, then removes what was written of the snapshot.
pub(super) async fn thaw(shared: &Arc<Shared>, job: &Job) -> Ended {
    let Some(archive_id) = &job.archive_id else { return done(shared, job).await };
    job.at("thaw", 0);
    let found = match shared.directory.record(&job.group_id).await {
        Ok(found) => found,
        Err(error) => return Ended::PutOff(problem::of_directory(error)),
    };
    if let Some(found) = found
        && let Err(problem) = tell_thawed(shared, &found, archive_id).await
    {
        return Ended::PutOff(problem);
    }
    failpoints::reached(failpoints::THAW_TOLD);
    job.at("tidy", 0);
    match tidy(shared, job, archive_id).await {
        Ok(()) => {
            failpoints::reached(failpoints::THAW_TIDIED);
            done(shared, job).await
        }
        Err(problem) => Ended::PutOff(problem),
    }
}

/// Tells the controller that its group goes on, unless the record says that it knows, or that
/// something else has become of the group.
///
/// # Errors
/// The controllers' problem, or that the directory failed.
pub(crate) async fn tell_thawed(
    shared: &Shared,
    found: &OwnedRecord,
    archive_id: &ArchiveId,
) -> Result<(), Problem> {
    let goes_on = match found.record.group_status {
        GroupStatus::Active | GroupStatus::Idle => true,
        GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => false,
    };
    if !goes_on || found.archive_id.as_ref() != Some(archive_id) {
        return Ok(());
    }
    let group_id = &found.record.group_id;
    let body = ThawRequest { archive_id: archive_id.clone(), epoch: found.record.epoch };
    match shared.controllers.thaw(group_id, &body).await {
        Ok(()) => {}
        // It never heard of the group, or of a later epoch: then it is not frozen for this either.
        Err(problem) if matches!(problem.code, Code::GroupNotFound | Code::StaleEpoch) => {}
        Err(problem) => return Err(problem),
    }
    shared.directory.thawed(group_id, archive_id).await.map_err(problem::of_directory)
}

/// Removes what an attempt that was never marked has left in the store.
async fn tidy(shared: &Shared, job: &Job, archive_id: &ArchiveId) -> Result<(), Problem> {
    let left = shared.directory.left_behind(archive_id).await.map_err(problem::of_directory)?;
    let Some(snapshot_id) = left else { return Ok(()) };
    remove(shared, &job.group_id, &snapshot_id).await?;
    failpoints::reached(failpoints::THAW_REMOVED);
    let forget = vec![job.claim.guard(shared.now()), archives::forget(archive_id)];
    shared.directory.write(forget).await.map_err(problem::of_directory)?;
    // Whoever wrote it and was too late for the mark looks for the row afterwards and leaves its
    // removal to us while that is there.
    remove(shared, &job.group_id, &snapshot_id).await
}

/// Removes what a process has written of a snapshot that is not its any more: it may have gone on
/// after another had given the attempt up and tidied.
pub(super) async fn take_back(shared: &Shared, job: &Job) {
    let (Some(archive_id), Some(snapshot_id)) = (&job.archive_id, job.has_written()) else {
        return;
    };
    match shared.directory.knows_archive(archive_id).await {
        // It is kept, or it is for others to tidy.
        Ok(true) => {}
        Ok(false) => match remove(shared, &job.group_id, &snapshot_id).await {
            Ok(()) => tracing::info!(%snapshot_id, "what was written of a snapshot is taken back"),
            Err(problem) => {
                let code = problem.code.as_str();
                tracing::error!(code, %snapshot_id, "parts of a snapshot that nobody knows remain");
            }
        },
        Err(error) => {
            tracing::error!(%error, %snapshot_id, "parts of a snapshot may remain unknown");
        }
    }
}

/// Removes a snapshot's files, the manifest first.
async fn remove(shared: &Shared, group_id: &GroupId, snapshot_id: &Digest) -> Result<(), Problem> {
    for path in [manifest_path(group_id, snapshot_id), content_path(group_id, snapshot_id)] {
        match shared.archives.delete(&Path::from(path.as_str())).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, path, "what was written of a snapshot is still there");
                return Err(Code::ArchiveStoreUnavailable.into());
            }
        }
    }
    Ok(())
}

/// Has the controller remove what it has of an archived group.
pub(super) async fn wipe(shared: &Arc<Shared>, job: &Job) -> Ended {
    let Some(archive_id) = &job.archive_id else { return done(shared, job).await };
    job.at("wipe", 0);
    let row = match shared.directory.archive(archive_id).await {
        Ok(row) => row,
        Err(error) => return Ended::PutOff(problem::of_directory(error)),
    };
    let Some(row) = row.filter(|row| row.wiped_at.is_none()) else {
        return done(shared, job).await;
    };
    match confirm_wiped(shared, job, &row).await {
        Ok(()) => done(shared, job).await,
        Err(problem) if is_away(&problem) => Ended::PutOff(problem),
        Err(problem) => {
            // The group is not what was archived: nothing of it may be removed.
            tracing::error!(
                code = problem.code.as_str(),
                detail = problem.detail,
                "a controller refuses to forget its group"
            );
            end(shared, job, Outcome::Failed(problem)).await
        }
    }
}

/// Has the controller remove an archived group, and notes that it has.
///
/// # Errors
/// The controllers' problem, or that the directory failed.
pub(super) async fn confirm_wiped(
    shared: &Shared,
    job: &Job,
    row: &ArchiveRow,
) -> Result<(), Problem> {
    let body = WipeRequest {
        archive_id: row.archive_id.clone(),
        epoch: row.epoch,
        last_seq: row.last_seq,
        checksum: row.checksum,
    };
    match shared.controllers.wipe(&job.group_id, &body).await {
        Ok(()) => {}
        Err(problem) if problem.code == Code::GroupNotFound => {}
        Err(problem) => return Err(problem),
    }
    failpoints::reached(failpoints::ARCHIVE_WIPED);
    let now = shared.now();
    let noted = vec![job.claim.guard(now), archives::wiped(&row.archive_id, now)];
    shared.directory.write(noted).await.map_err(problem::of_directory)
}

/// Removes what a restore that failed has left with the controller.
pub(super) async fn clean_up(shared: &Arc<Shared>, job: &Job) -> Ended {
    job.at("clean_up", 0);
    let found = match shared.directory.record(&job.group_id).await {
        Ok(found) => found,
        Err(error) => return Ended::PutOff(problem::of_directory(error)),
    };
    let Some(found) = found.filter(|found| found.record.group_status == GroupStatus::Archived)
    else {
        // Another restore replaces the half import, and a delete removes it.
        return done(shared, job).await;
    };
    match shared.controllers.remove(&job.group_id, found.record.epoch).await {
        Ok(()) => {}
        Err(problem) if problem.code == Code::GroupNotFound => {}
        Err(problem) => return Ended::PutOff(problem),
    }
    failpoints::reached(failpoints::ABANDON_REMOVED);
    done(shared, job).await
}

/// Looks once more that nothing of a deleted group is in the store.
pub(super) async fn purge(shared: &Arc<Shared>, job: &Job) -> Ended {
    job.at("purge", 0);
    match convene_archive::purge(shared.archives.as_ref(), &job.group_id).await {
        Ok(0) => {}
        Ok(files) => {
            tracing::warn!(files, "somebody wrote a snapshot of a group that was being deleted");
        }
        Err(error) => return Ended::PutOff(failed(&error)),
    }
    failpoints::reached(failpoints::PURGE_PURGED);
    done(shared, job).await
}

async fn done(shared: &Shared, job: &Job) -> Ended {
    end(shared, job, Outcome::Done(None)).await
}
