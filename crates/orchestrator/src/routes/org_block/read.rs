//! `GET /infra/orgs/{id}/block`: whether an organization is blocked, since when and why; operators
//! only.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`.

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest};
use convene_model::{OrgId, infra::OrgBlock};

use super::set::check_operator;
use crate::{
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    org_id: PathId<OrgId>,
    request: RawRequest,
) -> Result<Json<OrgBlock>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    check_operator(&caller)?;
    let org_id = org_id.found()?;
    caller.check_org(&org_id)?;
    Ok(Json(orchestra.directory.org_block(&org_id).await.map_err(problem::of_directory)?))
}
