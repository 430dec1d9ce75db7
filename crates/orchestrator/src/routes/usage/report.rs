//! `POST /infra/groups/{id}/usage`: what a group has used since the report before this one; for its
//! controller.
//!
//! The `Idempotency-Key` is mandatory and kept with the report itself, in one transaction, so that
//! what was acknowledged is counted once, whatever crashes. With a run's id it settles the run's
//! reservation: at what the run used, or at the full amount where that is not known; a report that
//! comes after the reservation expired corrects what was charged. Reports of a former epoch count as
//! well, and those of a group that is archived or gone: what was used was used.
//!
//! Errors: 400 `invalid_request` (also without a key), 403 `forbidden`, `stale_epoch` (of an epoch
//! that the group never had), 404 `group_not_found`, 422 `validation_failed`,
//! `idempotency_key_reused`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    token::body_hash,
    usage::{MAX_REFUSALS, MAX_REPORTED, UsageReport},
};
use http::StatusCode;

use crate::{
    directory::usage::{Arrived, Recorded},
    idempotency, problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let reporting = orchestra.reporting(group_id, &request).await?;
    let key = idempotency::mandatory_key(&request)?;
    let report: UsageReport = json(&request.body)?;
    check(&report)?;
    let arrived = Arrived {
        key: &key,
        request_hash: &body_hash(&request.body),
        report: &report,
        now: orchestra.now(),
    };
    let recorded = orchestra
        .directory
        .record_usage(&reporting.found, arrived)
        .await
        .map_err(problem::of_directory)?;
    match recorded {
        Recorded::Recorded => {}
        Recorded::OtherReport => return Err(Code::IdempotencyKeyReused.into()),
    }
    for refusals in &report.refused {
        tracing::warn!(
            group_id = %reporting.found.record.group_id, org_id = %reporting.found.record.org_id,
            user_id = %refusals.user_id, kind = refusals.kind.as_str(), count = refusals.count,
            "somebody went beyond a rate"
        );
    }
    Ok(StatusCode::NO_CONTENT)
}

fn check(report: &UsageReport) -> Result<(), Problem> {
    let UsageReport {
        run_id: _,
        runs,
        tokens,
        cost_micro_usd,
        cost_unknown,
        egress_bytes,
        active_secs,
        refused,
    } = report;
    let tokens = tokens.unwrap_or_default();
    let refusals = refused.iter().map(|refusals| refusals.count);
    let figures = [*runs, *cost_micro_usd, *cost_unknown, *egress_bytes, *active_secs];
    let figures = figures.into_iter().chain([tokens.input_tokens, tokens.output_tokens]);
    if figures.chain(refusals).any(|figure| figure > MAX_REPORTED) {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("a figure of a report is at most {MAX_REPORTED}")));
    }
    if refused.len() > MAX_REFUSALS {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("a report names at most {MAX_REFUSALS} refusals")));
    }
    Ok(())
}
