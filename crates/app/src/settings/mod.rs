//! The settings pages of a workspace. What they change goes through the API.
//!
//! Owns which page shows what to whom: everybody sees members, agents and what is their own; those
//! who manage the workspace see and change the rest.

mod pages;
#[cfg(test)]
pub(crate) mod samples;
mod views;

use axum::{Router, extract::State, response::Response, routing::get};
use convene_model::{AgentId, Code, OrgId, infra::HistoryMode};

pub(crate) use self::pages::{kib, object, seconds};
use self::views::{
    AgentPage, AgentsPage, EnvProfilePage, HttpToolPage, McpServerPage, OutsideAgentPage,
    ProvidersPage, SecretsPage, ToolsPage,
};
use crate::{
    agents::{self, tokens::Reach},
    env_profiles, groups,
    identity::{bearer, caller::Caller},
    mcp_servers,
    objects::{self, Kind},
    providers,
    secrets::store as secrets,
    state::AppState,
    tools::{self, hosts},
    ui::{
        pages::{settings_members, settings_tokens},
        view::{MembersView, OpenInvite, OrgView, Shell, TokensView},
    },
    web::{self, extract::Ids, failure::Answer},
    workspaces::{invites, members, orgs, shell},
};

/// The pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/o/{org_id}/settings/members", get(members_page))
        .route("/o/{org_id}/settings/agents", get(agents_page))
        .route("/o/{org_id}/settings/agents/new", get(new_agent))
        .route("/o/{org_id}/settings/agents/outside", get(new_outside_agent))
        .route("/o/{org_id}/settings/agents/{agent_id}", get(agent))
        .route("/o/{org_id}/settings/providers", get(providers_page))
        .route("/o/{org_id}/settings/tools", get(tools_page))
        .route("/o/{org_id}/settings/tools/http/new", get(new_http_tool))
        .route("/o/{org_id}/settings/tools/http/{tool_id}", get(http_tool))
        .route("/o/{org_id}/settings/tools/mcp/new", get(new_mcp_server))
        .route("/o/{org_id}/settings/tools/mcp/{server_id}", get(mcp_server))
        .route("/o/{org_id}/settings/secrets", get(secrets_page))
        .route("/o/{org_id}/settings/env/new", get(new_env_profile))
        .route("/o/{org_id}/settings/env/{env_profile_id}", get(env_profile))
        .route("/o/{org_id}/settings/tokens", get(tokens_page))
}

async fn enter(state: &AppState, org: &OrgId, caller: &Caller) -> Answer<(OrgView, Shell)> {
    let org = orgs::enter(state, org, caller).await?;
    let shell = shell(state, caller, org.clone()).await?;
    Ok((org, shell))
}

async fn manage(state: &AppState, org: &OrgId, caller: &Caller) -> Answer<(OrgView, Shell)> {
    let org = orgs::manage(state, org, caller).await?;
    let shell = shell(state, caller, org.clone()).await?;
    Ok((org, shell))
}

async fn members_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = enter(&state, &org, &caller).await?;
    let members = members::list(&state, &org.org_id).await?;
    let keeps_history = state.rooms.history_mode(&org.org_id) == HistoryMode::External;
    let mut open = Vec::new();
    if org.role.manages() {
        for invite in invites::list(&state, &org.org_id).await? {
            // The invitations of somebody who left, or manages nothing any more, are void.
            let maker = members.iter().find(|member| member.user_id == invite.created_by);
            open.push(OpenInvite {
                invite_id: invite.invite_id,
                made_by: maker.map(|member| member.name.clone()).unwrap_or_default(),
                created_at: invite.created_at,
                expires_at: invite.expires_at,
            });
        }
    }
    let view = MembersView { shell, members, invites: open, keeps_history };
    Ok(web::page(settings_members(&view)))
}

async fn tokens_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (_, shell) = enter(&state, &org, &caller).await?;
    let tokens = bearer::list(&state, caller.id()).await?;
    Ok(web::page(settings_tokens(&TokensView { shell, tokens })))
}

async fn agents_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = enter(&state, &org, &caller).await?;
    let agents = agents::list(&state, &org, &caller).await?;
    let providers = providers::list(&state, &org.org_id).await?;
    let members = members::list(&state, &org.org_id).await?;
    Ok(web::page(pages::agents(&AgentsPage { shell, agents, providers, members })))
}

async fn new_agent(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    Ok(web::page(pages::agent(&agent_page(&state, &org, shell, None).await?)))
}

