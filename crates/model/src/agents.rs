//! What passes between a group's controller, the Agents Worker and the App's resolver.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    AgentId, CallId, GroupId, MessageId, RunId, UserId, event::Author, limits::SUMMARY_TOKENS,
};

pub use crate::price::ModelPrice;
pub use crate::tools::{
    Approvers, BuiltinTool, HttpTool, McpServer, NamedValue, ResolvedTool, ResponseFormat, Resume,
    ResumedCall, ToolRequest, ToolStatus, ToolValue, Verdict, call_hash,
};

/// `POST /invoke` on the Agents Worker, bound to the agent-access token by its body hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvokeRequest {
    /// The group.
    pub group_id: GroupId,
    /// Which agent runs.
    pub agent_id: AgentId,
    /// Which run.
    pub run_id: RunId,
    /// Which attempt of it.
    pub attempt: u32,
    /// The message that woke the agent; it is among `messages`.
    pub trigger: MessageId,
    /// The agents of the group, so that a model can tell them apart.
    pub agents: BTreeMap<AgentId, String>,
    /// What the messages before those were about. It stays the same from one call to the next until
    /// the next step of the window, so that what a provider has cached of the prompt holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<ContextSummary>,
    /// The conversation as far as the model is shown it, oldest first.
    pub messages: Vec<ContextMessage>,
    /// How to go on, when an attempt before this one handed calls of tools over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// What earlier messages of a group were about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextSummary {
    /// The number of the event that posted the first of them.
    pub from_seq: u64,
    /// The number of the event that posted the last of them.
    pub to_seq: u64,
    /// Who wrote it.
    pub by: SummaryAuthor,
    /// Its text; speakers are named, or marked as [`speaker_mark`] has it.
    pub text: String,
}

/// Who wrote a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SummaryAuthor {
    /// A model.
    Model,
    /// Nobody: it is made of the beginnings of the messages.
    Extractive,
}

/// How a speaker stands in a summary whose author knows no names: `@[u:ID]` or `@[a:ID]`.
#[must_use]
pub fn speaker_mark(author: &Author) -> String {
    match author {
        Author::User(id) => format!("@[u:{id}]"),
        Author::Agent(id) => format!("@[a:{id}]"),
    }
}

/// `POST /summarize` on the Agents Worker, bound to the agent-access token by its body hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummarizeRequest {
    /// The group.
    pub group_id: GroupId,
    /// Whose model writes it.
    pub agent_id: AgentId,
    /// A name for this summary, unique within the group.
    pub run_id: RunId,
    /// The agents of the group.
    pub agents: BTreeMap<AgentId, String>,
    /// The summary of what came before the messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The messages, oldest first; at least one.
    pub messages: Vec<ContextMessage>,
    /// Tokens that it may use, at most `SUMMARY_TOKENS`.
    #[serde(default = "most_of_a_summary")]
    pub tokens: u64,
}

fn most_of_a_summary() -> u64 {
    SUMMARY_TOKENS
}

/// What `POST /summarize` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summarized {
    /// The summary, at most `MAX_SUMMARY_TEXT_BYTES`.
    pub text: String,
    /// What it used, where the provider says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A message as a model is shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextMessage {
    /// Which message.
    pub message_id: MessageId,
    /// Who wrote it.
    pub author: Author,
    /// Its text.
    pub text: String,
}

