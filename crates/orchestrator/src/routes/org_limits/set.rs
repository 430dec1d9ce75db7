//! `PUT /infra/orgs/{id}/limits`: sets an organization's limits; operators only.
//!
//! Setting a limit for an organization that nobody owns yet does not make it the caller's. Groups
//! beyond a lowered limit stay active; no further one is placed until there is room again.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 422 `validation_failed`.

use axum::extract::State;
use convene_hop::{ApiError, LIFECYCLE, RawRequest, json};
use convene_model::{Code, OrgId, Problem, infra::OrgLimits};

use crate::{
    idempotency::{Answer, Scope},
    problem,
    routes::{Orchestra, PathId},
    times::MAX_AUTO_ARCHIVE_SECS,
};

/// The highest limit that can be set.
pub(crate) const MAX_LIMIT: u64 = 1_000_000_000;

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    org_id: PathId<OrgId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    if !caller.operator {
        let problem = Problem::new(Code::Forbidden).detail("only operators set limits");
        return Err(problem.into());
    }
    let org_id = org_id.found()?;
    let limits: OrgLimits = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move {
            if limits.max_active_groups > MAX_LIMIT {
                return Err(Problem::new(Code::ValidationFailed)
                    .detail(format!("max_active_groups is at most {MAX_LIMIT}")));
            }
            if limits.auto_archive_after_secs.is_some_and(|secs| secs > MAX_AUTO_ARCHIVE_SECS) {
                return Err(Problem::new(Code::ValidationFailed).detail(format!(
                    "auto_archive_after_secs is at most {MAX_AUTO_ARCHIVE_SECS}"
                )));
            }
            orchestra.check_org_for(&caller, &org_id).await?;
            orchestra
                .directory
                .set_limits(&org_id, &limits)
                .await
                .map_err(problem::of_directory)?;
            let issuer = caller.issuer;
            tracing::info!(target: LIFECYCLE, %org_id, ?limits, issuer, "limits set");
            orchestra.reconcile_soon();
            Answer::json(&limits)
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}
