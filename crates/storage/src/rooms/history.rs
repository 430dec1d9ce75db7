//! Pages of a group's history: messages in their current form, and the runs that ended.
//!
//! Walks over the events that history lists, from the end of the page to its beginning or the
//! other way: those in the overlay from memory, those in `rooms.db` a few chunks at a time,
//! passing over chunks that hold nothing to list.

use std::collections::{HashSet, VecDeque};

use convene_model::{
    GroupKey, MessageId,
    event::{Event, EventKind},
    history::{Excerpt, FinishedRun, HistoryQuery, Message},
    limits::EXCERPT_CHARS,
    record::Record,
};
use rusqlite::{Connection, params};

use crate::{
    pending::is_shown,
    rooms::{
        chunks::{self, Chunk, ChunkError},
        reactions,
        reader::Reader,
        view::{View, as_posted},
    },
    store::{error::StoreError, types::PageParts},
};

/// Chunks that one read transaction of a walk fetches at most; the first two fetch one each, the
/// next two two each, and so on.
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
    let mut found = match (query.around, query.before) {
        (Some(around), _) => view.around(around, limit)?,
        (None, None) if query.after.is_some() => view.oldest(after, limit)?,
        (None, before) => {
            let last = before.map_or(upto, |before| before.saturating_sub(1).min(upto));
            view.newest(after, last, limit)?
        }
    };
    if let Some(before) = found.before {
        let begin = found.messages.first().map_or(before.max(after), |(record, _)| record.seq);
        found.runs.retain(|run| run.seq > begin);
    }
    view.with_tools(&mut found.runs)?;
    let messages = view.in_full(found.messages)?;
    Ok(PageParts {
        answered: view.answered(&messages)?,
        messages,
        runs: found.runs,
        more_before: found.before.is_some(),
        more_after: found.more_after,
    })
}

/// What a walk found.
#[derive(Default)]
struct Found {
    /// Messages, oldest first: as they are stored, and as they were posted.
    messages: Vec<(Record, Event)>,
    runs: Vec<FinishedRun>,
    /// The number of the nearest message before them.
    before: Option<u64>,
    /// Whether a message follows them.
    more_after: bool,
}

