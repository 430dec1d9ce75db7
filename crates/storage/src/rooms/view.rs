//! A group's messages as one read sees them: what was in the overlay when it began, and the rest.

use std::{cell::RefCell, collections::HashSet, sync::Arc};

use convene_model::{
    GroupKey, Timestamp,
    event::{Event, EventKind, Posted},
    history::Message,
    record::Record,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    pending::{Change, Pending},
    rooms::{chunks::Chunk, reactions, reader::Reader, trim},
    store::{
        error::StoreError,
        types::{StoredMessage, StoredReaction},
    },
};

/// What one read of a group sees.
pub(crate) struct View<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) key: &'a GroupKey,
    pub(crate) waiting: Vec<Arc<Pending>>,
    /// No event after this one exists for this read.
    pub(crate) upto: u64,
    /// What a walk fetched last; the next often begins there.
    pub(crate) recent: RefCell<Vec<Chunk>>,
}

impl<'a> View<'a> {
    /// Begins a read.
    ///
    /// # Errors
    /// [`StoreError::Quarantined`].
    pub(crate) fn new(
        reader: &'a Reader,
        key: &'a GroupKey,
        upto: u64,
    ) -> Result<Self, StoreError> {
        reader.quarantine.check(key)?;
        Ok(Self {
            reader,
            key,
            waiting: reader.overlay.batches(key),
            upto,
            recent: RefCell::default(),
        })
    }

    /// A posted message as it is now, without its reactions. A text that is with an organization's own
    /// service is empty.
    ///
    /// A text that was erased belongs to a message that was taken back, or to one that was edited
    /// where former texts are discarded; in both cases the message is shown as it became, even if
    /// the event that did so comes after `upto`: the text itself is gone.
    pub(crate) fn current(&self, record: &Record) -> Result<Message, StoreError> {
        let event = self.decode(record)?;
        let EventKind::MessagePosted(mut posted) = event.kind else {
            let detail = format!("event {} is no message", record.seq);
            return Err(self.reader.quarantine.add(*self.key, detail));
        };
        let mut change = self.last_change(record.seq, self.upto)?;
        let (mut edited_at, mut deleted) = (None, false);
        loop {
            let edit = match change {
                None => None,
                Some(Change { deleted: true, .. }) => {
                    deleted = true;
                    break;
                }
                Some(Change { seq, deleted: false, .. }) => Some(self.record(seq)?),
            };
            if edit.as_ref().unwrap_or(record).erased.is_none() {
                if let Some(edit) = edit {
                    let edit = self.decode(&edit)?;
                    if let EventKind::MessageEdited(edited) = edit.kind {
                        posted.text = edited.text;
                        edited_at = Some(edit.at);
                    }
                }
                break;
            }
            let later = self.last_change(record.seq, u64::MAX)?;
            if later.map(|later| later.seq) <= change.map(|change| change.seq) {
                let text_seq = edit.as_ref().unwrap_or(record).seq;
                let trimmed = self
                    .reader
                    .checked(self.key, |connection, key| Ok(trim::upto(connection, key)?))?;
                if text_seq <= trimmed {
                    // The organization's own service has it.
                    posted.text.clear();
                    edited_at =
                        edit.map(|edit| self.decode(&edit)).transpose()?.map(|edit| edit.at);
                    break;
                }
                // Nothing is known that erased it, so there is nothing to show instead.
                deleted = true;
                break;
            }
            change = later;
        }
        if deleted {
            posted.text.clear();
        }
        Ok(Message { edited_at, deleted, ..as_posted(event.seq, event.at, posted) })
    }

    /// The last change of a message up to the event `upto`.
    pub(crate) fn last_change(
        &self,
        message_seq: u64,
        upto: u64,
    ) -> Result<Option<Change>, StoreError> {
        let mut waiting = self.waiting.iter().rev().flat_map(|batch| batch.changes.iter().rev());
        let waiting =
            waiting.find(|change| change.message_seq == message_seq && change.seq <= upto).copied();
        // The projector may have come further than the overlay was when this read began.
        let stored = self.reader.checked(self.key, |connection, key| {
            Ok(read_last_change(connection, key, message_seq, upto)?)
        })?;
        Ok(waiting.into_iter().chain(stored).max_by_key(|change| change.seq))
    }

    /// Which of the messages from `first` to `last` were edited or deleted, whenever that was; and
    /// perhaps some others.
    pub(crate) fn changed(&self, first: u64, last: u64) -> Result<HashSet<u64>, StoreError> {
        let waiting = self.waiting.iter().flat_map(|batch| &batch.changes);
        let mut changed: HashSet<u64> = waiting.map(|change| change.message_seq).collect();
        changed.extend(self.reader.checked(self.key, |connection, key| {
            Ok(read_changed(connection, key, first, last)?)
        })?);
        Ok(changed)
    }

    pub(crate) fn record(&self, seq: u64) -> Result<Record, StoreError> {
        let mut found = self.reader.events(self.key, seq, seq)?;
        found.pop().ok_or(StoreError::Missing { from: seq, to: seq, missing: seq })
    }

    pub(crate) fn decode(&self, record: &Record) -> Result<Event, StoreError> {
        record.decode().map_err(|error| self.reader.quarantine.add(*self.key, error.to_string()))
    }
}

/// A message as it was posted, without reactions.
pub(crate) fn as_posted(seq: u64, at: Timestamp, posted: Posted) -> Message {
    Message { seq, at, posted, edited_at: None, deleted: false, reactions: Vec::new() }
}

/// See `GroupStore::message`; `seq` is where its message id was found.
pub(crate) fn message(
    reader: &Reader,
    key: &GroupKey,
    seq: u64,
) -> Result<StoredMessage, StoreError> {
    let view = View::new(reader, key, u64::MAX)?;
    let record = view.record(seq)?;
    let Message { seq, posted, deleted, .. } = view.current(&record)?;
    Ok(StoredMessage { seq, author: posted.author, deleted, text: posted.text })
}

/// See `GroupStore::reactions`.
pub(crate) fn reactions(
    reader: &Reader,
    key: &GroupKey,
    message_seq: u64,
) -> Result<Vec<StoredReaction>, StoreError> {
    let view = View::new(reader, key, u64::MAX)?;
    if view.last_change(message_seq, u64::MAX)?.is_some_and(|change| change.deleted) {
        return Ok(Vec::new());
    }
    Ok(reactions::of_messages(&view, message_seq, message_seq)?
        .remove(&message_seq)
        .unwrap_or_default())
}

fn read_changed(
    connection: &Connection,
    key: &GroupKey,
    first: u64,
    last: u64,
) -> Result<Vec<u64>, rusqlite::Error> {
    let last = i64::try_from(last).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT DISTINCT message_seq FROM message_changes
             WHERE group_key = ?1 AND message_seq BETWEEN ?2 AND ?3",
        )?
        .query_map(params![&key.0[..], first as i64, last], |row| Ok(row.get::<_, i64>(0)? as u64))?
        .collect()
}

fn read_last_change(
    connection: &Connection,
    key: &GroupKey,
    message_seq: u64,
    upto: u64,
) -> Result<Option<Change>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT seq, deleted FROM message_changes
             WHERE group_key = ?1 AND message_seq = ?2 AND seq <= ?3 ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(
            params![&key.0[..], message_seq as i64, i64::try_from(upto).unwrap_or(i64::MAX)],
            |row| {
                Ok(Change { seq: row.get::<_, i64>(0)? as u64, message_seq, deleted: row.get(1)? })
            },
        )
        .optional()
}
