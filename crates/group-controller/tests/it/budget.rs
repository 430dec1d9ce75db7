//! Leave to start runs: nothing starts without it, and no run is lost on the way.

use std::{collections::BTreeSet, time::Duration};

use convene_group_controller::{Effect, Input, Leave, RunEnd};
use convene_model::{
    RunId, Timestamp,
    agents::{Usage, failure},
    event::{EventKind, RunStatus, SuppressReason, TriggerPolicy::Mention, WakeReason},
    limits::{EXHAUSTED_FOR, MAX_ATTEMPTS, MAX_RUNS_AT_ONCE, RUN_TOKENS},
};
use proptest::prelude::*;

use crate::harness::{Out, Room, Verdict};

const AGENTS: [(&str, convene_model::event::TriggerPolicy); 6] = [
    ("a", Mention),
    ("b", Mention),
    ("c", Mention),
    ("d", Mention),
    ("e", Mention),
    ("f", Mention),
];

/// A group whose organization may have a budget.
fn with_budget() -> Room {
    let mut room = Room::with(&AGENTS);
    room.step(Input::Unlimited { until: Timestamp::ZERO }).accepted();
    room
}

/// The runs for which leave is asked.
fn asked(out: &Out) -> Vec<RunId> {
    let asked = out.0.effects.iter().filter_map(|effect| match effect {
        Effect::Reserve { run_id, tokens } => {
            assert_eq!(*tokens, RUN_TOKENS);
            Some(run_id.clone())
        }
        _ => None,
    });
    asked.collect()
}

fn unused(out: &Out) -> Vec<RunId> {
    let unused = out.0.effects.iter().filter_map(|effect| match effect {
        Effect::Unused { run_id } => Some(run_id.clone()),
        _ => None,
    });
    unused.collect()
}

fn answer(room: &mut Room, run_id: &RunId, leave: Leave) -> Out {
    room.step(Input::Reserved { run_id: run_id.clone(), leave }).accepted()
}

#[test]
fn a_run_starts_when_it_has_leave_and_not_before() {
    let mut room = with_budget();
    let out = room.say("@a go");
    let [run] = &asked(&out)[..] else { panic!("one is asked for: {out:?}") };
    assert_eq!(out.called(), [""; 0]);
    assert_eq!(asked(&room.tick()), [], "it is asked for once");
    let out = answer(&mut room, run, Leave::Granted);
    assert_eq!((out.kinds(), out.called()), (vec!["run.started".to_owned()], vec!["a".to_owned()]));
    assert_eq!(answer(&mut room, run, Leave::Granted).0.effects, [], "a second answer is late");
}

#[test]
fn a_run_without_leave_ends_once_and_triggers_are_suppressed_for_a_while() {
    let mut room = with_budget();
    let run = asked(&room.say("@a go")).remove(0);
    let finished = answer(&mut room, &run, Leave::Refused).finished().remove(0);
    assert_eq!((finished.status, finished.attempt), (RunStatus::Failed, 0));
    assert_eq!(finished.code.as_deref(), Some(failure::BUDGET_EXHAUSTED));
    assert_eq!(room.phase(&run), None);

    let suppressed = Verdict::Not(SuppressReason::Budget);
    assert_eq!(room.say("@b go").decided(), [("b".into(), suppressed)]);
    room.after(EXHAUSTED_FOR - Duration::from_millis(1));
    assert_eq!(room.say("@b go").decided(), [("b".into(), suppressed)]);
    room.after(Duration::from_millis(1));
    let out = room.say("@b go");
    assert_eq!(out.decided(), [("b".into(), Verdict::Wakes(WakeReason::Mention))]);
    assert_eq!(asked(&out).len(), 1, "it may have changed meanwhile");
}

#[test]
fn a_run_that_nobody_can_answer_for_ends_and_the_next_one_is_asked_for() {
    let mut room = with_budget();
    let run = asked(&room.say("@a go")).remove(0);
    let finished = answer(&mut room, &run, Leave::Unknown).finished().remove(0);
    assert_eq!(finished.code.as_deref(), Some(failure::BUDGET_UNAVAILABLE));
    assert_eq!(asked(&room.say("@a again")).len(), 1);
}

#[test]
fn without_a_budget_runs_start_in_the_step_that_woke_them_until_that_is_to_be_asked_again() {
    let mut room = with_budget();
    let until = room.now + Duration::from_secs(60);
    room.step(Input::Unlimited { until }).accepted();
    let run = room.wake("@a go");
    room.reply(&run, "done");
    room.after(Duration::from_millis(59_999));
    let run = room.wake("@a go");
    room.reply(&run, "done");
    room.after(Duration::from_millis(1));
    assert_eq!(asked(&room.say("@a go")).len(), 1);
}

