//! `GET /infra/groups/{id}`: a group's routing record, for the app whose it is and for operators.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`.

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest};
use convene_model::{GroupId, infra::RoutingRecord};

use crate::routes::{Orchestra, PathId};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Json<RoutingRecord>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    Ok(Json(orchestra.group_for_operator(&caller, &group_id.found()?).await?.record))
}
