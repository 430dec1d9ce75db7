//! What archiving and restoring ask of the store: everything can be read in bounded parts, nothing
//! is left of what is wiped, and what comes from a snapshot is seen when it is whole.

use std::{fs, path::Path, sync::mpsc, time::Duration};

use bytes::Bytes;
use convene_model::{
    GroupId, GroupKey,
    archive::{
        Line,
        line::{parse_event, split},
    },
    event::{EventKind, RevisionPolicy, Unfrozen},
    record::{CHAIN_START, Record},
};
use convene_storage::{
    Batch, CommitFailed, ExportPart, GroupStore, Import, PostIndex, Snapshot, StoreError,
    StoreOptions, check,
};

use crate::support::{
    Group, commit, copy, delete, edit, message, open, open_with, policy, query, react, reply,
    run_finished, searching, unlisted, wherever_it_lies,
};

const SECRET: &str = "zanzibarquux";

/// How long a test waits for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group with something in every table.
fn full_group(store: &GroupStore, id: &str) -> Group {
    let mut group = Group::new(id);
    commit(store, group.post(&format!("{SECRET} one"))).unwrap();
    commit(store, group.batch([edit(1, &format!("{SECRET} two")), unlisted()])).unwrap();
    commit(store, group.batch([react(1, "u2", "👍", true), run_finished("r1")])).unwrap();
    commit(store, group.batch([reply("m6", "m1", &format!("{SECRET} three"))])).unwrap();
    commit(store, group.batch([message("m7", &format!("{SECRET} gone")), delete(7)])).unwrap();
    commit(store, group.snapshot("{\"window\":[\"zanzibarquux\"]}")).unwrap();
    group
}

fn wipe(store: &GroupStore, group: &Group) -> Result<(), CommitFailed> {
    let (told, hear) = mpsc::channel();
    let told = move |result| told.send(result).unwrap();
    store.wipe(&group.group_id, group.head(), group.chain, told).unwrap();
    hear.recv().unwrap()
}

fn import(group: &Group) -> Import {
    Import {
        import_id: "i1".parse().unwrap(),
        archive_id: "x1".parse().unwrap(),
        epoch: 2,
        last_seq: group.head(),
        chain: group.chain.into(),
    }
}

fn begin_import(store: &GroupStore, group_id: &GroupId, import: Import) {
    let (told, hear) = mpsc::channel();
    store.begin_import(group_id, import, move |result| told.send(result).unwrap()).unwrap();
    hear.recv().unwrap().unwrap();
}

/// All parts of an export, each of which is within its bound.
fn all(max_bytes: usize, export: impl Fn(u64) -> Result<ExportPart, StoreError>) -> Vec<u8> {
    let (mut out, mut after) = (Vec::new(), 0);
    loop {
        let part = export(after).unwrap();
        let lines = split(&part.lines).unwrap().count();
        assert!(part.lines.len() <= max_bytes || lines == 1, "{} bytes", part.lines.len());
        out.extend_from_slice(&part.lines);
        match part.next {
            Some(next) => {
                assert!(next > after && lines > 0);
                after = next;
            }
            None => return out,
        }
    }
}

fn events(store: &GroupStore, key: GroupKey, upto: u64, max_bytes: usize) -> Vec<u8> {
    all(max_bytes, |after| store.export_events(key, after, upto, max_bytes))
}

fn messages(store: &GroupStore, key: GroupKey, upto: u64, max_bytes: usize) -> Vec<u8> {
    all(max_bytes, |after| store.export_messages(key, after, upto, max_bytes))
}

/// The batch that an import makes of lines.
fn batch_of(group: &mut Group, lines: &[Bytes]) -> Batch {
    let records: Vec<Record> = lines.iter().map(|line| parse_event(line).unwrap()).collect();
    let mut posts = Vec::new();
    for record in &records {
        group.chain = record.chain(&group.chain);
        let event = record.decode().unwrap();
        if let EventKind::MessagePosted(posted) = &event.kind {
            let (seq, digest) = (record.seq, posted.digest());
            posts.push(PostIndex { seq, message_id: posted.message_id.clone(), digest });
        }
        group.events.push(event);
    }
    let first_seq = records[0].seq;
    group.records.extend(records.iter().cloned());
    Batch { records, posts, chain: group.chain, first_seq, ..group.batch([]) }
}

