//! Reads compared with a naive model, at every stage of the projection.

use std::collections::{BTreeMap, BTreeSet};

use convene_model::{
    MessageId,
    event::{EventKind, RevisionPolicy},
    history::{HistoryQuery, SearchRequest},
    record::Record,
};
use proptest::prelude::*;

use super::{
    super::{GroupStore, StoreOptions},
    open_held_with,
    support::{
        Group, around, commit, delete, edit, message, policy, query, react, reply, run_finished,
        searching, unlisted,
    },
};

/// One thing that happens to the store.
#[derive(Debug, Clone)]
enum Op {
    Commit {
        group: usize,
        kinds: Vec<Kind>,
        snapshot: bool,
    },
    /// The projector may go on, by so many events or freely.
    LetProject(Option<usize>),
    Settle,
    Reopen {
        close: bool,
    },
    Around {
        group: usize,
        around: u64,
        limit: usize,
    },
    Page {
        group: usize,
        before: Option<u64>,
        after: Option<u64>,
        limit: usize,
    },
    Events {
        group: usize,
        from: u64,
        len: u64,
    },
    Load {
        group: usize,
    },
    /// Whether messages are kept out of the search index from now on.
    HoldIndex(bool),
    /// Waits until all that is projected is in it.
    SettleIndex,
    Search {
        group: usize,
        words: [usize; 2],
        before: Option<u64>,
        limit: usize,
    },
}

/// Words of which messages are made.
const WORDS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "edited"];

/// One event; what it refers to is found by counting through what there is.
#[derive(Debug, Clone)]
enum Kind {
    Post(usize),
    Reply(usize),
    Edit(usize),
    Delete(usize),
    React { message: usize, by: usize, emoji: usize, on: bool },
    Policy(RevisionPolicy),
    Run,
    Unlisted,
}

const EMOJIS: [&str; 3] = ["👍", "🎉", "👩‍🚀"];
const PEOPLE: [&str; 3] = ["u1", "u2", "u3"];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        5 => (0..3000_usize).prop_map(Kind::Post),
        2 => (0..100_usize).prop_map(Kind::Reply),
        2 => (0..100_usize).prop_map(Kind::Edit),
        1 => (0..100_usize).prop_map(Kind::Delete),
        4 => (0..100_usize, 0..PEOPLE.len(), 0..EMOJIS.len(), any::<bool>())
            .prop_map(|(message, by, emoji, on)| Kind::React { message, by, emoji, on }),
        1 => any::<bool>().prop_map(|keep| {
            Kind::Policy(if keep { RevisionPolicy::Keep } else { RevisionPolicy::Discard })
        }),
        1 => Just(Kind::Run),
        2 => Just(Kind::Unlisted),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let place = || prop::option::of(0..60_u64);
    prop_oneof![
        8 => (0..2_usize, prop::collection::vec(kind(), 0..6), any::<bool>())
            .prop_map(|(group, kinds, snapshot)| Op::Commit { group, kinds, snapshot }),
        3 => prop::option::of(0..20_usize).prop_map(Op::LetProject),
        1 => Just(Op::Settle),
        1 => any::<bool>().prop_map(|close| Op::Reopen { close }),
        4 => (0..2_usize, place(), place(), 1..12_usize)
            .prop_map(|(group, before, after, limit)| Op::Page { group, before, after, limit }),
        2 => (0..2_usize, 0..60_u64, 1..12_usize)
            .prop_map(|(group, around, limit)| Op::Around { group, around, limit }),
        2 => (0..2_usize, 1..40_u64, 0..20_u64)
            .prop_map(|(group, from, len)| Op::Events { group, from, len }),
        2 => (0..2_usize).prop_map(|group| Op::Load { group }),
        2 => any::<bool>().prop_map(Op::HoldIndex),
        1 => Just(Op::SettleIndex),
        4 => (0..2_usize, [0..WORDS.len(), 0..WORDS.len()], place(), 1..8_usize)
            .prop_map(|(group, words, before, limit)| Op::Search { group, words, before, limit }),
    ]
}

struct World {
    // Before `dir`, so that it ends before the files go.
    store: GroupStore,
    dir: tempfile::TempDir,
    groups: Vec<Member>,
}

