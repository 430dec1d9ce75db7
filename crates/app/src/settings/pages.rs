//! The settings pages as HTML.

use askama::Template;
use convene_model::{
    AgentId, Role,
    agents::{Approvers, BuiltinTool, ResponseFormat},
    event::TriggerPolicy,
};

use super::views::{
    AgentPage, AgentsPage, EnvProfilePage, HttpToolPage, McpServerPage, OutsideAgentPage,
    ProvidersPage, SecretsPage, ToolsPage,
};
use crate::{
    agents::config::{AgentConfig, McpSelection, Visibility},
    env_profiles::{EnvProfileView, Variable, VariableValue},
    mcp_servers::{DEFAULT_MCP_TIMEOUT_MS, McpServerConfig, McpServerView},
    objects::values::{Setting, SettingValue},
    probing::{Seen, SeenTool},
    providers::kind::ProviderKind,
    secrets::store::{Grant, Owner, SecretView},
    tools::{DEFAULT_TOOL_RESPONSE_BYTES, DEFAULT_TOOL_TIMEOUT_MS, HttpToolConfig, Method},
    ui::{
        pages::html,
        view::{AgentView, MemberView, Shell},
    },
};

/// The agents of a workspace.
pub(super) fn agents(page: &AgentsPage) -> String {
    let shell = &page.shell;
    html(&Agents { csrf: &shell.csrf, shell, current: None, settings: true, tab: "agents", page })
}

/// One agent.
pub(super) fn agent(page: &AgentPage) -> String {
    let shell = &page.shell;
    let blank = AgentView {
        provider_id: page.providers.first().map(|provider| provider.provider_id.clone()),
        config: AgentConfig { builtin_tools: BuiltinTool::ALL.to_vec(), ..AgentConfig::default() },
        ..blank(false)
    };
    html(&Agent {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "agents",
        page,
        agent: page.agent.as_ref().unwrap_or(&blank),
        is_new: page.agent.is_none(),
    })
}

/// One agent whose process is somebody else's.
pub(super) fn outside_agent(page: &OutsideAgentPage) -> String {
    let shell = &page.shell;
    let blank = blank(true);
    html(&OutsideAgent {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "agents",
        page,
        agent: page.agent.as_ref().unwrap_or(&blank),
        is_new: page.agent.is_none(),
    })
}

/// An agent of which nothing is said yet.
fn blank(outside: bool) -> AgentView {
    AgentView {
        agent_id: AgentId::new("new").expect("three letters are an id"),
        name: String::new(),
        system_prompt: String::new(),
        provider_id: None,
        model: String::new(),
        is_default: false,
        trigger: TriggerPolicy::Mention,
        visibility: Visibility::Workspace,
        made_by: None,
        config: AgentConfig::default(),
        outside,
        version: 0,
    }
}

/// The model providers of a workspace.
pub(super) fn providers(page: &ProvidersPage) -> String {
    let shell = &page.shell;
    let (csrf, tab) = (&*shell.csrf, "providers");
    html(&Providers { csrf, shell, current: None, settings: true, tab, page })
}

/// HTTP tools and MCP servers.
pub(super) fn tools(page: &ToolsPage) -> String {
    let shell = &page.shell;
    html(&Tools { csrf: &shell.csrf, shell, current: None, settings: true, tab: "tools", page })
}

/// One HTTP tool.
pub(super) fn http_tool(page: &HttpToolPage) -> String {
    let shell = &page.shell;
    let blank = HttpToolConfig {
        description: String::new(),
        parameters: serde_json::json!({"type": "object", "properties": {}}),
        base_url: String::new(),
        methods: vec![Method::Get],
        path: String::new(),
        headers: Vec::new(),
        query: Vec::new(),
        timeout_ms: DEFAULT_TOOL_TIMEOUT_MS,
        max_response_bytes: DEFAULT_TOOL_RESPONSE_BYTES,
        response: ResponseFormat::Text,
        auto_approve: false,
        approvers: Approvers::Initiator,
    };
    html(&HttpTool {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "tools",
        page,
        config: page.tool.as_ref().map_or(&blank, |tool| &tool.config),
        parts: Parts { secrets: &page.secrets, members: &page.members },
    })
}

/// One MCP server.
pub(super) fn mcp_server(page: &McpServerPage) -> String {
    let shell = &page.shell;
    let blank = McpServerConfig {
        url: String::new(),
        headers: Vec::new(),
        tools: None,
        auto_approve: Vec::new(),
        approvers: Approvers::Initiator,
        timeout_ms: DEFAULT_MCP_TIMEOUT_MS,
    };
    html(&McpServer {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "tools",
        page,
        config: page.server.as_ref().map_or(&blank, |server| &server.config),
        parts: Parts { secrets: &page.secrets, members: &page.members },
    })
}

