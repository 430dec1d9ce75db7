//! Every settings page with one of everything, for what must hold of all pages.

use convene_model::{AgentId, OrgId, Role, Timestamp, UserId, agents::BuiltinTool};
use serde_json::json;

use super::{
    pages,
    views::{
        AgentPage, AgentsPage, EnvProfilePage, HttpToolPage, McpServerPage, OutsideAgentPage,
        ProvidersPage, SecretsPage, ToolsPage,
    },
};
use crate::{
    agents::{
        config::{AgentConfig, McpSelection, Visibility},
        tokens::Reach,
    },
    env_profiles::EnvProfileView,
    mcp_servers::McpServerView,
    probing::{Seen, SeenTool},
    providers::kind::ProviderKind,
    secrets::store::{Grant, MASK, Owner, SecretView, VersionView},
    tools::HttpToolView,
    ui::view::{AgentView, GroupItem, MemberView, ProviderView, Shell, TokenView},
};

const AT: Timestamp = Timestamp::from_secs(1_795_183_500);

fn seen(evil: &str, failure: Option<&str>) -> Seen {
    let tool = |name: &str, read_only| SeenTool {
        name: name.to_owned(),
        description: evil.to_owned(),
        read_only,
        refused: read_only.then(|| evil.to_owned()),
    };
    Seen {
        at: AT,
        failure: failure.map(str::to_owned),
        models: vec![evil.to_owned()],
        tools: vec![tool(evil, true), tool("write", false)],
    }
}

fn agent(evil: &str) -> AgentView {
    AgentView {
        agent_id: AgentId::new("a1").unwrap(),
        name: evil.to_owned(),
        system_prompt: evil.to_owned(),
        provider_id: Some("p1".to_owned()),
        model: evil.to_owned(),
        is_default: true,
        trigger: convene_model::event::TriggerPolicy::Auto,
        visibility: Visibility::Owner,
        made_by: Some(UserId::new("u1").unwrap()),
        config: AgentConfig {
            builtin_tools: vec![BuiltinTool::Calculator],
            http_tools: vec!["t1".to_owned()],
            mcp_servers: vec![McpSelection {
                server_id: "s1".to_owned(),
                tools: Some(vec!["write".to_owned(), "gone".to_owned()]),
            }],
            env_profile_id: Some("e1".to_owned()),
        },
        outside: false,
        version: 3,
    }
}

fn providers(evil: &str) -> Vec<ProviderView> {
    let provider = |seen| ProviderView {
        provider_id: "p1".to_owned(),
        name: evil.to_owned(),
        kind: ProviderKind::Anthropic,
        base_url: evil.to_owned(),
        has_key: true,
        models: vec![evil.to_owned()],
        options: json!({"stop": evil}).as_object().unwrap().clone(),
        prices: serde_json::from_value(json!({evil: {"input": 1, "output": 2}})).unwrap(),
        seen,
        version: 1,
    };
    vec![provider(None), provider(Some(seen(evil, None))), provider(Some(seen(evil, Some(evil))))]
}

fn tool(evil: &str, approvers: serde_json::Value) -> HttpToolView {
    let config = json!({
        "description": evil, "base_url": evil, "methods": ["GET", "POST"], "path": evil,
        "parameters": {"type": "object", "title": evil},
        "headers": [
            {"name": evil, "value": {"plain": evil}},
            {"name": "A", "value": {"secret": "x1"}, "prefix": evil},
        ],
        "query": [{"name": "B", "value": {"variable": evil}}],
        "approvers": approvers,
    });
    HttpToolView {
        tool_id: "t1".to_owned(),
        name: evil.to_owned(),
        version: 2,
        updated_at: AT,
        config: serde_json::from_value(config).unwrap(),
    }
}

fn server(evil: &str, seen: Option<Seen>) -> McpServerView {
    let config = json!({"url": evil, "tools": [evil, "write"], "auto_approve": ["write"]});
    McpServerView {
        server_id: "s1".to_owned(),
        name: evil.to_owned(),
        version: 2,
        updated_at: AT,
        config: serde_json::from_value(config).unwrap(),
        seen,
    }
}

fn profile(evil: &str) -> EnvProfileView {
    let config = json!({"variables": [
        {"name": "A", "value": {"plain": evil}},
        {"name": "B", "value": {"secret": "x1"}},
        {"name": "C", "value": {"agent": evil}},
        {"name": "D", "value": {"personal": evil}},
    ]});
    EnvProfileView {
        env_profile_id: "e1".to_owned(),
        name: evil.to_owned(),
        version: 1,
        updated_at: AT,
        config: serde_json::from_value(config).unwrap(),
    }
}