struct Member {
    group: Group,
    /// Messages that can still be edited.
    alive: Vec<u64>,
    /// Events whose text may be gone.
    erasable: BTreeSet<u64>,
    /// Whether former texts were ever to be discarded.
    discarded: bool,
    deleted: BTreeSet<u64>,
    snapshot: u64,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let groups = ["a", "b"].map(|id| Member {
            group: Group::new(id),
            alive: Vec::new(),
            erasable: BTreeSet::new(),
            discarded: false,
            deleted: BTreeSet::new(),
            snapshot: 0,
        });
        Self { dir, store, groups: groups.into() }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Commit { group, kinds, snapshot } => {
                let member = &mut self.groups[*group];
                let batch = member.batch(kinds, *snapshot);
                commit(&self.store, batch).unwrap();
            }
            Op::LetProject(events) => self.store.let_project(*events),
            Op::Settle => {
                self.store.let_project(None);
                self.store.settle();
            }
            Op::Reopen { close } => {
                if *close {
                    self.store.let_project(None);
                    self.store.close();
                }
                // The old store ends before the new one begins, as a process does.
                let elsewhere = tempfile::tempdir().unwrap();
                self.store = open(&elsewhere);
                self.store = open(&self.dir);
            }
            Op::Page { group, before, after, limit } => {
                self.check_page(*group, query(*before, *after, *limit));
            }
            Op::Around { group, around: seq, limit } => {
                self.check_page(*group, around(*seq, *limit));
            }
            Op::Events { group, from, len } => self.check_events(*group, *from, from + len),
            Op::Load { group } => self.check_load(*group),
            Op::HoldIndex(hold) => self.store.hold_index(*hold),
            Op::SettleIndex => {
                self.apply(&Op::Settle);
                self.store.hold_index(false);
                self.store.settle_index();
            }
            Op::Search { group, words, before, limit } => {
                self.check_search(*group, &words.map(|word| WORDS[word]), *before, *limit);
            }
        }
    }

    fn check_page(&self, group: usize, query: HistoryQuery) {
        let group = &self.groups[group].group;
        let page = self.store.history(group.key, query, group.head()).unwrap();
        assert_eq!(page, group.page(query, group.head()), "{query:?}");
    }

    fn check_search(&self, group: usize, words: &[&str], before: Option<u64>, limit: usize) {
        let group = &self.groups[group].group;
        let request = SearchRequest { before, limit: Some(limit), ..searching(&words.join(" ")) };
        let page = self.store.search(group.key, &request, group.head()).unwrap();
        let mut found: Vec<u64> = page.hits.iter().map(|hit| hit.message.seq).collect();
        let expected = group.search(words, before, limit);
        assert_eq!(page.more, expected.len() > limit, "{request:?}");
        found.extend(expected.get(limit));
        assert_eq!(found, expected, "{request:?}");
        for hit in page.hits {
            let now = group.messages(group.head()).into_iter();
            assert_eq!(Some(&hit.message), now.rev().find(|m| m.seq == hit.message.seq).as_ref());
            assert!(hit.snippet.iter().any(|piece| piece.hit), "{:?}", hit.snippet);
        }
    }

    fn check_events(&self, group: usize, from: u64, to: u64) {
        let member = &self.groups[group];
        let found = self.store.events(member.group.key, from, to);
        if to > member.group.head() {
            assert!(found.is_err());
            return;
        }
        member.assert_same(&found.unwrap(), from);
    }

    fn check_load(&self, group: usize) {
        let member = &self.groups[group];
        let Some(loaded) = self.store.load(member.group.key).unwrap() else {
            assert_eq!(member.group.head(), 0);
            return;
        };
        assert_eq!(loaded.snapshot.map_or(0, |snapshot| snapshot.seq), member.snapshot);
        assert_eq!((loaded.last_seq, loaded.chain), (member.group.head(), member.group.chain));
        assert_eq!(loaded.records.len() as u64, member.group.head() - member.snapshot);
        member.assert_same(&loaded.records, member.snapshot + 1);
    }
}

