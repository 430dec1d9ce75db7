//! `/api/orgs/{org_id}/env-profiles`.

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

use super::{EnvProfileConfig, EnvProfileView, draft};
use crate::{
    identity::caller::Caller,
    objects::{self, Kind},
    state::AppState,
    web::{extract::Ids, failure::Answer},
    workspaces::orgs,
};

const KIND: Kind = Kind::EnvProfile;

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<EnvProfileView>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(super::list(&state, &org.org_id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProfile {
    name: String,
    config: EnvProfileConfig,
}

pub(super) async fn make(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewProfile>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let made = objects::make(&state, &org.org_id, &caller, KIND, draft).await?;
    Ok((StatusCode::CREATED, Json(EnvProfileView::of(made)?)).into_response())
}

pub(super) async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, profile)): Ids<(OrgId, String)>,
) -> Answer<Json<EnvProfileView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, KIND, &profile).await?;
    Ok(Json(EnvProfileView::of(found)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileChange {
    name: String,
    /// The version that the change was made from.
    version: u64,
    config: EnvProfileConfig,
}

pub(super) async fn change(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, profile)): Ids<(OrgId, String)>,
    ApiJson(body): ApiJson<ProfileChange>,
) -> Answer<Json<EnvProfileView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let draft = draft(&org.org_id, &body.name, body.config)?;
    let (id, version) = (&org.org_id, body.version);
    let set = objects::change(&state, id, &caller, KIND, &profile, version, draft).await?;
    Ok(Json(EnvProfileView::of(set)?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, profile)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    objects::delete(&state, &org.org_id, &caller, KIND, &profile).await?;
    Ok(StatusCode::NO_CONTENT)
}
