//! What people do to messages, and who is there: over two upstreams of one group, as two App
//! processes have them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use convene_hop::GroupLink;
use convene_model::{
    Code, GroupId,
    frame::CLOSE_EPOCH_RAISED,
    limits::{PRESENCE_GRACE, PRESENCE_PAUSE},
};
use convene_storage::StoreOptions;
use convene_testing::forge::Forged;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::controllers::World;

/// An upstream, and everything that it said.
struct Upstream {
    link: GroupLink,
    seen: Vec<Value>,
}

impl Upstream {
    async fn open(world: &World) -> Self {
        Self { link: world.open().await, seen: Vec::new() }
    }

    async fn next(&mut self) -> Value {
        let next = timeout(convene_testing::client::PATIENCE, self.link.rx.recv()).await;
        let frame = next.expect("a frame comes in time").expect("the upstream stays open");
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        self.seen.push(frame.clone());
        frame
    }

    /// Whether nothing comes any more but its end.
    async fn ends_without_a_word(&mut self) -> bool {
        let end = timeout(convene_testing::client::PATIENCE, self.link.rx.recv()).await;
        end.expect("it ends in time").is_none()
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next().await;
            if wanted(&frame) {
                return frame;
            }
        }
    }

    async fn send(&mut self, frame: Value) {
        self.link.tx.send(Bytes::from(frame.to_string())).await.unwrap();
    }

    /// Sends a frame and waits for its answer.
    async fn ask(&mut self, mut frame: Value) -> Value {
        let r#ref = format!("r{}", self.seen.len());
        frame["ref"] = json!(r#ref);
        self.send(frame).await;
        self.until(|answer| answer["ref"] == r#ref.as_str()).await
    }

    async fn attach(&mut self, world: &World, conn: &str, user: &str, role: &str) -> Value {
        let token = Forged::routing(&world.orchestrator, world.now());
        let token = token.with("user_id", user).with("role", role).encode();
        self.ask(json!({"type": "attach", "conn": conn, "token": token})).await
    }

    /// The last frame of a type.
    fn last(&self, kind: &str) -> Value {
        let of_kind = self.seen.iter().rev().find(|frame| frame["type"] == kind);
        of_kind.unwrap_or_else(|| panic!("a {kind} among {:?}", self.seen)).clone()
    }

    async fn event(&mut self, kind: &str) -> Value {
        self.until(|frame| frame["kind"] == kind).await
    }
}

/// Two upstreams: ann on the first, bob on the second, and a message of ann's that both have seen.
async fn two(world: &World) -> (Upstream, Upstream) {
    let (mut one, mut two) = (Upstream::open(world).await, Upstream::open(world).await);
    assert_eq!(one.attach(world, "c1", "ann", "member").await["type"], "attached");
    assert_eq!(two.attach(world, "c1", "bob", "member").await["type"], "attached");
    one.ask(post("m1", "the first secret")).await;
    two.event("message.posted").await;
    (one, two)
}

fn post(message_id: &str, text: &str) -> Value {
    json!({"type": "post", "conn": "c1", "message_id": message_id, "text": text})
}

fn about(kind: &str, message_id: &str, with: Value) -> Value {
    let mut frame = json!({"type": kind, "conn": "c1", "message_id": message_id});
    for (name, value) in with.as_object().unwrap() {
        frame[name] = value.clone();
    }
    frame
}

async fn history(world: &World) -> Vec<Value> {
    let routing = Some(world.routing_token().encode());
    let (status, page) = world.call("GET", "/groups/g1/history", &json!(null), routing).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    page["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_command_reaches_both_upstreams_once_and_a_repeat_changes_nothing() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    for (command, kind) in [
        (about("edit", "m1", json!({"text": "hello"})), "message.edited"),
        (about("react", "m1", json!({"emoji": "👍", "on": true})), "reaction.added"),
        (about("react", "m1", json!({"emoji": "👍", "on": false})), "reaction.removed"),
        (about("react", "m1", json!({"emoji": "🎉", "on": true})), "reaction.added"),
        (about("pin", "m1", json!({"on": true})), "message.pinned"),
        (about("pin", "m1", json!({"on": false})), "message.unpinned"),
        (about("delete", "m1", json!({})), "message.deleted"),
    ] {
        let ok = ann.ask(command.clone()).await;
        assert_eq!((&ok["type"], &ok["message_id"]), (&json!("ok"), &json!("m1")), "{command}");
        let event = bob.event(kind).await;
        assert_eq!((&event["seq"], &event["author"]["id"]), (&ok["seq"], &json!("ann")));
        let head = world.head().await;
        assert_eq!(ok["seq"], head);
        // As if the answer had been lost.
        let again = ann.ask(command).await;
        assert_eq!((&again["type"], again.get("seq")), (&json!("ok"), None), "{again}");
        assert_eq!(world.head().await, head, "{kind}");
    }
}

#[tokio::test]
async fn commands_in_one_breath_each_see_what_the_ones_before_them_did() {
    let world = World::new().await;
    let (mut ann, _bob) = two(&world).await;
    let frames = [
        (post("m2", "two"), Some("message.posted")),
        (about("edit", "m2", json!({"text": "zwei"})), Some("message.edited")),
        (about("edit", "m2", json!({"text": "zwei"})), None),
        (about("edit", "m2", json!({"text": "two"})), Some("message.edited")),
        (about("react", "m2", json!({"emoji": "👍", "on": true})), Some("reaction.added")),
        (about("react", "m2", json!({"emoji": "👍", "on": true})), None),
        (about("react", "m2", json!({"emoji": "👍", "on": false})), Some("reaction.removed")),
        (about("react", "m2", json!({"emoji": "👍", "on": false})), None),
        (about("delete", "m2", json!({})), Some("message.deleted")),
        (about("delete", "m2", json!({})), None),
    ];
    let expected: Vec<_> = frames.iter().filter_map(|(_, kind)| *kind).collect();
    let before = world.head().await;
    for (index, (mut frame, _)) in frames.into_iter().enumerate() {
        frame["ref"] = json!(format!("f{index}"));
        ann.send(frame).await;
    }
    let mut late = post("m3", "an answer to nothing");
    (late["ref"], late["reply_to"]) = (json!("late"), json!("m2"));
    ann.send(late).await;
    let refused = ann.until(|frame| frame["ref"] == "late").await;
    assert_eq!(refused["code"], "message_not_found");
    let happened = ann.seen.iter().filter(|frame| frame["seq"].as_u64() > Some(before));
    let kinds: Vec<_> = happened.filter_map(|frame| frame["kind"].as_str()).collect();
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn history_has_the_current_form_and_a_refusal_leaves_it_as_it_was() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    ann.ask(about("react", "m1", json!({"emoji": "👍", "on": true}))).await;
    bob.ask(about("react", "m1", json!({"emoji": "\u{2764}", "on": true}))).await;
    ann.ask(about("edit", "m1", json!({"text": "reworded"}))).await;
    let head = world.head().await;
    for (command, code) in [
        (about("edit", "m1", json!({"text": "not mine"})), "forbidden"),
        (about("edit", "m9", json!({"text": "nothing"})), "message_not_found"),
        (about("delete", "m1", json!({})), "forbidden"),
        (about("react", "m1", json!({"emoji": "no", "on": true})), "validation_failed"),
        (about("pin", "m9", json!({"on": true})), "message_not_found"),
    ] {
        assert_eq!(bob.ask(command.clone()).await["code"], code, "{command}");
    }
    assert_eq!(world.head().await, head);
    let messages = history(&world).await;
    assert_eq!(messages[0]["text"], "reworded");
    let emojis: Vec<_> =
        messages[0]["reactions"].as_array().unwrap().iter().map(|r| &r["emoji"]).collect();
    assert_eq!(emojis, ["👍", "❤️"]);
    ann.ask(about("delete", "m1", json!({}))).await;
    let messages = history(&world).await;
    assert_eq!((&messages[0]["deleted"], &messages[0]["text"]), (&json!(true), &json!("")));
}

#[tokio::test]
async fn a_deleted_text_is_not_in_what_the_group_is_rebuilt_from() {
    let world = World::new().await;
    let (mut ann, _bob) = two(&world).await;
    ann.ask(about("edit", "m1", json!({"text": "the second secret"}))).await;
    // Short ones, so that the message is still in the window when the snapshot is taken.
    let fill = convene_host_native::controllers::SNAPSHOT_EVERY as usize;
    let key = "g1".parse::<GroupId>().unwrap().key();
    let kept = || {
        let loaded = world.store.load(key).unwrap().unwrap();
        let records: Vec<u8> = loaded.records.iter().flat_map(|r| r.body.to_vec()).collect();
        let snapshot = loaded.snapshot.map(|snapshot| snapshot.bytes.to_vec()).unwrap_or_default();
        (String::from_utf8(records).unwrap(), String::from_utf8(snapshot).unwrap())
    };
    for index in 0..fill {
        let on = index % 2 == 0;
        let mut frame = about("react", "m1", json!({"emoji": "👍", "on": on}));
        frame["ref"] = json!(format!("f{index}"));
        ann.send(frame).await;
    }
    let last = format!("f{}", fill - 1);
    ann.until(|frame| frame["ref"] == last.as_str()).await;
    assert!(kept().1.contains("second secret"), "a snapshot has it");
    ann.ask(about("delete", "m1", json!({}))).await;
    let (records, snapshot) = kept();
    assert!(!snapshot.contains("secret") && !records.contains("secret"), "{snapshot} {records}");
}

#[tokio::test]
async fn a_node_without_room_refuses_changes_before_anything_happens_and_says_when_to_try_again() {
    let world = World::new().await;
    let (mut ann, bob) = two(&world).await;
    ann.ask(about("react", "m1", json!({"emoji": "👍", "on": true}))).await;
    drop((ann, bob));
    // With no room at all, as behind a projector that never comes to an end.
    let full = StoreOptions { max_lag_events: 0, ..StoreOptions::default() };
    let world = world.restarted(full).await;
    let mut ann = Upstream::open(&world).await;
    assert_eq!(ann.attach(&world, "c1", "ann", "member").await["type"], "attached");
    let head = world.head().await;
    for command in [
        post("m2", "no room"),
        about("edit", "m1", json!({"text": "reworded"})),
        about("react", "m1", json!({"emoji": "👍", "on": false})),
        about("pin", "m1", json!({"on": true})),
        about("delete", "m1", json!({})),
    ] {
        let refused = ann.ask(command.clone()).await;
        assert_eq!(refused["code"], "overloaded", "{command}");
        assert!(refused["retry_after_ms"].as_u64() > Some(0), "{refused}");
    }
    assert_eq!(ann.ask(post("m1", "the first secret")).await["type"], "ok", "a repeat needs none");
    assert_eq!(world.head().await, head);
}

#[tokio::test]
async fn everybody_learns_who_comes_and_goes_on_whichever_upstream() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    // Any frame lets the group see what time it is.
    let tick = async |by: &mut Upstream, time: std::time::Duration| {
        world.clock.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
        by.send(json!({"type": "typing", "conn": "c1"})).await;
        by.ask(json!({"type": "detach", "conn": "nobody"})).await
    };
    tick(&mut ann, PRESENCE_PAUSE).await;
    bob.until(|frame| frame["type"] == "typing").await;
    for upstream in [&mut ann, &mut bob] {
        let told = ["presence", "typing"].map(|kind| upstream.last(kind));
        assert_eq!(told[0], json!({"type": "presence", "joined": ["ann", "bob"], "count": 2}));
        assert_eq!(told[1], json!({"type": "typing", "user_id": "ann"}));
    }
    let attached = ann.attach(&world, "c2", "bob", "member").await;
    assert_eq!(attached["state"]["present"], json!(["ann", "bob"]));
    assert_eq!(attached["state"]["present_count"], 2);

    // The second App process says goodbye; bob has the first one still, and then not.
    bob.ask(json!({"type": "detach", "conn": "c1"})).await;
    tick(&mut ann, PRESENCE_GRACE).await;
    tick(&mut ann, PRESENCE_PAUSE).await;
    ann.ask(json!({"type": "detach", "conn": "c2"})).await;
    assert_eq!(ann.last("presence")["count"], 2);
    tick(&mut ann, PRESENCE_GRACE).await;
    tick(&mut ann, PRESENCE_PAUSE).await;
    let gone = json!({"type": "presence", "left": ["bob"], "count": 1});
    assert_eq!(ann.last("presence"), gone);
    assert_eq!(bob.until(|frame| frame["type"] == "presence").await, gone);
}

