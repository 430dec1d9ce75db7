//! `/api/orgs/{org_id}/providers`.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{OrgId, price::ModelPrice};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Change, kind::ProviderKind};
use crate::{
    identity::caller::Caller,
    probing::Seen,
    state::AppState,
    ui::view::ProviderView,
    validate::present,
    web::{extract::Ids, failure::Answer},
    workspaces::orgs,
};

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<ProviderView>>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    Ok(Json(super::list(&state, &org.org_id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProvider {
    name: String,
    #[serde(default)]
    kind: ProviderKind,
    /// Where it is; may be absent for a kind that is one service.
    #[serde(default)]
    base_url: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    api_key: Option<Zeroizing<String>>,
    #[serde(default)]
    models: Vec<String>,
    /// Members of every request, such as `temperature`.
    #[serde(default)]
    options: Map<String, Value>,
    /// What models cost, by name; also of models that the list does not name.
    #[serde(default)]
    prices: BTreeMap<String, ModelPrice>,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewProvider>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let NewProvider { name, kind, base_url, api_key: key, models, options, prices } = body;
    let new = super::NewProvider { name, kind, base_url, key, models, options, prices };
    let made = super::make(&state, &org.org_id, caller.id(), new).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderChange {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    base_url: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>")]
    api_key: Option<Option<Zeroizing<String>>>,
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default)]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    prices: Option<BTreeMap<String, ModelPrice>>,
    /// The version that the change was made from; the newest where absent.
    #[serde(default)]
    version: Option<u64>,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, provider)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ProviderChange>,
) -> Answer<Json<ProviderView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let ProviderChange { name, base_url, api_key: key, models, options, prices, version } = body;
    let change = Change { name, base_url, key, models, options, prices, version };
    Ok(Json(super::change(&state, &org.org_id, caller.id(), &provider, change).await?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, provider)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    super::delete(&state, &org.org_id, caller.id(), &provider).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn check(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, provider)): Ids<(OrgId, String)>,
) -> Answer<Json<Seen>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::check(&state, &org.org_id, &provider).await?))
}
