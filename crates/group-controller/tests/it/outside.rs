//! Agents whose process is somebody else's: offered, taken on by one connection, let go of, ended once.

use std::time::Duration;

use convene_group_controller::{Input, Phase, RunAct};
use convene_model::{
    Code, Role, RunId, UpstreamId,
    agents::{OutsideOutcome, failure},
    event::{Author, EventKind, GroupConfig, RunStatus, TriggerPolicy::Mention},
    frame::GroupFrame,
    limits::{
        MAX_ATTEMPTS, MAX_FAILURE_CHARS, MAX_REPLY_BYTES, MAX_TEXT_BYTES, OUTSIDE_CLAIM_WITHIN,
        ROUTING_TOKEN_TTL, RUN_TIMEOUT,
    },
};

use crate::harness::{Out, Room, agent, at, id, on};

/// A group with ann on `c1`, the outside agent `bot` and the model `guide`.
fn room() -> Room {
    let mut room = Room::with(&[("guide", Mention), ("bot", Mention)]);
    let mut bot = agent("bot", Mention);
    bot.outside = true;
    let agents = vec![agent("guide", Mention), bot];
    let config = GroupConfig { version: 9, agents, ..GroupConfig::default() };
    room.step(Input::Configure(config)).accepted();
    room
}

/// With the agent's process attached on `b1`.
fn connected() -> Room {
    let mut room = room();
    room.attach_as("b1", "bot", Role::Agent).accepted();
    room
}

/// The attempts that were started.
fn started(out: &Out) -> Vec<(RunId, u32)> {
    let started = out.0.events.iter().filter_map(|event| match &event.kind {
        EventKind::RunStarted(started) => Some((started.run_id.clone(), started.attempt)),
        _ => None,
    });
    started.collect()
}

fn wake(room: &mut Room) -> RunId {
    let out = room.say("@bot hi");
    assert_eq!(out.called(), [""; 0], "the Agents Worker has nothing to do with it");
    let [(run, 1)] = &started(&out)[..] else { panic!("one first attempt: {out:?}") };
    run.clone()
}

