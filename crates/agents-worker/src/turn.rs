//! One attempt from its call to its outcome: resolve, ask the model, pass on what it says.
//!
//! Everything happens inside the returned stream: dropping it cancels what is under way.

use std::sync::Arc;

use convene_model::agents::{InvokeEvent, Outcome, failure};
use futures_util::{FutureExt, Stream, StreamExt};

use crate::{
    Worker,
    conversation::Conversation,
    failure::Failure,
    invoke::Call,
    providers::{self, Chunk, ChunkStream, End},
    reply::{MAX_DELTA_BYTES, Reply},
    resolve::{self, Key},
};

/// Runs the attempt: zero or more deltas, then exactly one `finished`.
pub(crate) fn run(
    worker: Arc<Worker>,
    call: Call,
) -> impl Stream<Item = InvokeEvent> + Send + 'static {
    async_stream::stream! {
        let agent = match resolve::resolve(&worker, &call).await {
            Ok(agent) => agent,
            Err(failure) => {
                yield finished(&call, failure);
                return;
            }
        };
        let mut reply = Reply::new(&agent.name);
        let conversation = Conversation::new(&agent, &call.request);
        let mut chunks = Chunks::new(providers::reply(&worker.config, &agent.model, conversation));
        let end = loop {
            let text = match chunks.next().await {
                Ok(Next::Text(text)) => text,
                Ok(Next::End(end)) => break end,
                Err(failure) => {
                    // Whoever mends the agent or its provider should not wait for the cache.
                    worker.agents.forget(&Key::of(&call.claims));
                    yield finished(&call, failure);
                    return;
                }
            };
            match reply.push(&text) {
                Ok(deltas) => {
                    for delta in deltas {
                        yield delta;
                    }
                }
                Err(failure) => {
                    yield finished(&call, failure);
                    return;
                }
            }
        };
        match reply.finish() {
            Ok((deltas, said_something)) => {
                for delta in deltas {
                    yield delta;
                }
                if said_something {
                    yield InvokeEvent::Finished(Outcome::Completed { usage: end.usage });
                } else {
                    let why = end.cut_short.unwrap_or("The model ended its reply without a word.");
                    yield finished(&call, Failure::new(failure::EMPTY_REPLY, why));
                }
            }
            Err(failure) => yield finished(&call, failure),
        }
    }
}

fn finished(call: &Call, failure: Failure) -> InvokeEvent {
    tracing::info!(
        group_id = %call.claims.group_id,
        agent_id = %call.claims.agent_id,
        run_id = %call.claims.run_id,
        attempt = call.claims.attempt,
        code = failure.code,
        "an attempt failed"
    );
    InvokeEvent::Finished(failure.outcome(None))
}

enum Next {
    Text(String),
    End(End),
}

/// A provider's chunks with those that are there already joined, so that a fast model does not
/// cost one event per token.
struct Chunks {
    stream: ChunkStream,
    /// What was read while joining and was not text.
    waiting: Option<Option<Result<Chunk, Failure>>>,
}

impl Chunks {
    fn new(stream: ChunkStream) -> Self {
        Self { stream, waiting: None }
    }

    async fn next(&mut self) -> Result<Next, Failure> {
        let chunk = match self.waiting.take() {
            Some(chunk) => chunk,
            None => self.stream.next().await,
        };
        let mut text = match chunk {
            Some(Ok(Chunk::Text(text))) => text,
            Some(Ok(Chunk::End(end))) => return Ok(Next::End(end)),
            Some(Err(failure)) => return Err(failure),
            None => {
                let why = "The model provider's answer ended too early.";
                return Err(Failure::new(failure::PROVIDER_CUT, why));
            }
        };
        while text.len() < MAX_DELTA_BYTES {
            match self.stream.next().now_or_never() {
                Some(Some(Ok(Chunk::Text(more)))) => text.push_str(&more),
                Some(other) => {
                    self.waiting = Some(other);
                    break;
                }
                None => break,
            }
        }
        Ok(Next::Text(text))
    }
}
