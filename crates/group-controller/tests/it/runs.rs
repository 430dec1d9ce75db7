//! The life of a run: attempts, deltas in order, one end.

use std::time::Duration;

use convene_group_controller::{Controller, Input, Phase, RunEnd};
use convene_model::{
    Code, RunId,
    agents::{Outcome, Usage, failure},
    event::{Author, EventKind, RunStatus, TriggerPolicy::Mention},
    frame::GroupFrame,
    limits::{MAX_ATTEMPTS, MAX_REPLY_BYTES, PRESENCE_PAUSE, RUN_TIMEOUT},
};

use crate::harness::{Out, Room, completed, id, lost, on};

fn woken() -> (Room, RunId) {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    (room, run)
}

fn delta(run_id: &RunId, attempt: u32, offset: u64, text: &str) -> GroupFrame {
    GroupFrame::Delta { run_id: run_id.clone(), attempt, offset, text: text.into() }
}

/// The run ended as failed with a code.
#[track_caller]
fn failed(out: &Out, code: &str) {
    let end = out.one_finished();
    assert_eq!((end.status, end.code.as_deref()), (RunStatus::Failed, Some(code)));
    assert!(end.detail.is_some_and(|detail| !detail.is_empty()), "people are told why");
}

#[test]
fn a_run_is_recorded_and_its_deadline_set_before_it_is_handed_out() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.after(PRESENCE_PAUSE).tick();
    let out = room.say("@guide hi");
    let deadline = room.now + RUN_TIMEOUT;
    let EventKind::RunStarted(started) = &out.0.events[2].kind else { panic!("{out:?}") };
    assert_eq!((started.attempt, started.deadline), (1, deadline));
    assert_eq!(room.controller.durable_deadline(), Some(deadline));
    assert_eq!(out.0.wake_at, Some(deadline));
    let call = &out.invocations()[0];
    assert_eq!((call.deadline, call.request.attempt, &call.org_id), (deadline, 1, &id("o1")));
    assert_eq!(call.request.messages.last().unwrap().message_id, call.request.trigger);
}

#[test]
fn a_run_streams_and_its_end_comes_with_its_message() {
    let (mut room, run) = woken();
    let out = room.text(&run, 1, 0, "Hel");
    assert_eq!(
        (out.kinds(), out.broadcasts()),
        (vec!["run.streaming".into()], vec![delta(&run, 1, 0, "Hel")])
    );
    let out = room.text(&run, 1, 3, "lo");
    assert_eq!((out.kinds().len(), out.broadcasts()), (0, vec![delta(&run, 1, 3, "lo")]));
    let usage = Some(Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() });
    let out = room.end(&run, 1, RunEnd::Said(Outcome::Completed { usage }));
    assert_eq!(out.kinds(), ["message.posted", "run.finished"]);
    let posted = &out.posted()[0];
    assert_eq!((posted.text.as_str(), &posted.author), ("Hello", &Author::Agent(id("guide"))));
    assert_eq!((&posted.run_id, posted.hop), (&Some(run.clone()), 1));
    let end = out.one_finished();
    assert_eq!((end.status, end.usage), (RunStatus::Completed, usage));
    assert_eq!(end.message_id.as_ref(), Some(&posted.message_id));
    assert_eq!((out.aborts(), room.controller.durable_deadline()), (vec![], None));
}

#[test]
fn after_its_end_nothing_more_comes_of_a_run() {
    let (mut room, run) = woken();
    room.reply(&run, "done");
    for out in
        [room.text(&run, 1, 4, "more"), room.end(&run, 1, completed()), room.end(&run, 1, lost())]
    {
        assert_eq!((out.0.events.len(), out.0.effects.len()), (0, 0));
    }
    room.cancel(&run).refused_to(&on("c1"), Code::RunNotFound);
}

#[test]
fn a_hole_or_a_repeat_in_the_text_ends_the_run_with_what_came_before() {
    for offset in [2, 4] {
        let (mut room, run) = woken();
        room.text(&run, 1, 0, "abc");
        let out = room.text(&run, 1, offset, "d");
        failed(&out, failure::WORKER_CUT);
        assert_eq!((out.posted()[0].text.as_str(), out.aborts()), ("abc", vec![(run, 1)]));
        assert_eq!(out.broadcasts(), []);
    }
}

#[test]
fn offsets_count_bytes() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "ü€😀");
    assert_eq!(room.text(&run, 1, 9, "!").broadcasts(), [delta(&run, 1, 9, "!")]);
}

#[test]
fn an_empty_piece_of_text_is_no_answer_yet() {
    let (mut room, run) = woken();
    let out = room.text(&run, 1, 0, "");
    assert_eq!((out.0.events.len(), out.0.effects.len()), (0, 0));
    assert!(matches!(room.phase(&run), Some(Phase::Thinking { .. })));
}

