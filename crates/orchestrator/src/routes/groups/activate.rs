//! `POST /infra/groups`: makes a group active and brings its controller to life.
//!
//! Repeating it is harmless: the answer is the same and the organization's count stays. What a
//! failed init leaves behind is the group's record, active and counted; the next activation finds
//! it and only runs the init again, so a repeat heals.
//!
//! Errors: 403 `forbidden`, 403 `org_blocked`, 404 `group_not_found` (another issuer's), 409 `group_archived`
//! `{group_status}`, 409 `org_mismatch`, 410 `group_deleted`, 422 `history_mode_unsupported`,
//! 422 `validation_failed`, 429 `active_group_limit_exceeded` `{limit, active}`, 429 `rate_limited`, 502 `group_controller_unavailable`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, Problem,
    ids::is_valid_id,
    infra::{ActivateRequest, Activation, HistoryMode},
    usage::RefusedKind,
};

use crate::{
    Shared,
    auth::Caller,
    directory::{Place, Placement},
    flows::{self, follow_up},
    idempotency::{Answer, Scope},
    problem,
    routes::Orchestra,
};

/// Why a group is not active.
#[derive(Debug, thiserror::Error)]
enum ActivateError {
    #[error("the token and the body name different organizations")]
    TokenOfOtherOrg,
    #[error("external history is not offered")]
    ExternalHistory,
    #[error("a region is 1 to 64 characters of [A-Za-z0-9_-]")]
    InvalidRegion,
    #[error("the group or its organization belongs to another issuer")]
    Foreign,
    #[error("the group belongs to another organization")]
    OtherOrg,
    #[error("{active} of {limit} groups are active")]
    Full { limit: u64, active: u64 },
    #[error("{}", .0.title)]
    Other(Problem),
}

impl From<Problem> for ActivateError {
    fn from(problem: Problem) -> Self {
        Self::Other(problem)
    }
}

impl From<ActivateError> for Problem {
    fn from(error: ActivateError) -> Self {
        let detail = error.to_string();
        match error {
            ActivateError::TokenOfOtherOrg => Self::new(Code::Forbidden).detail(detail),
            ActivateError::ExternalHistory => Self::new(Code::HistoryModeUnsupported),
            ActivateError::InvalidRegion => Self::new(Code::ValidationFailed).detail(detail),
            // Which of the two it is, or that it exists at all, is not for this caller to know.
            ActivateError::Foreign => Self::new(Code::GroupNotFound),
            ActivateError::OtherOrg => Self::new(Code::OrgMismatch),
            ActivateError::Full { limit, active } => Self::new(Code::ActiveGroupLimitExceeded)
                .detail(detail)
                .with("limit", limit)
                .with("active", active),
            ActivateError::Other(problem) => problem,
        }
    }
}

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let body: ActivateRequest = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move {
            let activation = activate(&orchestra, &caller, &body).await?;
            Answer::json(&activation)
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn activate(
    shared: &Shared,
    caller: &Caller,
    body: &ActivateRequest,
) -> Result<Activation, ActivateError> {
    caller.check_org(&body.org_id).map_err(|_| ActivateError::TokenOfOtherOrg)?;
    match body.history_mode {
        HistoryMode::Internal => {}
        HistoryMode::External if shared.external_history.contains(&body.org_id) => {}
        HistoryMode::External => return Err(ActivateError::ExternalHistory),
    }
    if body.region.as_deref().is_some_and(|region| !is_valid_id(region)) {
        return Err(ActivateError::InvalidRegion);
    }
    let place = Place {
        group_id: &body.group_id,
        org_id: &body.org_id,
        issuer: &caller.issuer,
        history_mode: body.history_mode,
        region: body.region.as_deref(),
        now: (shared.clock)(),
    };
    check_rate(shared, place).await?;
    let placed = match shared.directory.place(place).await.map_err(problem::of_directory)? {
        Placement::Placed(placed) => placed,
        Placement::Foreign => return Err(ActivateError::Foreign),
        Placement::OtherOrg => return Err(ActivateError::OtherOrg),
        Placement::Blocked => return Err(ActivateError::Other(Code::OrgBlocked.into())),
        Placement::Elsewhere(record) => {
            super::check_usable(&record)?;
            return Err(ActivateError::Other(Code::Conflict.into()));
        }
        Placement::Full { limit, active } => return Err(ActivateError::Full { limit, active }),
    };
    // An attempt to archive it failed, and the controller may not know yet that the group goes on.
    if let Some(archive_id) = &placed.archive_id {
        follow_up::tell_thawed(shared, &placed, archive_id).await?;
    }
    shared.controllers.init(&placed).await?;
    tracing::info!(
        group_id = %placed.record.group_id, org_id = %placed.record.org_id, "group activated"
    );
    Ok(flows::activation(placed.record))
}

/// That the organization does not activate groups more often than it may. One that has a limit costs
/// a look-up of it.
async fn check_rate(shared: &Shared, place: Place<'_>) -> Result<(), Problem> {
    let rate = shared.directory.activation_rate(place.org_id, place.issuer).await;
    let Some(rate) = rate.map_err(problem::of_directory)? else { return Ok(()) };
    let taken = shared.activations.take(place.org_id.clone(), rate, place.now);
    let Err(too_often) = taken else { return Ok(()) };
    let (group_id, kind) = (Some(place.group_id), RefusedKind::Activations);
    let flagged = shared.directory.flag_org(place.org_id, kind, group_id, place.now).await;
    flagged.map_err(problem::of_directory)?;
    tracing::warn!(org_id = %place.org_id, rate, "an organization activates too often");
    Err(Problem::new(Code::RateLimited)
        .detail(format!("the organization activates groups more often than {rate} times a minute"))
        .with("retry_after_ms", too_often.retry_after.as_millis().max(1) as u64))
}
