//! When a room opens, how full it may be, and when it ends.

use std::{sync::atomic::Ordering, time::Duration};

use convene_model::{Code, Problem, frame::CLOSE_EGRESS};
use serde_json::{Value, json};

use super::{
    client::{Client, Seen},
    world::{World, group_id},
};
use crate::rooms::tuning::{TELL_PATIENCE, Tuning};

#[tokio::test]
async fn a_room_has_as_many_sockets_as_the_limit_says() {
    let world = World::tuned(Tuning { max_sockets: 2, ..World::quick() }).await;
    let first = world.attached("u1").await;
    let _second = world.attached("u2").await;
    assert_eq!(Client::connect(world.address, "u3").await.err(), Some(503));
    drop(first);
    world.group.until("the leave", |group| group.conns() == 1).await;
    let mut third = loop {
        // The place is given back just after the leave.
        if let Ok(client) = Client::connect(world.address, "u3").await {
            break client;
        }
    };
    assert_eq!(third.attach().await["type"], "attached");
}

#[tokio::test]
async fn a_room_without_sockets_gives_its_upstream_back_and_opens_it_again() {
    let tuning = Tuning { idle_after: Duration::from_millis(100), ..World::quick() };
    let world = World::tuned(tuning).await;
    let client = world.attached("u1").await;
    Client::settle().await;
    Client::settle().await;
    assert_eq!(world.group.upstreams(), 1, "it stays while somebody is there");
    drop(client);
    world.group.until("the end", |group| group.upstreams() == 0).await;
    assert_eq!(world.rooms.0.open_rooms(), 0);
    let mut again = world.attached("u1").await;
    world.post("u2", "m1", "x").await.unwrap();
    assert_eq!(again.event().await, 1);
    assert_eq!(world.group.counts().connects, 2);
}

#[tokio::test]
async fn a_group_that_fell_asleep_is_left_alone_until_somebody_wants_it() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    client.send(json!({"type": "detach", "ref": "d"})).await;
    world.group.until("the detach", |group| group.conns() == 0).await;
    world.group.fall_asleep();
    Client::settle().await;
    assert_eq!((world.group.upstreams(), world.group.counts().connects), (0, 1));
    while client.frame().await["type"] != "detached" {}
    assert_eq!(client.attach().await["type"], "attached");
    assert_eq!(world.group.counts().connects, 2);

    // One that fell asleep just as somebody came wakes at once.
    world.group.fall_asleep();
    world.group.until("the attach", |group| group.conns() == 1).await;
    world.post("u2", "m1", "x").await.unwrap();
    assert_eq!(client.event().await, 1);
}

#[tokio::test]
async fn a_shutdown_closes_sockets_with_1001_and_opens_nothing_more() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.rooms.shutdown().await;
    assert_eq!(client.seen().await, Seen::Closed(1001));
    world.group.until("the end", |group| group.upstreams() == 0).await;
    assert_eq!(Client::connect(world.address, "u1").await.err(), Some(503));
    assert_eq!(world.post("u1", "m1", "x").await.unwrap_err().code.as_str(), "unavailable");
}

#[tokio::test]
async fn a_client_that_closes_gets_its_close_answered_and_leaves_the_group() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let code = tokio_websockets::CloseCode::NORMAL_CLOSURE;
    client.send_raw(tokio_websockets::Message::close(Some(code), "")).await;
    assert_eq!(client.seen().await, Seen::Closed(1000));
    world.group.until("the detach", |group| group.conns() == 0).await;
    assert_eq!(world.group.counts().detaches, 1);
}

#[tokio::test]
async fn a_changed_configuration_is_known_to_the_group_when_the_change_is_answered() {
    let world = World::new().await;
    world.rooms.reconfigure(&group_id()).await.unwrap();
    assert_eq!(world.group.counts().activations, 0, "it activates nothing");
    let mut client = world.attached("u1").await;
    let version = || world.group.config().map(|config| config.version);
    for next in 9..20 {
        world.workspace.version.store(next, Ordering::Relaxed);
        world.rooms.reconfigure(&group_id()).await.unwrap();
        assert_eq!(version(), Some(next));
    }
    // Whoever does not wait for it has told it all the same.
    world.workspace.version.store(20, Ordering::Relaxed);
    drop(world.rooms.reconfigure(&group_id()));
    world.group.until("the configuration", |_| version() == Some(20)).await;
    client.send(json!({"type": "cancel", "ref": "c", "run_id": "r1"})).await;
    assert_eq!(client.frame().await["code"], "run_not_found");
}

