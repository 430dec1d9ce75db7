//! What a room records in the workspace: messages without a gap, mentions, marks.

use std::{sync::atomic::Ordering, time::Duration};

use convene_model::{
    AgentId, MessageId, RunId,
    event::{Candidate, Decision, EventKind, RunFinished, RunStatus, TriggerDecided, WakeReason},
};
use serde_json::json;

use super::{
    client::Client,
    world::{World, group_id},
};
use crate::rooms::{
    Mark,
    tuning::{MAX_KEPT_SAID, MAX_RECENT, MAX_UNANSWERED, Tuning},
};

fn mark(user: &str, up_to: u64, nth: u64) -> Mark {
    Mark { user: user.parse().unwrap(), up_to, nth }
}

async fn marks(world: &World, count: usize) -> Vec<Mark> {
    let all = |workspace: &super::world::Workspace| -> Vec<Mark> {
        workspace.records().into_iter().flat_map(|records| records.read).collect()
    };
    world.workspace.until("the marks", |workspace| all(workspace).len() >= count).await;
    all(&world.workspace)
}

fn trigger(run: &str) -> EventKind {
    EventKind::TriggerDecided(TriggerDecided {
        message_id: MessageId::new("m1").unwrap(),
        message_seq: 1,
        by: None,
        candidates: vec![Candidate {
            agent_id: AgentId::new("a1").unwrap(),
            decision: Decision::Accepted {
                reason: WakeReason::Mention,
                run_id: RunId::new(run).unwrap(),
            },
        }],
    })
}

