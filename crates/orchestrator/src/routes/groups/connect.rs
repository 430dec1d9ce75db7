//! `GET /groups/{id}/ws`: an upstream to a group, opened with a user's routing token.
//!
//! Who may not have one learns that first; only then is looked at whether the request asks for an
//! upgrade at all. An upstream that was opened carries many users: the controller's host verifies
//! a routing token for each.
//!
//! Errors: 401 for either token, 402 `egress_exhausted` `{resets_at}`, 403 `forbidden`, `stale_epoch`, `access_revoked`,
//! 404 `group_not_found`, 409 `group_archived`, 410 `group_deleted`, 426 `upgrade_required`, 502 `group_controller_unavailable`, and the
//! controller's own.

use axum::{
    extract::{FromRequest, FromRequestParts, RawQuery, Request, State},
    response::Response,
};
use convene_hop::{ApiError, LinkUpgrade, RawRequest};
use convene_model::GroupId;

use super::Admission;
use crate::{
    controllers::UserRequest,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let request = RawRequest::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let Admission { found, routing_token } = orchestra.admit(group_id, &request).await?;
    let upgrade = LinkUpgrade::from_request_parts(&mut parts, &()).await?;
    let user = UserRequest {
        record: &found.record,
        query: query.as_deref(),
        routing_token: &routing_token,
    };
    let link = orchestra.controllers.connect(user).await?;
    Ok(upgrade.accept(link))
}
