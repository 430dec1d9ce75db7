//! Groups for tests: they number and chain their events as a host does, and know naively what a
//! page of history must hold.
#![allow(dead_code, reason = "each of the binaries that include this file uses a part of it")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use convene_model::{
    AgentId, GroupId, GroupKey, MessageId, RunId, Timestamp, UserId,
    event::{
        Author, Deleted, Edited, Event, EventKind, GroupConfig, Posted, Reaction, RevisionPolicy,
        RunFinished, RunStatus,
    },
    history::{
        Excerpt, FinishedRun, HistoryQuery, Message, MessageDetail, Reactions, Revision,
        SearchRequest,
    },
    limits::{EXCERPT_CHARS, MAX_REVISIONS_LISTED},
    record::{CHAIN_START, Chain, Record},
};

use super::api::{
    Batch, CommitFailed, GroupStore, PageParts, PostIndex, Snapshot, StoreError, StoreOptions,
};

/// A group as its single writer knows it.
pub(crate) struct Group {
    pub(crate) group_id: GroupId,
    pub(crate) key: GroupKey,
    pub(crate) events: Vec<Event>,
    pub(crate) records: Vec<Record>,
    pub(crate) chain: Chain,
    pub(crate) wake_at: Option<Timestamp>,
}

impl Group {
    pub(crate) fn new(id: &str) -> Self {
        let group_id = GroupId::new(id).unwrap();
        let key = group_id.key();
        let (events, records) = (Vec::new(), Vec::new());
        Self { group_id, key, events, records, chain: CHAIN_START, wake_at: None }
    }

    /// The number of the last event.
    pub(crate) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// The next batch, with these events.
    pub(crate) fn batch(&mut self, kinds: impl IntoIterator<Item = EventKind>) -> Batch {
        let first_seq = self.head() + 1;
        let mut posts = Vec::new();
        let mut records = Vec::new();
        for kind in kinds {
            let seq = self.head() + 1;
            if let EventKind::MessagePosted(posted) = &kind {
                let (message_id, digest) = (posted.message_id.clone(), posted.digest());
                posts.push(PostIndex { seq, message_id, digest });
            }
            let event = Event { seq, at: Timestamp::from_secs(1_000_000 + seq), kind };
            let record = Record::encode(&event);
            self.chain = record.chain(&self.chain);
            self.events.push(event);
            self.records.push(record.clone());
            records.push(record);
        }
        Batch {
            group_id: self.group_id.clone(),
            key: self.key,
            first_seq,
            records,
            posts,
            chain: self.chain,
            wake_at: self.wake_at,
            snapshot: None,
        }
    }

    /// A batch with one message; its id is `m` and its number.
    pub(crate) fn post(&mut self, text: &str) -> Batch {
        let message = message(&format!("m{}", self.head() + 1), text);
        self.batch([message])
    }

    /// A batch without events but with a snapshot of the head.
    pub(crate) fn snapshot(&mut self, bytes: &'static str) -> Batch {
        let snapshot = Snapshot { seq: self.head(), bytes: bytes.into() };
        Batch { snapshot: Some(snapshot), ..self.batch([]) }
    }

    /// The page that history must answer, by the simplest means.
    pub(crate) fn page(&self, query: HistoryQuery, upto: u64) -> PageParts {
        let limit = query.page_size().unwrap();
        let seen = || self.events.iter().filter(move |event| event.seq <= upto);
        let all = self.messages(upto);
        // The page reaches over the messages `from..to` of all.
        let not_before = |seq: u64| all.iter().filter(|message| message.seq < seq).count();
        let (from, to) = match query {
            HistoryQuery { around: Some(around), .. } => {
                let middle = not_before(around);
                let (from, to) = (middle.saturating_sub(limit / 2), middle + limit - limit / 2);
                (from, to.min(all.len()))
            }
            HistoryQuery { before: None, after: Some(after), .. } => {
                let from = not_before(after.saturating_add(1));
                (from, (from + limit).min(all.len()))
            }
            HistoryQuery { before, after, .. } => {
                let to = before.map_or(all.len(), not_before);
                let from = after.map_or(0, |after| not_before(after.saturating_add(1)));
                (from.max(to.saturating_sub(limit)), to)
            }
        };
        let (from, to) = (from.min(to), to);
        let messages = all[from..to].to_vec();
        let (more_before, more_after) = (from > 0, to < all.len());
        let forwards = query.around.is_some() || (query.before.is_none() && query.after.is_some());
        let begin = match messages.first() {
            _ if !more_before && query.around.is_none() && forwards => query.after.unwrap_or(0),
            _ if !more_before => 0,
            Some(first) => first.seq,
            None if query.around.is_some() => all[from - 1].seq,
            None => all[from - 1].seq.max(query.after.unwrap_or(0)),
        };
        let end = match query.before {
            Some(before) if !forwards => before,
            _ => all.get(to).map_or(u64::MAX, |next| next.seq),
        };
        let runs = seen()
            .filter(|event| event.seq > begin && event.seq < end)
            .filter_map(|event| match &event.kind {
                EventKind::RunFinished(finished) => {
                    Some(FinishedRun::new(event.seq, event.at, finished.clone()))
                }
                _ => None,
            })
            .collect();
        let mut answered: Vec<Excerpt> = Vec::new();
        for id in messages.iter().filter(|m| !m.deleted).filter_map(|m| m.posted.reply_to.as_ref())
        {
            let listed = messages.iter().any(|message| message.posted.message_id == *id)
                || answered.iter().any(|excerpt| excerpt.message_id == *id);
            let found = all.iter().find(|message| message.posted.message_id == *id);
            if let Some(found) = found.filter(|_| !listed) {
                answered.push(Excerpt {
                    message_id: id.clone(),
                    seq: found.seq,
                    author: found.posted.author.clone(),
                    text: found.posted.text.chars().take(EXCERPT_CHARS).collect(),
                    deleted: found.deleted,
                });
            }
        }
        PageParts { messages, runs, answered, more_before, more_after }
    }

