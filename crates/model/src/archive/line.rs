//! The lines of a snapshot: one JSON object each, ended by `\n`, in one canonical form.
//!
//! An event's line is the frame that is stored and sent, byte for byte, so that the chain can be
//! verified from the snapshot alone. Lines are checked by their beginning ([`LineKind::of`]) where
//! the content does not matter and parsed where it does.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    ArchiveId, GroupId, HistoryId, OrgId,
    history::{Excerpt, FinishedRun, Message},
    infra::HistoryMode,
    limits::MAX_ARCHIVE_LINE_BYTES,
    record::{Record, RecordError, read_int},
};

use super::{Digest, FORMAT, Frozen, Section, snapshot_id};

const ERASED_START: &[u8] = b"{\"type\":\"erased\",\"digest\":\"";
const ERASED_EVENT: &[u8] = b"\",\"event\":";

/// A line of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// The first line.
    Header(Header),
    /// The controller's state.
    State(StateLine),
    /// A message.
    Message(MessageLine),
    /// A run that ended.
    Run(RunLine),
    /// An event, its text erased or not.
    Event(Record),
    /// The last line.
    Trailer(Trailer),
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format of the lines.
    pub format: u32,
    /// The group.
    pub group_id: GroupId,
    /// Whose it is.
    pub org_id: OrgId,
    /// What it was frozen for.
    pub archive_id: ArchiveId,
    /// The epoch that it was frozen under.
    pub epoch: u64,
    /// The numbering that its events belong to.
    pub history: HistoryId,
    /// Where its history was kept.
    pub history_mode: HistoryMode,
    /// The number of the first event: 1.
    pub first_seq: u64,
    /// The number of the last event.
    pub last_seq: u64,
    /// The chain after that event.
    pub chain: Digest,
}

/// The state of the group's controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateLine {
    /// The last event that the state knows.
    pub seq: u64,
    /// The state in the controller's own bytes; embedded when they are JSON, base64 otherwise.
    pub bytes: Bytes,
}

/// A message in its current form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLine {
    /// The number of the event that posted it.
    pub seq: u64,
    /// The message, its reactions included.
    pub message: Message,
    /// The message that it answers, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Excerpt>,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// The number of the event.
    pub seq: u64,
    /// The run.
    pub run: FinishedRun,
}

/// What a snapshot has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// How many messages.
    pub messages: u64,
    /// How many ended runs.
    pub runs: u64,
    /// How many events.
    pub events: u64,
    /// The chain after the last event.
    pub chain: Digest,
}

/// Why bytes are not a line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin as any line does.
    #[error("it does not begin as a line of a snapshot")]
    Unknown,
    /// It is longer than [`MAX_ARCHIVE_LINE_BYTES`].
    #[error("it has {0} bytes, and a line may have {MAX_ARCHIVE_LINE_BYTES}")]
    TooLong(usize),
    /// It begins as a line and is none.
    #[error("it is not a line of a snapshot: {0}")]
    Malformed(String),
    /// Its event is none.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What a line is, from its beginning alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// The first line.
    Header,
    /// The controller's state, with the number of the last event that it knows.
    State(u64),
    /// A message, with its number.
    Message(u64),
    /// A run that ended, with its number.
    Run(u64),
    /// An event, with its number.
    Event(u64),
    /// An event whose text was erased, with its number.
    Erased(u64),
    /// The last line.
    Trailer,
}

impl Header {
    /// The header of the snapshot of a frozen group.
    #[must_use]
    pub fn of(group_id: GroupId, org_id: OrgId, frozen: &Frozen) -> Self {
        Self {
            format: FORMAT,
            group_id,
            org_id,
            archive_id: frozen.archive_id.clone(),
            epoch: frozen.epoch,
            history: frozen.history.clone(),
            history_mode: frozen.history_mode,
            first_seq: 1,
            last_seq: frozen.last_seq,
            chain: frozen.chain,
        }
    }

    /// The id of the snapshot.
    #[must_use]
    pub fn snapshot_id(&self) -> Digest {
        snapshot_id(&self.group_id, self.epoch, self.last_seq, &self.chain.0)
    }
}

