//! Tools through a run: calls that attempts tell of, and calls that they hand over.

use std::time::Duration;

use convene_group_controller::{Controller, Input, Phase, RunEnd};
use convene_model::{
    Role, RunId,
    agents::{Approvers, Outcome, ToolStatus, Usage, Verdict, failure},
    event::{RunStatus, TriggerPolicy::Mention},
    frame::{GroupFrame, RunPhase},
    limits::{
        MAX_ARGUMENT_BYTES, MAX_ATTEMPTS, MAX_CONTINUATION_BYTES, MAX_TOOL_CALLS,
        MAX_TOOL_EXCERPT_BYTES, MAX_TOOL_ROUNDS, MAX_TOOLS_LISTED, RUN_TIMEOUT,
    },
};

use crate::{
    harness::{Out, Room, call, completed, handed, lost, on, without_budget},
    watchers::Watchers,
};

fn woken() -> (Room, RunId) {
    let mut room = Room::with(&[("guide", Mention), ("other", Mention)]);
    let run = room.wake("@guide hi");
    (room, run)
}

/// What the next attempt is told of each call.
fn verdicts(out: &Out) -> Vec<(String, Verdict)> {
    let calls = out.invocations()[0].request.resume.clone().unwrap().calls;
    calls.into_iter().map(|call| (call.call_id.to_string(), call.verdict)).collect()
}

#[track_caller]
fn failed(out: &Out, code: &str) {
    let end = out.one_finished();
    assert_eq!((end.status, end.code.as_deref()), (RunStatus::Failed, Some(code)));
}

fn made(call_id: &str) -> (String, Verdict) {
    (call_id.to_owned(), Verdict::Make)
}

#[test]
fn what_an_attempt_tells_of_its_calls_is_recorded_once() {
    let (mut room, run) = woken();
    assert_eq!(room.begins(&run, 1, "t1").kinds(), ["tool.started"]);
    assert_eq!(room.begins(&run, 1, "t1").0.events, []);
    let view = room.view();
    let tool = &view.runs[0].tools[0];
    assert_eq!((tool.call_id.as_str(), tool.tool.as_str(), tool.status), ("t1", "look", None));
    assert_eq!(room.ends(&run, 1, "t1").kinds(), ["tool.finished"]);
    assert_eq!(room.ends(&run, 1, "t1").0.events, []);
    assert_eq!(room.ends(&run, 1, "t2").0.events, []);
    let tool = &room.view().runs[0].tools[0];
    assert_eq!((tool.status, tool.summary.as_deref()), (Some(ToolStatus::Ok), Some("done")));
    assert_eq!(room.begins(&run, 2, "t3").0.events, [], "another attempt says nothing");
}

#[test]
fn a_call_that_nobody_has_to_permit_is_recorded_before_the_next_attempt_makes_it() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "Let me ");
    let out = room.end(&run, 1, handed(&[call("t1", None), call("t2", None)]));
    assert_eq!(out.kinds(), ["tool.requested", "tool.started", "tool.started", "run.started"]);
    assert_eq!(verdicts(&out), [made("t1"), made("t2")]);
    let request = out.invocations()[0].request.clone();
    let resume = request.resume.unwrap();
    assert_eq!((request.attempt, resume.offset, resume.continuation.as_str()), (2, 7, "so far"));
    assert_eq!(resume.calls[0].hash, call("t1", None).hash);

    assert_eq!(room.begins(&run, 2, "t1").0.events, [], "it is recorded already");
    assert_eq!(room.ends(&run, 2, "t1").kinds(), ["tool.finished"]);
    room.ends(&run, 2, "t2");
    let out = room.text(&run, 2, 7, "see.");
    let delta =
        GroupFrame::Delta { run_id: run.clone(), attempt: 2, offset: 7, text: "see.".into() };
    assert_eq!(out.broadcasts(), [delta]);
    let out = room.end(&run, 2, completed());
    assert_eq!(out.posted()[0].text, "Let me see.");
    assert_eq!((out.one_finished().status, out.one_finished().attempt), (RunStatus::Completed, 2));
}

