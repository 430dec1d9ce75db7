//! `DELETE /infra/groups/{id}`: removes a group for good: its state, its snapshots, its records.
//!
//! For the app whose group it is, and for operators. What stays is a tombstone, so that the group's
//! id is never used again, and the audit of its life, which has no content. The call waits for the
//! task to end; when a part is away it answers 202 with the task, which goes on until all is gone.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 409 `conflict` (another step was faster), 410
//! `group_deleted`.

use std::sync::Arc;

use axum::extract::State;
use convene_hop::{ApiError, RawRequest};
use convene_model::{Code, GroupId, Problem, TaskId};

use super::{MAX_LOOKS, answer, patience};
use crate::{
    auth::Caller,
    flows::delete::{self, Begun},
    idempotency::{Answer, Scope},
    routes::{Orchestra, PathId},
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
        async move {
            let task_id = delete(&orchestra, &caller, &group_id).await?;
            answer(&orchestra, &task_id, patience).await
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn delete(
    shared: &Orchestra,
    caller: &Caller,
    group_id: &GroupId,
) -> Result<TaskId, Problem> {
    for _ in 0..MAX_LOOKS {
        let found = shared.group_for_operator(caller, group_id).await?;
        match delete::begin(shared, &found, &caller.issuer, "deleted").await {
            Ok(Begun::Here(job)) => {
                let task_id = job.claim.task_id.clone();
                Arc::clone(shared).run(*job);
                return Ok(task_id);
            }
            Ok(Begun::Already(task_id)) => return Ok(task_id),
            Err(problem) if problem.code == Code::Conflict => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Code::Conflict.into())
}
