//! `GET /infra/groups/{id}/usage`: what a group has used, by month.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`.

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest};
use convene_model::{GroupId, usage::GroupUsage};

use crate::{
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Json<GroupUsage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let group_id = group_id.found()?;
    orchestra.group_for_operator(&caller, &group_id).await?;
    Ok(Json(orchestra.directory.group_usage(&group_id).await.map_err(problem::of_directory)?))
}
