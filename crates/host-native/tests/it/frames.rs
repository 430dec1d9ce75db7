//! Whatever comes over an upstream: it is answered, nothing panics, and the group stays as it was.

use bytes::Bytes;
use convene_hop::GroupLink;
use convene_model::limits::MAX_FRAME_BYTES;
use convene_testing::client::PATIENCE;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::controllers::World;

/// One of each type.
fn sound(random: &mut Rng) -> Value {
    let mut frame = random
        .choice([
            json!({"type": "attach", "token": "x.y.z", "after": 1, "history": "h", "render": "html"}),
            json!({"type": "detach"}),
            json!({"type": "post", "message_id": "new", "text": "hi", "mentions": ["a"], "reply_to": "m1"}),
            json!({"type": "cancel", "run_id": "r1-0"}),
            json!({"type": "edit", "message_id": "m1", "text": "reworded"}),
            json!({"type": "delete", "message_id": "m1"}),
            json!({"type": "react", "message_id": "m1", "emoji": "👍", "on": true}),
            json!({"type": "pin", "message_id": "m1", "on": true}),
            json!({"type": "typing"}),
        ])
        .unwrap();
    if frame["type"] != "typing" {
        frame["ref"] = json!(format!("f{}", random.u16(..)));
    }
    frame
}

/// Any JSON but a text that could be an id.
fn any_json(random: &mut Rng, depth: u32) -> Value {
    let few = random.usize(..4);
    match random.u8(..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.i64(..)),
        3 => json!(random.f64()),
        4 => json!("x".repeat(65 * few.min(1))),
        5 => json!((0..few).map(|_| random.char(..)).chain(['.']).collect::<String>()),
        6 => (0..few).map(|_| any_json(random, depth - 1)).collect(),
        _ => {
            let names = ["conn", "ref", "type", "text", "a", ""];
            let member = |random: &mut Rng| {
                let name = random.choice(names).unwrap().to_owned();
                (name, any_json(random, depth - 1))
            };
            Value::Object((0..few).map(|_| member(random)).collect())
        }
    }
}

/// A member without which the frame is none.
fn needed(frame: &Value, random: &mut Rng) -> &'static str {
    let needed = ["type", "conn", "ref", "message_id", "text", "emoji", "on", "run_id", "token"];
    let of_frame: Vec<_> = needed.into_iter().filter(|name| frame.get(name).is_some()).collect();
    random.choice(of_frame).unwrap()
}

/// A frame that cannot be taken, and whether it is answered.
fn frame(random: &mut Rng) -> (Vec<u8>, bool) {
    let mut frame = sound(random);
    frame["conn"] = json!("c1");
    match random.u8(..8) {
        0 => return ((0..random.usize(..200)).map(|_| random.u8(..)).collect(), true),
        1 => frame = any_json(random, 3),
        2 => {
            frame["conn"] = json!("nobody");
            let answered = frame["type"] != "typing";
            return (frame.to_string().into_bytes(), answered);
        }
        3 => frame["surprise"] = any_json(random, 3),
        4 => {
            let member = needed(&frame, random);
            frame[member] = json!([any_json(random, 2)]);
        }
        5 => {
            let member = needed(&frame, random);
            frame.as_object_mut().unwrap().remove(member);
        }
        6 => {
            let mut bytes = frame.to_string().into_bytes();
            bytes.truncate(random.usize(..bytes.len()));
            return (bytes, true);
        }
        _ => {
            let long = "x".repeat(MAX_FRAME_BYTES);
            frame =
                json!({"conn": "c1", "type": "post", "ref": "l", "message_id": "l", "text": long});
        }
    }
    (frame.to_string().into_bytes(), true)
}

async fn send(link: &GroupLink, frame: impl Into<Bytes>) {
    link.tx.send(frame.into()).await.unwrap();
}

/// Frames until the answer to `ref`; how many of them were refusals.
async fn refusals_until(link: &mut GroupLink, r#ref: &str) -> usize {
    let mut refusals = 0;
    loop {
        let frame = timeout(PATIENCE, link.rx.recv()).await.unwrap().unwrap();
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        if frame["ref"] == r#ref {
            return refusals;
        }
        refusals += usize::from(frame["type"] == "error");
    }
}

/// Rounds of frames, each with random numbers of its own.
const ROUNDS: u64 = 400;

#[tokio::test]
async fn whatever_comes_is_refused_and_leaves_the_group_as_it_was() {
    let world = World::new().await;
    let mut link = world.open().await;
    let token = world.routing_token().encode();
    let attach = json!({"type": "attach", "ref": "attach", "conn": "c1", "token": token});
    send(&link, attach.to_string()).await;
    refusals_until(&mut link, "attach").await;
    let post = |message: &str| json!({"type": "post", "ref": message, "conn": "c1", "message_id": message, "text": "hi"});
    send(&link, post("m1").to_string()).await;
    refusals_until(&mut link, "m1").await;
    let head = world.head().await;
    for round in 0..ROUNDS {
        let mut random = Rng::with_seed(round);
        let mut frames = Vec::new();
        for _ in 0..random.usize(1..20) {
            frames.push(frame(&mut random));
        }
        for (frame, _) in &frames {
            send(&link, frame.clone()).await;
        }
        // It is attached still.
        let last = json!({"type": "cancel", "ref": "last", "conn": "c1", "run_id": "none"});
        send(&link, last.to_string()).await;
        let refusals = refusals_until(&mut link, "last").await;
        let answered = frames.iter().filter(|(_, answered)| *answered).count();
        let sent =
            || frames.iter().map(|(frame, _)| String::from_utf8_lossy(frame)).collect::<Vec<_>>();
        assert_eq!(refusals, answered, "round {round}: {:#?}", sent());
        assert_eq!(world.head().await, head, "round {round}: {:#?}", sent());
    }
    send(&link, post("m2").to_string()).await;
    refusals_until(&mut link, "m2").await;
    assert_eq!(world.head().await, head + 1, "and it goes on");
}