impl Member {
    fn batch(&mut self, kinds: &[Kind], snapshot: bool) -> crate::Batch {
        let mut events = Vec::new();
        for kind in kinds {
            let seq = self.group.head() + events.len() as u64 + 1;
            let target = |index: usize| (!self.alive.is_empty()).then(|| index % self.alive.len());
            events.push(match *kind {
                Kind::Post(size) => {
                    self.alive.push(seq);
                    let words = WORDS.iter().enumerate().filter(|(bit, _)| size >> bit & 1 == 1);
                    let words: Vec<_> = words.map(|(_, word)| *word).collect();
                    message(
                        &format!("m{seq}"),
                        &format!("{} {}", words.join(" "), "ä".repeat(size)),
                    )
                }
                Kind::Reply(index) => {
                    // What it answers may be there, or not, or be deleted.
                    self.alive.push(seq);
                    reply(&format!("m{seq}"), &format!("m{index}"), "reply")
                }
                Kind::Edit(index) => match target(index) {
                    Some(index) => edit(self.alive[index], &format!("edited by {seq}")),
                    None => unlisted(),
                },
                Kind::Delete(index) => match target(index) {
                    Some(index) => {
                        let message_seq = self.alive.remove(index);
                        self.erasable.insert(message_seq);
                        self.deleted.insert(message_seq);
                        delete(message_seq)
                    }
                    None => unlisted(),
                },
                Kind::React { message, by, emoji, on } => match target(message) {
                    Some(index) => react(self.alive[index], PEOPLE[by], EMOJIS[emoji], on),
                    None => unlisted(),
                },
                Kind::Policy(revisions) => {
                    self.discarded |= revisions == RevisionPolicy::Discard;
                    policy(revisions)
                }
                Kind::Run => run_finished(&format!("r{seq}")),
                Kind::Unlisted => unlisted(),
            });
        }
        let mut batch = self.group.batch(events);
        let mut texts: BTreeMap<u64, u64> = BTreeMap::new();
        for event in &self.group.events {
            if let EventKind::MessageEdited(edited) = &event.kind {
                let former = texts.insert(edited.message_seq, event.seq);
                if self.discarded {
                    self.erasable.insert(former.unwrap_or(edited.message_seq));
                }
                if self.deleted.contains(&edited.message_seq) {
                    self.erasable.insert(event.seq);
                }
            }
        }
        if snapshot {
            self.snapshot = self.group.head();
            let bytes = format!("state {}", self.snapshot).into();
            batch.snapshot = Some(crate::Snapshot { seq: self.snapshot, bytes });
        }
        batch
    }

    /// Each record is as it was submitted, or without its text if its message was deleted.
    fn assert_same(&self, found: &[Record], first: u64) {
        for (record, seq) in found.iter().zip(first..) {
            let submitted = &self.group.records[seq as usize - 1];
            let erased = self.erasable.contains(&seq) && *record == submitted.erase();
            assert!(record == submitted || erased, "event {seq}");
        }
    }
}

fn open(dir: &tempfile::TempDir) -> GroupStore {
    let options = StoreOptions { journal_file_bytes: 30_000, ..StoreOptions::default() };
    open_held_with(dir, Some(0), options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reads_equal_the_model_at_every_stage(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        for stage in [None, Some(Op::Settle), Some(Op::SettleIndex)] {
            if let Some(op) = stage {
                world.apply(&op);
            }
            for group in 0..2 {
                world.apply(&Op::Load { group });
                let head = world.groups[group].group.head();
                if head > 0 {
                    world.check_events(group, 1, head);
                }
                for limit in [1, 5, 200] {
                    world.apply(&Op::Page { group, before: None, after: None, limit });
                    world.apply(&Op::Page { group, before: None, after: Some(0), limit });
                }
                for word in WORDS {
                    world.check_search(group, &[word], None, 50);
                }
                let member = &world.groups[group];
                for post in &member.alive {
                    let id = MessageId::new(format!("m{post}")).unwrap();
                    let found = world.store.find_message(member.group.key, &id).unwrap();
                    prop_assert_eq!(found.unwrap().seq, *post);
                    let message = world.store.message(member.group.key, &id).unwrap().unwrap();
                    let expected = &member.group.page(query(Some(post + 1), None, 1), head).messages[0];
                    prop_assert_eq!(
                        (message.seq, message.deleted, &message.text),
                        (expected.seq, expected.deleted, &expected.posted.text)
                    );
                    let detail = world.store.detail(member.group.key, &id, head).unwrap();
                    prop_assert_eq!(detail, Some(member.group.detail(*post, head)));
                    let reactions = world.store.reactions(member.group.key, *post).unwrap();
                    let listed = reactions.into_iter().map(|one| (one.emoji, one.authors));
                    let expected = expected.reactions.iter().cloned();
                    prop_assert!(listed.eq(expected.map(|one| (one.emoji, one.authors))));
                }
            }
        }
    }
}
