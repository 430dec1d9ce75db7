//! A reply as it grows: offsets, limits, and what models do wrong with their own name.

use convene_model::{
    agents::{InvokeEvent, failure},
    limits::MAX_REPLY_BYTES,
};

use crate::failure::Failure;

/// Bytes of one delta's text at most, so that its frame stays small however it is escaped.
pub(crate) const MAX_DELTA_BYTES: usize = 4 * 1024;

/// The text so far.
pub(crate) struct Reply {
    /// The agent's name with a colon.
    name: String,
    /// Bytes that went out.
    sent: usize,
    /// Whether anything but white space went out.
    said_something: bool,
    /// Whether a paragraph is to end before the next text.
    pause: bool,
    /// The agent's name with a colon, and the first bytes of the reply as long as they may be it.
    lead: Option<(String, String)>,
}

impl Reply {
    /// The reply of the agent called `name`, of which the first `offset` bytes were said by an
    /// attempt before this one. Since the prompt shows others as `Name: text`, models like to begin
    /// with their own name; that is taken away.
    pub(crate) fn resumed(name: &str, offset: u64) -> Self {
        let sent = usize::try_from(offset).unwrap_or(MAX_REPLY_BYTES);
        Self { name: format!("{name}:"), sent, said_something: sent > 0, pause: false, lead: None }
    }

    /// The model begins to write again: what it says now is a paragraph of its own.
    pub(crate) fn begin_round(&mut self) {
        self.pause = self.sent > 0;
        self.lead = Some((self.name.clone(), String::new()));
    }

    /// Adds text and returns what is to be sent of it.
    pub(crate) fn push(&mut self, text: &str) -> Result<Vec<InvokeEvent>, Failure> {
        let Some((name, mut held)) = self.lead.take() else {
            return self.send(text);
        };
        held.push_str(text);
        let start = held.trim_start();
        if let Some(rest) = start.strip_prefix(&name) {
            let rest = rest.trim_start();
            if rest.is_empty() {
                self.lead = Some((name, held));
                return Ok(Vec::new());
            }
            return self.send(rest);
        }
        if name.starts_with(start) && held.len() <= name.len() + MAX_DELTA_BYTES {
            self.lead = Some((name, held));
            return Ok(Vec::new());
        }
        self.send(&held)
    }

    /// Sends what was held back, when the model has written all that it wants to write now.
    pub(crate) fn end_round(&mut self) -> Result<Vec<InvokeEvent>, Failure> {
        match self.lead.take() {
            Some((name, held)) if !held.trim_start().starts_with(&name) => self.send(&held),
            Some(_) | None => Ok(Vec::new()),
        }
    }

    /// Whether anything was said, by this attempt or one before it.
    pub(crate) fn said_something(&self) -> bool {
        self.said_something
    }

    fn send(&mut self, text: &str) -> Result<Vec<InvokeEvent>, Failure> {
        let paragraph = format!("\n\n{}", text.trim_start());
        let mut text = if self.pause { paragraph.as_str() } else { text };
        if self.pause && text.trim().is_empty() {
            return Ok(Vec::new());
        }
        self.pause = false;
        if self.sent + text.len() > MAX_REPLY_BYTES {
            return Err(Failure::new(
                failure::REPLY_TOO_LONG,
                format!("The model wrote more than {} KiB.", MAX_REPLY_BYTES / 1024),
            ));
        }
        self.said_something |= !text.trim().is_empty();
        let mut events = Vec::new();
        while !text.is_empty() {
            let (part, rest) = text.split_at(text.floor_char_boundary(MAX_DELTA_BYTES));
            events.push(InvokeEvent::Delta { offset: self.sent as u64, text: part.to_owned() });
            self.sent += part.len();
            text = rest;
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes each part and returns what was sent as (offset, text).
    fn sent(parts: &[&str]) -> Vec<(u64, String)> {
        let mut reply = reply();
        let mut events = Vec::new();
        for part in parts {
            events.extend(reply.push(part).unwrap());
        }
        events.extend(reply.end_round().unwrap());
        shown(events)
    }

    fn reply() -> Reply {
        let mut reply = Reply::resumed("Aria", 0);
        reply.begin_round();
        reply
    }

    fn shown(events: Vec<InvokeEvent>) -> Vec<(u64, String)> {
        events
            .into_iter()
            .map(|event| match event {
                InvokeEvent::Delta { offset, text } => (offset, text),
                other @ (InvokeEvent::ToolStarted { .. }
                | InvokeEvent::ToolFinished { .. }
                | InvokeEvent::Finished(_)) => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn offsets_count_bytes_of_utf8() {
        assert_eq!(
            sent(&["Grüße", " an", " 🙂 alle"]),
            [(0, "Grüße".into()), (7, " an".into()), (10, " 🙂 alle".into())]
        );
    }

    #[test]
    fn a_long_text_is_cut_between_code_points() {
        let long = "x".repeat(MAX_DELTA_BYTES - 1) + "é" + "y";
        let sent = sent(&[&long]);
        assert_eq!(sent[0], (0, "x".repeat(MAX_DELTA_BYTES - 1)));
        assert_eq!(sent[1], (MAX_DELTA_BYTES as u64 - 1, "éy".into()));
    }

    #[test]
    fn the_agents_own_name_in_front_is_taken_away() {
        assert_eq!(sent(&["Ar", "ia", ": ", "Hello"]), [(0, "Hello".into())]);
        assert_eq!(sent(&["Aria: Hello"]), [(0, "Hello".into())]);
        assert_eq!(sent(&["Ar", "tichoke: x"]), [(0, "Artichoke: x".into())]);
        assert_eq!(sent(&["Ar"]), [(0, "Ar".into())]);
    }

    #[test]
    fn a_reply_may_be_as_long_as_the_limit_and_no_longer() {
        let mut whole = reply();
        assert!(whole.push(&"x".repeat(MAX_REPLY_BYTES)).is_ok());
        assert_eq!(whole.push("x").unwrap_err().code, failure::REPLY_TOO_LONG);
        assert!(reply().push(&"x".repeat(MAX_REPLY_BYTES + 1)).is_err());
        let mut resumed = Reply::resumed("Aria", MAX_REPLY_BYTES as u64 - 3);
        resumed.begin_round();
        assert_eq!(resumed.push("x").unwrap().len(), 1);
        assert_eq!(resumed.push("x").unwrap_err().code, failure::REPLY_TOO_LONG);
    }

    #[test]
    fn white_space_alone_says_nothing() {
        for text in [" \n", "Aria: "] {
            let mut reply = reply();
            let _ = reply.push(text).unwrap();
            let _ = reply.end_round().unwrap();
            assert!(!reply.said_something());
        }
    }

    #[test]
    fn what_comes_after_calls_of_tools_is_a_paragraph_of_its_own() {
        let mut reply = Reply::resumed("Aria", 10);
        assert!(reply.said_something());
        reply.begin_round();
        let _ = reply.push(" ").unwrap();
        assert_eq!(shown(reply.end_round().unwrap()), []);
        reply.begin_round();
        let mut events = reply.push("\nAria: It is").unwrap();
        events.extend(reply.push(" noon.").unwrap());
        assert_eq!(shown(events), [(10, "\n\nIt is".into()), (17, " noon.".into())]);
    }
}
