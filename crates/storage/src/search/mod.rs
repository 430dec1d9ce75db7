//! Full-text search in a group.
//!
//! Owns the words of texts, the index and its filling, and the search itself. What the index does
//! not have yet is read through; every hit is checked against the message as it is now.

pub(crate) mod index;
pub(crate) mod indexer;
pub(crate) mod query;
mod snippet;
mod words;

use std::collections::BTreeSet;

use convene_model::{
    GroupKey,
    event::{Author, EventKind},
    history::{Hit, Message, SearchPage, SearchRequest},
    limits::{DEFAULT_HITS, MAX_HITS},
    record::Record,
};

use crate::{
    rooms::{history::Direction, reactions, reader::Reader, view::View},
    search::{index::IndexedGroup, query::Query, snippet::snippet},
    store::error::StoreError,
};

/// Candidates that the index is asked for at a time.
const CANDIDATES: usize = MAX_HITS + 1;

/// See `GroupStore::search`.
pub(crate) fn search(
    reader: &Reader,
    key: &GroupKey,
    request: &SearchRequest,
    upto: u64,
) -> Result<SearchPage, StoreError> {
    let limit = match request.limit {
        None => DEFAULT_HITS,
        Some(limit) if (1..=MAX_HITS).contains(&limit) => limit,
        Some(limit) => return Err(StoreError::PageSize(limit)),
    };
    let query = Query::parse(&request.query)?;
    let view = View::new(reader, key, upto)?;
    let end = request.before.map_or(upto, |before| before.saturating_sub(1).min(upto));
    let (group, indexed) = reader.checked(key, |connection, key| {
        Ok((IndexedGroup::find(connection, key)?, index::indexed_event(connection, key)?))
    })?;
    let author = request.author.as_ref();
    let mut search = Search { view: &view, query, author, limit, hits: Vec::new(), more: false };
    if end > indexed {
        search.read_through(end, indexed)?;
    }
    if let Some(group) = group
        && !search.more
    {
        search.ask_index(&group, end.min(indexed))?;
    }
    Ok(SearchPage { hits: search.hits, more: search.more })
}

struct Search<'a> {
    view: &'a View<'a>,
    query: Query,
    author: Option<&'a Author>,
    limit: usize,
    hits: Vec<Hit>,
    /// Whether there are more than the limit; then nothing more is looked for.
    more: bool,
}

impl Search<'_> {
    /// Reads the messages after `indexed` and up to `end`, newest first.
    fn read_through(&mut self, end: u64, indexed: u64) -> Result<(), StoreError> {
        let view = self.view;
        let changed = view.changed(indexed + 1, end)?;
        let mut result = Ok(());
        view.walk(end, Direction::Back, |record, event| {
            if record.seq <= indexed {
                return false;
            }
            let EventKind::MessagePosted(posted) = &event.kind else { return true };
            // Most messages stand as they were posted.
            let unchanged = record.erased.is_none() && !changed.contains(&record.seq);
            if self.author.is_some_and(|author| *author != posted.author)
                || (unchanged && self.query.find_in(&posted.text).is_none())
            {
                return true;
            }
            result = self.offer(record);
            result.is_ok() && !self.more
        })?;
        result
    }

    /// Asks the index for messages up to `end`. Those that wait to be changed in it are looked at
    /// one by one.
    fn ask_index(&mut self, group: &IndexedGroup, end: u64) -> Result<(), StoreError> {
        let waiting = self.view.waiting.iter().flat_map(|batch| &batch.changes);
        let mut waiting: BTreeSet<u64> =
            waiting.map(|change| change.message_seq).filter(|seq| *seq <= end).collect();
        let mut before = end + 1;
        loop {
            let mut candidates: BTreeSet<u64> =
                self.view.reader.checked(self.view.key, |connection, _| {
                    let (query, author) = (&self.query, self.author);
                    let found = group.candidates(connection, query, author, before, CANDIDATES)?;
                    Ok(found.into_iter().collect())
                })?;
            let last = candidates.len() < CANDIDATES;
            before = candidates.first().copied().unwrap_or(0);
            let from = if last { 0 } else { before };
            candidates.append(&mut waiting.split_off(&from));
            for seq in candidates.into_iter().rev() {
                let record = self.view.record(seq)?;
                self.offer(&record)?;
                if self.more {
                    return Ok(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Takes a message as a hit, if it is one as it is now.
    fn offer(&mut self, record: &Record) -> Result<(), StoreError> {
        let mut message: Message = self.view.current(record)?;
        if message.deleted || self.author.is_some_and(|author| *author != message.posted.author) {
            return Ok(());
        }
        let Some(found) = self.query.find_in(&message.posted.text) else { return Ok(()) };
        if self.hits.len() == self.limit {
            self.more = true;
            return Ok(());
        }
        let mut reactions = reactions::of_messages(self.view, record.seq, record.seq)?;
        message.reactions = reactions::listed(reactions.remove(&record.seq).unwrap_or_default());
        let snippet = snippet(&message.posted.text, &found);
        self.hits.push(Hit { message, snippet });
        Ok(())
    }
}