#[tokio::test]
async fn a_removed_user_is_off_both_upstreams_before_anything_later_and_present_no_longer() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    ann.attach(&world, "c2", "bob", "admin").await;
    let old = Forged::routing(&world.orchestrator, world.now()).with("user_id", "bob").encode();
    let (status, _) =
        world.call("POST", "/groups/g1/revoke", &json!({"user_id": "bob"}), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    ann.ask(post("m2", "without bob")).await;
    for upstream in [&mut ann, &mut bob] {
        let is_m2 =
            |frame: &Value| frame["kind"] == "message.posted" && frame["message_id"] == "m2";
        if !upstream.seen.iter().any(is_m2) {
            upstream.until(is_m2).await;
        }
        let at = |wanted: &dyn Fn(&Value) -> bool| upstream.seen.iter().position(wanted).unwrap();
        let revoked = at(&|frame| frame["kind"] == "access.revoked");
        let detached = at(&|frame| frame["type"] == "detached" && frame["user_id"] == "bob");
        let presence = at(&|frame| frame["left"] == json!(["bob"]));
        let later = at(&|frame| frame["message_id"] == "m2");
        assert!(revoked < detached && detached < presence && presence < later);
    }
    // Neither connection may anything, and neither comes back with what it had.
    for (upstream, conn) in [(&mut ann, "c2"), (&mut bob, "c1")] {
        let mut frame = post("m3", "let me in");
        frame["conn"] = json!(conn);
        assert_eq!(upstream.ask(frame).await["code"], "not_attached");
        let attach = json!({"type": "attach", "conn": conn, "token": old});
        assert_eq!(upstream.ask(attach).await["code"], "access_revoked");
    }
}

