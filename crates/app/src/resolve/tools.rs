//! The tools of one run: what its agent's configuration names, with the values that this run may
//! use filled in.
//!
//! A tool whose values the run may not use is left out, and the agent is told which and why, so that
//! it can say so. Never decides what a run may open: that is `secrets::reach`.

use std::collections::{BTreeMap, BTreeSet};

use convene_db::DbError;
use convene_model::{
    Code, OrgId, Problem, UserId,
    agents::{ApiKey, HttpTool, McpServer, NamedValue, ResolvedTool, ToolValue},
    claims::AgentAccessClaims,
};

use crate::{
    agents::config::{AgentConfig, McpSelection},
    env_profiles::{EnvProfileConfig, VariableValue},
    mcp_servers::McpServerConfig,
    objects::{
        self, Kind, Object,
        values::{Setting, SettingValue, is_header_value},
    },
    secrets::reach::{Opened, Reach, Wanted},
    state::AppState,
    tools::HttpToolConfig,
    web::failure::Answer,
};

/// What a run may use, and what it may not.
pub(super) struct Tools {
    pub(super) tools: Vec<ResolvedTool>,
    /// A sentence for each tool that is left out.
    pub(super) left_out: Vec<String>,
}

/// Bytes of all tools of one run as JSON; what does not fit is left out.
const MAX_TOOLS_BYTES: usize = 96 * 1024;

/// A tool or a server as it is configured.
enum Configured {
    Http(HttpToolConfig),
    Mcp(McpServerConfig, Option<Vec<String>>),
}

/// The tools of a run.
pub(super) async fn of_run(
    state: &AppState,
    run: &AgentAccessClaims,
    config: &AgentConfig,
) -> Answer<Tools> {
    let mut ids: Vec<&str> = config.http_tools.iter().map(String::as_str).collect();
    ids.extend(config.mcp_servers.iter().map(|selection| selection.server_id.as_str()));
    ids.extend(config.env_profile_id.as_deref());
    let objects = objects::some(state, &run.org_id, &ids).await?;
    let objects: BTreeMap<_, _> = objects.iter().map(|one| (one.id.as_str(), one)).collect();
    let (configured, variables) = read(config, &objects)?;

    let settings = configured.iter().flat_map(|(_, configured)| configured.settings());
    let values = Values::open(state, Reach::of_run(run), settings, variables).await?;

    let builtin = config.builtin_tools.iter().map(|name| ResolvedTool::Builtin { name: *name });
    let (mut tools, mut left_out) = (builtin.collect::<Vec<_>>(), Vec::new());
    let mut room = MAX_TOOLS_BYTES;
    for (object, configured) in configured {
        let tool = resolve(object, configured, &values);
        match tool.and_then(|tool| Ok((fit(&tool, &mut room)?, tool))) {
            Ok(((), tool)) => tools.push(tool),
            Err(why) => left_out.push(format!("{}: {why}", object.name)),
        }
    }
    Ok(Tools { tools, left_out })
}

/// An MCP server as somebody who manages the workspace tries it out, without a group or an agent.
pub(crate) async fn server_to_try(
    state: &AppState,
    org: &OrgId,
    manager: &UserId,
    server: &Object,
    env_profile: Option<&str>,
) -> Answer<McpServer> {
    let config: McpServerConfig = server.parse()?;
    let mut variables = BTreeMap::new();
    if let Some(id) = env_profile {
        let profile = objects::find(state, org, Kind::EnvProfile, id).await?;
        let profile: EnvProfileConfig = profile.parse()?;
        variables.extend(profile.variables.into_iter().map(|one| (one.name, one.value)));
    }
    let reach = Reach::of_manager(org, manager);
    let values = Values::open(state, reach, config.headers.iter(), variables).await?;
    let refused = |why: String| Problem::new(Code::ValidationFailed).detail(why);
    mcp(server, config, None, &values).map_err(|why| refused(why).into())
}

