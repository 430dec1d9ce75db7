//! Edits, deletions and reactions: what is read of a message, and what of it stays on disk.

use convene_model::{
    MessageId,
    event::RevisionPolicy,
    limits::{EXCERPT_CHARS, MAX_REACTORS_LISTED, MAX_REVISIONS_LISTED},
};
use convene_storage::GroupStore;

use crate::support::{
    Group, around, author, commit, delete, edit, message, open, policy, query, react, reply,
    run_finished, wherever_it_lies,
};

fn id(id: &str) -> MessageId {
    MessageId::new(id).unwrap()
}

fn bytes_of(dir: &tempfile::TempDir) -> Vec<u8> {
    std::fs::read(dir.path().join("rooms.db")).unwrap()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_message_is_found_as_it_is_now() {
    let mut group = Group::new("g");
    let batch = group.batch([
        message("m1", "one"),
        message("m2", "two"),
        message("m3", "three"),
        edit(2, "second"),
        edit(2, "zwei"),
        delete(3),
    ]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let found = |of| store.message(group.key, &id(of)).unwrap();
            let one = found("m1").unwrap();
            assert_eq!((one.seq, &one.author, one.deleted), (1, &author(), false));
            assert_eq!(one.text, "one");
            assert_eq!(found("m2").unwrap().text, "zwei");
            let three = found("m3").unwrap();
            assert_eq!((three.seq, three.deleted, three.text.as_str()), (3, true, ""));
            assert_eq!(found("m4"), None);
        },
    );
}

#[test]
fn reactions_stand_in_the_order_in_which_their_emojis_came() {
    let mut group = Group::new("g");
    let batches = [
        group.batch([message("m1", "one"), message("m2", "two"), react(1, "u1", "👍", true)]),
        group.batch([react(1, "u2", "🎉", true), react(1, "u2", "👍", true)]),
        // Taken off and put there again, it comes last.
        group.batch([react(1, "u1", "👍", false), react(2, "u1", "👍", true)]),
        group.batch([react(1, "u1", "👍", true), react(2, "u1", "👍", false)]),
    ];
    wherever_it_lies(
        |store| batches.into_iter().for_each(|batch| commit(store, batch).unwrap()),
        |store| {
            let found = store.reactions(group.key, 1).unwrap();
            let names: Vec<_> = found.iter().map(|one| one.emoji.as_str()).collect();
            assert_eq!(names, ["🎉", "👍"]);
            assert_eq!(found[1].authors.len(), 2);
            assert_eq!(store.reactions(group.key, 2).unwrap(), []);
            let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
            assert_eq!(page, group.page(query(None, None, 10), group.head()));
            assert_eq!(page.messages[0].reactions[1].count, 2);
        },
    );
}

#[test]
fn a_read_sees_no_reaction_that_comes_after_its_head() {
    let mut group = Group::new("g");
    let batch = group.batch([
        message("m1", "one"),
        react(1, "u1", "👍", true),
        react(1, "u1", "👍", false),
    ]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            for upto in 1..=3 {
                let page = store.history(group.key, query(None, None, 10), upto).unwrap();
                assert_eq!(page, group.page(query(None, None, 10), upto), "up to {upto}");
            }
        },
    );
}

#[test]
fn a_page_names_so_many_authors_and_counts_the_rest() {
    let mut group = Group::new("g");
    let mut events = vec![message("m1", "one")];
    let people = MAX_REACTORS_LISTED + 1;
    events.extend((0..people).map(|user| react(1, &format!("u{user}"), "👍", true)));
    let batch = group.batch(events);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
            let reactions = &page.messages[0].reactions[0];
            assert_eq!(reactions.count, people as u64);
            assert_eq!(reactions.authors.len(), MAX_REACTORS_LISTED);
            let all = store.reactions(group.key, 1).unwrap();
            assert_eq!(all[0].authors.len(), people, "commands know all of them");
        },
    );
}

#[test]
fn a_deletion_takes_the_reactions_along() {
    let mut group = Group::new("g");
    let batches = [
        group.batch([message("m1", "one"), react(1, "u1", "👍", true)]),
        group.batch([delete(1)]),
        // What comes too late changes nothing.
        group.batch([react(1, "u2", "👍", true)]),
    ];
    wherever_it_lies(
        |store| batches.into_iter().for_each(|batch| commit(store, batch).unwrap()),
        |store| {
            assert_eq!(store.reactions(group.key, 1).unwrap(), []);
            let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
            assert!(page.messages[0].deleted && page.messages[0].reactions.is_empty());
        },
    );
}

