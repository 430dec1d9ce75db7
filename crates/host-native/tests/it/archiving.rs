//! A group at the controllers' door while it is archived, restored and deleted: it stands still, all
//! of it can be read, it is wiped only where it was seen, and it comes back as it was.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use convene_model::{
    archive::{ExportSection, NEXT_HEADER, line::split},
    limits::MAX_EXPORT_BYTES,
};
use convene_storage::StoreOptions;
use convene_testing::forge::Forged;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::controllers::World;

/// How long a test waits for what takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

struct Answer {
    status: StatusCode,
    next: Option<u64>,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    #[track_caller]
    fn is(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
        body
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.json());
        self
    }
}

/// Calls as the Orchestrator does for a group under an epoch.
async fn call(
    world: &World,
    group: &str,
    epoch: u64,
    method: &str,
    what: &str,
    body: impl Into<Bytes>,
) -> Answer {
    let path = format!("/groups/{group}{}", what.split('?').next().unwrap());
    let token =
        Forged::orchestrator(&world.orchestrator, world.now(), (method, &path), group, epoch);
    let request = Request::builder()
        .method(method)
        .uri(format!("/groups/{group}{what}"))
        .header("authorization", format!("Bearer {}", token.encode()))
        .body(body.into())
        .unwrap();
    let response = world.hop.send(request).await.unwrap();
    let status = response.status();
    let next = response.headers().get(NEXT_HEADER);
    let next = next.map(|next| next.to_str().unwrap().parse().unwrap());
    let body: Body = response.into_body();
    Answer { status, next, body: axum::body::to_bytes(body, 8 << 20).await.unwrap() }
}

async fn post(world: &World, epoch: u64, what: &str, body: Value) -> Answer {
    call(world, "g1", epoch, "POST", what, body.to_string()).await
}

async fn freeze(world: &World, archive_id: &str, epoch: u64) -> Answer {
    post(world, epoch, "/freeze", json!({"archive_id": archive_id, "epoch": epoch})).await
}

async fn thaw(world: &World, archive_id: &str, epoch: u64) -> Answer {
    post(world, epoch, "/thaw", json!({"archive_id": archive_id, "epoch": epoch})).await
}

async fn wipe(world: &World, frozen: &Value) -> Answer {
    let body = json!({
        "archive_id": frozen["archive_id"], "epoch": frozen["epoch"],
        "last_seq": frozen["last_seq"], "checksum": "ab".repeat(32),
    });
    post(world, frozen["epoch"].as_u64().unwrap(), "/wipe", body).await
}

async fn init(world: &World, group: &str, epoch: u64) -> Answer {
    let body = json!({"org_id": "o1", "history_mode": "internal", "epoch": epoch});
    call(world, group, epoch, "POST", "/init", body.to_string()).await
}

/// The lines of a section of a frozen group, each part of which is within its bound.
async fn export(world: &World, frozen: &Value, section: ExportSection) -> Vec<u8> {
    let (archive_id, epoch) = (frozen["archive_id"].as_str().unwrap(), &frozen["epoch"]);
    let (mut lines, mut after) = (Vec::new(), 0);
    loop {
        let section = section.as_str();
        let what = format!(
            "/export?archive_id={archive_id}&epoch={epoch}&section={section}&after={after}"
        );
        let answer = call(world, "g1", epoch.as_u64().unwrap(), "GET", &what, "").await.ok();
        assert!(answer.body.len() <= MAX_EXPORT_BYTES && answer.body.ends_with(b"\n"));
        lines.extend_from_slice(&answer.body);
        match answer.next {
            Some(next) => {
                assert!(next > after);
                after = next;
            }
            None => return lines,
        }
    }
}

async fn export_all(world: &World, frozen: &Value) -> [Vec<u8>; 3] {
    let [state, messages, events] = ExportSection::ALL;
    [
        export(world, frozen, state).await,
        export(world, frozen, messages).await,
        export(world, frozen, events).await,
    ]
}

/// The group's history as a user of an epoch reads it.
async fn history(world: &World, epoch: u64) -> Value {
    let path = "/groups/g1/history";
    let token = world.service_token("GET", path).with("epoch", epoch).encode();
    let routing = world.routing_token().with("epoch", epoch).encode();
    let path = format!("{path}?limit=200");
    let (status, page) =
        world.call_with("GET", &path, &json!(null), Some(token), Some(routing)).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    json!([page["messages"], page["runs"], page["history"]])
}

