//! What an agent can do in one attempt: its tools by name, and what a call of one comes to.
//!
//! Owns which calls are made at once and which are handed over first, what a permission is bound to,
//! and what of a result people and the model see. A call that may change something is never made
//! here unless the controller has recorded it.

mod builtin;
mod http;
mod outbound;
mod redact;

use std::{sync::Arc, time::Duration};

use convene_model::{
    agents::{
        Approvers, BuiltinTool, HttpTool, NamedValue, ResolvedAgent, ResolvedTool, ToolStatus,
        ToolValue, call_hash,
    },
    limits::{
        MAX_ARGUMENT_BYTES, MAX_OFFERED_TOOLS, MAX_RESULT_BYTES, MAX_SUMMARY_BYTES,
        MAX_TOOL_TIMEOUT,
    },
};
use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
    stream::FuturesOrdered,
};
use serde_json::{Map, Value, json};

pub(crate) use self::{
    builtin::Names,
    http::named_header,
    outbound::{Outbound, ToolFailure, of_transport, read},
    redact::Redaction,
};
use crate::{
    Config, Sleep, Worker,
    dialogue::{CallResult, ToolSpec},
    invoke::Call,
    mcp::{Listings, Offered, Session},
};

/// Characters of a tool's name that services take.
const MAX_TOOL_NAME: usize = 64;
/// How long an MCP server may take to say which tools it has.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);

/// The tools of one attempt.
pub(crate) struct Toolbox {
    tools: Vec<Tool>,
    specs: Arc<[ToolSpec]>,
    outbound: Outbound,
    sessions: Vec<Arc<Session>>,
    /// Servers whose tools are not there, and why.
    pub(crate) missing: Vec<(String, ToolFailure)>,
}

/// One tool.
pub(crate) struct Tool {
    pub(crate) spec: ToolSpec,
    pub(crate) version: u64,
    /// What a permission is bound to beside name, version and arguments.
    bound: Value,
    kind: Kind,
}

enum Kind {
    Builtin(BuiltinTool),
    Http(Box<HttpTool>),
    Mcp { session: Arc<Session>, offered: Box<Offered> },
}

/// What becomes of a call that a model wants.
pub(crate) enum Plan<'a> {
    /// It is made at once: it changes nothing.
    Make(&'a Tool, Map<String, Value>),
    /// It is handed over, and who permits it.
    HandOver(&'a Tool, Option<Approvers>),
    /// It is not made.
    Refuse(ToolFailure),
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) status: ToolStatus,
    /// For people.
    pub(crate) summary: String,
    /// For the model.
    pub(crate) result: CallResult,
}

impl Toolbox {
    /// The agent's tools. MCP servers are asked for theirs, unless that was done a moment ago;
    /// `anew` asks in any case, since a call that was permitted is about to be made.
    pub(crate) async fn open(worker: &Worker, agent: &ResolvedAgent, anew: bool) -> Self {
        let config = &worker.config;
        let hosts = agent.tool_hosts.as_deref();
        let outbound =
            Outbound::new(Arc::clone(&config.transport), hosts, Redaction::new(secrets(agent)));
        let mut toolbox = Self {
            tools: Vec::new(),
            specs: Arc::default(),
            outbound,
            sessions: Vec::new(),
            missing: Vec::new(),
        };
        let mut servers = FuturesOrdered::new();
        for tool in &agent.tools {
            match tool {
                ResolvedTool::Builtin { name } => toolbox.add(Tool {
                    spec: builtin::spec(*name),
                    version: 1,
                    bound: Value::Null,
                    kind: Kind::Builtin(*name),
                }),
                ResolvedTool::Http(tool) => toolbox.add(Tool {
                    spec: ToolSpec {
                        name: tool.name.clone(),
                        description: tool.description.clone(),
                        parameters: tool.parameters.clone(),
                    },
                    version: tool.version,
                    bound: tool.parameters.clone(),
                    kind: Kind::Http(tool.clone()),
                }),
                ResolvedTool::Mcp(server) => {
                    let server = Arc::new((**server).clone());
                    let key = Listings::key(&server);
                    let known = worker.listings.get(&key, (config.clock)());
                    let era = known.as_ref().map(|listing| listing.era.clone());
                    let session = Session::new(toolbox.outbound.clone(), server, era);
                    let known = known.filter(|_| !anew);
                    servers.push_back(async move {
                        let listed = match known {
                            Some(listing) => Ok((listing, false)),
                            None => {
                                let wait =
                                    timeout_of(session.server().timeout_ms).min(LIST_TIMEOUT);
                                within(&config.sleep, wait, session.list())
                                    .await
                                    .map(|listing| (listing, true))
                            }
                        };
                        (key, session, listed)
                    });
                }
            }
        }
        while let Some((key, session, listed)) = servers.next().await {
            let session = Arc::new(session);
            let server = Arc::clone(session.server());
            match listed {
                Ok((listing, fresh)) => {
                    if fresh {
                        worker.listings.put(key, listing.clone(), (config.clock)());
                    }
                    toolbox.add_server(&session, listing.tools);
                    toolbox.sessions.push(session);
                }
                Err(failure) => {
                    worker.listings.forget(&key);
                    toolbox.missing.push((server.name.clone(), failure));
                }
            }
        }
        toolbox.specs = toolbox.tools.iter().map(|tool| tool.spec.clone()).collect();
        toolbox
    }

