//! What a snapshot of a group consists of, read in bounded parts: its events as they are stored, and
//! its messages and ended runs as they are now.

use bytes::Bytes;
use convene_model::{
    GroupKey,
    archive::{Line, MessageLine, RunLine, line::encode_event},
};
use rusqlite::params;

use crate::{
    rooms::{
        history::{Direction, run_of},
        reader::Reader,
        view::View,
    },
    store::{error::StoreError, options::MAX_ROWS_PER_READ, types::ExportPart},
};

/// Events that are read at a time.
const EVENTS_PER_READ: u64 = 128;
/// Messages and runs that are read at a time.
const LISTED_PER_READ: usize = 256;

/// See `GroupStore::export_events`.
pub(crate) fn events(
    reader: &Reader,
    key: &GroupKey,
    after: u64,
    upto: u64,
    max_bytes: usize,
) -> Result<ExportPart, StoreError> {
    let mut part = Part::new(max_bytes);
    let mut next = after + 1;
    while next <= upto {
        let to = upto.min(next + EVENTS_PER_READ - 1);
        for record in reader.events(key, next, to)? {
            if !part.take(record.seq, &encode_event(&record)) {
                return Ok(part.cut());
            }
        }
        next = to + 1;
    }
    Ok(part.whole())
}

/// See `GroupStore::export_messages`.
pub(crate) fn messages(
    reader: &Reader,
    key: &GroupKey,
    after: u64,
    upto: u64,
    max_bytes: usize,
) -> Result<ExportPart, StoreError> {
    let view = View::new(reader, key, upto)?;
    let mut part = Part::new(max_bytes);
    let mut next = after + 1;
    loop {
        let (mut messages, mut runs, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut last = None;
        view.walk(next, Direction::Forth, |record, event| {
            let listed = messages.len() + runs.len();
            if record.seq > upto || listed >= LISTED_PER_READ || bytes > max_bytes {
                return false;
            }
            last = Some(record.seq);
            bytes += record.body.len();
            match run_of(event) {
                Ok(run) => runs.push(run),
                Err(event) => messages.push((record.clone(), event)),
            }
            true
        })?;
        let Some(last) = last else { return Ok(part.whole()) };
        view.with_tools(&mut runs)?;
        let mut lines = Vec::with_capacity(messages.len() + runs.len());
        for message in view.in_full(messages)? {
            let answers = view.answered_by(&message)?;
            lines.push(Line::Message(MessageLine { seq: message.seq, message, answers }));
        }
        lines.extend(runs.into_iter().map(|run| Line::Run(RunLine { seq: run.seq, run })));
        lines.sort_by_key(seq_of);
        for line in &lines {
            if !part.take(seq_of(line), &line.encode()) {
                return Ok(part.cut());
            }
        }
        next = last + 1;
    }
}

/// The bytes of a group's events as they are stored, without what is not projected yet.
pub(crate) fn bytes(reader: &Reader, key: &GroupKey) -> Result<u64, StoreError> {
    let (mut after, mut sum) = (0_i64, 0_u64);
    loop {
        let rows = reader.checked(key, |connection, key| {
            let mut statement = connection.prepare_cached(
                "SELECT first_seq, length(body) FROM chunks
                 WHERE group_key = ?1 AND first_seq > ?2 ORDER BY first_seq LIMIT ?3",
            )?;
            let rows = statement
                .query_map(params![&key.0[..], after, MAX_ROWS_PER_READ as i64], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        })?;
        sum += rows.iter().map(|(_, length)| *length as u64).sum::<u64>();
        match rows.last() {
            Some((last, _)) if rows.len() == MAX_ROWS_PER_READ => after = *last,
            Some(_) | None => return Ok(sum),
        }
    }
}

fn seq_of(line: &Line) -> u64 {
    match line {
        Line::Message(message) => message.seq,
        Line::Run(run) => run.seq,
        Line::State(state) => state.seq,
        Line::Event(record) => record.seq,
        Line::Header(_) | Line::Trailer(_) => 0,
    }
}

/// Lines up to a bound; at least one.
struct Part {
    lines: Vec<u8>,
    last: u64,
    max_bytes: usize,
}

impl Part {
    fn new(max_bytes: usize) -> Self {
        Self { lines: Vec::new(), last: 0, max_bytes }
    }

    /// Adds a line; `false` when it does not fit any more.
    fn take(&mut self, seq: u64, line: &Bytes) -> bool {
        if !self.lines.is_empty() && self.lines.len() + line.len() > self.max_bytes {
            return false;
        }
        convene_threads::worked(line.len());
        self.lines.extend_from_slice(line);
        self.last = seq;
        true
    }

    fn whole(self) -> ExportPart {
        ExportPart { lines: self.lines.into(), next: None }
    }

    fn cut(self) -> ExportPart {
        ExportPart { lines: self.lines.into(), next: Some(self.last) }
    }
}
