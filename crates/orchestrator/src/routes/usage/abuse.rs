//! `GET /infra/abuse?limit&offset`: who went beyond a rate, the latest first; operators only. A token
//! for one organization sees that one's.
//!
//! Errors: 400 `invalid_request`, 403 `forbidden`, 422 `validation_failed`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::{
    Code, Problem,
    usage::{AbuseFlags, AbuseQuery, MAX_FLAGS_LISTED, MAX_GROUPS_OFFSET},
};

use crate::{problem, routes::Orchestra};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<AbuseFlags>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    if !caller.operator {
        return Err(Problem::new(Code::Forbidden).detail("only operators see this").into());
    }
    let AbuseQuery { limit, offset } = query(raw.as_deref())?;
    let (limit, offset) = (limit.unwrap_or(MAX_FLAGS_LISTED), offset.unwrap_or(0));
    if !(1..=MAX_FLAGS_LISTED).contains(&limit) || offset > MAX_GROUPS_OFFSET {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("limit is 1 to {MAX_FLAGS_LISTED}, offset at most {MAX_GROUPS_OFFSET}"))
            .into());
    }
    let flags = orchestra.directory.flags(caller.org_id.as_ref(), limit, offset).await;
    Ok(Json(AbuseFlags { flags: flags.map_err(problem::of_directory)? }))
}
