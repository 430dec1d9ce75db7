//! Agents that answer each other: bounds, what lifts them, and whose turn it is.

use std::time::Duration;

use convene_group_controller::Input;
use convene_model::{
    Code, MessageId, Role, RunId,
    event::{
        RunStatus, SuppressReason,
        TriggerPolicy::{Auto, Discussion, Mention, Off},
        WakeReason,
    },
    frame::GroupFrame,
    limits::{
        AGENT_COOLDOWN, COOLDOWN_SETTING_SECS, MAX_CHAIN_RUNS, MAX_QUEUED_RUNS, MAX_RETRYABLE,
        MAX_ROUNDS, MAX_ROUNDS_SETTING,
    },
};

use crate::harness::{
    Out, Room,
    Verdict::{Not, Wakes},
    completed, id, lost, on,
};

/// One reply, said by whichever run works, long enough after the one before it.
fn next_reply(room: &mut Room, text: &str) -> Option<Out> {
    let runs = room.controller.state().unwrap().runs();
    let run = runs.iter().find(|run| run.phase.works()).cloned()?;
    room.after(AGENT_COOLDOWN);
    room.text(&run.run_id, run.phase.attempt(), 0, text);
    Some(room.end(&run.run_id, run.phase.attempt(), completed()))
}

fn replied(out: &Out) -> MessageId {
    out.posted()[0].message_id.clone()
}

/// A chain in which `one` and `two` have answered each other as often as they may, with the message
/// that `one` was not woken by.
fn out_of_rounds() -> (Room, MessageId) {
    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    room.wake("@one go");
    next_reply(&mut room, "@two, your turn");
    let out = next_reply(&mut room, "@one, and yours").unwrap();
    assert_eq!(out.decided(), [("one".into(), Not(SuppressReason::MaxRounds))]);
    (room, replied(&out))
}

#[test]
fn who_takes_part_in_discussions_answers_people_and_agents_unasked() {
    let mut room = Room::with(&[("one", Discussion), ("two", Discussion), ("silent", Mention)]);
    let out = room.say("what do you think?");
    let wakes = Wakes(WakeReason::Auto);
    assert_eq!(out.decided(), [("one".into(), wakes), ("two".into(), wakes)]);
    let out = next_reply(&mut room, "I think so").unwrap();
    assert_eq!(out.decided(), [("two".into(), Wakes(WakeReason::Discussion))]);
}

#[test]
fn an_agent_that_waits_already_is_woken_once_and_a_mention_all_the_same() {
    let mut room = Room::with(&[("one", Discussion), ("two", Auto)]);
    let first = room.wake_two();
    room.after(AGENT_COOLDOWN);
    assert_eq!(room.say("more").decided().len(), 2);
    let queued = Not(SuppressReason::AlreadyQueued);
    let decided = room.after(AGENT_COOLDOWN).say("and more").decided();
    assert_eq!(decided, [("one".into(), queued), ("two".into(), queued)]);
    let decided = room.say("and @two").decided();
    assert_eq!(decided, [("one".into(), queued), ("two".into(), Wakes(WakeReason::Mention))]);
    // Which has begun and the next is not queued yet: it may be woken again.
    room.reply(&first[0], "done");
    assert_eq!(room.after(AGENT_COOLDOWN).say("go on").decided()[0].1, Wakes(WakeReason::Auto));
}

impl Room {
    /// Two agents begin to work on one message.
    fn wake_two(&mut self) -> Vec<RunId> {
        let calls = self.say("hello").invocations();
        calls.into_iter().map(|call| call.request.run_id).collect()
    }
}

#[test]
fn a_person_lets_the_chain_go_on_where_its_rounds_had_ended() {
    let (mut room, message) = out_of_rounds();
    let out = room.let_continue(&message, "one").accepted();
    assert_eq!(out.decided(), [("one".into(), Wakes(WakeReason::Continue))]);
    assert_eq!((out.called(), out.ok_seq(&on("c1"))), (vec!["one".into()], out.0.events[0].seq));
    // From there it has its rounds anew, and its hops are counted on.
    let out = next_reply(&mut room, "@two, once more").unwrap();
    assert_eq!(out.posted()[0].hop, MAX_ROUNDS + 1);
    assert_eq!(out.decided(), [("two".into(), Wakes(WakeReason::Discussion))]);
    let out = next_reply(&mut room, "@one, enough").unwrap();
    assert_eq!(out.decided(), [("one".into(), Not(SuppressReason::MaxRounds))]);
}

#[test]
fn a_second_continue_of_the_same_agent_is_success_and_wakes_nobody() {
    let (mut room, message) = out_of_rounds();
    room.let_continue(&message, "one").accepted();
    let out = room.let_continue(&message, "one").accepted();
    assert!(matches!(out.one_to(&on("c1")), GroupFrame::Ok { seq: None, .. }));
    assert_eq!(out.0.events, []);
}