fn secrets(evil: &str, groups: &[GroupItem]) -> Vec<SecretView> {
    let secret = |owner, groups| SecretView {
        secret_id: "x1".to_owned(),
        owner,
        name: evil.to_owned(),
        note: evil.to_owned(),
        groups,
        version: 2,
        updated_at: AT,
        mask: MASK,
    };
    let mut ids: Vec<_> = groups.iter().map(|group| group.group_id.clone()).collect();
    ids.push(convene_model::GroupId::new("unseen").unwrap());
    vec![
        secret(Owner::Workspace, Grant::All),
        secret(Owner::Workspace, Grant::Groups(ids)),
        secret(Owner::Agent { agent_id: AgentId::new("a1").unwrap() }, Grant::All),
        secret(Owner::Personal { user_id: UserId::new("u1").unwrap() }, Grant::All),
    ]
}

/// All of them, for somebody who manages the workspace and for somebody who does not.
pub(crate) fn pages(shell: &Shell, evil: &str) -> Vec<String> {
    let mut of_member = shell.clone();
    of_member.org.role = Role::Member;
    of_member.org.org_id = OrgId::new("o1").unwrap();
    let member = |id: &str| MemberView {
        user_id: UserId::new(id).unwrap(),
        name: evil.to_owned(),
        email: evil.to_owned(),
        role: Role::Member,
    };
    let members = || vec![member("u1"), member("u2")];
    let all = |secrets: Vec<SecretView>| {
        let version =
            |version| VersionView { version, created_at: AT, created_by: "u1".to_owned() };
        secrets.into_iter().map(|secret| (secret, vec![version(2), version(1)])).collect()
    };
    let mut pages = Vec::new();
    for shell in [shell.clone(), of_member] {
        let secrets = secrets(evil, &shell.groups);
        for agents in [vec![agent(evil)], Vec::new()] {
            let (providers, members) = (providers(evil), members());
            let page = AgentsPage { shell: shell.clone(), agents, providers, members };
            pages.push(pages::agents(&page));
        }
        for agent in [Some(agent(evil)), None] {
            pages.push(pages::agent(&AgentPage {
                shell: shell.clone(),
                agent,
                providers: providers(evil),
                tools: vec![tool(evil, json!({"kind": "initiator"}))],
                servers: vec![server(evil, Some(seen(evil, None))), server(evil, None)],
                profiles: vec![profile(evil)],
            }));
        }
        let reaches = [Reach::Here, Reach::LatelySeen, Reach::Away];
        let agents = reaches.map(|reach| (Some(agent(evil)), reach));
        for (agent, reach) in agents.into_iter().chain([(None, Reach::Away)]) {
            let token = |last_used_at| TokenView {
                token_id: "t1".to_owned(),
                name: evil.to_owned(),
                created_at: AT,
                last_used_at,
            };
            pages.push(pages::outside_agent(&OutsideAgentPage {
                shell: shell.clone(),
                agent: agent.map(|agent| AgentView { outside: true, ..agent }),
                tokens: vec![token(None), token(Some(AT))],
                reach,
            }));
        }
        for providers in [providers(evil), Vec::new()] {
            pages.push(pages::providers(&ProvidersPage { shell: shell.clone(), providers }));
        }
        pages.push(pages::tools(&ToolsPage {
            shell: shell.clone(),
            tools: vec![tool(evil, json!({"kind": "initiator"}))],
            servers: vec![server(evil, Some(seen(evil, Some(evil)))), server(evil, None)],
            hosts: Some(vec![evil.to_owned()]),
        }));
        pages.push(pages::tools(&ToolsPage {
            shell: shell.clone(),
            tools: Vec::new(),
            servers: Vec::new(),
            hosts: None,
        }));
        let n_of_m = json!({"kind": "n_of_m", "n": 1, "users": ["u1"]});
        let role = json!({"kind": "role", "role": "owner"});
        for tool in [Some(tool(evil, n_of_m)), Some(tool(evil, role)), None] {
            let (secrets, members) = (secrets.clone(), members());
            let page = HttpToolPage { shell: shell.clone(), tool, secrets, members };
            pages.push(pages::http_tool(&page));
        }
        for server in [Some(server(evil, Some(seen(evil, None)))), Some(server(evil, None)), None] {
            let (secrets, members, profiles) = (secrets.clone(), members(), vec![profile(evil)]);
            let page = McpServerPage { shell: shell.clone(), server, secrets, members, profiles };
            pages.push(pages::mcp_server(&page));
        }
        for secrets in [secrets.clone(), Vec::new()] {
            pages.push(pages::secrets(&SecretsPage {
                shell: shell.clone(),
                secrets: all(secrets),
                agents: vec![agent(evil)],
                members: members(),
                groups: shell.groups.clone(),
                profiles: vec![profile(evil)],
            }));
        }
        for profile in [Some(profile(evil)), None] {
            let secrets = secrets.clone();
            let page = EnvProfilePage { shell: shell.clone(), profile, secrets };
            pages.push(pages::env_profile(&page));
        }
    }
    pages
}
