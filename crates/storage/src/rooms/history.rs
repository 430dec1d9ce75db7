//! Pages of a group's history: messages in their current form, and the runs that ended.
//!
//! Walks over the events that history lists, from the end of the page to its beginning or the
//! other way: those in the overlay from memory, those in `rooms.db` a few chunks at a time,
//! passing over chunks that hold nothing to list.

use std::collections::VecDeque;

use convene_model::{
    GroupKey,
    event::EventKind,
    history::{FinishedRun, HistoryQuery},
    record::Record,
};
use rusqlite::{Connection, params};

use crate::{
    pending::is_shown,
    rooms::{
        chunks::{self, Chunk, ChunkError},
        reactions,
        reader::Reader,
        view::View,
    },
    store::{error::StoreError, types::PageParts},
};

/// Chunks that one read transaction of a walk fetches.
const CHUNKS_PER_STEP: usize = 8;

/// See `GroupStore::history`.
pub(crate) fn page(
    reader: &Reader,
    key: &GroupKey,
    query: HistoryQuery,
    upto: u64,
) -> Result<PageParts, StoreError> {
    let limit = query.page_size().map_err(StoreError::PageSize)?;
    let view = View::new(reader, key, upto)?;
    let after = query.after.unwrap_or(0);
    let last = query.before.map_or(upto, |before| before.saturating_sub(1).min(upto));
    let (messages, mut runs, before) = if query.before.is_none() && query.after.is_some() {
        view.oldest(after, limit)?
    } else {
        view.newest(after, last, limit)?
    };
    if let Some(before) = before {
        let begin = messages.first().map_or(before.max(after), |(seq, _)| *seq);
        runs.retain(|run| run.seq > begin);
    }
    let mut reactions = match (messages.first(), messages.last()) {
        (Some((first, _)), Some((last, _))) => reactions::of_messages(&view, *first, *last)?,
        _ => Default::default(),
    };
    let messages = messages.into_iter().map(|(seq, record)| {
        let mut message = view.current(&record)?;
        if !message.deleted {
            message.reactions = reactions::listed(reactions.remove(&seq).unwrap_or_default());
        }
        Ok(message)
    });
    Ok(PageParts {
        messages: messages.collect::<Result<_, StoreError>>()?,
        runs,
        more_before: before.is_some(),
    })
}

/// Messages by number, runs, and the number of the nearest message before them.
type Found = (Vec<(u64, Record)>, Vec<FinishedRun>, Option<u64>);