impl View<'_> {
    /// Half of the page before the event `around`, the rest from there on.
    fn around(&self, around: u64, limit: usize) -> Result<Found, StoreError> {
        let last = around.saturating_sub(1).min(self.upto);
        let mut found = self.back(0, last, limit / 2)?;
        let rest = self.forth(last, limit - limit / 2)?;
        found.messages.extend(rest.messages);
        found.runs.extend(rest.runs);
        found.more_after = rest.more_after;
        Ok(found)
    }

    /// The newest messages after `after` and up to `last`.
    fn newest(&self, after: u64, last: u64, limit: usize) -> Result<Found, StoreError> {
        let mut found = self.back(after, last, limit)?;
        if last < self.upto {
            found.more_after = self.any_message(last + 1, Direction::Forth)?.is_some();
        }
        Ok(found)
    }

    /// The oldest messages after `after`.
    fn oldest(&self, after: u64, limit: usize) -> Result<Found, StoreError> {
        let mut found = self.forth(after, limit)?;
        found.before = self.any_message(after.min(self.upto), Direction::Back)?;
        Ok(found)
    }

    fn back(&self, after: u64, last: u64, limit: usize) -> Result<Found, StoreError> {
        let mut found = Found::default();
        self.walk(last, Direction::Back, |record, event| {
            match run_of(event) {
                Ok(run) => found.runs.push(run),
                Err(event) if found.messages.len() < limit && record.seq > after => {
                    found.messages.push((record.clone(), event));
                }
                Err(_) => {
                    found.before = Some(record.seq);
                    return false;
                }
            }
            true
        })?;
        found.messages.reverse();
        found.runs.reverse();
        Ok(found)
    }

    fn forth(&self, after: u64, limit: usize) -> Result<Found, StoreError> {
        let mut found = Found::default();
        self.walk(after.saturating_add(1), Direction::Forth, |record, event| {
            match run_of(event) {
                Ok(run) => found.runs.push(run),
                Err(event) if found.messages.len() < limit => {
                    found.messages.push((record.clone(), event));
                }
                Err(_) => {
                    found.more_after = true;
                    return false;
                }
            }
            true
        })?;
        Ok(found)
    }

    /// The number of the nearest message from `start` on.
    fn any_message(&self, start: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        let mut found = None;
        self.walk(start, direction, |record, event| {
            let is_message = run_of(event).is_err();
            if is_message {
                found = Some(record.seq);
            }
            !is_message
        })?;
        Ok(found)
    }

    /// Messages as they are now, with their reactions.
    pub(crate) fn in_full(&self, found: Vec<(Record, Event)>) -> Result<Vec<Message>, StoreError> {
        let (Some((first, _)), Some((last, _))) = (found.first(), found.last()) else {
            return Ok(Vec::new());
        };
        let (first, last) = (first.seq, last.seq);
        let mut reactions = reactions::of_messages(self, first, last)?;
        let changed = self.changed(first, last)?;
        let messages = found.into_iter().map(|(record, event)| {
            // Most messages stand as they were posted.
            let unchanged = record.erased.is_none() && !changed.contains(&record.seq);
            let mut message = if unchanged && let EventKind::MessagePosted(posted) = event.kind {
                as_posted(event.seq, event.at, posted)
            } else {
                self.current(&record)?
            };
            if !message.deleted {
                let reactions = reactions.remove(&record.seq).unwrap_or_default();
                message.reactions = reactions::listed(reactions);
            }
            Ok(message)
        });
        messages.collect()
    }

    /// What messages of a page answer and is not in the page itself.
    fn answered(&self, page: &[Message]) -> Result<Vec<Excerpt>, StoreError> {
        let mut known: HashSet<&MessageId> =
            page.iter().map(|message| &message.posted.message_id).collect();
        let mut answered = Vec::new();
        for message in page.iter().filter(|message| !message.deleted) {
            let Some(id) = &message.posted.reply_to else { continue };
            if known.insert(id) {
                answered.extend(self.answered_by(message)?);
            }
        }
        Ok(answered)
    }

    /// What a message answers, if it was not taken back. An answer refers to what was there before
    /// it; what is not there is left out.
    pub(crate) fn answered_by(&self, message: &Message) -> Result<Option<Excerpt>, StoreError> {
        let answered = message.posted.reply_to.as_ref().filter(|_| !message.deleted);
        let Some(id) = answered else { return Ok(None) };
        let Some(seq) = self.reader.find(self.key, id)? else { return Ok(None) };
        let Message { seq, posted, deleted, .. } = self.current(&self.record(seq)?)?;
        let text = posted.text.chars().take(EXCERPT_CHARS).collect();
        let (message_id, author) = (posted.message_id, posted.author);
        Ok(Some(Excerpt { message_id, seq, author, text, deleted }))
    }

    /// Hands out each listed event from `start` on, until `each` says to stop.
    pub(crate) fn walk(
        &self,
        start: u64,
        direction: Direction,
        mut each: impl FnMut(&Record, Event) -> bool,
    ) -> Result<(), StoreError> {
        let first_waiting = self.waiting.first().map_or(u64::MAX, |batch| batch.first_seq);
        let waiting = self.waiting.iter().flat_map(|batch| &batch.records);
        let mut step = |record: &Record| -> Result<bool, StoreError> {
            Ok(each(record, self.decode(record)?))
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

/// The end of a run; what history lists beside those are messages, which come back.
pub(crate) fn run_of(event: Event) -> Result<FinishedRun, Event> {
    let Event { seq, at, kind } = event;
    if let EventKind::RunFinished(finished) = kind {
        Ok(FinishedRun::new(seq, at, finished))
    } else {
        Err(Event { seq, at, kind })
    }
}

/// Which way history is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Back,
    Forth,
}

/// The listed events in `rooms.db`, a few chunks at a time.
struct Stored<'a> {
    view: &'a View<'a>,
    /// The next event that may come.
    next: u64,
    direction: Direction,
    /// How often chunks were fetched.
    fetches: usize,
    /// What was fetched.
    ready: VecDeque<Record>,
    exhausted: bool,
}

impl<'a> Stored<'a> {
    fn new(view: &'a View<'a>, start: u64, direction: Direction) -> Self {
        Self { view, next: start, direction, fetches: 0, ready: VecDeque::new(), exhausted: false }
    }

    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        while self.ready.is_empty() && !self.exhausted {
            self.fetch()?;
        }
        Ok(self.ready.pop_front())
    }

    fn fetch(&mut self) -> Result<(), StoreError> {
        let (next, direction) = (self.next, self.direction);
        let step = (1 << (self.fetches / 2).min(8)).min(CHUNKS_PER_STEP);
        self.fetches += 1;
        let chunks = self.view.reader.checked(self.view.key, |connection, key| {
            let recent = self.view.recent.borrow();
            read_shown(connection, key, next, direction, step, &recent)
        })?;
        if let [chunk] = &chunks[..] {
            self.view.recent.replace(vec![chunk.clone()]);
        }
        self.exhausted = chunks.len() < step;
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
    limit: usize,
    recent: &[Chunk],
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
    let mut rows = statement.query(params![&key.0[..], next, limit as i64])?;
    let mut chunks = Vec::new();
    while let Some(row) = rows.next()? {
        chunks.push(Chunk::read_again(key, row, recent)?);
    }
    Ok(chunks)
}