/// Secrets and env profiles.
pub(super) fn secrets(page: &SecretsPage) -> String {
    let shell = &page.shell;
    html(&Secrets { csrf: &shell.csrf, shell, current: None, settings: true, tab: "secrets", page })
}

/// One env profile.
pub(super) fn env_profile(page: &EnvProfilePage) -> String {
    let shell = &page.shell;
    html(&EnvProfile {
        csrf: &shell.csrf,
        shell,
        current: None,
        settings: true,
        tab: "secrets",
        page,
        parts: Parts { secrets: &page.secrets, members: &[] },
    })
}

#[derive(Template)]
#[template(path = "settings/agents.html")]
struct Agents<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a AgentsPage,
}

impl Agents<'_> {
    /// Where an agent's model runs, in one line.
    fn what_it_is(&self, agent: &AgentView) -> String {
        if agent.outside {
            return "a program of your own, with its own model and tools".to_owned();
        }
        format!("{} · {}", self.model_line(agent), self.tools_line(agent))
    }

    fn model_line(&self, agent: &AgentView) -> String {
        let Some(id) = agent.provider_id.as_deref() else {
            return "built-in demo model".to_owned();
        };
        match self.page.providers.iter().find(|provider| provider.provider_id == id) {
            Some(provider) => format!("{} · {}", agent.model, provider.name),
            None => format!("{} · provider deleted", agent.model),
        }
    }

    /// What an agent may use, in a few words.
    fn tools_line(&self, agent: &AgentView) -> String {
        let config = &agent.config;
        let count = |number: usize, one: &str, many: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{number} {many}")),
        };
        let own = config.builtin_tools.len() + config.http_tools.len();
        let words: Vec<_> = [
            count(own, "tool", "tools"),
            count(config.mcp_servers.len(), "MCP server", "MCP servers"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if words.is_empty() { "no tools".to_owned() } else { words.join(", ") }
    }

    /// Who alone may use it, if it is not everybody.
    fn kept_by(&self, agent: &AgentView) -> Option<&str> {
        match agent.visibility {
            Visibility::Workspace => None,
            Visibility::Owner => Some(
                self.page
                    .members
                    .iter()
                    .find(|member| agent.made_by.as_ref() == Some(&member.user_id))
                    .map_or("a former member", |member| member.name.as_str()),
            ),
        }
    }
}

#[derive(Template)]
#[template(path = "settings/agent.html")]
struct Agent<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a AgentPage,
    agent: &'a AgentView,
    is_new: bool,
}

impl Agent<'_> {
    fn manages(&self) -> bool {
        self.shell.org.role.manages()
    }

    fn uses(&self, tool: &BuiltinTool) -> bool {
        self.agent.config.builtin_tools.contains(tool)
    }

    fn says(&self, tool: &BuiltinTool) -> &'static str {
        match tool {
            BuiltinTool::CurrentTime => "tells the time",
            BuiltinTool::Calculator => "does arithmetic",
            BuiltinTool::SearchHistory => "searches the messages of its group",
        }
    }

    fn selection(&self, server: &McpServerView) -> Option<&McpSelection> {
        let all = &self.agent.config.mcp_servers;
        all.iter().find(|selection| selection.server_id == server.server_id)
    }

    fn everything(&self, server: &McpServerView) -> bool {
        self.selection(server).is_none_or(|selection| selection.tools.is_none())
    }

    /// The tools of a server that may be chosen, and whether each is.
    fn choices(&self, server: &McpServerView) -> Vec<(SeenTool, bool)> {
        let chosen = self.selection(server).and_then(|selection| selection.tools.as_ref());
        let mask = server.config.tools.as_ref();
        let offered = known(server.seen.as_ref(), &[chosen, mask]).into_iter();
        let offered = offered.filter(|tool| mask.is_none_or(|mask| mask.contains(&tool.name)));
        offered
            .map(|tool| {
                let on = chosen.is_some_and(|chosen| chosen.contains(&tool.name));
                (tool, on)
            })
            .collect()
    }

    fn triggered_by(&self) -> &'static str {
        crate::web::rows::trigger_name(self.agent.trigger)
    }

    fn has_http(&self, id: &str) -> bool {
        self.agent.config.http_tools.iter().any(|tool| tool == id)
    }

    fn has_profile(&self, id: &str) -> bool {
        self.agent.config.env_profile_id.as_deref() == Some(id)
    }
}