/// Takes room for a tool.
fn fit(tool: &ResolvedTool, room: &mut usize) -> Result<(), String> {
    let bytes = serde_json::to_vec(tool).map_or(usize::MAX, |bytes| bytes.len());
    *room = room.checked_sub(bytes).ok_or("the agent has more tools than fit into one run")?;
    Ok(())
}

impl Configured {
    fn settings(&self) -> impl Iterator<Item = &Setting> {
        let (headers, query): (_, &[Setting]) = match self {
            Self::Http(tool) => (&tool.headers, &tool.query),
            Self::Mcp(server, _) => (&server.headers, &[]),
        };
        headers.iter().chain(query)
    }
}

type Variables = BTreeMap<String, VariableValue>;
type Found<'a> = (Vec<(&'a Object, Configured)>, Variables);

/// What the agent's configuration names, in its order. What it names is there: nothing is deleted
/// that an agent refers to.
fn read<'a>(
    config: &AgentConfig,
    objects: &BTreeMap<&str, &'a Object>,
) -> Result<Found<'a>, DbError> {
    let find = |kind: Kind, id: &str| {
        let found = objects.get(id).copied().filter(|object| object.kind == kind.as_str());
        found.ok_or_else(|| DbError::decode("config", format!("{id} is no {}", kind.as_str())))
    };
    let mut configured = Vec::new();
    for id in &config.http_tools {
        let object = find(Kind::HttpTool, id)?;
        configured.push((object, Configured::Http(object.parse()?)));
    }
    for McpSelection { server_id, tools } in &config.mcp_servers {
        let object = find(Kind::McpServer, server_id)?;
        configured.push((object, Configured::Mcp(object.parse()?, tools.clone())));
    }
    let mut variables = BTreeMap::new();
    if let Some(id) = &config.env_profile_id {
        let profile: EnvProfileConfig = find(Kind::EnvProfile, id)?.parse()?;
        variables.extend(profile.variables.into_iter().map(|one| (one.name, one.value)));
    }
    Ok((configured, variables))
}

/// The secret behind a setting, if there is one.
fn want(setting: &Setting, variables: &Variables) -> Option<Wanted> {
    match &setting.value {
        SettingValue::Plain(_) => None,
        SettingValue::Secret(id) => Some(Wanted::Workspace(id.clone())),
        SettingValue::Variable(name) => match variables.get(name)? {
            VariableValue::Plain(_) => None,
            VariableValue::Secret(id) => Some(Wanted::Workspace(id.clone())),
            VariableValue::Agent(name) => Some(Wanted::Agent(name.clone())),
            VariableValue::Personal(name) => Some(Wanted::Personal(name.clone())),
        },
    }
}

/// What settings are filled in from.
struct Values {
    variables: Variables,
    opened: Opened,
}

impl Values {
    async fn open(
        state: &AppState,
        reach: Reach<'_>,
        settings: impl Iterator<Item = &Setting>,
        variables: Variables,
    ) -> Answer<Self> {
        let wanted: BTreeSet<_> =
            settings.filter_map(|setting| want(setting, &variables)).collect();
        let opened = state.vault.open_for(reach, &wanted).await?;
        Ok(Self { variables, opened })
    }

    fn all(&self, settings: &[Setting], headers: bool) -> Result<Vec<NamedValue>, String> {
        settings.iter().map(|setting| self.one(setting, headers)).collect()
    }

    fn one(&self, setting: &Setting, header: bool) -> Result<NamedValue, String> {
        let Setting { name, value, prefix } = setting;
        let value = match (value, want(setting, &self.variables)) {
            (SettingValue::Plain(text), _) => ToolValue::Plain(text.clone()),
            (SettingValue::Variable(variable), None) => match self.variables.get(variable) {
                Some(VariableValue::Plain(text)) => ToolValue::Plain(with(prefix, text)),
                Some(_) | None => {
                    return Err(format!("the agent's env profile has no variable {variable}"));
                }
            },
            (SettingValue::Secret(_) | SettingValue::Variable(_), wanted) => {
                let secret = wanted.as_ref().and_then(|wanted| self.opened.get(wanted));
                let secret = secret.ok_or_else(|| missing(wanted.as_ref()))?;
                ToolValue::Secret(ApiKey::new(with(prefix, secret)))
            }
        };
        if header && !is_header_value(value.expose()) {
            return Err(format!(
                "the value of the header {name} has characters that none may have"
            ));
        }
        Ok(NamedValue { name: name.clone(), value })
    }
}

