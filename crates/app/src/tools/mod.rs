//! HTTP tools of a workspace: requests that its agents may make, and the hosts that tools may reach.
//!
//! Owns what such a tool may be. It never sends a request: that is the Agents Worker's, with what
//! `resolve` makes of the tool for one run.

mod api;
pub mod hosts;

use convene_db::DbError;
use convene_hop::api::{Api, Operation};
use convene_model::{
    Code, OrgId, Problem, Timestamp,
    agents::{Approvers, BuiltinTool, ResponseFormat},
    limits::{MAX_TOOL_DESCRIPTION_CHARS, MAX_TOOL_SCHEMA_BYTES},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    objects::{
        self, Draft, Guard, Object,
        values::{self, MAX_TOOL_NAME_BYTES, Part, Setting},
    },
    state::AppState,
    validate::{self, invalid},
};

/// Bytes of what a tool appends to its base URL.
pub const MAX_PATH_BYTES: usize = 500;
/// Bytes of an answer that are read at most.
pub const MAX_TOOL_RESPONSE_BYTES: u64 = 1024 * 1024;
/// How long a call may take when nothing is said, in milliseconds.
pub const DEFAULT_TOOL_TIMEOUT_MS: u64 = 20_000;
/// Bytes of an answer that are read when nothing is said.
pub const DEFAULT_TOOL_RESPONSE_BYTES: u64 = 64 * 1024;

/// What an HTTP tool is.
///
/// `{name}` in `path` is filled with the argument of that name, as one segment; `{+name}` keeps its
/// slashes. What is left of the arguments is the query of a request with GET, HEAD or DELETE and
/// the JSON body of any other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpToolConfig {
    /// What it is for; models read this.
    pub(crate) description: String,
    /// The JSON schema of its arguments, an object.
    #[serde(default = "no_parameters")]
    pub(crate) parameters: Value,
    /// The URL that every request begins with.
    pub(crate) base_url: String,
    /// The methods that are allowed; the first is used where nothing is said.
    pub(crate) methods: Vec<Method>,
    /// Appended to the URL.
    #[serde(default)]
    pub(crate) path: String,
    /// Headers of every request.
    #[serde(default)]
    pub(crate) headers: Vec<Setting>,
    /// Query parameters of every request.
    #[serde(default)]
    pub(crate) query: Vec<Setting>,
    /// How long a call may take in all, in milliseconds.
    #[serde(default = "default_timeout")]
    pub(crate) timeout_ms: u64,
    /// Bytes of an answer that are read; a longer one is cut.
    #[serde(default = "default_response_bytes")]
    pub(crate) max_response_bytes: u64,
    /// What an answer must be.
    #[serde(default)]
    pub(crate) response: ResponseFormat,
    /// Whether calls that may change something need nobody's permission.
    #[serde(default)]
    pub(crate) auto_approve: bool,
    /// Who permits a call otherwise.
    #[serde(default)]
    pub(crate) approvers: Approvers,
}

fn no_parameters() -> Value {
    json!({"type": "object", "properties": {}})
}

const fn default_timeout() -> u64 {
    DEFAULT_TOOL_TIMEOUT_MS
}

const fn default_response_bytes() -> u64 {
    DEFAULT_TOOL_RESPONSE_BYTES
}

/// A method of a tool's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub(crate) const ALL: [Self; 6] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// An HTTP tool of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct HttpToolView {
    pub(crate) tool_id: String,
    pub(crate) name: String,
    /// Grows with each change.
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    pub(crate) config: HttpToolConfig,
}

impl HttpToolView {
    pub(crate) fn of(object: Object) -> Result<Self, DbError> {
        let config = object.parse()?;
        let Object { id: tool_id, name, version, updated_at, .. } = object;
        Ok(Self { tool_id, name, version, updated_at, config })
    }
}

/// A tool as somebody describes it, checked.
fn draft(org: &OrgId, name: &str, config: HttpToolConfig) -> Result<Draft, Problem> {
    let name = values::name("name", name, MAX_TOOL_NAME_BYTES)?;
    if BuiltinTool::ALL.iter().any(|tool| tool.as_str().eq_ignore_ascii_case(&name)) {
        return Err(invalid("name", "A built-in tool has this name."));
    }
    let config = checked(config)?;
    let mut guards: Vec<Guard> = values::secrets(org, "headers", &config.headers);
    guards.extend(values::secrets(org, "query", &config.query));
    guards.extend(values::approvers(org, "approvers", &config.approvers)?);
    Draft::new(name, &config, guards)
}