/// What may wake an agent, as it stands in the API and in words.
pub(crate) const fn triggers() -> &'static [(&'static str, &'static str)] {
    &[
        ("mention", "when it is mentioned"),
        ("auto", "every message of a person"),
        ("discussion", "people and other agents, within bounds"),
        ("off", "never"),
    ]
}

#[derive(Template)]
#[template(path = "settings/outside_agent.html")]
struct OutsideAgent<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a OutsideAgentPage,
    agent: &'a AgentView,
    is_new: bool,
}

impl OutsideAgent<'_> {
    fn triggered_by(&self) -> &'static str {
        crate::web::rows::trigger_name(self.agent.trigger)
    }

    fn manages(&self) -> bool {
        self.shell.org.role.manages()
    }
}

/// The tools that a server was seen with, and those that a list names besides.
fn known(seen: Option<&Seen>, named: &[Option<&Vec<String>>]) -> Vec<SeenTool> {
    let mut tools = seen.map(|seen| seen.tools.clone()).unwrap_or_default();
    for name in named.iter().copied().flatten().flatten() {
        if !tools.iter().any(|tool| tool.name == *name) {
            let (name, description) = (name.clone(), String::new());
            tools.push(SeenTool { name, description, read_only: false, refused: None });
        }
    }
    tools
}

#[derive(Template)]
#[template(path = "settings/providers.html")]
struct Providers<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a ProvidersPage,
}

impl Providers<'_> {
    fn manages(&self) -> bool {
        self.shell.org.role.manages()
    }

    fn kinds(&self) -> [ProviderKind; 3] {
        ProviderKind::ALL
    }
}

/// A JSON object for a field, empty when it has no members.
pub(crate) fn object(map: &serde_json::Map<String, serde_json::Value>) -> String {
    if map.is_empty() {
        return String::new();
    }
    serde_json::to_string_pretty(map).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "settings/tools.html")]
struct Tools<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a ToolsPage,
}

/// What the editors of tools, servers and profiles choose from.
struct Parts<'a> {
    secrets: &'a [SecretView],
    members: &'a [MemberView],
}

impl Parts<'_> {
    /// Secrets of the workspace, which may be referred to by id.
    fn of_workspace(&self) -> impl Iterator<Item = &SecretView> {
        self.secrets.iter().filter(|secret| secret.owner == Owner::Workspace)
    }

    /// A row for a new header or parameter.
    fn blank(&self) -> Setting {
        let value = SettingValue::Plain(String::new());
        Setting { name: String::new(), value, prefix: String::new() }
    }

    /// A row for a new variable.
    fn blank_variable(&self) -> Variable {
        Variable { name: String::new(), value: VariableValue::Plain(String::new()) }
    }

    fn kind(&self, value: &SettingValue) -> &'static str {
        match value {
            SettingValue::Plain(_) => "plain",
            SettingValue::Secret(_) => "secret",
            SettingValue::Variable(_) => "variable",
        }
    }

    fn text(&self, value: &SettingValue, kind: &str) -> String {
        match value {
            SettingValue::Plain(text)
            | SettingValue::Secret(text)
            | SettingValue::Variable(text)
                if self.kind(value) == kind =>
            {
                text.clone()
            }
            SettingValue::Plain(_) | SettingValue::Secret(_) | SettingValue::Variable(_) => {
                String::new()
            }
        }
    }

    fn variable_kind(&self, value: &VariableValue) -> &'static str {
        match value {
            VariableValue::Plain(_) => "plain",
            VariableValue::Secret(_) => "secret",
            VariableValue::Agent(_) => "agent",
            VariableValue::Personal(_) => "personal",
        }
    }

    fn variable_text(&self, value: &VariableValue, kind: &str) -> String {
        match value {
            VariableValue::Plain(text)
            | VariableValue::Secret(text)
            | VariableValue::Agent(text)
            | VariableValue::Personal(text)
                if self.variable_kind(value) == kind =>
            {
                text.clone()
            }
            VariableValue::Plain(_)
            | VariableValue::Secret(_)
            | VariableValue::Agent(_)
            | VariableValue::Personal(_) => String::new(),
        }
    }

    fn approvers_kind(&self, approvers: &Approvers) -> &'static str {
        match approvers {
            Approvers::Initiator => "initiator",
            Approvers::Role { .. } => "role",
            Approvers::NOfM { .. } => "n_of_m",
        }
    }

    fn needed(&self, approvers: &Approvers) -> usize {
        approvers.needed()
    }

    fn approving_role(&self, approvers: &Approvers) -> Role {
        match approvers {
            Approvers::Role { role } => *role,
            Approvers::Initiator | Approvers::NOfM { .. } => Role::Admin,
        }
    }

    fn approves(&self, approvers: &Approvers, member: &MemberView) -> bool {
        match approvers {
            Approvers::NOfM { users, .. } => users.contains(&member.user_id),
            Approvers::Initiator | Approvers::Role { .. } => false,
        }
    }
}