/// A group with messages, an edit, a reaction and a deletion, and the link that made them.
async fn lively(world: &World) -> convene_hop::GroupLink {
    let mut link = world.open().await;
    let token = world.routing_token().encode();
    say(&mut link, json!({"type": "attach", "token": token})).await;
    for n in 1..=20 {
        let text = format!("message {n} {}", "lorem ipsum ".repeat(20));
        say(&mut link, json!({"type": "post", "message_id": format!("m{n}"), "text": text})).await;
    }
    say(&mut link, json!({"type": "edit", "message_id": "m3", "text": "edited"})).await;
    say(&mut link, json!({"type": "react", "message_id": "m4", "emoji": "👍", "on": true})).await;
    say(&mut link, json!({"type": "delete", "message_id": "m5"})).await;
    let answer = json!({"type": "post", "message_id": "m30", "text": "answer", "reply_to": "m3"});
    say(&mut link, answer).await;
    link
}

/// Sends a frame and waits for its answer.
async fn say(link: &mut convene_hop::GroupLink, mut frame: Value) -> Value {
    frame["conn"] = json!("c1");
    frame["ref"] = json!("r");
    link.tx.send(Bytes::from(frame.to_string())).await.unwrap();
    until(link, |frame| frame["ref"] == "r").await
}

async fn until(link: &mut convene_hop::GroupLink, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let frame = timeout(PATIENCE, link.rx.recv()).await.unwrap().unwrap();
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        if wanted(&frame) {
            return frame;
        }
    }
}

fn begin_of(frozen: &Value, import_id: &str, epoch: u64) -> Value {
    json!({
        "import_id": import_id, "archive_id": frozen["archive_id"], "epoch": epoch,
        "last_seq": frozen["last_seq"], "chain": frozen["chain"],
    })
}

#[tokio::test]
async fn a_frozen_group_stands_still_and_goes_on_when_it_is_thawed() {
    let world = World::new().await;
    let mut link = lively(&world).await;
    let frozen = freeze(&world, "x1", 1).await.ok().json();
    let event = until(&mut link, |frame| frame["kind"] == "group.frozen").await;
    assert_eq!(event["seq"], frozen["last_seq"]);
    assert_eq!((&frozen["messages"], &frozen["events"]), (&json!(21), &frozen["last_seq"]));
    assert!(frozen["bytes_estimate"].as_u64().unwrap() > 5_000);
    let detached = until(&mut link, |frame| frame["type"] == "detached").await;
    assert_eq!(detached["reason"], "group_archived");

    let token = world.routing_token().encode();
    let refused = say(&mut link, json!({"type": "attach", "token": token})).await;
    assert_eq!(refused["code"], "group_archived");
    let late = json!({"type": "post", "message_id": "late", "text": "late"});
    assert_eq!(say(&mut link, late).await["code"], "group_archived");
    init(&world, "g1", 1).await.is(409, "group_archived");
    let path = "/groups/g1/ws";
    let (service, routing) = (world.service_token("GET", path), world.routing_token());
    let (status, problem) = world
        .call_with("GET", path, &json!(null), Some(service.encode()), Some(routing.encode()))
        .await;
    // A request that is no upgrade is refused for what the group says first.
    assert!(status == StatusCode::CONFLICT || status == StatusCode::UPGRADE_REQUIRED, "{problem}");

    assert_eq!(freeze(&world, "x1", 1).await.ok().json(), frozen);
    let figures = freeze(&world, "x2", 1).await.is(409, "illegal_transition");
    assert_eq!((&figures["archive_id"], &figures["epoch"]), (&json!("x1"), &json!(1)));
    let world = world.restarted(StoreOptions::default()).await;
    let again = freeze(&world, "x1", 1).await.ok().json();
    assert_eq!((&again["last_seq"], &again["chain"]), (&frozen["last_seq"], &frozen["chain"]));
    init(&world, "g1", 1).await.is(409, "group_archived");

    thaw(&world, "x1", 1).await.is(409, "illegal_transition");
    thaw(&world, "x1", 2).await.ok();
    thaw(&world, "x1", 2).await.ok();
    freeze(&world, "x1", 1).await.is(403, "stale_epoch");
    assert_eq!(init(&world, "g1", 2).await.ok().json()["epoch"], 2);
}

#[tokio::test]
async fn a_frozen_group_is_exported_the_same_each_time_and_only_for_its_attempt() {
    let world = World::new().await;
    drop(lively(&world).await);
    for query in ["archive_id=x1&epoch=1&section=events", "archive_id=x1&epoch=1&section=state"] {
        let answer = call(&world, "g1", 1, "GET", &format!("/export?{query}"), "").await;
        answer.is(409, "illegal_transition");
    }
    let frozen = freeze(&world, "x1", 1).await.ok().json();
    let first = export_all(&world, &frozen).await;
    for section in &first {
        let text = String::from_utf8_lossy(section);
        assert!(!text.contains("message 5 "), "a text that was taken back is in no export");
    }
    world.store.settle();
    assert!(first == export_all(&world, &frozen).await);
    let world = world.restarted(StoreOptions::default()).await;
    assert!(first == export_all(&world, &frozen).await);
    let lines = split(&Bytes::from(first[2].clone())).unwrap().count() as u64;
    assert_eq!(json!(lines), frozen["last_seq"]);
    for query in ["archive_id=x2&epoch=1&section=events", "archive_id=x1&epoch=2&section=events"] {
        let epoch = if query.contains("epoch=2") { 2 } else { 1 };
        let answer = call(&world, "g1", epoch, "GET", &format!("/export?{query}"), "").await;
        answer.is(409, "illegal_transition");
    }
}

