//! Where a reply comes from. Each provider turns a conversation into a stream of chunks.
//!
//! Owns the one shape that the rest of the worker knows; what a service calls things stays inside
//! its own module.

mod anthropic;
mod demo;
mod excerpt;
mod exchange;
mod gemini;
mod openai;
mod retry_after;

use convene_model::agents::{ResolvedModel, Usage};
use futures_util::stream::BoxStream;

use crate::{Config, conversation::Conversation, dialogue::Ask, failure::Failure};

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// More text, whole code points.
    Text(String),
    /// A call of a tool, whole. All calls come after the text.
    Call(Wanted),
    /// The reply is complete; nothing follows.
    End(End),
}

/// A call as a model wants it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    /// The tool's name, as the model wrote it.
    pub(crate) tool: String,
    /// The arguments, as the model wrote them; not always JSON.
    pub(crate) arguments: String,
    /// What the provider wants back with the call.
    pub(crate) signature: Option<String>,
}

/// How a complete reply ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct End {
    /// What it used, where the provider says.
    pub(crate) usage: Option<Usage>,
    /// Why the provider ended it before the model did, where it says.
    pub(crate) cut_short: Option<&'static str>,
    /// The model's reasoning, where the provider wants it back behind calls.
    pub(crate) reasoning: Option<String>,
}

/// Text, then calls, then an end or a failure. A stream that ends without one was cut. Dropping it
/// cancels the request behind it.
pub(crate) type ChunkStream = BoxStream<'static, Result<Chunk, Failure>>;

/// What ended a reply that had no word in it.
const USED_UP: &str = "The model used up its length before it wrote a word.";
const WITHHELD: &str = "The provider's content filter withheld the reply.";
const UNREADABLE_CALL: &str = "The model wrote a call of a tool that cannot be read.";

/// Begins the reply of `model`; nothing is sent before the stream is polled.
pub(crate) fn reply(
    config: &Config,
    model: &ResolvedModel,
    conversation: &Conversation,
    ask: Ask,
) -> ChunkStream {
    match model {
        ResolvedModel::Demo => demo::Demo::new(config).reply(conversation),
        ResolvedModel::OpenaiCompatible { base_url, model, api_key, options } => {
            openai::reply(config, base_url, model, api_key.clone(), options, &ask)
        }
        ResolvedModel::Anthropic { base_url, model, api_key, options } => {
            anthropic::reply(config, base_url, model, api_key.clone(), options, &ask)
        }
        ResolvedModel::Gemini { base_url, model, api_key, options } => {
            gemini::reply(config, base_url, model, api_key.clone(), options, &ask)
        }
    }
}

/// The names of the models that a provider offers, in its order.
///
/// # Errors
/// [`Failure`], whatever went wrong.
pub(crate) async fn models(config: &Config, model: &ResolvedModel) -> Result<Vec<String>, Failure> {
    match model {
        ResolvedModel::Demo => Ok(vec!["demo".to_owned()]),
        ResolvedModel::OpenaiCompatible { base_url, api_key, .. } => {
            openai::models(config, base_url, api_key.clone()).await
        }
        ResolvedModel::Anthropic { base_url, api_key, .. } => {
            anthropic::models(config, base_url, api_key.clone()).await
        }
        ResolvedModel::Gemini { base_url, api_key, .. } => {
            gemini::models(config, base_url, api_key.clone()).await
        }
    }
}
