//! A group that is archived stands still, and goes on only when it is taken back or restored.

use std::time::Duration;

use convene_group_controller::{Controller, Effect, Input, Phase};
use convene_model::{
    Code,
    event::{EventKind, RunStatus, TriggerPolicy, Unfrozen},
    frame::DetachReason,
};

use crate::harness::{Out, Room, completed, id, init, on};

fn freeze(room: &mut Room, archive_id: &str, epoch: u64) -> Out {
    room.step(Input::Freeze { archive_id: id(archive_id), epoch })
}

fn thaw(room: &mut Room, archive_id: &str, epoch: u64) -> Out {
    room.step(Input::Thaw { archive_id: id(archive_id), epoch })
}

fn unfrozen(archive_id: &str, epoch: u64) -> Unfrozen {
    Unfrozen { archive_id: id(archive_id), epoch }
}

#[test]
fn a_freeze_ends_the_runs_detaches_everybody_and_is_the_last_event() {
    let agents = [("a0", TriggerPolicy::Mention), ("a1", TriggerPolicy::Mention)];
    let mut room = Room::with(&agents);
    room.attach("c2", "ben").accepted();
    let writing = room.wake("@a0 write");
    room.text(&writing, 1, 0, "Half a sen");
    let waiting = room.say("@a0 again").0.events;
    assert!(waiting.len() > 1, "a run waits: {waiting:?}");
    assert_eq!(room.working_and_waiting(), (vec!["a0".into()], vec!["a0".into()]));

    let out = freeze(&mut room, "x1", 1).accepted();
    let statuses: Vec<_> = out
        .0
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RunFinished(finished) => Some(finished.status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [RunStatus::Interrupted; 2]);
    let kept = out.0.events.iter().any(|event| {
        matches!(&event.kind, EventKind::MessagePosted(posted) if posted.text == "Half a sen")
    });
    assert!(kept, "what was shown is kept");
    let last = out.0.events.last().unwrap();
    assert_eq!(last.kind, EventKind::GroupFrozen { archive_id: id("x1") });
    let reason = DetachReason::GroupArchived;
    assert_eq!(out.detached(), [("c1".into(), reason), ("c2".into(), reason)]);
    assert_eq!(out.0.wake_at, None, "nothing wakes it");
    assert!(room.controller.state().unwrap().runs().is_empty());
    assert_eq!(room.phase(&writing), None::<Phase>);
}

#[test]
fn what_is_frozen_refuses_everything_that_would_make_something_happen() {
    let mut room = Room::with(&[("a0", TriggerPolicy::Auto)]);
    room.say("before");
    freeze(&mut room, "x1", 1).accepted();
    let seq = room.seq();
    let state = room.controller.state().unwrap().clone();
    room.attach("c1", "ann").refused(Code::GroupArchived);
    room.post("c1", "m9", "after").refused(Code::GroupArchived);
    room.edit("c1", "m1", "after").refused(Code::GroupArchived);
    room.delete("c1", "m1").refused(Code::GroupArchived);
    room.react("c1", "m1", "👍", true).refused(Code::GroupArchived);
    room.pin("c1", "m1", true).refused(Code::GroupArchived);
    room.cancel(&id("r2-0")).refused(Code::GroupArchived);
    room.step(Input::Revoke(id("ann"))).refused(Code::GroupArchived);
    room.step(Input::Configure(state.config().clone())).refused(Code::GroupArchived);
    room.step(init(1)).refused(Code::GroupArchived);
    let out = room.step(Input::RunEnded { run_id: id("r2-0"), attempt: 1, end: completed() });
    assert!(out.0.events.is_empty());
    room.after(Duration::from_secs(86_400)).tick();
    assert_eq!(room.seq(), seq);
    assert_eq!(room.controller.state(), Some(&state));
    assert!(room.attach_refusal_is_told());
}

#[test]
fn a_repeated_freeze_is_success_and_another_one_is_refused() {
    let mut room = Room::with(&[]);
    freeze(&mut room, "x1", 1).accepted();
    let seq = room.seq();
    freeze(&mut room, "x1", 1).accepted();
    freeze(&mut room, "x2", 1).refused(Code::IllegalTransition);
    freeze(&mut room, "x1", 0).refused(Code::StaleEpoch);
    assert_eq!(room.seq(), seq);
    room.crash();
    freeze(&mut room, "x1", 1).accepted();
    assert_eq!(room.seq(), seq, "it is state");
}

