//! Which events tell of one decision or one run, so that they are found without reading the rest.
//!
//! The table only points at events; what they say stands in the chunks.

use bytes::Bytes;
use convene_model::{
    GroupKey, RunId,
    event::EventKind,
    record::{Record, RecordError, read_chunk},
};
use rusqlite::{Connection, params};

use crate::{
    pending::kind,
    rooms::{chunks::ChunkError, view::View},
    store::error::StoreError,
};

/// The table of format 4.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE agent_events (
        group_key BLOB NOT NULL,
        subject TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (group_key, subject, seq)
    ) WITHOUT ROWID;";

/// An event that tells of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) subject: String,
    pub(crate) seq: u64,
}

/// Decisions about the message that the event `message_seq` posted.
pub(crate) fn decisions(message_seq: u64) -> String {
    format!("m{message_seq}")
}

/// Beginning and end of a run's attempts.
pub(crate) fn life(run_id: &RunId) -> String {
    format!("r{run_id}")
}

/// A run's calls of tools and its approvals.
pub(crate) fn tools(run_id: &RunId) -> String {
    format!("t{run_id}")
}

/// Summaries of the group's messages.
pub(crate) const SUMMARIES: &str = "s";

/// What a record tells of, if it is of this kind. Only those are parsed that can be.
pub(crate) fn told(record: &Record) -> Result<Option<Told>, RecordError> {
    let can = matches!(
        kind(&record.body),
        b"trigger.decided"
            | b"run.started"
            | b"run.finished"
            | b"tool.requested"
            | b"tool.started"
            | b"tool.finished"
            | b"approval.requested"
            | b"approval.voted"
            | b"approval.resolved"
            | b"approval.expired"
            | b"summary.recorded"
    );
    if !can {
        return Ok(None);
    }
    let subject = match record.decode()?.kind {
        EventKind::TriggerDecided(decided) => decisions(decided.message_seq),
        EventKind::RunStarted(started) => life(&started.run_id),
        EventKind::RunFinished(finished) => life(&finished.run_id),
        EventKind::ToolsRequested(requested) => tools(&requested.run_id),
        EventKind::ToolStarted(started) => tools(&started.run_id),
        EventKind::ToolFinished(finished) => tools(&finished.run_id),
        EventKind::ApprovalRequested(requested) => tools(&requested.run_id),
        EventKind::ApprovalVoted(voted) => tools(&voted.run_id),
        EventKind::ApprovalResolved(resolved) => tools(&resolved.run_id),
        EventKind::ApprovalExpired(expired) => tools(&expired.run_id),
        EventKind::SummaryRecorded(_) => SUMMARIES.to_owned(),
        EventKind::GroupActivated(_)
        | EventKind::GroupAdopted(_)
        | EventKind::GroupConfigured(_)
        | EventKind::EpochRaised { .. }
        | EventKind::GroupFrozen { .. }
        | EventKind::GroupThawed(_)
        | EventKind::GroupRestored(_)
        | EventKind::AccessRevoked { .. }
        | EventKind::MessagePosted(_)
        | EventKind::MessageEdited(_)
        | EventKind::MessageDeleted(_)
        | EventKind::MessagePinned(_)
        | EventKind::MessageUnpinned(_)
        | EventKind::ReactionAdded(_)
        | EventKind::ReactionRemoved(_)
        | EventKind::RunStreaming { .. }
        | EventKind::HistoryExported { .. } => return Ok(None),
    };
    Ok(Some(Told { subject, seq: record.seq }))
}

/// Notes an event.
pub(crate) fn insert(
    connection: &Connection,
    key: &GroupKey,
    told: &Told,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO agent_events (group_key, subject, seq) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![&key.0[..], told.subject, told.seq as i64])?;
    Ok(())
}

/// Notes the events of a file that was written before there was the table. What cannot be read is
/// passed over: whoever reads its chunk will find that.
pub(crate) fn fill(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mut chunks = connection.prepare("SELECT group_key, first_seq, body FROM chunks")?;
    let mut rows = chunks.query([])?;
    while let Some(row) = rows.next()? {
        let key = GroupKey(row.get(0)?);
        let first_seq = row.get::<_, i64>(1)? as u64;
        let body = Bytes::from(row.get::<_, Vec<u8>>(2)?);
        for record in read_chunk(&body, first_seq).unwrap_or_default() {
            if let Ok(Some(told)) = told(&record) {
                insert(connection, &key, &told)?;
            }
        }
    }
    Ok(())
}

impl View<'_> {
    /// The records that tell of a subject, in order.
    pub(crate) fn about(&self, subject: &str) -> Result<Vec<Record>, StoreError> {
        let waiting = self.waiting.iter().flat_map(|batch| &batch.told);
        let seen = |told: &&_| {
            let Told { subject: of, seq } = *told;
            of == subject && *seq <= self.upto
        };
        let mut seqs: Vec<u64> = waiting.filter(seen).map(|told| told.seq).collect();
        seqs.extend(self.reader.checked(self.key, |connection, key| {
            read(connection, key, subject, self.upto).map_err(ChunkError::from)
        })?);
        seqs.sort_unstable();
        seqs.dedup();
        // Events of one run often follow each other: one read for each row of neighbours.
        let mut records = Vec::with_capacity(seqs.len());
        for run in seqs.chunk_by(|a, b| a + 1 == *b) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            records.extend(self.reader.events(self.key, *first, *last)?);
        }
        Ok(records)
    }
}

/// The last summary before the event `seq`.
pub(crate) fn last_summary(
    connection: &Connection,
    key: &GroupKey,
    seq: u64,
) -> Result<Option<u64>, rusqlite::Error> {
    let found: Option<i64> = connection
        .prepare_cached(
            "SELECT max(seq) FROM agent_events WHERE group_key = ?1 AND subject = ?2 AND seq < ?3",
        )?
        .query_row(params![&key.0[..], SUMMARIES, seq as i64], |row| row.get(0))?;
    Ok(found.map(|seq| seq as u64))
}

fn read(
    connection: &Connection,
    key: &GroupKey,
    subject: &str,
    upto: u64,
) -> Result<Vec<u64>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT seq FROM agent_events WHERE group_key = ?1 AND subject = ?2 AND seq <= ?3
             ORDER BY seq",
        )?
        .query_map(params![&key.0[..], subject, i64::try_from(upto).unwrap_or(i64::MAX)], |row| {
            Ok(row.get::<_, i64>(0)? as u64)
        })?
        .collect()
}
