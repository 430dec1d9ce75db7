//! `GET /groups/{id}/messages/{message_id}`: one message and its former texts, for the user of the
//! routing token.
//!
//! The answer passes through as it is.
//!
//! Errors: 401 for either token, 403 `forbidden`, `stale_epoch`, `access_revoked`,
//! 404 `group_not_found`, `message_not_found`, 409 `group_archived`, 410 `group_deleted`, 502 `group_controller_unavailable`, and the
//! controller's own.

use axum::{extract::State, response::Response};
use convene_hop::{ApiError, RawRequest};
use convene_model::GroupId;

use super::Admission;
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
    let Admission { found, routing_token } = orchestra.admit(group_id, &request).await?;
    let user = UserRequest { record: &found.record, query: None, routing_token: &routing_token };
    Ok(orchestra.controllers.message(user, &message_id.found()?).await?)
}