#[test]
fn a_run_that_was_stopped_before_its_answer_gives_back_what_it_holds() {
    let mut room = with_budget();
    let run = asked(&room.say("@a go")).remove(0);
    let out = room.cancel(&run).accepted();
    assert_eq!((out.finished()[0].status, unused(&out)), (RunStatus::Cancelled, vec![]));
    assert_eq!(unused(&answer(&mut room, &run, Leave::Granted)), std::slice::from_ref(&run));
    for leave in [Leave::Refused, Leave::Unknown] {
        assert_eq!(answer(&mut room, &run, leave).0.events, [], "it has ended already");
    }
}

#[test]
fn a_run_that_is_asked_for_has_its_place_and_another_process_asks_again() {
    let mut room = with_budget();
    let out = room.say("@a @b @c @d @e");
    assert_eq!(asked(&out).len(), MAX_RUNS_AT_ONCE);
    let first = asked(&out);
    let out = answer(&mut room, &first[0], Leave::Unknown);
    assert_eq!(asked(&out).len(), 1, "the fifth has the place of the first");
    assert!(room.controller.durable_deadline().is_some(), "a process that starts anew wakes it");

    room.rebuild_with_budget();
    let out = room.step(Input::Recovered);
    let again: BTreeSet<_> = asked(&out).into_iter().collect();
    assert_eq!(again.len(), MAX_RUNS_AT_ONCE);
    assert!(first[1..].iter().all(|run| again.contains(run)));
}

#[test]
fn paused_agents_wait_with_their_leave() {
    let mut room = with_budget();
    let run = asked(&room.say("@a go")).remove(0);
    room.pause(true);
    assert_eq!(answer(&mut room, &run, Leave::Granted).called(), [""; 0]);
    assert_eq!(room.pause(false).called(), ["a"]);
}

/// The first attempt of a run with leave, which breaks off.
fn cut_off(room: &mut Room, may_have_begun: bool) -> (RunId, Out) {
    let run = asked(&room.say("@a go")).remove(0);
    answer(room, &run, Leave::Granted);
    let detail = "Gone.".to_owned();
    let end = RunEnd::Lost { code: failure::WORKER_CUT, detail, may_have_begun };
    let out = room.end(&run, 1, end);
    (run, out)
}

fn started(out: &Out) -> Vec<(u32, Option<RunId>)> {
    let started = out.0.events.iter().filter_map(|event| match &event.kind {
        EventKind::RunStarted(started) => Some((started.attempt, started.reservation.clone())),
        _ => None,
    });
    started.collect()
}

#[test]
fn an_attempt_that_was_cut_off_has_used_all_that_it_held_and_the_next_one_asks_anew() {
    let mut room = with_budget();
    let (run, out) = cut_off(&mut room, true);
    assert!(out.0.effects.contains(&Effect::Spent { run_id: run.clone(), usage: None }));
    let anew = asked(&out).remove(0);
    assert_ne!(anew, run);
    assert_eq!((out.called(), started(&out)), (Vec::new(), Vec::new()), "it has no leave yet");
    assert_eq!(asked(&room.tick()), [], "it is asked for once");

    // Another process asks under the same name: it is held once.
    room.rebuild_with_budget();
    let out = room.step(Input::Recovered);
    assert_eq!(asked(&out), std::slice::from_ref(&anew));
    let out = answer(&mut room, &anew, Leave::Granted);
    assert_eq!(
        (out.called(), started(&out)),
        (vec!["a".to_owned()], vec![(2, Some(anew.clone()))])
    );
    assert_eq!(answer(&mut room, &anew, Leave::Granted).0.effects, [], "a second answer is late");
    room.text(&run, 2, 0, "done");
    let finished = room.end(&run, 2, crate::harness::completed()).finished().remove(0);
    assert_eq!((finished.status, finished.reservation), (RunStatus::Completed, Some(anew)));
}

#[test]
fn a_run_whose_next_attempt_finds_no_room_ends_once() {
    for leave in [Leave::Refused, Leave::Unknown] {
        let mut room = with_budget();
        let (run, out) = cut_off(&mut room, true);
        let anew = asked(&out).remove(0);
        let finished = answer(&mut room, &anew, leave).finished().remove(0);
        assert_eq!((finished.status, finished.attempt), (RunStatus::Failed, 1));
        assert_eq!((room.phase(&run), finished.usage), (None, None));
    }
    // One that was stopped meanwhile gives back what its next attempt would have had.
    let mut room = with_budget();
    let (run, out) = cut_off(&mut room, true);
    let anew = asked(&out).remove(0);
    room.cancel(&run).accepted();
    assert_eq!(unused(&answer(&mut room, &anew, Leave::Granted)), [anew]);
}

