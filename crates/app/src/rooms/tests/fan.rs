//! What one says all hear, in order, each in the encoding asked for.

use serde_json::json;

use super::{client::Client, world::World};

#[tokio::test]
async fn a_post_is_acknowledged_and_reaches_everybody() {
    let world = World::new().await;
    let (mut ada, mut ben) = (world.attached("u1").await, world.attached("u2").await);
    ada.post("m1", "hello").await;
    let event = ben.frame().await;
    assert_eq!(event["kind"], "message.posted");
    assert_eq!((&event["seq"], &event["text"]), (&json!(1), &json!("hello")));
    assert_eq!(event["author"], json!({"kind": "user", "id": "u1"}));
    assert_eq!(event.get("html"), None);
    assert_eq!(ada.frame().await, event);
    let ok = json!({"type": "ok", "ref": "ref-m1", "seq": 1, "message_id": "m1"});
    assert_eq!(ada.frame().await, ok);
    assert_eq!(world.group.counts().connects, 1, "both share one upstream");
    assert_eq!(world.group.counts().activations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_see_many_messages_without_gap_and_in_order() {
    const CLIENTS: usize = 60;
    const MESSAGES: usize = 300;
    let world = World::new().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = world.client(&format!("u{}", number % 9 + 1)).await;
        let render = if number % 2 == 0 { json!({"render": "html"}) } else { json!({}) };
        assert_eq!(client.attach_with(render).await["seq"], 0);
        clients.push(client);
    }
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| tokio::spawn(async move { client.events(MESSAGES).await }))
        .collect();
    for number in 0..MESSAGES {
        world.group.say(&format!("message {number}"));
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let expected: Vec<u64> = (1..=MESSAGES as u64).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn answers_keep_their_place_among_the_events_of_their_connection() {
    let world = World::new().await;
    let (mut ada, mut ben) = (world.attached("u1").await, world.attached("u2").await);
    for number in 0..40 {
        ada.post(&format!("a{number}"), "x").await;
        ben.post(&format!("b{number}"), "y").await;
    }
    for client in [&mut ada, &mut ben] {
        let mut last = 0;
        let mut answers = 0;
        while last < 80 || answers < 40 {
            let frame = client.frame().await;
            let seq = frame["seq"].as_u64().unwrap();
            if frame["type"] == "event" {
                assert_eq!(seq, last + 1);
                last = seq;
            } else {
                assert_eq!(
                    (&frame["type"], seq),
                    (&json!("ok"), last),
                    "the event came just before"
                );
                answers += 1;
            }
        }
    }
}

#[tokio::test]
async fn html_goes_to_those_who_asked_for_it_also_in_a_replay() {
    let world = World::new().await;
    let mut plain = world.attached("u1").await;
    let mut html = world.client("u2").await;
    html.attach_with(json!({"render": "html"})).await;
    world.group.say("a \"b\"");
    let (bare, rendered) = (plain.frame().await, html.frame().await);
    assert_eq!(bare.get("html"), None);
    assert_eq!(rendered["html"], "<p>a \"b\"</p>");
    let mut late = world.client("u3").await;
    late.attach_with(json!({"render": "html", "after": 0})).await;
    assert_eq!(late.frame().await, rendered);
    // Whoever attaches again without it is spared it from then on.
    html.attach().await;
    world.group.say("c");
    assert_eq!(html.frame().await.get("html"), None);
    assert_eq!(late.frame().await["html"], "<p>c</p>");
}

#[tokio::test]
async fn a_connection_hears_nothing_before_its_own_attach() {
    let world = World::new().await;
    let mut ada = world.attached("u1").await;
    let mut ben = world.client("u2").await;
    world.group.say("one");
    assert_eq!(ada.event().await, 1);
    ben.nothing_more().await;
    assert_eq!(ben.attach().await["seq"], 1);
    world.group.say("two");
    assert_eq!(ben.event().await, 2);
    ben.send(json!({"type": "detach", "ref": "d"})).await;
    assert_eq!(ben.frame().await["type"], "ok");
    assert_eq!(ben.frame().await, json!({"type": "detached", "reason": "requested"}));
    world.group.say("three");
    assert_eq!(ada.events(2).await, [2, 3]);
    ben.nothing_more().await;
}

#[tokio::test]
async fn an_attach_amid_broadcasts_takes_effect_at_its_own_place() {
    let world = World::new().await;
    let mut ada = world.attached("u1").await;
    world.group.busy();
    let mut ben = world.client("u2").await;
    assert_eq!(ben.attach().await["seq"], 1, "after what was said before it");
    assert_eq!(ben.event().await, 2);
    ben.nothing_more().await;
    assert_eq!(ada.events(2).await, [1, 2]);
}

#[tokio::test]
async fn frames_for_one_connection_go_to_it_alone() {
    let world = World::new().await;
    let (mut ada, mut ben) = (world.attached("u1").await, world.attached("u2").await);
    ada.post("m1", "refuse me").await;
    let error = ada.frame().await;
    assert_eq!(error, json!({"type": "error", "ref": "ref-m1", "code": "validation_failed"}));
    Client::settle().await;
    ben.nothing_more().await;
}
