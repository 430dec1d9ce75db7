//! One message and its former texts.

use convene_model::{
    GroupKey, MessageId,
    event::{EventKind, RevisionPolicy},
    history::{MessageDetail, Revision},
    limits::MAX_REVISIONS_LISTED,
};
use rusqlite::{Connection, params};

use crate::{
    pending::Change,
    rooms::{reactions, reader::Reader, schema, view::View},
    store::error::StoreError,
};

/// See `GroupStore::detail`.
pub(crate) fn detail(
    reader: &Reader,
    key: &GroupKey,
    message_id: &MessageId,
    upto: u64,
) -> Result<Option<MessageDetail>, StoreError> {
    let view = View::new(reader, key, upto)?;
    let Some(seq) = reader.find(key, message_id)?.filter(|seq| *seq <= upto) else {
        return Ok(None);
    };
    let mut message = view.current(&view.record(seq)?)?;
    if message.deleted {
        return Ok(Some(MessageDetail { message, revisions: Vec::new() }));
    }
    let mut found = reactions::of_messages(&view, seq, seq)?;
    message.reactions = reactions::listed(found.remove(&seq).unwrap_or_default());
    let revisions = view.former_texts(seq)?;
    Ok(Some(MessageDetail { message, revisions }))
}

impl View<'_> {
    /// Before which event a text that was replaced is gone: the end of the last time in which such
    /// texts were discarded, although what is projected may not show it yet.
    fn discarded_before(&self) -> Result<u64, StoreError> {
        let mut discards = self
            .reader
            .checked(self.key, |connection, key| Ok(schema::discards(connection, key)?))?;
        let mut before = 0;
        let policies = self.waiting.iter().flat_map(|batch| &batch.policies);
        for (seq, policy) in policies.filter(|(seq, _)| *seq <= self.upto) {
            if discards {
                before = *seq;
            }
            discards = *policy == RevisionPolicy::Discard;
        }
        Ok(if discards { u64::MAX } else { before })
    }

    /// The texts that edits replaced and that are still there, oldest first.
    fn former_texts(&self, message_seq: u64) -> Result<Vec<Revision>, StoreError> {
        let waiting = self.waiting.iter().flat_map(|batch| &batch.changes);
        let seen = |change: &&Change| change.message_seq == message_seq && change.seq <= self.upto;
        let mut edits: Vec<u64> = waiting.filter(seen).map(|change| change.seq).collect();
        edits.extend(self.reader.checked(self.key, |connection, key| {
            Ok(read_edits(connection, key, message_seq, self.upto)?)
        })?);
        edits.push(message_seq);
        edits.sort_unstable();
        edits.dedup();
        let gone = self.discarded_before()?;
        // The last one is the current text: nothing replaced it.
        let replaced = edits.windows(2).filter(|pair| pair[1] >= gone).map(|pair| pair[0]);
        let mut revisions = Vec::new();
        for seq in replaced.rev().take(MAX_REVISIONS_LISTED) {
            let record = self.record(seq)?;
            if record.erased.is_some() {
                continue;
            }
            let event = self.decode(&record)?;
            let text = if let EventKind::MessagePosted(posted) = event.kind {
                posted.text
            } else if let EventKind::MessageEdited(edited) = event.kind {
                edited.text
            } else {
                let detail = format!("event {seq} is to have changed a message, but sets no text");
                return Err(self.reader.quarantine.add(*self.key, detail));
            };
            revisions.push(Revision { seq, at: event.at, text });
        }
        revisions.reverse();
        Ok(revisions)
    }
}

/// The newest edits of a message, as many as can be listed and the current one.
fn read_edits(
    connection: &Connection,
    key: &GroupKey,
    message_seq: u64,
    upto: u64,
) -> Result<Vec<u64>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT seq FROM message_changes
             WHERE group_key = ?1 AND message_seq = ?2 AND seq <= ?3 AND NOT deleted
             ORDER BY seq DESC LIMIT ?4",
        )?
        .query_map(
            params![
                &key.0[..],
                message_seq as i64,
                i64::try_from(upto).unwrap_or(i64::MAX),
                MAX_REVISIONS_LISTED as i64 + 1
            ],
            |row| Ok(row.get::<_, i64>(0)? as u64),
        )?
        .collect()
}
