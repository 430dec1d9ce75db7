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
}

impl Ask {
    /// About how many tokens it takes, at four bytes each.
    pub(crate) fn tokens(&self) -> u64 {
        let Prompt { system, turns } = &*self.prompt;
        let said = |text: &String| text.len();
        let turns = turns.iter().map(|turn| said(&turn.text));
        let calls = self.rounds.iter().flat_map(|round| {
            let calls = round.calls.iter();
            let calls = calls.map(|call| call.arguments.len() + call.told().0.len());
            calls.chain([said(&round.text), round.reasoning.as_ref().map_or(0, said)])
        });
        let tools = self.tools.iter().map(|tool| {
            tool.name.len() + tool.description.len() + tool.parameters.to_string().len()
        });
        let bytes = turns.chain(calls).chain(tools).fold(said(system), usize::saturating_add);
        tokens_of(bytes)
    }

    /// A question without tools.
    pub(crate) fn plain(prompt: Prompt) -> Self {
        Self {
            prompt: Arc::new(prompt),
            rounds: Vec::new(),
            tools: Arc::default(),
            may_call: false,
        }
    }
}

/// About how many tokens a text of so many bytes is.
pub(crate) fn tokens_of(bytes: usize) -> u64 {
    const BYTES_PER_TOKEN: usize = 4;
    bytes.div_ceil(BYTES_PER_TOKEN).try_into().unwrap_or(u64::MAX)
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
