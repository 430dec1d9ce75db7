//! What is read is what was submitted, wherever it lies at the moment.

use convene_model::{GroupId, MessageId, Timestamp, record::CHAIN_START};
use convene_storage::{FoundMessage, StoreError};

use crate::support::{
    Group, commit, delete, edit, message, open, query, run_finished, unlisted, wherever_it_lies,
};

#[test]
fn a_group_that_nobody_wrote_to_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = GroupId::new("nobody").unwrap().key();
    assert_eq!(store.load(key).unwrap(), None);
    assert_eq!(store.find_message(key, &MessageId::new("m1").unwrap()).unwrap(), None);
    assert_eq!(store.alarms().unwrap(), []);
    assert_eq!(store.history(key, query(None, None, 10), 0).unwrap(), Default::default());
    assert!(matches!(store.events(key, 1, 1), Err(StoreError::Missing { missing: 1, .. })));
}

#[test]
fn a_group_is_rebuilt_from_all_of_its_events() {
    let mut group = Group::new("g");
    let batches =
        [group.post("one"), group.batch([unlisted(), message("x", "two")]), group.post("three")];
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let loaded = store.load(group.key).unwrap().unwrap();
            assert_eq!(loaded.snapshot, None);
            assert_eq!(loaded.records, group.records);
            assert_eq!((loaded.last_seq, loaded.chain), (4, group.chain));
            assert_eq!(loaded.wake_at, None);
        },
    );
}

#[test]
fn a_group_is_rebuilt_from_its_latest_snapshot_and_the_events_after_it() {
    let mut group = Group::new("g");
    let mut batches = vec![group.post("one"), group.snapshot("old state"), group.post("two")];
    batches.push(group.snapshot("new state"));
    batches.push(group.post("three"));
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let loaded = store.load(group.key).unwrap().unwrap();
            let snapshot = loaded.snapshot.unwrap();
            assert_eq!((snapshot.seq, &snapshot.bytes[..]), (2, &b"new state"[..]));
            assert_eq!(loaded.records, group.records[2..]);
            assert_eq!((loaded.last_seq, loaded.chain), (3, group.chain));
        },
    );
}

#[test]
fn a_snapshot_of_the_head_leaves_no_events() {
    let mut group = Group::new("g");
    let mut first = group.post("one");
    first.snapshot = Some(convene_storage::Snapshot { seq: 1, bytes: b"state"[..].into() });
    wherever_it_lies(
        |store| commit(store, first).unwrap(),
        |store| {
            let loaded = store.load(group.key).unwrap().unwrap();
            assert_eq!(loaded.records, []);
            assert_eq!((loaded.last_seq, loaded.chain), (1, group.chain));
        },
    );
}

#[test]
fn an_alarm_is_kept_until_it_is_changed() {
    let mut groups: Vec<_> = (0..3).map(|i| Group::new(&format!("g{i}"))).collect();
    let (one, two) = (Timestamp::from_secs(11), Timestamp::from_secs(22));
    let mut batches = Vec::new();
    for group in &mut groups {
        group.wake_at = Some(one);
        batches.push(group.post("hi"));
    }
    groups[1].wake_at = Some(two);
    batches.push(groups[1].batch([]));
    groups[2].wake_at = None;
    batches.push(groups[2].batch([]));
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let mut alarms = store.alarms().unwrap();
            alarms.sort();
            let expected = [(groups[0].group_id.clone(), one), (groups[1].group_id.clone(), two)];
            assert_eq!(alarms, expected);
            assert_eq!(store.load(groups[1].key).unwrap().unwrap().wake_at, Some(two));
            assert_eq!(store.load(groups[2].key).unwrap().unwrap().wake_at, None);
        },
    );
}

#[test]
fn a_group_that_only_has_an_alarm_is_there() {
    let mut group = Group::new("g");
    group.wake_at = Some(Timestamp::from_secs(5));
    let batch = group.batch([]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let loaded = store.load(group.key).unwrap().unwrap();
            assert_eq!((loaded.last_seq, loaded.chain), (0, CHAIN_START));
            assert_eq!(loaded.wake_at, group.wake_at);
        },
    );
}

#[test]
fn a_range_of_events_comes_whole_or_not_at_all() {
    let mut group = Group::new("g");
    let batches: Vec<_> =
        (0..5).map(|i| group.batch([unlisted(), message(&format!("x{i}"), "t")])).collect();
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            for from in 1..=10 {
                for to in from..=10 {
                    let events = store.events(group.key, from, to).unwrap();
                    assert_eq!(events, group.records[from as usize - 1..to as usize]);
                }
            }
            let error = store.events(group.key, 8, 12).unwrap_err();
            assert_eq!(error, StoreError::Missing { from: 8, to: 12, missing: 11 });
            assert!(store.events(group.key, 0, 3).is_err());
        },
    );
}

#[test]
fn a_post_is_found_by_its_message_within_its_group() {
    let mut group = Group::new("g");
    let mut other = Group::new("other");
    let batches = [group.post("one"), other.batch([message("mine", "two")]), group.post("two")];
    let digest = batches[2].posts[0].digest;
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let find = |group: &Group, id| {
                store.find_message(group.key, &MessageId::new(id).unwrap()).unwrap()
            };
            assert_eq!(find(&group, "m2"), Some(FoundMessage { seq: 2, digest }));
            assert_eq!(find(&group, "mine"), None);
            assert_eq!(find(&other, "mine").unwrap().seq, 1);
            assert_eq!(find(&group, "m3"), None);
        },
    );
}