#[test]
fn an_attempt_that_never_began_leaves_what_is_held_to_the_next_one() {
    let mut room = with_budget();
    let (run, mut out) = cut_off(&mut room, false);
    for attempt in 2..=MAX_ATTEMPTS {
        assert_eq!((asked(&out), started(&out)), (vec![], vec![(attempt, None)]));
        let (code, detail) = (failure::WORKER_UNAVAILABLE, "Gone.".to_owned());
        out = room.end(&run, attempt, RunEnd::Lost { code, detail, may_have_begun: false });
    }
    let finished = out.finished().remove(0);
    assert_eq!((finished.status, finished.usage), (RunStatus::Failed, Some(Usage::default())));
    assert_eq!(finished.reservation, None);
}

#[derive(Debug, Clone)]
enum Act {
    Say(Vec<usize>),
    Answer(usize, Leave),
    End(usize),
    Cancel(usize),
    Pause(bool),
    Wait(u64),
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let leave = prop_oneof![
        4 => Just(Leave::Granted),
        1 => Just(Leave::Refused),
        1 => Just(Leave::Unknown),
    ];
    prop_oneof![
        4 => prop::collection::vec(0..AGENTS.len(), 1..4).prop_map(Act::Say),
        6 => (0..16_usize, leave).prop_map(|(nth, leave)| Act::Answer(nth, leave)),
        3 => (0..4_usize).prop_map(Act::End),
        1 => (0..8_usize).prop_map(Act::Cancel),
        1 => any::<bool>().prop_map(Act::Pause),
        1 => (0..90_u64).prop_map(Act::Wait),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    /// Whatever happens: no run starts without leave, and with it at most as many as may work at once.
    #[test]
    fn nothing_starts_without_leave(acts in prop::collection::vec(act(), 1..60)) {
        let mut room = with_budget();
        let (mut open, mut granted): (Vec<RunId>, BTreeSet<RunId>) = Default::default();
        let mut asked_once: BTreeSet<RunId> = BTreeSet::new();
        for act in acts {
            let out = match act {
                Act::Say(agents) => {
                    let names: Vec<_> = agents.iter().map(|nth| format!("@{}", AGENTS[*nth].0)).collect();
                    room.say(&names.join(" "))
                }
                Act::Answer(nth, leave) => {
                    if open.is_empty() {
                        continue;
                    }
                    let run = open.remove(nth % open.len());
                    if leave == Leave::Granted {
                        granted.insert(run.clone());
                    }
                    answer(&mut room, &run, leave)
                }
                Act::End(nth) => {
                    let runs = room.controller.state().unwrap().runs().to_vec();
                    let working: Vec<_> = runs.iter().filter(|run| run.phase.attempt() > 0).collect();
                    let Some(run) = working.get(nth).copied() else { continue };
                    let (run_id, attempt) = (run.run_id.clone(), run.phase.attempt());
                    room.text(&run_id, attempt, 0, "done");
                    room.end(&run_id, attempt, crate::harness::completed())
                }
                Act::Cancel(nth) => {
                    let runs = room.controller.state().unwrap().runs().to_vec();
                    let Some(run) = runs.get(nth) else { continue };
                    room.cancel(&run.run_id)
                }
                Act::Pause(paused) => room.pause(paused),
                Act::Wait(secs) => {
                    // Who stays renews the right to be here before it ends.
                    room.attach("c1", "ann");
                    room.after(Duration::from_secs(secs));
                    room.tick()
                }
                Act::Crash => {
                    open.clear();
                    asked_once.clear();
                    room.rebuild_with_budget();
                    let out = room.step(Input::Recovered);
                    room.attach("c1", "ann");
                    out
                }
            };
            for run in asked(&out) {
                prop_assert!(asked_once.insert(run.clone()), "{run:?} is asked for once");
                open.push(run);
            }
            for event in &out.0.events {
                if let EventKind::RunStarted(started) = &event.kind {
                    let held = started.reservation.as_ref().unwrap_or(&started.run_id);
                    prop_assert!(granted.contains(held), "{held:?} has no leave");
                }
            }
            let runs = room.controller.state().unwrap().runs();
            let working = runs.iter().filter(|run| run.phase.attempt() > 0).count();
            prop_assert!(working <= MAX_RUNS_AT_ONCE);
        }
    }
}
