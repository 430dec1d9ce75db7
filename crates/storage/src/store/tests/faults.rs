//! Bounds, failures and damage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use convene_model::{MessageId, Timestamp};
use rusqlite::Connection;

use super::{
    super::{CommitFailed, GroupStore, Hooks, NoRoom, StoreError, StoreOptions},
    open_held, open_held_with,
    support::{Counter, Group, commit, delete, edit, message, open, query},
};

const NOTHING: Option<usize> = Some(0);

fn sql(dir: &tempfile::TempDir, file: &str, statement: &str) -> usize {
    Connection::open(dir.path().join(file)).unwrap().execute(statement, []).unwrap()
}

fn number(dir: &tempfile::TempDir, file: &str, statement: &str) -> i64 {
    let connection = Connection::open(dir.path().join(file)).unwrap();
    connection.query_row(statement, [], |row| row.get(0)).unwrap()
}

fn is_quarantined<T: std::fmt::Debug>(result: Result<T, StoreError>, group: &Group) -> String {
    match result.unwrap_err() {
        StoreError::Quarantined { group: key, detail } if key == group.key => detail,
        other => panic!("{other}"),
    }
}

/// A quarantined group gives nothing and takes nothing, another one works as ever.
fn assert_only_one_is_in_quarantine(store: &GroupStore, bad: &mut Group, good: &mut Group) {
    is_quarantined(store.load(bad.key), bad);
    is_quarantined(store.events(bad.key, 1, 1), bad);
    is_quarantined(store.history(bad.key, query(None, None, 10), 100), bad);
    is_quarantined(store.find_message(bad.key, &MessageId::new("m1").unwrap()), bad);
    assert!(matches!(commit(store, bad.post("no")), Err(CommitFailed::Quarantined(_))));
    assert_eq!(store.stats().quarantined_groups, 1);

    commit(store, good.post("goes on")).unwrap();
    store.settle();
    assert_eq!(store.load(good.key).unwrap().unwrap().records, good.records);
    let page = store.history(good.key, query(None, None, 10), good.head()).unwrap();
    assert_eq!(page, good.page(query(None, None, 10), good.head()));
}

#[test]
fn a_projector_that_stands_still_is_overlaid_until_its_bound_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { max_lag_events: 20, ..StoreOptions::default() };
    let store = open_held_with(&dir, NOTHING, options).unwrap();
    let mut group = Group::new("g");
    for _ in 0..20 {
        store.has_room().unwrap();
        commit(&store, group.post("hi")).unwrap();
    }
    assert_eq!(store.stats().lag_events, 20);
    assert!(store.has_room().unwrap_err().retry_after_ms() > 0);
    // What was stepped before anybody asked cannot be taken back, so it is taken.
    commit(&store, group.post("stepped already")).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);

    store.let_project(None);
    store.settle();
    assert_eq!(store.stats().lag_events, 0);
    store.has_room().unwrap();
    commit(&store, group.post("goes on")).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn the_lag_is_bounded_in_bytes_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { max_lag_bytes: 10_000, ..StoreOptions::default() };
    let store = open_held_with(&dir, NOTHING, options).unwrap();
    let mut group = Group::new("g");
    commit(&store, group.post(&"x".repeat(9_000))).unwrap();
    store.has_room().unwrap();
    commit(&store, group.post(&"x".repeat(1_000))).unwrap();
    assert!(store.has_room().is_err());
    store.let_project(None);
    store.settle();
    store.has_room().unwrap();
}

#[test]
fn a_failed_commit_acknowledges_nothing_and_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Counter::default();
    let hooks = Hooks { journal_pages: Some(40), ..Hooks::default() };
    let on_fatal = {
        let fatal = fatal.clone();
        Arc::new(move |_| {
            fatal.add();
        })
    };
    let store =
        GroupStore::open_with(dir.path(), StoreOptions::default(), on_fatal, &hooks).unwrap();
    let mut groups: Vec<_> = (0..4).map(|i| Group::new(&format!("g{i}"))).collect();
    let mut acknowledged = vec![0; groups.len()];
    let (told, hear) = mpsc::channel();
    'full: for _ in 0..100 {
        for (index, group) in groups.iter_mut().enumerate() {
            let told = told.clone();
            let batch = group.batch((0..3).map(|i| message(&format!("x{i}"), &"x".repeat(1000))));
            let batch = crate::Batch { posts: vec![], ..batch };
            if store.submit(batch, move |result| told.send((index, result)).unwrap()).is_err() {
                break 'full;
            }
        }
        store.flush();
    }
    drop(told);
    store.flush();
    assert!(store.has_room().is_err(), "nothing is taken after a failed commit");
    drop(store);
    let mut failed = 0;
    for (index, result) in hear {
        match result {
            Ok(()) => acknowledged[index] += 3,
            Err(error) => {
                assert_eq!(error, CommitFailed::OutcomeUnknown);
                failed += 1;
            }
        }
    }
    assert_eq!(fatal.get(), 1);
    assert!(failed > 0 && acknowledged[0] > 0);

    let store = open_held(&dir, NOTHING).unwrap();
    for (group, acknowledged) in groups.iter().zip(acknowledged) {
        let loaded = store.load(group.key).unwrap().unwrap();
        assert!(loaded.last_seq >= acknowledged, "what was acknowledged is there");
        assert_eq!(loaded.last_seq % 3, 0, "no batch is there in part");
        assert_eq!(loaded.records, group.records[..loaded.last_seq as usize]);
    }
}

