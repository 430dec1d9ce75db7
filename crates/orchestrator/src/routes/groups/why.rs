//! `GET /groups/{id}/messages/{message_id}/why`: why agents answered a message or did not, for the user
//! of the routing token.
//!
//! The answer passes through as it is; of an archived group it is read from the events in its
//! snapshot.
//!
//! Errors: 401 for either token, 403 `forbidden`, `stale_epoch`, `access_revoked`,
//! 404 `group_not_found`, `message_not_found`, 409 `snapshot_corrupt`, 410 `group_deleted`, 502
//! `group_controller_unavailable`, 503 `archive_store_unavailable`, and the controller's own.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use convene_hop::{ApiError, RawRequest};
use convene_model::{Code, GroupId, infra::GroupStatus};

use super::{
    Admission,
    history::{manifest_of, unreadable},
};
use crate::{
    controllers::UserRequest,
    routes::{Orchestra, PathId, PathMessageId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    message_id: PathMessageId,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let Admission { found, routing_token } = orchestra.admit_reader(group_id, &request).await?;
    let message_id = message_id.found()?;
    match found.record.group_status {
        GroupStatus::Active | GroupStatus::Idle | GroupStatus::Archiving => {
            let user =
                UserRequest { record: &found.record, query: None, routing_token: &routing_token };
            Ok(orchestra.controllers.why(user, &message_id).await?)
        }
        GroupStatus::Archived | GroupStatus::Restoring => {
            let manifest = manifest_of(&orchestra, &found).await?;
            let read =
                convene_archive::why(Arc::clone(&orchestra.archives), &manifest, &message_id).await;
            let why = read.map_err(|error| unreadable(&found, &error))?;
            Ok(orchestra.read_out(&found, &why.ok_or(Code::MessageNotFound)?).await?)
        }
        GroupStatus::Deleting | GroupStatus::Deleted => Err(Code::GroupDeleted.into()),
    }
}
