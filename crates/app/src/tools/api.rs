//! `/api/orgs/{org_id}/http-tools` and `/api/orgs/{org_id}/tool-hosts`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::OrgId;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{HttpToolConfig, HttpToolView, draft, hosts::ToolHosts};
use crate::{
    identity::caller::Caller,
    objects::{self, Kind},
    state::AppState,
    web::{extract::Ids, failure::Answer},
    workspaces::orgs,
};

const KIND: Kind = Kind::HttpTool;

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<HttpToolView>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::list(&state, &org.org_id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTool {
    name: String,
    config: HttpToolConfig,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewTool>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let made = objects::make(&state, &org.org_id, &caller, KIND, draft).await?;
    Ok((StatusCode::CREATED, Json(HttpToolView::of(made)?)).into_response())
}

pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, tool)): Ids<(OrgId, String)>,
) -> Answer<Json<HttpToolView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, KIND, &tool).await?;
    Ok(Json(HttpToolView::of(found)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolChange {
    name: String,
    /// The version that the change was made from.
    version: u64,
    config: HttpToolConfig,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, tool)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ToolChange>,
) -> Answer<Json<HttpToolView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let (id, version) = (&org.org_id, body.version);
    let set = objects::change(&state, id, &caller, KIND, &tool, version, draft).await?;
    Ok(Json(HttpToolView::of(set)?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, tool)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    objects::delete(&state, &org.org_id, &caller, KIND, &tool).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn hosts(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<ToolHosts>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(ToolHosts { hosts: super::hosts::of(&state, &org.org_id).await? }))
}

pub(super) async fn set_hosts(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<ToolHosts>,
) -> Answer<Json<ToolHosts>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::hosts::set(&state, &org.org_id, &caller, body).await?))
}