#[test]
fn what_an_older_or_unknown_attempt_says_is_ignored() {
    let (mut room, run) = woken();
    room.end(&run, 1, lost());
    for attempt in [0, 1, 3] {
        for out in [
            room.text(&run, attempt, 0, "late"),
            room.end(&run, attempt, completed()),
            room.end(&run, attempt, lost()),
        ] {
            assert_eq!((out.0.events.len(), out.0.effects.len()), (0, 0), "attempt {attempt}");
        }
    }
    assert_eq!(room.text(&run, 2, 0, "in time").broadcasts(), [delta(&run, 2, 0, "in time")]);
}

#[test]
fn a_queued_run_hears_nobody() {
    let (mut room, _) = woken();
    room.say("@guide two");
    let queued = room.controller.state().unwrap().runs()[1].run_id.clone();
    for attempt in [0, 1] {
        assert_eq!(room.text(&queued, attempt, 0, "x").0.events, []);
        assert_eq!(room.end(&queued, attempt, completed()).0.events, []);
    }
    assert_eq!(room.phase(&queued), Some(Phase::Queued));
}

#[test]
fn a_failure_is_kept_as_it_was_said_with_the_text_so_far() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "I was ab");
    let outcome = Outcome::Failed {
        code: failure::PROVIDER_RATE_LIMITED.into(),
        detail: "Slow down.".into(),
        retry_after_ms: Some(1000),
        usage: Some(Usage {
            input_tokens: 5,
            output_tokens: 3,
            egress_bytes: 9,
            ..Usage::default()
        }),
    };
    let out = room.end(&run, 1, RunEnd::Said(outcome));
    failed(&out, failure::PROVIDER_RATE_LIMITED);
    assert_eq!(out.one_finished().usage.map(|usage| usage.egress_bytes), Some(9));
    assert_eq!(out.one_finished().detail.as_deref(), Some("Slow down."));
    assert_eq!(out.posted()[0].text, "I was ab");
}

#[test]
fn an_answer_without_a_word_is_a_failure_and_no_message() {
    for text in ["", " \n"] {
        let (mut room, run) = woken();
        let out = room.reply(&run, text);
        failed(&out, failure::EMPTY_REPLY);
        assert_eq!((out.posted(), out.one_finished().message_id), (vec![], None));
    }
}

#[test]
fn a_reply_has_so_many_bytes() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, &"x".repeat(MAX_REPLY_BYTES));
    assert_eq!(room.end(&run, 1, completed()).one_finished().status, RunStatus::Completed);

    let (mut room, run) = woken();
    room.text(&run, 1, 0, &"x".repeat(MAX_REPLY_BYTES - 1));
    let out = room.text(&run, 1, MAX_REPLY_BYTES as u64 - 1, "yz");
    failed(&out, failure::REPLY_TOO_LONG);
    assert_eq!((out.posted()[0].text.len(), out.aborts()), (MAX_REPLY_BYTES - 1, vec![(run, 1)]));
}

#[test]
fn a_run_times_out_at_its_deadline_and_not_before() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "Let me th");
    room.after(RUN_TIMEOUT - Duration::from_millis(1));
    assert_eq!(room.tick().0.events, []);
    let out = room.after(Duration::from_millis(1)).tick();
    failed(&out, failure::TIMEOUT);
    assert_eq!((out.posted()[0].text.as_str(), out.aborts()), ("Let me th", vec![(run, 1)]));
    assert_eq!(room.controller.durable_deadline(), None);
}

#[test]
fn deadlines_run_also_when_the_input_itself_is_refused_or_too_late() {
    let inputs: [fn(&Room, &RunId) -> Input; 3] = [
        |room, _| Input::Post(room.post_of("nobody", "m9", "hi")),
        |_, run| Input::RunEnded { run_id: run.clone(), attempt: 1, end: completed() },
        |_, run| Input::RunText { run_id: run.clone(), attempt: 1, offset: 0, text: "x".into() },
    ];
    for input in inputs {
        let (mut room, run) = woken();
        room.say("@guide two");
        room.after(RUN_TIMEOUT);
        let input = input(&room, &run);
        let out = room.step(input);
        assert_eq!(out.kinds(), ["run.finished", "run.started"]);
        failed(&out, failure::TIMEOUT);
    }
}

#[test]
fn retrying_does_not_move_the_deadline() {
    let (mut room, run) = woken();
    let deadline = room.controller.durable_deadline();
    let out = room.after(Duration::from_secs(60)).end(&run, 1, lost());
    assert_eq!(Some(out.invocations()[0].deadline), deadline);
    assert_eq!(room.controller.durable_deadline(), deadline);
}

#[test]
fn an_attempt_that_showed_nothing_is_driven_again_until_there_were_enough() {
    let (mut room, run) = woken();
    for attempt in 1..MAX_ATTEMPTS {
        let out = room.end(&run, attempt, lost());
        assert_eq!(out.kinds(), ["run.started"]);
        assert_eq!(out.invocations()[0].request.attempt, attempt + 1);
    }
    let out = room.end(&run, MAX_ATTEMPTS, lost());
    failed(&out, "worker_cut");
    assert_eq!((out.invocations(), out.one_finished().attempt), (vec![], MAX_ATTEMPTS));
}

