//! `GET /infra/orgs/{id}/usage?month&limit&offset`: what an organization has used in a month.
//!
//! Errors: 400 `invalid_request`, 403 `forbidden`, 404 `group_not_found` (another issuer's), 422
//! `validation_failed`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::{
    Code, OrgId, Problem,
    usage::{
        DEFAULT_GROUPS_LISTED, MAX_GROUPS_LISTED, MAX_GROUPS_OFFSET, Month, OrgUsage, OrgUsageQuery,
    },
};

use crate::{
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    org_id: PathId<OrgId>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<OrgUsage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let org_id = org_id.found()?;
    let query: OrgUsageQuery = query(raw.as_deref())?;
    let limit = query.limit.unwrap_or(DEFAULT_GROUPS_LISTED);
    let offset = query.offset.unwrap_or(0);
    if !(1..=MAX_GROUPS_LISTED).contains(&limit) || offset > MAX_GROUPS_OFFSET {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!(
                "limit is 1 to {MAX_GROUPS_LISTED}, offset at most {MAX_GROUPS_OFFSET}"
            ))
            .into());
    }
    orchestra.check_org_for(&caller, &org_id).await?;
    let month = query.month.unwrap_or_else(|| Month::of(orchestra.now()));
    let usage = orchestra.directory.org_usage(&org_id, month, limit, offset).await;
    Ok(Json(usage.map_err(problem::of_directory)?))
}
