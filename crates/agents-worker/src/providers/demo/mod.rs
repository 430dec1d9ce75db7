//! The built-in demo model: no key, no network, no language model, and it says so.
//!
//! It answers from the conversation alone, by rules, the same answer each time, and streams it word
//! by word, so that a new workspace shows mentions, turns and streaming before anything is set up.

mod answer;
mod ask;
mod samples;

use std::{sync::Arc, time::Duration};

use convene_model::agents::Usage;

use super::{Chunk, ChunkStream, End};
use crate::{Config, Sleep, conversation::Conversation};

/// The demo model.
pub(crate) struct Demo {
    sleep: Sleep,
    pace: Duration,
}

impl Demo {
    /// A demo model that pauses as the configuration says.
    pub(crate) fn new(config: &Config) -> Self {
        Self { sleep: Arc::clone(&config.sleep), pace: config.limits.demo_pace }
    }
}

impl Demo {
    /// Its answer, word by word.
    pub(crate) fn reply(&self, conversation: &Conversation) -> ChunkStream {
        let text = answer::answer(conversation);
        let sleep = Arc::clone(&self.sleep);
        let pace = self.pace;
        Box::pin(async_stream::stream! {
            for word in text.split_inclusive(char::is_whitespace) {
                yield Ok(Chunk::Text(word.to_owned()));
                sleep(pace).await;
            }
            // It costs nothing, which is known.
            yield Ok(Chunk::End(End { usage: Some(Usage::default()), ..End::default() }));
        })
    }
}