#[tokio::test]
async fn a_change_of_role_holds_from_the_attach_that_brings_it() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    let delete = about("delete", "m1", json!({}));
    assert_eq!(bob.ask(delete.clone()).await["code"], "forbidden");
    assert_eq!(bob.attach(&world, "c1", "bob", "admin").await["type"], "attached");
    let pin = about("pin", "m1", json!({"on": true}));
    assert_eq!(ann.attach(&world, "c1", "ann", "agent").await["type"], "attached");
    assert_eq!(ann.ask(pin).await["code"], "forbidden");
    assert_eq!(bob.ask(delete).await["type"], "ok");
}

#[tokio::test]
async fn a_raised_epoch_detaches_everybody_on_both_upstreams_before_anything_later() {
    let world = World::new().await;
    let (mut ann, mut bob) = two(&world).await;
    let old = Forged::routing(&world.orchestrator, world.now()).with("user_id", "bob").encode();
    let path = "/groups/g1/init";
    let token = world.service_token("POST", path).with("epoch", 2).encode();
    let init = json!({"org_id": "o1", "history_mode": "internal", "epoch": 2});
    let (status, _) = world.call_with("POST", path, &init, Some(token), None).await;
    assert_eq!(status, StatusCode::OK);
    for upstream in [&mut ann, &mut bob] {
        let detached = upstream.until(|frame| frame["type"] == "detached").await;
        let expected = json!({"conn": "c1", "type": "detached", "reason": "epoch_raised"});
        assert_eq!(detached, expected);
        assert!(upstream.ends_without_a_word().await);
        let why = upstream.link.close.heard().map(|close| close.code);
        assert_eq!(why, Some(CLOSE_EPOCH_RAISED));
    }
    assert_eq!(world.open_for(&old, 2).await.unwrap_err(), Code::StaleEpoch);
}
