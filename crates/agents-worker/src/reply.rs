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
    /// Bytes that went out.
    sent: usize,
    /// Whether anything but white space went out.
    said_something: bool,
    /// The agent's name with a colon, and the first bytes of the reply as long as they may be it.
    lead: Option<(String, String)>,
}

impl Reply {
    /// The reply of the agent called `name`. Since the prompt shows others as `Name: text`, models
    /// like to begin with their own name; that is taken away.
    pub(crate) fn new(name: &str) -> Self {
        Self { sent: 0, said_something: false, lead: Some((format!("{name}:"), String::new())) }
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

    /// Sends what was held back, at the end. `false` when the whole reply is blank.
    pub(crate) fn finish(&mut self) -> Result<(Vec<InvokeEvent>, bool), Failure> {
        let events = match self.lead.take() {
            Some((name, held)) if !held.trim_start().starts_with(&name) => self.send(&held)?,
            Some(_) | None => Vec::new(),
        };
        Ok((events, self.said_something))
    }

    fn send(&mut self, mut text: &str) -> Result<Vec<InvokeEvent>, Failure> {
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
        let mut reply = Reply::new("Aria");
        let mut events = Vec::new();
        for part in parts {
            events.extend(reply.push(part).unwrap());
        }
        events.extend(reply.finish().unwrap().0);
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
        let mut reply = Reply::new("Aria");
        assert!(reply.push(&"x".repeat(MAX_REPLY_BYTES)).is_ok());
        assert_eq!(reply.push("x").unwrap_err().code, failure::REPLY_TOO_LONG);
        assert!(Reply::new("Aria").push(&"x".repeat(MAX_REPLY_BYTES + 1)).is_err());
    }

    #[test]
    fn white_space_alone_says_nothing() {
        let mut reply = Reply::new("Aria");
        let _ = reply.push(" \n").unwrap();
        assert!(!reply.finish().unwrap().1);
        let mut reply = Reply::new("Aria");
        let _ = reply.push("Aria: ").unwrap();
        assert!(!reply.finish().unwrap().1);
    }
}
