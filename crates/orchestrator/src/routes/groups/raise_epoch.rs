//! `POST /infra/groups/{id}/epoch`: raises a group's epoch, so that every token of it becomes void
//! and every connection is detached.
//!
//! For the app whose group it is, and for operators. The directory's row is raised first, so the
//! Orchestrator refuses tokens of the former epoch from then on, also when the controller cannot be
//! told; the caller then gets the failure and repeats the call, which tells it. A call whose `from`
//! is a former epoch changes nothing, tells the controller once more and is success, so that a
//! repeat raises nothing twice.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 409 `conflict` `{epoch}` (`from` is no epoch that
//! the group has had), 409 `illegal_transition` `{group_status}` while it is archived, restored or deleted, 502 `group_controller_unavailable`.

use axum::extract::State;
use convene_hop::{ApiError, LIFECYCLE, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    infra::{GroupStatus, RaiseEpochRequest, RoutingRecord},
};

use crate::{
    Shared,
    auth::Caller,
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
    let body: RaiseEpochRequest = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { Answer::json(&raise(&orchestra, &caller, &group_id, &body).await?) }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn raise(
    shared: &Shared,
    caller: &Caller,
    group_id: &GroupId,
    body: &RaiseEpochRequest,
) -> Result<RoutingRecord, Problem> {
    let record = shared.group_for_operator(caller, group_id).await?.record;
    match record.group_status {
        GroupStatus::Active | GroupStatus::Idle | GroupStatus::Archived => {}
        GroupStatus::Archiving
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => {
            return Err(Problem::new(Code::IllegalTransition)
                .detail("the group's life raises the epoch at its next step")
                .with("group_status", record.group_status.as_str()));
        }
    }
    if body.from > record.epoch || body.from == 0 {
        return Err(Problem::new(Code::Conflict)
            .detail(format!("the group's epoch is {}", record.epoch))
            .with("epoch", record.epoch));
    }
    let raised = shared.directory.raise_epoch(group_id, body.from).await;
    let raised = raised.map_err(problem::of_directory)?;
    // Another call may have been faster; what stands now is what the controller must know.
    let found = shared.group_for_operator(caller, group_id).await?;
    let record = &found.record;
    // The controller of an archived group has nothing of it, and is not to begin it anew.
    if matches!(record.group_status, GroupStatus::Active | GroupStatus::Idle) {
        shared.controllers.init(&found).await?;
    }
    if raised {
        let (epoch, reason) = (record.epoch, &body.reason);
        let issuer = &caller.issuer;
        tracing::warn!(target: LIFECYCLE, %group_id, epoch, reason, issuer, "epoch raised");
    }
    Ok(found.record)
}