#[tokio::test]
async fn a_wipe_is_refused_unless_the_group_stands_exactly_where_it_was_seen() {
    let world = World::new().await;
    drop(lively(&world).await);
    let not_frozen = json!({"archive_id": "x1", "epoch": 1, "last_seq": 25});
    wipe(&world, &not_frozen).await.is(409, "illegal_transition");
    let frozen = freeze(&world, "x1", 1).await.ok().json();
    for (member, value) in
        [("archive_id", json!("x2")), ("epoch", json!(2)), ("last_seq", json!(3))]
    {
        let mut other = frozen.clone();
        other[member] = value;
        wipe(&world, &other).await.is(409, "illegal_transition");
    }
    let stale = json!({
        "archive_id": "x1", "epoch": 1, "last_seq": frozen["last_seq"],
        "checksum": "ab".repeat(32),
    });
    post(&world, 2, "/wipe", stale).await.is(403, "stale_epoch");
    assert_eq!(freeze(&world, "x1", 1).await.ok().json()["last_seq"], frozen["last_seq"]);
    thaw(&world, "x1", 2).await.ok();
    wipe(&world, &frozen).await.is(409, "illegal_transition");
    assert!(world.head().await > frozen["last_seq"].as_u64().unwrap());
    let frozen = freeze(&world, "x2", 2).await.ok().json();
    wipe(&world, &frozen).await.ok();
    wipe(&world, &frozen).await.ok();
    freeze(&world, "x2", 2).await.is(404, "group_not_found");
}

#[tokio::test]
async fn what_is_archived_wiped_and_restored_is_the_same_again() {
    let world = World::new().await;
    drop(lively(&world).await);
    let frozen = freeze(&world, "x1", 1).await.ok().json();
    world.store.settle();
    let [state, messages, events] = export_all(&world, &frozen).await;
    let before = history(&world, 1).await;

    let live = post(&world, 2, "/import", begin_of(&frozen, "i1", 2)).await;
    live.is(409, "illegal_transition");
    wipe(&world, &frozen).await.ok();
    let begun = post(&world, 2, "/import", begin_of(&frozen, "i1", 2)).await.ok().json();
    assert_eq!(begun["next_seq"], 1);
    init(&world, "g1", 2).await.is(409, "illegal_transition");

    let lines: Vec<Bytes> = split(&Bytes::from(events.clone())).unwrap().collect();
    let mut world = world;
    let mut from = 1_u64;
    for part in lines.chunks(7) {
        let body = part.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect::<Vec<_>>();
        let what = format!("/import/i1?from={}", from + 1);
        let refused = call(&world, "g1", 2, "PUT", &what, body.clone()).await;
        assert_eq!(refused.is(409, "illegal_transition")["next_seq"], from);
        let what = format!("/import/i1?from={from}");
        let taken = call(&world, "g1", 2, "PUT", &what, body).await.ok();
        from += part.len() as u64;
        assert_eq!(taken.json()["next_seq"], from);
        if from == 15 {
            world = world.restarted(StoreOptions::default()).await;
            let begun = post(&world, 2, "/import", begin_of(&frozen, "i1", 2)).await.ok();
            assert_eq!(begun.json()["next_seq"], 15);
            let early = call(&world, "g1", 2, "POST", "/import/i1/finish", "").await;
            early.is(409, "illegal_transition");
        }
    }
    let finish = |state: Vec<u8>| call(&world, "g1", 2, "POST", "/import/i1/finish", state);
    let done = finish(state.clone()).await.ok().json();
    let last_seq = frozen["last_seq"].as_u64().unwrap();
    assert_eq!((&done["epoch"], &done["head"]), (&json!(2), &json!(last_seq + 1)));
    assert_eq!(finish(state).await.ok().json(), done, "a repeat is success");
    assert_eq!(history(&world, 2).await, before);

    let again = freeze(&world, "x2", 2).await.ok().json();
    let [_, messages_again, events_again] = export_all(&world, &again).await;
    assert!(events_again.starts_with(&events));
    assert!(messages_again == messages);
}