fn restored(epoch: u64) -> EventKind {
    EventKind::GroupRestored(Unfrozen { archive_id: "x1".parse().unwrap(), epoch })
}

/// Every file of a directory that holds a text, whatever the case of its letters.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        if bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes())) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

#[test]
fn an_export_has_every_event_verbatim_and_the_messages_as_they_are_now() {
    wherever_it_lies(
        |store| drop(full_group(store, "g")),
        |store| {
            let key = GroupId::new("g").unwrap().key();
            let loaded = store.events(key, 1, 8).unwrap();
            let lines = Bytes::from(events(store, key, 8, 1 << 20));
            let records: Vec<_> =
                split(&lines).unwrap().map(|line| parse_event(&line).unwrap()).collect();
            let settled = records[6].erased.is_some();
            assert_eq!(records.len(), 8);
            for (record, stored) in records.iter().zip(&loaded) {
                assert_eq!(record, stored);
            }
            let chain = records.iter().fold(CHAIN_START, |chain, record| record.chain(&chain));
            assert_eq!(chain, store.load(key).unwrap().unwrap().chain);

            let lines = Bytes::from(messages(store, key, 8, 1 << 20));
            let mut listed = Vec::new();
            for line in split(&lines).unwrap() {
                match Line::parse(&line).unwrap() {
                    Line::Message(line) => {
                        let answers = line.answers.map(|excerpt| excerpt.text);
                        let message = line.message;
                        listed.push((
                            line.seq,
                            message.posted.text,
                            message.reactions.len(),
                            message.deleted,
                            answers,
                        ));
                    }
                    Line::Run(line) => listed.push((line.seq, "run".into(), 0, false, None)),
                    other => panic!("{other:?}"),
                }
            }
            let two = format!("{SECRET} two");
            assert_eq!(
                listed,
                [
                    (1, two.clone(), 1, false, None),
                    (5, "run".into(), 0, false, None),
                    (6, format!("{SECRET} three"), 0, false, Some(two)),
                    (7, String::new(), 0, true, None),
                ]
            );
            assert_eq!(
                String::from_utf8_lossy(&events(store, key, 8, 1 << 20)).contains("gone"),
                !settled,
                "an erased text is in no line"
            );
        },
    );
}

#[test]
fn parts_of_any_size_make_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    for round in 0..300_u64 {
        let text = "long ".repeat(1 + (round % 7) as usize * 40);
        commit(&store, group.post(&format!("{round} {text}"))).unwrap();
        if round % 5 == 0 {
            commit(&store, group.batch([unlisted(), run_finished(&format!("r{round}"))])).unwrap();
        }
        if round % 100 == 50 {
            store.settle();
        }
    }
    let (key, head) = (group.key, group.head());
    let whole = (events(&store, key, head, usize::MAX), messages(&store, key, head, usize::MAX));
    for max_bytes in [1, 700, 10_000, 100_000] {
        let parts = (events(&store, key, head, max_bytes), messages(&store, key, head, max_bytes));
        assert!(parts == whole, "in parts of {max_bytes} bytes");
    }
    let listed = String::from_utf8(whole.1).unwrap();
    assert_eq!(listed.lines().count(), 300 + 60);
    let before = messages(&store, key, head - 10, usize::MAX);
    assert!(listed.as_bytes().starts_with(&before), "what comes later is not in it");
    assert!(store.size_of(key).unwrap() > group.records.iter().map(|r| r.body.len() as u64).sum());
}

