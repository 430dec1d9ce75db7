//! A group comes to life once, in one organization, and only ever raises its epoch.

use convene_group_controller::{Effect, Input};
use convene_model::{Code, event::EventKind, frame::DetachReason, infra::HistoryMode};

use crate::harness::{Room, at, id, init, on};

fn init_of(group: &str, org: &str, epoch: u64) -> Input {
    Input::Init {
        group_id: id(group),
        org_id: id(org),
        history_mode: HistoryMode::Internal,
        epoch,
        history: id("h1"),
    }
}

#[test]
fn the_first_init_is_the_first_event() {
    let mut room = Room::empty();
    let out = room.step(init(3)).accepted();
    let EventKind::GroupActivated(activated) = &out.0.events[0].kind else { panic!("{out:?}") };
    assert_eq!((activated.epoch, activated.history.as_str()), (3, "h1"));
    assert_eq!(
        (out.kinds(), out.0.effects.len(), out.0.wake_at),
        (vec!["group.activated".into()], 0, None)
    );
}

#[test]
fn an_equal_init_changes_nothing_and_keeps_the_first_history() {
    let mut room = Room::new();
    let Input::Init { group_id, org_id, history_mode, epoch, .. } = init(1) else { unreachable!() };
    let again = Input::Init { group_id, org_id, history_mode, epoch, history: id("h2") };
    let out = room.step(again).accepted();
    assert_eq!(out.0.events, []);
    assert_eq!(room.controller.state().unwrap().identity().history, id("h1"));
}

#[test]
fn another_organization_or_group_is_refused() {
    let mut room = Room::new();
    room.step(init_of("g1", "o2", 1)).refused(Code::OrgMismatch);
    room.step(init_of("g2", "o1", 1)).refused(Code::OrgMismatch);
    room.step(init_of("g1", "o2", 9)).refused(Code::OrgMismatch);
}

#[test]
fn a_lower_epoch_is_stale() {
    let mut room = Room::empty();
    room.step(init(3)).accepted();
    room.step(init(2)).refused(Code::StaleEpoch);
    assert_eq!(room.controller.state().unwrap().identity().epoch, 3);
}

#[test]
fn a_higher_epoch_detaches_everybody_and_voids_their_tokens() {
    let mut room = Room::with(&[]);
    let old = room.access("ann");
    room.attach_with(at(2, "c9"), room.access("bob"), None).accepted();
    let out = room.step(init(2)).accepted();
    assert_eq!(out.kinds(), ["group.epoch_raised"]);
    let raised = DetachReason::EpochRaised;
    assert_eq!(out.detached(), [("c1".into(), raised), ("c9".into(), raised)]);
    assert_eq!(out.0.effects.last(), Some(&Effect::EndUpstreams), "after they were told");
    assert_eq!((room.controller.connections(), out.0.wake_at), (0, None));
    room.attach_with(on("c1"), old, None).refused_to(&on("c1"), Code::StaleEpoch);
    room.attach("c1", "ann").accepted();
}

#[test]
fn a_group_keeps_the_history_mode_that_it_came_to_life_with() {
    for (mut room, kept) in
        [(Room::empty(), HistoryMode::External), (Room::new(), HistoryMode::Internal)]
    {
        let Input::Init { group_id, org_id, epoch, history, .. } = init(1) else { unreachable!() };
        let history_mode = HistoryMode::External;
        room.step(Input::Init { group_id, org_id, history_mode, epoch, history }).accepted();
        assert_eq!(room.controller.state().unwrap().identity().history_mode, kept);
    }
}

#[test]
fn nothing_but_an_init_brings_a_group_to_life() {
    let group = Room::with(&[]);
    let inputs = [
        Input::Tick,
        Input::Recovered,
        Input::Revoke(id("ann")),
        Input::Configure(group.controller.state().unwrap().config().clone()),
        Input::Post(group.post_of("c1", "m1", "hi")),
        Input::Attach {
            from: on("c1"),
            r#ref: id("1"),
            access: Ok(group.access("ann")),
            after: None,
            history: None,
        },
    ];
    for input in inputs {
        let mut room = Room::empty();
        room.step(input).refused(Code::GroupNotFound);
        assert!(room.controller.state().is_none() && room.controller.snapshot().is_none());
        // An empty log rebuilds nothing, which is what the room's end checks.
    }
}