#[test]
fn a_full_disk_refuses_what_is_new_and_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX / 2));
    let hooks = Hooks { free: Some(Arc::clone(&free)), ..Hooks::default() };
    let options = StoreOptions { disk_reserve_bytes: 4000, ..StoreOptions::default() };
    let on_fatal = || Arc::new(|reason| panic!("fatal: {reason}"));
    let open = || GroupStore::open_with(dir.path(), options.clone(), on_fatal(), &hooks).unwrap();
    let mut group = Group::new("g");
    // How long a look holds is the only thing that this waits for.
    let refuses = |store: &GroupStore, refused: bool| {
        while store.has_room().is_err() != refused {
            std::thread::yield_now();
        }
        if refused {
            assert!(matches!(store.has_room(), Err(NoRoom::DiskFull { retry_after_ms: 1.. })));
        }
    };
    let store = open();
    refuses(&store, false);
    commit(&store, group.post("one")).unwrap();
    assert!(dir.path().join("ballast").exists());

    free.store(10, Ordering::Relaxed);
    refuses(&store, true);
    // What was stepped before anybody asked is written all the same, and everything is read.
    commit(&store, group.post("stepped already")).unwrap();
    let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
    assert_eq!(page, group.page(query(None, None, 10), group.head()));
    store.close();
    drop(store);

    let store = open();
    assert!(!dir.path().join("ballast").exists(), "a start on a full disk takes its room");
    refuses(&store, true);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    free.store(1 << 40, Ordering::Relaxed);
    refuses(&store, false);
    commit(&store, group.post("three")).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().last_seq, 3);
    store.close();
    assert!(dir.path().join("ballast").exists());
}

#[test]
fn a_journal_file_that_cannot_be_begun_leaves_the_one_before_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { journal_file_bytes: 20_000, ..StoreOptions::default() };
    let store = open_held_with(&dir, None, options.clone()).unwrap();
    // SQLite cannot make its WAL where a folder is.
    let obstacle = dir.path().join("journal-000002.db-wal");
    std::fs::create_dir(&obstacle).unwrap();
    let mut group = Group::new("g");
    for _ in 0..60 {
        commit(&store, group.post(&"x".repeat(1000))).unwrap();
    }
    assert_eq!(store.stats().journal_files, 1);
    assert!(!dir.path().join("journal-000002.db").exists());
    std::fs::remove_dir(&obstacle).unwrap();
    for _ in 0..60 {
        commit(&store, group.post(&"x".repeat(1000))).unwrap();
    }
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let later = names.filter_map(|name| name.into_string().ok()).filter(|name| {
        name.ends_with(".db") && name.as_str() > "journal-000001.db" && name.starts_with("journal-")
    });
    assert!(later.count() > 0, "once it is possible the next file is begun");
    drop(store);
    let store = open_held_with(&dir, None, options).unwrap();
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
}

#[test]
fn a_panic_in_an_answer_is_fatal_and_nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Counter::default();
    let told = fatal.clone();
    let store = GroupStore::open(dir.path(), StoreOptions::default(), move |_| {
        told.add();
    })
    .unwrap();
    let mut group = Group::new("g");
    store.submit(group.post("one"), |_| panic!("a bug of the caller")).unwrap();
    store.flush();
    drop(store);
    assert_eq!(fatal.get(), 1);
    assert_eq!(open(&dir).load(group.key).unwrap().unwrap().last_seq, 1);
}

