//! `POST /infra/groups/{id}/adopt`: takes a snapshot that came from elsewhere as the group's own;
//! operators only.
//!
//! The snapshot's file is in the store of archives already. The group has no record yet: it came from
//! another Convene, or the directory was lost. Who signed the snapshot is trusted because an operator
//! says so (`jwks`, for this call alone); from then on it carries this Orchestrator's own signature, so
//! that everything later checks it as ever. The group begins as archived: it is read at once, and comes
//! to life by a restore, which reads the whole snapshot and needs a place.
//!
//! Errors: 403 `forbidden`, 409 `illegal_transition` `{group_status}` (the group has a record), 409
//! `org_mismatch` (the organization is another app's), 409 `snapshot_corrupt` `{path}`, 410
//! `group_deleted`, 422 `validation_failed`, 503 `archive_store_unavailable`.

use axum::extract::State;
use convene_archive::{ArchiveError, list, read_manifest, replace_manifest};
use convene_hop::{ApiError, LIFECYCLE, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    archive::{Manifest, manifest_path},
    claims::service,
    infra::GroupStatus,
    keys::TrustedKeys,
    tasks::AdoptRequest,
};
use futures_util::TryStreamExt;

use super::MAX_LOOKS;
use crate::{
    auth::Caller,
    directory::Adoption,
    idempotency::{Answer, Scope},
    lifecycle::Step,
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    if !caller.operator {
        let problem = Problem::new(Code::Forbidden).detail("only operators adopt snapshots");
        return Err(problem.into());
    }
    let group_id = group_id.found()?;
    let body: AdoptRequest = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { adopt(&orchestra, &caller, &group_id, body).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn adopt(
    shared: &Orchestra,
    caller: &Caller,
    group_id: &GroupId,
    body: AdoptRequest,
) -> Result<Answer, Problem> {
    let invalid = |detail: String| Problem::new(Code::ValidationFailed).detail(detail);
    let owner = body.owner.unwrap_or_else(|| service::APP.to_owned());
    if !shared.auth.knows(&owner) {
        return Err(invalid(format!("{owner:?} is no app that is known here")));
    }
    let foreign = body
        .jwks
        .map(|jwks| TrustedKeys::of(service::ORCHESTRATOR, &jwks))
        .transpose()
        .map_err(|error| invalid(format!("jwks: {error}")))?;
    for _ in 0..MAX_LOOKS {
        let found = shared.directory.record(group_id).await.map_err(problem::of_directory)?;
        if let Some(found) = found {
            return match found.record.group_status {
                GroupStatus::Deleting | GroupStatus::Deleted => Err(Code::GroupDeleted.into()),
                status @ (GroupStatus::Active
                | GroupStatus::Idle
                | GroupStatus::Archiving
                | GroupStatus::Archived
                | GroupStatus::Restoring) => Err(match Step::Adopt.from(Some(status)) {
                    Err(illegal) => illegal.into(),
                    Ok(_) => Code::Internal.into(),
                }),
            };
        }
        let manifest =
            manifest(shared, group_id, body.snapshot_id.as_ref(), foreign.as_ref()).await?;
        caller.check_org(&manifest.org_id)?;
        let owned = shared.directory.owner(&manifest.org_id).await;
        if owned.map_err(problem::of_directory)?.is_some_and(|owned| owned != owner) {
            return Err(of_another(&manifest));
        }
        if foreign.is_some() {
            let manifest = manifest.clone().sign(&shared.signer.key());
            let replaced = replace_manifest(shared.archives.as_ref(), &manifest).await;
            replaced.map_err(|error| failed(&error))?;
        }
        let now = shared.now();
        let adopted = shared.directory.adopt(&manifest, &owner, &caller.issuer, now).await;
        match adopted.map_err(problem::of_directory)? {
            Adoption::Adopted(record) => {
                let (signed_by, issuer) = (&manifest.signed_by, &caller.issuer);
                tracing::warn!(
                    target: LIFECYCLE, %group_id, org_id = %manifest.org_id, owner, signed_by,
                    snapshot_id = %manifest.snapshot_id, issuer, "snapshot adopted"
                );
                return Answer::json(&record);
            }
            Adoption::OtherOwner => {
                return Err(of_another(&manifest));
            }
            // Somebody was faster.
            Adoption::Known => {}
        }
    }
    Err(Code::Conflict.into())
}

fn of_another(manifest: &Manifest) -> Problem {
    Problem::new(Code::OrgMismatch)
        .detail("the organization belongs to another app")
        .with("org_id", manifest.org_id.as_str())
}

/// The manifest of the snapshot that is asked for, or of the latest one.
async fn manifest(
    shared: &Orchestra,
    group_id: &GroupId,
    snapshot_id: Option<&convene_model::archive::Digest>,
    foreign: Option<&TrustedKeys>,
) -> Result<Manifest, Problem> {
    let store = shared.archives.as_ref();
    if let Some(snapshot_id) = snapshot_id {
        return signed(shared, &manifest_path(group_id, snapshot_id), foreign).await;
    }
    let listed: Vec<_> = list(store, Some(group_id)).try_collect().await.map_err(|e| failed(&e))?;
    let mut latest: Option<Manifest> = None;
    for listed in listed {
        let manifest = signed(shared, &listed.path, foreign).await?;
        let place = |manifest: &Manifest| (manifest.epoch, manifest.last_seq);
        if latest.as_ref().is_none_or(|latest| place(latest) < place(&manifest)) {
            latest = Some(manifest);
        }
    }
    latest.ok_or_else(|| {
        Problem::new(Code::SnapshotCorrupt).detail("the store has no snapshot of the group")
    })
}

/// The manifest at `path` with the signature of `foreign` or our own: the latter is there already
/// where an adoption was cut off before its record was written.
async fn signed(
    shared: &Orchestra,
    path: &str,
    foreign: Option<&TrustedKeys>,
) -> Result<Manifest, Problem> {
    let store = shared.archives.as_ref();
    let ours = read_manifest(store, path, Some(shared.auth.own_keys())).await;
    let Some(foreign) = foreign.filter(|_| ours.is_err()) else {
        return ours.map_err(|error| failed(&error));
    };
    read_manifest(store, path, Some(foreign)).await.map_err(|error| failed(&error))
}

fn failed(error: &ArchiveError) -> Problem {
    tracing::warn!(%error, "a snapshot cannot be adopted");
    error.problem()
}