#[test]
fn nothing_of_a_wiped_group_is_left_in_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut other = Group::new("other");
    commit(&store, other.post("kept")).unwrap();
    let group = full_group(&store, "g");
    store.settle_index();
    assert!(!store.search(group.key, &searching(SECRET), group.head()).unwrap().hits.is_empty());
    assert!(!files_with(dir.path(), SECRET).is_empty());
    wipe(&store, &group).unwrap();
    assert_eq!(store.load(group.key).unwrap(), None);
    assert_eq!(store.groups().unwrap(), [other.group_id.clone()]);
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    // The committer goes on in another file.
    commit(&store, other.post("kept too")).unwrap();
    store.settle_index();
    store.close();
    assert_eq!(files_with(dir.path(), SECRET), Vec::<String>::new());
    drop(store);
    let report = check::check(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.groups, report.messages), (1, 2));
    let store = open(&dir);
    assert_eq!(store.load(other.key).unwrap().unwrap().records, other.records);
    assert_eq!(store.history(other.key, query(None, None, 10), 2).unwrap().messages.len(), 2);
}

/// Words lie in the search index without what they share with the one before, so what is looked for
/// here is how each of them ends.
#[test]
fn no_word_of_a_wiped_group_is_left_in_the_search_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (mut group, mut other) = (Group::new("g"), Group::new("other"));
    for round in 0..20 {
        for (group, end) in [(&mut group, "qquux"), (&mut other, "kept")] {
            let said = (0..50).map(|n| {
                let n = group.head() + 1 + n;
                message(&format!("m{n}"), &format!("Wort{n}{end} x{}{end} common", n % 7))
            });
            let batch = group.batch(said.collect::<Vec<_>>());
            commit(&store, batch).unwrap();
        }
        if round % 10 == 0 {
            let seq = group.head() - 3;
            commit(&store, group.batch([edit(seq, "edited fooqquux"), delete(seq - 1)])).unwrap();
            store.settle_index();
        }
    }
    store.settle_index();
    let found = |group: &Group, text: &str| {
        let page = store.search(group.key, &searching(text), group.head()).unwrap();
        page.hits.len()
    };
    assert_eq!((found(&group, "Wort77qquux"), found(&other, "Wort77kept")), (1, 1));
    assert!(!files_with(dir.path(), "qquux").is_empty());
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    commit(&store, other.post("on")).unwrap();
    store.settle_index();
    assert_eq!((found(&other, "Wort77kept"), found(&other, "wort999*")), (1, 1));
    let mut anew = Group::new("g");
    commit(&store, anew.post("fooq")).unwrap();
    store.settle_index();
    assert_eq!(found(&anew, "fooq*"), 1);
    store.close();
    for part in ["qquux", "quux"] {
        assert_eq!(files_with(dir.path(), part), Vec::<String>::new(), "{part}");
    }
}

#[test]
fn a_group_that_a_file_of_format_5_has_indexed_is_wiped_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut other = Group::new("other");
    commit(&store, other.post("kept")).unwrap();
    let group = full_group(&store, "g");
    store.settle_index();
    store.close();
    drop(store);
    let rooms = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    rooms.execute_batch("DROP TABLE search_purge; PRAGMA user_version = 5").unwrap();
    drop(rooms);
    let store = open(&dir);
    let found = |group: &Group, text: &str| {
        store.search(group.key, &searching(text), group.head()).unwrap().hits.len()
    };
    assert_eq!((found(&group, SECRET), found(&other, "kept")), (2, 1));
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    commit(&store, other.post("kept too")).unwrap();
    store.settle_index();
    assert_eq!(found(&other, "kept"), 2);
    store.close();
    assert_eq!(files_with(dir.path(), SECRET), Vec::<String>::new());
}

#[test]
fn the_journal_and_the_wal_give_up_a_wiped_text_while_the_store_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let group = full_group(&store, "g");
    store.settle();
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    let mut other = Group::new("other");
    let began = std::time::Instant::now();
    while !files_with(dir.path(), SECRET).is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:?}", files_with(dir.path(), SECRET));
        commit(&store, other.post("on")).unwrap();
        store.settle();
    }
}

