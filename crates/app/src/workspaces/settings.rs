//! The settings pages of a workspace; what they change goes through the API.

use axum::{extract::State, response::Response};
use convene_model::OrgId;

use super::{members, orgs, pages::shell};
use crate::{
    agents,
    identity::{bearer, caller::Caller},
    providers,
    state::AppState,
    ui::{
        pages,
        view::{AgentsView, MembersView, ProvidersView, TokensView},
    },
    web::{self, extract::Ids, failure::Answer},
};

pub(super) async fn members(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let members = members::list(&state, &org.org_id).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::settings_members(&MembersView { shell, members })))
}

pub(super) async fn agents(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let agents = agents::list(&state, &org.org_id).await?;
    let providers = providers::list(&state, &org.org_id).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::settings_agents(&AgentsView { shell, agents, providers })))
}

pub(super) async fn providers(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let providers = providers::list(&state, &org.org_id).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::settings_providers(&ProvidersView { shell, providers })))
}

pub(super) async fn tokens(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let tokens = bearer::list(&state, caller.id()).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::settings_tokens(&TokensView { shell, tokens })))
}
