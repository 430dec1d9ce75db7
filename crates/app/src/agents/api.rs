//! `/api/orgs/{org_id}/agents`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{AgentId, OrgId, event::TriggerPolicy, probe::ProbeAnswer};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Draft,
    config::{AgentConfig, Visibility},
};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::view::AgentView,
    validate::present,
    web::{extract::Ids, failure::Answer},
    workspaces::orgs,
};

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<AgentView>>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    Ok(Json(super::list(&state, &org, &caller).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAgent {
    name: String,
    #[serde(default)]
    system_prompt: String,
    #[serde(default)]
    provider_id: Option<String>,
    #[serde(default)]
    model: String,
    #[serde(default)]
    is_default: bool,
    #[serde(default = "by_mention")]
    trigger: TriggerPolicy,
    #[serde(default)]
    visibility: Visibility,
    #[serde(default)]
    config: AgentConfig,
    /// Whether it is a process of somebody else's, with tokens of its own. That does not change later.
    #[serde(default)]
    outside: bool,
}

const fn by_mention() -> TriggerPolicy {
    TriggerPolicy::Mention
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewAgent>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = Draft {
        name: body.name,
        system_prompt: body.system_prompt,
        provider_id: body.provider_id,
        model: body.model,
        is_default: body.is_default,
        trigger: body.trigger,
        visibility: body.visibility,
        config: body.config,
        outside: body.outside,
    };
    let agent = super::make(&state, &org.org_id, &caller, draft).await?;
    Ok((StatusCode::CREATED, Json(agent)).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentChange {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    system_prompt: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>")]
    provider_id: Option<Option<String>>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    is_default: Option<bool>,
    #[serde(default)]
    trigger: Option<TriggerPolicy>,
    #[serde(default)]
    visibility: Option<Visibility>,
    #[serde(default)]
    config: Option<AgentConfig>,
    /// The version that the change was made from; the newest where absent.
    #[serde(default)]
    version: Option<u64>,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
    ApiJson(body): ApiJson<AgentChange>,
) -> Answer<Json<AgentView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let edit = |current: Draft| Draft {
        name: body.name.unwrap_or(current.name),
        system_prompt: body.system_prompt.unwrap_or(current.system_prompt),
        provider_id: body.provider_id.unwrap_or(current.provider_id),
        model: body.model.unwrap_or(current.model),
        is_default: body.is_default.unwrap_or(current.is_default),
        trigger: body.trigger.unwrap_or(current.trigger),
        visibility: body.visibility.unwrap_or(current.visibility),
        config: body.config.unwrap_or(current.config),
        outside: current.outside,
    };
    let version = body.version;
    Ok(Json(super::change(&state, &org.org_id, &caller, &agent, version, edit).await?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    super::delete(&state, &org.org_id, &caller, &agent).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TryBody {
    /// The question.
    text: String,
}

pub(super) async fn try_out(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
    ApiJson(body): ApiJson<TryBody>,
) -> Answer<Json<ProbeAnswer>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::try_out(&state, &org.org_id, &agent, body.text).await?))
}
