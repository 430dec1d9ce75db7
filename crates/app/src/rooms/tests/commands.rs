//! What is done to messages: over sockets and over HTTP.

use std::time::Duration;

use convene_model::{
    Code, MessageId, UserId,
    event::ApprovalDecision,
    frame::{DetachReason, GroupFrame},
    history::SearchRequest,
    limits::TYPING_PAUSE,
};
use serde_json::json;

use super::world::{World, group_id};
use crate::rooms::{GroupCommand, WithHtml};

fn message(text: &str) -> MessageId {
    id(text)
}

fn id<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap()
}

#[tokio::test]
async fn edits_deletions_reactions_and_pins_pass_to_the_group_and_their_answers_come_back() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.post("m1", "x").await;
    assert_eq!(client.event().await, 1);
    assert_eq!(client.frame().await["type"], "ok");
    let frames = [
        json!({"type": "edit", "message_id": "m1", "text": "y"}),
        json!({"type": "react", "message_id": "m1", "emoji": "👍", "on": true}),
        json!({"type": "pin", "message_id": "m1", "on": true}),
        json!({"type": "approve", "approval_id": "ap1", "decision": "approve"}),
        json!({"type": "continue", "message_id": "m1", "agent_id": "a1"}),
        json!({"type": "retry", "run_id": "r1-0"}),
        json!({"type": "delete", "message_id": "m1"}),
    ];
    for (number, frame) in frames.iter().enumerate() {
        let mut frame = frame.clone();
        frame["ref"] = format!("r{number}").into();
        client.send(frame).await;
        let answer = client.frame().await;
        assert_eq!((&answer["type"], &answer["ref"]), (&json!("ok"), &json!(format!("r{number}"))));
    }
    assert_eq!(world.group.heard(), frames);
    client.send(json!({"type": "delete", "ref": "r", "message_id": "none"})).await;
    assert_eq!(client.frame().await["code"], "message_not_found");
}

#[tokio::test]
async fn the_same_commands_go_over_http_without_a_socket() {
    let world = World::new().await;
    world.post("u1", "m1", "x").await.unwrap();
    for (command, frame) in [
        (
            GroupCommand::Edit { message_id: message("m1"), text: "y".into() },
            json!({"type": "edit", "message_id": "m1", "text": "y"}),
        ),
        (
            GroupCommand::React { message_id: message("m1"), emoji: "👍".into(), on: false },
            json!({"type": "react", "message_id": "m1", "emoji": "👍", "on": false}),
        ),
        (
            GroupCommand::Pin { message_id: message("m1"), on: true },
            json!({"type": "pin", "message_id": "m1", "on": true}),
        ),
        (
            GroupCommand::Delete { message_id: message("m1") },
            json!({"type": "delete", "message_id": "m1"}),
        ),
    ] {
        let carried = world.command("u1", command).await.unwrap();
        assert_eq!((carried.seq, carried.message_id), (None, Some(message("m1"))));
        assert_eq!(world.group.heard().last(), Some(&frame));
    }
    for (command, frame) in [
        (
            GroupCommand::Approve { approval_id: id("ap1"), decision: ApprovalDecision::Deny },
            json!({"type": "approve", "approval_id": "ap1", "decision": "deny"}),
        ),
        (GroupCommand::Retry { run_id: id("r1-0") }, json!({"type": "retry", "run_id": "r1-0"})),
        (
            GroupCommand::Continue { message_id: message("m1"), agent_id: id("a1") },
            json!({"type": "continue", "message_id": "m1", "agent_id": "a1"}),
        ),
    ] {
        let about = command.message_id().cloned();
        let carried = world.command("u1", command).await.unwrap();
        assert_eq!((carried.seq, carried.message_id), (None, about));
        assert_eq!(world.group.heard().last(), Some(&frame));
    }
    let stop = GroupCommand::Cancel { run_id: id("r1-0") };
    assert_eq!(world.command("u1", stop).await.unwrap_err().code, Code::RunNotFound);
    let gone = GroupCommand::Delete { message_id: message("none") };
    let refused = world.command("u1", gone.clone()).await.unwrap_err();
    assert_eq!(refused.code, Code::MessageNotFound);
    assert_eq!(world.command("nobody", gone).await.unwrap_err().code, Code::Forbidden);
    world.group.until("the detaches", |group| group.conns() == 0).await;
}

