//! `GET /infra/orgs/{id}/limits`: an organization's limits; the default where none was set. For the
//! app whose it is and for operators.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found` (another issuer's).

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest};
use convene_model::{OrgId, infra::OrgLimits};

use crate::{
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    org_id: PathId<OrgId>,
    request: RawRequest,
) -> Result<Json<OrgLimits>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let org_id = org_id.found()?;
    orchestra.check_org_for(&caller, &org_id).await?;
    Ok(Json(orchestra.directory.limits(&org_id).await.map_err(problem::of_directory)?))
}
