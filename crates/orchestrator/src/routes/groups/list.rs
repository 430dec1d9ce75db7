//! `GET /infra/groups`: a page of groups: an app's own, for an operator all.
//!
//! Errors: 400 `invalid_request`, 403 `forbidden` (the token is for another organization).

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::listing::{GroupsPage, GroupsQuery};

use crate::{
    problem,
    routes::{Orchestra, page},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<GroupsPage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let query: GroupsQuery = query(raw.as_deref())?;
    let page = page(query.limit)?;
    if let Some(org_id) = &query.org_id {
        caller.check_org(org_id)?;
    }
    let found = orchestra.directory.groups(&caller.sight(), &query, page).await;
    Ok(Json(found.map_err(problem::of_directory)?))
}
