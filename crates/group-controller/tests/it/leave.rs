//! How connections leave: by themselves, with their upstream, or because their user was removed.

use convene_group_controller::Input;
use convene_model::{
    Code, UpstreamId,
    frame::{DetachReason, GroupFrame},
};

use crate::harness::{Out, Room, at, id, on};

fn detach(room: &mut Room, conn: &str) -> Out {
    room.step(Input::Detach { from: on(conn), r#ref: id("9") })
}

#[test]
fn who_detaches_is_answered_and_gone() {
    let mut room = Room::with(&[]);
    let out = detach(&mut room, "c1").accepted();
    assert_eq!(
        out.to(&on("c1")),
        [
            GroupFrame::Ok { r#ref: id("9"), seq: None, message_id: None },
            GroupFrame::Detached { reason: DetachReason::Requested, user_id: None },
        ]
    );
    assert_eq!((out.0.events.len(), room.controller.connections()), (0, 0));
    detach(&mut room, "c1").refused_to(&on("c1"), Code::NotAttached);
    room.step(Input::Post(room.post_of("c1", "m1", "hi"))).refused_to(&on("c1"), Code::NotAttached);
}

#[test]
fn an_upstream_takes_its_connections_along_and_no_others() {
    let mut room = Room::with(&[]);
    room.attach("c2", "bob").accepted();
    room.attach_with(at(2, "c1"), room.access("ann"), None).accepted();
    let out = room.step(Input::Closed(UpstreamId(1))).accepted();
    assert_eq!((out.0.effects.len(), room.controller.connections()), (0, 1));
    room.step(Input::Post(room.post_of("c2", "m1", "hi"))).refused(Code::NotAttached);
    room.step(Input::Closed(UpstreamId(7))).accepted();
    assert!(room.tick().0.wake_at.is_some(), "the other connection's expiry is still watched");
}

#[test]
fn a_removed_user_is_detached_everywhere_and_nobody_else_is() {
    let mut room = Room::with(&[]);
    room.attach("c2", "bob").accepted();
    room.attach_with(at(2, "c3"), room.access("ann"), None).accepted();
    let out = room.step(Input::Revoke(id("ann"))).accepted();
    assert_eq!(out.kinds(), ["access.revoked"]);
    let all = GroupFrame::Detached { reason: DetachReason::Revoked, user_id: Some(id("ann")) };
    assert_eq!(out.broadcasts()[0], all, "before anything else");
    assert_eq!(room.controller.connections(), 1);
    room.step(Input::Post(room.post_of("c1", "m1", "hi"))).refused(Code::NotAttached);
    room.step(Input::Post(room.post_of("c2", "m1", "hi"))).accepted();
}

#[test]
fn a_removal_is_remembered_over_a_restart() {
    let mut room = Room::with(&[]);
    let access = room.access("ann");
    room.step(Input::Revoke(id("ann"))).accepted();
    room.crash();
    room.attach_with(on("c1"), access, None).refused_to(&on("c1"), Code::AccessRevoked);
}

#[test]
fn what_the_host_refuses_is_answered_in_its_turn() {
    let mut room = Room::with(&[]);
    let out = room.step(Input::Refuse {
        from: on("c1"),
        r#ref: Some(id("3")),
        code: Code::Overloaded,
        detail: "full".into(),
        retry_after_ms: Some(200),
    });
    let out = out.refused_to(&on("c1"), Code::Overloaded);
    let error = GroupFrame::Error {
        r#ref: Some(id("3")),
        code: Code::Overloaded,
        detail: Some("full".into()),
        retry_after_ms: Some(200),
        start: None,
    };
    assert_eq!(out.one_to(&on("c1")), error);
}
