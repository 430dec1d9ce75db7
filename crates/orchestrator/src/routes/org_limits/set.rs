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

/// The highest limit of groups that can be set.
pub(crate) const MAX_LIMIT: u64 = 1_000_000_000;

/// The highest budget of tokens or bytes that can be set.
pub(crate) const MAX_BUDGET: u64 = 1_000_000_000_000_000;

/// The highest rate that can be set, by the minute.
pub(crate) const MAX_RATE: u32 = 1_000_000;

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
            check(&limits)?;
            orchestra.check_org_for(&caller, &org_id).await?;
            orchestra
                .directory
                .set_limits(&org_id, &limits, orchestra.now())
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

fn check(limits: &OrgLimits) -> Result<(), Problem> {
    let OrgLimits {
        max_active_groups,
        auto_archive_after_secs,
        monthly_tokens,
        monthly_egress_bytes,
        group_daily_egress_bytes,
        user_posts_per_minute,
        org_posts_per_minute,
        user_attaches_per_minute,
        activations_per_minute,
    } = limits;
    let budgets = [
        ("monthly_tokens", *monthly_tokens),
        ("monthly_egress_bytes", *monthly_egress_bytes),
        ("group_daily_egress_bytes", *group_daily_egress_bytes),
    ];
    let rates = [
        ("user_posts_per_minute", *user_posts_per_minute),
        ("org_posts_per_minute", *org_posts_per_minute),
        ("user_attaches_per_minute", *user_attaches_per_minute),
        ("activations_per_minute", *activations_per_minute),
    ];
    let refused = |detail: String| Err(Problem::new(Code::ValidationFailed).detail(detail));
    if *max_active_groups > MAX_LIMIT {
        return refused(format!("max_active_groups is at most {MAX_LIMIT}"));
    }
    if auto_archive_after_secs.is_some_and(|secs| secs > MAX_AUTO_ARCHIVE_SECS) {
        return refused(format!("auto_archive_after_secs is at most {MAX_AUTO_ARCHIVE_SECS}"));
    }
    if let Some((name, _)) = budgets.iter().find(|(_, budget)| *budget > Some(MAX_BUDGET)) {
        return refused(format!("{name} is at most {MAX_BUDGET}"));
    }
    let out_of_range = |rate: u32| !(1..=MAX_RATE).contains(&rate);
    if let Some((name, _)) = rates.iter().find(|(_, rate)| rate.is_some_and(out_of_range)) {
        return refused(format!("{name} is 1 to {MAX_RATE}"));
    }
    Ok(())
}
