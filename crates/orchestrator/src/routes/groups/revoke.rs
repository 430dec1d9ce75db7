//! `POST /infra/groups/{id}/revoke`: voids a user's routing tokens issued until now.
//!
//! The instant is recorded first, so the Orchestrator refuses these tokens from then on, also when
//! the controller cannot be told; the caller then gets the failure and repeats the call, which
//! tells it. A repeat without `Idempotency-Key` moves the instant to its own time.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 502 `group_controller_unavailable`, and the
//! controller's own.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, GroupId,
    infra::{GroupStatus, RevokeRequest},
};

use crate::{
    idempotency::{Answer, Scope},
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let group_id = group_id.found()?;
    let RevokeRequest { user_id } = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move {
            let record = orchestra.group_for(&caller, &group_id).await?;
            orchestra
                .directory
                .revoke(&record.group_id, &user_id, (orchestra.clock)())
                .await
                .map_err(problem::of_directory)?;
            // Elsewhere in its life nobody is attached, and what follows is under another epoch.
            match record.group_status {
                GroupStatus::Active | GroupStatus::Idle => {
                    orchestra.controllers.revoke(&record, &user_id).await?;
                }
                GroupStatus::Archiving | GroupStatus::Archived | GroupStatus::Restoring => {}
                GroupStatus::Deleting | GroupStatus::Deleted => {
                    return Err(Code::GroupDeleted.into());
                }
            }
            tracing::info!(%group_id, %user_id, "access revoked");
            Ok(Answer::no_content())
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}
