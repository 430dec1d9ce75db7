//! The controllers' own door: service tokens and routing tokens, each way of being wrong, and that
//! a refusal changes nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use convene_hop::{ConnectError, GroupLink, Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig};
use convene_model::{Code, Timestamp, claims::service, keys::TrustedKeys};
use convene_storage::{GroupStore, StoreOptions};
use convene_testing::forge::{Fault, Forged, Identity, OF_EVERY_TYPE};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The faults of a service token, which is bound to method and path but not to a body.
const OF_SERVICE_TOKENS: &[Fault] = &[
    Fault::MissingClaim("group_id"),
    Fault::MissingClaim("epoch"),
    Fault::MissingClaim("htm"),
    Fault::MissingClaim("htu"),
    Fault::WrongMethod,
    Fault::WrongPath,
];

/// The faults of a routing token by itself.
const OF_ROUTING_TOKENS: &[Fault] = &[
    Fault::MissingClaim("user_id"),
    Fault::MissingClaim("org_id"),
    Fault::MissingClaim("group_id"),
    Fault::MissingClaim("role"),
    Fault::MissingClaim("epoch"),
];

/// What a user may call with a routing token.
const USER_CALLS: [(&str, &str); 4] = [
    ("GET", "/groups/g1/history"),
    ("GET", "/groups/g1/messages/m1"),
    ("POST", "/groups/g1/search"),
    ("GET", "/groups/g1/ws"),
];

pub(crate) struct World {
    pub(crate) hop: Hop,
    pub(crate) controllers: Controllers,
    pub(crate) orchestrator: Identity,
    other: Identity,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) store: GroupStore,
    dir: TempDir,
}

