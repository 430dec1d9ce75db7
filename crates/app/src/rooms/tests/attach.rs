//! How a client gets into the group's stream and stays there.

use std::{sync::atomic::Ordering, time::Duration};

use convene_model::{
    Code, Role, UserId,
    frame::{DetachReason, GroupFrame},
    history::HistoryQuery,
    infra::GroupStatus,
};
use serde_json::json;

use super::{
    client::{Client, Seen},
    world::{Workspace, World, group_id},
};
use crate::rooms::tuning::{MAX_QUEUED_FRAMES, MAX_REVOKED_TRIES, RENEW_BEFORE};

#[tokio::test]
async fn the_first_attach_activates_and_configures_the_group_and_an_open_socket_does_not() {
    let world = World::new().await;
    world.workspace.version.store(7, Ordering::Relaxed);
    let mut client = world.client("u1").await;
    Client::settle().await;
    assert_eq!(world.group.counts().activations, 0);
    let attached = client.attach().await;
    assert_eq!(attached["type"], "attached");
    assert_eq!(world.workspace.activations.load(Ordering::Relaxed), 1);
    assert_eq!(world.group.config().unwrap().version, 7);
}

#[tokio::test]
async fn everything_but_an_attach_is_refused_before_the_attach() {
    let world = World::new().await;
    let mut client = world.client("u1").await;
    client.post("m1", "too early").await;
    let error = client.frame().await;
    assert_eq!((&error["ref"], &error["code"]), (&json!("ref-m1"), &json!("not_attached")));
    client.send(json!({"type": "detach", "ref": "d"})).await;
    assert_eq!(client.frame().await["code"], "not_attached");
    assert_eq!(world.group.counts().activations, 0);
}

#[tokio::test]
async fn what_follows_an_attach_at_once_waits_for_it() {
    let world = World::new().await;
    let mut client = world.client("u1").await;
    client.send(json!({"type": "attach", "ref": "a"})).await;
    client.post("m1", "right behind").await;
    assert_eq!(client.frame().await["type"], "attached");
    assert_eq!(client.event().await, 1);
    assert_eq!(client.frame().await["ref"], "ref-m1");
}

#[tokio::test]
async fn as_many_frames_wait_for_an_attach_as_the_limit_says() {
    for (count, refused) in [(MAX_QUEUED_FRAMES, false), (MAX_QUEUED_FRAMES + 1, true)] {
        let world = World::new().await;
        let mut first = world.attached("u1").await;
        world.group.refuse_connect(Code::Unavailable);
        world.group.cut();
        world.group.until("the loss", |group| group.counts().connects > 1).await;
        for number in 0..count {
            first.post(&format!("m{number}"), "x").await;
        }
        first.nothing_more_but_overload(refused).await;
        world.group.refuse_connect(None);
        let mut answered = 0;
        while answered < MAX_QUEUED_FRAMES {
            answered += usize::from(first.frame().await["type"] == "ok");
        }
    }
}

#[tokio::test]
async fn a_group_that_cannot_be_activated_says_so_to_the_attach() {
    let world = World::new().await;
    world.group.refuse_activation(Code::ActiveGroupLimitExceeded);
    let mut client = world.client("u1").await;
    client.send(json!({"type": "attach", "ref": "a"})).await;
    client.post("m1", "behind it").await;
    let error = client.frame().await;
    assert_eq!(
        (&error["ref"], &error["code"]),
        (&json!("a"), &json!("active_group_limit_exceeded"))
    );
    assert_eq!(client.frame().await["code"], "not_attached");
    world.group.refuse_activation(None);
    assert_eq!(client.attach().await["type"], "attached");
}

#[tokio::test]
async fn a_client_that_is_ahead_or_of_another_numbering_is_told_to_begin_anew() {
    let world = World::new().await;
    let mut client = world.client("u1").await;
    assert_eq!(client.attach_with(json!({"after": 5})).await["type"], "reset");
    let other = client.attach_with(json!({"after": 0, "history": "other"})).await;
    assert_eq!((&other["type"], &other["history"]), (&json!("reset"), &json!("h1")));
    let first_page = json!({"after": 0, "history": "none"});
    assert_eq!(client.attach_with(first_page).await["type"], "attached");
}

#[tokio::test]
async fn a_connection_is_renewed_before_its_token_expires_and_the_client_notices_nothing() {
    let world = World::new().await;
    world.group.running("so far");
    let mut client = world.attached("u1").await;
    assert_eq!(client.frame().await["text"], "so far");
    world.advance(Duration::from_secs(300) - RENEW_BEFORE - Duration::from_secs(1));
    Client::settle().await;
    assert_eq!(world.group.counts().attaches, 1, "not before it is due");
    world.advance(Duration::from_secs(1));
    world.group.until("the renewal", |group| group.counts().attaches == 2).await;
    assert_eq!(world.group.counts().tokens, 2, "with a token of its own");
    world.group.say("go on");
    assert_eq!(client.event().await, 1);
    client.nothing_more().await;
}