    fn add_server(&mut self, session: &Arc<Session>, tools: Vec<Offered>) {
        let server = session.server();
        for offered in tools {
            let masked =
                server.tools.as_ref().is_some_and(|allowed| !allowed.contains(&offered.name));
            if masked || offered.refused.is_some() {
                continue;
            }
            let spec = ToolSpec {
                name: shown_name(&server.name, &offered.name),
                description: offered.description.clone(),
                parameters: offered.parameters.clone(),
            };
            self.add(Tool {
                spec,
                version: server.version,
                bound: offered.bound(),
                kind: Kind::Mcp { session: Arc::clone(session), offered: Box::new(offered) },
            });
        }
    }

    /// The first of a name holds, and so many as models take.
    fn add(&mut self, mut tool: Tool) {
        tool.spec.parameters = as_object(tool.spec.parameters);
        if self.tools.len() < MAX_OFFERED_TOOLS && self.tool(&tool.spec.name).is_none() {
            self.tools.push(tool);
        }
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.spec.name == name)
    }

    pub(crate) fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::clone(&self.specs)
    }

    /// Bytes that went out and came in.
    pub(crate) fn bytes(&self) -> u64 {
        self.outbound.bytes()
    }

    /// What becomes of a call with `arguments`, an object as JSON.
    pub(crate) fn plan(&self, name: &str, arguments: &str) -> Plan<'_> {
        let Some(tool) = self.tool(name) else {
            let why = format!("There is no tool called `{name}`.");
            return Plan::Refuse(ToolFailure::new("unknown_tool", why));
        };
        let arguments = match object(arguments) {
            Ok(arguments) => arguments,
            Err(failure) => return Plan::Refuse(failure),
        };
        match &tool.kind {
            Kind::Builtin(_) => Plan::Make(tool, arguments),
            Kind::Http(http) => match http::method(http, &arguments) {
                Err(failure) => Plan::Refuse(failure),
                Ok(method) if http::is_safe(&method) => Plan::Make(tool, arguments),
                // What makes no request is said at once, not after somebody permitted it.
                Ok(_) => match http::request(http, &arguments) {
                    Err(failure) => Plan::Refuse(failure),
                    Ok(_) if http.auto_approve => Plan::HandOver(tool, None),
                    Ok(_) => Plan::HandOver(tool, Some(http.approvers.clone())),
                },
            },
            Kind::Mcp { offered, .. } if offered.read_only => Plan::Make(tool, arguments),
            Kind::Mcp { session, offered } => {
                let server = session.server();
                let free = server.auto_approve.contains(&offered.name);
                Plan::HandOver(tool, (!free).then(|| server.approvers.clone()))
            }
        }
    }

    /// The tool of a call that was permitted, if it is what the permission was given for.
    pub(crate) fn permitted(
        &self,
        name: &str,
        arguments: &str,
        hash: &str,
    ) -> Result<(&Tool, Map<String, Value>), ToolFailure> {
        let changed = || {
            let why = "The tool was changed after the call was asked for; it was not made.";
            ToolFailure::new("tool_changed", why)
        };
        let Some(tool) = self.tool(name) else {
            // A server that is away has changed nothing.
            let away = |(server, _): &&(String, ToolFailure)| {
                name.strip_prefix(server.as_str()).is_some_and(|rest| rest.starts_with("__"))
            };
            let away = self.missing.iter().find(away);
            return Err(away.map_or_else(changed, |(_, failure)| failure.clone()));
        };
        if tool.hash(arguments) != hash {
            return Err(changed());
        }
        Ok((tool, object(arguments)?))
    }

    /// Makes a call, within its time.
    pub(crate) async fn make(
        &self,
        config: &Config,
        call: &Call,
        names: &Names,
        tool: &Tool,
        arguments: &Map<String, Value>,
    ) -> Made {
        let timeout = match &tool.kind {
            Kind::Builtin(_) => config.limits.resolve_timeout,
            Kind::Http(http) => timeout_of(http.timeout_ms),
            Kind::Mcp { session, .. } => timeout_of(session.server().timeout_ms),
        };
        let made = async {
            match &tool.kind {
                Kind::Builtin(name) => {
                    let run = builtin::Run {
                        config,
                        group_id: &call.claims.group_id,
                        token: &call.token,
                        names,
                    };
                    builtin::call(run, *name, arguments).await
                }
                Kind::Http(http) => http::call(&self.outbound, http, arguments).await,
                Kind::Mcp { session, offered } => session.call(offered, arguments).await,
            }
        };
        match within(&config.sleep, timeout, made).await {
            Ok(text) => self.made(&text),
            Err(failure) => self.failed(failure),
        }
    }

    fn made(&self, text: &str) -> Made {
        let text = self.outbound.redacted(text);
        Made {
            status: ToolStatus::Ok,
            summary: cut(&text, MAX_SUMMARY_BYTES),
            result: CallResult { text: cut(&text, MAX_RESULT_BYTES), failed: false },
        }
    }

    /// A failure as people and the model are told it.
    pub(crate) fn failed(&self, failure: ToolFailure) -> Made {
        let ToolFailure { code, detail, status, body } = failure;
        let detail = self.outbound.redacted(&detail);
        let body = body.map(|body| cut(&self.outbound.redacted(&body), MAX_RESULT_BYTES / 2));
        let mut error = json!({"code": code, "message": detail});
        let mut summary = detail;
        if let Some(body) = body {
            summary = format!("{summary} {body}");
            error["body"] = body.into();
        }
        Made {
            status,
            summary: cut(&summary, MAX_SUMMARY_BYTES),
            result: CallResult {
                text: cut(&json!({"error": error}).to_string(), MAX_RESULT_BYTES),
                failed: true,
            },
        }
    }

    /// Ends the sessions with servers.
    pub(crate) async fn close(&self, sleep: &Sleep) {
        for session in &self.sessions {
            let _ = select(session.close().boxed(), sleep(Duration::from_secs(1))).await;
        }
    }
}

