//! Messages with a sanitised HTML fragment: rendered once, spliced into the frame as `html`.
//!
//! Knows where a frame's text is and nothing else of its content. Frames without a text pass
//! unchanged.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use bytes::Bytes;
use serde::Deserialize;

use super::tuning::{MAX_FRAGMENT_BYTES, MAX_FRAGMENTS};

/// How a text becomes a fragment.
pub type Render = fn(&str) -> String;

const EVENT_START: &[u8] = b"{\"type\":\"event\",\"seq\":";

/// The number of an event frame; `None` for any other frame.
pub(crate) fn event_seq(frame: &[u8]) -> Option<u64> {
    let digits = frame.strip_prefix(EVENT_START)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// The kind of an event frame; `None` for any other frame.
pub(crate) fn event_kind(frame: &[u8]) -> Option<&[u8]> {
    let rest = frame.strip_prefix(EVENT_START)?;
    let rest = &rest[rest.iter().position(|byte| !byte.is_ascii_digit())?..];
    let rest = rest.strip_prefix(b",\"at\":")?;
    let rest = &rest[rest.iter().position(|byte| !byte.is_ascii_digit())?..];
    let kind = rest.strip_prefix(b",\"kind\":\"")?;
    Some(&kind[..kind.iter().position(|byte| *byte == b'"')?])
}

/// Whether an event frame carries a text that is shown.
fn has_text(frame: &[u8]) -> bool {
    event_kind(frame).is_some_and(|kind| kind == b"message.posted" || kind == b"message.edited")
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(default)]
    deleted: bool,
}

/// The object with `html` as its last member; `None` when it has no text to render.
pub(super) fn with_html(object: &[u8], render: Render) -> Option<Vec<u8>> {
    let Text { text, deleted } = serde_json::from_slice(object).ok()?;
    if deleted {
        return None;
    }
    let fragment = serde_json::to_vec(&render(&text)).ok()?;
    let open = object.trim_ascii_end().strip_suffix(b"}")?;
    let mut out = Vec::with_capacity(open.len() + fragment.len() + 10);
    out.extend_from_slice(open);
    out.extend_from_slice(b",\"html\":");
    out.extend_from_slice(&fragment);
    out.push(b'}');
    Some(out)
}

/// The rendered frames of one room, the latest of them kept for replays.
#[derive(Debug)]
pub(crate) struct Fragments {
    render: Render,
    kept: HashMap<u64, Kept>,
    order: VecDeque<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    /// What was rendered. A frame with the same number may come back with its text erased.
    source: Bytes,
    html: Bytes,
}

impl Kept {
    fn len(&self) -> usize {
        self.source.len() + self.html.len()
    }
}

impl Fragments {
    pub(crate) fn new(render: Render) -> Self {
        Self { render, kept: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// The frame as clients get it that asked for HTML.
    pub(crate) fn html(&mut self, frame: &Bytes) -> Bytes {
        if !has_text(frame) {
            return frame.clone();
        }
        let Some(seq) = event_seq(frame) else { return frame.clone() };
        if let Some(kept) = self.kept.get(&seq).filter(|kept| kept.source == *frame) {
            return kept.html.clone();
        }
        let Some(html) = with_html(frame, self.render).map(Bytes::from) else {
            return frame.clone();
        };
        self.keep(seq, Kept { source: frame.clone(), html: html.clone() });
        html
    }

    fn keep(&mut self, seq: u64, kept: Kept) {
        self.bytes += kept.len();
        match self.kept.insert(seq, kept) {
            Some(former) => self.bytes -= former.len(),
            None => self.order.push_back(seq),
        }
        while self.order.len() > MAX_FRAGMENTS || self.bytes > MAX_FRAGMENT_BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(former) = self.kept.remove(&oldest) {
                self.bytes -= former.len();
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/html.rs"]
mod tests;
