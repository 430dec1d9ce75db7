//! `/api/orgs/…` (people, invites, audit) and `/api/invites/…`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{OrgId, Role, UserId};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{audit, invites, members, orgs};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::view::{MemberView, OrgView},
    web::{
        extract::{Ids, Search, Site},
        failure::Answer,
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrg {
    name: String,
}

pub(super) async fn make_org(
    State(state): State<AppState>,
    caller: Caller,
    ApiJson(body): ApiJson<NewOrg>,
) -> Answer<Response> {
    let org = orgs::make(&state, caller.id(), &body.name).await?;
    Ok((StatusCode::CREATED, Json(org)).into_response())
}

pub(super) async fn rename_org(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    ApiJson(body): ApiJson<NewOrg>,
) -> Answer<Json<OrgView>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(orgs::rename(&state, org, caller.id(), &body.name).await?))
}

pub(super) async fn members(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<MemberView>>> {
    let org = orgs::enter(&state, &org, &caller).await?;
    Ok(Json(members::list(&state, &org.org_id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleChange {
    role: Role,
}

pub(super) async fn change_role(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, user)): Ids<(OrgId, UserId)>,
    ApiJson(body): ApiJson<RoleChange>,
) -> Answer<StatusCode> {
    let org = orgs::enter(&state, &org, &caller).await?;
    members::change_role(&state, &org, &caller, &user, body.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_member(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, user)): Ids<(OrgId, UserId)>,
) -> Answer<StatusCode> {
    let org = orgs::enter(&state, &org, &caller).await?;
    members::remove(&state, &org, &caller, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn make_invite(
    State(state): State<AppState>,
    site: Site,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let made = invites::make(&state, &org, caller.id(), &site.origin).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

pub(super) async fn invites(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Json<Vec<invites::Listed>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(invites::list(&state, &org.org_id).await?))
}

pub(super) async fn revoke_invite(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, invite)): Ids<(OrgId, String)>,
) -> Answer<StatusCode> {
    let org = orgs::manage(&state, &org, &caller).await?;
    invites::revoke(&state, &org, caller.id(), &invite).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Joined {
    org_id: OrgId,
}

pub(super) async fn accept_invite(
    State(state): State<AppState>,
    caller: Caller,
    Ids(token): Ids<String>,
) -> Answer<Json<Joined>> {
    Ok(Json(Joined { org_id: invites::accept(&state, &token, caller.id()).await? }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    #[serde(default)]
    pub(super) before: Option<String>,
}

pub(super) async fn audit(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    Search(query): Search<AuditQuery>,
) -> Answer<Json<Vec<audit::Entry>>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let before = query.before.as_deref();
    let told = audit::list(&state, &org.org_id, before, audit::AUDIT_PAGE).await?;
    Ok(Json(told.into_iter().map(|told| told.entry).collect()))
}
