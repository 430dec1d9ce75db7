//! What was acknowledged is there after a crash, in order, once.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, mpsc},
};

use convene_storage::{Overloaded, StoreError, StoreOptions};

use crate::support::{Counter, Group, commit, copy, message, open, open_with, query};

fn journal_files(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| {
            let name = name.to_str().unwrap();
            name.starts_with("journal-") && name.ends_with(".db")
        })
        .count()
}

#[test]
fn groups_share_commits_and_each_keeps_its_order() {
    const GROUPS: usize = 50;
    const BATCHES: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut groups: Vec<_> = (0..GROUPS).map(|i| Group::new(&format!("g{i}"))).collect();
    let told = Arc::new(Mutex::new(vec![Vec::new(); GROUPS]));
    for round in 0..BATCHES {
        for (index, group) in groups.iter_mut().enumerate() {
            let told = Arc::clone(&told);
            let batch = group.post(&format!("round {round}"));
            store
                .submit(batch, move |result| {
                    result.unwrap();
                    told.lock().unwrap()[index].push(round);
                })
                .unwrap();
        }
    }
    store.flush();
    for order in told.lock().unwrap().iter() {
        assert_eq!(*order, (0..BATCHES).collect::<Vec<_>>());
    }
    let stats = store.stats();
    assert_eq!((stats.events, stats.batches), (2000, 2000));
    assert!(stats.commits < 2000, "{} commits", stats.commits);
    drop(store);
    let store = open(&dir);
    for group in &groups {
        assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    }
}

#[test]
fn a_group_goes_on_after_a_crash_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    for round in 0..10 {
        let store = open(&dir);
        commit(&store, group.post(&format!("round {round}"))).unwrap();
        commit(&store, group.post(&format!("round {round} again"))).unwrap();
        if round % 3 == 0 {
            store.settle();
        }
        if round % 4 == 0 {
            store.close();
        }
    }
    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    store.settle();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    let page = store.history(group.key, query(None, None, 50), 20).unwrap();
    assert_eq!(page, group.page(query(None, None, 50), 20));
}

#[test]
fn what_was_submitted_is_committed_when_the_store_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    let done = Counter::default();
    for _ in 0..500 {
        let done = done.clone();
        store
            .submit(group.post("hi"), move |result| {
                result.unwrap();
                done.add();
            })
            .unwrap();
    }
    drop(store);
    assert_eq!(done.get(), 500);
    assert_eq!(open(&dir).load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn a_closed_store_takes_nothing_and_still_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    commit(&store, group.post("one")).unwrap();
    store.close();
    store.close();
    assert_eq!(store.stats().lag_events, 0, "closing projects everything");
    let refused = store.submit(group.post("two"), |_| panic!("nothing was queued"));
    assert!(matches!(refused, Err(Overloaded { .. })));
    let loaded = store.load(group.key).unwrap().unwrap();
    assert_eq!(loaded.records, group.records[..1], "what was refused is nowhere");
}

#[test]
fn journal_files_rotate_and_go_when_they_are_covered() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions { journal_file_bytes: 20_000, ..StoreOptions::default() };
    let mut group = Group::new("g");
    let store = open_with(&dir, options()).unwrap();
    for i in 0..200 {
        commit(&store, group.post(&format!("{i} {}", "x".repeat(1000)))).unwrap();
    }
    store.close();
    assert_eq!(store.stats().journal_files, 1);
    assert_eq!(journal_files(dir.path()), 1, "only the file that is written is left");
    assert!(!dir.path().join("journal-000001.db").exists());
    assert!(!dir.path().join("journal-000001.db-wal").exists());
    drop(store);

    let store = open_with(&dir, options()).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    commit(&store, group.post("goes on")).unwrap();
    drop(store);
    let store = open_with(&dir, options()).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn a_full_commit_queue_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { max_queued_events: 10, ..StoreOptions::default() };
    let store = open_with(&dir, options).unwrap();
    let mut group = Group::new("g");
    // The committer stands still in the first answer until it is let go.
    let (reached, wait_reached) = mpsc::channel();
    let (go, wait_go) = mpsc::channel::<()>();
    store
        .submit(group.post("first"), move |_| {
            reached.send(()).unwrap();
            wait_go.recv().unwrap();
        })
        .unwrap();
    wait_reached.recv().unwrap();
    for _ in 0..10 {
        store.has_room().unwrap();
        store.submit(group.post("waits"), |result| result.unwrap()).unwrap();
    }
    assert!(store.has_room().is_err());
    let mut ahead = Group::new("other");
    // What was stepped before anybody asked cannot be taken back, so it is taken.
    store.submit(ahead.post("stepped already"), |result| result.unwrap()).unwrap();
    go.send(()).unwrap();
    store.flush();
    assert_eq!(store.load(ahead.key).unwrap().unwrap().records, ahead.records);
    store.has_room().unwrap();
    commit(&store, group.post("goes on")).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn rooms_that_are_ahead_of_the_journal_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open(&dir);
    commit(&store, group.post("one")).unwrap();
    store.close();
    drop(store);
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    let store = open(&dir);
    commit(&store, group.post("two")).unwrap();
    store.close();
    drop(store);
    fs::copy(old.path().join("journal-000001.db"), dir.path().join("journal-000001.db")).unwrap();
    let error = open_with(&dir, StoreOptions::default()).err().unwrap();
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("ends at row 1")), "{error}");
}

#[test]
fn rooms_of_another_journal_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        let store = open(dir);
        commit(&store, Group::new("g").post("one")).unwrap();
        store.close();
    }
    fs::copy(one.path().join("rooms.db"), two.path().join("rooms.db")).unwrap();
    let error = open_with(&two, StoreOptions::default()).err().unwrap();
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("another journal")));
}

#[test]
fn rooms_without_their_journal_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).close();
    fs::remove_file(dir.path().join("journal-000001.db")).unwrap();
    let error = open_with(&dir, StoreOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::Refused(_)));
    assert!(!dir.path().join("journal-000001.db").exists(), "a refusal changes nothing");
}

#[test]
fn rooms_that_are_lost_are_rebuilt_as_long_as_the_journal_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open(&dir);
    commit(&store, group.batch([message("a", "one"), message("b", "two")])).unwrap();
    store.close();
    drop(store);
    fs::remove_file(dir.path().join("rooms.db")).unwrap();
    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    store.settle();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn an_older_rooms_file_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open(&dir);
    commit(&store, group.post("one")).unwrap();
    store.close();
    drop(store);
    let old = tempfile::tempdir().unwrap();
    copy(dir.path(), old.path());
    let store = open(&dir);
    commit(&store, group.post("two")).unwrap();
    store.close();
    drop(store);
    fs::copy(old.path().join("rooms.db"), dir.path().join("rooms.db")).unwrap();
    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    store.settle();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}
