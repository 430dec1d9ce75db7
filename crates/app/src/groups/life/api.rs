//! `POST /api/groups/{group_id}/archive` and `…/restore`, `DELETE /api/groups/{group_id}`, and how the
//! tasks behind them stand; for owners and admins of the workspace. And what a group has used.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_model::{Code, GroupId, TaskId, tasks::Task, usage::GroupUsage};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    groups::store,
    identity::caller::Caller,
    state::AppState,
    ui::view::GroupLife,
    web::{extract::Ids, failure::Answer},
};

/// Where a group stands after a step of its life.
#[derive(Serialize, JsonSchema)]
pub(in crate::groups) struct Lives {
    group_id: GroupId,
    status: GroupLife,
    /// What goes on, with 202.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
}

fn answer(group_id: GroupId, status: GroupLife, task: Option<Task>) -> Response {
    let code = if task.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    (code, Json(Lives { group_id, status, task })).into_response()
}

pub(in crate::groups) async fn archive(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Response> {
    let group = store::govern(&state, &group, &caller).await?;
    let task = super::archive(&state, &caller, &group).await?;
    let status = if task.is_some() { GroupLife::Archiving } else { GroupLife::Archived };
    Ok(answer(group.id().clone(), status, task))
}

pub(in crate::groups) async fn restore(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Response> {
    let group = store::govern(&state, &group, &caller).await?;
    let task = super::restore(&state, &caller, &group).await?;
    let status = if task.is_some() { GroupLife::Restoring } else { GroupLife::Active };
    Ok(answer(group.id().clone(), status, task))
}

pub(in crate::groups) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<StatusCode> {
    let group = store::govern(&state, &group, &caller).await?;
    super::delete(&state, &caller, &group).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::groups) async fn task(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, task)): Ids<(GroupId, TaskId)>,
) -> Answer<Json<Task>> {
    let group = store::enter(&state, &group, &caller).await?;
    Ok(Json(super::task(&state, group, &task).await?))
}

pub(in crate::groups) async fn usage(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Json<GroupUsage>> {
    let group = store::enter(&state, &group, &caller).await?;
    match state.orchestrator.usage(group.id(), group.org()).await {
        Ok(usage) => Ok(Json(usage)),
        // A group that was never used has used nothing.
        Err(problem) if problem.code == Code::GroupNotFound => {
            Ok(Json(GroupUsage { group_id: group.id().clone(), months: Vec::new() }))
        }
        Err(problem) => Err(problem.into()),
    }
}
