//! `GET /groups/{id}/history`: a page of a group's history, for the user of the routing token.
//!
//! The query and the answer pass through as they are. The history of an archived group comes from
//! its snapshot, by one range read.
//!
//! Errors: 401 for either token, 403 `forbidden`, `stale_epoch`, `access_revoked`,
//! 404 `group_not_found`, 409 `snapshot_corrupt`, 410 `group_deleted`, 502
//! `group_controller_unavailable`, 503 `archive_store_unavailable`, and the controller's own.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use convene_archive::{ArchiveError, page};
use convene_hop::{ApiError, RawRequest};
use convene_model::{
    Code, GroupId, Problem,
    archive::Manifest,
    history::{HistoryPage, HistoryQuery},
    infra::GroupStatus,
    limits::MAX_PAGE,
};

use super::Admission;
use crate::{
    Shared,
    controllers::UserRequest,
    directory::OwnedRecord,
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    RawQuery(query): RawQuery,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let Admission { found, routing_token } = orchestra.admit_reader(group_id, &request).await?;
    let asked = parse(query.as_deref())?;
    match found.record.group_status {
        GroupStatus::Active | GroupStatus::Idle | GroupStatus::Archiving => {
            let user = UserRequest {
                record: &found.record,
                query: query.as_deref(),
                routing_token: &routing_token,
            };
            Ok(orchestra.controllers.history(user).await?)
        }
        GroupStatus::Archived | GroupStatus::Restoring => {
            let page = archived(&orchestra, &found, asked).await?;
            Ok(orchestra.read_out(&found, &page).await?)
        }
        GroupStatus::Deleting | GroupStatus::Deleted => Err(Code::GroupDeleted.into()),
    }
}

/// The query as the controllers read it.
fn parse(query: Option<&str>) -> Result<HistoryQuery, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest).detail(detail);
    let query: HistoryQuery = convene_hop::query(query)?;
    if let Err(limit) = query.page_size() {
        return Err(invalid(format!("limit is {limit}, but must be 1 to {MAX_PAGE}")));
    }
    if query.around.is_some() && (query.before.is_some() || query.after.is_some()) {
        return Err(invalid("around goes with neither before nor after".into()));
    }
    Ok(query)
}

async fn archived(
    shared: &Shared,
    found: &OwnedRecord,
    query: HistoryQuery,
) -> Result<HistoryPage, Problem> {
    let manifest = manifest_of(shared, found).await?;
    let read = page(Arc::clone(&shared.archives), &manifest, query).await;
    read.map_err(|error| unreadable(found, &error))
}

/// The manifest of an archived group's snapshot.
///
/// # Errors
/// [`Code::SnapshotCorrupt`], [`Code::ArchiveStoreUnavailable`].
pub(super) async fn manifest_of(
    shared: &Shared,
    found: &OwnedRecord,
) -> Result<Arc<Manifest>, Problem> {
    let archive_id = found.archive_id.as_ref().ok_or(Code::Internal)?;
    let row = shared.directory.archive(archive_id).await.map_err(problem::of_directory)?;
    let row = row.ok_or(Code::SnapshotCorrupt)?;
    let (store, keys) = (&shared.archives, shared.auth.own_keys());
    let group_id = &found.record.group_id;
    let manifest = shared.manifests.of(store.as_ref(), keys, group_id, &row.snapshot_id).await;
    manifest.map_err(|error| unreadable(found, &error))
}

/// What an app is told of a snapshot that cannot be read; the cause is in the log.
pub(super) fn unreadable(found: &OwnedRecord, error: &ArchiveError) -> Problem {
    tracing::warn!(group_id = %found.record.group_id, %error, "a snapshot cannot be read");
    error.problem()
}
