//! What a search finds, and what nothing finds any more.

use convene_model::{
    AgentId, UserId,
    event::{Author, EventKind, Posted, RevisionPolicy},
    history::{SearchPage, SearchRequest, SnippetPiece},
    limits::{DEFAULT_HITS, MAX_HITS},
};
use convene_storage::{GroupStore, QueryError, StoreError, StoreOptions};

use crate::support::{
    Group, commit, delete, edit, message, open, open_with, policy, react, searching,
    wherever_it_lies,
};

fn by(author: Author, event: EventKind) -> EventKind {
    let EventKind::MessagePosted(posted) = event else { unreachable!() };
    EventKind::MessagePosted(Posted { author, ..posted })
}

fn user(id: &str) -> Author {
    Author::User(UserId::new(id).unwrap())
}

fn ask(store: &GroupStore, group: &Group, request: &SearchRequest) -> SearchPage {
    store.search(group.key, request, group.head()).unwrap()
}

fn found(store: &GroupStore, group: &Group, query: &str) -> Vec<u64> {
    ask(store, group, &searching(query)).hits.iter().map(|hit| hit.message.seq).collect()
}

#[test]
fn a_search_finds_the_messages_of_its_group_newest_first() {
    let (mut group, mut other) = (Group::new("g"), Group::new("other"));
    let batches = [
        group.batch([message("m1", "The release is on Friday"), message("m2", "Which release?")]),
        other.batch([message("m1", "another release of another group")]),
        group.batch([message("m3", "Lunch?"), message("m4", "RELEASE: it is out")]),
    ];
    wherever_it_lies(
        |store| batches.into_iter().for_each(|batch| commit(store, batch).unwrap()),
        |store| {
            assert_eq!(found(store, &group, "release"), [4, 2, 1]);
            assert_eq!(found(store, &group, "is release"), [4, 1]);
            assert_eq!(found(store, &group, "\"release is\""), [1]);
            assert_eq!(found(store, &group, "rel*"), [4, 2, 1]);
            assert_eq!(found(store, &group, "rel"), [0; 0]);
            assert_eq!(found(store, &group, "fri* \"is on\""), [1]);
            assert_eq!(found(store, &group, "another"), [0; 0]);
            assert_eq!(found(store, &other, "release"), [1]);
            let hit = &ask(store, &group, &searching("lunch")).hits[0];
            let pieces = [
                SnippetPiece { text: "Lunch".into(), hit: true },
                SnippetPiece { text: "?".into(), hit: false },
            ];
            assert_eq!(hit.snippet, pieces);
            // What looks like a query language is words.
            for query in ["release OR lunch", "words:lunch", "NOT lunch", "lunch) OR (release"] {
                assert_eq!(found(store, &group, query), [0; 0], "{query}");
            }
        },
    );
}

#[test]
fn a_message_that_was_just_acknowledged_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    for seq in 1..=50 {
        commit(&store, group.post(&format!("word{seq}"))).unwrap();
        assert_eq!(found(&store, &group, &format!("word{seq}")), [seq]);
    }
}

#[test]
fn a_search_finds_what_a_message_says_now() {
    let (mut group, texts) = (Group::new("g"), ["one", "two", "three"]);
    let posted = group.batch(texts.map(|text| message(&format!("m-{text}"), text)));
    let changed = group.batch([
        edit(1, "uno"),
        edit(2, "due"),
        edit(2, "zwei"),
        delete(3),
        react(1, "u1", "👍", true),
    ]);
    wherever_it_lies(
        |store| {
            commit(store, posted).unwrap();
            store.settle_index();
            commit(store, changed).unwrap();
        },
        |store| {
            for text in ["one", "two", "three", "due"] {
                assert_eq!(found(store, &group, text), [0; 0], "{text}");
            }
            assert_eq!(found(store, &group, "uno"), [1]);
            assert_eq!(found(store, &group, "zwei"), [2]);
            let hit = ask(store, &group, &searching("uno")).hits.remove(0);
            assert_eq!(hit.message, group.messages(group.head())[0]);
            assert_eq!(hit.message.reactions.len(), 1);
        },
    );
}

#[test]
fn a_search_can_be_for_one_author_and_for_what_came_before() {
    let mut group = Group::new("g");
    let agent = Author::Agent(AgentId::new("ann").unwrap());
    let batch = group.batch([
        by(user("ann"), message("m1", "hello")),
        by(user("Ann"), message("m2", "hello")),
        by(agent.clone(), message("m3", "hello")),
        by(user("ann"), message("m4", "hello")),
    ]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let of = |author: Author, before| {
                let request = SearchRequest { author: Some(author), before, ..searching("hello") };
                let page = ask(store, &group, &request);
                page.hits.iter().map(|hit| hit.message.seq).collect::<Vec<_>>()
            };
            assert_eq!(of(user("ann"), None), [4, 1]);
            assert_eq!(of(user("ann"), Some(4)), [1]);
            assert_eq!(of(user("Ann"), None), [2]);
            assert_eq!(of(agent.clone(), None), [3]);
            assert_eq!(of(user("nobody"), None), [0; 0]);
        },
    );
}

