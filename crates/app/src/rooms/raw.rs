//! Answers about a group's messages that pass through unparsed, and their fragments.

use convene_model::history::RawHistoryPage;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::html::{Render, with_html};

/// [`convene_model::history::MessageDetail`] whose parts are passed on unparsed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RawMessageDetail {
    /// The message as it is now.
    pub message: Box<RawValue>,
    /// Its former texts, oldest first.
    pub revisions: Vec<Box<RawValue>>,
}

/// [`convene_model::history::SearchPage`] whose messages are passed on unparsed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RawSearchPage {
    /// The hits, newest first.
    pub hits: Vec<RawHit>,
    /// Whether there are older ones.
    pub more: bool,
}

/// A message that a search found, unparsed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RawHit {
    /// The message as it is now.
    pub message: Box<RawValue>,
    /// The passage that was found, in pieces.
    pub snippet: Box<RawValue>,
}

/// What can carry `html` beside each text.
pub trait WithHtml {
    /// Adds `html` to everything that has a text.
    #[must_use]
    fn with_html(self, render: Render) -> Self;
}

impl WithHtml for RawHistoryPage {
    fn with_html(mut self, render: Render) -> Self {
        self.messages.iter_mut().for_each(|message| add(message, render));
        self
    }
}

impl WithHtml for RawMessageDetail {
    fn with_html(mut self, render: Render) -> Self {
        add(&mut self.message, render);
        self.revisions.iter_mut().for_each(|revision| add(revision, render));
        self
    }
}

impl WithHtml for RawSearchPage {
    fn with_html(mut self, render: Render) -> Self {
        self.hits.iter_mut().for_each(|hit| add(&mut hit.message, render));
        self
    }
}

fn add(object: &mut Box<RawValue>, render: Render) {
    let rendered = with_html(object.get().as_bytes(), render)
        .and_then(|json| String::from_utf8(json).ok())
        .and_then(|json| RawValue::from_string(json).ok());
    if let Some(rendered) = rendered {
        *object = rendered;
    }
}
