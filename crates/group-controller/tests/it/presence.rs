//! Who is present: told in few frames, forgiving of reconnects, exact once things are quiet.

use std::{collections::BTreeSet, time::Duration};

use convene_group_controller::Input;
use convene_model::{
    Timestamp, UpstreamId, UserId,
    frame::GroupFrame,
    limits::{
        EXPIRED_TOKEN_GRACE, MAX_PRESENT_LISTED, PRESENCE_GRACE, PRESENCE_PAUSE, ROUTING_TOKEN_TTL,
    },
};
use proptest::prelude::*;

use crate::harness::{Out, Room, at, id, init, on};

const MS: Duration = Duration::from_millis(1);

/// A room with ann, of whom everybody knows.
fn room() -> Room {
    let mut room = Room::with(&[]);
    assert_eq!(room.after(PRESENCE_PAUSE).tick().presence().len(), 1);
    room
}

fn detach(room: &mut Room, conn: &str) -> Out {
    room.step(Input::Detach { from: on(conn), r#ref: id("9") }).accepted()
}

fn ids(names: &[&str]) -> Vec<UserId> {
    names.iter().map(id).collect()
}

fn present(out: &Out, conn: &str) -> (BTreeSet<UserId>, u64) {
    let frames = out.to(&on(conn));
    let Some(GroupFrame::Attached { state, .. }) = frames.first() else { panic!("{frames:?}") };
    (state.present.iter().cloned().collect(), state.present_count)
}

#[test]
fn attached_lists_who_is_present_oneself_included() {
    let mut room = room();
    let out = room.attach("c2", "bob").accepted();
    assert_eq!(present(&out, "c2"), (ids(&["ann", "bob"]).into_iter().collect(), 2));
}

#[test]
fn arrivals_are_gathered_and_told_at_once() {
    let mut room = room();
    assert_eq!(room.attach("c2", "bob").presence(), []);
    room.after(PRESENCE_PAUSE - MS);
    let out = room.attach("c3", "cleo");
    assert_eq!((out.presence(), out.0.wake_at), (vec![], Some(room.now + MS)));
    let out = room.after(MS).tick();
    assert_eq!(out.presence(), [(ids(&["bob", "cleo"]), vec![], 3)]);
    assert_eq!(room.after(PRESENCE_PAUSE * 5).tick().presence(), [], "nothing more to say");
}

#[test]
fn a_user_with_several_connections_is_present_once_and_until_the_last_one_ends() {
    let mut room = room();
    for (upstream, conn) in [(1, "c2"), (1, "c3"), (2, "c2")] {
        room.attach_with(at(upstream, conn), room.access("bob"), None).accepted();
    }
    assert_eq!(room.after(PRESENCE_PAUSE).tick().presence(), [(ids(&["bob"]), vec![], 2)]);
    detach(&mut room, "c2");
    detach(&mut room, "c3");
    assert_eq!(room.after(PRESENCE_GRACE * 2).tick().presence(), [], "the other upstream has one");
    room.step(Input::Closed(UpstreamId(2))).accepted();
    assert_eq!(room.after(PRESENCE_GRACE).tick().presence(), []);
    assert_eq!(room.after(PRESENCE_PAUSE).tick().presence(), [(vec![], ids(&["bob"]), 1)]);
}

#[test]
fn a_reconnect_within_the_grace_time_is_seen_by_nobody() {
    let mut room = room();
    room.attach("c2", "bob").accepted();
    room.after(PRESENCE_PAUSE).tick();
    room.step(Input::Closed(UpstreamId(1))).accepted();
    room.after(PRESENCE_GRACE - MS);
    let out = room.attach("c5", "ann").accepted();
    assert_eq!(present(&out, "c5").1, 2, "bob counts still");
    room.attach("c6", "bob").accepted();
    assert_eq!(room.after(PRESENCE_GRACE * 3).tick().presence(), []);
}

#[test]
fn who_does_not_come_back_leaves_after_the_grace_time() {
    let mut room = room();
    room.attach("c2", "bob").accepted();
    room.after(PRESENCE_PAUSE).tick();
    let out = detach(&mut room, "c2");
    assert_eq!(out.0.wake_at, Some(room.now + PRESENCE_GRACE));
    room.after(PRESENCE_GRACE).tick();
    let out = room.attach("c3", "cleo").accepted();
    assert_eq!(present(&out, "c3"), (ids(&["ann", "cleo"]).into_iter().collect(), 2));
    let out = room.after(PRESENCE_PAUSE).tick();
    assert_eq!(out.presence(), [(ids(&["cleo"]), ids(&["bob"]), 2)]);
}

#[test]
fn renewing_and_expiring_are_no_arrivals_and_departures() {
    let mut room = room();
    room.attach("c1", "ann").accepted();
    assert_eq!(room.after(PRESENCE_PAUSE).tick().presence(), []);
    room.attach("c2", "bob").accepted();
    room.after(PRESENCE_PAUSE).tick();
    let gone = room.access("bob").expires_at + EXPIRED_TOKEN_GRACE;
    room.after(ROUTING_TOKEN_TTL).attach("c1", "ann").accepted();
    room.now = Timestamp::from_millis(gone.millis());
    assert_eq!(room.tick().presence(), []);
    room.attach("c2", "bob").accepted();
    assert_eq!(room.after(PRESENCE_GRACE * 2).tick().presence(), []);
}

#[test]
fn a_removed_user_is_present_no_longer_from_that_moment() {
    let mut room = room();
    for (upstream, conn) in [(1, "c2"), (2, "c2")] {
        room.attach_with(at(upstream, conn), room.access("bob"), None).accepted();
    }
    room.after(PRESENCE_PAUSE).tick();
    room.attach("c3", "cleo").accepted();
    let out = room.step(Input::Revoke(id("bob"))).accepted();
    let frames = out.broadcasts();
    assert!(matches!(frames[0], GroupFrame::Detached { .. }), "the removal comes first");
    assert_eq!(out.presence(), [(ids(&["cleo"]), ids(&["bob"]), 2)]);
    assert_eq!(room.after(PRESENCE_GRACE * 2).tick().presence(), []);

    room.after(Duration::from_secs(1));
    room.attach("c4", "dan").accepted();
    room.after(PRESENCE_PAUSE).tick();
    detach(&mut room, "c4");
    let out = room.step(Input::Revoke(id("dan"))).accepted();
    assert_eq!(out.presence(), [(vec![], ids(&["dan"]), 2)], "the grace time is over too");
    let out = room.step(Input::Revoke(id("nobody"))).accepted();
    assert_eq!(out.presence(), []);
}

#[test]
fn a_raised_epoch_leaves_nobody_present() {
    let mut room = room();
    room.attach("c2", "bob").accepted();
    let out = room.step(init(2)).accepted();
    assert_eq!((out.presence(), out.0.wake_at), (vec![], None));
    let out = room.attach("c3", "cleo").accepted();
    assert_eq!(present(&out, "c3"), (ids(&["cleo"]).into_iter().collect(), 1));
}

#[test]
fn a_crowd_that_joins_within_a_second_makes_few_frames() {
    const CROWD: usize = 2_000;
    let mut room = room();
    let mut frames = Vec::new();
    for index in 0..CROWD {
        let access = room.access(&format!("u{index}"));
        let out = room.attach_with(at(1 + index as u64 % 2, &format!("d{index}")), access, None);
        frames.extend(out.accepted().presence());
        if index % 4 == 0 {
            frames.extend(room.after(2 * MS).tick().presence());
        }
    }
    frames.extend(room.after(PRESENCE_PAUSE).tick().presence());
    assert!(frames.len() <= 2, "{} frames", frames.len());
    let named: usize = frames.iter().map(|(joined, left, _)| joined.len() + left.len()).sum();
    assert_eq!(named, MAX_PRESENT_LISTED - 1, "ann was known, and no more than may be are named");
    assert_eq!(frames.last().unwrap().2, CROWD as u64 + 1);
    room.watchers.check_settled();
}

#[test]
fn places_of_those_who_leave_are_taken_by_those_who_were_only_counted() {
    let mut room = room();
    let most = MAX_PRESENT_LISTED + 5;
    for index in 0..most {
        room.attach_with(at(2, &format!("d{index}")), room.access(&format!("u{index}")), None);
    }
    room.after(PRESENCE_PAUSE).tick();
    room.watchers.check_settled();
    for index in 0..10 {
        room.step(Input::Detach { from: at(2, &format!("d{index}")), r#ref: id("1") }).accepted();
    }
    room.after(PRESENCE_GRACE).tick();
    let out = room.after(PRESENCE_PAUSE).tick();
    let [(joined, left, count)] = &out.presence()[..] else { panic!("one frame: {out:?}") };
    assert_eq!((*count, left.len()), (most as u64 - 9, 10));
    assert!(!joined.is_empty() && joined.len() <= 10);
    room.watchers.check_settled();
}

/// Something that somebody does about being there.
#[derive(Debug, Clone)]
enum Move {
    Attach { upstream: u64, conn: u8, user: u16 },
    Detach { upstream: u64, conn: u8 },
    Close(u64),
    Revoke(u16),
    Wait(u64),
    Epoch,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let user = prop_oneof![3 => 0..6_u16, 1 => 0..400_u16];
    let waits = prop_oneof![6 => 0..1_500_u64, 1 => 9_000..11_500_u64, 1 => Just(400_000)];
    let one = prop_oneof![
        12 => (1..4_u64, any::<u8>(), user.clone())
            .prop_map(|(upstream, conn, user)| Move::Attach { upstream, conn, user }),
        4 => (1..4_u64, any::<u8>()).prop_map(|(upstream, conn)| Move::Detach { upstream, conn }),
        1 => (1..4_u64).prop_map(Move::Close),
        1 => user.prop_map(Move::Revoke),
        6 => waits.prop_map(Move::Wait),
        1 => prop::bool::weighted(0.2).prop_map(|raise| if raise { Move::Epoch } else { Move::Wait(0) }),
    ];
    // Half of the time a crowd was there before, so that not everybody can be named.
    let crowd = (0..2_u64, 190..230_u16).prop_map(|(with, size)| {
        let attach = |user| Move::Attach { upstream: 4, conn: 0, user };
        (0..size * with as u16).map(attach).collect::<Vec<_>>()
    });
    (crowd, prop::collection::vec(one, 1..120))
        .prop_map(|(crowd, moves)| crowd.into_iter().chain(moves).collect())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 96, ..ProptestConfig::default()
    })]

    #[test]
    fn once_it_is_quiet_everybody_knows_exactly_who_is_there(moves in moves()) {
        let mut room = Room::new();
        let mut epoch = 1;
        for (index, one) in moves.into_iter().enumerate() {
            // The crowd has a connection for each user.
            let address = |upstream: u64, conn: u8, user: u16| match upstream {
                4 => at(4, &format!("x{user}")),
                _ => at(upstream, &format!("c{}", conn % 16)),
            };
            match one {
                Move::Attach { upstream, conn, user } => {
                    let access = room.access(&format!("u{user}"));
                    room.attach_with(address(upstream, conn, user), access, None);
                }
                Move::Detach { upstream, conn } => {
                    let from = address(upstream, conn, 0);
                    room.step(Input::Detach { from, r#ref: id(index) });
                }
                Move::Close(upstream) => drop(room.step(Input::Closed(UpstreamId(upstream)))),
                Move::Revoke(user) => drop(room.step(Input::Revoke(id(format!("u{user}"))))),
                Move::Wait(millis) => drop(room.after(Duration::from_millis(millis)).tick()),
                Move::Epoch => {
                    epoch += 1;
                    room.step(init(epoch)).accepted();
                }
            }
        }
        // As a host does it: each deadline in its turn, until a while after the last one left.
        let mut wake_at = room.tick().0.wake_at;
        let mut here = room.watchers.len();
        let mut quiet = room.now + PRESENCE_GRACE + PRESENCE_PAUSE;
        while let Some(at) = wake_at.filter(|at| *at <= quiet) {
            room.now = at;
            wake_at = room.tick().0.wake_at;
            if room.watchers.len() != here {
                here = room.watchers.len();
                quiet = room.now + PRESENCE_GRACE + PRESENCE_PAUSE;
            }
        }
        room.watchers.check_settled();
    }
}
