//! Tools of agents: what an agent may use, what a call of one is, and who may permit it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    ApprovalId, CallId, Role, RunId, Timestamp, UserId,
    agents::{ApiKey, Usage},
};

/// A tool that an agent may use, as the App resolves it for one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResolvedTool {
    /// One that every Agents Worker has.
    Builtin {
        /// Which.
        name: BuiltinTool,
    },
    /// A request to a service that the workspace configured.
    Http(Box<HttpTool>),
    /// The tools of an MCP server (streamable HTTP).
    Mcp(Box<McpServer>),
}

/// The tools that every Agents Worker has. None of them changes anything.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BuiltinTool {
    /// Tells the time, in UTC or at an offset from it.
    CurrentTime,
    /// Evaluates an arithmetic expression.
    Calculator,
    /// Searches the messages of the agent's own group.
    SearchHistory,
}

impl BuiltinTool {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::CurrentTime, Self::Calculator, Self::SearchHistory];

    /// The name as configurations and models see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CurrentTime => "current_time",
            Self::Calculator => "calculator",
            Self::SearchHistory => "search_history",
        }
    }
}

/// A request that an agent may make, with what it may not choose.
///
/// `{name}` in `path` is filled with the argument of that name, percent-encoded as one segment;
/// `{+name}` keeps its slashes and refuses `.` and `..`. The argument `method` chooses among
/// `methods` where there are several. What is left of the arguments is the query of a request with
/// GET, HEAD or DELETE and the JSON body of any other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTool {
    /// Its id.
    pub tool_id: String,
    /// The version of its configuration.
    pub version: u64,
    /// The name that models and people see: 1–64 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// What it is for, for models.
    pub description: String,
    /// The JSON schema of its arguments, an object.
    pub parameters: Value,
    /// The URL that every request begins with; a request never leaves its origin.
    pub base_url: String,
    /// The methods that are allowed, in capitals; the first is used where nothing is said.
    pub methods: Vec<String>,
    /// Appended to the URL.
    #[serde(default)]
    pub path: String,
    /// Headers of every request.
    #[serde(default)]
    pub headers: Vec<NamedValue>,
    /// Query parameters of every request.
    #[serde(default)]
    pub query: Vec<NamedValue>,
    /// How long it may take in all, in milliseconds; at most `MAX_TOOL_TIMEOUT`.
    pub timeout_ms: u64,
    /// Bytes of an answer that are read; a longer one is cut and says so.
    pub max_response_bytes: u64,
    /// What an answer must be.
    #[serde(default)]
    pub response: ResponseFormat,
    /// Whether calls that may change something need nobody's permission.
    #[serde(default)]
    pub auto_approve: bool,
    /// Who permits a call otherwise.
    #[serde(default)]
    pub approvers: Approvers,
}

/// A header or a query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: ToolValue,
}

/// A value that a request carries: `{"plain":"…"}` or `{"secret":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolValue {
    /// It may be seen.
    Plain(String),
    /// It may not: it is taken out of whatever comes back.
    Secret(ApiKey),
}

impl ToolValue {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(key) => key.expose(),
        }
    }
}

/// What an answer of an HTTP tool must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Text in UTF-8; anything else is a failure.
    #[default]
    Text,
    /// JSON; anything else is a failure.
    Json,
}

/// An MCP server (streamable HTTP) whose tools an agent may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpServer {
    /// Its id.
    pub server_id: String,
    /// The version of its configuration.
    pub version: u64,
    /// Its name; a tool is shown to models as `name__tool`.
    pub name: String,
    /// Its endpoint.
    pub url: String,
    /// Headers of every request.
    #[serde(default)]
    pub headers: Vec<NamedValue>,
    /// The tools that the agent may use; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// How long a call may take, in milliseconds; at most `MAX_TOOL_TIMEOUT`.
    pub timeout_ms: u64,
    /// The tools whose calls need nobody's permission, beside those that the server marks with
    /// `readOnlyHint`.
    #[serde(default)]
    pub auto_approve: Vec<String>,
    /// Who permits the others.
    #[serde(default)]
    pub approvers: Approvers,
}

