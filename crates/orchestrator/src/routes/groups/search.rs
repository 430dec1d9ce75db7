//! `POST /groups/{id}/search`: what a search in a group finds, for the user of the routing token.
//!
//! It changes nothing, so it needs no idempotency key. Both bodies pass through as they are.
//!
//! Errors: 401 for either token, 403 `forbidden`, `stale_epoch`, `access_revoked`,
//! 404 `group_not_found`, 409 `group_archived`, 410 `group_deleted`, 502 `group_controller_unavailable`, and the controller's own.

use axum::{extract::State, response::Response};
use convene_hop::{ApiError, RawRequest};
use convene_model::GroupId;

use super::Admission;
use crate::{
    controllers::UserRequest,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let Admission { found, routing_token } = orchestra.admit(group_id, &request).await?;
    let user = UserRequest { record: &found.record, query: None, routing_token: &routing_token };
    Ok(orchestra.controllers.search(user, request.body).await?)
}