fn finished(run: &str) -> EventKind {
    EventKind::RunFinished(RunFinished {
        run_id: RunId::new(run).unwrap(),
        attempt: 1,
        agent_id: AgentId::new("a1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        status: RunStatus::Completed,
        message_id: None,
        code: None,
        detail: None,
        usage: None,
        reservation: None,
    })
}

#[tokio::test]
async fn what_is_said_is_recorded_with_whom_it_mentions_and_what_may_name_somebody() {
    let world = World::new().await;
    let _client = world.attached("u1").await;
    world.group.say("plain");
    world.group.say_to("u2", "look");
    world.group.say("hello @bob");
    world.workspace.until("three messages", |w| w.recorded().last() == Some(&3)).await;
    let said: Vec<_> = world.workspace.records().into_iter().flat_map(|r| r.said).collect();
    assert_eq!(said.iter().map(|s| (s.seq, s.nth)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(said[1].mentions[0].as_str(), "u2");
    assert_eq!(said[0].text, "", "where nobody can be named the text is of no interest");
    assert_eq!(said[2].text, "hello @bob");
}

#[tokio::test]
async fn a_busy_group_costs_a_few_writes() {
    let tuning = Tuning { record_pause: Duration::from_millis(300), ..World::quick() };
    let world = World::tuned(tuning).await;
    let _client = world.attached("u1").await;
    for _ in 0..200 {
        world.group.say("x");
        tokio::task::yield_now().await;
    }
    world.workspace.until("all", |w| w.recorded().last() == Some(&200)).await;
    assert_eq!(world.workspace.recorded(), (1..=200).collect::<Vec<_>>());
    let writes = world.workspace.records().len();
    assert!(writes <= 8, "{writes} writes");
}

#[tokio::test]
async fn what_was_said_while_nobody_listened_is_read_again_and_nothing_else() {
    let world = World::new().await;
    world.post("u1", "m1", "first").await.unwrap();
    world.workspace.until("the first", |w| w.recorded() == [1]).await;
    world.group.refuse_connect(convene_model::Code::Unavailable);
    world.group.cut();
    for _ in 0..450 {
        world.group.say("unheard");
    }
    world.group.refuse_connect(None);
    let _client = world.attached("u1").await;
    world.group.say("heard");
    world.workspace.until("all", |w| w.recorded().last() == Some(&452)).await;
    assert_eq!(world.workspace.recorded(), (1..=452).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_another_process_has_recorded_is_not_read_again() {
    let world = World::new().await;
    for _ in 0..5 {
        world.group.say("elsewhere");
    }
    world.workspace.set_head("h1", 3, 3);
    let _client = world.attached("u1").await;
    world.workspace.until("the rest", |w| w.recorded() == [4, 5]).await;
    world.group.say("here");
    world.workspace.until("the next", |w| w.recorded() == [4, 5, 6]).await;
    assert!(world.workspace.records().iter().all(|records| !records.jump));
}

#[tokio::test]
async fn a_head_of_another_numbering_is_jumped_over() {
    let world = World::new().await;
    world.group.say("after a backup was adopted");
    world.workspace.set_head("before", 90, 70);
    let _client = world.attached("u1").await;
    world.workspace.until("the jump", |w| w.recorded() == [1]).await;
    assert!(world.workspace.records()[0].jump);
}

#[tokio::test]
async fn a_write_that_fails_is_made_up_for_from_the_history() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.workspace.refuses_records.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        world.group.say("x");
    }
    client.events(3).await;
    client.send(json!({"type": "read", "ref": "r", "up_to": 3})).await;
    let refused = client.frame().await;
    assert_eq!((&refused["ref"], &refused["code"]), (&json!("r"), &json!("unavailable")));
    world.workspace.refuses_records.store(false, Ordering::Relaxed);
    world.workspace.until("all", |w| w.recorded() == [1, 2, 3]).await;
}

#[tokio::test]
async fn more_than_is_kept_is_read_again() {
    let tuning = Tuning { record_pause: Duration::from_millis(400), ..World::quick() };
    let world = World::tuned(tuning).await;
    let mut client = world.attached("u1").await;
    world.group.say("first");
    world.workspace.until("the first", |w| w.recorded() == [1]).await;
    let many = MAX_KEPT_SAID as u64 + 10;
    let reads = world.group.history_reads();
    for _ in 0..many {
        world.group.say("x");
    }
    client.events(many as usize + 1).await;
    world.workspace.until("all", |w| w.recorded().last() == Some(&(many + 1))).await;
    assert_eq!(world.workspace.recorded(), (1..=many + 1).collect::<Vec<_>>());
    assert!(world.group.history_reads() > reads);
}

#[tokio::test]
async fn what_was_read_is_recorded_as_a_number_of_messages_and_never_reaches_the_group() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.say("one");
    world.group.event(trigger("r1"));
    world.group.say("two");
    client.events(3).await;
    for (up_to, r#ref) in [(2, "a"), (3, "b")] {
        client.send(json!({"type": "read", "ref": r#ref, "up_to": up_to})).await;
        assert_eq!(client.frame().await, json!({"type": "ok", "ref": r#ref}));
    }
    assert_eq!(marks(&world, 2).await, [mark("u1", 2, 1), mark("u1", 3, 2)]);
    assert!(world.group.heard().is_empty());
}

#[tokio::test]
async fn a_mark_that_the_room_cannot_place_is_looked_up_and_ends_at_the_groups_end() {
    let world = World::new().await;
    let count = MAX_RECENT as u64 + 5;
    for _ in 0..count {
        world.group.say("before");
    }
    let mut client = world.attached("u1").await;
    for (up_to, expected) in [(3, 3), (u64::MAX, count)] {
        client.send(json!({"type": "read", "ref": "r", "up_to": up_to})).await;
        assert_eq!(client.frame().await["type"], "ok");
        assert_eq!(marks(&world, 1).await.last(), Some(&mark("u1", expected, expected)));
    }
    let looked_up = world.rooms.look_up(&group_id(), &"u2".parse().unwrap(), 9).await.unwrap();
    assert_eq!(looked_up, Some(mark("u2", 9, 9)));
    let nobody = world.rooms.look_up(&group_id(), &"nobody".parse().unwrap(), 9).await.unwrap();
    assert_eq!(nobody, None);
}

#[tokio::test]
async fn many_marks_at_once_are_one_write_and_too_many_are_refused() {
    let tuning = Tuning { record_pause: Duration::from_millis(300), ..World::quick() };
    let world = World::tuned(tuning).await;
    let mut client = world.attached("u1").await;
    world.group.say("x");
    client.event().await;
    for number in 0..=MAX_UNANSWERED {
        client.send(json!({"type": "read", "ref": format!("r{number}"), "up_to": 1})).await;
    }
    let mut refused = 0;
    for _ in 0..=MAX_UNANSWERED {
        let answer = client.frame().await;
        refused += usize::from(answer["code"] == "overloaded");
    }
    assert!(refused <= 1, "{refused} were refused");
    assert!(marks(&world, 1).await.len() <= 4, "one mark in each write");
}

#[tokio::test]
async fn a_room_without_sockets_stays_until_the_reply_that_was_asked_for_is_recorded() {
    let tuning = Tuning { idle_after: Duration::from_millis(50), ..World::quick() };
    let world = World::tuned(tuning).await;
    world.post("u1", "m1", "@guide, please").await.unwrap();
    world.group.event(trigger("r1"));
    Client::settle().await;
    Client::settle().await;
    assert_eq!(world.group.upstreams(), 1);
    world.group.say("the reply");
    world.group.event(finished("r1"));
    world.workspace.until("the reply", |w| w.recorded() == [1, 2]).await;
    world.group.until("the end", |group| group.upstreams() == 0).await;
}
