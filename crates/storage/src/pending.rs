//! A batch on its way: submitted, perhaps committed, not projected yet.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::{
    GroupId, GroupKey, Timestamp,
    event::{Author, EventKind, Reaction, RevisionPolicy},
    record::{Chain, Record, RecordError},
};

use crate::{
    control::Control,
    rooms::agent_events::{self, Told},
    store::types::{Batch, PostIndex, Snapshot},
};

/// A batch with what is derived from it once.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) group_id: GroupId,
    pub(crate) key: GroupKey,
    pub(crate) first_seq: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) posts: Vec<PostIndex>,
    /// Edits and deletions among the records.
    pub(crate) changes: Vec<Change>,
    /// Reactions among them, put on or taken off.
    pub(crate) reactions: Vec<ReactionChange>,
    /// What becomes of former texts, from each of these events on.
    pub(crate) policies: Vec<(u64, RevisionPolicy)>,
    /// Which of the records tell of decisions and runs.
    pub(crate) told: Vec<Told>,
    /// Up to which event texts are with the organization's own service, as an event says so.
    pub(crate) exported: Option<(u64, u64)>,
    /// What happens to the group as a whole; there are no records then.
    pub(crate) control: Option<Control>,
    /// Whether the group is whole from here on, which came from a snapshot.
    pub(crate) completes: bool,
    pub(crate) chain: Chain,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) snapshot: Option<Snapshot>,
    /// What it counts for in the bounds.
    pub(crate) bytes: u64,
    /// Set when the batch must not be projected as it is.
    pub(crate) fault: Option<Fault>,
}

/// A message that an event changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The number of the changing event.
    pub(crate) seq: u64,
    /// The number of the event that posted the message.
    pub(crate) message_seq: u64,
    /// Whether the message was taken back, rather than edited.
    pub(crate) deleted: bool,
}

/// A reaction that was put on a message, or taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReactionChange {
    /// The number of the event.
    pub(crate) seq: u64,
    /// The number of the event that posted the message.
    pub(crate) message_seq: u64,
    pub(crate) emoji: String,
    pub(crate) author: Author,
    /// Whether it was put there, rather than taken off.
    pub(crate) on: bool,
}

/// What a group's records say about earlier ones and about the group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) changes: Vec<Change>,
    pub(crate) reactions: Vec<ReactionChange>,
    pub(crate) policies: Vec<(u64, RevisionPolicy)>,
    pub(crate) told: Vec<Told>,
    pub(crate) exported: Option<(u64, u64)>,
    pub(crate) completes: bool,
}

/// Why a batch is put aside with its group.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) detail: String,
    /// The row's body as it was found, when it was read from the journal.
    pub(crate) raw: Option<Bytes>,
}

/// A batch that is in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    /// The journal row that holds it; several batches of a group may share one.
    pub(crate) pos: u64,
    pub(crate) pending: Arc<Pending>,
}

impl Pending {
    pub(crate) fn new(batch: Batch) -> Self {
        let bytes = batch.records.iter().map(|record| record.body.len() as u64 + RECORD_COST).sum();
        let (derived, fault) = match derive(&batch.records) {
            Ok(derived) => (derived, None),
            Err(error) => {
                (Derived::default(), Some(Fault { detail: error.to_string(), raw: None }))
            }
        };
        Self {
            group_id: batch.group_id,
            key: batch.key,
            first_seq: batch.first_seq,
            records: batch.records,
            posts: batch.posts,
            changes: derived.changes,
            reactions: derived.reactions,
            policies: derived.policies,
            told: derived.told,
            exported: derived.exported,
            control: None,
            completes: derived.completes,
            chain: batch.chain,
            wake_at: batch.wake_at,
            snapshot: batch.snapshot,
            bytes,
            fault,
        }
    }

    /// Something that happens to a group as a whole, before the event `first_seq`, with the chain as
    /// it is there.
    pub(crate) fn control(
        group_id: &GroupId,
        first_seq: u64,
        chain: Chain,
        control: Control,
    ) -> Self {
        let batch = Batch {
            key: group_id.key(),
            group_id: group_id.clone(),
            first_seq,
            records: Vec::new(),
            posts: Vec::new(),
            chain,
            wake_at: None,
            snapshot: None,
        };
        Self { control: Some(control), ..Self::new(batch) }
    }

    /// Whether nothing of the group is left afterwards.
    pub(crate) fn ends_the_group(&self) -> bool {
        self.control.as_ref().is_some_and(Control::ends_the_group)
    }

    /// The number of the last event in or before this batch.
    pub(crate) fn last_seq(&self) -> u64 {
        self.first_seq + self.records.len() as u64 - 1
    }