#[test]
fn a_tampered_journal_row_puts_its_group_alone_in_quarantine() {
    for (case, statement) in [
        (
            "body",
            "UPDATE journal SET body = CAST(replace(CAST(body AS TEXT), 'hello', 'jello') AS BLOB)",
        ),
        ("first_seq", "UPDATE journal SET first_seq = 7"),
        ("n", "UPDATE journal SET n = n + 1"),
        ("chain", "UPDATE journal SET chain = zeroblob(32)"),
        ("wake_at", "UPDATE journal SET wake_at = 1"),
        ("checksum", "UPDATE journal SET checksum = x'00'"),
        ("snapshot", "UPDATE journal SET snapshot = x'00', snapshot_seq = 1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
        bad.wake_at = Some(Timestamp::from_secs(9));
        let store = open_held(&dir, NOTHING).unwrap();
        for _ in 0..2 {
            commit(&store, bad.post("hello")).unwrap();
            commit(&store, good.post("hello")).unwrap();
        }
        drop(store);
        let changed = sql(&dir, "journal-000001.db", &format!("{statement} WHERE pos = 1"));
        assert_eq!(changed, 1, "{case}");

        let store = open(&dir);
        let detail = is_quarantined(store.load(bad.key), &bad);
        assert!(detail.contains("journal row 1 of group bad"), "{case}: {detail}");
        assert_eq!(store.alarms().unwrap(), []);
        assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
        store.close();
        drop(store);
        let kept = number(&dir, "rooms.db", "SELECT count(*) FROM quarantined_rows");
        assert_eq!(kept, 2, "{case}: nothing is lost");
        assert_only_one_is_in_quarantine(&open(&dir), &mut bad, &mut good);
    }
}

#[test]
fn a_journal_row_of_nobody_or_a_missing_one_refuses_the_journal() {
    for statement in [
        "UPDATE journal SET group_id = 'other' WHERE pos = 2",
        "UPDATE journal SET group_key = x'00' WHERE pos = 2",
        "DELETE FROM journal WHERE pos = 2",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_held(&dir, NOTHING).unwrap();
        let mut group = Group::new("g");
        for _ in 0..3 {
            commit(&store, group.post("hello")).unwrap();
        }
        drop(store);
        assert_eq!(sql(&dir, "journal-000001.db", statement), 1);
        let error = open_held(&dir, NOTHING).err().unwrap();
        assert!(
            matches!(&error, StoreError::Refused(why) if why.contains("journal row 2")),
            "{statement}: {error}"
        );
    }
}

#[test]
fn a_chain_that_does_not_fit_puts_its_group_alone_in_quarantine() {
    for held in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
        let store = open_held(&dir, NOTHING).unwrap();
        commit(&store, bad.post("one")).unwrap();
        commit(&store, good.post("one")).unwrap();
        let mut wrong = bad.post("two");
        wrong.chain[0] ^= 1;
        commit(&store, wrong).unwrap();
        let store = if held {
            drop(store);
            open(&dir)
        } else {
            store.let_project(None);
            store.settle();
            store
        };
        let detail = is_quarantined(store.load(bad.key), &bad);
        assert!(detail.contains("chain"), "{detail}");
        assert_eq!(detail.contains("journal row 3"), held, "{detail}");
        assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
        store.close();
        drop(store);
        assert_only_one_is_in_quarantine(&open(&dir), &mut bad, &mut good);
    }
}