#[test]
fn what_is_handed_over_for_a_message_that_was_deleted_meanwhile_is_never_made() {
    for who in [None, Some(Approvers::Role { role: Role::Member })] {
        let mut room = Room::with(&[("guide", Mention)]);
        let posted = room.say("@guide hi");
        let run = posted.invocations()[0].request.run_id.clone();
        let trigger = posted.invocations()[0].request.trigger.clone();
        assert_eq!(room.delete("c1", trigger.as_str()).kinds(), ["message.deleted"]);
        let out = room.end(&run, 1, handed(&[call("t1", who)]));
        assert_eq!(out.kinds(), ["run.finished"]);
        assert_eq!(out.one_finished().status, RunStatus::Cancelled);
        assert!(out.invocations().is_empty());
    }
}

#[test]
fn late_results_of_the_attempt_that_handed_over_change_nothing() {
    let (mut room, run) = woken();
    let out = room.end(&run, 1, handed(&[call("t1", None)]));
    assert_eq!(out.invocations().len(), 1);
    for late in [
        room.text(&run, 1, 0, "late"),
        room.end(&run, 1, handed(&[call("t2", None)])),
        room.end(&run, 1, completed()),
        room.end(&run, 1, lost()),
        room.begins(&run, 1, "t9"),
        room.ends(&run, 1, "t1"),
    ] {
        assert_eq!((late.0.events.len(), late.0.effects.len()), (0, 0));
    }
}

#[test]
fn after_a_crash_an_unfinished_call_is_unknown_and_a_finished_one_keeps_its_result() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "First. ");
    room.end(&run, 1, handed(&[call("t1", None), call("t2", None)]));
    room.ends(&run, 2, "t1");
    let out = room.crash();
    assert_eq!(out.kinds(), ["tool.finished", "run.started"]);
    let finished = Verdict::Finished { status: ToolStatus::Ok, summary: "done".into() };
    assert_eq!(verdicts(&out), [("t1".into(), finished), ("t2".into(), Verdict::Unknown)]);
    // The text so far was not lost with the process.
    room.text(&run, 3, 7, "Second.");
    assert_eq!(room.end(&run, 3, completed()).posted()[0].text, "First. Second.");
}

#[test]
fn a_call_that_the_worker_refused_before_it_began_is_made_by_the_next_attempt() {
    let (mut room, run) = woken();
    room.end(&run, 1, handed(&[call("t1", None)]));
    let refused =
        RunEnd::Lost { code: "worker_unavailable", detail: "No.".into(), may_have_begun: false };
    let out = room.end(&run, 2, refused);
    assert_eq!((out.kinds(), verdicts(&out)), (vec!["run.started".to_owned()], vec![made("t1")]));
    let out = room.end(&run, 3, lost());
    assert_eq!(verdicts(&out), [("t1".into(), Verdict::Unknown)]);
}

#[test]
fn hand_overs_are_no_lost_attempts() {
    let (mut room, run) = woken();
    let mut attempt = 1;
    for round in 0..MAX_ATTEMPTS + 2 {
        let out = room.end(&run, attempt, handed(&[call(&format!("t{round}"), None)]));
        attempt += 1;
        assert_eq!(out.invocations()[0].request.attempt, attempt);
        room.ends(&run, attempt, &format!("t{round}"));
    }
    for _ in 1..MAX_ATTEMPTS {
        assert_eq!(room.end(&run, attempt, lost()).invocations().len(), 1);
        attempt += 1;
    }
    failed(&room.end(&run, attempt, lost()), "worker_cut");
}

#[test]
fn text_of_the_attempt_itself_ends_the_run_when_it_is_lost() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "First. ");
    room.end(&run, 1, handed(&[call("t1", None)]));
    room.ends(&run, 2, "t1");
    room.text(&run, 2, 7, "Sec");
    let out = room.end(&run, 2, lost());
    assert_eq!(out.one_finished().status, RunStatus::Interrupted);
    assert_eq!(out.posted()[0].text, "First. Sec");
}

