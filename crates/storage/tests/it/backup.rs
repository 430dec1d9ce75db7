//! Copies of a store that is being written, and the offline check.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use convene_model::event::RevisionPolicy;
use convene_storage::{
    GroupStore, StoreError, StoreOptions, backup,
    check::{Report, check},
};
use rusqlite::Connection;

use crate::support::{Group, commit, delete, edit, message, open, open_with, policy, query, react};

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    backup::copy_groups(dir, copy.path(), &mut |_| {}).unwrap();
    copy
}

fn open_copy(copy: &tempfile::TempDir) -> GroupStore {
    let options = StoreOptions::default();
    GroupStore::open_to_adopt(copy.path(), options, |why| panic!("fatal: {why}")).unwrap()
}

fn checked(dir: &Path) -> Report {
    check(dir, &mut |_| {}).unwrap()
}

/// A store with something of everything, closed.
fn lived_in(dir: &tempfile::TempDir) -> Vec<Group> {
    let store = open(dir);
    let mut groups: Vec<_> = (0..3).map(|i| Group::new(&format!("g{i}"))).collect();
    for group in &mut groups {
        let first = [message("m1", "one"), message("m2", "two"), edit(1, "uno")];
        commit(&store, group.batch(first)).unwrap();
        commit(&store, group.snapshot("state")).unwrap();
        let second = [policy(RevisionPolicy::Discard), edit(1, "ein"), react(1, "u1", "👍", true)];
        commit(&store, group.batch(second)).unwrap();
        commit(&store, group.batch([delete(2)])).unwrap();
        commit(&store, group.post(&"long".repeat(30_000))).unwrap();
    }
    store.settle_index();
    store.close();
    groups
}

#[test]
fn a_copy_is_refused_until_it_is_adopted_and_then_holds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let groups = lived_in(&dir);
    let mut copied = 0;
    let copy = tempfile::tempdir().unwrap();
    backup::copy_groups(dir.path(), copy.path(), &mut |bytes| copied += bytes).unwrap();
    assert!(copied > 0 && copied <= backup::size_of_groups(dir.path()).unwrap());
    for entry in std::fs::read_dir(copy.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
    let refused = open_with(&copy, StoreOptions::default()).err().unwrap();
    let told =
        matches!(&refused, StoreError::Refused(why) if why.contains("convene journal adopt"));
    assert!(told, "{refused}");

    backup::mark_adopted(copy.path()).unwrap();
    let store = open(&copy);
    for group in &groups {
        let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
        assert_eq!(page, group.page(query(None, None, 10), group.head()));
        assert_eq!(store.load(group.key).unwrap().unwrap().chain, group.chain);
    }
    let mut names = store.groups().unwrap();
    names.sort();
    assert_eq!(names, groups.iter().map(|group| group.group_id.clone()).collect::<Vec<_>>());
}

#[test]
fn a_copy_of_a_store_under_load_is_one_that_a_crash_could_have_left() {
    let dir = tempfile::tempdir().unwrap();
    // Small files, so that they come and go while they are copied.
    let options = StoreOptions { journal_file_bytes: 60_000, ..StoreOptions::default() };
    let store = open_with(&dir, options).unwrap();
    let stop = AtomicBool::new(false);
    let mut groups: Vec<_> = (0..4).map(|i| Group::new(&format!("g{i}"))).collect();
    for group in &mut groups {
        commit(&store, group.post("first")).unwrap();
    }
    /// Ends the writers however the test ends.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let writers: Vec<_> = groups
            .iter_mut()
            .map(|group| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        commit(store, group.post(&"x".repeat(3000))).unwrap();
                    }
                })
            })
            .collect();
        let mut longest = 0;
        for _ in 0..24 {
            let before = store.stats().events;
            let copy = copy_of(dir.path());
            let report = checked(copy.path());
            assert_eq!(report.problems, Vec::<String>::new());
            let copied = open_copy(&copy);
            let mut total = 0;
            for id in copied.groups().unwrap() {
                let loaded = copied.load(id.key()).unwrap().unwrap();
                assert_eq!(loaded.records.len() as u64, loaded.last_seq);
                total += loaded.last_seq;
            }
            assert!(total >= before, "{total} events copied, {before} were there before");
            longest = total;
        }
        drop(stopping);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(longest > 8);
    });
    store.settle();
    for group in &groups {
        assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    }
}

#[test]
fn a_sound_store_has_no_problems_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let groups = lived_in(&dir);
    let events: u64 = groups.iter().map(Group::head).sum();
    let report = checked(dir.path());
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.groups, report.events, report.messages), (3, events, 9));
    assert_eq!((report.snapshots, report.journal_files, report.quarantined), (3, 1, 0));
    assert!(report.journal_rows > 3 && report.unprojected_rows == 0 && report.chunks > 3);
}

#[test]
fn whatever_was_tampered_with_is_found() {
    for (file, statement, told) in [
        ("rooms.db", "UPDATE chunks SET checksum = x'00' WHERE id = 1", "checksum"),
        ("rooms.db", "DELETE FROM chunks WHERE id = 1", "does not continue"),
        ("rooms.db", "UPDATE groups SET head = head + 1 WHERE group_id = 'g1'", "head"),
        ("rooms.db", "UPDATE groups SET chain = zeroblob(32) WHERE group_id = 'g1'", "head"),
        ("rooms.db", "UPDATE groups SET quarantined = 'why' WHERE group_id = 'g1'", "quarantine"),
        ("rooms.db", "UPDATE snapshots SET body = x'00'", "snapshot"),
        ("rooms.db", "DELETE FROM message_ids WHERE message_id = 'm1'", "message ids"),
        ("rooms.db", "UPDATE message_ids SET digest = zeroblob(16)", "not known"),
        ("rooms.db", "DELETE FROM message_changes WHERE deleted", "did not change"),
        ("rooms.db", "UPDATE position SET pos = pos + 100", "rooms.db has come to row"),
        (
            "journal-000001.db",
            "UPDATE journal SET chain = zeroblob(32) WHERE pos = 2",
            "journal row 2",
        ),
        ("journal-000001.db", "UPDATE journal SET n = n + 1 WHERE pos = 2", "journal row 2"),
        ("journal-000001.db", "DELETE FROM journal WHERE pos = 2", "journal row 2 is missing"),
        ("journal-000001.db", "UPDATE meta SET journal_id = zeroblob(16)", "another journal"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        lived_in(&dir);
        let connection = Connection::open(dir.path().join(file)).unwrap();
        assert!(connection.execute(statement, []).unwrap() > 0, "{statement}");
        drop(connection);
        let report = checked(dir.path());
        assert!(report.problem_count > 0, "{statement}");
        let problems = report.problems.join("\n");
        assert!(problems.contains(told), "{statement}: {problems}");
    }
}

#[test]
fn a_damaged_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(&dir);
    let path = dir.path().join("rooms.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let found = check(dir.path(), &mut |_| {});
    assert!(found.is_err() || found.is_ok_and(|report| report.problem_count > 0));
}

#[test]
fn where_there_is_no_store_nothing_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(check(dir.path(), &mut |_| {}), Err(StoreError::Refused(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "and nothing is made");
}
