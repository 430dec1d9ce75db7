//! That somebody is writing: told to everybody, now and then, and remembered nowhere.

use std::time::Duration;

use convene_model::{Role, event::TriggerPolicy::Mention, frame::GroupFrame, limits::TYPING_PAUSE};

use crate::harness::{Out, Room, at, id};

fn told(out: &Out) -> Vec<GroupFrame> {
    let typing = |frame: &GroupFrame| matches!(frame, GroupFrame::Typing { .. });
    out.broadcasts().into_iter().filter(typing).collect()
}

#[test]
fn everybody_is_told_who_is_writing_and_nobody_answers() {
    let mut room = Room::with(&[("guide", Mention)]);
    let out = room.types("c1").accepted();
    assert_eq!(told(&out), [GroupFrame::Typing { user_id: id("ann") }]);
    assert_eq!((out.0.events.len(), out.0.effects.len()), (0, 1));
}

#[test]
fn a_user_is_told_of_at_most_so_often_over_all_connections() {
    let mut room = Room::with(&[]);
    room.attach("c2", "ann").accepted();
    room.attach_with(at(2, "c1"), room.access("bob"), None).accepted();
    let told_on = |room: &mut Room, conn: &str| told(&room.types(conn).accepted()).len();
    assert_eq!(told_on(&mut room, "c1"), 1);
    room.after(TYPING_PAUSE.saturating_sub(Duration::from_millis(1)));
    assert_eq!((told_on(&mut room, "c1"), told_on(&mut room, "c2")), (0, 0));
    room.after(Duration::from_millis(1));
    assert_eq!((told_on(&mut room, "c2"), told_on(&mut room, "c1")), (1, 0));
}

#[test]
fn one_users_typing_does_not_silence_anothers() {
    let mut room = Room::with(&[]);
    room.attach_as("c2", "bob", Role::Member).accepted();
    assert_eq!(told(&room.types("c1")).len(), 1);
    assert_eq!(told(&room.types("c2")).len(), 1);
}

#[test]
fn an_agents_process_says_that_it_writes_by_its_runs_alone() {
    let mut room = Room::with(&[]);
    room.attach_as("c2", "bot", Role::Agent).accepted();
    assert_eq!(told(&room.types("c2")).len(), 0);
}

#[test]
fn who_is_not_attached_is_passed_over() {
    let mut room = Room::with(&[]);
    let out = room.types("c9").accepted();
    assert_eq!((out.0.events.len(), out.0.effects.len()), (0, 0));
}