impl LineKind {
    /// What a line is. Nothing beyond its beginning is looked at.
    ///
    /// # Errors
    /// [`LineError::Unknown`] when it begins as no line does, [`LineError::TooLong`].
    pub fn of(line: &[u8]) -> Result<Self, LineError> {
        if line.len() > MAX_ARCHIVE_LINE_BYTES {
            return Err(LineError::TooLong(line.len()));
        }
        let rest = line.strip_prefix(b"{\"type\":\"").ok_or(LineError::Unknown)?;
        let name_end = rest.iter().position(|byte| *byte == b'"').ok_or(LineError::Unknown)?;
        let (name, rest) = rest.split_at(name_end);
        let seq = |rest: &[u8]| {
            let digits = rest.strip_prefix(b"\",\"seq\":").and_then(read_int);
            digits.map(|(seq, _)| seq).ok_or(LineError::Unknown)
        };
        Ok(match name {
            b"header" => Self::Header,
            b"state" => Self::State(seq(rest)?),
            b"message" => Self::Message(seq(rest)?),
            b"run" => Self::Run(seq(rest)?),
            b"event" => Self::Event(seq(rest)?),
            b"erased" => {
                let frame = line.get(ERASED_START.len() + 64..).unwrap_or_default();
                let frame = frame
                    .strip_prefix(ERASED_EVENT)
                    .and_then(|frame| frame.strip_prefix(b"{\"type\":\"event"));
                Self::Erased(seq(frame.ok_or(LineError::Unknown)?)?)
            }
            b"trailer" => Self::Trailer,
            _ => return Err(LineError::Unknown),
        })
    }

    /// The section that the line belongs to.
    #[must_use]
    pub const fn section(self) -> Section {
        match self {
            Self::Header => Section::Header,
            Self::State(_) => Section::State,
            Self::Message(_) | Self::Run(_) => Section::Messages,
            Self::Event(_) | Self::Erased(_) => Section::Events,
            Self::Trailer => Section::Trailer,
        }
    }

    /// Its number; 0 for header and trailer.
    #[must_use]
    pub const fn seq(self) -> u64 {
        match self {
            Self::Header | Self::Trailer => 0,
            Self::State(seq)
            | Self::Message(seq)
            | Self::Run(seq)
            | Self::Event(seq)
            | Self::Erased(seq) => seq,
        }
    }
}

