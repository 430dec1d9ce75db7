//! What a room makes of runs: tools, approvals, and what a person does about them.

use convene_model::frame::ClientFrame;
use serde_json::{Value, json};

use super::*;
use convene_model::Timestamp;

fn room() -> Room {
    let mut room = Room::new(UserId::new("ana").unwrap(), None);
    let state = json!({"version": 1, "paused": false, "runs": [],
        "agents": [{"agent_id": "a1", "name": "Guide", "trigger": "mention"}]});
    take(
        &mut room,
        &json!({"type": "attached", "ref": "attach", "seq": 0, "epoch": 1, "history": "h1", "state": state}),
    );
    room
}

fn take(room: &mut Room, frame: &Value) -> Vec<Effect> {
    room.frame(&frame.to_string(), Timestamp::from_millis(1))
}

/// The next event, of the run `r1`.
fn happens(room: &mut Room, kind: &str, more: Value) -> Vec<Effect> {
    let mut event = json!({"type": "event", "seq": room.head() + 1, "at": 1, "kind": kind,
        "run_id": "r1", "attempt": 1, "agent_id": "a1", "trigger": "m1", "deadline": 9});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    take(room, &event)
}

fn asks(room: &mut Room, who: Value) -> Vec<Effect> {
    let more = json!({"approval_id": "p1", "call_id": "c1", "tool": "http_request",
        "arguments": "{}", "hash": "h", "who": who, "initiator": "ana", "expires_at": 9});
    happens(room, "approval.requested", more)
}

fn sent(effect: Option<Effect>) -> ClientFrame {
    match effect {
        Some(Effect::Send(mut frames)) => frames.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_tools_of_a_run_are_seen_while_it_uses_them_and_below_its_reply() {
    let mut room = room();
    happens(&mut room, "run.started", json!({}));
    let call = json!({"call_id": "c1", "tool": "search_history", "arguments": "{}"});
    happens(&mut room, "tool.started", call);
    assert_eq!(room.runs[0].uses(), Some("search_history"));
    happens(&mut room, "tool.finished", json!({"call_id": "c1", "status": "ok", "summary": "3"}));
    assert_eq!(room.runs[0].uses(), None);
    let reply = json!({"message_id": "m2", "author": {"kind": "agent", "id": "a1"}, "root": "m1",
        "hop": 1, "nth": 2, "text": "done"});
    happens(&mut room, "message.posted", reply);
    assert!(room.runs.is_empty());
    let used = room.used(&MessageId::new("m2").unwrap());
    assert_eq!((used[0].tool.as_str(), used[0].status), ("search_history", Some(ToolStatus::Ok)));
}

#[test]
fn what_an_agent_asks_for_is_decided_by_those_who_may() {
    let mut room = room();
    happens(&mut room, "run.started", json!({}));
    assert_eq!(room.decide(ApprovalDecision::Approve), None);
    asks(&mut room, json!({"kind": "n_of_m", "n": 1, "users": ["ben"]}));
    assert!(room.runs[0].waits);
    assert_eq!(room.decide(ApprovalDecision::Approve), None, "it is for Ben to decide");
    happens(&mut room, "approval.expired", json!({"approval_id": "p1"}));
    assert!(!room.runs[0].waits && room.runs[0].asks.is_empty());
    let said = asks(&mut room, json!({"kind": "initiator"}));
    assert!(
        matches!(&said[0], Effect::Say(said) if said.contains("/approve or /deny")),
        "{said:?}"
    );
    let frame = sent(room.decide(ApprovalDecision::Deny));
    let id = ApprovalId::new("p1").unwrap();
    assert!(
        matches!(&frame, ClientFrame::Approve { approval_id, decision: ApprovalDecision::Deny, .. } if *approval_id == id),
        "{frame:?}"
    );
    happens(
        &mut room,
        "approval.resolved",
        json!({"approval_id": "p1", "decision": "deny", "user_id": "ana"}),
    );
    assert!(room.runs[0].asks.is_empty());
}

#[test]
fn approvals_and_tools_are_there_after_an_attach() {
    let mut room = room();
    let asked = json!({"approval_id": "p1", "run_id": "r1", "agent_id": "a1", "call_id": "c2",
        "tool": "http_request", "arguments": "{}", "hash": "h", "who": {"kind": "n_of_m", "n": 2,
        "users": ["ana", "ben"]}, "initiator": "ben", "expires_at": 9, "votes": ["ben"]});
    let run = json!({"run_id": "r1", "agent_id": "a1", "trigger": "m1", "attempt": 1, "phase": "waiting",
        "tools": [{"call_id": "c1", "tool": "calculator", "arguments": "{}", "status": "ok"}]});
    let state =
        json!({"version": 1, "paused": false, "agents": [], "runs": [run], "approvals": [asked]});
    take(
        &mut room,
        &json!({"type": "attached", "ref": "attach", "seq": 0, "epoch": 1, "history": "h1", "state": state}),
    );
    let run = &room.runs[0];
    assert_eq!((run.waits, run.calls[0].tool.as_str()), (true, "calculator"));
    assert_eq!(run.asks[0].votes, [UserId::new("ben").unwrap()]);
}

#[test]
fn what_failed_is_tried_again_and_what_a_bound_stopped_goes_on_each_once() {
    let mut room = room();
    assert_eq!((room.retry(), room.let_continue()), (None, None));
    happens(&mut room, "run.started", json!({}));
    happens(&mut room, "run.finished", json!({"status": "failed", "code": "timeout"}));
    assert!(matches!(sent(room.retry()), ClientFrame::Retry { .. }));
    assert_eq!(room.retry(), None);
    let suppressed = |reason: &str| {
        json!({"message_id": "m1", "message_seq": 1, "candidates":
        [{"agent_id": "a1", "outcome": "suppressed", "reason": reason}]})
    };
    assert_eq!(happens(&mut room, "trigger.decided", suppressed("paused")), []);
    assert_eq!(room.let_continue(), None, "no person can help there");
    let said = happens(&mut room, "trigger.decided", suppressed("max_rounds"));
    assert!(matches!(&said[0], Effect::Say(said) if said.contains("/continue")), "{said:?}");
    assert!(matches!(sent(room.let_continue()), ClientFrame::Continue { .. }));
    assert_eq!(room.let_continue(), None);
}
