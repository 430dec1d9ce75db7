//! Who works and who waits: one run per agent, four per group, first come first served.

use convene_model::{
    agents::failure,
    event::{RunStatus, SuppressReason, TriggerPolicy::Mention, WakeReason},
    limits::{MAX_QUEUED_RUNS, MAX_RUNS_AT_ONCE},
};

use crate::harness::{Room, Verdict, completed};

const SIX: [(&str, convene_model::event::TriggerPolicy); 6] = [
    ("a", Mention),
    ("b", Mention),
    ("c", Mention),
    ("d", Mention),
    ("e", Mention),
    ("f", Mention),
];

#[test]
fn an_agent_works_on_one_run_at_a_time() {
    let mut room = Room::with(&SIX);
    let first = room.wake("@a one");
    assert_eq!(room.say("@a two").called(), [""; 0]);
    assert_eq!(room.say("@b").called(), ["b"], "another agent does not wait for it");
    assert_eq!(room.working_and_waiting(), (vec!["a".into(), "b".into()], vec!["a".into()]));
    let out = room.reply(&first, "done");
    assert_eq!(out.kinds(), ["message.posted", "run.finished", "run.started"]);
    assert_eq!(out.called(), ["a"]);
}

#[test]
fn so_many_runs_work_at_once_and_the_rest_follow_in_the_order_of_their_triggers() {
    let mut room = Room::with(&SIX);
    let out = room.say("@f @e @d @c @b @a");
    assert_eq!(out.called(), ["a", "b", "c", "d"]);
    assert_eq!(out.called().len(), MAX_RUNS_AT_ONCE);
    room.say("@e again");
    room.say("@a again");
    let waiting = room.working_and_waiting().1;
    assert_eq!(waiting, ["e", "f", "e", "a"]);
    let runs: Vec<_> = out.invocations().iter().map(|call| call.request.run_id.clone()).collect();
    assert_eq!(room.reply(&runs[3], "d is done").called(), ["e"]);
    assert_eq!(room.reply(&runs[1], "b is done").called(), ["f"]);
    // e's second run waits for its first, so a's second comes before it.
    assert_eq!(room.reply(&runs[0], "a is done").called(), ["a"]);
    assert_eq!(room.working_and_waiting().1, ["e"]);
}

#[test]
fn a_full_queue_takes_no_more_and_says_so() {
    let mut room = Room::with(&SIX);
    let first = room.wake("@a go");
    for _ in 0..MAX_QUEUED_RUNS {
        let decided = room.say("@a go on").decided();
        assert_eq!(decided, [("a".into(), Verdict::Wakes(WakeReason::Mention))]);
    }
    let full = Verdict::Not(SuppressReason::QueueFull);
    assert_eq!(room.say("@a and @b").decided(), [("a".into(), full), ("b".into(), full)]);
    room.reply(&first, "done");
    assert_eq!(room.working_and_waiting().1.len(), MAX_QUEUED_RUNS - 1);
    let one_place = room.say("@a and @b").decided();
    let wakes = Verdict::Wakes(WakeReason::Mention);
    assert_eq!(one_place, [("a".into(), wakes), ("b".into(), full)]);
}

#[test]
fn an_agent_that_is_taken_out_runs_no_more_whether_it_waits_or_works() {
    let mut room = Room::with(&SIX);
    let working = room.wake("@a one");
    room.say("@a two");
    let kept = room.wake("@b");
    room.text(&working, 1, 0, "As I was say");
    let out = room.configure(&SIX[1..]);
    let ends: Vec<_> =
        out.finished().into_iter().map(|end| (end.attempt, end.status, end.code)).collect();
    let removed = Some(failure::AGENT_REMOVED.to_owned());
    assert_eq!(ends, [(1, RunStatus::Failed, removed.clone()), (0, RunStatus::Failed, removed)]);
    assert_eq!(out.aborts(), [(working.clone(), 1)]);
    assert_eq!(out.posted()[0].text, "As I was say");
    assert!(room.phase(&kept).is_some());
    assert_eq!(room.end(&working, 1, completed()).0.events, [], "its late end changes nothing");
}

#[test]
fn while_agents_are_paused_what_waits_goes_on_waiting() {
    let mut room = Room::with(&SIX);
    let first = room.wake("@a one");
    room.say("@a two");
    room.pause(true);
    let out = room.reply(&first, "what has begun is brought to its end");
    assert_eq!(out.one_finished().status, RunStatus::Completed);
    assert_eq!((out.called(), room.working_and_waiting().1), (vec![], vec!["a".into()]));
    assert_eq!(room.crash().called(), [""; 0]);
    assert_eq!(room.pause(false).called(), ["a"]);
}