    /// What it counts for in the bounds; never nothing.
    pub(crate) fn events(&self) -> u64 {
        (self.records.len() as u64).max(1)
    }
}

/// What a record costs in memory beside its body.
const RECORD_COST: u64 = 64;

/// What records say about earlier ones and about the group. Only those are parsed that can.
pub(crate) fn derive(records: &[Record]) -> Result<Derived, RecordError> {
    let mut derived = Derived::default();
    for record in records {
        derived.told.extend(agent_events::told(record)?);
        let says_something = matches!(
            kind(&record.body),
            b"message.edited"
                | b"message.deleted"
                | b"reaction.added"
                | b"reaction.removed"
                | b"group.configured"
                | b"group.restored"
                | b"history.exported"
        );
        if !says_something {
            continue;
        }
        let seq = record.seq;
        let mut change = |message_seq, deleted| {
            derived.changes.push(Change { seq, message_seq, deleted });
        };
        match record.decode()?.kind {
            EventKind::MessageEdited(edited) => change(edited.message_seq, false),
            EventKind::MessageDeleted(deleted) => change(deleted.message_seq, true),
            EventKind::ReactionAdded(reaction) => {
                derived.reactions.push(ReactionChange::new(seq, reaction, true));
            }
            EventKind::ReactionRemoved(reaction) => {
                derived.reactions.push(ReactionChange::new(seq, reaction, false));
            }
            EventKind::GroupRestored(_) => derived.completes = true,
            EventKind::HistoryExported { upto } => derived.exported = Some((seq, upto)),
            EventKind::GroupConfigured(config) => derived.policies.push((seq, config.revisions)),
            EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessagePosted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
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
            | EventKind::SummaryRecorded(_) => {}
        }
    }
    Ok(derived)
}

impl ReactionChange {
    fn new(seq: u64, reaction: Reaction, on: bool) -> Self {
        let Reaction { message_seq, emoji, author, .. } = reaction;
        Self { seq, message_seq, emoji, author, on }
    }
}

/// Whether history lists the event: a posted message or the end of a run.
pub(crate) fn is_shown(record: &Record) -> bool {
    matches!(kind(&record.body), b"message.posted" | b"run.finished")
}

/// Whether the event is a posted message.
pub(crate) fn is_message(record: &Record) -> bool {
    kind(&record.body) == b"message.posted"
}

/// The value of the member `kind`, found by the frame's fixed beginning without parsing the rest;
/// empty when the body does not begin like an event.
pub(crate) fn kind(body: &[u8]) -> &[u8] {
    let after = |rest: &'_ [u8], prefix: &[u8]| -> Option<usize> {
        rest.starts_with(prefix).then_some(prefix.len())
    };
    let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let find = || {
        let mut at = after(body, b"{\"type\":\"event\",\"seq\":")?;
        at += digits(&body[at..]);
        at += after(&body[at..], b",\"at\":")?;
        at += digits(&body[at..]);
        at += after(&body[at..], b",\"kind\":\"")?;
        let len = body[at..].iter().position(|byte| *byte == b'"')?;
        Some(&body[at..at + len])
    };
    find().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use convene_model::{
        MessageId, UserId,
        event::{Author, Deleted, Edited, Event},
    };

    use super::*;

    #[test]
    fn the_kind_is_found_without_parsing() {
        let author = Author::User(UserId::new("u").unwrap());
        let message_id = MessageId::new("m").unwrap();
        let kinds = [
            EventKind::EpochRaised { epoch: 3 },
            EventKind::MessageEdited(Edited {
                message_id: message_id.clone(),
                message_seq: 7,
                author: author.clone(),
                text: "\"kind\":\"message.posted\"".into(),
            }),
            EventKind::MessageDeleted(Deleted { message_id, message_seq: 8, author }),
        ];
        let records: Vec<_> = kinds
            .into_iter()
            .zip(11..)
            .map(|(kind, seq)| Record::encode(&Event { seq, at: Timestamp::from_secs(1), kind }))
            .collect();
        assert_eq!(kind(&records[0].body), b"group.epoch_raised");
        assert_eq!(kind(&records[1].body), b"message.edited");
        assert_eq!(
            derive(&records).unwrap().changes,
            [
                Change { seq: 12, message_seq: 7, deleted: false },
                Change { seq: 13, message_seq: 8, deleted: true },
            ]
        );
        for other in ["", "{}", "{\"type\":\"event\",\"seq\":1,\"at\":2,\"kind\":\"x"] {
            assert_eq!(kind(other.as_bytes()), b"", "{other}");
        }
    }
}
