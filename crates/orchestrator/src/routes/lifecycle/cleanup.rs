//! `POST /infra/cleanup`: notes that a group fell asleep or is in use again.
//!
//! Called by controllers with `controller+jwt`, for their own group under its present epoch only,
//! and by apps. Idempotent; the organization's count is the same for active and idle groups.
//!
//! Errors: 403 `forbidden` and `stale_epoch`, 404 `group_not_found`, 409 `illegal_transition`
//! `{group_status, step}`, 422 `validation_failed`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    claims::ControllerClaims,
    infra::{CleanupRequest, GroupStatus},
};

use super::check_reason;
use crate::{
    Shared,
    auth::{Controller, Reporter},
    directory::{OwnedRecord, steps::StepError},
    idempotency::{Answer, Scope},
    problem,
    routes::Orchestra,
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let reporter = orchestra.auth.reporter(&request)?;
    let body: CleanupRequest = json(&request.body)?;
    let scope = match &reporter {
        Reporter::App(caller) => Scope::from(caller),
        Reporter::Controller(Controller { issuer, claims: _ }) => {
            Scope { issuer: issuer.clone(), org_id: None }
        }
    };
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move {
            cleanup(&orchestra, &reporter, &body).await?;
            Ok(Answer::no_content())
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn cleanup(
    shared: &Shared,
    reporter: &Reporter,
    body: &CleanupRequest,
) -> Result<(), Problem> {
    let CleanupRequest { group_id, status, reason } = body;
    check_reason(reason)?;
    let (found, actor) = match reporter {
        Reporter::App(caller) => {
            (shared.owned_for(caller, group_id).await?, caller.issuer.as_str())
        }
        Reporter::Controller(Controller { issuer, claims }) => {
            (of_controller(shared, claims, group_id).await?, issuer.as_str())
        }
    };
    let now = shared.now();
    let reported = match status {
        GroupStatus::Active => {
            let woken = shared.directory.wake(found, actor, reason, now).await;
            woken.map(|_| ()).map_err(|(_, error)| error)
        }
        GroupStatus::Idle => shared.directory.fall_asleep(&found, actor, reason, now).await,
        GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => {
            return Err(
                Problem::new(Code::ValidationFailed).detail("only active and idle are reported")
            );
        }
    };
    match reported {
        // What changed it meanwhile is newer than this report.
        Ok(()) | Err(StepError::Changed) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::info!(%group_id, status = status.as_str(), reason, "group reported");
    Ok(())
}

/// The record of a group, for its own controller.
async fn of_controller(
    shared: &Shared,
    claims: &ControllerClaims,
    group_id: &GroupId,
) -> Result<OwnedRecord, Problem> {
    if claims.group_id != *group_id {
        return Err(Problem::new(Code::Forbidden).detail("the token is for another group"));
    }
    let found = shared.directory.record(group_id).await.map_err(problem::of_directory)?;
    let found = found.ok_or(Code::GroupNotFound)?;
    if claims.epoch != found.record.epoch {
        return Err(Code::StaleEpoch.into());
    }
    Ok(found)
}
