//! Approvals: bound, decided once by those who may, expiring, and in nobody's way.

use std::time::Duration;

use convene_group_controller::{Controller, Input, Phase};
use convene_model::{
    Code, Role, RunId,
    agents::{Approvers, Verdict, failure},
    event::{EventKind, RunStatus, TriggerPolicy::Mention},
    frame::{GroupFrame, RunPhase},
    limits::{
        APPROVAL_TTL, MAX_CLOSED_APPROVALS, MAX_RUNS_AT_ONCE, RUN_TIMEOUT, TIME_AFTER_APPROVAL,
    },
};

use crate::harness::{Out, Room, call, completed, handed, id, on};

const INITIATOR: Approvers = Approvers::Initiator;

/// A run of `guide` that waits for an approval, with ann who began it on `c1`.
fn asking(who: Approvers) -> (Room, RunId, String) {
    let mut room = Room::with(&[("guide", Mention), ("other", Mention)]);
    let run = room.wake("@guide hi");
    let out = room.end(&run, 1, handed(&[call("t1", Some(who))]));
    let approval = asked(&out)[0].clone();
    (room, run, approval)
}

/// The approvals that were asked for.
fn asked(out: &Out) -> Vec<String> {
    let asked = out.0.events.iter().filter_map(|event| match &event.kind {
        EventKind::ApprovalRequested(asked) => Some(asked.approval_id.to_string()),
        _ => None,
    });
    asked.collect()
}

fn verdicts(out: &Out) -> Vec<Verdict> {
    let calls = out.invocations()[0].request.resume.clone().unwrap().calls;
    calls.into_iter().map(|call| call.verdict).collect()
}

#[test]
fn an_approval_is_bound_to_its_call_and_the_run_waits_without_an_attempt() {
    let (room, run, _) = asking(INITIATOR);
    let EventKind::ApprovalRequested(asked) = &room.log.last().unwrap().kind else {
        panic!("the run asks")
    };
    let of = call("t1", None);
    assert_eq!((&asked.hash, &asked.arguments, &asked.tool), (&of.hash, &of.arguments, &of.tool));
    assert_eq!((&asked.run_id, asked.initiator.as_ref()), (&run, Some(&id("ann"))));
    assert_eq!(asked.expires_at, room.now + APPROVAL_TTL);
    assert_eq!(room.phase(&run), Some(Phase::Waiting));
    assert_eq!(room.controller.durable_deadline(), Some(asked.expires_at));
}

#[test]
fn a_permitted_call_is_made_by_the_next_attempt() {
    let (mut room, run, approval) = asking(INITIATOR);
    let out = room.approve("c1", &approval).accepted();
    assert_eq!(out.kinds(), ["approval.resolved", "tool.started", "run.started"]);
    assert_eq!((verdicts(&out), room.open_approvals()), (vec![Verdict::Make], vec![]));
    room.text(&run, 2, 0, "done");
    assert_eq!(room.end(&run, 2, completed()).one_finished().status, RunStatus::Completed);
}

#[test]
fn a_refused_call_is_never_started_and_the_model_is_told() {
    let (mut room, _, approval) = asking(INITIATOR);
    let out = room.deny("c1", &approval).accepted();
    assert_eq!(out.kinds(), ["approval.resolved", "tool.finished", "run.started"]);
    assert_eq!(verdicts(&out), [Verdict::Denied]);
}

#[test]
fn the_run_goes_on_when_all_its_calls_are_decided() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    let calls = [call("t1", Some(INITIATOR)), call("t2", None), call("t3", Some(INITIATOR))];
    let out = room.end(&run, 1, handed(&calls));
    assert_eq!(out.kinds(), ["tool.requested", "approval.requested", "approval.requested"]);
    let approvals = asked(&out);
    assert_eq!(room.deny("c1", &approvals[1]).accepted().called(), [""; 0]);
    let out = room.approve("c1", &approvals[0]).accepted();
    assert_eq!(verdicts(&out), [Verdict::Make, Verdict::Make, Verdict::Denied]);
}

