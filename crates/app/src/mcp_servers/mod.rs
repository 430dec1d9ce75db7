//! MCP servers of a workspace (streamable HTTP), whose tools its agents may use.
//!
//! Owns what a server may be and which of its tools are let through. It never calls one: that is
//! the Agents Worker's, with what `resolve` makes of the server for one run.

mod api;

use convene_db::DbError;
use convene_hop::api::{Api, Operation};
use convene_model::{
    Code, OrgId, Problem, Timestamp, UserId, agents::Approvers, probe::ProbeRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objects::{
        self, Draft, Kind, Object,
        values::{self, Part, Setting},
    },
    probing::{self, Seen},
    resolve,
    state::AppState,
    tools::hosts,
    validate::{self, invalid},
    web::failure::Answer,
};

/// Bytes of a server's name: it stands before the names of its tools.
pub const MAX_SERVER_NAME_BYTES: usize = 24;
/// Tools of one server that are named one by one.
pub const MAX_NAMED_TOOLS: usize = 128;
/// How long a call may take when nothing is said, in milliseconds.
pub const DEFAULT_MCP_TIMEOUT_MS: u64 = 30_000;

/// Headers that the protocol sets itself, beside those that no request may have.
const PROTOCOL_HEADERS: &[&str] = &["accept", "mcp-session-id", "mcp-protocol-version"];

/// What an MCP server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpServerConfig {
    /// Its endpoint.
    pub(crate) url: String,
    /// Headers of every request.
    #[serde(default)]
    pub(crate) headers: Vec<Setting>,
    /// The tools that agents may be given; all where `null`.
    #[serde(default)]
    pub(crate) tools: Option<Vec<String>>,
    /// The tools whose calls need nobody's permission, beside those that the server marks as
    /// reading only.
    #[serde(default)]
    pub(crate) auto_approve: Vec<String>,
    /// Who permits the others.
    #[serde(default)]
    pub(crate) approvers: Approvers,
    /// How long a call may take, in milliseconds.
    #[serde(default = "default_timeout")]
    pub(crate) timeout_ms: u64,
}

const fn default_timeout() -> u64 {
    DEFAULT_MCP_TIMEOUT_MS
}

/// An MCP server of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct McpServerView {
    pub(crate) server_id: String,
    pub(crate) name: String,
    /// Grows with each change.
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    pub(crate) config: McpServerConfig,
    /// What a check last found; absent before the first one and after a change.
    pub(crate) seen: Option<Seen>,
}

impl McpServerView {
    pub(crate) fn of(object: Object) -> Result<Self, DbError> {
        let (config, seen) = (object.parse()?, Seen::parse(&object.seen));
        let Object { id: server_id, name, version, updated_at, .. } = object;
        Ok(Self { server_id, name, version, updated_at, config, seen })
    }
}