#[test]
fn a_deleted_message_leaves_none_of_its_texts_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    commit(&store, group.batch([message("m1", "firstsecret"), edit(1, "secondsecret")])).unwrap();
    store.settle();
    commit(&store, group.batch([edit(1, "thirdsecret")])).unwrap();
    store.close();
    assert!(holds(&bytes_of(&dir), "thirdsecret"));
    drop(store);

    let store = open(&dir);
    commit(&store, group.batch([delete(1)])).unwrap();
    store.close();
    for text in ["firstsecret", "secondsecret", "thirdsecret"] {
        assert!(!holds(&bytes_of(&dir), text), "{text}");
    }
    assert_eq!(store.load(group.key).unwrap().unwrap().chain, group.chain);
}

/// Which of the texts `one`, `two` and `three` of a message are still on disk.
fn kept_of(write: impl FnOnce(&GroupStore, &mut Group)) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    write(&store, &mut group);
    store.close();
    assert_eq!(store.load(group.key).unwrap().unwrap().chain, group.chain);
    let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
    assert_eq!(page.messages[0].posted.text, "text-three");
    assert!(!page.messages[0].deleted);
    let texts = ["text-one", "text-two", "text-three"];
    texts.into_iter().filter(|text| holds(&bytes_of(&dir), text)).collect()
}

#[test]
fn former_texts_are_kept_unless_they_are_to_be_discarded() {
    let kept = kept_of(|store, group| {
        let batch =
            group.batch([message("m1", "text-one"), edit(1, "text-two"), edit(1, "text-three")]);
        commit(store, batch).unwrap();
    });
    assert_eq!(kept, ["text-one", "text-two", "text-three"]);
}

#[test]
fn an_edit_discards_the_text_before_it_where_that_is_the_policy() {
    for together in [true, false] {
        let kept = kept_of(|store, group| {
            let events = [
                policy(RevisionPolicy::Discard),
                message("m2", "text-one"),
                edit(2, "text-two"),
                edit(2, "text-three"),
            ];
            if together {
                commit(store, group.batch(events)).unwrap();
            } else {
                for event in events {
                    commit(store, group.batch([event])).unwrap();
                    store.settle();
                }
            }
        });
        assert_eq!(kept, ["text-three"], "together: {together}");
    }
}

#[test]
fn a_change_to_discarding_erases_what_was_kept_until_then() {
    let kept = kept_of(|store, group| {
        let texts = [message("m1", "text-one"), edit(1, "text-two"), edit(1, "text-three")];
        commit(store, group.batch(texts)).unwrap();
        store.settle();
        commit(store, group.batch([policy(RevisionPolicy::Discard)])).unwrap();
    });
    assert_eq!(kept, ["text-three"]);
}

#[test]
fn a_change_to_keeping_keeps_from_there_on() {
    let kept = kept_of(|store, group| {
        let events = [
            policy(RevisionPolicy::Discard),
            message("m2", "text-one"),
            edit(2, "text-two"),
            policy(RevisionPolicy::Keep),
            edit(2, "text-three"),
        ];
        commit(store, group.batch(events)).unwrap();
    });
    assert_eq!(kept, ["text-two", "text-three"]);
}

#[test]
fn who_reads_at_an_older_head_gets_the_newer_text_where_the_older_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    let events = [policy(RevisionPolicy::Discard), message("m2", "one"), edit(2, "two")];
    commit(&store, group.batch(events)).unwrap();
    store.settle();
    let page = store.history(group.key, query(None, None, 10), 2).unwrap();
    assert_eq!(page.messages[0].posted.text, "two");
    assert!(!page.messages[0].deleted, "an erased text alone does not mean a deletion");
}

#[test]
fn a_messages_detail_has_its_former_texts() {
    let mut group = Group::new("g");
    let batches = [
        group.batch([message("m1", "one"), edit(1, "two"), react(1, "u1", "👍", true)]),
        group.batch([edit(1, "three"), message("m5", "gone"), edit(5, "gone too"), delete(5)]),
    ];
    wherever_it_lies(
        |store| batches.into_iter().for_each(|batch| commit(store, batch).unwrap()),
        |store| {
            let detail = store.detail(group.key, &id("m1"), group.head()).unwrap().unwrap();
            assert_eq!(detail, group.detail(1, group.head()));
            let texts: Vec<_> = detail.revisions.iter().map(|text| text.text.as_str()).collect();
            assert_eq!(texts, ["one", "two"]);
            assert_eq!(detail.message.reactions.len(), 1);
            // As if nothing had happened after its head.
            let earlier = store.detail(group.key, &id("m1"), 2).unwrap().unwrap();
            assert_eq!(earlier, group.detail(1, 2));
            assert_eq!(store.detail(group.key, &id("m5"), 4).unwrap(), None);
            let gone = store.detail(group.key, &id("m5"), group.head()).unwrap().unwrap();
            assert!(gone.message.deleted && gone.revisions.is_empty());
            assert_eq!(store.detail(group.key, &id("m9"), group.head()).unwrap(), None);
        },
    );
}