/// The lines that JSON alone makes and reads.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tagged<'a> {
    Header(std::borrow::Cow<'a, Header>),
    Message(std::borrow::Cow<'a, MessageLine>),
    Run(std::borrow::Cow<'a, RunLine>),
    Trailer(std::borrow::Cow<'a, Trailer>),
}

/// A message's line as JSON has it. By the tagged enum it would be read twice.
#[derive(Deserialize)]
struct TaggedMessage {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    seq: u64,
    message: Message,
    #[serde(default)]
    answers: Option<Excerpt>,
}

/// A state's line as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaggedState<'a> {
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    seq: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    state: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Line {
    /// The line's bytes, its `\n` included.
    ///
    /// # Panics
    /// Never: lines have only text keys.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        use std::borrow::Cow;
        match self {
            Self::Header(header) => json(&Tagged::Header(Cow::Borrowed(header))),
            Self::State(state) => state.encode(),
            Self::Message(message) => json(&Tagged::Message(Cow::Borrowed(message))),
            Self::Run(run) => json(&Tagged::Run(Cow::Borrowed(run))),
            Self::Event(record) => encode_event(record),
            Self::Trailer(trailer) => json(&Tagged::Trailer(Cow::Borrowed(trailer))),
        }
    }

    /// Reads a line; its `\n` may be missing. The bytes of events and states are shared.
    ///
    /// # Errors
    /// [`LineError`], which says what is wrong.
    pub fn parse(line: &Bytes) -> Result<Self, LineError> {
        let line =
            line.strip_suffix(b"\n").map_or_else(|| line.clone(), |rest| line.slice_ref(rest));
        match LineKind::of(&line)? {
            LineKind::Message(_) => {
                let TaggedMessage { seq, message, answers, .. } =
                    serde_json::from_slice(&line).map_err(malformed)?;
                Ok(Self::Message(MessageLine { seq, message, answers }))
            }
            LineKind::Header | LineKind::Run(_) | LineKind::Trailer => {
                match serde_json::from_slice(&line).map_err(malformed)? {
                    Tagged::Header(header) => Ok(Self::Header(header.into_owned())),
                    Tagged::Message(message) => Ok(Self::Message(message.into_owned())),
                    Tagged::Run(run) => Ok(Self::Run(run.into_owned())),
                    Tagged::Trailer(trailer) => Ok(Self::Trailer(trailer.into_owned())),
                }
            }
            LineKind::State(_) => StateLine::parse(&line).map(Self::State),
            LineKind::Event(_) | LineKind::Erased(_) => parse_event(&line).map(Self::Event),
        }
    }
}

/// The line of an event, its `\n` included.
#[must_use]
pub fn encode_event(record: &Record) -> Bytes {
    let mut out = BytesMut::with_capacity(record.body.len() + 128);
    match &record.erased {
        None => out.extend_from_slice(&record.body),
        Some(digest) => {
            out.extend_from_slice(ERASED_START);
            out.extend_from_slice(Digest(*digest).to_string().as_bytes());
            out.extend_from_slice(ERASED_EVENT);
            out.extend_from_slice(&record.body);
            out.extend_from_slice(b"}");
        }
    }
    out.extend_from_slice(b"\n");
    out.freeze()
}

/// The record in an event's line without its `\n`; the frame's content is not parsed.
///
/// # Errors
/// [`LineError`] when it is no event's line.
pub fn parse_event(line: &Bytes) -> Result<Record, LineError> {
    if !line.starts_with(ERASED_START) {
        return Ok(Record::from_frame(line.clone(), None)?);
    }
    let rest = line.slice(ERASED_START.len()..);
    let digest = rest.get(..64).and_then(|digits| std::str::from_utf8(digits).ok());
    let digest: Digest = digest
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| LineError::Malformed("the digest of an erased text is missing".into()))?;
    let frame = rest[64..]
        .strip_prefix(ERASED_EVENT)
        .and_then(|frame| frame.strip_suffix(b"}"))
        .ok_or_else(|| LineError::Malformed("an erased event is cut short".into()))?;
    Ok(Record::from_frame(rest.slice_ref(frame), Some(digest.0))?)
}

/// Splits a body of whole lines, each without its `\n`.
///
/// # Errors
/// [`LineError::Malformed`] when the last line does not end.
pub fn split(body: &Bytes) -> Result<impl Iterator<Item = Bytes>, LineError> {
    if !body.is_empty() && !body.ends_with(b"\n") {
        return Err(LineError::Malformed("the last line does not end".into()));
    }
    let body = body.clone();
    let mut at = 0;
    Ok(std::iter::from_fn(move || {
        let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
        let end = at + rest.iter().position(|byte| *byte == b'\n')?;
        let line = body.slice(at..end);
        at = end + 1;
        Some(line)
    }))
}

impl StateLine {
    fn encode(&self) -> Bytes {
        let as_json = serde_json::from_slice::<&RawValue>(&self.bytes)
            .ok()
            .filter(|raw| raw.get().len() == self.bytes.len() && !self.bytes.contains(&b'\n'));
        json(&TaggedState {
            kind: "state".into(),
            seq: self.seq,
            state: as_json,
            base64: as_json.is_none().then(|| STANDARD.encode(&self.bytes)),
        })
    }

    fn parse(line: &Bytes) -> Result<Self, LineError> {
        let tagged: TaggedState<'_> = serde_json::from_slice(line).map_err(malformed)?;
        let bytes = match (tagged.state, tagged.base64) {
            (Some(state), None) => line.slice_ref(state.get().as_bytes()),
            (None, Some(base64)) => STANDARD.decode(base64).map_err(malformed)?.into(),
            (None, None) | (Some(_), Some(_)) => {
                return Err(LineError::Malformed("it has one of state and base64".into()));
            }
        };
        Ok(Self { seq: tagged.seq, bytes })
    }
}

fn json(line: &impl Serialize) -> Bytes {
    let mut out = serde_json::to_vec(line).expect("lines have only text keys");
    out.push(b'\n');
    out.into()
}

fn malformed(error: impl std::fmt::Display) -> LineError {
    LineError::Malformed(error.to_string())
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
