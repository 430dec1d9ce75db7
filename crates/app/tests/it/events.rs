//! `GET /api/events`: what a stream begins with, what it is told, when it ends, how many there are.

use std::time::Duration;

use axum::{Router, body::BodyDataStream};
use convene_app::{
    events::{MAX_STREAMS_PER_USER, STALLED_AFTER},
    identity::{recovery, sessions::SESSION_TTL},
};
use futures_util::StreamExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    reading::person,
    support::{Client, Reply, World},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream that is being read.
pub(crate) struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    pub(crate) async fn open(client: &Client<'_>) -> Self {
        Self::open_on(client, client.world.router.clone()).await.unwrap()
    }

    pub(crate) async fn open_on(client: &Client<'_>, router: Router) -> Result<Self, Reply> {
        let request = client.request(Method::GET, "/api/events", None, Vec::new());
        let response = router.oneshot(request).await.unwrap();
        if response.status() != StatusCode::OK {
            return Err(Reply::read(response).await);
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { body: response.into_body().into_data_stream(), text: String::new() })
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        let reading = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.text = rest;
                    let line = |name: &str| {
                        event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                    };
                    if let (Some(name), Some(data)) = (line("event:"), line("data:")) {
                        return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
                    }
                    continue;
                }
                let more = self.body.next().await?.unwrap();
                self.text.push_str(std::str::from_utf8(&more).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("nothing was told")
    }

    pub(crate) async fn expect(&mut self, name: &str) -> Value {
        let (got, data) = self.next().await.expect("the stream ended");
        assert_eq!(got, name, "{data}");
        data
    }

    pub(crate) async fn ended(&mut self) {
        assert_eq!(self.next().await, None);
    }
}

async fn two(world: &World) -> (String, String, [Client<'_>; 2]) {
    let mut ann = world.person("Ann").await;
    let mut bob = world.person("Bob").await;
    let org = ann.org("Works").await;
    ann.bring(&org, &mut bob).await;
    let group = ann.group(&org, "Plans", None).await;
    (org, group, [ann, bob])
}

#[tokio::test]
async fn a_stream_begins_with_all_groups_and_goes_on_with_each_that_changes() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    world.say(&group, person(&ann.id), &[], "before").await;
    let mut events = Events::open(&bob).await;
    let groups = events.expect("groups").await;
    assert_eq!(
        groups["groups"][0],
        json!({
            "group_id": group, "org_id": org, "title": "Plans", "is_private": false,
            "created_at": world.now().millis(), "status": "active", "status_at": null, "head": 10, "nth": 1, "unread": 1, "mentions": 0,
            "muted": false, "read_up_to": 0, "last_at": world.now().millis(),
        })
    );
    world.say(&group, person(&ann.id), &[&bob.id], "look").await;
    let told = events.expect("group").await;
    assert_eq!(
        (&told["head"], &told["unread"], &told["mentions"]),
        (&json!(20), &json!(2), &json!(1))
    );
    let root = format!("/api/groups/{group}");
    bob.put(&format!("{root}/read"), &json!({"up_to": 20})).await;
    let told = events.expect("group").await;
    assert_eq!((&told["unread"], &told["read_up_to"]), (&json!(0), &json!(20)));
    bob.put(&format!("{root}/preferences"), &json!({"muted": true})).await;
    assert_eq!(events.expect("group").await["muted"], true);
    ann.patch(&root, &json!({"title": "Old plans"})).await;
    assert_eq!(events.expect("group").await["title"], "Old plans");
    let other = ann.group(&org, "Other", None).await;
    assert_eq!(events.expect("group").await["group_id"], other);
}

#[tokio::test]
async fn what_somebody_may_see_no_longer_is_gone_at_once_and_comes_back_when_they_may() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let mut events = Events::open(&bob).await;
    events.expect("groups").await;
    let root = format!("/api/groups/{group}");
    ann.patch(&root, &json!({"is_private": true})).await;
    assert_eq!(events.expect("gone").await, json!({"group_id": group}));
    ann.put(&format!("{root}/members/{}", bob.id), &json!({})).await;
    assert_eq!(events.expect("group").await["group_id"], group);
    ann.delete(&format!("{root}/members/{}", bob.id)).await;
    assert_eq!(events.expect("gone").await, json!({"group_id": group}));
    let second = ann.group(&org, "Second", None).await;
    assert_eq!(events.expect("group").await["group_id"], second);
    let mut theirs = Events::open(&ann).await;
    theirs.expect("groups").await;
    ann.delete(&format!("/api/orgs/{org}/members/{}", bob.id)).await;
    assert_eq!(events.expect("gone").await, json!({"group_id": second}));
    ann.bring(&org, &mut bob).await;
    assert_eq!(events.expect("group").await["group_id"], second);
    ann.patch(&root, &json!({"title": "Only mine"})).await;
    assert_eq!(theirs.expect("group").await["title"], "Only mine");
}