impl Tool {
    /// What a permission for a call of it is bound to.
    pub(crate) fn hash(&self, arguments: &str) -> String {
        call_hash(&self.spec.name, self.version, &self.bound, arguments)
    }
}

/// Everything that services are sent and that must not come back to a model or to people.
fn secrets(agent: &ResolvedAgent) -> Vec<&str> {
    let mut secrets = Vec::new();
    for tool in &agent.tools {
        let values = match tool {
            ResolvedTool::Builtin { .. } => continue,
            ResolvedTool::Http(tool) => tool.headers.iter().chain(&tool.query),
            ResolvedTool::Mcp(server) => server.headers.iter().chain(&[]),
        };
        secrets.extend(secrets_of(values));
    }
    secrets
}

/// The secrets among these values.
pub(crate) fn secrets_of<'a>(
    values: impl IntoIterator<Item = &'a NamedValue>,
) -> impl Iterator<Item = &'a str> {
    values.into_iter().filter_map(|named| match &named.value {
        ToolValue::Secret(key) => Some(key.expose()),
        ToolValue::Plain(_) => None,
    })
}

/// Arguments as a model wrote them; nothing at all is an empty object.
fn object(arguments: &str) -> Result<Map<String, Value>, ToolFailure> {
    if arguments.len() > MAX_ARGUMENT_BYTES {
        let why = format!("The arguments have more than {MAX_ARGUMENT_BYTES} bytes.");
        return Err(ToolFailure::new("arguments_too_long", why));
    }
    if arguments.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(arguments) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ToolFailure::new("invalid_arguments", "The arguments are no JSON object.")),
        Err(error) => {
            let why = format!("The arguments are not JSON: {error}.");
            Err(ToolFailure::new("invalid_arguments", why))
        }
    }
}