#[test]
fn an_attempt_that_had_begun_to_answer_ends_as_interrupted_with_its_text() {
    let (mut room, run) = woken();
    room.text(&run, 1, 0, "Half a ");
    let out = room.end(&run, 1, lost());
    assert_eq!((out.one_finished().status, out.invocations()), (RunStatus::Interrupted, vec![]));
    assert_eq!(out.posted()[0].text, "Half a ");
}

#[test]
fn after_a_crash_thinking_runs_are_driven_again_and_writing_ones_end_as_interrupted() {
    let mut room = Room::with(&[("a", Mention), ("b", Mention)]);
    let thinking = room.wake("@a hi");
    let writing = room.wake("@b hi");
    room.say("@b two");
    room.text(&writing, 1, 0, "Half a ");
    let out = room.after(Duration::from_secs(1)).crash();
    assert_eq!(out.kinds(), ["run.started", "run.finished", "run.started"]);
    let end = out.one_finished();
    assert_eq!((end.run_id, end.status, end.message_id), (writing, RunStatus::Interrupted, None));
    let calls: Vec<_> = out.invocations().into_iter().map(|call| call.request).collect();
    assert_eq!((&calls[0].run_id, calls[0].attempt), (&thinking, 2));
    assert_eq!((calls[1].agent_id.as_str(), calls[1].attempt), ("b", 1));
    room.text(&thinking, 2, 0, "starts at 0 again");
}

#[test]
fn a_run_that_crashes_each_time_is_given_up() {
    let (mut room, run) = woken();
    for _ in 1..MAX_ATTEMPTS {
        assert_eq!(room.crash().called(), ["guide"]);
    }
    let out = room.crash();
    let end = out.one_finished();
    let code = end.code.as_deref();
    assert_eq!((end.status, code), (RunStatus::Interrupted, Some(failure::TOO_MANY_ATTEMPTS)));
    assert_eq!((out.called(), room.phase(&run)), (vec![], None));
}

#[test]
fn a_deadline_that_passed_while_nobody_ran_is_kept() {
    let (mut room, _) = woken();
    let out = room.after(RUN_TIMEOUT * 3).crash();
    failed(&out, failure::TIMEOUT);
    assert_eq!(out.called(), [""; 0]);
}

#[test]
fn a_recovery_of_a_quiet_group_changes_nothing() {
    let mut room = Room::with(&[("guide", Mention)]);
    room.say("hi");
    let out = room.crash();
    assert_eq!((out.0.events.len(), out.0.effects.len(), out.0.wake_at), (0, 0, None));
}

#[test]
fn whoever_is_attached_can_stop_a_run_that_waits_thinks_or_writes() {
    let (mut room, thinking) = woken();
    room.say("@guide two");
    let queued = room.controller.state().unwrap().runs()[1].run_id.clone();
    let out = room.cancel(&queued).accepted();
    let end = out.one_finished();
    assert_eq!((end.status, end.attempt, end.message_id), (RunStatus::Cancelled, 0, None));
    assert_eq!((out.aborts(), out.ok_seq(&on("c1"))), (vec![], room.seq()));

    let out = room.cancel(&thinking).accepted();
    assert_eq!((out.one_finished().status, out.posted()), (RunStatus::Cancelled, vec![]));
    assert_eq!(out.aborts(), [(thinking, 1)]);

    let writing = room.wake("@guide three");
    room.text(&writing, 1, 0, "Once upon");
    let out = room.cancel(&writing).accepted();
    assert_eq!(out.kinds(), ["message.posted", "run.finished"]);
    assert_eq!((out.posted()[0].text.as_str(), out.aborts()), ("Once upon", vec![(writing, 1)]));
}

#[test]
fn stopping_needs_an_attached_connection_and_a_run() {
    let (mut room, run) = woken();
    room.step(Input::Cancel { from: on("c2"), r#ref: id("1"), run_id: run.clone() })
        .refused_to(&on("c2"), Code::NotAttached);
    room.cancel(&id("r9-9")).refused_to(&on("c1"), Code::RunNotFound);
    assert!(room.phase(&run).is_some());
}

#[test]
fn a_log_with_a_hole_or_a_second_beginning_is_no_groups_history() {
    let (room, _) = woken();
    let mut hole = room.log.clone();
    hole.remove(2);
    assert!(Controller::rebuild(None, hole).is_err());
    assert!(Controller::rebuild(None, room.log[1..].to_vec()).is_err());
    let mut again = room.log[..1].to_vec();
    again.push(convene_model::event::Event { seq: 2, ..room.log[0].clone() });
    assert!(Controller::rebuild(None, again).is_err());
    let snapshot = room.controller.snapshot();
    assert!(Controller::rebuild(snapshot.as_deref(), room.log[3..].to_vec()).is_err());
    assert!(Controller::rebuild(Some(b"{}"), []).is_err());
}
