//! `POST /infra/cleanup`: notes that a group fell asleep or is in use again.
//!
//! Called by controllers with `controller+jwt`, for their own group under its present epoch only,
//! and by apps. Idempotent; the organization's count is the same for active and idle groups.
//!
//! Errors: 403 `forbidden` and `stale_epoch`, 404 `group_not_found`, 409 `illegal_transition`
//! `{status, to}`, 422 `validation_failed`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    claims::ControllerClaims,
    infra::{CleanupRequest, GroupStatus, RoutingRecord},
};

use crate::{
    Shared,
    auth::Reporter,
    idempotency::{Answer, Scope},
    problem,
    routes::Orchestra,
};

/// Characters of a reason at most.
pub(crate) const MAX_REASON_CHARS: usize = 200;

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let reporter = orchestra.auth.reporter(&request)?;
    let body: CleanupRequest = json(&request.body)?;
    let scope = match &reporter {
        Reporter::App(caller) => Scope::from(caller),
        Reporter::Controller { issuer, claims: _ } => {
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
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("a reason has at most {MAX_REASON_CHARS} characters")));
    }
    let record = match reporter {
        Reporter::App(caller) => shared.group_for(caller, group_id).await?,
        Reporter::Controller { issuer: _, claims } => {
            of_controller(shared, claims, group_id).await?
        }
    };
    match record.group_status {
        GroupStatus::Active | GroupStatus::Idle => {}
        GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => {
            return Err(Problem::new(Code::IllegalTransition)
                .with("status", record.group_status.as_str())
                .with("to", status.as_str()));
        }
    }
    let now = (shared.clock)();
    match status {
        GroupStatus::Active => shared.directory.set_active(group_id, record.epoch, now).await,
        GroupStatus::Idle => shared.directory.set_idle(group_id, record.epoch, now).await,
        GroupStatus::Archiving
        | GroupStatus::Archived
        | GroupStatus::Restoring
        | GroupStatus::Deleting
        | GroupStatus::Deleted => {
            return Err(
                Problem::new(Code::ValidationFailed).detail("only active and idle are reported")
            );
        }
    }
    .map_err(problem::of_directory)?;
    tracing::info!(%group_id, status = status.as_str(), reason, "group reported");
    Ok(())
}

/// The record of a group, for its own controller.
async fn of_controller(
    shared: &Shared,
    claims: &ControllerClaims,
    group_id: &GroupId,
) -> Result<RoutingRecord, Problem> {
    if claims.group_id != *group_id {
        return Err(Problem::new(Code::Forbidden).detail("the token is for another group"));
    }
    let found = shared.directory.record(group_id).await.map_err(problem::of_directory)?;
    let record = found.ok_or(Code::GroupNotFound)?.record;
    if claims.epoch != record.epoch {
        return Err(Code::StaleEpoch.into());
    }
    Ok(record)
}
