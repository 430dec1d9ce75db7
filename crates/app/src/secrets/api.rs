//! `/api/orgs/{org_id}/secrets`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{AgentId, OrgId};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::store::{self, Change, Grant, NewSecret, Owner, SecretView, VersionView};
use crate::{
    identity::caller::Caller,
    state::AppState,
    validate,
    web::{extract::Ids, failure::Answer},
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<SecretView>>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    Ok(Json(store::list(&state, &org, &caller).await?))
}

/// Whose a new secret is, as a caller says it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    Workspace,
    Agent,
    Personal,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBody {
    scope: Scope,
    #[serde(default)]
    agent_id: Option<AgentId>,
    name: String,
    #[serde(default)]
    note: String,
    #[serde(default = "everywhere")]
    groups: Grant,
    #[schemars(with = "String")]
    value: Zeroizing<String>,
}

const fn everywhere() -> Grant {
    Grant::All
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewBody>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let owner = match (body.scope, body.agent_id) {
        (Scope::Agent, Some(agent_id)) => Owner::Agent { agent_id },
        (Scope::Agent, None) => {
            return Err(validate::invalid("agent_id", "Say which agent it belongs to.").into());
        }
        (Scope::Workspace | Scope::Personal, Some(_)) => {
            let sentence = "Only an agent's own secret names an agent.";
            return Err(validate::invalid("agent_id", sentence).into());
        }
        (Scope::Workspace, None) => Owner::Workspace,
        (Scope::Personal, None) => Owner::Personal { user_id: caller.id().clone() },
    };
    let NewBody { name, note, groups, value, .. } = body;
    let new = NewSecret { owner, name, note, groups, value };
    let made = store::make(&state, &org, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// A secret and its versions, without a value.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SecretDetail")]
pub(super) struct Detail {
    #[serde(flatten)]
    secret: SecretView,
    versions: Vec<VersionView>,
}

pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, secret)): Ids<(OrgId, String)>,
) -> Answer<Json<Detail>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let found = store::find(&state, &org, &caller, &secret).await?;
    let versions = store::versions(&state, &secret).await?;
    Ok(Json(Detail { secret: found, versions }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeBody {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    groups: Option<Grant>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    value: Option<Zeroizing<String>>,
    #[serde(default)]
    restore_version: Option<u64>,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, secret)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ChangeBody>,
) -> Answer<Json<SecretView>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let ChangeBody { name, note, groups, value, restore_version: restore } = body;
    let change = Change { name, note, groups, value, restore };
    Ok(Json(store::change(&state, &org, &caller, &secret, change).await?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, secret)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::enter(&state, &org, &caller).await?;
    store::delete(&state, &org, &caller, &secret).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevealBody {
    #[serde(default)]
    version: Option<u64>,
}

/// A value in the open: in this answer and nowhere else.
#[derive(Serialize, JsonSchema)]
pub(super) struct Revealed {
    #[schemars(with = "String")]
    value: Zeroizing<String>,
}

pub(super) async fn reveal(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, secret)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<RevealBody>,
) -> Answer<Json<Revealed>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let value = store::reveal(&state, &org, &caller, &secret, body.version).await?;
    Ok(Json(Revealed { value }))
}

/// How many values a new data key has sealed.
#[derive(Serialize, JsonSchema)]
pub(super) struct Rotated {
    resealed: u64,
}

pub(super) async fn rotate(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Rotated>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let (id, now) = (&org.org_id, state.now());
    let settled = state.vault.rotate(id, now).await?;
    let detail = json!({"resealed": settled.resealed});
    let rotated = Action::SecretsRotated;
    let record = audit::record(id, caller.id(), rotated, id.as_str(), &detail, now);
    state.db.batch(vec![record]).await?;
    Ok(Json(Rotated { resealed: settled.resealed }))
}