#[test]
fn a_messages_detail_has_no_former_texts_where_they_are_discarded() {
    let mut group = Group::new("g");
    let batch =
        group.batch([message("m1", "one"), edit(1, "two"), policy(RevisionPolicy::Discard)]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let detail = store.detail(group.key, &id("m1"), group.head()).unwrap().unwrap();
            assert_eq!(detail, group.detail(1, group.head()));
            assert_eq!((detail.message.posted.text.as_str(), detail.revisions.len()), ("two", 0));
        },
    );
}

#[test]
fn a_text_that_was_discarded_does_not_come_back_with_another_policy() {
    let mut group = Group::new("g");
    let batch = group.batch([
        message("m1", "one"),
        policy(RevisionPolicy::Discard),
        edit(1, "two"),
        policy(RevisionPolicy::Keep),
        edit(1, "three"),
    ]);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            let detail = store.detail(group.key, &id("m1"), group.head()).unwrap().unwrap();
            assert_eq!(detail, group.detail(1, group.head()));
            let texts: Vec<_> = detail.revisions.iter().map(|text| text.text.as_str()).collect();
            assert_eq!(texts, ["two"]);
        },
    );
}

#[test]
fn the_oldest_former_texts_are_left_out_beyond_the_limit() {
    for edits in [MAX_REVISIONS_LISTED, MAX_REVISIONS_LISTED + 1] {
        let mut group = Group::new("g");
        let mut events = vec![message("m1", "text 0")];
        events.extend((1..=edits).map(|i| edit(1, &format!("text {i}"))));
        let batch = group.batch(events);
        wherever_it_lies(
            |store| commit(store, batch).unwrap(),
            |store| {
                let detail = store.detail(group.key, &id("m1"), group.head()).unwrap().unwrap();
                assert_eq!(detail.revisions.len(), MAX_REVISIONS_LISTED);
                let oldest = edits - MAX_REVISIONS_LISTED;
                assert_eq!(detail.revisions[0].text, format!("text {oldest}"));
            },
        );
    }
}

#[test]
fn a_page_brings_along_what_its_messages_answer() {
    let mut group = Group::new("g");
    let long = "ä".repeat(EXCERPT_CHARS + 1);
    let batches = [
        group.batch([message("m1", &long), message("m2", "taken back"), delete(2)]),
        group.batch([reply("m4", "m1", "a"), reply("m5", "m1", "b"), reply("m6", "m2", "c")]),
        group.batch([reply("m7", "m6", "d"), reply("m8", "nobody", "e")]),
    ];
    wherever_it_lies(
        |store| batches.into_iter().for_each(|batch| commit(store, batch).unwrap()),
        |store| {
            let query = query(None, Some(3), 10);
            let page = store.history(group.key, query, group.head()).unwrap();
            assert_eq!(page, group.page(query, group.head()));
            let [one, two] = &page.answered[..] else { panic!("{:?}", page.answered) };
            assert_eq!((one.seq, one.text.chars().count()), (1, EXCERPT_CHARS));
            assert_eq!((two.seq, two.deleted, two.text.as_str()), (2, true, ""));
        },
    );
}

#[test]
fn a_page_around_a_message_has_both_sides_of_it() {
    let mut group = Group::new("g");
    let mut events: Vec<_> = (1..=20).map(|seq| message(&format!("m{seq}"), "text")).collect();
    events.insert(10, run_finished("r1"));
    let batch = group.batch(events);
    wherever_it_lies(
        |store| commit(store, batch).unwrap(),
        |store| {
            for seq in [0, 1, 2, 10, 11, 12, 20, 21, 22, 100, u64::MAX] {
                for limit in [1, 2, 5, 6, 200] {
                    let page = store.history(group.key, around(seq, limit), group.head()).unwrap();
                    let expected = group.page(around(seq, limit), group.head());
                    assert_eq!(page, expected, "around {seq}, limit {limit}");
                }
            }
            let page = store.history(group.key, around(9, 6), group.head()).unwrap();
            let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
            assert_eq!(seqs, [6, 7, 8, 9, 10, 12]);
            assert!(page.more_before && page.more_after && page.runs.len() == 1);
        },
    );
}
