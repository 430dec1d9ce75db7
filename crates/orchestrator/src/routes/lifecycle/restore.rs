//! `POST /infra/groups/{id}/restore`: brings an archived group back into service.
//!
//! For the app whose group it is, and for operators. The call waits for the task to end and answers
//! like an activation; when that takes too long, or the caller prefers not to wait, it answers 202 with the task, which goes on.
//!
//! Errors: 403 `forbidden`, 403 `org_blocked`, 404 `group_not_found`, 409 `illegal_transition` `{group_status, task_id?}`
//! (the group is not archived), 409 `snapshot_corrupt` `{path}`, 410 `group_deleted`, 429
//! `active_group_limit_exceeded` `{limit, active}`, 502 `group_controller_unavailable`, 503
//! `archive_store_unavailable`. After each of them the group stands where it stood.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use convene_hop::{ApiError, RawRequest};
use convene_model::{Code, GroupId, Problem, infra::GroupStatus};

use super::{answer, patience};
use crate::{
    auth::Caller,
    flows::restore,
    idempotency::{Answer, Scope},
    routes::{Orchestra, PathId, groups::check_not_blocked},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let group_id = group_id.found()?;
    let scope = Scope::from(&caller);
    let patience = patience(&request, orchestra.times.call_waits);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { restore(&orchestra, &caller, &group_id, patience).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn restore(
    shared: &Orchestra,
    caller: &Caller,
    group_id: &GroupId,
    patience: Duration,
) -> Result<Answer, Problem> {
    let found = shared.group_for_operator(caller, group_id).await?;
    match found.record.group_status {
        GroupStatus::Deleting | GroupStatus::Deleted => return Err(Code::GroupDeleted.into()),
        GroupStatus::Active
        | GroupStatus::Idle
        | GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring => {}
    }
    check_not_blocked(&found)?;
    let job = restore::begin(shared, &found, &caller.issuer, "restored").await?;
    let task_id = job.claim.task_id.clone();
    Arc::clone(shared).run(job);
    answer(shared, &task_id, patience).await
}
