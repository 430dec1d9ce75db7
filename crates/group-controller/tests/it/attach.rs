//! Who may join a group's stream, what a connection is replayed, and when its right ends.

use std::time::Duration;

use convene_group_controller::Input;
use convene_model::{
    Code, Timestamp, UpstreamId,
    event::TriggerPolicy::Mention,
    frame::{DetachReason, GroupFrame, RunPhase},
    limits::{
        EXPIRED_TOKEN_GRACE, MAX_CONNS_PER_UPSTREAM, MAX_REPLAY_EVENTS, MAX_UPSTREAMS_PER_GROUP,
        PRESENCE_GRACE, PRESENCE_PAUSE, ROUTING_TOKEN_TTL, RUN_TIMEOUT,
    },
};

use crate::harness::{Room, at, completed, id, on};

const MS: Duration = Duration::from_millis(1);

fn resume(room: &mut Room, after: Option<u64>, history: Option<&str>) -> crate::harness::Out {
    let access = Ok(room.access("bob"));
    let history = history.map(id);
    room.step(Input::Attach { from: on("c2"), r#ref: id("7"), access, after, history })
}

#[test]
fn attached_names_the_head_and_what_history_does_not_say() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    let GroupFrame::Attached { r#ref, seq, epoch, history, state } =
        resume(&mut room, None, None).accepted().one_to(&on("c2"))
    else {
        panic!("attached")
    };
    assert_eq!((r#ref, seq, epoch, history), (id("7"), room.seq(), 1, id("h1")));
    assert_eq!((state.version, state.agents.len(), state.paused), (1, 1, false));
    assert_eq!((&state.runs[0].run_id, state.runs[0].attempt), (&run, 1));
    assert_eq!(state.runs[0].phase, RunPhase::Thinking);
}

#[test]
fn exactly_what_was_missed_is_replayed() {
    let mut room = Room::with(&[]);
    for _ in 0..4 {
        room.say("hi");
    }
    let head = room.seq();
    assert_eq!(resume(&mut room, None, None).accepted().replays(), []);
    assert_eq!(resume(&mut room, Some(head), Some("h1")).accepted().replays(), []);
    assert_eq!(resume(&mut room, Some(head - 3), None).accepted().replays(), [(head - 3, head)]);
    assert_eq!(resume(&mut room, Some(0), Some("h1")).accepted().replays(), [(0, head)]);
}

#[test]
fn a_replay_beyond_the_limit_is_too_old_and_says_where_one_could_start() {
    let mut room = Room::with(&[]);
    while room.seq() <= MAX_REPLAY_EVENTS {
        room.say("hi");
    }
    let head = room.seq();
    let out = resume(&mut room, Some(head - MAX_REPLAY_EVENTS - 1), None);
    let GroupFrame::Error { code, start, .. } = out.one_to(&on("c2")) else { panic!("{out:?}") };
    assert_eq!((code, start), (Code::TooOld, Some(head - MAX_REPLAY_EVENTS + 1)));
    assert_eq!((out.replays(), room.controller.connections()), (vec![], 1));

    let out = resume(&mut room, Some(head - MAX_REPLAY_EVENTS), None).accepted();
    assert_eq!(out.replays(), [(head - MAX_REPLAY_EVENTS, head)]);
}

#[test]
fn another_history_or_a_number_beyond_the_head_is_answered_with_reset() {
    let mut room = Room::with(&[]);
    let head = room.seq();
    for (after, history) in
        [(Some(1), "h2"), (None, "h2"), (Some(head + 1), "h1"), (Some(u64::MAX), "h1")]
    {
        let out = resume(&mut room, after, Some(history));
        let reset = GroupFrame::Reset { r#ref: id("7"), seq: head, history: id("h1") };
        assert_eq!(out.one_to(&on("c2")), reset);
        assert_eq!((out.replays(), room.controller.connections()), (vec![], 1));
    }
}

#[test]
fn tokens_for_another_group_organization_or_epoch_do_not_hold() {
    let mut room = Room::with(&[]);
    let good = room.access("bob");
    let mut group = good.clone();
    group.claims.group_id = id("g2");
    let mut org = good.clone();
    org.claims.org_id = id("o2");
    let mut old = good.clone();
    old.claims.epoch = 0;
    let mut future = good.clone();
    future.claims.epoch = 2;
    for (access, code) in [
        (group, Code::Forbidden),
        (org, Code::Forbidden),
        (old, Code::StaleEpoch),
        (future, Code::StaleEpoch),
    ] {
        assert_eq!(room.controller.state().unwrap().admits(&access), Err(code));
        room.attach_with(on("c2"), access, None).refused_to(&on("c2"), code);
    }
    assert_eq!(room.controller.state().unwrap().admits(&good), Ok(()));
    assert_eq!(room.controller.connections(), 1);
}

#[test]
fn a_token_that_the_host_found_bad_is_refused_and_takes_nothing_away() {
    let mut room = Room::with(&[]);
    for conn in ["c1", "c2"] {
        let access = Err(Code::TokenExpired);
        room.step(Input::Attach {
            from: on(conn),
            r#ref: id("1"),
            access,
            after: None,
            history: None,
        })
        .refused_to(&on(conn), Code::TokenExpired);
    }
    room.say("still here");
}

#[test]
fn a_removed_user_comes_back_with_a_token_of_a_later_second_only() {
    let mut room = Room::with(&[]);
    let before = room.access("ann");
    room.after(Duration::from_millis(2500));
    let same_second = room.access("ann");
    room.step(Input::Revoke(id("ann"))).accepted();
    for access in [before, same_second] {
        room.attach_with(on("c1"), access, None).refused_to(&on("c1"), Code::AccessRevoked);
    }
    room.attach("c2", "bob").accepted();
    room.after(Duration::from_millis(500));
    room.attach("c1", "ann").accepted();
}

#[test]
fn a_revocation_holds_as_long_as_a_token_from_before_it_could() {
    let mut room = Room::with(&[]);
    let before = room.access("ann");
    room.step(Input::Revoke(id("ann"))).accepted();
    room.after(ROUTING_TOKEN_TTL + EXPIRED_TOKEN_GRACE);
    room.step(Input::Revoke(id("bob"))).accepted();
    room.attach_with(on("c1"), before, None).refused_to(&on("c1"), Code::AccessRevoked);
}

#[test]
fn attaching_again_on_the_same_connection_renews() {
    let mut room = Room::with(&[]);
    room.after(ROUTING_TOKEN_TTL);
    room.attach("c1", "ann").accepted();
    assert_eq!(room.controller.connections(), 1);
    let out = room.after(ROUTING_TOKEN_TTL + EXPIRED_TOKEN_GRACE - MS).tick();
    assert_eq!(out.detached(), []);
    assert_eq!(out.0.wake_at, Some(room.now + MS));
}

#[test]
fn a_connection_stays_with_its_user() {
    let mut room = Room::with(&[]);
    room.attach("c1", "bob").refused_to(&on("c1"), Code::Forbidden);
    room.attach_with(at(2, "c1"), room.access("bob"), None).accepted();
}

#[test]
fn a_connection_ends_when_its_token_has_been_expired_for_the_grace_time() {
    let mut room = Room::with(&[]);
    let ends = room.access("ann").expires_at + EXPIRED_TOKEN_GRACE;
    room.now = Timestamp::from_millis(ends.millis() - 1);
    assert_eq!(room.tick().0.wake_at, Some(ends));
    room.say("a last word");
    room.now = ends;
    let out =
        room.step(Input::Post(room.post_of("c1", "late", "too late"))).refused(Code::NotAttached);
    assert_eq!(out.detached(), [("c1".into(), DetachReason::TokenExpired)]);
    assert_eq!(room.controller.connections(), 0);
    assert_eq!(out.0.wake_at, Some(ends + PRESENCE_GRACE), "she is present a while longer");
    room.after(PRESENCE_GRACE).tick();
    let out = room.after(PRESENCE_PAUSE).tick();
    assert_eq!((out.0.wake_at, out.0.effects.len()), (None, 0), "nobody is there to be told");
}

#[test]
fn an_upstream_carries_so_many_connections_and_a_group_so_many_upstreams() {
    let mut room = Room::new();
    let access = room.access("ann");
    for index in 0..MAX_CONNS_PER_UPSTREAM {
        room.attach_with(on(&format!("c{index}")), access.clone(), None).accepted();
    }
    let out = room.attach_with(on("more"), access.clone(), None);
    let out = out.refused_to(&on("more"), Code::Overloaded);
    let GroupFrame::Error { retry_after_ms: Some(_), .. } = out.one_to(&on("more")) else {
        panic!("overloaded says when to try again: {out:?}")
    };
    room.attach_with(on("c0"), access.clone(), None).accepted();
    for upstream in 2..=MAX_UPSTREAMS_PER_GROUP as u64 {
        room.attach_with(at(upstream, "c"), access.clone(), None).accepted();
    }
    let beyond = at(MAX_UPSTREAMS_PER_GROUP as u64 + 1, "c");
    room.attach_with(beyond.clone(), access.clone(), None).refused_to(&beyond, Code::Overloaded);
    room.attach_with(at(2, "d"), access.clone(), None).accepted();
    room.step(Input::Closed(UpstreamId(3))).accepted();
    room.attach_with(beyond, access, None).accepted();
}

#[test]
fn joining_in_mid_stream_brings_the_text_so_far() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    room.text(&run, 1, 0, "Grüß ");
    room.text(&run, 1, 7, "Gott");
    let head = room.seq();
    let out = resume(&mut room, Some(head - 1), None).accepted();
    assert_eq!(out.replays(), [(head - 1, head)]);
    let frames = out.to(&on("c2"));
    let so_far =
        GroupFrame::Delta {
            run_id: run.clone(), attempt: 1, offset: 0, text: "Grüß Gott".into()
        };
    assert!(matches!(frames[0], GroupFrame::Attached { .. }));
    assert_eq!(frames[1..], [so_far]);

    let next = room.text(&run, 1, 11, "!").broadcasts();
    assert_eq!(
        next,
        [GroupFrame::Delta { run_id: run.clone(), attempt: 1, offset: 11, text: "!".into() }]
    );
    assert_eq!(resume(&mut room, None, None).to(&on("c2")).len(), 1, "renewing repeats no text");
    room.end(&run, 1, completed());
    let frames = room.attach("c3", "cleo").to(&on("c3"));
    assert_eq!(frames.len(), 1, "what has ended is in the history");
}

#[test]
fn an_attach_that_meets_a_deadline_names_what_the_deadline_set_in_motion() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.wake("@guide one");
    room.say("@guide two");
    room.after(RUN_TIMEOUT);
    let out = room.attach_with(on("c2"), room.access("bob"), Some(2)).accepted();
    assert_eq!(out.kinds(), ["run.finished", "run.started"]);
    assert_eq!(out.replays(), [(2, room.seq())]);
    let run = out.invocations()[0].request.run_id.clone();
    room.end(&run, 1, crate::harness::lost());
}
