//! The text so far of a reply is stored now and then, so that a crash does not lose all of it.

use convene_group_controller::{Controller, Input};
use convene_model::{
    event::{RunStatus, TriggerPolicy::Mention},
    limits::CHECKPOINT_BYTES,
};

use crate::harness::{Room, completed};

/// Another process goes on from a snapshot and the events after it.
fn rebuild(room: &mut Room, snapshot: &[u8], seq: u64) {
    let after = room.log[seq as usize..].to_vec();
    room.controller = Controller::rebuild(Some(snapshot), after).unwrap();
    room.watchers = Default::default();
}

#[test]
fn after_a_crash_an_interrupted_reply_keeps_what_was_stored_of_it() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    let first = "x".repeat(CHECKPOINT_BYTES - 1);
    assert!(!room.text(&run, 1, 0, &first).0.checkpoint, "it is too short yet");
    let out = room.text(&run, 1, first.len() as u64, "y");
    assert!(out.0.checkpoint && out.0.events.is_empty());
    assert!(room.controller.is_replying());
    let (snapshot, seq) = (room.controller.snapshot().unwrap(), room.seq());
    let out = room.text(&run, 1, CHECKPOINT_BYTES as u64, " and more");
    assert!(!out.0.checkpoint, "it has not doubled");

    rebuild(&mut room, &snapshot, seq);
    let out = room.step(Input::Recovered);
    assert_eq!(out.kinds(), ["message.posted", "run.finished"]);
    assert_eq!(out.posted()[0].text, format!("{first}y"));
    assert_eq!(out.one_finished().status, RunStatus::Interrupted);
    assert!(!room.controller.is_replying());
}

#[test]
fn a_reply_that_was_posted_after_it_was_stored_is_not_posted_again() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    assert!(room.text(&run, 1, 0, &"x".repeat(CHECKPOINT_BYTES)).0.checkpoint);
    let (snapshot, seq) = (room.controller.snapshot().unwrap(), room.seq());
    room.end(&run, 1, completed());

    rebuild(&mut room, &snapshot, seq);
    assert!(!room.controller.is_replying());
    let out = room.step(Input::Recovered);
    assert_eq!(out.0.events, []);
}

#[test]
fn a_snapshot_of_a_group_without_replies_has_none() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    let replies = |room: &Room| {
        String::from_utf8(room.controller.snapshot().unwrap()).unwrap().contains("\"replies\"")
    };
    assert!(!replies(&room));
    room.text(&run, 1, 0, "half");
    assert!(replies(&room));
    room.end(&run, 1, completed());
    assert!(!replies(&room));
}