/// Who may permit a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Approvers {
    /// Who began the chain of messages that led to the run.
    #[default]
    Initiator,
    /// Anybody with this role or a higher one.
    Role {
        /// The role.
        role: Role,
    },
    /// So many of these users.
    NOfM {
        /// How many.
        n: u32,
        /// Of whom.
        users: Vec<UserId>,
    },
}

impl Approvers {
    /// How many have to agree.
    #[must_use]
    pub fn needed(&self) -> usize {
        match self {
            Self::Initiator | Self::Role { .. } => 1,
            Self::NOfM { n, .. } => (*n).max(1) as usize,
        }
    }

    /// Whether this user may decide.
    #[must_use]
    pub fn admits(&self, user_id: &UserId, role: Role, initiator: Option<&UserId>) -> bool {
        match self {
            Self::Initiator => initiator == Some(user_id),
            Self::Role { role: least } => role >= *least,
            Self::NOfM { users, .. } => users.contains(user_id),
        }
    }
}

/// A call that may change something, handed over by the Agents Worker before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRequest {
    /// The call, unique within the run.
    pub call_id: CallId,
    /// The tool's name as people see it.
    pub tool: String,
    /// The version of its configuration.
    pub tool_version: u64,
    /// The arguments as JSON, at most `MAX_ARGUMENT_BYTES`.
    pub arguments: String,
    /// [`call_hash`] of the call.
    pub hash: String,
    /// Who permits it; absent when nobody has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Approvers>,
}

/// What a permission is bound to: SHA-256 over tool, version, schema and arguments, each preceded by
/// its length, as lower-case hexadecimal digits.
#[must_use]
pub fn call_hash(tool: &str, version: u64, schema: &Value, arguments: &str) -> String {
    let schema = schema.to_string();
    let mut hash = Sha256::new();
    for part in [tool, &version.to_string(), &schema, arguments] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the next attempt goes on after a hand-over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// What the attempt before it left, unread by the controller.
    pub continuation: String,
    /// How many bytes of the reply are said already; the attempt's deltas go on from there.
    pub offset: u64,
    /// What became of each call that was handed over.
    pub calls: Vec<ResumedCall>,
}

/// A call that was handed over, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumedCall {
    /// Which call.
    pub call_id: CallId,
    /// The hash that the permission is bound to.
    pub hash: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a call that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// It is recorded as started: make it, once.
    Make,
    /// Permission was refused.
    Denied,
    /// It was begun by an attempt that was cut off; nobody knows whether it took effect.
    Unknown,
    /// An attempt that was cut off had finished it.
    Finished {
        /// How.
        status: ToolStatus,
        /// What came of it, as far as it was recorded.
        summary: String,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// It did what it was to do.
    Ok,
    /// It failed; the summary says why.
    Failed,
    /// It took too long.
    Timeout,
    /// It was not permitted.
    Denied,
    /// It was cut off; nobody knows whether it took effect.
    Unknown,
}

/// An attempt ended with calls that may change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsRequested {
    /// Which run.
    pub run_id: RunId,
    /// The attempt that asked.
    pub attempt: u32,
    /// The calls.
    pub calls: Vec<ToolRequest>,
    /// What the run has used so far, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What the next attempt needs; for the Agents Worker only.
    pub continuation: String,
    /// The reply so far.
    pub said: String,
}

/// A call began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStarted {
    /// Which run.
    pub run_id: RunId,
    /// Which attempt of it.
    pub attempt: u32,
    /// Which call.
    pub call_id: CallId,
    /// The tool's name.
    pub tool: String,
    /// The arguments as JSON, cut to `MAX_ARGUMENT_BYTES`.
    pub arguments: String,
}

/// A call ended, or will never begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFinished {
    /// Which run.
    pub run_id: RunId,
    /// Which attempt of it.
    pub attempt: u32,
    /// Which call.
    pub call_id: CallId,
    /// How it ended.
    pub status: ToolStatus,
    /// What came of it or why it failed, cut to `MAX_SUMMARY_BYTES`.
    pub summary: String,
}

