//! Why an agent of an archived group answered, from the events in its snapshot.

use convene_archive::why;
use convene_model::{
    AgentId, CallId, MessageId, RunId, Timestamp,
    event::{
        Candidate, Decision, EventKind, GroupAgent, GroupConfig, RunFinished, RunStarted,
        RunStatus, ToolFinished, ToolStarted, TriggerDecided, TriggerPolicy, WakeReason,
    },
    tools::ToolStatus,
    why::{Outcome, Reason, WhyStatus},
};

use crate::sample::{Sample, at_of, block_on, message, small_members, store};

fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

fn configured() -> EventKind {
    let agents = [("ag1", "Ada"), ("ag2", "Ben")].map(|(id, name)| GroupAgent {
        agent_id: agent(id),
        name: name.into(),
        trigger: TriggerPolicy::Mention,
        outside: false,
    });
    EventKind::GroupConfigured(GroupConfig { agents: agents.into(), ..GroupConfig::default() })
}

/// A message that wakes Ada, much talk beside it, and what Ada did.
fn story() -> Vec<EventKind> {
    let run_id = RunId::new("r2-0").unwrap();
    let accepted = Decision::Accepted { reason: WakeReason::Mention, run_id: run_id.clone() };
    let mut events = vec![configured(), EventKind::MessagePosted(message(2, "@Ada?", None).posted)];
    events.push(EventKind::TriggerDecided(TriggerDecided {
        message_id: MessageId::new("m2").unwrap(),
        message_seq: 2,
        candidates: vec![Candidate { agent_id: agent("ag1"), decision: accepted }],
        by: None,
    }));
    let talk = |events: &mut Vec<EventKind>| {
        for _ in 0..30 {
            let seq = events.len() as u64 + 1;
            events.push(EventKind::MessagePosted(message(seq, "on and on", None).posted));
        }
    };
    talk(&mut events);
    events.push(EventKind::RunStarted(RunStarted {
        run_id: run_id.clone(),
        attempt: 1,
        agent_id: agent("ag1"),
        trigger: MessageId::new("m2").unwrap(),
        deadline: Timestamp::from_secs(9),
        reservation: None,
    }));
    let call_id = CallId::new("c1").unwrap();
    events.push(EventKind::ToolStarted(ToolStarted {
        run_id: run_id.clone(),
        attempt: 1,
        call_id: call_id.clone(),
        tool: "clock".into(),
        arguments: "{}".into(),
    }));
    talk(&mut events);
    events.push(EventKind::ToolFinished(ToolFinished {
        run_id: run_id.clone(),
        attempt: 1,
        call_id,
        status: ToolStatus::Ok,
        summary: "noon".into(),
    }));
    events.push(EventKind::RunFinished(RunFinished {
        run_id,
        attempt: 1,
        agent_id: agent("ag1"),
        trigger: MessageId::new("m2").unwrap(),
        status: RunStatus::Failed,
        message_id: None,
        code: Some("timeout".into()),
        detail: None,
        usage: None,
        reservation: None,
    }));
    events
}

#[test]
fn the_events_of_a_snapshot_say_why_an_agent_answered_and_what_it_did() {
    let store = store();
    let sample = Sample::of_events(story());
    let manifest = block_on(sample.write(&store, small_members())).unwrap();
    assert!(manifest.index.len() > 3, "several members are read");
    let id = MessageId::new("m2").unwrap();
    let why = block_on(why(store, &manifest, &id)).unwrap().unwrap();
    let [ada, ben] = &why.agents[..] else { panic!("{why:?}") };
    assert_eq!((ada.name.as_str(), ada.outcome), ("Ada", Outcome::Accepted));
    assert_eq!(ada.reason, Some(Reason::Woken(WakeReason::Mention)));
    assert_eq!((ben.name.as_str(), ben.outcome), ("Ben", Outcome::NotMentioned));
    let run = ada.run.as_ref().unwrap();
    assert_eq!((run.status, run.code.as_deref()), (WhyStatus::Failed, Some("timeout")));
    assert_eq!(run.finished_at, Some(at_of(sample.frozen.last_seq)));
    let [call] = &run.tools[..] else { panic!("{run:?}") };
    assert_eq!((call.tool.as_str(), call.summary.as_deref()), ("clock", Some("noon")));
}

#[test]
fn a_message_that_a_snapshot_does_not_have_is_not_explained() {
    let store = store();
    let manifest = block_on(Sample::of_events(story()).write(&store, small_members())).unwrap();
    let id = MessageId::new("other").unwrap();
    assert_eq!(block_on(why(store, &manifest, &id)).unwrap(), None);
}