/// A server as somebody describes it, checked.
fn draft(org: &OrgId, name: &str, config: McpServerConfig) -> Result<Draft, Problem> {
    let name = values::name("name", name, MAX_SERVER_NAME_BYTES)?;
    let url = validate::endpoint("url", &config.url)?;
    values::settings("headers", Part::Headers, &config.headers)?;
    for header in &config.headers {
        if PROTOCOL_HEADERS.contains(&&*header.name.to_ascii_lowercase()) {
            let sentence = format!("The header {} is set by the protocol itself.", header.name);
            return Err(invalid("headers", sentence));
        }
    }
    if let Some(tools) = &config.tools {
        values::tool_names("tools", tools, MAX_NAMED_TOOLS)?;
    }
    values::tool_names("auto_approve", &config.auto_approve, MAX_NAMED_TOOLS)?;
    values::timeout("timeout_ms", config.timeout_ms)?;
    let mut guards = values::secrets(org, "headers", &config.headers);
    guards.extend(values::approvers(org, "approvers", &config.approvers)?);
    Draft::new(name, &McpServerConfig { url, ..config }, guards)
}

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const ALL: &str = "/api/orgs/{org_id}/mcp-servers";
    const ONE: &str = "/api/orgs/{org_id}/mcp-servers/{server_id}";
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists, Code::Conflict];
    Api::new()
        .on(
            Operation::get(ALL, "listMcpServers", "MCP servers whose tools agents may use.")
                .answers::<Vec<McpServerView>>(200)
                .problems(MANAGE),
            api::list,
        )
        .on(
            Operation::post(ALL, "makeMcpServer", "Add an MCP server.")
                .body::<api::NewServer>()
                .answers::<McpServerView>(201)
                .problems(MANAGE),
            api::make,
        )
        .on(
            Operation::get(ONE, "readMcpServer", "One MCP server.")
                .answers::<McpServerView>(200)
                .problems(MANAGE),
            api::get,
        )
        .on(
            Operation::put(ONE, "setMcpServer", "Set a server anew, from the version given.")
                .body::<api::ServerChange>()
                .answers::<McpServerView>(200)
                .problems(MANAGE),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteMcpServer", "Delete a server that no agent uses.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
        .on(
            Operation::post(
                "/api/orgs/{org_id}/mcp-servers/{server_id}/check",
                "checkMcpServer",
                "Ask a server which tools it has.",
            )
            .body::<api::CheckBody>()
            .answers::<Seen>(200)
            .problems(&[Code::Forbidden, Code::RateLimited]),
            api::check,
        )
}

/// The servers of a workspace, by name.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<McpServerView>> {
    let found = objects::list(state, org, Kind::McpServer).await?;
    Ok(found.into_iter().map(McpServerView::of).collect::<Result<_, _>>()?)
}

/// Asks a server which tools it has, and keeps what it says. Its headers have the values that the
/// person who asks may use, with the variables of an env profile where one is named.
async fn check(
    state: &AppState,
    org: &OrgId,
    manager: &UserId,
    server: &str,
    env_profile: Option<&str>,
) -> Answer<Seen> {
    let object = objects::find(state, org, Kind::McpServer, server).await?;
    let tried = resolve::tools::server_to_try(state, org, manager, &object, env_profile).await?;
    let tool_hosts = hosts::of(state, org).await?;
    let request = ProbeRequest::Mcp { server: Box::new(tried), tool_hosts };
    let answer = probing::ask(state, org, &request).await?;
    let seen = Seen::of(answer, state.now());
    objects::saw(state, org, &object, &seen).await?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn field(name: &str, edit: Value) -> Option<Value> {
        let mut config = json!({"url": "https://mcp.example/mcp"});
        for (key, value) in edit.as_object().unwrap() {
            config[key] = value.clone();
        }
        let config = serde_json::from_value(config).unwrap();
        let refused = draft(&OrgId::new("o1").unwrap(), name, config).err();
        refused.map(|problem| problem.extra["field"].clone())
    }

    #[test]
    fn a_server_is_checked_field_by_field() {
        assert_eq!(field("git", json!({})), None);
        assert_eq!(field(&"n".repeat(MAX_SERVER_NAME_BYTES), json!({})), None);
        assert_eq!(field(&"n".repeat(MAX_SERVER_NAME_BYTES + 1), json!({})), Some(json!("name")));
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(field("git", json!({"tools": names(MAX_NAMED_TOOLS)})), None);
        for (name, edit) in [
            ("url", json!({"url": "ws://x"})),
            ("headers", json!({"headers": [{"name": "Accept", "value": {"plain": "x"}}]})),
            ("tools", json!({"tools": names(MAX_NAMED_TOOLS + 1)})),
            ("auto_approve", json!({"auto_approve": ["a", "a"]})),
            ("timeout_ms", json!({"timeout_ms": 1})),
            ("approvers", json!({"approvers": {"kind": "role", "role": "agent"}})),
        ] {
            assert_eq!(field("git", edit.clone()), Some(json!(name)), "{edit}");
        }
    }
}
