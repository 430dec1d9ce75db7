//! An event as it is stored and sent: encoded once, chained by digest.
//!
//! A record's body is the very frame that goes to clients. The chain runs over the body's head and
//! over a digest of its text, so that a text can be erased without breaking the chain.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    Timestamp,
    event::{Event, EventKind},
};

/// A digest in the chain of a group's records.
pub type Chain = [u8; 32];

/// The chain before the first record.
pub const CHAIN_START: Chain = [0; 32];

const FRAME_START: &[u8] = b"{\"type\":\"event\",\"seq\":";
/// The kind whose frame has something for the Agents Worker alone.
const HAND_OVER: &[u8] = b"tool.requested\"";
const TEXT_MEMBER: &[u8] = b",\"text\":\"";
/// What stands in a frame from its text on when that was erased.
const ERASED_TAIL: &[u8] = b",\"text\":\"\"}";
const MESSAGE_POSTED: &[u8] = b"message.posted\"";
/// The kinds whose text can be erased, with the quotation mark that ends them.
const TEXT_KINDS: [&[u8]; 3] = [b"message.posted\"", b"message.edited\"", b"summary.recorded\""];

/// An encoded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The event's number.
    pub seq: u64,
    /// The frame: `{"type":"event","seq":…,"at":…,"kind":…,…}`, UTF-8 JSON. When its text is
    /// erased, the frame with an empty text.
    pub body: Bytes,
    /// Where the member `text` begins in `body` (at its comma); the body's length if it has none.
    pub text_at: u32,
    /// The digest of the text that was erased, if it was.
    pub erased: Option<Chain>,
}

/// Why stored bytes are not the records that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within a record, or a length in them cannot be.
    #[error("stored records are cut short or malformed at byte {0}")]
    Malformed(usize),
    /// A body is not an event.
    #[error("stored record {seq} is not an event: {problem}")]
    NotAnEvent {
        /// The record's number.
        seq: u64,
        /// What the parser said.
        problem: String,
    },
}

impl Record {
    /// Encodes an event; the only place where an event becomes bytes.
    ///
    /// # Panics
    /// Never: events have no map with keys other than texts, which is all that JSON refuses.
    #[must_use]
    pub fn encode(event: &Event) -> Self {
        let mut out = Vec::with_capacity(384);
        out.extend_from_slice(FRAME_START);
        write_int(&mut out, event.seq);
        out.extend_from_slice(b",\"at\":");
        write_int(&mut out, event.at.millis());
        let brace = out.len();
        serde_json::to_writer(&mut out, &event.kind).expect("events have only text keys");
        out[brace] = b',';
        let text_at = match event.kind {
            EventKind::MessagePosted(_)
            | EventKind::MessageEdited(_)
            | EventKind::SummaryRecorded(_) => find(&out, TEXT_MEMBER).unwrap_or(out.len()),
            EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessageDeleted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::TriggerDecided(_)
            | EventKind::RunStarted(_)
            | EventKind::RunStreaming { .. }
            | EventKind::RunFinished(_)
            | EventKind::ToolsRequested(_)
            | EventKind::ToolStarted(_)
            | EventKind::ToolFinished(_)
            | EventKind::ApprovalRequested(_)
            | EventKind::ApprovalVoted(_)
            | EventKind::ApprovalResolved(_)
            | EventKind::ApprovalExpired(_)
            | EventKind::HistoryExported { .. } => out.len(),
        };
        Self { seq: event.seq, text_at: text_at as u32, body: out.into(), erased: None }
    }

    /// The record of a frame that [`Record::encode`] made, whose text was erased if `erased` has
    /// its digest. Only its beginning and its end are looked at.
    ///
    /// # Errors
    /// [`RecordError::NotAnEvent`] when the frame does not begin and end as an event's.
    pub fn from_frame(body: Bytes, erased: Option<Chain>) -> Result<Self, RecordError> {
        let not_an_event =
            |seq, problem: &str| RecordError::NotAnEvent { seq, problem: problem.to_owned() };
        let rest = body
            .strip_prefix(FRAME_START)
            .ok_or_else(|| not_an_event(0, "it does not begin as an event's frame"))?;
        let (seq, rest) = read_int(rest).ok_or_else(|| not_an_event(0, "its number is missing"))?;
        let kind = rest
            .strip_prefix(b",\"at\":")
            .and_then(read_int)
            .and_then(|(_, rest)| rest.strip_prefix(b",\"kind\":\""))
            .ok_or_else(|| not_an_event(seq, "its time or its kind is missing"))?;
        let has_text = TEXT_KINDS.iter().any(|text_kind| kind.starts_with(text_kind));
        let text_at = if has_text { find(&body, TEXT_MEMBER) } else { None };
        let text_at = text_at.unwrap_or(body.len());
        // An erased text's place is outside the chain, so nothing else may stand there.
        if !body.ends_with(b"}") || (erased.is_some() && body[text_at..] != *ERASED_TAIL) {
            return Err(not_an_event(seq, "its end is missing or is another"));
        }
        Ok(Self { seq, text_at: text_at as u32, body, erased })
    }