#[tokio::test]
async fn a_user_without_a_role_is_not_renewed_but_dropped() {
    let world = World::new().await;
    let (mut gone, mut stays) = (world.attached("u1").await, world.attached("u2").await);
    world.workspace.set_role("u1", None);
    world.advance(Duration::from_secs(300) - RENEW_BEFORE);
    assert_eq!(gone.frame().await, json!({"type": "detached", "reason": "revoked"}));
    assert_eq!(gone.seen().await, Seen::Closed(4003));
    world.group.until("the detach", |group| group.conns() == 1).await;
    world.group.say("on");
    assert_eq!(stays.event().await, 1);
    let mut again = world.client("u1").await;
    assert_eq!(again.attach().await["code"], "forbidden");
    assert_eq!(again.frame().await["type"], "detached");
    assert_eq!(again.seen().await, Seen::Closed(4003));
}

#[tokio::test]
async fn an_attach_that_is_refused_for_its_token_is_tried_again_with_a_new_one() {
    let world = World::new().await;
    for (code, tries) in
        [(Code::AccessRevoked, MAX_REVOKED_TRIES), (Code::StaleEpoch, 1), (Code::TokenExpired, 1)]
    {
        world.group.refuse_attaches(&vec![code; tries as usize]);
        let before = world.group.counts().tokens;
        assert_eq!(world.attached("u1").await.attach().await["type"], "attached");
        assert!(world.group.counts().tokens > before, "{code:?} asks for a new token");
        world.group.refuse_attaches(&vec![code; tries as usize + 1]);
        let mut client = world.client("u1").await;
        assert_eq!(client.attach().await["code"], code.as_str());
        assert_eq!(client.attach().await["type"], "attached");
    }
}

#[tokio::test]
async fn a_connection_that_fell_out_comes_back_without_a_gap() {
    let world = World::new().await;
    for reason in [DetachReason::TokenExpired, DetachReason::EpochRaised] {
        let mut client = world.attached("u1").await;
        let head = world.group.say("before");
        assert_eq!(client.event().await, head);
        world.group.detach("u1", reason);
        world.group.say("between");
        world.group.until("the return", |group| group.conns() == 1).await;
        world.group.say("after");
        assert_eq!(client.events(2).await, [head + 1, head + 2]);
        client.nothing_more().await;
        drop(client);
        world.group.until("the leave", |group| group.conns() == 0).await;
    }
}

#[tokio::test]
async fn an_archived_group_is_left_until_the_client_asks_for_it_again() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let attaches = world.group.counts().attaches;
    world.group.detach("u1", DetachReason::GroupArchived);
    let told = client.frame().await;
    assert_eq!((&told["type"], &told["reason"]), (&"detached".into(), &"group_archived".into()));
    world.group.refuse_attaches(&[Code::GroupArchived]);
    client.nothing_more().await;
    assert_eq!(world.group.counts().attaches, attaches, "nobody brings it back");
    let heard =
        |workspace: &Workspace| workspace.stood.lock().as_slice() == [GroupStatus::Archiving];
    world.workspace.until("the freeze", heard).await;
    assert_eq!(client.attach().await["code"], "group_archived");
    assert_eq!(client.attach().await["type"], "attached", "it was restored");
}

#[tokio::test]
async fn who_cannot_be_brought_back_to_an_archived_group_is_told_and_stays() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.refuse_attaches(&[Code::GroupArchived]);
    world.group.detach("u1", DetachReason::EpochRaised);
    let told = client.frame().await;
    assert_eq!((&told["type"], &told["reason"]), (&"detached".into(), &"group_archived".into()));
    client.nothing_more().await;
    assert_eq!(client.attach().await["type"], "attached");
}

#[tokio::test]
async fn a_reader_is_let_in_where_the_controller_has_not_heard_of_the_epoch() {
    let world = World::new().await;
    drop(world.attached("u1").await);
    world.post("u1", "m1", "x").await.unwrap();
    let read = async || {
        let user = UserId::new("u1").unwrap();
        world.rooms.history(group_id(), user, HistoryQuery::default()).await
    };
    assert_eq!(read().await.unwrap().messages.len(), 1);
    let activations = world.group.counts().activations;
    world.group.raise_epoch_unheard(2);
    assert_eq!(read().await.unwrap().messages.len(), 1);
    assert_eq!(world.group.counts().activations, activations + 1, "which tells it");
}

#[tokio::test]
async fn a_raised_epoch_brings_everybody_back_with_new_tokens() {
    let world = World::new().await;
    let (mut ada, mut ben) = (world.attached("u1").await, world.attached("u2").await);
    let tokens = world.group.counts().tokens;
    let (reason, user_id) = (DetachReason::EpochRaised, None);
    world.group.broadcast(&GroupFrame::Detached { reason, user_id });
    world.group.until("the return", |group| group.counts().attaches == 4).await;
    assert_eq!(world.group.counts().tokens, tokens + 2);
    world.group.say("on");
    assert_eq!((ada.event().await, ben.event().await), (1, 1));
}

#[tokio::test]
async fn the_role_of_the_moment_stands_in_the_token() {
    let world = World::new().await;
    world.workspace.set_role("u1", Role::Admin);
    world.attached("u1").await;
    assert!(world.group.roles().contains("admin"));
}

impl Client {
    async fn nothing_more_but_overload(&mut self, overloaded: bool) {
        if overloaded {
            assert_eq!(self.frame().await["code"], "overloaded");
        }
        self.nothing_more().await;
    }
}