#[tokio::test]
async fn a_command_whose_user_is_detached_meanwhile_is_asked_again() {
    let world = World::new().await;
    let _stays = world.attached("u2").await;
    world.group.hold_answers(true);
    let posting = world.post("u1", "m1", "x");
    let detaching = async {
        world.group.until("the post", |group| group.head() == 1).await;
        world.group.hold_answers(false);
        let (reason, user_id) = (DetachReason::Revoked, Some("u1".parse().unwrap()));
        world.group.broadcast(&GroupFrame::Detached { reason, user_id });
    };
    let (posted, ()) = tokio::join!(posting, detaching);
    assert_eq!(posted.unwrap().seq, Some(1));
    assert_eq!(world.group.head(), 1, "it is there once");
    world.group.hold_answers(true);
    let posting = world.post("u1", "m2", "x");
    let removing = async {
        world.group.until("the post", |group| group.head() == 2).await;
        world.workspace.set_role("u1", None);
        let (reason, user_id) = (DetachReason::Revoked, Some("u1".parse().unwrap()));
        world.group.broadcast(&GroupFrame::Detached { reason, user_id });
    };
    let (posted, ()) = tokio::join!(posting, removing);
    assert_eq!(posted.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn typing_passes_once_in_a_while_and_only_from_who_is_attached() {
    let world = World::new().await;
    let mut client = world.client("u1").await;
    client.send(json!({"type": "typing"})).await;
    client.attach().await;
    for _ in 0..3 {
        client.send(json!({"type": "typing"})).await;
    }
    client.post("m1", "x").await;
    assert_eq!(client.event().await, 1);
    assert_eq!(client.frame().await["ref"], "ref-m1");
    assert_eq!(world.group.heard(), [json!({"type": "typing"})]);
    world.advance(TYPING_PAUSE - Duration::from_millis(1));
    client.send(json!({"type": "typing"})).await;
    client.nothing_more().await;
    world.advance(Duration::from_millis(1));
    client.send(json!({"type": "typing"})).await;
    world.group.until("it is said again", |group| group.heard().len() == 2).await;
}

#[tokio::test]
async fn a_message_and_a_search_are_read_through_the_chain_and_rendered_when_asked() {
    let world = World::new().await;
    let user = || UserId::new("u1").unwrap();
    let shout = |text: &str| text.to_uppercase();
    let ask = SearchRequest { query: "now".into(), before: None, author: None, limit: None };
    let none = world.rooms.search(group_id(), user(), ask.clone()).await.unwrap();
    assert!(none.hits.is_empty(), "a group that was never activated has nothing to find");
    let none = world.rooms.message(group_id(), user(), message("m1")).await.unwrap_err();
    assert_eq!(none.code, Code::MessageNotFound);
    world.post("u1", "m1", "x").await.unwrap();
    let detail = world.rooms.message(group_id(), user(), message("m1")).await.unwrap();
    assert_eq!(
        serde_json::to_value(detail.with_html(shout)).unwrap(),
        json!({
            "message": {"seq": 1, "message_id": "m1", "text": "now", "html": "NOW"},
            "revisions": [{"seq": 1, "at": 1, "text": "before", "html": "BEFORE"}],
        })
    );
    let found = world.rooms.search(group_id(), user(), ask.clone()).await.unwrap();
    assert_eq!(
        serde_json::to_value(found.with_html(shout)).unwrap(),
        json!({
            "hits": [{
                "message": {"seq": 1, "text": "now", "html": "NOW"},
                "snippet": [{"text": "now", "hit": true}],
            }],
            "more": false,
        })
    );
    let nobody = UserId::new("nobody").unwrap();
    let refused = world.rooms.search(group_id(), nobody, ask).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
}