fn checked(config: HttpToolConfig) -> Result<HttpToolConfig, Problem> {
    let description = config.description.trim().to_owned();
    let count = description.chars().count();
    if count == 0 || count > MAX_TOOL_DESCRIPTION_CHARS || description.contains('\0') {
        let sentence = format!(
            "Say in 1 to {MAX_TOOL_DESCRIPTION_CHARS} characters what the tool is for: models read it."
        );
        return Err(invalid("description", sentence));
    }
    let base_url = validate::base_url("base_url", &config.base_url)?;
    parameters("parameters", &config.parameters)?;
    path("path", &config.path, &config.parameters)?;
    let twice = |(at, method)| config.methods[..at].contains(method);
    if config.methods.is_empty() || config.methods.iter().enumerate().any(twice) {
        return Err(invalid("methods", "Choose at least one method, each of them once."));
    }
    values::settings("headers", Part::Headers, &config.headers)?;
    values::settings("query", Part::Query, &config.query)?;
    values::timeout("timeout_ms", config.timeout_ms)?;
    if !(1..=MAX_TOOL_RESPONSE_BYTES).contains(&config.max_response_bytes) {
        let sentence = format!("An answer is read up to 1 to {MAX_TOOL_RESPONSE_BYTES} bytes.");
        return Err(invalid("max_response_bytes", sentence));
    }
    Ok(HttpToolConfig { description, base_url, ..config })
}

/// The schema of arguments: an object that names its properties.
fn parameters(field: &str, schema: &Value) -> Result<(), Problem> {
    let is_object = schema["type"] == "object"
        && schema.get("properties").is_none_or(|all| {
            all.as_object().is_some_and(|all| all.values().all(Value::is_object))
        });
    if !is_object {
        let sentence = "This is a JSON schema of type object, for instance \
            {\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}.";
        return Err(invalid(field, sentence));
    }
    if schema.to_string().len() > MAX_TOOL_SCHEMA_BYTES {
        return Err(invalid(
            field,
            format!("The schema has at most {MAX_TOOL_SCHEMA_BYTES} bytes."),
        ));
    }
    Ok(())
}

/// What is appended to the URL: plain but for placeholders, each of which is an argument.
fn path(field: &str, path: &str, schema: &Value) -> Result<(), Problem> {
    if path.is_empty() {
        return Ok(());
    }
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
    if !path.starts_with('/') || path.len() > MAX_PATH_BYTES || !plain {
        let sentence = format!(
            "A path begins with / and has at most {MAX_PATH_BYTES} visible characters without ? and #."
        );
        return Err(invalid(field, sentence));
    }
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let unbalanced = || invalid(field, "A placeholder is a name in braces, like {city}.");
        let inner = rest[at..].strip_prefix('{').ok_or_else(unbalanced)?;
        let (name, after) = inner.split_once('}').ok_or_else(unbalanced)?;
        let name = name.strip_prefix('+').unwrap_or(name);
        if name.is_empty() || name.contains('{') {
            return Err(unbalanced());
        }
        if schema["properties"].get(name).is_none() {
            let sentence = format!("{{{name}}} is none of the arguments that the tool has.");
            return Err(invalid(field, sentence));
        }
        rest = after;
    }
    let dots = |segment: &str| segment == "." || segment == "..";
    if path.split('/').any(dots) {
        return Err(invalid(field, "A path has no . or .. in it."));
    }
    Ok(())
}

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const ALL: &str = "/api/orgs/{org_id}/http-tools";
    const ONE: &str = "/api/orgs/{org_id}/http-tools/{tool_id}";
    const HOSTS: &str = "/api/orgs/{org_id}/tool-hosts";
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists, Code::Conflict];
    Api::new()
        .on(
            Operation::get(ALL, "listHttpTools", "Requests that agents may make.")
                .answers::<Vec<HttpToolView>>(200)
                .problems(MANAGE),
            api::list,
        )
        .on(
            Operation::post(ALL, "makeHttpTool", "Make an HTTP tool.")
                .body::<api::NewTool>()
                .answers::<HttpToolView>(201)
                .problems(MANAGE),
            api::make,
        )
        .on(
            Operation::get(ONE, "readHttpTool", "One HTTP tool.")
                .answers::<HttpToolView>(200)
                .problems(MANAGE),
            api::get,
        )
        .on(
            Operation::put(ONE, "setHttpTool", "Set a tool anew, from the version given.")
                .body::<api::ToolChange>()
                .answers::<HttpToolView>(200)
                .problems(MANAGE),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteHttpTool", "Delete a tool that no agent uses.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
        .on(
            Operation::get(HOSTS, "readToolHosts", "The hosts that tools may reach.")
                .answers::<hosts::ToolHosts>(200)
                .problems(MANAGE),
            api::hosts,
        )
        .on(
            Operation::put(HOSTS, "setToolHosts", "Set the hosts that tools may reach.")
                .body::<hosts::ToolHosts>()
                .answers::<hosts::ToolHosts>(200)
                .problems(MANAGE),
            api::set_hosts,
        )
}