#[tokio::test]
async fn what_one_process_changes_is_told_by_the_others() {
    let world = World::new().await;
    let (_, group, [mut ann, mut bob]) = two(&world).await;
    let second = world.second_app().await;
    let mut events = Events::open_on(&bob, second.clone()).await.unwrap();
    events.expect("groups").await;
    world.say(&group, person(&ann.id), &[], "here").await;
    assert_eq!(events.expect("group").await["unread"], 1);
    bob.put(&format!("/api/groups/{group}/read"), &json!({"up_to": 10})).await;
    assert_eq!(events.expect("group").await["unread"], 0);
    ann.patch(&format!("/api/groups/{group}"), &json!({"title": "New"})).await;
    assert_eq!(events.expect("group").await["title"], "New");
    bob.post("/api/auth/sign-out", &json!({})).await;
    events.ended().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_session_or_token_that_opened_it_and_no_other_does() {
    let world = World::new().await;
    let (_, _, [_, mut bob]) = two(&world).await;
    let body =
        json!({"email": "bob@example.org", "password": crate::support::PASSWORD, "bearer": true});
    let signed_in = world.browser().post("/api/auth/sign-in", &body).await;
    let mut program = world.browser();
    program.bearer = Some(signed_in.json["token"].as_str().unwrap().to_owned());
    let mut by_session = Events::open(&bob).await;
    let mut by_token = Events::open(&program).await;
    by_session.expect("groups").await;
    by_token.expect("groups").await;
    let tokens = bob.get("/api/tokens").await.json;
    let token = tokens[0]["token_id"].as_str().unwrap().to_owned();
    let deleted = bob.delete(&format!("/api/tokens/{token}")).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    by_token.ended().await;
    let org = bob.org("Mine").await;
    bob.group(&org, "Still there", None).await;
    assert_eq!(by_session.expect("group").await["title"], "Still there");
    bob.post("/api/auth/sign-out", &json!({})).await;
    by_session.ended().await;
    let refused = Events::open_on(&bob, world.router.clone()).await.err().unwrap();
    assert_eq!(refused.refusal(), (401, "unauthorized"));
}

#[tokio::test]
async fn a_stream_ends_when_its_session_does_by_itself() {
    let world = World::new().await;
    let (_, _, [_, bob]) = two(&world).await;
    let mut events = Events::open(&bob).await;
    events.expect("groups").await;
    world.pass(SESSION_TTL);
    events.ended().await;
}

#[tokio::test]
async fn a_stream_ends_with_a_password_that_an_operator_resets() {
    let world = World::new().await;
    let (_, _, [_, bob]) = two(&world).await;
    let mut events = Events::open(&bob).await;
    events.expect("groups").await;
    let (db, now) = (&*world.db, world.now());
    recovery::reset_password(db, "bob@example.org", "another password", now).await.unwrap();
    events.ended().await;
}

#[tokio::test]
async fn a_person_has_as_many_streams_as_the_limit_says() {
    let world = World::new().await;
    let (_, _, [ann, bob]) = two(&world).await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS_PER_USER {
        open.push(Events::open(&bob).await);
    }
    let refused = Events::open_on(&bob, world.router.clone()).await.err().unwrap();
    assert_eq!(refused.refusal(), (503, "overloaded"));
    assert_eq!(refused.json["limit"], MAX_STREAMS_PER_USER);
    assert!(refused.json["retry_after_ms"].as_u64().unwrap() > 0);
    Events::open(&ann).await.expect("groups").await;
    open.pop();
    Events::open(&bob).await.expect("groups").await;
}

#[tokio::test]
async fn a_foreign_page_opens_no_stream() {
    let world = World::new().await;
    let (_, _, [_, mut bob]) = two(&world).await;
    bob.origin = Some("http://evil.test");
    let refused = Events::open_on(&bob, world.router.clone()).await.err().unwrap();
    assert_eq!(refused.refusal(), (403, "bad_origin"));
    bob.origin = None;
    bob.extra = vec![("sec-fetch-site".parse().unwrap(), "cross-site".parse().unwrap())];
    let refused = Events::open_on(&bob, world.router.clone()).await.err().unwrap();
    assert_eq!(refused.refusal(), (403, "bad_origin"));
    bob.extra = vec![("sec-fetch-site".parse().unwrap(), "same-origin".parse().unwrap())];
    Events::open(&bob).await.expect("groups").await;
}

#[tokio::test]
async fn a_slow_reader_gets_the_latest_of_each_group_once() {
    let world = World::new().await;
    let (_, group, [ann, bob]) = two(&world).await;
    let mut slow = Events::open(&bob).await;
    let mut quick = Events::open(&bob).await;
    slow.expect("groups").await;
    quick.expect("groups").await;
    for count in 1..=20 {
        world.say(&group, person(&ann.id), &[], "x").await;
        while quick.expect("group").await["unread"] != count {}
    }
    assert_eq!(slow.expect("group").await["unread"], 20);
    assert!(STALLED_AFTER > Duration::from_secs(15), "a heartbeat comes first");
}

#[tokio::test]
async fn a_stopping_process_ends_its_streams_and_opens_none() {
    let world = World::new().await;
    let (_, _, [_, bob]) = two(&world).await;
    let mut events = Events::open(&bob).await;
    events.expect("groups").await;
    world.app.shutdown().await;
    events.ended().await;
    let refused = Events::open_on(&bob, world.router.clone()).await.err().unwrap();
    assert_eq!(refused.refusal(), (503, "unavailable"));
}
