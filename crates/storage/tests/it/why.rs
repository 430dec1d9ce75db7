//! Why an agent answered, and what runs did with tools, wherever it lies.

use convene_model::{
    AgentId, ApprovalId, CallId, MessageId, RunId, Timestamp, UserId,
    event::{
        ApprovalDecision, ApprovalExpired, ApprovalRequested, ApprovalResolved, ApprovalVoted,
        Candidate, Decision, EventKind, RunStarted, SuppressReason, ToolFinished, ToolStarted,
        ToolsRequested, TriggerDecided, WakeReason,
    },
    history::{ApprovalOutcome, PastApproval},
    tools::{Approvers, ToolRequest, ToolStatus, ToolView},
    why::{Outcome, Reason, WhyStatus},
};
use convene_storage::Batch;

use crate::support::{
    Group, commit, message, open, query, run_finished, unlisted, wherever_it_lies,
};

fn run_id() -> RunId {
    RunId::new("r1-0").unwrap()
}

fn call(id: &str) -> CallId {
    CallId::new(id).unwrap()
}

fn decided(candidates: Vec<(&str, Decision)>) -> EventKind {
    let candidates = candidates
        .into_iter()
        .map(|(agent, decision)| Candidate { agent_id: AgentId::new(agent).unwrap(), decision });
    EventKind::TriggerDecided(TriggerDecided {
        message_id: MessageId::new("m1").unwrap(),
        message_seq: 1,
        candidates: candidates.collect(),
        by: None,
    })
}

