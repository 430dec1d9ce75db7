//! The outbox of a group whose history its organization keeps.

use convene_group_controller::{Address, Controller, Effect, Input, Post, Step};
use convene_model::{
    Role, Timestamp, UpstreamId,
    claims::{Access, RoutingClaims},
    event::{Event, EventKind},
    infra::HistoryMode,
    limits::ROUTING_TOKEN_TTL,
};

use crate::harness::{START, id};

struct Group {
    controller: Controller,
    log: Vec<Event>,
}

impl Group {
    fn new(history_mode: HistoryMode) -> Self {
        let mut group = Self { controller: Controller::new(), log: Vec::new() };
        group.step(Input::Init {
            group_id: id("g1"),
            org_id: id("o1"),
            history_mode,
            epoch: 1,
            history: id("h1"),
        });
        let claims = RoutingClaims {
            user_id: id("ann"),
            org_id: id("o1"),
            group_id: id("g1"),
            role: Role::Member,
            epoch: 1,
        };
        let access = Access { claims, issued_at: START, expires_at: START + ROUTING_TOKEN_TTL };
        let (from, r#ref) = (from(), id("at"));
        group.step(Input::Attach { from, r#ref, access: Ok(access), after: None, history: None });
        group
    }

    fn step(&mut self, input: Input) -> Step {
        let step = self.controller.step(START, input);
        self.log.extend(step.events.clone());
        step
    }

    fn say(&mut self, text: &str) -> Step {
        let message_id = id(format!("m{}", self.log.len()));
        self.step(Input::Post(Post {
            from: from(),
            r#ref: id("po"),
            message_id,
            text: text.into(),
            mentions: None,
            reply_to: None,
            found: None,
            answered: None,
        }))
    }
}

fn from() -> Address {
    Address { upstream: UpstreamId(1), conn: id("c1") }
}

/// What is to be sent, as (after, upto).
fn exports(step: &Step) -> Vec<(u64, u64)> {
    let export = |effect: &Effect| match effect {
        Effect::Export { after, upto } => Some((*after, *upto)),
        _ => None,
    };
    step.effects.iter().filter_map(export).collect()
}

fn acknowledged(step: &Step) -> Vec<u64> {
    let upto = |event: &Event| match event.kind {
        EventKind::HistoryExported { upto } => Some(upto),
        _ => None,
    };
    step.events.iter().filter_map(upto).collect()
}

#[test]
fn what_is_written_is_sent_once_at_a_time_and_in_order() {
    let mut group = Group::new(HistoryMode::External);
    assert_eq!(exports(&group.say("one")), [(0, 2)]);
    assert!(group.controller.is_exporting());
    assert_eq!(exports(&group.say("two")), [], "one request is under way");
    let done = group.step(Input::Exported { upto: 2, whole: true });
    assert_eq!((acknowledged(&done), exports(&done)), (vec![2], vec![(2, 3)]));
    assert!(done.checkpoint, "the state must not need what may leave");
    let done = group.step(Input::Exported { upto: 3, whole: true });
    assert_eq!((acknowledged(&done), exports(&done)), (vec![3], vec![]));
    assert!(!group.controller.is_exporting());
}

#[test]
fn a_part_that_was_acknowledged_is_not_sent_again_after_a_crash() {
    let mut group = Group::new(HistoryMode::External);
    group.say("one");
    group.say("two");
    group.step(Input::Exported { upto: 2, whole: true });
    assert!(group.controller.durable_deadline().is_some_and(|at| at <= START), "it is woken");
    group.controller = Controller::rebuild(None, group.log.clone()).unwrap();
    assert_eq!(exports(&group.step(Input::Recovered)), [(2, 3)]);
    let repeated = group.step(Input::Exported { upto: 2, whole: false });
    assert!(acknowledged(&repeated).is_empty());
    group.step(Input::Exported { upto: 3, whole: true });
    assert_eq!(group.controller.durable_deadline(), None::<Timestamp>);
}

#[test]
fn a_group_that_keeps_its_own_history_sends_nothing() {
    let mut group = Group::new(HistoryMode::Internal);
    assert_eq!(exports(&group.say("one")), []);
    assert!(!group.controller.is_exporting());
}