    /// The frame as clients get it: the stored one, but for what only the Agents Worker reads.
    #[must_use]
    pub fn for_clients(&self) -> Bytes {
        if !kind_of(&self.body).is_some_and(|kind| kind.starts_with(HAND_OVER)) {
            return self.body.clone();
        }
        match self.decode() {
            Ok(Event { seq, at, kind: EventKind::ToolsRequested(mut requested) }) => {
                requested.continuation.clear();
                Self::encode(&Event { seq, at, kind: EventKind::ToolsRequested(requested) }).body
            }
            _ => self.body.clone(),
        }
    }

    /// The event in this record.
    ///
    /// # Errors
    /// [`RecordError::NotAnEvent`] when the body is something else.
    pub fn decode(&self) -> Result<Event, RecordError> {
        let not_an_event = |error: serde_json::Error| RecordError::NotAnEvent {
            seq: self.seq,
            problem: error.to_string(),
        };
        // Read as one of many kinds a frame is gone through three times. Most events are messages.
        if let Some((seq, at, kind)) = head_of(&self.body)
            && kind.starts_with(MESSAGE_POSTED)
        {
            let posted = serde_json::from_slice(&self.body).map_err(not_an_event)?;
            let at = Timestamp::from_millis(at);
            return Ok(Event { seq, at, kind: EventKind::MessagePosted(posted) });
        }
        serde_json::from_slice(&self.body).map_err(not_an_event)
    }

    /// The chain after this record, given the chain before it.
    #[must_use]
    pub fn chain(&self, before: &Chain) -> Chain {
        let text_at = (self.text_at as usize).min(self.body.len());
        let mut hash = blake3::Hasher::new();
        hash.update(before);
        hash.update(&self.body[..text_at]);
        match &self.erased {
            Some(digest) => hash.update(digest),
            None => hash.update(blake3::hash(&self.body[text_at..]).as_bytes()),
        };
        *hash.finalize().as_bytes()
    }

    /// The same record without its text; the chain stays as it is.
    #[must_use]
    pub fn erase(&self) -> Self {
        let text_at = self.text_at as usize;
        if self.erased.is_some() || text_at >= self.body.len() {
            return self.clone();
        }
        let mut body = BytesMut::with_capacity(text_at + 12);
        body.put_slice(&self.body[..text_at]);
        body.put_slice(ERASED_TAIL);
        Self {
            seq: self.seq,
            text_at: self.text_at,
            erased: Some(*blake3::hash(&self.body[text_at..]).as_bytes()),
            body: body.freeze(),
        }
    }

    /// Appends the record to a chunk: length, text position, erased flag, digest if erased, body.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.body.len() as u32);
        out.put_u32_le(self.text_at);
        match &self.erased {
            None => out.put_u8(0),
            Some(digest) => {
                out.put_u8(1);
                out.put_slice(digest);
            }
        }
        out.put_slice(&self.body);
    }
}

/// Reads a chunk that [`Record::write_to`] filled; `first_seq` is the number of its first record.
///
/// # Errors
/// [`RecordError::Malformed`] when the bytes are not whole records.
pub fn read_chunk(chunk: &Bytes, first_seq: u64) -> Result<Vec<Record>, RecordError> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < chunk.len() {
        let body_len = read_u32(chunk, at)? as usize;
        let text_at = read_u32(chunk, at + 4)?;
        let flag = *chunk.get(at + 8).ok_or(RecordError::Malformed(at))?;
        let mut body_at = at + 9;
        let erased = match flag {
            0 => None,
            1 => {
                let bytes = chunk.get(body_at..body_at + 32).ok_or(RecordError::Malformed(at))?;
                body_at += 32;
                let mut digest = [0; 32];
                digest.copy_from_slice(bytes);
                Some(digest)
            }
            _ => return Err(RecordError::Malformed(at)),
        };
        let end = body_at.checked_add(body_len).ok_or(RecordError::Malformed(at))?;
        if end > chunk.len() || text_at as usize > body_len {
            return Err(RecordError::Malformed(at));
        }
        records.push(Record {
            seq: first_seq + records.len() as u64,
            body: chunk.slice(body_at..end),
            text_at,
            erased,
        });
        at = end;
    }
    Ok(records)
}

