//! Copies of the files at a moment when the projector stands still: what a crash leaves behind.

use std::fs;

use convene_model::MessageId;

use super::{
    super::{GroupStore, StoreError, StoreOptions},
    open_held_with,
    support::{Group, commit, copy, open},
};

const NOTHING: Option<usize> = Some(0);

fn small_files() -> StoreOptions {
    StoreOptions { journal_file_bytes: 2_000, ..StoreOptions::default() }
}

fn settle_and_hold(store: &GroupStore) {
    store.let_project(None);
    store.settle();
    store.let_project(NOTHING);
}

#[test]
fn what_was_acknowledged_is_in_a_copy_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_held_with(&dir, NOTHING, StoreOptions::default()).unwrap();
    let mut group = Group::new("g");
    for round in 0..20 {
        commit(&store, group.post(&format!("round {round}"))).unwrap();
        if round % 7 == 0 {
            settle_and_hold(&store);
        }
        let crashed = tempfile::tempdir().unwrap();
        copy(dir.path(), crashed.path());
        let reopened = open(&crashed);
        assert_eq!(reopened.load(group.key).unwrap().unwrap().records, group.records);
        let last = MessageId::new(format!("m{}", group.head())).unwrap();
        let found = reopened.find_message(group.key, &last).unwrap();
        assert_eq!(found.unwrap().seq, group.head());
        reopened.settle();
        assert_eq!(reopened.load(group.key).unwrap().unwrap().records, group.records);
    }
}

#[test]
fn a_crash_with_several_journal_files_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open_held_with(&dir, NOTHING, small_files()).unwrap();
    for _ in 0..20 {
        commit(&store, group.post(&"x".repeat(1000))).unwrap();
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let reopened = open_held_with(&crashed, NOTHING, small_files()).unwrap();
    assert!(reopened.stats().journal_files > 5);
    assert_eq!(reopened.load(group.key).unwrap().unwrap().records, group.records);
    settle_and_hold(&reopened);
    assert_eq!(reopened.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn a_missing_journal_file_in_the_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open_held_with(&dir, NOTHING, small_files()).unwrap();
    for _ in 0..8 {
        commit(&store, group.post(&"x".repeat(1000))).unwrap();
    }
    assert!(store.stats().journal_files >= 3);
    drop(store);
    fs::remove_file(dir.path().join("journal-000002.db")).unwrap();
    let error = open_held_with(&dir, NOTHING, small_files()).err().unwrap();
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("missing")), "{error}");
}

#[test]
fn a_journal_file_goes_only_when_all_of_it_is_projected() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open_held_with(&dir, NOTHING, small_files()).unwrap();
    for _ in 0..8 {
        commit(&store, group.post(&"x".repeat(1000))).unwrap();
    }
    let files = store.stats().journal_files;
    assert!(files >= 4, "{files} files");
    // The first file, which counts its tables and so holds one row, and half of the second.
    store.let_project(Some(2));
    store.inner.settled.wait_until(|| store.stats().lag_events == 6);
    drop(store);
    assert!(!dir.path().join("journal-000001.db").exists(), "it is covered");
    assert!(!dir.path().join("journal-000001.db-wal").exists());
    assert!(dir.path().join("journal-000002.db").exists(), "half of it is not projected");
    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    store.close();
    assert_eq!(store.stats().journal_files, 1);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}
