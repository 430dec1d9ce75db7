//! `GET /infra/tasks`: a page of tasks, the newest first: those of an app's own groups, for an operator
//! all.
//!
//! Tasks that have ended are kept for a while.
//!
//! Errors: 400 `invalid_request`.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use convene_hop::{ApiError, RawRequest, query};
use convene_model::listing::{TasksPage, TasksQuery};

use crate::{
    problem,
    routes::{Orchestra, page},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Json<TasksPage>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let query: TasksQuery = query(raw.as_deref())?;
    let page = page(query.limit)?;
    let found = orchestra.directory.tasks(&caller.sight(), &query, page).await;
    Ok(Json(found.map_err(problem::of_directory)?))
}
