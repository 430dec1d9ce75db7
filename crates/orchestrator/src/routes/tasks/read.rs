//! `GET /infra/tasks/{id}`: how a task stands, for the app whose group it is about and for operators.
//!
//! Tasks that have ended are kept for a while.
//!
//! Errors: 403 `forbidden`, 404 `task_not_found`.

use axum::{Json, extract::State};
use convene_hop::{ApiError, RawRequest};
use convene_model::{Code, TaskId, tasks::Task};

use crate::{
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    task_id: PathId<TaskId>,
    request: RawRequest,
) -> Result<Json<Task>, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let task_id = task_id.0.ok_or(Code::TaskNotFound)?;
    let row = orchestra.directory.task(&task_id).await.map_err(problem::of_directory)?;
    let row = row.ok_or(Code::TaskNotFound)?;
    if !caller.operator {
        let owner = orchestra.directory.owner(&row.org_id).await.map_err(problem::of_directory)?;
        if owner.as_ref() != Some(&caller.issuer) {
            return Err(Code::TaskNotFound.into());
        }
    }
    caller.check_org(&row.org_id)?;
    Ok(Json(row.task))
}