#[test]
fn tampered_rooms_put_their_group_alone_in_quarantine() {
    for (case, statement) in [
        (
            "body",
            "UPDATE chunks SET body = CAST(replace(CAST(body AS TEXT), 'hello', 'jello') AS BLOB)",
        ),
        ("chain_before", "UPDATE chunks SET chain_before = randomblob(32)"),
        ("chain_after", "UPDATE chunks SET chain_after = zeroblob(32)"),
        ("checksum", "UPDATE chunks SET checksum = x'01'"),
        ("shown", "UPDATE chunks SET shown = shown + 1"),
        ("a chunk", "DELETE FROM chunks"),
        ("head", "UPDATE groups SET head = head + 1"),
        ("chain", "UPDATE groups SET chain = zeroblob(32)"),
        ("snapshot", "UPDATE snapshots SET body = x'00'"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
        let store = open(&dir);
        commit(&store, bad.post("hello")).unwrap();
        commit(&store, bad.snapshot("state")).unwrap();
        commit(&store, good.post("hello")).unwrap();
        store.close();
        drop(store);
        let key: String = bad.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let changed = sql(&dir, "rooms.db", &format!("{statement} WHERE group_key = x'{key}'"));
        assert_eq!(changed, 1, "{case}");

        let store = open(&dir);
        is_quarantined(store.load(bad.key), &bad);
        assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
        store.close();
        drop(store);
        assert_only_one_is_in_quarantine(&open(&dir), &mut bad, &mut good);
    }
}

#[test]
fn a_group_in_quarantine_can_be_wiped_with_what_is_wrong_with_it() {
    // Projected or not, and after a restart in between.
    for (projected, restarted) in [(true, false), (true, true), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
        let store = open(&dir);
        commit(&store, bad.post("hello")).unwrap();
        commit(&store, good.post("hello")).unwrap();
        store.close();
        drop(store);
        let key: String = bad.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        sql(&dir, "rooms.db", &format!("UPDATE groups SET head = 7 WHERE group_key = x'{key}'"));
        let store =
            open_held_with(&dir, if projected { None } else { NOTHING }, StoreOptions::default());
        let mut store = store.unwrap();
        is_quarantined(store.load(bad.key), &bad);
        if projected {
            assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
        }
        if restarted {
            store.close();
            drop(store);
            store = open(&dir);
        }
        let (done, committed) = mpsc::channel();
        store.purge(&bad.group_id, move |result| done.send(result).unwrap()).unwrap();
        committed.recv().unwrap().unwrap();
        store.let_project(None);
        assert!(store.wait_until_wiped(bad.key, Duration::from_secs(30)));
        assert_eq!(store.stats().quarantined_groups, 0);
        assert!(store.load(bad.key).unwrap().is_none());
        commit(&store, good.post("goes on")).unwrap();
        store.settle();
        store.close();
        drop(store);
        for table in ["groups", "chunks", "message_ids", "quarantined_rows"] {
            let left = format!("SELECT count(*) FROM {table} WHERE group_key = x'{key}'");
            assert_eq!(number(&dir, "rooms.db", &left), 0, "{table}");
        }
        let store = open(&dir);
        assert!(store.load(bad.key).unwrap().is_none());
        assert_eq!(store.load(good.key).unwrap().unwrap().records, good.records);
        // What was wiped may be begun anew.
        let mut anew = Group::new("bad");
        commit(&store, anew.post("anew")).unwrap();
        store.settle();
        assert_eq!(store.load(anew.key).unwrap().unwrap().records, anew.records);
    }
}

#[test]
fn a_message_id_that_comes_twice_puts_its_group_alone_in_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
    let store = open_held(&dir, NOTHING).unwrap();
    commit(&store, bad.post("one")).unwrap();
    commit(&store, good.post("one")).unwrap();
    commit(&store, bad.batch([message("m1", "again")])).unwrap();
    commit(&store, good.post("two")).unwrap();
    store.let_project(None);
    store.settle();
    let detail = is_quarantined(store.load(bad.key), &bad);
    assert!(detail.contains("event 2 posts m1 again"), "{detail}");
    assert_eq!(store.load(good.key).unwrap().unwrap().records, good.records);
    let kept = number(&dir, "rooms.db", "SELECT count(*) FROM quarantined_rows");
    assert_eq!(kept, 2, "both rows of the group are put aside whole");
    assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
}

#[test]
fn a_message_id_that_was_projected_before_may_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
    let store = open(&dir);
    commit(&store, bad.post("one")).unwrap();
    store.settle();
    commit(&store, bad.batch([message("m1", "again")])).unwrap();
    store.settle();
    assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
    let projected = number(&dir, "rooms.db", "SELECT count(*) FROM message_ids");
    assert_eq!(projected, 2, "the first one stands, and the good group's");
}

#[test]
fn a_batch_that_leaves_a_gap_puts_its_group_alone_in_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
    let store = open(&dir);
    commit(&store, bad.post("one")).unwrap();
    bad.post("lost on the way");
    commit(&store, bad.post("three")).unwrap();
    store.settle();
    let detail = is_quarantined(store.load(bad.key), &bad);
    assert!(detail.contains("event 3 follows event 1"), "{detail}");
    assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
}

#[test]
fn a_change_of_something_that_is_no_message_puts_its_group_alone_in_quarantine() {
    for change in [edit(7, "what?"), delete(7), delete(2), edit(2, "an edit of an edit")] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bad, mut good) = (Group::new("bad"), Group::new("good"));
        let store = open(&dir);
        commit(&store, bad.batch([message("m1", "one"), edit(1, "two")])).unwrap();
        commit(&store, bad.batch([change])).unwrap();
        store.settle();
        let detail = is_quarantined(store.load(bad.key), &bad);
        assert!(detail.contains("no message"), "{detail}");
        assert_only_one_is_in_quarantine(&store, &mut bad, &mut good);
    }
}

#[test]
fn a_posts_look_up_sees_each_state_of_the_projection() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_held(&dir, NOTHING).unwrap();
    let mut group = Group::new("g");
    for seq in 1..=30 {
        let id = MessageId::new(format!("m{seq}")).unwrap();
        assert_eq!(store.find_message(group.key, &id).unwrap(), None, "not there before {seq}");
        commit(&store, group.post("hi")).unwrap();
        assert_eq!(store.find_message(group.key, &id).unwrap().unwrap().seq, seq);
        if seq % 5 == 0 {
            store.let_project(None);
            store.settle();
            store.let_project(NOTHING);
        }
        for earlier in 1..=seq {
            let id = MessageId::new(format!("m{earlier}")).unwrap();
            assert_eq!(store.find_message(group.key, &id).unwrap().unwrap().seq, earlier);
        }
    }
}