    /// All messages as they are.
    pub(crate) fn messages(&self, upto: u64) -> Vec<Message> {
        let seen = self.events.iter().filter(|event| event.seq <= upto);
        seen.filter_map(|event| self.message(event, upto)).collect()
    }

    /// The numbers of the messages that hold all of these words, newest first, one more than
    /// `limit` if there are so many.
    pub(crate) fn search(&self, words: &[&str], before: Option<u64>, limit: usize) -> Vec<u64> {
        let mut found = self.messages(self.head());
        found.retain(|message| {
            let text = &message.posted.text;
            message.seq < before.unwrap_or(u64::MAX)
                && words.iter().all(|word| text.split(' ').any(|other| other == *word))
        });
        found.iter().rev().map(|message| message.seq).take(limit + 1).collect()
    }

    /// What is known of a message in detail, by the simplest means.
    pub(crate) fn detail(&self, message_seq: u64, upto: u64) -> MessageDetail {
        let message = self.message(&self.events[message_seq as usize - 1], upto).unwrap();
        let (mut texts, mut discards) = (Vec::<Revision>::new(), false);
        for event in self.events.iter().filter(|event| event.seq <= upto) {
            let text = match &event.kind {
                EventKind::GroupConfigured(config) => {
                    discards = config.revisions == RevisionPolicy::Discard;
                    if discards {
                        texts.drain(..texts.len().saturating_sub(1));
                    }
                    continue;
                }
                EventKind::MessagePosted(posted) if event.seq == message_seq => &posted.text,
                EventKind::MessageEdited(edited) if edited.message_seq == message_seq => {
                    &edited.text
                }
                _ => continue,
            };
            if discards {
                texts.clear();
            }
            texts.push(Revision { seq: event.seq, at: event.at, text: text.clone() });
        }
        texts.pop();
        if message.deleted {
            texts.clear();
        }
        texts.drain(..texts.len().saturating_sub(MAX_REVISIONS_LISTED));
        MessageDetail { message, revisions: texts }
    }

    fn message(&self, event: &Event, upto: u64) -> Option<Message> {
        let EventKind::MessagePosted(posted) = &event.kind else { return None };
        let mut message = Message {
            seq: event.seq,
            at: event.at,
            posted: posted.clone(),
            edited_at: None,
            deleted: false,
            reactions: self.reactions(event.seq, upto),
        };
        for change in &self.events {
            match &change.kind {
                EventKind::MessageEdited(edited)
                    if edited.message_seq == event.seq && change.seq <= upto =>
                {
                    message.posted.text = edited.text.clone();
                    message.edited_at = Some(change.at);
                }
                // A deletion erases the text as soon as it is carried over, also for those who do
                // not see the event yet; the tests ask at heads where that makes no difference.
                EventKind::MessageDeleted(deleted)
                    if deleted.message_seq == event.seq && change.seq <= upto =>
                {
                    message.posted.text = String::new();
                    message.edited_at = None;
                    message.deleted = true;
                    message.reactions.clear();
                }
                _ => {}
            }
        }
        Some(message)
    }

    /// The reactions to a message: who put each emoji there last, in the order of doing so.
    pub(crate) fn reactions(&self, message_seq: u64, upto: u64) -> Vec<Reactions> {
        let mut standing: Vec<(String, Author)> = Vec::new();
        for event in self.events.iter().filter(|event| event.seq <= upto) {
            let (EventKind::ReactionAdded(reaction) | EventKind::ReactionRemoved(reaction)) =
                &event.kind
            else {
                continue;
            };
            if reaction.message_seq == message_seq {
                let place = (reaction.emoji.clone(), reaction.author.clone());
                match &event.kind {
                    EventKind::ReactionAdded(_) if !standing.contains(&place) => {
                        standing.push(place);
                    }
                    EventKind::ReactionRemoved(_) => standing.retain(|other| *other != place),
                    _ => {}
                }
            }
        }
        let mut found: Vec<Reactions> = Vec::new();
        for (emoji, author) in standing {
            match found.iter_mut().find(|reactions| reactions.emoji == emoji) {
                Some(reactions) => {
                    reactions.count += 1;
                    reactions.authors.push(author);
                }
                None => found.push(Reactions { emoji, count: 1, authors: vec![author] }),
            }
        }
        found
    }
}

