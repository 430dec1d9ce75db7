//! `/api/orgs/{org_id}/mcp-servers`.

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

use super::{McpServerConfig, McpServerView, draft};
use crate::{
    identity::caller::Caller,
    objects::{self, Kind},
    probing::Seen,
    state::AppState,
    web::{extract::Ids, failure::Answer},
    workspaces::orgs,
};

const KIND: Kind = Kind::McpServer;

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<McpServerView>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::list(&state, &org.org_id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewServer {
    name: String,
    config: McpServerConfig,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewServer>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let made = objects::make(&state, &org.org_id, &caller, KIND, draft).await?;
    Ok((StatusCode::CREATED, Json(McpServerView::of(made)?)).into_response())
}

pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, server)): Ids<(OrgId, String)>,
) -> Answer<Json<McpServerView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, KIND, &server).await?;
    Ok(Json(McpServerView::of(found)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerChange {
    name: String,
    /// The version that the change was made from.
    version: u64,
    config: McpServerConfig,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, server)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ServerChange>,
) -> Answer<Json<McpServerView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let (id, version) = (&org.org_id, body.version);
    let set = objects::change(&state, id, &caller, KIND, &server, version, draft).await?;
    Ok(Json(McpServerView::of(set)?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, server)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    objects::delete(&state, &org.org_id, &caller, KIND, &server).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    /// The env profile whose variables the server's headers are filled in with.
    #[serde(default)]
    env_profile_id: Option<String>,
}

pub(super) async fn check(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, server)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<CheckBody>,
) -> Answer<Json<Seen>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let (id, by, profile) = (&org.org_id, caller.id(), body.env_profile_id.as_deref());
    Ok(Json(super::check(&state, id, by, &server, profile).await?))
}
