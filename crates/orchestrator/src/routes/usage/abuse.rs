//! `GET /infra/abuse?limit&offset`: who went beyond a rate, the latest first; operators only.
//!
//! Errors: 400 `invalid_request`, 403 `forbidden`, 422 `validation_failed`.

use axum::{
    Json,
    extract::{Query, RawQuery, State},
};
use convene_hop::{ApiError, RawRequest};
use convene_model::{
    Code, Problem,
    usage::{AbuseFlags, AbuseQuery, MAX_FLAGS_LISTED, MAX_GROUPS_OFFSET},
};
use http::Uri;

use crate::{problem, routes::Orchestra};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    RawQuery(query): RawQuery,
    request: RawRequest,
) -> Result<Json<AbuseFlags>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    if !caller.operator {
        return Err(Problem::new(Code::Forbidden).detail("only operators see this").into());
    }
    let AbuseQuery { limit, offset } = parse(query.as_deref())?;
    let (limit, offset) = (limit.unwrap_or(MAX_FLAGS_LISTED), offset.unwrap_or(0));
    if !(1..=MAX_FLAGS_LISTED).contains(&limit) || offset > MAX_GROUPS_OFFSET {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("limit is 1 to {MAX_FLAGS_LISTED}, offset at most {MAX_GROUPS_OFFSET}"))
            .into());
    }
    let flags = orchestra.directory.flags(limit, offset).await.map_err(problem::of_directory)?;
    Ok(Json(AbuseFlags { flags }))
}

fn parse(query: Option<&str>) -> Result<AbuseQuery, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest).detail(detail);
    let uri: Uri = format!("/?{}", query.unwrap_or_default())
        .parse()
        .map_err(|_| invalid("the query is no query".into()))?;
    let Query(query) =
        Query::try_from_uri(&uri).map_err(|rejection| invalid(rejection.body_text()))?;
    Ok(query)
}