#[derive(Template)]
#[template(path = "settings/http_tool.html")]
struct HttpTool<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a HttpToolPage,
    config: &'a HttpToolConfig,
    parts: Parts<'a>,
}

impl HttpTool<'_> {
    fn methods(&self) -> [Method; 6] {
        Method::ALL
    }

    fn schema(&self) -> String {
        serde_json::to_string_pretty(&self.config.parameters).unwrap_or_default()
    }
}

/// Milliseconds as seconds.
pub(crate) fn seconds(ms: &u64) -> f64 {
    f64::from(u32::try_from(*ms).unwrap_or(u32::MAX)) / 1000.0
}

/// Bytes as kibibytes.
pub(crate) fn kib(bytes: &u64) -> f64 {
    f64::from(u32::try_from(*bytes).unwrap_or(u32::MAX)) / 1024.0
}

#[derive(Template)]
#[template(path = "settings/mcp_server.html")]
struct McpServer<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a McpServerPage,
    config: &'a McpServerConfig,
    parts: Parts<'a>,
}

impl McpServer<'_> {
    fn seen(&self) -> Option<&Seen> {
        self.page.server.as_ref().and_then(|server| server.seen.as_ref())
    }

    fn tools(&self) -> Vec<SeenTool> {
        let config = self.config;
        known(self.seen(), &[config.tools.as_ref(), Some(&config.auto_approve)])
    }

    fn offers(&self, tool: &SeenTool) -> bool {
        self.config.tools.as_ref().is_none_or(|tools| tools.contains(&tool.name))
    }

    fn approves(&self, tool: &SeenTool) -> bool {
        self.config.auto_approve.contains(&tool.name)
    }
}

#[derive(Template)]
#[template(path = "settings/secrets.html")]
struct Secrets<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a SecretsPage,
}

impl Secrets<'_> {
    fn manages(&self) -> bool {
        self.shell.org.role.manages()
    }

    /// Whose a secret is, in a few words.
    fn owner(&self, secret: &SecretView) -> String {
        match &secret.owner {
            Owner::Personal { .. } => "only for runs that you begin".to_owned(),
            Owner::Agent { agent_id } => {
                let agent = self.page.agents.iter().find(|agent| agent.agent_id == *agent_id);
                format!("of the agent {}", agent.map_or("that was deleted", |agent| &agent.name))
            }
            Owner::Workspace => match &secret.groups {
                Grant::All => "for agents in all groups".to_owned(),
                Grant::Groups(groups) if groups.is_empty() => "granted to no group".to_owned(),
                Grant::Groups(groups) if groups.len() == 1 => "granted to 1 group".to_owned(),
                Grant::Groups(groups) => format!("granted to {} groups", groups.len()),
            },
        }
    }

    fn of_workspace(&self, secret: &SecretView) -> bool {
        secret.owner == Owner::Workspace
    }

    fn everywhere(&self, secret: &SecretView) -> bool {
        secret.groups == Grant::All
    }

    fn granted(&self, secret: &SecretView, group: &convene_model::GroupId) -> bool {
        match &secret.groups {
            Grant::All => false,
            Grant::Groups(groups) => groups.contains(group),
        }
    }

    /// Granted groups that the reader does not see: they stay granted.
    fn unseen(&self, secret: &SecretView) -> Vec<convene_model::GroupId> {
        match &secret.groups {
            Grant::All => Vec::new(),
            Grant::Groups(groups) => {
                let seen = |id: &convene_model::GroupId| {
                    self.page.groups.iter().any(|group| group.group_id == *id)
                };
                groups.iter().filter(|id| !seen(id)).cloned().collect()
            }
        }
    }

    /// Who set a version.
    fn setter(&self, id: &str) -> &str {
        let found = self.page.members.iter().find(|member| member.user_id.as_str() == id);
        found.map_or("somebody", |member| &member.name)
    }

    fn count(&self, profile: &EnvProfileView) -> String {
        match profile.config.variables.len() {
            1 => "1 variable".to_owned(),
            many => format!("{many} variables"),
        }
    }
}

#[derive(Template)]
#[template(path = "settings/env_profile.html")]
struct EnvProfile<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    page: &'a EnvProfilePage,
    parts: Parts<'a>,
}