/// One server-sent event of the answer to `/invoke`: the JSON in its `data` line.
///
/// The stream is zero or more `delta`s and then exactly one `finished`; a stream that ends without
/// one was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InvokeEvent {
    /// More text.
    Delta {
        /// How many UTF-8 bytes of the reply came before; counts from 0 in each attempt.
        offset: u64,
        /// The text; it never begins or ends within a code point.
        text: String,
    },
    /// A call that changes nothing, or one that was handed over and is made now, begins. The latter
    /// are recorded already.
    ToolStarted {
        /// Which call; unique within the run.
        call_id: CallId,
        /// The tool's name.
        tool: String,
        /// The arguments as JSON, cut to `MAX_ARGUMENT_BYTES`.
        arguments: String,
    },
    /// A call ended.
    ToolFinished {
        /// Which call.
        call_id: CallId,
        /// How.
        status: ToolStatus,
        /// What came of it, cut to `MAX_SUMMARY_BYTES`.
        summary: String,
    },
    /// The end.
    Finished(Outcome),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// The model finished its reply.
    Completed {
        /// What it used, where the provider says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The model wants calls that may change something: they are recorded, and permitted where they
    /// have to be, before the next attempt makes them.
    ToolRequested {
        /// The calls, at least one.
        calls: Vec<ToolRequest>,
        /// What the next attempt needs, at most `MAX_CONTINUATION_BYTES`; it has no secret in it.
        continuation: String,
        /// What the run has used so far, where the provider says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// Something failed.
    Failed {
        /// A stable code, see [`failure`].
        code: String,
        /// One sentence for people, without secrets.
        detail: String,
        /// Whether trying the same again may help, and after how many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// What the run had used until then, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
}

/// How a run ended that an agent's own process took on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutsideOutcome {
    /// The text sent is the whole reply.
    Completed {},
    /// It could not answer.
    Failed {
        /// One sentence for people, at most `MAX_FAILURE_CHARS`.
        detail: String,
    },
}

/// The stable codes of failed runs.
pub mod failure {
    /// The provider refused the credentials.
    pub const PROVIDER_UNAUTHORIZED: &str = "provider_unauthorized";
    /// The provider asked to slow down.
    pub const PROVIDER_RATE_LIMITED: &str = "provider_rate_limited";
    /// The provider answered with an error of its own.
    pub const PROVIDER_ERROR: &str = "provider_error";
    /// The provider could not be reached.
    pub const PROVIDER_UNREACHABLE: &str = "provider_unreachable";
    /// The provider said nothing for too long.
    pub const PROVIDER_SILENT: &str = "provider_silent";
    /// The provider's answer was cut or malformed.
    pub const PROVIDER_CUT: &str = "provider_cut";
    /// The provider's address is not allowed by the operator's configuration.
    pub const ADDRESS_NOT_ALLOWED: &str = "address_not_allowed";
    /// The agent's configuration could not be resolved.
    pub const RESOLVE_FAILED: &str = "resolve_failed";
    /// The Agents Worker could not be reached or refused the call.
    pub const WORKER_UNAVAILABLE: &str = "worker_unavailable";
    /// The Agents Worker's answer ended too early.
    pub const WORKER_CUT: &str = "worker_cut";
    /// The model ended its reply without a word.
    pub const EMPTY_REPLY: &str = "empty_reply";
    /// The reply is above the limit.
    pub const REPLY_TOO_LONG: &str = "reply_too_long";
    /// The run took too long.
    pub const TIMEOUT: &str = "timeout";
    /// The run lost its worker too often.
    pub const TOO_MANY_ATTEMPTS: &str = "too_many_attempts";
    /// The run has used as many tokens as it may.
    pub const TOKENS_USED_UP: &str = "tokens_used_up";
    /// The model asked for tools again and again.
    pub const TOO_MANY_TOOL_CALLS: &str = "too_many_tool_calls";
    /// Nobody decided in time about what the agent wanted to do.
    pub const APPROVAL_EXPIRED: &str = "approval_expired";
    /// What an attempt left for the next one cannot be read.
    pub const CONTINUATION_INVALID: &str = "continuation_invalid";
    /// An MCP server does not answer as the protocol says.
    pub const MCP_ERROR: &str = "mcp_error";
    /// The organization's budget has no room for the run.
    pub const BUDGET_EXHAUSTED: &str = "budget_exhausted";
    /// Nobody could say whether the organization's budget has room for the run.
    pub const BUDGET_UNAVAILABLE: &str = "budget_unavailable";
    /// The agent was taken out of the group before its run ended.
    pub const AGENT_REMOVED: &str = "agent_removed";
    /// An agent's own process was not there in time; the run is made again when it comes.
    pub const AGENT_NOT_CONNECTED: &str = "agent_not_connected";
    /// An agent's own process was there and did not take the run on in time.
    pub const AGENT_UNRESPONSIVE: &str = "agent_unresponsive";
    /// An agent's own process said that it could not answer.
    pub const AGENT_FAILED: &str = "agent_failed";
}

/// What a run used, over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens read by the model, whether or not the provider had them in its cache.
    pub input_tokens: u64,
    /// Tokens written by the model, its reasoning included.
    pub output_tokens: u64,
    /// Those among the tokens read that the provider had in its cache, where it says so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// Those among the tokens read that the provider put into its cache, where it says so.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// What the tokens cost in millionths of a US dollar, by the prices that the workspace gives for its
    /// models; absent where one has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// Bytes that its tools sent to services and received from them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub egress_bytes: u64,
    /// Tokens that providers said beyond what was sent to them and what they may have written. They are
    /// in none of the other figures, and cost nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub excess_tokens: u64,
    /// Whether a provider did not say how many tokens it took: there were more than those above, and
    /// they cost more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tokens_unknown: bool,
}