#[test]
fn whoever_lets_an_agent_go_on_or_retries_answers_for_the_run() {
    let (mut room, message) = out_of_rounds();
    room.attach("c2", "ben").accepted();
    let (from, agent_id) = (on("c2"), id("one"));
    let input = Input::Continue { from, r#ref: id("1"), message_id: message, agent_id };
    let out = room.step(input).accepted();
    assert_eq!(out.invocations()[0].initiator, Some(id("ben")));
    let out = next_reply(&mut room, "@two, once more").unwrap();
    assert_eq!(out.invocations()[0].initiator, Some(id("ben")), "and for what follows from it");

    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    let out = room.say("@one hi");
    assert_eq!(out.invocations()[0].initiator, Some(id("ann")));
    let run = out.invocations()[0].request.run_id.clone();
    room.cancel(&run).accepted();
    room.attach("c2", "ben").accepted();
    let out = room.step(Input::Retry { from: on("c2"), r#ref: id("1"), run_id: run }).accepted();
    assert_eq!(out.invocations()[0].initiator, Some(id("ben")));
}

#[test]
fn only_a_bound_can_be_lifted_by_people_for_agents_that_take_part() {
    let (mut room, message) = out_of_rounds();
    room.let_continue(&message, "two").refused_to(&on("c1"), Code::NotContinuable);
    room.let_continue(&id("none"), "one").refused_to(&on("c1"), Code::NotContinuable);
    room.attach_as("c2", "bot", Role::Agent).accepted();
    let (from, agent_id) = (on("c2"), id("one"));
    let message_id = message.clone();
    let input = Input::Continue { from, r#ref: id("1"), message_id, agent_id };
    room.step(input).refused_to(&on("c2"), Code::Forbidden);
    room.pause(true);
    room.let_continue(&message, "one").refused_to(&on("c1"), Code::AgentsPaused);
    room.pause(false);
    room.configure(&[("one", Off), ("two", Mention)]);
    room.let_continue(&message, "one").refused_to(&on("c1"), Code::NotContinuable);
    // Off is no bound: it is what the group decided.
    let out = room.say("@one hi");
    assert_eq!(out.decided(), [("one".into(), Not(SuppressReason::Policy))]);
    let message = replied(&out);
    room.configure(&[("one", Mention), ("two", Mention)]);
    room.let_continue(&message, "one").refused_to(&on("c1"), Code::NotContinuable);
}

#[test]
fn each_bound_can_be_lifted() {
    // The cooldown.
    let mut room = Room::with(&[("one", Auto)]);
    let run = room.wake("hello");
    room.reply(&run, "hi");
    let out = room.say("hello again");
    assert_eq!(out.decided(), [("one".into(), Not(SuppressReason::Cooldown))]);
    assert_eq!(room.let_continue(&replied(&out), "one").accepted().called(), ["one"]);
    // The pause, once it is over.
    let mut room = Room::with(&[("one", Mention)]);
    room.pause(true);
    let message = replied(&room.say("@one hi"));
    room.pause(false);
    assert_eq!(room.let_continue(&message, "one").accepted().called(), ["one"]);
    // The queue, once there is room.
    let mut room = Room::with(&[("one", Mention)]);
    let first = room.wake("@one go");
    for _ in 0..MAX_QUEUED_RUNS {
        room.say("@one go on");
    }
    let out = room.say("@one and this");
    assert_eq!(out.decided(), [("one".into(), Not(SuppressReason::QueueFull))]);
    room.let_continue(&replied(&out), "one").refused_to(&on("c1"), Code::Overloaded);
    room.cancel(&first).accepted();
    room.let_continue(&replied(&out), "one").accepted();
}

#[test]
fn what_ended_without_a_whole_reply_can_be_made_again_once() {
    let mut room = Room::with(&[("one", Mention)]);
    let run = room.wake("@one go");
    room.retry(&run).refused_to(&on("c1"), Code::NotRetryable);
    room.text(&run, 1, 0, "Half a ");
    assert_eq!(room.end(&run, 1, lost()).one_finished().status, RunStatus::Interrupted);
    let out = room.retry(&run).accepted();
    assert_eq!(out.decided(), [("one".into(), Wakes(WakeReason::Retry))]);
    let request = out.invocations()[0].request.clone();
    assert_eq!((request.attempt, request.resume.is_none()), (1, true));
    assert_ne!(request.run_id, run);
    assert_eq!(room.retry(&run).accepted().0.events, [], "its repeat is success");
    // The new one can be made again as well.
    room.cancel(&request.run_id).accepted();
    assert_eq!(room.retry(&run).accepted().0.events, []);
    let again = room.retry(&request.run_id).accepted().invocations()[0].request.run_id.clone();
    room.reply(&again, "whole");
    room.retry(&again).refused_to(&on("c1"), Code::NotRetryable);
    room.retry(&id("r99-0")).refused_to(&on("c1"), Code::NotRetryable);
}

#[test]
fn a_run_can_be_made_again_long_after_its_message_for_so_many_messages() {
    let mut room = Room::with(&[("one", Mention)]);
    let mut ended = Vec::new();
    for _ in 0..=MAX_RETRYABLE {
        let run = room.wake("@one go");
        room.cancel(&run).accepted();
        ended.push(run);
    }
    for number in 0..100 {
        room.post("c1", &format!("x{number}"), "something else").accepted();
    }
    room.retry(&ended[0]).refused_to(&on("c1"), Code::NotRetryable);
    let out = room.retry(&ended[1]).accepted();
    let request = out.invocations()[0].request.clone();
    assert!(request.messages.iter().any(|message| message.message_id == request.trigger));
}

#[test]
fn a_run_of_a_deleted_message_or_a_removed_agent_cannot_be_made_again() {
    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    let run = room.post("c1", "m1", "@one go").invocations()[0].request.run_id.clone();
    room.cancel(&run).accepted();
    room.delete("c1", "m1").accepted();
    room.retry(&run).refused_to(&on("c1"), Code::NotRetryable);
    let run = room.wake("@two go");
    room.configure(&[("one", Mention)]);
    room.retry(&run).refused_to(&on("c1"), Code::NotRetryable);
}

#[test]
fn a_group_sets_its_own_bounds_within_limits() {
    let mut room = Room::with(&[("one", Mention), ("two", Mention)]);
    let (least, most) = (*COOLDOWN_SETTING_SECS.start(), *COOLDOWN_SETTING_SECS.end());
    for (rounds, cooldown, is_fine) in [
        (Some(0), None, true),
        (Some(MAX_ROUNDS_SETTING), None, true),
        (Some(MAX_ROUNDS_SETTING + 1), None, false),
        (None, Some(least), true),
        (None, Some(least - 1), false),
        (None, Some(most), true),
        (None, Some(most + 1), false),
    ] {
        let answer = room.bounds(rounds, cooldown).0.answer;
        assert_eq!(
            answer.map_err(|rejected| rejected.code),
            match is_fine {
                true => Ok(()),
                false => Err(Code::ValidationFailed),
            }
        );
    }
    room.bounds(Some(3), Some(least)).accepted();
    room.wake("@one go");
    let mut texts = ["@two", "@one", "@two", "@one"].into_iter();
    let mut last = Vec::new();
    while let Some(out) = next_reply(&mut room, texts.next().unwrap_or("@nobody")) {
        last = out.decided();
    }
    assert_eq!(last, [("two".into(), Not(SuppressReason::MaxRounds))]);
    assert_eq!(room.log.iter().filter(|e| matches!(&e.kind, convene_model::event::EventKind::MessagePosted(p) if p.hop > 0)).count(), 3);

    room.bounds(Some(0), None).accepted();
    room.after(AGENT_COOLDOWN).wake("@one go");
    let out = next_reply(&mut room, "@two").unwrap();
    assert_eq!(out.decided(), [("two".into(), Not(SuppressReason::MaxRounds))]);

    room.bounds(None, Some(60)).accepted();
    let run = room.wake("@one go");
    room.reply(&run, "done");
    room.configure(&[("one", Auto)]);
    room.bounds(None, Some(60)).accepted();
    let decided = room.after(Duration::from_millis(59_999)).say("hello").decided();
    assert_eq!(decided, [("one".into(), Not(SuppressReason::Cooldown))]);
    let decided = room.after(Duration::from_millis(1)).say("hello").decided();
    assert_eq!(decided, [("one".into(), Wakes(WakeReason::Auto))]);
}

#[test]
fn one_message_leads_to_so_many_runs_of_agents_until_a_person_lets_them_go_on() {
    let names: Vec<String> = (0..16).map(|index| format!("a{index}")).collect();
    let agents: Vec<_> = names.iter().map(|name| (name.as_str(), Discussion)).collect();
    let mut room = Room::with(&agents);
    room.bounds(Some(MAX_ROUNDS_SETTING), Some(1)).accepted();
    room.say("discuss");
    let (mut woken, mut stopped) = (0, None);
    while let Some(out) = next_reply(&mut room, "I think so") {
        for (agent, verdict) in out.decided() {
            woken += u32::from(verdict == Wakes(WakeReason::Discussion));
            if verdict == Not(SuppressReason::MaxRounds) {
                stopped = Some((replied(&out), agent));
            }
        }
    }
    assert_eq!(woken, MAX_CHAIN_RUNS);
    let (message, agent) = stopped.unwrap();
    room.attach("c1", "ann").accepted();
    room.let_continue(&message, &agent).accepted();
    let out = next_reply(&mut room, "I still think so").unwrap();
    assert!(out.decided().iter().any(|(_, verdict)| *verdict == Wakes(WakeReason::Discussion)));
}

#[test]
fn an_agent_with_a_long_queue_takes_turns_with_the_others() {
    let agents = ["a", "b", "c", "d", "e"].map(|agent| (agent, Mention));
    let mut room = Room::with(&agents);
    for _ in 0..3 {
        room.say("@a @b @c @d");
    }
    room.say("@e");
    let finish = |room: &mut Room| {
        let runs = room.controller.state().unwrap().runs();
        let run = runs.iter().find(|run| run.phase.works()).unwrap().run_id.clone();
        room.reply(&run, "done").called()
    };
    // Each second run came before e, and e comes before any third one.
    let turns: Vec<_> = (0..5).flat_map(|_| finish(&mut room)).collect();
    assert_eq!(turns, ["a", "b", "c", "d", "e"]);
}