impl World {
    /// Controllers with the group `g1` of `o1`.
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(1_800_000_000_000));
        let world = Self::on(tempfile::tempdir().unwrap(), clock, StoreOptions::default());
        let init = json!({"org_id": "o1", "history_mode": "internal", "epoch": 1});
        let (status, answer) = world.call("POST", "/groups/g1/init", &init, None).await;
        assert_eq!((status, &answer["head"]), (StatusCode::OK, &json!(1)));
        world
    }

    /// The same after a restart with other bounds.
    pub(crate) async fn restarted(self, options: StoreOptions) -> Self {
        self.controllers.shutdown().await;
        self.store.close();
        let Self { dir, clock, .. } = self;
        Self::on(dir, clock, options)
    }

    fn on(dir: TempDir, clock: Arc<AtomicU64>, options: StoreOptions) -> Self {
        let store = GroupStore::open(dir.path(), options, |why| panic!("{why}")).unwrap();
        let time = Arc::clone(&clock);
        let now: convene_hop::Clock =
            Arc::new(move || Timestamp::from_millis(time.load(Ordering::Relaxed)));
        let orchestrator = Identity::new(service::ORCHESTRATOR, 1);
        let other = Identity::new(service::APP, 2);
        let keys = TrustedKeys::of(orchestrator.issuer(), &orchestrator.key.jwks()).unwrap();
        keys.replace(other.issuer(), &other.key.jwks()).unwrap();
        let controllers = Controllers::new(
            store.clone(),
            ControllersConfig {
                signer: Signer::new(Identity::new(service::CONTROLLERS, 3).key, now),
                orchestrator_keys: keys,
                agents: Hop::in_process(Router::new()),
                idle_after: Duration::from_secs(3600),
            },
        );
        let hop = Hop::in_process(controllers.router());
        Self { hop, controllers, orchestrator, other, clock, store, dir }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::Relaxed))
    }

    pub(crate) fn service_token(&self, method: &str, path: &str) -> Forged {
        Forged::orchestrator(&self.orchestrator, self.now(), (method, path), "g1", 1)
    }

    pub(crate) fn routing_token(&self) -> Forged {
        Forged::routing(&self.orchestrator, self.now())
    }

    /// Calls with sound tokens.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        routing: Option<String>,
    ) -> (StatusCode, Value) {
        let token = self.service_token(method, path).encode();
        self.call_with(method, path, body, Some(token), routing).await
    }

    pub(crate) async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        token: Option<String>,
        routing: Option<String>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(routing) = routing {
            request = request.header("x-routing-token", routing);
        }
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        let response = self.hop.send(request).await.unwrap();
        let status = response.status();
        let body: Body = response.into_body();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Everything that the group remembers, as a number: each change has one.
    pub(crate) async fn head(&self) -> u64 {
        self.controllers.head(&"g1".parse().unwrap()).await.unwrap().seq
    }

    pub(crate) async fn open(&self) -> GroupLink {
        self.open_for(&self.routing_token().encode(), 1).await.unwrap()
    }

    /// Opens an upstream for whom a routing token names; the code of a refusal.
    pub(crate) async fn open_for(&self, routing: &str, epoch: u64) -> Result<GroupLink, Code> {
        let path = "/groups/g1/ws";
        let ours = self.service_token("GET", path).with("epoch", epoch).encode();
        let request = Request::get(path)
            .header("authorization", format!("Bearer {ours}"))
            .header("x-routing-token", routing)
            .body(Bytes::new())
            .unwrap();
        match self.hop.connect(request).await {
            Ok(link) => Ok(link),
            Err(ConnectError::Refused(problem)) => Err(problem.code),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn exchange(link: &mut GroupLink, frame: Value) -> Value {
    link.tx.send(Bytes::from(frame.to_string())).await.unwrap();
    serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap()
}

fn config(version: u64) -> Value {
    json!({"version": version, "agents": [{"agent_id": "a1", "name": "Guide", "trigger": "mention"}]})
}

#[tokio::test]
async fn a_service_token_with_any_fault_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let calls = [
        (
            "POST",
            "/groups/g1/init",
            json!({"org_id": "o1", "history_mode": "internal", "epoch": 1}),
        ),
        ("PUT", "/groups/g1/config", config(1)),
        ("POST", "/groups/g1/revoke", json!({"user_id": "u1"})),
        ("GET", "/groups/g1/history", json!(null)),
        ("GET", "/groups/g1/messages/m1", json!(null)),
        ("POST", "/groups/g1/search", json!({"query": "hello"})),
        ("GET", "/groups/g1/ws", json!(null)),
        ("POST", "/groups/g1/freeze", json!({"archive_id": "x1", "epoch": 1})),
        ("POST", "/groups/g1/thaw", json!({"archive_id": "x1", "epoch": 1})),
        (
            "POST",
            "/groups/g1/wipe",
            json!({"archive_id": "x1", "epoch": 1, "last_seq": 1, "checksum": "0".repeat(64)}),
        ),
        (
            "POST",
            "/groups/g1/import",
            json!({
                "import_id": "i1", "archive_id": "x1", "epoch": 1, "last_seq": 1,
                "chain": "0".repeat(64)
            }),
        ),
    ];
    for (method, path, body) in calls {
        for fault in OF_EVERY_TYPE.iter().chain(OF_SERVICE_TOKENS) {
            let sound = world.service_token(method, path);
            let token = fault.apply(&sound, &world.orchestrator, &world.other);
            let routing = Some(world.routing_token().encode());
            let (status, problem) = world.call_with(method, path, &body, token, routing).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} {fault:?}: {problem}");
            assert_eq!(problem["code"], fault.code(), "{method} {path} {fault:?}");
        }
        for (claim, value, code) in
            [("group_id", json!("g2"), "forbidden"), ("epoch", json!(2), "stale_epoch")]
        {
            let token = world.service_token(method, path).with(claim, value).encode();
            let routing = Some(world.routing_token().encode());
            let (status, problem) =
                world.call_with(method, path, &body, Some(token), routing).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {claim}: {problem}");
            assert_eq!(problem["code"], code, "{method} {path} {claim}");
        }
        assert_eq!(world.head().await, 1, "{method} {path}");
    }
    let (status, _) = world.call("PUT", "/groups/g1/config", &config(1), None).await;
    assert_eq!((status, world.head().await), (StatusCode::NO_CONTENT, 2));
}

