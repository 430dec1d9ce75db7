//! The text of a summary goes with the texts that it was made of.

use convene_model::{
    agents::SummaryAuthor,
    event::{EventKind, SummaryRecorded},
};

use crate::support::{Group, commit, delete, edit, message, open};

fn summary(from_seq: u64, to_seq: u64, text: &str) -> EventKind {
    EventKind::SummaryRecorded(SummaryRecorded {
        from_seq,
        to_seq,
        by: SummaryAuthor::Model,
        run_id: None,
        usage: None,
        text: text.into(),
    })
}

/// Commits events one by one and says of each whether its text is gone.
fn erased_after(kinds: Vec<EventKind>, at_once: bool) -> Vec<bool> {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut group = Group::new("g");
    if at_once {
        commit(&store, group.batch(kinds)).unwrap();
    } else {
        for kind in kinds {
            commit(&store, group.batch([kind])).unwrap();
            store.settle();
        }
    }
    store.settle();
    let records = store.events(group.key, 1, group.head()).unwrap();
    // The chain holds all the same.
    store.load(group.key).unwrap().unwrap();
    records.iter().map(|record| record.erased.is_some()).collect()
}

fn messages() -> Vec<EventKind> {
    (1..=4).map(|n| message(&format!("m{n}"), "hello")).collect()
}

#[test]
fn a_deletion_erases_the_summary_that_the_message_was_in() {
    for at_once in [false, true] {
        let inside = [messages(), vec![summary(1, 2, "they said hello"), delete(2)]].concat();
        assert_eq!(erased_after(inside, at_once), [false, true, false, false, true, false]);
        let outside = [messages(), vec![summary(1, 2, "they said hello"), delete(3)]].concat();
        assert_eq!(erased_after(outside, at_once), [false, false, true, false, false, false]);
    }
}

#[test]
fn an_edit_erases_it_too_although_the_former_text_is_kept() {
    for at_once in [false, true] {
        let events = [messages(), vec![summary(1, 2, "they said hello"), edit(1, "bye")]].concat();
        assert_eq!(erased_after(events, at_once), [false, false, false, false, true, false]);
    }
}

#[test]
fn a_summary_takes_the_place_of_the_one_before() {
    for at_once in [false, true] {
        let events =
            [messages(), vec![summary(1, 2, "one"), summary(1, 3, "two"), delete(4)]].concat();
        assert_eq!(erased_after(events, at_once), [false, false, false, true, true, false, false]);
    }
}

#[test]
fn a_summary_that_came_after_the_change_keeps_its_text() {
    for at_once in [false, true] {
        let events = [messages(), vec![delete(2), summary(1, 3, "what is left")]].concat();
        assert_eq!(erased_after(events, at_once), [false, true, false, false, false, false]);
    }
}
