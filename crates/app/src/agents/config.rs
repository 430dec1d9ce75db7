//! What an agent may use, and who may use the agent: the part of it that is one document.

use std::collections::BTreeSet;

use convene_db::DbError;
use convene_model::{OrgId, Problem, agents::BuiltinTool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    mcp_servers::MAX_NAMED_TOOLS,
    objects::{Guard, Kind, values},
    validate::invalid,
};

/// HTTP tools of one agent.
pub const MAX_HTTP_TOOLS_PER_AGENT: usize = 32;
/// MCP servers of one agent.
pub const MAX_MCP_SERVERS_PER_AGENT: usize = 8;

/// What an agent may use; it refers to everything by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Tools that every Agents Worker has.
    #[serde(default)]
    pub builtin_tools: Vec<BuiltinTool>,
    /// HTTP tools of the workspace.
    #[serde(default)]
    pub http_tools: Vec<String>,
    /// MCP servers of the workspace.
    #[serde(default)]
    pub mcp_servers: Vec<McpSelection>,
    /// The env profile that fills in variables of its tools.
    #[serde(default)]
    pub env_profile_id: Option<String>,
}

/// What an agent may use of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpSelection {
    /// Which server.
    pub server_id: String,
    /// Which of its tools; all that the server's own configuration lets through where `null`.
    #[serde(default)]
    pub tools: Option<Vec<String>>,
}

impl AgentConfig {
    pub(super) fn parse(text: &str) -> Result<Self, DbError> {
        serde_json::from_str(text).map_err(|error| DbError::decode("config", error))
    }

    /// Checks the document but for what only the database knows, which the guards ask.
    pub(super) fn guards(&self, org: &OrgId) -> Result<Vec<Guard>, Problem> {
        let builtin: BTreeSet<_> = self.builtin_tools.iter().collect();
        if builtin.len() < self.builtin_tools.len() {
            return Err(invalid("builtin_tools", "A tool stands here twice."));
        }
        let http: BTreeSet<_> = self.http_tools.iter().collect();
        if http.len() < self.http_tools.len() || http.len() > MAX_HTTP_TOOLS_PER_AGENT {
            let sentence =
                format!("An agent has at most {MAX_HTTP_TOOLS_PER_AGENT} HTTP tools, each once.");
            return Err(invalid("http_tools", sentence));
        }
        let servers: BTreeSet<_> = self.mcp_servers.iter().map(|one| &one.server_id).collect();
        let many = servers.len() > MAX_MCP_SERVERS_PER_AGENT;
        if servers.len() < self.mcp_servers.len() || many {
            let sentence = format!(
                "An agent has at most {MAX_MCP_SERVERS_PER_AGENT} MCP servers, each of them once."
            );
            return Err(invalid("mcp_servers", sentence));
        }
        for selection in &self.mcp_servers {
            if let Some(tools) = &selection.tools {
                values::tool_names("mcp_servers", tools, MAX_NAMED_TOOLS)?;
            }
        }
        let of = |kind, field| move |id: &String| Guard::object(org, kind, id, field);
        let mut guards = Vec::new();
        guards.extend(self.http_tools.iter().map(of(Kind::HttpTool, "http_tools")));
        guards.extend(servers.into_iter().map(of(Kind::McpServer, "mcp_servers")));
        guards.extend(self.env_profile_id.iter().map(of(Kind::EnvProfile, "env_profile_id")));
        Ok(guards)
    }
}

/// Who may put an agent into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody in the workspace.
    #[default]
    Workspace,
    /// Whoever made it; owners and admins see it in the settings, nobody else does.
    Owner,
}

impl Visibility {
    /// As it stands in a row.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Owner => "owner",
        }
    }

    pub(super) fn parse(name: &str) -> Result<Self, DbError> {
        [Self::Workspace, Self::Owner]
            .into_iter()
            .find(|visibility| visibility.as_str() == name)
            .ok_or_else(|| DbError::decode("visibility", format!("{name:?} is no visibility")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards(config: &AgentConfig) -> Option<usize> {
        config.guards(&OrgId::new("o1").unwrap()).ok().map(|guards| guards.len())
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("t{n}")).collect()
    }

    fn servers(count: usize) -> Vec<McpSelection> {
        ids(count).into_iter().map(|server_id| McpSelection { server_id, tools: None }).collect()
    }

    #[test]
    fn an_agents_tools_are_held_to_their_limits_on_both_sides() {
        let with = |http_tools| guards(&AgentConfig { http_tools, ..AgentConfig::default() });
        assert_eq!(with(ids(MAX_HTTP_TOOLS_PER_AGENT)), Some(MAX_HTTP_TOOLS_PER_AGENT));
        assert_eq!(with(ids(MAX_HTTP_TOOLS_PER_AGENT + 1)), None);
        assert_eq!(with(vec!["a".into(), "a".into()]), None);
        let with = |mcp_servers| guards(&AgentConfig { mcp_servers, ..AgentConfig::default() });
        assert_eq!(with(servers(MAX_MCP_SERVERS_PER_AGENT)), Some(MAX_MCP_SERVERS_PER_AGENT));
        assert_eq!(with(servers(MAX_MCP_SERVERS_PER_AGENT + 1)), None);
        let twice = vec![BuiltinTool::Calculator, BuiltinTool::Calculator];
        assert_eq!(guards(&AgentConfig { builtin_tools: twice, ..AgentConfig::default() }), None);
    }

    #[test]
    fn what_is_stored_reads_back_and_the_first_form_is_an_agent_without_tools() {
        assert_eq!(AgentConfig::parse("{}").unwrap(), AgentConfig::default());
        let config = AgentConfig {
            builtin_tools: vec![BuiltinTool::CurrentTime],
            mcp_servers: servers(1),
            env_profile_id: Some("e1".to_owned()),
            ..AgentConfig::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(AgentConfig::parse(&text).unwrap(), config);
    }
}