/// A schema as services take it: an object that says which properties it has.
fn as_object(schema: Value) -> Value {
    match schema {
        Value::Object(mut schema) if schema.get("type").is_none_or(|kind| kind == "object") => {
            schema.insert("type".to_owned(), "object".into());
            schema.entry("properties").or_insert_with(|| json!({}));
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}

/// `server__tool` as models take it. What does not fit is replaced, and told apart by a digest.
fn shown_name(server: &str, tool: &str) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let whole = format!("{server}__{tool}");
    if whole.len() <= MAX_TOOL_NAME && whole.chars().all(fit) {
        return whole;
    }
    let digest = convene_model::token::body_hash(whole.as_bytes());
    let digest: String = digest.chars().filter(|c| c.is_ascii_alphanumeric()).take(6).collect();
    let name: String = whole.chars().map(|c| if fit(c) { c } else { '_' }).collect();
    format!("{}_{digest}", &name[..name.len().min(MAX_TOOL_NAME - 7)])
}

fn timeout_of(millis: u64) -> Duration {
    Duration::from_millis(millis).min(MAX_TOOL_TIMEOUT)
}

async fn within<T>(
    sleep: &Sleep,
    time: Duration,
    work: impl Future<Output = Result<T, ToolFailure>> + Send,
) -> Result<T, ToolFailure> {
    match select(std::pin::pin!(work), sleep(time)).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => Err(ToolFailure::timeout(time.as_secs_f32())),
    }
}

/// At most `limit` bytes of a text, which says where it was cut.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    const MARK: &str = "\n(cut)";
    if text.len() <= limit {
        return text.to_owned();
    }
    format!("{}{MARK}", &text[..text.floor_char_boundary(limit - MARK.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_of_a_server_has_a_name_that_models_take() {
        assert_eq!(shown_name("files", "read_file"), "files__read_file");
        let fitting = "x".repeat(MAX_TOOL_NAME - 7);
        assert_eq!(shown_name("files", &fitting), format!("files__{fitting}"));
        let (long, dotted) = (shown_name("files", &format!("{fitting}x")), shown_name("s", "a.b"));
        assert_eq!(long.len(), MAX_TOOL_NAME);
        assert!(dotted.starts_with("s__a_b_") && dotted.len() == 13, "{dotted}");
        assert_ne!(dotted, shown_name("s", "a/b"));
    }

    #[test]
    fn a_schema_says_that_it_is_an_object_and_which_properties_it_has() {
        let empty = json!({"type": "object", "properties": {}});
        for schema in [json!({}), json!(null), json!({"type": "string"}), json!(true)] {
            assert_eq!(as_object(schema), empty);
        }
        let own = json!({"type": "object", "properties": {"a": {}}, "required": ["a"]});
        assert_eq!(as_object(own.clone()), own);
    }

    #[test]
    fn arguments_are_an_object_within_the_limit() {
        assert!(object("").unwrap().is_empty());
        assert_eq!(object("[]").unwrap_err().code, "invalid_arguments");
        assert_eq!(object("{\"a\":").unwrap_err().code, "invalid_arguments");
        let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert!(object(&long(MAX_ARGUMENT_BYTES)).is_ok());
        assert_eq!(object(&long(MAX_ARGUMENT_BYTES + 1)).unwrap_err().code, "arguments_too_long");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        let long = cut(&"é".repeat(20), 20);
        assert!(long.len() <= 20 && long.ends_with("(cut)"), "{long}");
    }
}