#[tokio::test]
async fn a_snapshot_that_does_not_hold_what_it_says_is_not_restored() {
    let world = World::new().await;
    drop(lively(&world).await);
    let frozen = freeze(&world, "x1", 1).await.ok().json();
    let [state, _, events] = export_all(&world, &frozen).await;
    wipe(&world, &frozen).await.ok();
    post(&world, 2, "/import", begin_of(&frozen, "i1", 2)).await.ok();
    for body in [&b"no line\n"[..], b"{\"type\":\"event\",\"seq\":1}\n", &events[..100]] {
        let refused = call(&world, "g1", 2, "PUT", "/import/i1?from=1", body.to_vec()).await;
        refused.is(409, "snapshot_corrupt");
    }
    let other = call(&world, "g1", 2, "PUT", "/import/i2?from=1", events.clone()).await;
    other.is(409, "illegal_transition");
    let changed = String::from_utf8(events.clone()).unwrap().replace("message 7", "message X");
    call(&world, "g1", 2, "PUT", "/import/i1?from=1", changed).await.ok();
    let refused = call(&world, "g1", 2, "POST", "/import/i1/finish", state.clone()).await;
    refused.is(409, "snapshot_corrupt");
    init(&world, "g1", 2).await.is(409, "illegal_transition");

    post(&world, 2, "/import", begin_of(&frozen, "i0", 2)).await.is(409, "illegal_transition");
    let begun = post(&world, 3, "/import", begin_of(&frozen, "i2", 3)).await.ok().json();
    assert_eq!(begun["next_seq"], 1, "another attempt under a higher epoch begins anew");
    call(&world, "g1", 3, "PUT", "/import/i2?from=1", events).await.ok();
    let other_state =
        String::from_utf8(state).unwrap().replace("\"messages\":21", "\"messages\":20");
    let refused = call(&world, "g1", 3, "POST", "/import/i2/finish", other_state).await;
    refused.is(409, "snapshot_corrupt");
    call(&world, "g1", 3, "POST", "/import/i2/finish", "").await.ok();
    assert_eq!(history(&world, 3).await[0].as_array().unwrap().len(), 21);
}

#[tokio::test]
async fn only_a_higher_epoch_deletes_and_nothing_is_left_to_delete_afterwards() {
    let world = World::new().await;
    drop(lively(&world).await);
    let delete = async |epoch: u64| {
        call(&world, "g1", epoch, "DELETE", &format!("?epoch={epoch}"), "").await
    };
    delete(1).await.is(409, "illegal_transition");
    assert_eq!(delete(2).await.status, StatusCode::NO_CONTENT);
    assert_eq!(delete(2).await.status, StatusCode::NO_CONTENT);
    freeze(&world, "x1", 2).await.is(404, "group_not_found");

    // What there is of a group that is being restored goes as well.
    let begin = json!({
        "import_id": "i1", "archive_id": "x1", "epoch": 4, "last_seq": 9, "chain": "0".repeat(64),
    });
    post(&world, 4, "/import", begin).await.ok();
    delete(3).await.is(409, "illegal_transition");
    assert_eq!(delete(4).await.status, StatusCode::NO_CONTENT);
    assert_eq!(init(&world, "g1", 5).await.ok().json()["head"], 1, "it begins anew");
}

#[tokio::test]
async fn other_groups_go_on_while_one_is_exported_wiped_and_restored() {
    let world = World::new().await;
    drop(lively(&world).await);
    init(&world, "g2", 1).await.ok();
    let mut link = {
        let path = "/groups/g2/ws";
        let token =
            Forged::orchestrator(&world.orchestrator, world.now(), ("GET", path), "g2", 1).encode();
        let routing = world.routing_token().with("group_id", "g2").encode();
        let request = Request::get(path)
            .header("authorization", format!("Bearer {token}"))
            .header("x-routing-token", &routing)
            .body(Bytes::new())
            .unwrap();
        let mut link = world.hop.connect(request).await.unwrap();
        say(&mut link, json!({"type": "attach", "token": routing})).await;
        link
    };
    let archiving = async {
        let mut epoch = 1;
        for _ in 0..3 {
            let frozen = freeze(&world, "x1", epoch).await.ok().json();
            let [_, _, events] = export_all(&world, &frozen).await;
            wipe(&world, &frozen).await.ok();
            epoch += 1;
            post(&world, epoch, "/import", begin_of(&frozen, "i1", epoch)).await.ok();
            call(&world, "g1", epoch, "PUT", "/import/i1?from=1", events).await.ok();
            call(&world, "g1", epoch, "POST", "/import/i1/finish", "").await.ok();
        }
    };
    let posting = async {
        for n in 0..200 {
            let post = json!({"type": "post", "message_id": format!("p{n}"), "text": "on"});
            assert_eq!(say(&mut link, post).await["type"], "ok");
        }
    };
    tokio::join!(archiving, posting);
    assert_eq!(history(&world, 4).await[0].as_array().unwrap().len(), 21);
}