#[tokio::test]
async fn a_routing_token_with_any_fault_is_refused_at_reads_at_the_upgrade_and_at_attach() {
    let world = World::new().await;
    let mut link = world.open().await;
    for fault in OF_EVERY_TYPE.iter().chain(OF_ROUTING_TOKENS) {
        let token = fault.apply(&world.routing_token(), &world.orchestrator, &world.other);
        for (method, path) in USER_CALLS {
            let (status, problem) = world.call(method, path, &json!(null), token.clone()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {fault:?}: {problem}");
        }
        let attach = json!({
            "type": "attach", "ref": "1", "conn": "c1", "token": token.unwrap_or_default()
        });
        let answer = exchange(&mut link, attach).await;
        assert_eq!(answer["code"], fault.code(), "{fault:?}: {answer}");
    }
    for (claim, value, code) in [
        ("group_id", json!("g2"), "forbidden"),
        ("org_id", json!("o2"), "forbidden"),
        ("epoch", json!(2), "stale_epoch"),
        ("epoch", json!(0), "stale_epoch"),
    ] {
        let token = world.routing_token().with(claim, value).encode();
        for (method, path) in USER_CALLS {
            let (status, problem) =
                world.call(method, path, &json!(null), Some(token.clone())).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {claim}: {problem}");
            assert_eq!(problem["code"], code, "{path} {claim}");
        }
        let attach = json!({"type": "attach", "ref": "1", "conn": "c1", "token": token});
        assert_eq!(exchange(&mut link, attach).await["code"], code, "{claim}");
    }
    let post =
        json!({"type": "post", "ref": "2", "conn": "c1", "message_id": "m1", "text": "let me in"});
    assert_eq!(exchange(&mut link, post).await["code"], "not_attached");
    assert_eq!(world.head().await, 1);
}

#[tokio::test]
async fn a_revoked_user_is_detached_and_only_a_later_token_lets_the_user_in_again() {
    let world = World::new().await;
    let mut link = world.open().await;
    let token = world.routing_token().encode();
    let attach = json!({"type": "attach", "ref": "1", "conn": "c1", "token": token});
    assert_eq!(exchange(&mut link, attach.clone()).await["type"], "attached");

    let (status, _) =
        world.call("POST", "/groups/g1/revoke", &json!({"user_id": "u1"}), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let frame: Value = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
        frames.push(frame);
    }
    assert_eq!(frames[0]["kind"], "access.revoked");
    assert_eq!(frames[1], json!({"type": "detached", "reason": "revoked", "user_id": "u1"}));
    assert_eq!(exchange(&mut link, attach).await["code"], "access_revoked");
    let (status, problem) =
        world.call("GET", "/groups/g1/history", &json!(null), Some(token)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("access_revoked")));

    world.clock.fetch_add(1000, Ordering::Relaxed);
    let fresh = world.routing_token().encode();
    let attach = json!({"type": "attach", "ref": "1", "conn": "c1", "token": fresh});
    assert_eq!(exchange(&mut link, attach).await["type"], "attached");
}

#[tokio::test]
async fn a_group_that_was_never_activated_is_not_found_and_a_raised_epoch_voids_what_was() {
    let world = World::new().await;
    let path = "/groups/g9/config";
    let token = Forged::orchestrator(&world.orchestrator, world.now(), ("PUT", path), "g9", 1);
    let (status, problem) =
        world.call_with("PUT", path, &config(1), Some(token.encode()), None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("group_not_found")));

    let mut link = world.open().await;
    let attach = json!({
        "type": "attach", "ref": "1", "conn": "c1", "token": world.routing_token().encode()
    });
    assert_eq!(exchange(&mut link, attach.clone()).await["type"], "attached");
    let path = "/groups/g1/init";
    let token = world.service_token("POST", path).with("epoch", 2).encode();
    let init = json!({"org_id": "o1", "history_mode": "internal", "epoch": 2});
    let (status, answer) = world.call_with("POST", path, &init, Some(token), None).await;
    assert_eq!((status, &answer["epoch"]), (StatusCode::OK, &json!(2)));
    let frame: Value = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
    assert_eq!(frame["kind"], "group.epoch_raised");
    let frame: Value = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
    assert_eq!(frame["reason"], "epoch_raised");
    assert!(link.rx.recv().await.is_none(), "the upstream is of the former epoch");
    let old = world.routing_token().encode();
    assert_eq!(world.open_for(&old, 2).await.unwrap_err(), Code::StaleEpoch);
    let new = world.routing_token().with("epoch", 2).encode();
    let mut link = world.open_for(&new, 2).await.unwrap();
    assert_eq!(exchange(&mut link, attach).await["code"], "stale_epoch");
    let attach = json!({"type": "attach", "ref": "2", "conn": "c1", "token": new});
    assert_eq!(exchange(&mut link, attach).await["type"], "attached");
}