#[test]
fn history_pages_join_without_gap_or_overlap_in_both_directions() {
    let mut group = Group::new("g");
    let mut batches = Vec::new();
    for i in 0..12 {
        batches.push(group.batch([unlisted(), message(&format!("x{i}"), &format!("text {i}"))]));
        batches.push(group.batch([run_finished(&format!("r{i}"))]));
    }
    let head = group.head();
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let whole = store.history(group.key, query(None, None, 100), head).unwrap();
            assert_eq!(whole.messages.len(), 12);
            assert_eq!(whole.runs.len(), 12);
            assert!(!whole.more_before);

            let (mut messages, mut runs, mut before) = (Vec::new(), Vec::new(), None);
            loop {
                let page = store.history(group.key, query(before, None, 5), head).unwrap();
                before = Some(page.messages[0].seq);
                messages.splice(0..0, page.messages);
                runs.splice(0..0, page.runs);
                if !page.more_before {
                    break;
                }
            }
            assert_eq!((&messages, &runs), (&whole.messages, &whole.runs));

            let (mut messages, mut runs, mut after) = (Vec::new(), Vec::new(), 0);
            loop {
                let page = store.history(group.key, query(None, Some(after), 5), head).unwrap();
                let Some(last) = page.messages.last() else { break };
                assert_eq!(page.more_before, after > 0);
                after = last.seq;
                messages.extend(page.messages);
                runs.extend(page.runs);
            }
            assert_eq!((&messages, &runs), (&whole.messages, &whole.runs));
        },
    );
}

#[test]
fn history_shows_messages_as_they_are_now() {
    let mut group = Group::new("g");
    let batches = [
        group.post("stays"),
        group.post("is edited"),
        group.post("is deleted"),
        group.batch([edit(2, "first edit"), edit(3, "edited, then deleted")]),
        group.batch([edit(2, "second edit"), delete(3)]),
    ];
    let head = group.head();
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let page = store.history(group.key, query(None, None, 10), head).unwrap();
            assert_eq!(page, group.page(query(None, None, 10), head));
            let texts: Vec<_> = page.messages.iter().map(|m| m.posted.text.as_str()).collect();
            assert_eq!(texts, ["stays", "second edit", ""]);
            assert_eq!(page.messages[1].edited_at, Some(group.events[5].at));
            assert!(page.messages[2].deleted);
        },
    );
}

#[test]
fn history_ends_where_the_reader_stands() {
    let mut group = Group::new("g");
    let batches = [group.post("one"), group.post("two"), group.batch([edit(1, "edited")])];
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            for upto in 0..=3 {
                let page = store.history(group.key, query(None, None, 10), upto).unwrap();
                assert_eq!(page, group.page(query(None, None, 10), upto), "up to {upto}");
            }
        },
    );
}

#[test]
fn a_page_of_no_size_or_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = Group::new("g").key;
    for limit in [0, convene_model::limits::MAX_PAGE + 1] {
        let error = store.history(key, query(None, None, limit), 0).unwrap_err();
        assert_eq!(error, StoreError::PageSize(limit));
    }
    assert!(store.history(key, query(None, None, convene_model::limits::MAX_PAGE), 0).is_ok());
}

#[test]
fn the_text_of_a_deleted_message_is_erased_from_the_stored_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    for batch in [
        group.batch([message("m1", "the secret plan"), message("m2", "something else")]),
        group.batch([edit(1, "the better secret plan")]),
    ] {
        commit(&store, batch).unwrap();
    }
    store.settle();
    commit(&store, group.batch([delete(1)])).unwrap();
    store.settle();
    let loaded = store.load(group.key).unwrap().unwrap();
    assert_eq!(loaded.chain, group.chain, "the chain still holds");
    for record in &loaded.records {
        assert!(!String::from_utf8_lossy(&record.body).contains("secret plan"));
    }
    assert!(String::from_utf8_lossy(&loaded.records[1].body).contains("something else"));
    let page = store.history(group.key, query(None, None, 10), 4).unwrap();
    assert_eq!(page, group.page(query(None, None, 10), 4));
    drop(store);
    assert_eq!(open(&dir).load(group.key).unwrap().unwrap(), loaded);
}

#[test]
fn long_histories_span_many_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    let long = "x".repeat(9000);
    for i in 0..40 {
        let first = 2 * i + 1;
        let batch =
            group.batch([message(&format!("m{first}"), &long), message(&format!("n{i}"), "short")]);
        commit(&store, batch).unwrap();
    }
    // One batch that is larger than a chunk, and one event that is nearly as large as one.
    commit(&store, group.batch((0..20).map(|i| message(&format!("b{i}"), &long)))).unwrap();
    commit(&store, group.batch([message("big", &"y".repeat(64 * 1024))])).unwrap();
    store.settle();
    let loaded = store.load(group.key).unwrap().unwrap();
    assert_eq!(loaded.records, group.records);
    let head = group.head();
    for (before, after) in [(None, None), (Some(50), None), (None, Some(33)), (Some(70), Some(20))]
    {
        let page = store.history(group.key, query(before, after, 30), head).unwrap();
        assert_eq!(page, group.page(query(before, after, 30), head));
    }
}
