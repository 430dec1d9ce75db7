//! `POST /infra/groups/{id}/archive`: writes the group's snapshot and takes the group out of service.
//!
//! For the app whose group it is, and for operators. The call waits for the task to end and answers
//! with the snapshot; when that takes too long, or the caller prefers not to wait (`Prefer:
//! respond-async`), it answers 202 with the task, which goes on.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 409 `group_not_active` `{group_status, task_id?}`,
//! 413 `snapshot_too_large` `{limit_bytes}`, 422 `validation_failed`, 502
//! `group_controller_unavailable`, 503 `archive_store_unavailable`. After 413, 502 and 503 the group
//! is live again.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{Code, GroupId, Problem, infra::GroupStatus, tasks::ArchiveRequest};

use super::{MAX_LOOKS, answer, check_reason, patience};
use crate::{
    auth::Caller,
    flows::{archive, follow_up},
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
    let ArchiveRequest { reason } = json(&request.body)?;
    let scope = Scope::from(&caller);
    let patience = patience(&request, orchestra.times.call_waits);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { archive(&orchestra, &caller, &group_id, &reason, patience).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn archive(
    shared: &Orchestra,
    caller: &Caller,
    group_id: &GroupId,
    reason: &str,
    patience: Duration,
) -> Result<Answer, Problem> {
    check_reason(reason)?;
    for _ in 0..MAX_LOOKS {
        let mut found = shared.group_for_operator(caller, group_id).await?;
        match found.record.group_status {
            GroupStatus::Active | GroupStatus::Idle => {}
            GroupStatus::Archiving
            | GroupStatus::Archived
            | GroupStatus::Restoring
            | GroupStatus::Deleting => return Err(archive::not_active(&found)),
            GroupStatus::Deleted => return Err(Code::GroupDeleted.into()),
        }
        // The attempt before this one failed, and its controller may not know that yet.
        if let Some(archive_id) = found.archive_id.clone() {
            follow_up::tell_thawed(shared, &found, &archive_id).await?;
            found = shared.group_for_operator(caller, group_id).await?;
        }
        match archive::begin(shared, &found, &caller.issuer, reason).await {
            Ok(job) => {
                let task_id = job.claim.task_id.clone();
                Arc::clone(shared).run(job);
                return answer(shared, &task_id, patience).await;
            }
            // It fell asleep or woke meanwhile, which is no reason to refuse.
            Err(problem) if problem.code == Code::Conflict => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Code::Conflict.into())
}