#[test]
fn a_wiped_group_stays_gone_wherever_a_crash_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let mut other = Group::new("other");
    {
        let store = open(&dir);
        for round in 0..1_000 {
            let kinds = (0..5).map(|n| {
                let id = format!("m{}", group.head() + 1 + n);
                message(&id, &format!("{SECRET} {round} {}", "x".repeat(100)))
            });
            let batch = group.batch(kinds.collect::<Vec<_>>());
            store.submit(batch, |result| result.unwrap()).unwrap();
        }
        commit(&store, other.post("kept")).unwrap();
        store.settle_index();
        wipe(&store, &group).unwrap();
        assert_eq!(store.load(group.key).unwrap(), None);
        // The last handle goes: the projector stops wherever it is.
    }
    for _ in 0..6 {
        let store = open(&dir);
        assert_eq!(store.load(group.key).unwrap(), None);
        assert_eq!(store.groups().unwrap(), [other.group_id.clone()]);
        assert_eq!(store.load(other.key).unwrap().unwrap().records, other.records);
        commit(&store, other.post("kept too")).unwrap();
    }
    let store = open(&dir);
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    let mut anew = Group::new("g");
    commit(&store, anew.post("a new beginning")).unwrap();
    store.settle_index();
    store.close();
    assert_eq!(store.load(anew.key).unwrap().unwrap().records, anew.records);
    drop(store);
    assert_eq!(files_with(dir.path(), SECRET), Vec::<String>::new());
    assert_eq!(check::check(dir.path(), &mut |_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn what_is_searched_stays_right_when_a_group_is_wiped_that_was_indexed_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut kept = Group::new("kept");
    commit(&store, kept.post("apple one")).unwrap();
    store.settle_index();
    let mut group = Group::new("g");
    commit(&store, group.post("apple two")).unwrap();
    store.settle_index();
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    commit(&store, kept.post("apple three")).unwrap();
    let mut anew = Group::new("g");
    commit(&store, anew.post("apple four")).unwrap();
    for _ in 0..2 {
        let found = |group: &Group| -> Vec<u64> {
            let page = store.search(group.key, &searching("apple"), group.head()).unwrap();
            page.hits.iter().map(|hit| hit.message.seq).collect()
        };
        assert_eq!((found(&kept), found(&anew)), (vec![2, 1], vec![1]));
        store.settle_index();
    }
    commit(&store, kept.batch([edit(2, "pear")])).unwrap();
    store.settle_index();
    let page = store.search(kept.key, &searching("pear"), kept.head()).unwrap();
    assert_eq!(page.hits.len(), 1);
    store.close();
    drop(store);
    assert_eq!(check::check(dir.path(), &mut |_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_power_cut_may_take_the_tables_back_before_a_wipe_and_a_new_beginning() {
    let (dir, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&dir);
    let group = full_group(&store, "g");
    store.settle_index();
    // The journal keeps its files as long as somebody reads an old state of the tables.
    copy(dir.path(), late.path());
    let pin = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    pin.execute_batch("BEGIN; SELECT * FROM position;").unwrap();
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    let mut anew = Group::new("g");
    commit(&store, anew.post("a new beginning")).unwrap();
    drop(store);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("journal") {
            fs::copy(entry.path(), late.path().join(name)).unwrap();
        }
    }
    let store = open(&late);
    for _ in 0..2 {
        assert_eq!(store.load(anew.key).unwrap().unwrap().records, anew.records);
        store.settle_index();
    }
    store.close();
    drop(store);
    assert_eq!(check::check(late.path(), &mut |_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn what_is_exported_wiped_and_imported_is_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = full_group(&store, "g");
    commit(&store, group.batch([policy(RevisionPolicy::Discard), edit(6, "last")])).unwrap();
    store.settle_index();
    let (key, head) = (group.key, group.head());
    let page = |store: &GroupStore| store.history(key, query(None, None, 50), head).unwrap();
    let before = (events(&store, key, head, 2000), messages(&store, key, head, 2000), page(&store));
    wipe(&store, &group).unwrap();
    assert!(store.wait_until_wiped(key, PATIENCE));

    begin_import(&store, &group.group_id, import(&group));
    let lines: Vec<_> = split(&before.0.clone().into()).unwrap().collect();
    let mut anew = Group::new("g");
    for lines in lines.chunks(3) {
        commit(&store, batch_of(&mut anew, lines)).unwrap();
    }
    assert_eq!(anew.chain, group.chain);
    commit(&store, anew.batch([restored(2)])).unwrap();
    for _ in 0..2 {
        let loaded = store.load(key).unwrap().unwrap();
        assert_eq!((loaded.last_seq, loaded.chain), (head + 1, anew.chain));
        assert!(events(&store, key, head, 2000) == before.0);
        assert!(messages(&store, key, head, 2000) == before.1);
        assert_eq!(page(&store), before.2);
        store.settle_index();
    }
    let found = store.search(key, &searching("last"), head).unwrap();
    assert_eq!(found.hits.len(), 1);
    store.close();
    drop(store);
    assert_eq!(check::check(dir.path(), &mut |_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_half_import_is_seen_by_nobody_and_goes_on_after_a_crash() {
    let (from, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(&from);
    let group = full_group(&source, "g");
    let lines = Bytes::from(events(&source, group.key, group.head(), usize::MAX));
    let lines: Vec<_> = split(&lines).unwrap().collect();

    let mut anew = Group::new("g");
    begin_import(&open(&dir), &group.group_id, import(&group));
    for (round, lines) in lines.chunks(2).enumerate() {
        let store = open(&dir);
        assert_eq!(store.load(group.key).unwrap(), None);
        assert!(store.groups().unwrap().is_empty() && store.alarms().unwrap().is_empty());
        let (under_way, there) = store.load_import(group.key).unwrap().unwrap();
        assert_eq!(under_way, import(&group));
        let seq = there.as_ref().map_or(0, |loaded| loaded.last_seq);
        assert_eq!(seq, round as u64 * 2);
        assert_eq!(there.map_or(CHAIN_START, |loaded| loaded.chain), anew.chain);
        let snapshot = Snapshot { seq: seq + lines.len() as u64, bytes: "{}".into() };
        let batch = Batch { snapshot: Some(snapshot), ..batch_of(&mut anew, lines) };
        commit(&store, batch).unwrap();
        if round % 2 == 1 {
            store.settle();
        }
    }
    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap(), None);
    commit(&store, anew.batch([restored(2)])).unwrap();
    drop(store);
    let store = open(&dir);
    assert_eq!(store.load_import(group.key).unwrap(), None);
    assert_eq!(store.load(group.key).unwrap().unwrap().last_seq, group.head() + 1);
    store.settle();
    drop(store);
    assert_eq!(open(&dir).groups().unwrap(), [group.group_id]);
}

#[test]
fn a_half_import_is_wiped_like_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    let target = import(&full_group(&open(&tempfile::tempdir().unwrap()), "g"));
    begin_import(&store, &group.group_id, target);
    commit(&store, group.post(SECRET)).unwrap();
    wipe(&store, &group).unwrap();
    assert_eq!(store.load_import(group.key).unwrap(), None);
    assert!(store.wait_until_wiped(group.key, PATIENCE));
    store.settle_index();
    store.close();
    drop(store);
    assert_eq!(files_with(dir.path(), SECRET), Vec::<String>::new());
    let store = open(&dir);
    assert!(!store.is_being_wiped(group.key));
    assert_eq!(store.load_import(group.key).unwrap(), None);
}

#[test]
fn a_file_without_controls_keeps_its_format() {
    let dir = tempfile::tempdir().unwrap();
    let format = |name: &str| -> i64 {
        let connection = rusqlite::Connection::open(dir.path().join(name)).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    let options = StoreOptions { journal_file_bytes: u64::MAX, ..StoreOptions::default() };
    let mut group = Group::new("g");
    {
        let store = open_with(&dir, options).unwrap();
        commit(&store, group.post("one")).unwrap();
        store.close();
    }
    assert_eq!(format("journal-000001.db"), 1);
    let store = open(&dir);
    begin_import(&store, &GroupId::new("h").unwrap(), import(&group));
    store.close();
    assert_eq!(format("journal-000001.db"), 2);
}
