//! `POST /infra/routing-token`: issues a routing token under the group's present epoch.
//!
//! The role is the app's to compute. The call changes nothing and its answer is a credential, so
//! it takes no `Idempotency-Key` and no answer of it is ever stored.
//!
//! For a group that is archived, or on its way there or back, the token is good for its history only.
//!
//! Errors: 403 `forbidden`, 403 `org_blocked`, 404 `group_not_found`, 410 `group_deleted`.

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, Timestamp,
    claims::{RoutingClaims, service},
    infra::{GroupStatus, RoutingToken, RoutingTokenRequest},
    limits::ROUTING_TOKEN_TTL,
    token,
};
use uuid::Uuid;

use crate::routes::{Orchestra, groups::check_not_blocked};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    request: RawRequest,
) -> Result<Json<RoutingToken>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let RoutingTokenRequest { group_id, user_id, role } = json(&request.body)?;
    let found = orchestra.owned_for(&caller, &group_id).await?;
    check_not_blocked(&found)?;
    let record = found.record;
    match record.group_status {
        GroupStatus::Active
        | GroupStatus::Idle
        | GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring => {}
        GroupStatus::Deleting | GroupStatus::Deleted => return Err(Code::GroupDeleted.into()),
    }
    let now = orchestra.signer.now();
    let claims =
        RoutingClaims { user_id, org_id: record.org_id, group_id, role, epoch: record.epoch };
    let jti = Uuid::new_v4().simple().to_string();
    Ok(Json(RoutingToken {
        routing_token: token::mint(&orchestra.signer.key(), service::CONTROLLERS, claims, now, jti),
        expires_at: Timestamp::from_secs(now.secs()) + ROUTING_TOKEN_TTL,
    }))
}