#[test]
fn only_those_may_decide_who_are_named() {
    let two = Approvers::NOfM { n: 1, users: vec![id("ben"), id("cleo")] };
    let admins = Approvers::Role { role: Role::Admin };
    for (who, user, role, may) in [
        (INITIATOR, "ann", Role::Member, true),
        (INITIATOR, "ben", Role::Owner, false),
        (admins.clone(), "ben", Role::Admin, true),
        (admins.clone(), "ben", Role::Owner, true),
        (admins, "ann", Role::Member, false),
        (two.clone(), "cleo", Role::Member, true),
        (two, "ann", Role::Owner, false),
    ] {
        let (mut room, _, approval) = asking(who.clone());
        room.attach_as("c2", user, role).accepted();
        let out = room.approve("c2", &approval);
        if may {
            out.accepted();
        } else {
            out.refused_to(&on("c2"), Code::NotPermitted);
            room.deny("c2", &approval).refused_to(&on("c2"), Code::NotPermitted);
            assert_eq!(room.open_approvals(), [approval], "{who:?} {user}");
        }
    }
    let (mut room, _, approval) = asking(INITIATOR);
    room.approve("c2", &approval).refused_to(&on("c2"), Code::NotAttached);
    room.attach_as("c2", "ann", Role::Agent).accepted();
    room.approve("c2", &approval).refused_to(&on("c2"), Code::Forbidden);
}

#[test]
fn several_people_agree_before_a_call_is_made_and_one_of_them_can_refuse_it() {
    let who = Approvers::NOfM { n: 2, users: vec![id("ann"), id("ben"), id("cleo")] };
    let (mut room, _, approval) = asking(who.clone());
    room.attach("c2", "ben").accepted();
    let out = room.approve("c1", &approval).accepted();
    let EventKind::ApprovalVoted(voted) = &out.0.events[0].kind else { panic!("{out:?}") };
    assert_eq!((voted.missing, &voted.user_id), (1, &id("ann")));
    assert_eq!(room.view().approvals[0].votes, [id("ann")]);
    assert_eq!(room.approve("c1", &approval).accepted().0.events, [], "nobody counts twice");
    room.crash();
    room.attach("c2", "ben").accepted();
    let out = room.approve("c2", &approval).accepted();
    assert_eq!(
        (out.kinds()[0].as_str(), verdicts(&out)),
        ("approval.resolved", vec![Verdict::Make])
    );

    let (mut room, _, approval) = asking(who);
    room.attach("c2", "ben").accepted();
    room.approve("c1", &approval).accepted();
    assert_eq!(verdicts(&room.deny("c2", &approval).accepted()), [Verdict::Denied]);
}

#[test]
fn a_decision_is_taken_once_and_its_repeat_is_success() {
    let (mut room, _, approval) = asking(Approvers::Role { role: Role::Member });
    room.attach("c2", "ben").accepted();
    room.approve("c1", &approval).accepted();
    let again = room.approve("c1", &approval).accepted();
    assert!(matches!(again.one_to(&on("c1")), GroupFrame::Ok { seq: None, .. }));
    room.deny("c1", &approval).refused_to(&on("c1"), Code::ApprovalDecided);
    room.approve("c2", &approval).refused_to(&on("c2"), Code::ApprovalDecided);
    room.approve("c1", "ap999").refused_to(&on("c1"), Code::ApprovalNotFound);
}

#[test]
fn what_nobody_decides_expires_to_the_millisecond_and_ends_the_run() {
    let (mut room, run, approval) = asking(INITIATOR);
    room.after(APPROVAL_TTL - Duration::from_millis(1));
    assert_eq!(room.tick().0.events, []);
    let out = room.after(Duration::from_millis(1)).tick();
    assert_eq!(out.kinds(), ["approval.expired", "run.finished"]);
    let end = out.one_finished();
    assert_eq!(
        (end.status, end.code.as_deref()),
        (RunStatus::Failed, Some(failure::APPROVAL_EXPIRED))
    );
    assert_eq!((room.phase(&run), room.controller.durable_deadline()), (None, None));
    room.attach("c1", "ann").accepted();
    room.approve("c1", &approval).refused_to(&on("c1"), Code::ApprovalExpired);
}

#[test]
fn a_decision_that_comes_with_the_expiry_is_too_late() {
    let (mut room, _, approval) = asking(INITIATOR);
    room.after(APPROVAL_TTL - Duration::from_secs(1)).attach("c1", "ann").accepted();
    let out = room.after(Duration::from_secs(1)).approve("c1", &approval);
    assert_eq!(out.kinds(), ["approval.expired", "run.finished"]);
    assert_eq!(out.0.answer.unwrap_err().code, Code::ApprovalExpired);
}

#[test]
fn a_waiting_run_is_in_nobodys_way() {
    let agents: Vec<_> = (0..MAX_RUNS_AT_ONCE + 1).map(|n| format!("a{n}")).collect();
    let named: Vec<_> = agents.iter().map(|agent| (agent.as_str(), Mention)).collect();
    let mut room = Room::with(&named);
    let run = room.wake("@a0 hi");
    let out = room.end(&run, 1, handed(&[call("t1", Some(INITIATOR))]));
    let approval = asked(&out)[0].clone();
    // As many others may work as if it were not there, its own agent among them.
    let all: Vec<_> = agents.iter().map(|agent| format!("@{agent}")).collect();
    assert_eq!(room.say(&all.join(" ")).called(), ["a0", "a1", "a2", "a3"]);
    // Permitted, it waits for a place, and comes before what has not begun.
    assert_eq!(room.approve("c1", &approval).accepted().called(), [""; 0]);
    assert_eq!(room.phase(&run), Some(Phase::Queued));
    let first = room.controller.state().unwrap().runs()[1].run_id.clone();
    let out = room.reply(&first, "done");
    assert_eq!(out.invocations()[0].request.run_id, run);
}