#[test]
fn pages_of_hits_join_without_gap_or_overlap() {
    let mut group = Group::new("g");
    let texts = (1..=200).map(|seq| message(&format!("m{seq}"), ["odd", "even"][seq % 2]));
    let batch = group.batch(texts);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            for limit in [1, 7, MAX_HITS] {
                let (mut seqs, mut before) = (Vec::new(), None);
                loop {
                    let request = SearchRequest { before, limit: Some(limit), ..searching("even") };
                    let page = ask(store, &group, &request);
                    seqs.extend(page.hits.iter().map(|hit| hit.message.seq));
                    before = seqs.last().copied();
                    if !page.more {
                        break;
                    }
                    assert_eq!(page.hits.len(), limit);
                }
                assert_eq!(seqs, (1..200).rev().step_by(2).collect::<Vec<u64>>(), "{limit}");
            }
            assert_eq!(ask(store, &group, &searching("odd")).hits.len(), DEFAULT_HITS);
        },
    );
}

#[test]
fn a_search_for_nothing_or_for_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = (open(&dir), Group::new("g"));
    let refused = |request| store.search(group.key, &request, 0).unwrap_err();
    assert_eq!(refused(searching("?!")), StoreError::Query(QueryError::NoWords));
    let many = "a ".repeat(17);
    assert_eq!(refused(searching(&many)), StoreError::Query(QueryError::TooManyWords));
    let limited = |limit| SearchRequest { limit: Some(limit), ..searching("a") };
    assert_eq!(refused(limited(0)), StoreError::PageSize(0));
    assert_eq!(refused(limited(MAX_HITS + 1)), StoreError::PageSize(MAX_HITS + 1));
    for limit in [1, MAX_HITS] {
        assert_eq!(store.search(group.key, &limited(limit), 0).unwrap().hits, []);
    }
}

#[test]
fn nothing_of_a_deleted_or_discarded_text_stays_in_the_index() {
    for discard in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let mut group = Group::new("g");
        // Enough neighbours that the words lie in the midst of the index.
        let filler = (1..=2000).map(|seq| format!("filler{seq} sec seq{seq} secretz a{seq}"));
        let mut events: Vec<_> =
            filler.enumerate().map(|(i, text)| message(&format!("m{}", i + 1), &text)).collect();
        events[1000] = message("m1001", "secretplan uniquely");
        commit(&store, group.batch(events)).unwrap();
        store.settle_index();
        assert_eq!(found(&store, &group, "secretplan"), [1001]);
        assert!(holds(&dir, "secretplan") || holds(&dir, "retplan"), "the index is in the file");

        let gone = if discard {
            group.batch([policy(RevisionPolicy::Discard), edit(1001, "harmless")])
        } else {
            group.batch([delete(1001)])
        };
        commit(&store, gone).unwrap();
        store.settle_index();
        assert_eq!(found(&store, &group, "secretplan"), [0; 0]);
        assert_eq!(found(&store, &group, "harmless").len(), usize::from(discard));
        store.close();
        drop(store);
        // Terms are stored without what they share with the one before.
        for part in ["secretplan", "etplan", "tplan", "uniquely", "niquely"] {
            assert!(!holds(&dir, part), "{part} is still there");
        }
        let connection = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')", []).unwrap();
    }
}

fn holds(dir: &tempfile::TempDir, text: &str) -> bool {
    let connection = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let bytes = std::fs::read(dir.path().join("rooms.db")).unwrap();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_file_of_format_1_is_brought_forward_and_its_messages_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    commit(&store, group.batch([message("m1", "one"), edit(1, "two"), message("m3", "three")]))
        .unwrap();
    store.close();
    drop(store);
    let connection = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    connection
        .execute_batch(
            "DROP TABLE search; DROP TABLE search_groups; DROP TABLE search_purge;
             DROP TABLE reactions;
             DROP TABLE wipes; DROP TABLE imports; DROP TABLE agent_events;
             DROP TABLE trimmed_groups;
             ALTER TABLE groups DROP COLUMN discard;
             ALTER TABLE position DROP COLUMN indexed;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);

    let store = open(&dir);
    assert_eq!(store.load(group.key).unwrap().unwrap().records, group.records);
    for _ in 0..2 {
        assert_eq!(found(&store, &group, "one"), [0; 0]);
        assert_eq!(found(&store, &group, "two"), [1]);
        assert_eq!(found(&store, &group, "three"), [3]);
        store.settle_index();
        assert_eq!(store.stats().unindexed_events, 0);
    }
    commit(&store, group.batch([react(3, "u1", "👍", true), edit(3, "four")])).unwrap();
    store.settle_index();
    assert_eq!(found(&store, &group, "four"), [3]);
}

#[test]
fn a_file_of_a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).close();
    let connection = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(connection);
    let refused = open_with(&dir, StoreOptions::default()).err().unwrap();
    assert!(matches!(refused, StoreError::Refused(why) if why.contains("format 99")));
}