pub(crate) fn author() -> Author {
    Author::User(UserId::new("u1").unwrap())
}

pub(crate) fn message(id: &str, text: &str) -> EventKind {
    let message_id = MessageId::new(id).unwrap();
    EventKind::MessagePosted(Posted {
        root: message_id.clone(),
        message_id,
        author: author(),
        hop: 0,
        nth: 1,
        reply_to: None,
        run_id: None,
        mentions: vec![],
        text: text.into(),
    })
}

/// A message that answers another one.
pub(crate) fn reply(id: &str, to: &str, text: &str) -> EventKind {
    let EventKind::MessagePosted(posted) = message(id, text) else { unreachable!() };
    EventKind::MessagePosted(Posted { reply_to: Some(MessageId::new(to).unwrap()), ..posted })
}

pub(crate) fn edit(message_seq: u64, text: &str) -> EventKind {
    let message_id = MessageId::new(format!("m{message_seq}")).unwrap();
    EventKind::MessageEdited(Edited {
        message_id,
        message_seq,
        author: author(),
        text: text.into(),
    })
}

pub(crate) fn delete(message_seq: u64) -> EventKind {
    let message_id = MessageId::new(format!("m{message_seq}")).unwrap();
    EventKind::MessageDeleted(Deleted { message_id, message_seq, author: author() })
}

/// A reaction of the user `by`, put there or taken off.
pub(crate) fn react(message_seq: u64, by: &str, emoji: &str, on: bool) -> EventKind {
    let reaction = Reaction {
        message_id: MessageId::new(format!("m{message_seq}")).unwrap(),
        message_seq,
        author: Author::User(UserId::new(by).unwrap()),
        emoji: emoji.into(),
    };
    if on { EventKind::ReactionAdded(reaction) } else { EventKind::ReactionRemoved(reaction) }
}

/// A configuration with this policy for former texts.
pub(crate) fn policy(revisions: RevisionPolicy) -> EventKind {
    EventKind::GroupConfigured(GroupConfig { revisions, ..GroupConfig::default() })
}

pub(crate) fn run_finished(id: &str) -> EventKind {
    EventKind::RunFinished(RunFinished {
        run_id: RunId::new(id).unwrap(),
        attempt: 1,
        agent_id: AgentId::new("a1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        status: RunStatus::Completed,
        message_id: None,
        code: None,
        detail: None,
        usage: None,
        reservation: None,
    })
}

/// An event that history does not list.
pub(crate) fn unlisted() -> EventKind {
    EventKind::EpochRaised { epoch: 2 }
}

pub(crate) fn query(before: Option<u64>, after: Option<u64>, limit: usize) -> HistoryQuery {
    HistoryQuery { before, after, limit: Some(limit), ..HistoryQuery::default() }
}

pub(crate) fn around(seq: u64, limit: usize) -> HistoryQuery {
    HistoryQuery { around: Some(seq), ..query(None, None, limit) }
}

pub(crate) fn searching(query: &str) -> SearchRequest {
    SearchRequest { query: query.into(), before: None, author: None, limit: None }
}

/// Opens a store that must not fail.
pub(crate) fn open(dir: &tempfile::TempDir) -> GroupStore {
    open_with(dir, StoreOptions::default()).unwrap()
}

pub(crate) fn open_with(
    dir: &tempfile::TempDir,
    options: StoreOptions,
) -> Result<GroupStore, StoreError> {
    GroupStore::open(dir.path(), options, |reason| panic!("fatal: {reason}"))
}

/// Submits a batch and waits for its fate.
pub(crate) fn commit(store: &GroupStore, batch: Batch) -> Result<(), CommitFailed> {
    let (told, hear) = mpsc::channel();
    store.submit(batch, move |result| told.send(result).unwrap()).unwrap();
    hear.recv().unwrap()
}

/// Runs the same check on what is only in the overlay, on what is projected, and after reopening.
pub(crate) fn wherever_it_lies(write: impl FnOnce(&GroupStore), check: impl Fn(&GroupStore)) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    write(&store);
    check(&store);
    store.settle();
    check(&store);
    store.settle_index();
    check(&store);
    drop(store);
    check(&open(&dir));
}

/// Copies the files of a directory as they are at the moment.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Counts how often something happened.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