#[test]
fn no_time_of_the_run_passes_while_it_waits() {
    let mut room = Room::with(&[("guide", Mention)]);
    let run = room.wake("@guide hi");
    let used = Duration::from_secs(60);
    let out = room.after(used).end(&run, 1, handed(&[call("t1", Some(INITIATOR))]));
    let approval = asked(&out)[0].clone();
    room.after(RUN_TIMEOUT * 10).attach("c1", "ann").accepted();
    let out = room.approve("c1", &approval).accepted();
    assert_eq!(out.invocations()[0].deadline, room.now + (RUN_TIMEOUT - used));

    // However little was left, there is time for what was permitted.
    let out =
        room.after(Duration::from_secs(235)).end(&run, 2, handed(&[call("t2", Some(INITIATOR))]));
    let approval = asked(&out)[0].clone();
    let out = room.after(Duration::from_secs(1)).approve("c1", &approval).accepted();
    assert_eq!(out.invocations()[0].deadline, room.now + TIME_AFTER_APPROVAL);
}

#[test]
fn an_approval_outlives_the_process_and_is_in_the_snapshot() {
    let (mut room, run, approval) = asking(INITIATOR);
    let out = room.after(Duration::from_secs(3600)).crash();
    assert_eq!((out.0.events.len(), out.invocations().len()), (0, 0), "it goes on waiting");
    assert!(out.0.wake_at.is_some());
    let snapshot = room.controller.snapshot().unwrap();
    let rebuilt = Controller::rebuild(Some(&snapshot), []).unwrap();
    assert_eq!(rebuilt.state(), room.controller.state());
    room.attach("c1", "ann").accepted();
    assert_eq!(verdicts(&room.approve("c1", &approval).accepted()), [Verdict::Make]);
    assert!(room.phase(&run).is_some());
}

#[test]
fn whatever_ends_a_waiting_run_ends_its_approvals() {
    type Act = fn(&mut Room, &RunId) -> Out;
    let acts: [(Act, RunStatus); 4] = [
        (|room, run| room.cancel(run), RunStatus::Cancelled),
        (|room, _| room.configure(&[("other", Mention)]), RunStatus::Failed),
        (|room, _| room.delete("c1", "m0"), RunStatus::Cancelled),
        (
            |room, _| room.step(Input::Freeze { archive_id: id("x1"), epoch: 1 }),
            RunStatus::Interrupted,
        ),
    ];
    for (act, status) in acts {
        let mut room = Room::with(&[("guide", Mention), ("other", Mention)]);
        let run = room.post("c1", "m0", "@guide hi").invocations()[0].request.run_id.clone();
        room.end(&run, 1, handed(&[call("t1", Some(INITIATOR))]));
        let out = act(&mut room, &run).accepted();
        let kinds = out.kinds();
        let expired = kinds.iter().position(|kind| kind == "approval.expired");
        let finished = kinds.iter().position(|kind| kind == "run.finished");
        assert!(expired.is_some() && expired < finished, "{kinds:?}");
        assert_eq!((out.one_finished().status, out.aborts()), (status, vec![]));
    }
}

#[test]
fn while_agents_are_paused_a_decision_is_taken_and_the_run_waits() {
    let (mut room, run, approval) = asking(INITIATOR);
    room.pause(true);
    assert_eq!(room.approve("c1", &approval).accepted().called(), [""; 0]);
    assert_eq!(room.view().runs[0].phase, RunPhase::Queued);
    assert_eq!(room.pause(false).invocations()[0].request.run_id, run);
}

#[test]
fn so_many_closed_approvals_are_remembered() {
    let mut room = Room::with(&[("guide", Mention)]);
    let mut approvals = Vec::new();
    for _ in 0..=MAX_CLOSED_APPROVALS {
        let run = room.wake("@guide hi");
        let out = room.end(&run, 1, handed(&[call("t1", Some(INITIATOR))]));
        approvals.extend(asked(&out));
        room.cancel(&run).accepted();
    }
    room.approve("c1", &approvals[0]).refused_to(&on("c1"), Code::ApprovalNotFound);
    room.approve("c1", &approvals[1]).refused_to(&on("c1"), Code::ApprovalExpired);
}