#[tokio::test]
async fn a_body_with_an_unknown_member_or_too_much_is_refused() {
    let world = World::new().await;
    let mut unknown = config(1);
    unknown["surprise"] = json!(1);
    let (status, problem) = world.call("PUT", "/groups/g1/config", &unknown, None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    let large = json!({"user_id": "x".repeat(convene_model::limits::MAX_BODY_BYTES)});
    let (status, problem) = world.call("POST", "/groups/g1/revoke", &large, None).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    for query in ["around=1&before=2", "around=1&after=2", "around=x"] {
        let routing = Some(world.routing_token().encode());
        let token = world.service_token("GET", "/groups/g1/history").encode();
        let path = format!("/groups/g1/history?{query}");
        let (status, _) = world.call_with("GET", &path, &json!(null), Some(token), routing).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    for limit in ["0", "201", "x"] {
        let routing = Some(world.routing_token().encode());
        let token = world.service_token("GET", "/groups/g1/history").encode();
        let path = format!("/groups/g1/history?limit={limit}");
        let (status, _) = world.call_with("GET", &path, &json!(null), Some(token), routing).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "limit {limit}");
    }
    assert_eq!(world.head().await, 1);
}

#[tokio::test]
async fn a_run_of_the_group_may_search_it_and_no_other() {
    let world = World::new().await;
    let own = Identity::new(service::CONTROLLERS, 3);
    let sound = Forged::agent_access(&own, world.now());
    let search = |run: Option<String>| {
        let token = world.service_token("POST", "/groups/g1/search").encode();
        let mut request =
            Request::post("/groups/g1/search").header("authorization", format!("Bearer {token}"));
        if let Some(run) = run {
            request = request.header("x-run-token", run);
        }
        let request = request.body(Bytes::from_static(b"{\"query\":\"hello\"}")).unwrap();
        let hop = world.hop.clone();
        async move { hop.send(request).await.unwrap().status() }
    };
    assert_eq!(search(Some(sound.encode())).await, StatusCode::OK);
    assert_eq!(search(None).await, StatusCode::UNAUTHORIZED);
    for fault in OF_EVERY_TYPE {
        // It is honoured past its own end, until the run's.
        if *fault != Fault::Expired {
            let run = fault.apply(&sound, &own, &world.other).unwrap_or_default();
            assert_eq!(search(Some(run)).await, StatusCode::UNAUTHORIZED, "{fault:?}");
        }
    }
    let over = sound.clone().with("run_exp", world.now().secs() - 6).encode();
    assert_eq!(search(Some(over)).await, StatusCode::UNAUTHORIZED);
    let elsewhere = sound.with("group_id", "g2").encode();
    assert_eq!(search(Some(elsewhere)).await, StatusCode::FORBIDDEN);
    assert_eq!(world.head().await, 1);
}

#[tokio::test]
async fn a_message_and_a_search_answer_with_what_was_posted() {
    let world = World::new().await;
    let mut link = world.open().await;
    let token = world.routing_token().encode();
    let attach = json!({"type": "attach", "ref": "1", "conn": "c1", "token": token});
    assert_eq!(exchange(&mut link, attach).await["type"], "attached");
    let post = json!({
        "type": "post", "ref": "2", "conn": "c1", "message_id": "m1", "text": "Is the café open?"
    });
    let mut answer = exchange(&mut link, post).await;
    while answer["type"] != "ok" {
        answer = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
    }
    let user = || Some(world.routing_token().encode());
    let search = |query: Value| {
        let routing = user();
        let world = &world;
        async move { world.call("POST", "/groups/g1/search", &query, routing).await }
    };

    let path = "/groups/g1/messages/m1";
    let (status, detail) = world.call("GET", path, &json!(null), user()).await;
    assert_eq!((status, &detail["message"]["text"]), (StatusCode::OK, &json!("Is the café open?")));
    assert_eq!(detail["revisions"], json!([]));
    for path in ["/groups/g1/messages/m2", "/groups/g1/messages/a.b"] {
        let (status, problem) = world.call("GET", path, &json!(null), user()).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::NOT_FOUND, &json!("message_not_found"))
        );
    }

    let (status, page) = search(json!({"query": "CAFE"})).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_eq!(page["hits"][0]["message"], detail["message"]);
    let pieces = json!([{"text": "Is the "}, {"text": "café", "hit": true}, {"text": " open?"}]);
    assert_eq!((&page["hits"][0]["snippet"], &page["more"]), (&pieces, &json!(false)));
    for (query, status, code) in [
        (json!({"query": "?"}), StatusCode::UNPROCESSABLE_ENTITY, "validation_failed"),
        (json!({"query": "a".repeat(201)}), StatusCode::UNPROCESSABLE_ENTITY, "validation_failed"),
        (json!({"query": "a ".repeat(17)}), StatusCode::UNPROCESSABLE_ENTITY, "validation_failed"),
        (json!({"query": "a", "limit": 0}), StatusCode::BAD_REQUEST, "invalid_request"),
        (json!({"query": "a", "limit": 51}), StatusCode::BAD_REQUEST, "invalid_request"),
        (json!({"query": "a", "surprise": 1}), StatusCode::BAD_REQUEST, "invalid_request"),
        (json!({}), StatusCode::BAD_REQUEST, "invalid_request"),
    ] {
        let (refused, problem) = search(query.clone()).await;
        assert_eq!((refused, &problem["code"]), (status, &json!(code)), "{query}");
    }
    for query in [
        json!({"query": "a".repeat(200)}),
        json!({"query": "a ".repeat(16)}),
        json!({"query": "a", "limit": 1}),
        json!({"query": "a", "limit": 50}),
    ] {
        assert_eq!(search(query.clone()).await.0, StatusCode::OK, "{query}");
    }
}

