//! What a model is asked: the prompt, the rounds of tool calls that came after it, the tools.
//!
//! Owns the one form that all providers are given and that a continuation holds. Nothing in it is a
//! secret: arguments come from the model, and results have been through the redaction.

use std::sync::Arc;

use convene_model::CallId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::prompt::Prompt;

/// What a provider is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) prompt: Arc<Prompt>,
    /// What the model did since, oldest first; every call in it has its result.
    pub(crate) rounds: Vec<Round>,
    pub(crate) tools: Arc<[ToolSpec]>,
    /// Whether it may call tools now; it has to write a reply otherwise.
    pub(crate) may_call: bool,
    /// Tokens that it may write at most, its reasoning included.
    pub(crate) max_output: u64,
}

/// Tokens that a question has beside its texts, at most: what a provider puts around them.
const FRAME_TOKENS: u64 = 1_024;
/// Tokens that a turn, a call or a tool has beside its texts, at most.
const PIECE_TOKENS: u64 = 16;

impl Ask {
    /// How many tokens it has at most: no model's token is less than a byte.
    pub(crate) fn tokens(&self) -> u64 {
        let Prompt { system, turns } = &*self.prompt;
        let turns = turns.iter().map(|turn| piece([turn.text.len()]));
        let rounds = self.rounds.iter().map(Round::tokens);
        let tools = self.tools.iter().map(|tool| {
            piece([tool.name.len(), tool.description.len(), tool.parameters.to_string().len()])
        });
        let frame = FRAME_TOKENS.saturating_add(bytes_of(system.len()));
        turns.chain(rounds).chain(tools).fold(frame, u64::saturating_add)
    }

    /// A question without tools, which may be answered with so many tokens at most.
    pub(crate) fn plain(prompt: Prompt, max_output: u64) -> Self {
        Self {
            prompt: Arc::new(prompt),
            rounds: Vec::new(),
            tools: Arc::default(),
            may_call: false,
            max_output,
        }
    }
}

/// How many tokens so many bytes are at most.
pub(crate) fn bytes_of(bytes: usize) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}

fn piece(texts: impl IntoIterator<Item = usize>) -> u64 {
    texts.into_iter().map(bytes_of).fold(PIECE_TOKENS, u64::saturating_add)
}

/// A tool as a model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolSpec {
    /// 1–64 of `[A-Za-z0-9_-]`.
    pub(crate) name: String,
    pub(crate) description: String,
    /// The JSON schema of its arguments, an object.
    pub(crate) parameters: Value,
}

/// What a model wrote, and the calls that it made behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Round {
    pub(crate) text: String,
    /// What the provider wants back with the calls, if it said any: its model's reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
    pub(crate) calls: Vec<Called>,
}

impl Round {
    /// How many tokens it has at most, with what came of its calls.
    pub(crate) fn tokens(&self) -> u64 {
        let calls = self.calls.iter().map(|call| {
            let signature = call.signature.as_ref().map_or(0, String::len);
            piece([call.tool.len(), call.arguments.len(), call.told().0.len(), signature])
        });
        let reasoning = self.reasoning.as_ref().map_or(0, String::len);
        calls.fold(piece([self.text.len(), reasoning]), u64::saturating_add)
    }
}

/// A call, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Called {
    pub(crate) call_id: CallId,
    pub(crate) tool: String,
    /// JSON, an object.
    pub(crate) arguments: String,
    /// A provider's signature that it wants back with the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<String>,
    /// Absent as long as the call was handed over and is not decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<CallResult>,
}

/// What a model is told of a call that it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallResult {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

impl Called {
    /// The arguments as an object; an empty one if they are none.
    pub(crate) fn object(&self) -> Map<String, Value> {
        serde_json::from_str(&self.arguments).unwrap_or_default()
    }

    /// What the model is told; a call without a result was not made.
    pub(crate) fn told(&self) -> (&str, bool) {
        match &self.result {
            Some(result) if result.text.is_empty() => ("(nothing)", result.failed),
            Some(result) => (&result.text, result.failed),
            None => ("The call was not made.", true),
        }
    }
}