async fn agent(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, agent)): Ids<(OrgId, AgentId)>,
) -> Answer<Response> {
    let (org, shell) = enter(&state, &org, &caller).await?;
    let agents = agents::list(&state, &org, &caller).await?;
    let found = agents.into_iter().find(|one| one.agent_id == agent);
    let Some(found) = found else { return Err(Code::NotFound.into()) };
    if found.outside {
        let tokens =
            if org.role.manages() { agents::tokens::of(&state, &agent).await? } else { Vec::new() };
        let reach = agents::tokens::reach(&state, &agent, &tokens)?;
        let page = OutsideAgentPage { shell, agent: Some(found), tokens, reach };
        return Ok(web::page(pages::outside_agent(&page)));
    }
    Ok(web::page(pages::agent(&agent_page(&state, &org, shell, Some(found)).await?)))
}

async fn new_outside_agent(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (_, shell) = manage(&state, &org, &caller).await?;
    let page = OutsideAgentPage { shell, agent: None, tokens: Vec::new(), reach: Reach::Away };
    Ok(web::page(pages::outside_agent(&page)))
}

async fn agent_page(
    state: &AppState,
    org: &OrgView,
    shell: Shell,
    agent: Option<crate::ui::view::AgentView>,
) -> Answer<AgentPage> {
    let id = &org.org_id;
    Ok(AgentPage {
        shell,
        agent,
        providers: providers::list(state, id).await?,
        tools: tools::list(state, id).await?,
        servers: mcp_servers::list(state, id).await?,
        profiles: env_profiles::list(state, id).await?,
    })
}

async fn providers_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = enter(&state, &org, &caller).await?;
    let providers = providers::list(&state, &org.org_id).await?;
    Ok(web::page(pages::providers(&ProvidersPage { shell, providers })))
}

async fn tools_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    let tools = tools::list(&state, &org.org_id).await?;
    let servers = mcp_servers::list(&state, &org.org_id).await?;
    let hosts = hosts::of(&state, &org.org_id).await?;
    Ok(web::page(pages::tools(&ToolsPage { shell, tools, servers, hosts })))
}

async fn new_http_tool(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    http_tool_page(&state, &caller, org, shell, None).await
}

async fn http_tool(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, tool)): Ids<(OrgId, String)>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, Kind::HttpTool, &tool).await?;
    http_tool_page(&state, &caller, org, shell, Some(tools::HttpToolView::of(found)?)).await
}

async fn http_tool_page(
    state: &AppState,
    caller: &Caller,
    org: OrgView,
    shell: Shell,
    tool: Option<tools::HttpToolView>,
) -> Answer<Response> {
    let secrets = secrets::list(state, &org, caller).await?;
    let members = members::list(state, &org.org_id).await?;
    Ok(web::page(pages::http_tool(&HttpToolPage { shell, tool, secrets, members })))
}

async fn new_mcp_server(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    mcp_server_page(&state, &caller, org, shell, None).await
}

async fn mcp_server(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, server)): Ids<(OrgId, String)>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, Kind::McpServer, &server).await?;
    mcp_server_page(&state, &caller, org, shell, Some(mcp_servers::McpServerView::of(found)?)).await
}

async fn mcp_server_page(
    state: &AppState,
    caller: &Caller,
    org: OrgView,
    shell: Shell,
    server: Option<mcp_servers::McpServerView>,
) -> Answer<Response> {
    let secrets = secrets::list(state, &org, caller).await?;
    let members = members::list(state, &org.org_id).await?;
    let profiles = env_profiles::list(state, &org.org_id).await?;
    let page = McpServerPage { shell, server, secrets, members, profiles };
    Ok(web::page(pages::mcp_server(&page)))
}

async fn secrets_page(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = enter(&state, &org, &caller).await?;
    let mut secrets = Vec::new();
    for secret in secrets::list(&state, &org, &caller).await? {
        let versions = secrets::versions(&state, &secret.secret_id).await?;
        secrets.push((secret, versions));
    }
    let agents = agents::list(&state, &org, &caller).await?;
    let members = members::list(&state, &org.org_id).await?;
    let groups = groups::list(&state, &org.org_id, caller.id()).await?;
    let profiles = if org.role.manages() {
        env_profiles::list(&state, &org.org_id).await?
    } else {
        Vec::new()
    };
    let page = SecretsPage { shell, secrets, agents, members, groups, profiles };
    Ok(web::page(pages::secrets(&page)))
}

async fn new_env_profile(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    let secrets = secrets::list(&state, &org, &caller).await?;
    Ok(web::page(pages::env_profile(&EnvProfilePage { shell, profile: None, secrets })))
}

async fn env_profile(
    State(state): State<AppState>,
    caller: Caller,
    Ids((org, profile)): Ids<(OrgId, String)>,
) -> Answer<Response> {
    let (org, shell) = manage(&state, &org, &caller).await?;
    let found = objects::find(&state, &org.org_id, Kind::EnvProfile, &profile).await?;
    let profile = Some(env_profiles::EnvProfileView::of(found)?);
    let secrets = secrets::list(&state, &org, &caller).await?;
    Ok(web::page(pages::env_profile(&EnvProfilePage { shell, profile, secrets })))
}
