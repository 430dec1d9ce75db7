//! `POST /infra/groups/{id}/release-resources`: ends what a group holds; for its controller under its
//! present epoch.
//!
//! Its runs' reservations are settled at their full amounts, since nobody will say what they have
//! used; one that is reported later all the same is corrected then. An active group is asleep from
//! then on. Idempotent: asked again there is nothing left to release.
//!
//! Errors: 403 `forbidden`, `stale_epoch`, 404 `group_not_found`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest};
use convene_model::{GroupId, Problem, infra::GroupStatus, usage::Released};

use super::Reporting;
use crate::{
    Shared,
    directory::steps::StepError,
    idempotency::Answer,
    problem,
    routes::{Orchestra, PathId},
};

/// Why the group sleeps, for the audit.
const REASON: &str = "its controller released what it held";

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let reporting = orchestra.reporting(group_id, &request).await?;
    reporting.check_epoch()?;
    let scope = reporting.scope();
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { release(&orchestra, &reporting).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn release(shared: &Shared, reporting: &Reporting) -> Result<Answer, Problem> {
    let record = &reporting.found.record;
    let reservations =
        shared.directory.release(&record.group_id).await.map_err(problem::of_directory)?;
    let mut group_status = record.group_status;
    if group_status == GroupStatus::Active {
        let (actor, now) = (&reporting.controller.issuer, shared.now());
        match shared.directory.fall_asleep(&reporting.found, actor, REASON, now).await {
            Ok(()) => group_status = GroupStatus::Idle,
            // What changed it meanwhile is newer than this call.
            Err(StepError::Changed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let tokens = reservations.iter().map(|reservation| reservation.tokens).sum();
    tracing::info!(group_id = %record.group_id, reservations = reservations.len(), tokens, "released");
    Answer::json(&Released {
        group_id: record.group_id.clone(),
        group_status,
        reservations,
        tokens,
    })
}