/// A frame from its kind on.
fn kind_of(frame: &[u8]) -> Option<&[u8]> {
    head_of(frame).map(|(_, _, kind)| kind)
}

/// A frame's number and time, and the frame from its kind on.
fn head_of(frame: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (seq, rest) = read_int(frame.strip_prefix(FRAME_START)?)?;
    let (at, rest) = read_int(rest.strip_prefix(b",\"at\":")?)?;
    Some((seq, at, rest.strip_prefix(b",\"kind\":\"")?))
}

fn read_u32(chunk: &[u8], at: usize) -> Result<u32, RecordError> {
    let bytes = chunk.get(at..at + 4).ok_or(RecordError::Malformed(at))?;
    let mut four = [0; 4];
    four.copy_from_slice(bytes);
    Ok(u32::from_le_bytes(four))
}

fn write_int(out: &mut Vec<u8>, value: u64) {
    serde_json::to_writer(out, &value).expect("a number is JSON");
}

/// The number that `bytes` begin with, in the one way of writing it, and what follows it.
pub(crate) fn read_int(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MessageId, Timestamp, UserId,
        event::{Author, GroupConfig, Posted, RevisionPolicy},
    };

    fn posted(seq: u64, text: &str) -> Event {
        let message_id = MessageId::new(format!("m{seq}")).unwrap();
        Event {
            seq,
            at: Timestamp::from_millis(1_732_100_000_000),
            kind: EventKind::MessagePosted(Posted {
                root: message_id.clone(),
                message_id,
                author: Author::User(UserId::new("u1").unwrap()),
                hop: 0,
                nth: 1,
                reply_to: None,
                run_id: None,
                mentions: vec![],
                text: text.into(),
            }),
        }
    }

    #[test]
    fn a_record_is_the_frame_that_clients_get() {
        let record = Record::encode(&posted(7, "hi \"there\""));
        assert_eq!(
            std::str::from_utf8(&record.body).unwrap(),
            r#"{"type":"event","seq":7,"at":1732100000000,"kind":"message.posted","message_id":"m7","author":{"kind":"user","id":"u1"},"root":"m7","hop":0,"nth":1,"text":"hi \"there\""}"#
        );
        assert_eq!(record.decode().unwrap(), posted(7, "hi \"there\""));
    }

    #[test]
    fn a_message_is_read_as_any_event_is() {
        let with_all = Event {
            kind: EventKind::MessagePosted(Posted {
                author: Author::Agent(crate::AgentId::new("a1").unwrap()),
                hop: 2,
                reply_to: Some(MessageId::new("m1").unwrap()),
                run_id: Some(crate::RunId::new("r1").unwrap()),
                mentions: vec!["u2".parse().unwrap()],
                ..match posted(9, "a \\ line\n\u{1f44d}").kind {
                    EventKind::MessagePosted(posted) => posted,
                    other => panic!("{other:?}"),
                }
            }),
            ..posted(9, "")
        };
        for event in [posted(1, "hi"), with_all] {
            let record = Record::encode(&event);
            for record in [record.erase(), record] {
                let any: Event = serde_json::from_slice(&record.body).unwrap();
                assert_eq!(record.decode().unwrap(), any);
            }
        }
        let cut = Record::encode(&posted(1, "hi")).body;
        let cut = Bytes::copy_from_slice(&cut[..cut.len() - 3]);
        let cut = Record { seq: 1, text_at: 0, body: cut, erased: None };
        assert!(matches!(cut.decode(), Err(RecordError::NotAnEvent { seq: 1, .. })));
    }

    #[test]
    fn a_frame_alone_gives_back_its_record() {
        let edited = Event {
            kind: EventKind::MessageEdited(crate::event::Edited {
                message_id: MessageId::new("m1").unwrap(),
                message_seq: 1,
                author: Author::User(UserId::new("u1").unwrap()),
                text: "other".into(),
            }),
            ..posted(2, "")
        };
        let raised = Event { kind: EventKind::EpochRaised { epoch: 3 }, ..posted(3, "") };
        for event in [posted(1, "hi"), edited, raised] {
            let record = Record::encode(&event);
            assert_eq!(Record::from_frame(record.body.clone(), None).unwrap(), record);
            let erased = record.erase();
            let back = Record::from_frame(erased.body.clone(), erased.erased).unwrap();
            assert_eq!(back, erased);
        }
        for no_frame in ["", "{}", r#"{"type":"event","seq":01,"at":1,"kind":"x"}"#] {
            assert!(Record::from_frame(no_frame.into(), None).is_err(), "{no_frame}");
        }
    }

    #[test]
    fn a_configuration_comes_back_although_it_refuses_unknown_members() {
        let config = GroupConfig {
            version: 3,
            agents: Vec::new(),
            paused: true,
            revisions: RevisionPolicy::Discard,
            max_rounds: Some(3),
            cooldown_secs: Some(20),
        };
        let event = Event { seq: 2, kind: EventKind::GroupConfigured(config), ..posted(2, "") };
        assert_eq!(Record::encode(&event).decode().unwrap(), event);
        let alone = serde_json::to_vec(&event).unwrap();
        assert_eq!(serde_json::from_slice::<Event>(&alone).unwrap(), event);
    }

    #[test]
    fn clients_get_a_hand_over_without_what_is_for_the_worker_alone() {
        let requested = crate::tools::ToolsRequested {
            run_id: crate::RunId::new("r1-0").unwrap(),
            attempt: 1,
            calls: vec![],
            usage: None,
            continuation: "for the worker".into(),
            said: "for everybody".into(),
        };
        let kind = EventKind::ToolsRequested(requested);
        let record = Record::encode(&Event { kind, ..posted(7, "") });
        let frame = record.for_clients();
        let text = String::from_utf8_lossy(&frame);
        assert!(!text.contains("for the worker") && text.contains("for everybody"), "{text}");
        assert!(String::from_utf8_lossy(&record.body).contains("for the worker"));
        let other = Record::encode(&posted(8, r#""kind":"tool.requested""#));
        assert_eq!(other.for_clients(), other.body);
    }

    #[test]
    fn a_text_that_looks_like_a_member_is_still_found_as_the_text() {
        let record = Record::encode(&posted(1, r#"x,"text":"y"#));
        let tail = &record.body[record.text_at as usize..];
        assert_eq!(tail, br#","text":"x,\"text\":\"y"}"#);
    }

    #[test]
    fn erasing_a_text_removes_it_and_keeps_the_chain() {
        let record = Record::encode(&posted(1, "secret plan"));
        let chain = record.chain(&CHAIN_START);
        let erased = record.erase();
        assert_eq!(erased.chain(&CHAIN_START), chain);
        assert!(!String::from_utf8_lossy(&erased.body).contains("secret"));
        assert_eq!(erased.decode().unwrap(), posted(1, ""));
        assert_eq!(erased.erase(), erased);
    }

    #[test]
    fn a_changed_byte_anywhere_changes_the_chain() {
        let record = Record::encode(&posted(1, "hello"));
        let chain = record.chain(&CHAIN_START);
        for i in 0..record.body.len() {
            let mut body = record.body.to_vec();
            body[i] ^= 1;
            let other = Record { body: body.into(), ..record.clone() };
            assert_ne!(other.chain(&CHAIN_START), chain, "byte {i}");
        }
    }

    #[test]
    fn a_chunk_reads_back_and_a_cut_one_is_refused() {
        let records: Vec<_> = [posted(4, "a"), posted(5, "b")].iter().map(Record::encode).collect();
        let records = [records[0].clone(), records[1].erase()];
        let mut chunk = Vec::new();
        for record in &records {
            record.write_to(&mut chunk);
        }
        assert_eq!(read_chunk(&chunk.clone().into(), 4).unwrap(), records);
        let first = 9 + records[0].body.len();
        for end in (1..chunk.len()).filter(|end| *end != first) {
            let cut = Bytes::copy_from_slice(&chunk[..end]);
            assert!(matches!(read_chunk(&cut, 4), Err(RecordError::Malformed(_))), "cut at {end}");
        }
    }
}
