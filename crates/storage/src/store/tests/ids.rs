//! Message ids that are known without asking the database: always right, whatever comes between.

use convene_model::MessageId;
use proptest::prelude::*;

use super::{
    super::{GroupStore, StoreOptions},
    open_held, open_held_with,
    support::{Group, commit, open},
};
use crate::rooms::ids::LOOKUPS_BEFORE_LEARNING;

fn id(seq: u64) -> MessageId {
    MessageId::new(format!("m{seq}")).unwrap()
}

/// Looks an id up that is not there, often enough for the group's ids to be learned.
fn ask_often(store: &GroupStore, group: &Group) {
    for n in 0..=u64::from(LOOKUPS_BEFORE_LEARNING) {
        assert_eq!(store.find_message(group.key, &id(1_000_000 + n)).unwrap(), None);
    }
    store.let_keeper_catch_up();
}

fn without_the_table(dir: &tempfile::TempDir) {
    let rooms = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    rooms.execute_batch("DROP TABLE message_ids").unwrap();
}

#[test]
fn a_new_id_is_answered_without_the_database_once_the_ids_are_learned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    for _ in 0..1500 {
        store.submit(group.post("hi"), |_| {}).unwrap();
    }
    store.settle();
    ask_often(&store, &group);
    commit(&store, group.post("later")).unwrap();
    store.settle();
    for seq in 1..=group.head() {
        assert_eq!(store.find_message(group.key, &id(seq)).unwrap().unwrap().seq, seq);
    }
    without_the_table(&dir);
    store.refresh_lookups();
    let foreign = (2_000..3_000).map(|n| store.find_message(group.key, &id(n)));
    let unasked = foreign.filter(|found| matches!(found, Ok(None))).count();
    assert!(unasked > 900, "{unasked} of 1000");
    store.find_message(group.key, &id(1)).expect_err("what may be there is looked up");
}

#[test]
fn a_released_group_is_learned_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    commit(&store, group.post("hi")).unwrap();
    ask_often(&store, &group);
    assert!(store.stats().id_filter_bytes > 0);
    store.release(group.key);
    assert_eq!(store.stats().id_filter_bytes, 0);
    // Nothing adds this one to a filter, since there is none.
    commit(&store, group.post("unnoticed")).unwrap();
    store.settle();
    ask_often(&store, &group);
    assert_eq!(store.find_message(group.key, &id(2)).unwrap().unwrap().seq, 2);
}

#[derive(Debug, Clone)]
enum Op {
    Post(u64),
    Ask,
    AskOften,
    CatchUp,
    Release,
    Project(usize),
    Settle,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..40_u64).prop_map(Op::Post),
        4 => Just(Op::Ask),
        4 => Just(Op::AskOften),
        2 => Just(Op::CatchUp),
        2 => Just(Op::Release),
        4 => (0..30_usize).prop_map(Op::Project),
        1 => Just(Op::Settle),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn ids_are_found_exactly_when_they_were_posted(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open_held(&dir, Some(0)).unwrap();
        let mut group = Group::new("g");
        for op in ops {
            match op {
                Op::Post(count) => {
                    for _ in 0..count {
                        let submitted = store.submit(group.post("hi"), |_| {});
                        prop_assert!(submitted.is_ok());
                    }
                }
                Op::Ask => {}
                Op::AskOften => {
                    for n in 0..=u64::from(LOOKUPS_BEFORE_LEARNING) {
                        prop_assert_eq!(store.find_message(group.key, &id(9_000 + n)).unwrap(), None);
                    }
                }
                Op::CatchUp => store.let_keeper_catch_up(),
                Op::Release => store.release(group.key),
                Op::Project(events) => store.let_project(Some(events)),
                Op::Settle => {
                    store.let_project(None);
                    store.settle();
                    store.let_project(Some(0));
                }
                Op::Reopen => {
                    store.let_project(None);
                    store.close();
                    drop(store);
                    store = open_held_with(&dir, Some(0), StoreOptions::default()).unwrap();
                }
            }
            for seq in 1..=group.head() + 3 {
                let found = store.find_message(group.key, &id(seq)).unwrap();
                let expected = (seq <= group.head()).then_some(seq);
                prop_assert_eq!(found.map(|found| found.seq), expected);
            }
        }
        store.let_project(None);
    }
}
