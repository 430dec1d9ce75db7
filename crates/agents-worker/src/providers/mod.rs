//! Where a reply comes from. Each provider turns a conversation into a stream of chunks.
//!
//! Owns the one shape that the rest of the worker knows; what a library or a service calls things
//! stays inside its own module.

mod demo;
mod excerpt;
mod openai;
mod retry_after;

use convene_model::agents::{ResolvedModel, Usage, failure};
use futures_util::{
    future::ready,
    stream::{self, BoxStream},
};

use crate::{Config, conversation::Conversation, failure::Failure};

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// More text, whole code points.
    Text(String),
    /// The reply is complete; nothing follows.
    End(End),
}

/// How a complete reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct End {
    /// What it used, where the provider says.
    pub(crate) usage: Option<Usage>,
    /// Why the provider ended it before the model did, where it says.
    pub(crate) cut_short: Option<&'static str>,
}

/// Text, then an end or a failure. A stream that ends without one was cut. Dropping it cancels the
/// request behind it.
pub(crate) type ChunkStream = BoxStream<'static, Result<Chunk, Failure>>;

/// Something that replies.
pub(crate) trait Provider {
    /// Begins a reply; nothing is sent before the stream is polled.
    fn reply(&self, conversation: Conversation) -> ChunkStream;
}

/// Begins the reply of `model`.
pub(crate) fn reply(
    config: &Config,
    model: &ResolvedModel,
    conversation: Conversation,
) -> ChunkStream {
    match model {
        ResolvedModel::Demo => demo::Demo::new(config).reply(conversation),
        ResolvedModel::Anthropic { .. } | ResolvedModel::Gemini { .. } => {
            let why = "This kind of model provider is not offered.";
            Box::pin(stream::once(ready(Err(Failure::new(failure::PROVIDER_ERROR, why)))))
        }
        ResolvedModel::OpenaiCompatible { base_url, model, api_key, options: _ } => {
            openai::OpenAiCompatible::new(config, base_url, model, api_key.clone())
                .reply(conversation)
        }
    }
}