/// The tools of a workspace, by name.
pub(crate) async fn list(
    state: &AppState,
    org: &OrgId,
) -> crate::web::failure::Answer<Vec<HttpToolView>> {
    let found = objects::list(state, org, objects::Kind::HttpTool).await?;
    Ok(found.into_iter().map(HttpToolView::of).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edit: Value) -> HttpToolConfig {
        let mut config = json!({
            "description": "Finds the weather.",
            "base_url": "https://weather.example/v1/",
            "methods": ["GET"],
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        });
        for (key, value) in edit.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    fn field(edit: Value) -> Option<Value> {
        checked(config(edit)).err().map(|problem| problem.extra["field"].clone())
    }

    #[test]
    fn a_tool_is_checked_field_by_field() {
        assert_eq!(checked(config(json!({}))).unwrap().base_url, "https://weather.example/v1");
        for (name, edit) in [
            ("description", json!({"description": " "})),
            ("base_url", json!({"base_url": "ftp://x"})),
            ("methods", json!({"methods": []})),
            ("methods", json!({"methods": ["GET", "GET"]})),
            ("parameters", json!({"parameters": {"type": "string"}})),
            ("parameters", json!({"parameters": {"type": "object", "properties": {"a": 1}}})),
            ("parameters", json!({"parameters": []})),
            ("timeout_ms", json!({"timeout_ms": 0})),
            ("headers", json!({"headers": [{"name": "Host", "value": {"plain": "x"}}]})),
        ] {
            assert_eq!(field(edit.clone()), Some(json!(name)), "{edit}");
        }
    }

    #[test]
    fn placeholders_of_a_path_are_arguments() {
        for good in ["", "/now", "/{city}/now", "/files/{+city}", "/%7B"] {
            assert_eq!(field(json!({"path": good})), None, "{good}");
        }
        for bad in
            ["now", "/{town}", "/{city", "/city}", "/{}", "/{+}", "/a?b", "/a#b", "/../x", "/a b"]
        {
            assert_eq!(field(json!({"path": bad})), Some(json!("path")), "{bad}");
        }
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let with = |edit: Value| field(edit).is_none();
        assert!(with(json!({"description": "ä".repeat(MAX_TOOL_DESCRIPTION_CHARS)})));
        assert!(!with(json!({"description": "ä".repeat(MAX_TOOL_DESCRIPTION_CHARS + 1)})));
        assert!(with(json!({"path": format!("/{}", "p".repeat(MAX_PATH_BYTES - 1))})));
        assert!(!with(json!({"path": format!("/{}", "p".repeat(MAX_PATH_BYTES))})));
        assert!(with(json!({"max_response_bytes": MAX_TOOL_RESPONSE_BYTES})));
        assert!(!with(json!({"max_response_bytes": MAX_TOOL_RESPONSE_BYTES + 1})));
        assert!(!with(json!({"max_response_bytes": 0})));
        let schema = |bytes: usize| {
            let empty = json!({"type": "object", "x": ""}).to_string().len();
            json!({"parameters": {"type": "object", "x": "s".repeat(bytes - empty)}})
        };
        assert!(with(schema(MAX_TOOL_SCHEMA_BYTES)));
        assert!(!with(schema(MAX_TOOL_SCHEMA_BYTES + 1)));
    }
}