impl Usage {
    /// What both used together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cost_micro_usd: match (self.cost_micro_usd, other.cost_micro_usd) {
                (Some(one), Some(other)) => Some(one.saturating_add(other)),
                (known, None) if other.has_no_tokens() => known,
                (None, known) if self.has_no_tokens() => known,
                (Some(_) | None, None) | (None, Some(_)) => None,
            },
            egress_bytes: self.egress_bytes.saturating_add(other.egress_bytes),
            excess_tokens: self.excess_tokens.saturating_add(other.excess_tokens),
            tokens_unknown: self.tokens_unknown || other.tokens_unknown,
        }
    }

    /// Tokens read and written, where all of them are known.
    #[must_use]
    pub const fn tokens(self) -> Option<u64> {
        if self.tokens_unknown {
            return None;
        }
        Some(self.input_tokens.saturating_add(self.output_tokens))
    }

    /// What one call cost that used this, by its model's price.
    #[must_use]
    pub fn priced(self, price: Option<&ModelPrice>) -> Self {
        Self { cost_micro_usd: price.map(|price| price.cost(&self)), ..self }
    }

    /// What it cost in millionths of a US dollar, where that is known of all of it; no tokens cost nothing.
    #[must_use]
    pub const fn cost(self) -> Option<u64> {
        match self.cost_micro_usd {
            _ if self.tokens_unknown => None,
            None if self.has_no_tokens() => Some(0),
            cost => cost,
        }
    }

    const fn has_no_tokens(self) -> bool {
        self.input_tokens == 0 && self.output_tokens == 0
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `POST /internal/resolve` on the App: what an agent is. What may be read follows from the token
/// alone; the body says what of it is known already.
///
/// Answered with a [`ResolvedAgent`], or with 204 and no body where what is known still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The version of an earlier answer to the same organization, group, agent and initiator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<u64>,
}

/// What an agent is: the answer to a [`ResolveRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedAgent {
    /// Which agent.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// The version of its workspace's configuration, which grows with each change that a run could
    /// see.
    pub version: u64,
    /// Its system prompt.
    pub system_prompt: String,
    /// Its model.
    pub model: ResolvedModel,
    /// What the model costs, where the workspace says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<ModelPrice>,
    /// The people of the group by id, so that speakers stay distinguishable to the model.
    pub people: BTreeMap<UserId, String>,
    /// The tools that it may use.
    #[serde(default)]
    pub tools: Vec<ResolvedTool>,
    /// The hosts (`host` or `host:port`) that its tools may reach; any that the operator allows
    /// where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_hosts: Option<Vec<String>>,
}

/// Where an agent's model runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum ResolvedModel {
    /// The built-in model that needs no key.
    Demo,
    /// Any service that speaks OpenAI's chat completions.
    OpenaiCompatible {
        /// The URL up to and without `/chat/completions`.
        base_url: String,
        /// The model's name there.
        model: String,
        /// The key, if the service wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_key: Option<ApiKey>,
        /// Members of the body of every request, such as `temperature`; those that carry the
        /// conversation, the model and the tools are not taken from here.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        options: Map<String, Value>,
    },
    /// Anthropic's Messages API.
    Anthropic {
        /// The URL up to and without `/v1/messages`.
        base_url: String,
        /// The model's name there.
        model: String,
        /// The key.
        api_key: ApiKey,
        /// Members of the body of every request, such as `temperature`; those that carry the
        /// conversation, the model and the tools are not taken from here.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        options: Map<String, Value>,
    },
    /// Google's Gemini API.
    Gemini {
        /// The URL up to and without `/v1beta/models`.
        base_url: String,
        /// The model's name there.
        model: String,
        /// The key.
        api_key: ApiKey,
        /// Members of the body of every request, such as `temperature`; those that carry the
        /// conversation, the model and the tools are not taken from here.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        options: Map<String, Value>,
    },
}

/// A provider's key on its way to the request that needs it; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl Drop for ApiKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(input_tokens: u64, cost_micro_usd: Option<u64>) -> Usage {
        Usage { input_tokens, cost_micro_usd, ..Usage::default() }
    }

    #[test]
    fn costs_add_up_and_one_that_is_not_known_makes_the_sum_unknown() {
        assert_eq!(used(3, Some(5)).and(used(4, Some(6))), used(7, Some(11)));
        assert_eq!(used(3, Some(5)).and(used(4, None)), used(7, None));
        assert_eq!(used(3, None).and(used(4, Some(6))).cost(), None);
        let most = used(1, Some(u64::MAX));
        assert_eq!(most.and(most).cost(), Some(u64::MAX));
    }

    #[test]
    fn what_used_no_tokens_costs_nothing_and_tokens_without_a_price_are_not_free() {
        let nothing = Usage { egress_bytes: 9, ..Usage::default() };
        assert_eq!(nothing.cost(), Some(0));
        assert_eq!(nothing.and(used(3, Some(5))).cost(), Some(5));
        assert_eq!(used(3, Some(5)).and(nothing).cost(), Some(5));
        assert_eq!(used(3, None).cost(), None);
        assert_eq!(Usage { tokens_unknown: true, ..used(3, Some(5)) }.cost(), None);
        assert_eq!(Usage { tokens_unknown: true, ..nothing }.cost(), None);
    }

    #[test]
    fn usage_without_a_cost_is_told_as_it_always_was() {
        let text = serde_json::to_string(&used(3, None)).unwrap();
        assert_eq!(text, r#"{"input_tokens":3,"output_tokens":0}"#);
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap().cost(), None);
        let free = serde_json::to_value(used(3, Some(0))).unwrap();
        assert_eq!(free["cost_micro_usd"], 0);
    }
}