fn act(room: &mut Room, conn: &str, run: &RunId, attempt: u32, act: RunAct) -> Out {
    let (from, run_id) = (on(conn), run.clone());
    room.step(Input::Run { from, r#ref: id("ru"), run_id, attempt, act })
}

fn text(offset: u64, text: &str) -> RunAct {
    RunAct::Text { offset, text: text.to_owned() }
}

fn completed() -> RunAct {
    RunAct::End(OutsideOutcome::Completed {})
}

fn failed(detail: &str) -> RunAct {
    RunAct::End(OutsideOutcome::Failed { detail: detail.to_owned() })
}

#[test]
fn an_agents_own_process_takes_a_run_on_streams_and_ends_it_once() {
    let mut room = connected();
    let run = wake(&mut room);
    let ok = GroupFrame::Ok { r#ref: id("ru"), seq: None, message_id: None };
    for _ in 0..2 {
        let claimed = act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
        assert_eq!((claimed.one_to(&on("b1")), claimed.kinds()), (ok.clone(), vec![]));
    }
    let out = act(&mut room, "b1", &run, 1, text(0, "Hel")).accepted();
    assert_eq!(out.kinds(), ["run.streaming"]);
    let delta =
        GroupFrame::Delta { run_id: run.clone(), attempt: 1, offset: 0, text: "Hel".into() };
    assert_eq!((out.broadcasts(), out.one_to(&on("b1"))), (vec![delta], ok));
    act(&mut room, "b1", &run, 1, text(3, "lo")).accepted();
    let out = act(&mut room, "b1", &run, 1, completed()).accepted();
    assert_eq!(out.kinds(), ["message.posted", "run.finished"]);
    assert_eq!(out.ok_seq(&on("b1")), room.seq());
    let posted = &out.posted()[0];
    assert_eq!((posted.text.as_str(), &posted.author), ("Hello", &Author::Agent(id("bot"))));
    assert_eq!(posted.hop, 1, "an agent's message is never the root of a chain");
    let finished = out.one_finished();
    assert_eq!((finished.status, finished.usage), (RunStatus::Completed, None));
    for late in [completed(), text(5, "!"), RunAct::Claim] {
        act(&mut room, "b1", &run, 1, late).refused_to(&on("b1"), Code::RunNotFound);
    }
    assert!(!room.controller.awaits_outside());
}

#[test]
fn a_run_that_nobody_takes_on_fails_with_its_reason() {
    let mut room = room();
    let run = wake(&mut room);
    assert!(room.controller.awaits_outside());
    room.after(OUTSIDE_CLAIM_WITHIN - Duration::from_millis(1)).tick();
    assert!(room.phase(&run).is_some());
    let out = room.after(Duration::from_millis(1)).tick();
    let finished = out.one_finished();
    let code = Some(failure::AGENT_NOT_CONNECTED);
    assert_eq!((finished.status, finished.code.as_deref()), (RunStatus::Failed, code));

    // The alarm is set for it, and one that took it on has the time of every run.
    let mut room = connected();
    let run = wake(&mut room);
    let begun = room.now;
    let until = room.tick().0.wake_at;
    assert!(until.is_some_and(|until| until <= begun + OUTSIDE_CLAIM_WITHIN));
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    for _ in 0..2 {
        room.after(ROUTING_TOKEN_TTL / 2).attach_as("b1", "bot", Role::Agent).accepted();
    }
    assert_eq!(begun + RUN_TIMEOUT, room.now);
    assert_eq!(room.phase(&run), None, "it took too long");
    let last = room.log.iter().rev().find_map(|event| match &event.kind {
        EventKind::RunFinished(finished) => finished.code.clone(),
        _ => None,
    });
    assert_eq!(last.as_deref(), Some(failure::TIMEOUT));
}

#[test]
fn only_the_connection_that_took_a_run_on_writes_in_it() {
    let mut room = connected();
    room.attach_as("b2", "bot", Role::Agent).accepted();
    room.attach_as("x1", "other", Role::Agent).accepted();
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, text(0, "x")).refused_to(&on("b1"), Code::Conflict);
    act(&mut room, "b1", &run, 1, completed()).refused_to(&on("b1"), Code::Conflict);
    act(&mut room, "b1", &run, 2, RunAct::Claim).refused_to(&on("b1"), Code::Conflict);
    act(&mut room, "x1", &run, 1, RunAct::Claim).refused_to(&on("x1"), Code::RunNotFound);
    act(&mut room, "c1", &run, 1, RunAct::Claim).refused_to(&on("c1"), Code::Forbidden);
    act(&mut room, "nobody", &run, 1, RunAct::Claim).refused_to(&on("nobody"), Code::NotAttached);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    act(&mut room, "b2", &run, 1, RunAct::Claim).refused_to(&on("b2"), Code::Conflict);
    act(&mut room, "b2", &run, 1, text(0, "x")).refused_to(&on("b2"), Code::Conflict);
    // A model's run is nobody's to take on.
    let guides = room.wake("@guide hi");
    act(&mut room, "b1", &guides, 1, RunAct::Claim).refused_to(&on("b1"), Code::RunNotFound);
    room.attach_as("g1", "guide", Role::Agent).accepted();
    act(&mut room, "g1", &guides, 1, RunAct::Claim).refused_to(&on("g1"), Code::Conflict);
}

#[test]
fn text_that_does_not_follow_or_is_too_long_changes_nothing() {
    let mut room = connected();
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    act(&mut room, "b1", &run, 1, text(0, "ab")).accepted();
    for offset in [0, 1, 3] {
        act(&mut room, "b1", &run, 1, text(offset, "x")).refused_to(&on("b1"), Code::Conflict);
    }
    let piece = "x".repeat(MAX_TEXT_BYTES);
    let above = format!("{piece}x");
    act(&mut room, "b1", &run, 1, text(2, &above)).refused_to(&on("b1"), Code::TooLarge);
    act(&mut room, "b1", &run, 1, text(2, &piece)).accepted();
    let so_far = 2 + MAX_TEXT_BYTES;
    let rest = "x".repeat(MAX_REPLY_BYTES - so_far);
    act(&mut room, "b1", &run, 1, text(so_far as u64, &rest)).accepted();
    let full = MAX_REPLY_BYTES as u64;
    act(&mut room, "b1", &run, 1, text(full, "x")).refused_to(&on("b1"), Code::TooLarge);
    let out = act(&mut room, "b1", &run, 1, completed()).accepted();
    assert_eq!(out.posted()[0].text.len(), MAX_REPLY_BYTES);
}

#[test]
fn a_process_says_why_it_failed_in_a_sentence() {
    let mut room = connected();
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    let long = "x".repeat(MAX_FAILURE_CHARS);
    for bad in ["", " ", &format!("{long}x")] {
        act(&mut room, "b1", &run, 1, failed(bad)).refused_to(&on("b1"), Code::ValidationFailed);
    }
    let finished = act(&mut room, "b1", &run, 1, failed(&long)).accepted().one_finished();
    let code = Some(failure::AGENT_FAILED);
    assert_eq!((finished.status, finished.code.as_deref()), (RunStatus::Failed, code));
    assert_eq!(finished.detail, Some(long));
    // An answer without a word is a failure as well.
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    let finished = act(&mut room, "b1", &run, 1, completed()).accepted().one_finished();
    assert_eq!(finished.code.as_deref(), Some(failure::EMPTY_REPLY));
}

#[test]
fn a_run_whose_connection_ends_is_offered_anew_until_it_has_shown_something() {
    let mut room = connected();
    let run = wake(&mut room);
    for attempt in 1..MAX_ATTEMPTS {
        room.attach_as("b1", "bot", Role::Agent).accepted();
        act(&mut room, "b1", &run, attempt, RunAct::Claim).accepted();
        let out = room.step(Input::Detach { from: on("b1"), r#ref: id("de") });
        assert_eq!(started(&out), [(run.clone(), attempt + 1)]);
    }
    room.attach_as("b1", "bot", Role::Agent).accepted();
    act(&mut room, "b1", &run, MAX_ATTEMPTS - 1, text(0, "x"))
        .refused_to(&on("b1"), Code::Conflict);
    act(&mut room, "b1", &run, MAX_ATTEMPTS, RunAct::Claim).accepted();
    let out = room.step(Input::Detach { from: on("b1"), r#ref: id("de") });
    assert_eq!(out.one_finished().status, RunStatus::Interrupted);

    // One that had begun to answer keeps what it said.
    let from = at(2, "b1");
    let mut access = room.access("bot");
    access.claims.role = Role::Agent;
    room.attach_with(from.clone(), access, None).accepted();
    let run = wake(&mut room);
    for act in [RunAct::Claim, text(0, "half")] {
        let (from, run_id) = (from.clone(), run.clone());
        room.step(Input::Run { from, r#ref: id("ru"), run_id, attempt: 1, act }).accepted();
    }
    let out = room.step(Input::Closed(UpstreamId(2)));
    assert_eq!(out.one_finished().status, RunStatus::Interrupted);
    assert_eq!(out.posted()[0].text, "half");
}

#[test]
fn after_a_crash_the_next_attempt_is_offered_and_the_former_one_is_over() {
    let mut room = connected();
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    assert_eq!(started(&room.crash()), [(run.clone(), 2)]);
    room.attach_as("b1", "bot", Role::Agent).accepted();
    act(&mut room, "b1", &run, 1, text(0, "x")).refused_to(&on("b1"), Code::Conflict);
    act(&mut room, "b1", &run, 2, RunAct::Claim).accepted();
    act(&mut room, "b1", &run, 2, text(0, "back")).accepted();
    assert!(matches!(room.phase(&run), Some(Phase::Writing { attempt: 2, .. })));
    act(&mut room, "b1", &run, 2, completed()).accepted();
}

#[test]
fn a_stopped_run_is_no_longer_its_processs() {
    let mut room = connected();
    let run = wake(&mut room);
    act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
    let cancel =
        |conn: &str| Input::Cancel { from: on(conn), r#ref: id("ca"), run_id: run.clone() };
    room.step(cancel("b1")).refused_to(&on("b1"), Code::Forbidden);
    assert_eq!(room.step(cancel("c1")).one_finished().status, RunStatus::Cancelled);
    act(&mut room, "b1", &run, 1, text(0, "x")).refused_to(&on("b1"), Code::RunNotFound);
    assert!(!room.controller.awaits_outside());
}

#[test]
fn an_agents_process_is_neither_present_nor_may_it_speak_unasked() {
    let mut room = connected();
    let GroupFrame::Attached { state, .. } =
        room.attach_as("b2", "bot", Role::Agent).one_to(&on("b2"))
    else {
        panic!("attached")
    };
    assert_eq!((state.present, state.present_count), (vec![id("ann")], 1));
    room.post("b1", "m1", "hello").refused_to(&on("b1"), Code::Forbidden);
}

#[test]
fn what_an_agent_was_not_there_for_is_made_again_once_when_it_comes() {
    let mut room = room();
    let missed = [wake(&mut room), {
        room.after(OUTSIDE_CLAIM_WITHIN).tick();
        wake(&mut room)
    }];
    room.after(OUTSIDE_CLAIM_WITHIN).tick();
    assert!(missed.iter().all(|run| room.phase(run).is_none()));
    // Also over a crash: what was missed is state.
    room.crash();
    let out = room.attach_as("b1", "bot", Role::Agent).accepted();
    let [(first, 1)] = &started(&out)[..] else { panic!("the first of two: {out:?}") };
    assert!(!missed.contains(first));
    let woken = out.kinds().iter().filter(|kind| **kind == "trigger.decided").count();
    assert_eq!(woken, 2, "one for each message");
    let mut run = first.clone();
    for number in 0..2 {
        act(&mut room, "b1", &run, 1, RunAct::Claim).accepted();
        act(&mut room, "b1", &run, 1, text(0, "late")).accepted();
        let out = act(&mut room, "b1", &run, 1, completed()).accepted();
        match &started(&out)[..] {
            [(next, 1)] if number == 0 => run = next.clone(),
            [] if number == 1 => {}
            other => panic!("one after the other: {other:?}"),
        }
    }
    // Neither another connection nor a return wakes it for the same again.
    let again = room.attach_as("b2", "bot", Role::Agent).accepted();
    assert_eq!(again.kinds(), [""; 0]);
    room.step(Input::Detach { from: on("b1"), r#ref: id("de") });
    assert_eq!(room.attach_as("b1", "bot", Role::Agent).accepted().kinds(), [""; 0]);
}

#[test]
fn a_process_that_is_there_and_does_nothing_is_not_asked_for_ever() {
    let mut room = connected();
    wake(&mut room);
    let out = room.after(OUTSIDE_CLAIM_WITHIN).tick();
    assert_eq!(out.one_finished().code.as_deref(), Some(failure::AGENT_UNRESPONSIVE));
    assert_eq!(room.attach_as("b2", "bot", Role::Agent).accepted().kinds(), [""; 0]);
}

#[test]
fn what_was_missed_is_left_while_agents_are_paused_and_forgotten_with_its_message() {
    let mut room = room();
    room.post("c1", "m-gone", "@bot hi").accepted();
    room.after(OUTSIDE_CLAIM_WITHIN).tick();
    wake(&mut room);
    room.after(OUTSIDE_CLAIM_WITHIN).tick();
    let mut bot = agent("bot", Mention);
    bot.outside = true;
    let config = |version, paused| GroupConfig {
        version,
        paused,
        agents: vec![agent("guide", Mention), bot.clone()],
        ..GroupConfig::default()
    };
    room.step(Input::Configure(config(10, true))).accepted();
    assert_eq!(room.attach_as("b1", "bot", Role::Agent).accepted().kinds(), [""; 0]);
    room.step(Input::Configure(config(11, false))).accepted();
    room.delete("c1", "m-gone").accepted();
    let out = room.attach_as("b2", "bot", Role::Agent).accepted();
    assert_eq!(started(&out).len(), 1, "only for the message that stands");
}
