//! `/api/orgs/{org_id}/providers`.

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
use zeroize::Zeroizing;

use super::Change;
use crate::{
    identity::caller::Caller,
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
    base_url: String,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    api_key: Option<Zeroizing<String>>,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewProvider>,
) -> Answer<Response> {
    let NewProvider { name, base_url, api_key } = body;
    let org = orgs::manage(&state, &org, &caller).await?;
    let made = super::make(&state, &org.org_id, caller.id(), &name, &base_url, api_key).await?;
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
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, provider)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ProviderChange>,
) -> Answer<Json<ProviderView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let change = Change { name: body.name, base_url: body.base_url, key: body.api_key };
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