/// A call of a tool as people are shown it, and what came of it. Its texts are cut: to
/// `MAX_ARGUMENT_BYTES` and `MAX_SUMMARY_BYTES` where a run has ended, to `MAX_TOOL_EXCERPT_BYTES`
/// beside the events of one that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolView {
    /// The call, unique within the run.
    pub call_id: CallId,
    /// The tool's name.
    pub tool: String,
    /// The arguments as JSON.
    pub arguments: String,
    /// How it ended; absent while it has not, or when its end is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ToolStatus>,
    /// What came of it or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// An agent asks for permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// The approval.
    pub approval_id: ApprovalId,
    /// The run that waits for it.
    pub run_id: RunId,
    /// Which agent.
    pub agent_id: crate::AgentId,
    /// The call.
    pub call_id: CallId,
    /// The tool's name.
    pub tool: String,
    /// The arguments as JSON, whole.
    pub arguments: String,
    /// What the permission is bound to, see [`call_hash`].
    pub hash: String,
    /// Who may decide.
    pub who: Approvers,
    /// Who began the chain of messages that led to the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<UserId>,
    /// When it is refused by itself.
    pub expires_at: Timestamp,
}

/// One of several people permitted a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalVoted {
    /// The approval.
    pub approval_id: ApprovalId,
    /// The run that waits for it.
    pub run_id: RunId,
    /// Who.
    pub user_id: UserId,
    /// How many have to agree still.
    pub missing: u32,
}

/// Permission was given or refused; there is exactly one of these or of `approval.expired` for each
/// approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalResolved {
    /// The approval.
    pub approval_id: ApprovalId,
    /// The run that waited for it.
    pub run_id: RunId,
    /// What was decided.
    pub decision: ApprovalDecision,
    /// Whose decision was the last.
    pub user_id: UserId,
}

/// Nobody decided in time, or the run ended first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalExpired {
    /// The approval.
    pub approval_id: ApprovalId,
    /// The run that waited for it.
    pub run_id: RunId,
}

/// What somebody decides about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalDecision {
    /// It may be made, once.
    Approve,
    /// It may not be made.
    Deny,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hash_changes_with_each_thing_that_it_is_bound_to() {
        let schema = json!({"type": "object"});
        let hash = call_hash("send", 1, &schema, "{}");
        assert_eq!(hash.len(), 64);
        assert_eq!(hash, call_hash("send", 1, &schema, "{}"));
        assert_ne!(hash, call_hash("sen", 1, &schema, "{}"));
        assert_ne!(hash, call_hash("send", 2, &schema, "{}"));
        assert_ne!(hash, call_hash("send", 1, &json!({}), "{}"));
        assert_ne!(hash, call_hash("send", 1, &schema, "{ }"));
    }

    #[test]
    fn only_those_named_may_decide() {
        let user = |id: &str| UserId::new(id).unwrap();
        let (ana, ben) = (user("ana"), user("ben"));
        let initiator = Some(&ana);
        assert!(Approvers::Initiator.admits(&ana, Role::Member, initiator));
        assert!(!Approvers::Initiator.admits(&ben, Role::Owner, initiator));
        assert!(!Approvers::Initiator.admits(&ben, Role::Owner, None));
        let admins = Approvers::Role { role: Role::Admin };
        assert!(admins.admits(&ben, Role::Owner, initiator));
        assert!(!admins.admits(&ana, Role::Member, initiator));
        let some = Approvers::NOfM { n: 2, users: vec![ben.clone()] };
        assert!(some.admits(&ben, Role::Member, initiator));
        assert!(!some.admits(&ana, Role::Owner, initiator));
    }

    #[test]
    fn a_secret_value_is_not_shown_by_debug() {
        let value: ToolValue = serde_json::from_value(json!({"secret": "hunter2"})).unwrap();
        assert_eq!(value.expose(), "hunter2");
        assert!(!format!("{value:?}").contains("hunter2"));
    }
}
