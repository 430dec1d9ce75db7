//! What the settings pages are made of.

use crate::{
    agents::tokens::Reach,
    env_profiles::EnvProfileView,
    mcp_servers::McpServerView,
    secrets::store::{SecretView, VersionView},
    tools::HttpToolView,
    ui::view::{AgentView, GroupItem, MemberView, ProviderView, Shell, TokenView},
};

/// The agents that the reader may see.
pub(super) struct AgentsPage {
    pub(super) shell: Shell,
    pub(super) agents: Vec<AgentView>,
    pub(super) providers: Vec<ProviderView>,
    pub(super) members: Vec<MemberView>,
}

/// One agent, or a new one.
pub(super) struct AgentPage {
    pub(super) shell: Shell,
    pub(super) agent: Option<AgentView>,
    pub(super) providers: Vec<ProviderView>,
    pub(super) tools: Vec<HttpToolView>,
    pub(super) servers: Vec<McpServerView>,
    pub(super) profiles: Vec<EnvProfileView>,
}

/// One agent whose process is somebody else's, or a new one.
pub(super) struct OutsideAgentPage {
    pub(super) shell: Shell,
    pub(super) agent: Option<AgentView>,
    pub(super) tokens: Vec<TokenView>,
    /// Whether its process is there.
    pub(super) reach: Reach,
}

/// The model providers.
pub(super) struct ProvidersPage {
    pub(super) shell: Shell,
    pub(super) providers: Vec<ProviderView>,
}

/// HTTP tools, MCP servers and the hosts that tools may reach.
pub(super) struct ToolsPage {
    pub(super) shell: Shell,
    pub(super) tools: Vec<HttpToolView>,
    pub(super) servers: Vec<McpServerView>,
    pub(super) hosts: Option<Vec<String>>,
}

/// One HTTP tool, or a new one.
pub(super) struct HttpToolPage {
    pub(super) shell: Shell,
    pub(super) tool: Option<HttpToolView>,
    pub(super) secrets: Vec<SecretView>,
    pub(super) members: Vec<MemberView>,
}

/// One MCP server, or a new one.
pub(super) struct McpServerPage {
    pub(super) shell: Shell,
    pub(super) server: Option<McpServerView>,
    pub(super) secrets: Vec<SecretView>,
    pub(super) members: Vec<MemberView>,
    pub(super) profiles: Vec<EnvProfileView>,
}

/// Secrets with their versions, and env profiles.
pub(super) struct SecretsPage {
    pub(super) shell: Shell,
    pub(super) secrets: Vec<(SecretView, Vec<VersionView>)>,
    pub(super) agents: Vec<AgentView>,
    pub(super) members: Vec<MemberView>,
    pub(super) groups: Vec<GroupItem>,
    pub(super) profiles: Vec<EnvProfileView>,
}

/// One env profile, or a new one.
pub(super) struct EnvProfilePage {
    pub(super) shell: Shell,
    pub(super) profile: Option<EnvProfileView>,
    pub(super) secrets: Vec<SecretView>,
}
