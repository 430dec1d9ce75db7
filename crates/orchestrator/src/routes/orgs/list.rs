//! `GET /infra/orgs`: a page of organizations with their limits and blocks: an app's own, for an
//! operator all that ever had a group, a limit or a block.
//!
//! Errors: 400 `invalid_request`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::listing::{OrgsPage, OrgsQuery};

use crate::{
    problem,
    routes::{Orchestra, page},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<OrgsPage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let query: OrgsQuery = query(raw.as_deref())?;
    let page = page(query.limit)?;
    let found = orchestra.directory.orgs(&caller.sight(), &query, page).await;
    Ok(Json(found.map_err(problem::of_directory)?))
}