fn started(attempt: u32) -> EventKind {
    EventKind::RunStarted(RunStarted {
        run_id: run_id(),
        attempt,
        agent_id: AgentId::new("a1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        deadline: Timestamp::from_secs(9),
        reservation: None,
    })
}

fn tool_started(id: &str) -> EventKind {
    EventKind::ToolStarted(ToolStarted {
        run_id: run_id(),
        attempt: 1,
        call_id: call(id),
        tool: "clock".into(),
        arguments: "{}".into(),
    })
}

fn tool_finished(id: &str, status: ToolStatus, summary: &str) -> EventKind {
    EventKind::ToolFinished(ToolFinished {
        run_id: run_id(),
        attempt: 1,
        call_id: call(id),
        status,
        summary: summary.into(),
    })
}

fn asked(id: &str, call_id: &str) -> EventKind {
    EventKind::ApprovalRequested(ApprovalRequested {
        approval_id: ApprovalId::new(id).unwrap(),
        run_id: run_id(),
        agent_id: AgentId::new("a1").unwrap(),
        call_id: call(call_id),
        tool: "mail".into(),
        arguments: "{\"to\":\"ben\"}".into(),
        hash: "00".into(),
        who: Approvers::Initiator,
        initiator: None,
        expires_at: Timestamp::from_secs(99),
    })
}

/// A message that woke one agent and not another, and everything that the one did.
fn story(group: &mut Group) -> Vec<Batch> {
    let accepted = Decision::Accepted { reason: WakeReason::Mention, run_id: run_id() };
    let suppressed = Decision::Suppressed { reason: SuppressReason::Cooldown };
    let request = ToolRequest {
        call_id: call("c2"),
        tool: "mail".into(),
        tool_version: 1,
        arguments: "{\"to\":\"ben\"}".into(),
        hash: "00".into(),
        approvers: None,
    };
    let requested = EventKind::ToolsRequested(ToolsRequested {
        run_id: run_id(),
        attempt: 1,
        calls: vec![request],
        usage: None,
        continuation: "opaque".into(),
        said: String::new(),
    });
    let user = |id: &str| UserId::new(id).unwrap();
    let approval_id = ApprovalId::new("p1").unwrap();
    vec![
        group.batch([
            message("m1", "@a1 @a2 hello"),
            decided(vec![("a1", accepted), ("a2", suppressed)]),
        ]),
        group.batch([started(1), tool_started("c1")]),
        group.batch([tool_finished("c1", ToolStatus::Ok, "noon"), unlisted(), requested]),
        group.batch([asked("p1", "c2"), asked("p2", "c3")]),
        group.batch([
            EventKind::ApprovalVoted(ApprovalVoted {
                approval_id: approval_id.clone(),
                run_id: run_id(),
                user_id: user("u1"),
                missing: 1,
            }),
            EventKind::ApprovalResolved(ApprovalResolved {
                approval_id,
                run_id: run_id(),
                decision: ApprovalDecision::Approve,
                user_id: user("u2"),
            }),
            EventKind::ApprovalExpired(ApprovalExpired {
                approval_id: ApprovalId::new("p2").unwrap(),
                run_id: run_id(),
            }),
        ]),
        group.batch([
            started(2),
            tool_started("c2"),
            tool_finished("c2", ToolStatus::Failed, "full"),
        ]),
        group.batch([message("run_r1-0", "done"), run_finished("r1-0")]),
    ]
}

fn tools() -> Vec<ToolView> {
    let made = |id: &str, tool: &str, arguments: &str, status, summary: &str| ToolView {
        call_id: call(id),
        tool: tool.into(),
        arguments: arguments.into(),
        status: Some(status),
        summary: Some(summary.into()),
    };
    vec![
        made("c1", "clock", "{}", ToolStatus::Ok, "noon"),
        made("c2", "mail", "{\"to\":\"ben\"}", ToolStatus::Failed, "full"),
    ]
}

fn approvals(group: &Group) -> Vec<PastApproval> {
    let by = ["u1", "u2"].map(|id| UserId::new(id).unwrap()).to_vec();
    let at = |kind: fn(&EventKind) -> bool| {
        group.events.iter().find(|event| kind(&event.kind)).map(|event| event.at)
    };
    vec![
        PastApproval {
            approval_id: ApprovalId::new("p1").unwrap(),
            call_id: call("c2"),
            tool: "mail".into(),
            outcome: ApprovalOutcome::Approved,
            by,
            at: at(|kind| matches!(kind, EventKind::ApprovalResolved(_))),
        },
        PastApproval {
            approval_id: ApprovalId::new("p2").unwrap(),
            call_id: call("c3"),
            tool: "mail".into(),
            outcome: ApprovalOutcome::Expired,
            by: vec![],
            at: at(|kind| matches!(kind, EventKind::ApprovalExpired(_))),
        },
    ]
}

#[test]
fn a_message_knows_why_each_agent_answered_or_not_and_what_the_run_did() {
    let mut group = Group::new("g");
    let batches = story(&mut group);
    let head = group.head();
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let m1 = MessageId::new("m1").unwrap();
            let why = store.why(group.key, &m1, head).unwrap().unwrap().why;
            let [one, two] = &why.agents[..] else { panic!("{why:?}") };
            assert_eq!(one.outcome, Outcome::Accepted);
            assert_eq!(one.reason, Some(Reason::Woken(WakeReason::Mention)));
            assert_eq!(two.outcome, Outcome::Suppressed);
            assert_eq!(two.reason, Some(Reason::Suppressed(SuppressReason::Cooldown)));
            assert_eq!(two.run, None);
            let run = one.run.as_ref().unwrap();
            assert_eq!((run.status, run.attempt), (WhyStatus::Completed, 1));
            assert_eq!(run.started_at, Some(group.events[2].at));
            assert_eq!(run.finished_at, Some(group.events[head as usize - 1].at));
            assert_eq!(run.tools, tools());
            assert_eq!(run.approvals, approvals(&group));

            // Before the run began, and in its midst.
            let early = store.why(group.key, &m1, 2).unwrap().unwrap().why;
            assert_eq!(early.agents[0].run.as_ref().unwrap().status, WhyStatus::Queued);
            let midst = store.why(group.key, &m1, 4).unwrap().unwrap().why;
            let run = midst.agents[0].run.as_ref().unwrap();
            assert_eq!((run.status, run.tools.len()), (WhyStatus::Running, 1));
            assert_eq!(run.tools[0].status, None);

            let unknown = MessageId::new("m9").unwrap();
            assert_eq!(store.why(group.key, &unknown, head).unwrap(), None);
            let reply = MessageId::new("run_r1-0").unwrap();
            let none = store.why(group.key, &reply, head).unwrap().unwrap();
            assert_eq!(none.why.agents, []);
        },
    );
}

#[test]
fn a_page_of_history_says_what_its_runs_did_with_tools() {
    let mut group = Group::new("g");
    let batches = story(&mut group);
    let head = group.head();
    wherever_it_lies(
        |store| {
            for batch in batches {
                commit(store, batch).unwrap();
            }
        },
        |store| {
            let page = store.history(group.key, query(None, None, 10), head).unwrap();
            let [run] = &page.runs[..] else { panic!("{:?}", page.runs) };
            assert_eq!(run.tools, tools());
            assert_eq!(run.approvals, approvals(&group));
        },
    );
}

#[test]
fn a_file_from_before_there_was_the_table_is_read_through_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut group = Group::new("g");
    let store = open(&dir);
    for batch in story(&mut group) {
        commit(&store, batch).unwrap();
    }
    store.settle();
    store.close();
    drop(store);
    let rooms = rusqlite::Connection::open(dir.path().join("rooms.db")).unwrap();
    rooms
        .execute_batch(
            "DROP TABLE agent_events; DROP TABLE trimmed_groups; DROP TABLE search_purge;
             PRAGMA user_version = 3",
        )
        .unwrap();
    drop(rooms);
    let store = open(&dir);
    let page = store.history(group.key, query(None, None, 10), group.head()).unwrap();
    assert_eq!(page.runs[0].tools, tools());
}