#[test]
fn rounds_and_calls_of_a_round_are_limited() {
    let (mut room, run) = woken();
    for round in 0..MAX_TOOL_ROUNDS {
        room.end(&run, round + 1, handed(&[call(&format!("t{round}"), None)]));
    }
    failed(
        &room.end(&run, MAX_TOOL_ROUNDS + 1, handed(&[call("x", None)])),
        failure::TOO_MANY_TOOL_CALLS,
    );

    let calls: Vec<_> = (0..=MAX_TOOL_CALLS).map(|n| call(&format!("t{n}"), None)).collect();
    let (mut room, run) = woken();
    let out = room.end(&run, 1, handed(&calls[1..]));
    assert_eq!(verdicts(&out).len(), MAX_TOOL_CALLS);
    let (mut room, run) = woken();
    failed(&room.end(&run, 1, handed(&calls)), failure::TOO_MANY_TOOL_CALLS);
}

#[test]
fn calls_that_an_attempt_tells_of_are_limited_too() {
    let (mut room, run) = woken();
    let most = MAX_TOOL_ROUNDS * MAX_TOOL_CALLS as u32;
    for number in 0..most {
        room.begins(&run, 1, &format!("t{number}"));
        room.ends(&run, 1, &format!("t{number}"));
    }
    assert_eq!(room.view().runs[0].tools.len(), MAX_TOOLS_LISTED);
    let out = room.begins(&run, 1, "one-more");
    failed(&out, failure::TOO_MANY_TOOL_CALLS);
    assert_eq!(out.aborts(), [(run, 1)]);
}

#[test]
fn a_hand_over_that_cannot_be_is_refused() {
    let long = |bytes: usize| {
        let mut long = call("t1", None);
        long.arguments = "x".repeat(bytes);
        long
    };
    let continued = |bytes: usize| {
        RunEnd::Said(Outcome::ToolRequested {
            calls: vec![call("t1", None)],
            continuation: "x".repeat(bytes),
            usage: None,
        })
    };
    let (invalid, too_many) = (Some(failure::PROVIDER_ERROR), Some(failure::TOO_MANY_TOOL_CALLS));
    for (end, code) in [
        (handed(&[]), invalid),
        (handed(&[call("t1", None), call("t1", None)]), invalid),
        (handed(&[long(MAX_ARGUMENT_BYTES)]), None),
        (handed(&[long(MAX_ARGUMENT_BYTES + 1)]), invalid),
        (continued(MAX_CONTINUATION_BYTES), None),
        (continued(MAX_CONTINUATION_BYTES + 1), too_many),
    ] {
        let (mut room, run) = woken();
        let out = room.end(&run, 1, end);
        match code {
            None => assert_eq!(out.invocations().len(), 1),
            Some(code) => failed(&out, code),
        }
    }
    // An id that was used before in the run.
    let (mut room, run) = woken();
    room.end(&run, 1, handed(&[call("t1", None)]));
    failed(&room.end(&run, 2, handed(&[call("t1", None)])), failure::PROVIDER_ERROR);
}

#[test]
fn what_is_under_way_when_a_run_ends_is_recorded_as_unknown() {
    let (mut room, run) = woken();
    room.begins(&run, 1, "t1");
    let out = room.cancel(&run).accepted();
    assert_eq!(out.kinds(), ["tool.finished", "run.finished"]);
    let (mut room, run) = woken();
    room.begins(&run, 1, "t1");
    let out = room.after(RUN_TIMEOUT).tick();
    assert_eq!(out.kinds(), ["tool.finished", "run.finished"]);
    failed(&out, failure::TIMEOUT);
}

#[test]
fn the_time_of_a_run_goes_on_over_its_hand_overs() {
    let (mut room, run) = woken();
    let deadline = room.controller.durable_deadline();
    room.after(Duration::from_secs(60)).end(&run, 1, handed(&[call("t1", None)]));
    assert_eq!(room.controller.durable_deadline(), deadline);
    failed(&room.after(RUN_TIMEOUT - Duration::from_secs(60)).tick(), failure::TIMEOUT);
}