/// A value behind the word that stands before it.
fn with(prefix: &str, value: &str) -> String {
    if prefix.is_empty() { value.to_owned() } else { format!("{prefix} {value}") }
}

/// Why a secret did not open, in words that say nothing of others.
fn missing(wanted: Option<&Wanted>) -> String {
    match wanted {
        Some(Wanted::Personal(name)) => format!(
            "whoever asked has no personal secret named {name}; they can add it in the settings"
        ),
        Some(Wanted::Agent(name)) => format!("the agent has no secret named {name}"),
        Some(Wanted::Workspace(_)) | None => {
            "the secret that it needs may not be used in this group".to_owned()
        }
    }
}

fn resolve(
    object: &Object,
    configured: Configured,
    values: &Values,
) -> Result<ResolvedTool, String> {
    match configured {
        Configured::Http(tool) => {
            let (headers, query) =
                (values.all(&tool.headers, true)?, values.all(&tool.query, false)?);
            Ok(ResolvedTool::Http(Box::new(HttpTool {
                tool_id: object.id.clone(),
                version: object.version,
                name: object.name.clone(),
                description: tool.description,
                parameters: tool.parameters,
                base_url: tool.base_url,
                methods: tool.methods.iter().map(|one| one.as_str().to_owned()).collect(),
                path: tool.path,
                headers,
                query,
                timeout_ms: tool.timeout_ms,
                max_response_bytes: tool.max_response_bytes,
                response: tool.response,
                auto_approve: tool.auto_approve,
                approvers: tool.approvers,
            })))
        }
        Configured::Mcp(server, selected) => {
            Ok(ResolvedTool::Mcp(Box::new(mcp(object, server, selected, values)?)))
        }
    }
}

fn mcp(
    object: &Object,
    server: McpServerConfig,
    selected: Option<Vec<String>>,
    values: &Values,
) -> Result<McpServer, String> {
    Ok(McpServer {
        server_id: object.id.clone(),
        version: object.version,
        name: object.name.clone(),
        url: server.url,
        headers: values.all(&server.headers, true)?,
        tools: both(server.tools, selected),
        timeout_ms: server.timeout_ms,
        auto_approve: server.auto_approve,
        approvers: server.approvers,
    })
}

/// What both masks let through; an absent one lets everything.
fn both(one: Option<Vec<String>>, other: Option<Vec<String>>) -> Option<Vec<String>> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(one.into_iter().filter(|name| other.contains(name)).collect())
        }
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn an_agents_mask_never_lets_through_more_than_the_servers() {
        assert_eq!(both(None, None), None);
        assert_eq!(both(names("a b"), None), names("a b"));
        assert_eq!(both(None, names("a")), names("a"));
        assert_eq!(both(names("a b"), names("b c")), names("b"));
        assert_eq!(both(names("a"), names("b")), names(""));
    }

    #[test]
    fn a_value_that_no_header_may_have_keeps_the_tool_away() {
        let variables = BTreeMap::from([
            ("A".to_owned(), VariableValue::Plain("ok".to_owned())),
            ("B".to_owned(), VariableValue::Plain("ä".to_owned())),
        ]);
        let values = Values { variables, opened: Opened::default() };
        let setting = |variable: &str| Setting {
            name: "X-Key".to_owned(),
            value: SettingValue::Variable(variable.to_owned()),
            prefix: "Key".to_owned(),
        };
        let filled = values.one(&setting("A"), true).unwrap();
        assert_eq!(filled.value.expose(), "Key ok");
        assert!(values.one(&setting("B"), true).unwrap_err().contains("X-Key"));
        assert!(values.one(&setting("B"), false).is_ok(), "a query may have it");
        assert!(values.one(&setting("C"), true).unwrap_err().contains("no variable C"));
    }
}
