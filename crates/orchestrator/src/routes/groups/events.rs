//! `GET /infra/groups/{id}/events`: a page of the steps of a group's life, the newest first, for the app whose
//! group it is and for operators; also of a group that is gone.
//!
//! Errors: 400 `invalid_request`, 403 `forbidden`, 404 `group_not_found`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::{
    GroupId,
    listing::{LifeEventsPage, LifeEventsQuery},
};

use crate::{
    problem,
    routes::{Orchestra, PathId, page},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<LifeEventsPage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let query: LifeEventsQuery = query(raw.as_deref())?;
    let page = page(query.limit)?;
    let found = orchestra.group_for_operator(&caller, &group_id.found()?).await?;
    let life = orchestra.directory.life(&found.record.group_id, &query, page).await;
    Ok(Json(life.map_err(problem::of_directory)?))
}