#[test]
fn what_was_used_before_a_hand_over_counts_when_the_run_fails() {
    let usage = Usage { input_tokens: 5, output_tokens: 2, ..Usage::default() };
    // While it waits nothing else is used; of an attempt that works nobody knows.
    for (approvers, tokens_unknown) in [(Some(Approvers::Initiator), false), (None, true)] {
        let (mut room, run) = woken();
        let (calls, continuation) = (vec![call("t1", approvers)], String::new());
        let usage = Some(usage);
        room.end(&run, 1, RunEnd::Said(Outcome::ToolRequested { calls, continuation, usage }));
        let used = room.cancel(&run).one_finished().usage;
        assert_eq!(used, usage.map(|usage| Usage { tokens_unknown, ..usage }));
    }
}

#[test]
fn what_an_attempt_used_that_did_not_say_so_is_unknown_though_the_one_before_said_it() {
    let usage = Usage { input_tokens: 5, ..Usage::default() };
    let (mut room, run) = woken();
    for (attempt, usage, approvers) in
        [(1, Some(usage), None), (2, None, Some(Approvers::Initiator))]
    {
        let calls = vec![call(&format!("t{attempt}"), approvers)];
        let outcome = Outcome::ToolRequested { calls, continuation: String::new(), usage };
        room.end(&run, attempt, RunEnd::Said(outcome)).accepted();
    }
    // While it waits nothing else is used.
    let used = room.cancel(&run).one_finished().usage;
    assert_eq!(used, Some(Usage { tokens_unknown: true, ..usage }));
}

#[test]
fn a_client_that_comes_gets_the_text_so_far_and_the_calls_cut_short() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "So far. ");
    let mut asked = call("t1", Some(Approvers::Initiator));
    asked.arguments = "x".repeat(MAX_TOOL_EXCERPT_BYTES + 1);
    let mut made = call("t2", None);
    made.arguments.clone_from(&asked.arguments);
    room.end(&run, 1, handed(&[asked.clone(), made]));
    room.crash();
    room.attach("c1", "ann");
    let frames = room.attach("c2", "ben").to(&on("c2"));
    let [GroupFrame::Attached { state, .. }, GroupFrame::Delta { offset, text, attempt, .. }] =
        &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((*offset, text.as_str(), *attempt), (0, "So far. ", 1));
    assert_eq!((state.runs[0].phase, state.runs[0].attempt), (RunPhase::Waiting, 1));
    assert_eq!(state.approvals[0].requested.arguments, asked.arguments, "whole, to decide by");
    let approval = state.approvals[0].requested.approval_id.to_string();
    room.approve("c1", &approval).accepted();
    let tools = room.view().runs[0].tools.clone();
    let lengths: Vec<_> = tools.iter().map(|tool| tool.arguments.len()).collect();
    assert_eq!(lengths, [MAX_TOOL_EXCERPT_BYTES; 2]);
    assert!(matches!(room.phase(&run), Some(Phase::Thinking { attempt: 2, .. })));
}

#[test]
fn the_text_of_a_hand_over_is_newer_than_that_of_a_snapshot_before_it() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "First. ");
    let (snapshot, seq) = (room.controller.snapshot().unwrap(), room.log.len());
    room.text(&run, 1, 7, "Second. ");
    room.end(&run, 1, handed(&[call("t1", None)]));
    room.ends(&run, 2, "t1");
    let later = room.log[seq..].to_vec();
    room.controller = without_budget(Controller::rebuild(Some(&snapshot), later).unwrap());
    room.watchers = Watchers::default();
    let out = room.step(Input::Recovered);
    assert_eq!(out.invocations()[0].request.resume.as_ref().map(|resume| resume.offset), Some(15));
    room.text(&run, 3, 15, "Third.");
    assert_eq!(room.end(&run, 3, completed()).posted()[0].text, "First. Second. Third.");
}