impl View<'_> {
    /// The newest messages after `after` and up to `last`.
    fn newest(&self, after: u64, last: u64, limit: usize) -> Result<Found, StoreError> {
        let (mut messages, mut runs, mut before) = (Vec::new(), Vec::new(), None);
        self.walk(last, Direction::Back, |record, run| {
            match run {
                Some(run) => runs.push(run),
                None if messages.len() < limit && record.seq > after => {
                    messages.push((record.seq, record));
                }
                None => {
                    before = Some(record.seq);
                    return false;
                }
            }
            true
        })?;
        messages.reverse();
        runs.reverse();
        Ok((messages, runs, before))
    }

    /// The oldest messages after `after`.
    fn oldest(&self, after: u64, limit: usize) -> Result<Found, StoreError> {
        let (mut messages, mut runs, mut before) = (Vec::new(), Vec::new(), None);
        self.walk(after + 1, Direction::Forth, |record, run| {
            match run {
                Some(run) => runs.push(run),
                None if messages.len() < limit => messages.push((record.seq, record)),
                None => return false,
            }
            true
        })?;
        self.walk(after.min(self.upto), Direction::Back, |record, run| {
            if run.is_none() {
                before = Some(record.seq);
            }
            run.is_some()
        })?;
        Ok((messages, runs, before))
    }

    /// Hands out each listed event from `start` on, until `each` says to stop.
    fn walk(
        &self,
        start: u64,
        direction: Direction,
        mut each: impl FnMut(Record, Option<FinishedRun>) -> bool,
    ) -> Result<(), StoreError> {
        let first_waiting = self.waiting.first().map_or(u64::MAX, |batch| batch.first_seq);
        let waiting = self.waiting.iter().flat_map(|batch| &batch.records);
        let mut step = |record: &Record| -> Result<bool, StoreError> {
            let event = self.decode(record)?;
            Ok(match event.kind {
                EventKind::RunFinished(finished) => {
                    let run = FinishedRun { seq: event.seq, at: event.at, finished };
                    each(record.clone(), Some(run))
                }
                EventKind::MessagePosted(_) => each(record.clone(), None),
                EventKind::GroupActivated(_)
                | EventKind::GroupConfigured(_)
                | EventKind::EpochRaised { .. }
                | EventKind::AccessRevoked { .. }
                | EventKind::MessageEdited(_)
                | EventKind::MessageDeleted(_)
                | EventKind::MessagePinned(_)
                | EventKind::MessageUnpinned(_)
                | EventKind::ReactionAdded(_)
                | EventKind::ReactionRemoved(_)
                | EventKind::TriggerDecided(_)
                | EventKind::RunStarted(_)
                | EventKind::RunStreaming { .. }
                | EventKind::ApprovalRequested(_)
                | EventKind::ApprovalResolved(_)
                | EventKind::ApprovalExpired(_) => true,
            })
        };
        match direction {
            Direction::Back => {
                for record in waiting.rev().filter(|record| record.seq <= start && is_shown(record))
                {
                    if !step(record)? {
                        return Ok(());
                    }
                }
                let mut stored =
                    Stored::new(self, start.min(first_waiting.saturating_sub(1)), direction);
                while let Some(record) = stored.next()? {
                    if !step(&record)? {
                        return Ok(());
                    }
                }
            }
            Direction::Forth => {
                let mut stored = Stored::new(self, start, direction);
                while let Some(record) = stored.next()? {
                    if record.seq >= first_waiting || record.seq > self.upto {
                        break;
                    }
                    if !step(&record)? {
                        return Ok(());
                    }
                }
                let inside = |record: &&Record| (start..=self.upto).contains(&record.seq);
                for record in waiting.filter(inside).filter(|record| is_shown(record)) {
                    if !step(record)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Back,
    Forth,
}

/// The listed events in `rooms.db`, a few chunks at a time.
struct Stored<'a> {
    view: &'a View<'a>,
    /// The next event that may come.
    next: u64,
    direction: Direction,
    /// What was fetched.
    ready: VecDeque<Record>,
    exhausted: bool,
}

impl<'a> Stored<'a> {
    fn new(view: &'a View<'a>, start: u64, direction: Direction) -> Self {
        Self { view, next: start, direction, ready: VecDeque::new(), exhausted: false }
    }

    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        while self.ready.is_empty() && !self.exhausted {
            self.fetch()?;
        }
        Ok(self.ready.pop_front())
    }

    fn fetch(&mut self) -> Result<(), StoreError> {
        let (next, direction) = (self.next, self.direction);
        let chunks = self.view.reader.checked(self.view.key, |connection, key| {
            read_shown(connection, key, next, direction)
        })?;
        self.exhausted = chunks.len() < CHUNKS_PER_STEP;
        for chunk in chunks {
            let (first, last) = (chunk.first_seq, chunk.last_seq());
            let shown = chunk.records.into_iter().filter(is_shown);
            match direction {
                Direction::Back => {
                    let shown: Vec<_> = shown.filter(|record| record.seq <= next).collect();
                    self.ready.extend(shown.into_iter().rev());
                    self.exhausted |= first <= 1;
                    self.next = first.saturating_sub(1);
                }
                Direction::Forth => {
                    self.ready.extend(shown.filter(|record| record.seq >= next));
                    self.next = last + 1;
                }
            }
        }
        Ok(())
    }
}

fn read_shown(
    connection: &Connection,
    key: &GroupKey,
    next: u64,
    direction: Direction,
) -> Result<Vec<Chunk>, ChunkError> {
    let columns = chunks::COLUMNS;
    let sql = match direction {
        Direction::Back => format!(
            "SELECT {columns} FROM chunks WHERE group_key = ?1 AND first_seq <= ?2 AND shown > 0
             ORDER BY first_seq DESC LIMIT ?3"
        ),
        Direction::Forth => format!(
            "SELECT {columns} FROM chunks WHERE group_key = ?1 AND first_seq + n > ?2 AND shown > 0
             AND first_seq >= coalesce((SELECT max(first_seq) FROM chunks
                WHERE group_key = ?1 AND first_seq <= ?2), 0)
             ORDER BY first_seq LIMIT ?3"
        ),
    };
    let next = i64::try_from(next).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![&key.0[..], next, CHUNKS_PER_STEP as i64])?;
    let mut chunks = Vec::new();
    while let Some(row) = rows.next()? {
        chunks.push(Chunk::read(key, row)?);
    }
    Ok(chunks)
}