/// Posts that are under way on an upstream that keeps up.
const UNDER_WAY: usize = 32;

#[tokio::test]
async fn an_upstream_that_does_not_read_is_let_go_with_4008_and_the_others_notice_nothing() {
    let world = World::new().await;
    let mut slow = world.open().await;
    let mut reader = world.open().await;
    let token = world.routing_token().encode();
    let attach = json!({"type": "attach", "ref": "a", "conn": "c1", "token": token});
    let attached = exchange(&mut reader, attach).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    let posts = convene_hop::LINK_QUEUE_FRAMES + 1;
    let post = |number: usize| {
        let id = format!("m{number}");
        json!({"type": "post", "ref": id, "conn": "c1", "message_id": id, "text": "x"}).to_string()
    };
    let GroupLink { tx, mut rx, .. } = reader;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < posts {
        // Few enough under way that this upstream never falls behind itself.
        while sent < posts && sent < acknowledged + UNDER_WAY {
            tx.send(Bytes::from(post(sent))).await.unwrap();
            sent += 1;
        }
        let frame: Value = serde_json::from_slice(&rx.recv().await.unwrap()).unwrap();
        assert_ne!(frame["type"], "error", "{frame}");
        acknowledged += usize::from(frame["type"] == "ok");
    }
    let mut passed = 0;
    while slow.rx.recv().await.is_some() {
        passed += 1;
    }
    assert!(passed <= convene_hop::LINK_QUEUE_FRAMES, "{passed}");
    assert_eq!(slow.close.heard().map(|close| close.code), Some(4008));
}