#[test]
fn a_thaw_under_a_higher_epoch_lets_the_group_go_on() {
    let mut room = Room::with(&[]);
    freeze(&mut room, "x1", 1).accepted();
    thaw(&mut room, "x1", 1).refused(Code::IllegalTransition);
    thaw(&mut room, "x2", 2).refused(Code::IllegalTransition);
    let out = thaw(&mut room, "x1", 2).accepted();
    assert!(out.0.effects.contains(&Effect::EndUpstreams), "they are of the former epoch");
    assert_eq!(room.log.last().unwrap().kind, EventKind::GroupThawed(unfrozen("x1", 2)));
    let seq = room.seq();
    thaw(&mut room, "x1", 2).accepted();
    assert_eq!(room.seq(), seq, "a repeat changes nothing");
    freeze(&mut room, "x1", 1).refused(Code::StaleEpoch);
    room.attach("c1", "ann").accepted();
    room.say("it goes on");
}

#[test]
fn a_freeze_under_a_higher_epoch_ends_the_upstreams_of_the_former_one() {
    let mut room = Room::with(&[]);
    let out = freeze(&mut room, "x1", 1).accepted();
    assert!(!out.0.effects.contains(&Effect::EndUpstreams), "their epoch still holds");
    let out = freeze(&mut room, "x2", 2).accepted();
    assert_eq!(out.0.effects.last(), Some(&Effect::EndUpstreams));
    let mut room = Room::with(&[]);
    let out = freeze(&mut room, "x1", 2).accepted();
    assert_eq!(out.detached(), [("c1".into(), DetachReason::GroupArchived)]);
    assert_eq!(out.0.effects.last(), Some(&Effect::EndUpstreams), "after they were told");
}

#[test]
fn a_thaw_before_the_freeze_makes_the_freeze_outdated() {
    let mut room = Room::with(&[]);
    let out = thaw(&mut room, "x1", 2).accepted();
    assert_eq!(out.detached(), [("c1".into(), DetachReason::EpochRaised)]);
    freeze(&mut room, "x1", 1).refused(Code::StaleEpoch);
    assert_eq!(room.controller.state().unwrap().frozen(), None);
}

#[test]
fn whoever_has_a_higher_epoch_has_taken_the_group_back() {
    let mut room = Room::with(&[]);
    freeze(&mut room, "x1", 1).accepted();
    room.step(init(2)).accepted();
    assert_eq!(room.log.last().unwrap().kind, EventKind::GroupThawed(unfrozen("x1", 2)));
    freeze(&mut room, "x2", 2).accepted();
    // The thaw of the second attempt was lost; a third one comes.
    freeze(&mut room, "x3", 3).accepted();
    let state = room.controller.state().unwrap();
    assert_eq!((state.frozen(), state.identity().epoch), (Some(&id("x3")), 3));
}

#[test]
fn a_freeze_takes_over_the_epoch_that_its_directory_has() {
    let mut room = Room::with(&[]);
    freeze(&mut room, "x1", 4).accepted();
    assert_eq!(room.controller.state().unwrap().identity().epoch, 4);
    thaw(&mut room, "x1", 4).refused(Code::IllegalTransition);
}

#[test]
fn a_restored_group_goes_on_where_its_snapshot_ended() {
    let mut room = Room::with(&[]);
    room.step(Input::Restore { epoch: 2 }).refused(Code::IllegalTransition);
    room.say("kept");
    freeze(&mut room, "x1", 1).accepted();
    room.rebuild();
    room.step(Input::Restore { epoch: 1 }).refused(Code::StaleEpoch);
    room.step(Input::Restore { epoch: 2 }).accepted();
    assert_eq!(room.log.last().unwrap().kind, EventKind::GroupRestored(unfrozen("x1", 2)));
    room.attach("c1", "ann").accepted();
    room.say("it goes on");
}

#[test]
fn no_history_goes_on_after_a_freeze_but_by_a_thaw() {
    let mut room = Room::with(&[]);
    freeze(&mut room, "x1", 1).accepted();
    for kind in [
        EventKind::EpochRaised { epoch: 2 },
        EventKind::GroupFrozen { archive_id: id("x1") },
        EventKind::GroupThawed(unfrozen("x2", 2)),
        EventKind::GroupThawed(unfrozen("x1", 1)),
    ] {
        let mut log = room.log.clone();
        let mut next = log.last().unwrap().clone();
        next.seq += 1;
        next.kind = kind.clone();
        log.push(next);
        assert!(Controller::rebuild(None, log).is_err(), "{kind:?}");
    }
}

impl Room {
    /// Whether the refusal of an attach reaches the connection.
    fn attach_refusal_is_told(&mut self) -> bool {
        let out = self.attach("c7", "cho");
        let frame = serde_json::to_value(out.one_to(&on("c7"))).unwrap();
        frame["type"] == "error" && frame["code"] == "group_archived"
    }
}