#[tokio::test]
async fn a_group_that_does_not_take_a_change_is_told_again_and_the_change_says_so() {
    for tell_patience in [Duration::ZERO, TELL_PATIENCE] {
        let world = World::tuned(Tuning { tell_patience, ..World::quick() }).await;
        let _client = world.attached("u1").await;
        world.workspace.version.store(9, Ordering::Relaxed);
        world.group.refuse_configurations(Some(Code::GroupControllerUnavailable));
        let refused = world.rooms.reconfigure(&group_id()).await.unwrap_err();
        assert_eq!(refused.code, Code::GroupControllerUnavailable);
        world.group.refuse_configurations(None);
        let version = |group: &super::group::FakeGroup| group.config().map(|config| config.version);
        world.group.until("the configuration", |group| version(group) == Some(9)).await;
    }

    let world = World::new().await;
    let _client = world.attached("u1").await;
    // A configuration that the group does not take is nobody's to repeat.
    world.group.refuse_configurations(Some(Code::ValidationFailed));
    let refused = world.rooms.reconfigure(&group_id()).await.unwrap_err();
    assert_eq!(refused.code, Code::ValidationFailed);
    for away in [Code::GroupArchived, Code::GroupDeleted, Code::OrgBlocked] {
        world.group.refuse_configurations(Some(away));
        world.rooms.reconfigure(&group_id()).await.unwrap();
    }
}

#[tokio::test]
async fn the_figures_follow_what_is_open_waits_and_is_refused() {
    let world = World::tuned(Tuning { max_waiting: 1, ..World::quick() }).await;
    assert_eq!(world.rooms.figures(), crate::rooms::Figures::default());
    let client = world.attached("u1").await;
    let figures = world.rooms.figures();
    assert_eq!((figures.sockets, figures.rooms, figures.upstreams), (1, 1, 1));
    world.group.hold_answers(true);
    let waiting = world.post("u1", "m1", "x");
    let looking = async {
        world.group.until("the post", |group| group.head() == 1).await;
        assert_eq!(world.rooms.figures().waiting_commands, 1);
        world.post("u1", "m2", "x").await.unwrap_err();
        assert_eq!(world.rooms.figures().refused_as_overloaded, 1);
        world.group.hold_answers(false);
        world.group.cut();
    };
    let (posted, ()) = tokio::join!(waiting, looking);
    posted.unwrap();
    assert_eq!(world.rooms.figures().waiting_commands, 0);
    drop(client);
    world.group.until("the leave", |group| group.conns() == 0).await;
    assert_eq!(world.rooms.figures().backlog_bytes, 0);
}

#[tokio::test]
async fn a_group_that_has_sent_as_much_as_it_may_is_refused_with_the_time_that_it_opens_at() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    let opens = world.rooms.0.now().millis() + 3_600_000;
    let problem = Problem::new(Code::EgressExhausted).with("resets_at", opens);
    world.group.refuse_connect_with(problem.clone());
    world.group.close(CLOSE_EGRESS);
    let is_told = |frame: &Value| {
        let left = frame["retry_after_ms"].as_u64().unwrap();
        assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!("egress_exhausted")));
        assert!((3_500_000..=3_600_000).contains(&left), "{frame}");
    };
    is_told(&error(&mut client).await);
    assert_eq!(client.seen().await, Seen::Closed(1013));

    // Who comes meanwhile is told the same, and may stay to ask again.
    let mut client = Client::connect(world.address, "u1").await.unwrap();
    is_told(&client.attach().await);
    let refused = world.post("u2", "m1", "x").await.unwrap_err();
    assert_eq!((refused.code, &refused.extra["resets_at"]), (Code::EgressExhausted, &json!(opens)));
    world.group.refuse_connect(None);
    assert_eq!(client.attach().await["type"], "attached");
}

#[tokio::test]
async fn who_is_in_a_group_whose_organization_is_blocked_is_told_so() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.refuse_activation(Code::OrgBlocked);
    world.group.cut();
    assert_eq!(error(&mut client).await["code"], "org_blocked");
    assert_eq!(client.seen().await, Seen::Closed(1008));
    let mut client = Client::connect(world.address, "u1").await.unwrap();
    assert_eq!(client.attach().await["code"], "org_blocked");
}

/// The next error that answers nothing.
async fn error(client: &mut Client) -> Value {
    loop {
        let frame = client.frame().await;
        if frame["type"] == "error" {
            assert!(frame["ref"].is_null(), "{frame}");
            return frame;
        }
    }
}
