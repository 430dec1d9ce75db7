//! A lost upstream is a pause for clients, and nothing else.

use convene_model::{Code, Role};
use serde_json::json;

use super::{
    client::{Client, Seen},
    world::World,
};

#[tokio::test]
async fn clients_see_each_event_once_although_the_upstream_is_lost_again_and_again() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for user in ["u1", "u2", "u3"] {
        clients.push(world.attached(user).await);
    }
    for round in 0..8 {
        world.group.say("while it is up");
        if round % 2 == 0 {
            Client::settle().await;
        }
        world.group.cut();
        world.group.say("while it is down");
        let attaches = 3 * (round + 2);
        world.group.until("the return", |group| group.conns() == 3).await;
        assert!(world.group.counts().attaches >= attaches);
    }
    let head = world.group.head();
    for client in &mut clients {
        assert_eq!(client.events(head as usize).await, (1..=head).collect::<Vec<_>>());
        client.nothing_more().await;
    }
}

#[tokio::test]
async fn what_is_broadcast_while_others_come_back_is_heard_once() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for user in ["u1", "u2", "u3", "u4"] {
        clients.push(world.attached(user).await);
    }
    world.group.busy();
    world.group.cut();
    world.group.until("the return", |group| group.conns() == 4).await;
    let head = world.group.say("the last");
    assert_eq!(head, 9, "two around each attach, and the last");
    for client in &mut clients {
        assert_eq!(client.events(9).await, (1..=9).collect::<Vec<_>>());
        client.nothing_more().await;
    }
}

#[tokio::test]
async fn a_loss_in_the_middle_of_a_replay_goes_on_where_it_was() {
    let world = World::new().await;
    let mut keeper = world.attached("u9").await;
    for _ in 0..50 {
        world.group.say("old");
    }
    keeper.events(50).await;
    for (seen, sent) in [(0, 0), (0, 1), (10, 17), (0, 49), (49, 1)] {
        let mut client = world.client("u1").await;
        world.group.cut_replay_after(sent);
        assert_eq!(client.attach_with(json!({"after": seen})).await["type"], "attached");
        let missed = 50 - seen;
        assert_eq!(client.events(missed).await, (seen as u64 + 1..=50).collect::<Vec<_>>());
        client.nothing_more().await;
        drop(client);
        world.group.until("the keeper alone", |group| group.conns() == 1).await;
    }
    keeper.nothing_more().await;
}

#[tokio::test]
async fn commands_without_an_answer_are_given_back_and_can_be_repeated() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.hold_answers(true);
    client.post("m1", "once").await;
    assert_eq!(client.event().await, 1);
    world.group.cut();
    let error = client.frame().await;
    assert_eq!((&error["ref"], &error["code"]), (&json!("ref-m1"), &json!("unavailable")));
    assert!(error["retry_after_ms"].is_u64());
    world.group.hold_answers(false);
    client.post("m1", "once").await;
    let ok = client.frame().await;
    assert_eq!((&ok["type"], &ok["seq"]), (&json!("ok"), &json!(1)), "the first number, once");
    assert_eq!(world.group.head(), 1);
}

#[tokio::test]
async fn a_group_that_stays_away_is_tried_again_and_clients_stay_connected() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.refuse_connect(Code::GroupControllerUnavailable);
    world.group.cut();
    world.group.until("three attempts", |group| group.counts().connects >= 4).await;
    world.group.say("missed");
    let mut other = world.client("u2").await;
    assert_eq!(other.attach().await["code"], "group_controller_unavailable");
    world.group.refuse_connect(None);
    assert_eq!(client.event().await, 1);
    assert_eq!(other.attach().await["type"], "attached");
}

#[tokio::test]
async fn a_group_that_is_gone_for_good_closes_its_sockets_with_the_reason() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.refuse_activation(Code::GroupDeleted);
    world.group.cut();
    assert_eq!(client.frame().await["code"], "group_deleted");
    assert_eq!(client.seen().await, Seen::Closed(1008));
}

#[tokio::test]
async fn a_client_that_missed_too_much_is_sent_to_begin_anew() {
    let world = World::new().await;
    let mut client = world.attached("u1").await;
    world.group.say("seen");
    assert_eq!(client.event().await, 1);
    world.group.forget_before(2);
    world.group.cut();
    assert_eq!(client.seen().await, Seen::Closed(1012));
    let mut again = world.client("u1").await;
    assert_eq!(again.attach_with(json!({"after": 1})).await["code"], "too_old");
}

#[tokio::test]
async fn a_user_who_lost_access_meanwhile_does_not_come_back() {
    let world = World::new().await;
    let (mut gone, mut stays) = (world.attached("u1").await, world.attached("u2").await);
    world.workspace.set_role("u1", None);
    world.rooms.0.withdraw_token(&super::world::group_id(), &"u1".parse().unwrap());
    world.group.cut();
    assert_eq!(gone.frame().await["reason"], "revoked");
    assert_eq!(gone.seen().await, Seen::Closed(4003));
    world.group.until("the return", |group| group.conns() == 1).await;
    world.group.say("on");
    assert_eq!(stays.event().await, 1);
    world.workspace.set_role("u1", Role::Member);
}

#[tokio::test]
async fn an_attach_under_way_at_the_loss_is_answered_once() {
    let world = World::new().await;
    world.group.refuse_connect(Code::Unavailable);
    let mut client = world.attached_later("u1").await;
    world.group.refuse_connect(None);
    assert_eq!(client.attach().await["type"], "attached");
    client.send(json!({"type": "attach", "ref": "b", "after": 0})).await;
    world.group.cut();
    assert_eq!(client.frame().await["ref"], "b");
    world.group.until("the return", |group| group.conns() == 1).await;
    client.nothing_more().await;
}

impl World {
    async fn attached_later(&self, user: &str) -> Client {
        let mut client = self.client(user).await;
        assert_eq!(client.attach().await["code"], "unavailable");
        client
    }
}
