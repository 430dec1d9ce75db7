//! What groups use reaches the Orchestrator: each run once, also after a crash, and nothing waits for
//! it. What they may use comes from there: runs have leave before they start, whoever goes beyond a rate
//! is refused, and a group that has sent as much as it may is closed.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes as Body,
    extract::{Path as Segments, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use bytes::Bytes;
use convene_db::{Database, Statement, params};
use convene_hop::{GroupLink, Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig};
use convene_model::{
    Problem, Timestamp, claims::service, keys::TrustedKeys, limits::COMPACT_MESSAGES,
};
use convene_storage::{GroupStore, SqliteDatabase, StoreOptions};
use convene_testing::{
    client::Person,
    forge::{Forged, Identity},
};
use http::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

const NEVER: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    convene_host_native::clock::system()()
}

/// An Orchestrator that writes down what it is told, and an Agents Worker that answers at once.
#[derive(Clone, Default)]
pub(crate) struct Told {
    /// Reports by their keys, with how often they came.
    reports: Arc<Mutex<BTreeMap<String, (Value, u32)>>>,
    away: Arc<AtomicBool>,
    /// What is answered to runs that want to start; nothing for no budget.
    budget: Arc<Mutex<Option<Value>>>,
    /// Runs that asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Told {
    fn orchestrator(&self) -> Hop {
        async fn report(
            State(told): State<Told>,
            Segments(group): Segments<String>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> StatusCode {
            assert_eq!(group, "g1");
            if told.away.load(Ordering::SeqCst) {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let mut reports = told.reports.lock();
            let (first, times) = reports.entry(key).or_insert((body.clone(), 0));
            assert_eq!(*first, body, "a key has one report");
            *times += 1;
            StatusCode::NO_CONTENT
        }
        async fn reserve(
            State(told): State<Told>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> (StatusCode, Json<Value>) {
            let run = body["run_id"].as_str().unwrap().to_owned();
            assert_eq!(headers["idempotency-key"], format!("run-{run}"));
            told.asked.lock().push(run.clone());
            if told.away.load(Ordering::SeqCst) {
                return (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null));
            }
            let until = now().millis() + 60_000;
            match &*told.budget.lock() {
                None => {
                    let answer = json!({"run_id": run, "tokens": 0, "unlimited_until": until});
                    (StatusCode::OK, Json(answer))
                }
                Some(problem) if problem.is_null() => {
                    let answer = json!({"run_id": run, "tokens": 200_000, "expires_at": until});
                    (StatusCode::OK, Json(answer))
                }
                Some(problem) => (StatusCode::PAYMENT_REQUIRED, Json(problem.clone())),
            }
        }
        Hop::in_process(
            Router::new()
                .route("/infra/cleanup", post(async || StatusCode::NO_CONTENT))
                .route(
                    "/infra/groups/{id}/release-resources",
                    post(async || StatusCode::NO_CONTENT),
                )
                .route("/infra/groups/{id}/reserve", post(reserve))
                .route("/infra/groups/{id}/usage", post(report))
                .with_state(self.clone()),
        )
    }

    fn agents() -> Hop {
        async fn invoke(_: Body) -> impl IntoResponse {
            let delta = json!({"type": "delta", "offset": 0, "text": "Aye."});
            let usage = json!({"input_tokens": 40, "output_tokens": 2, "egress_bytes": 9});
            let end = json!({"type": "finished", "status": "completed", "usage": usage});
            format!("data: {delta}\n\ndata: {end}\n\n")
        }
        async fn summarize(_: Body) -> Json<Value> {
            let usage = json!({"input_tokens": 900, "output_tokens": 30});
            Json(json!({"text": "They were ready.", "usage": usage}))
        }
        let router = Router::new().route("/invoke", post(invoke));
        Hop::in_process(router.route("/summarize", post(summarize)))
    }

    fn runs(&self) -> Vec<(String, Value, u32)> {
        let reports = self.reports.lock();
        let runs = reports.iter().filter(|(key, _)| key.starts_with("run-"));
        runs.map(|(key, (body, times))| (key.clone(), body.clone(), *times)).collect()
    }

    /// Waits until so many runs were reported.
    async fn until_runs(&self, count: usize) -> Vec<(String, Value, u32)> {
        while self.runs().len() < count {
            sleep(Duration::from_millis(2)).await;
        }
        self.runs()
    }

    /// The sum of a figure over all reports.
    fn sum(&self, figure: &str) -> u64 {
        let reports = self.reports.lock();
        reports.values().map(|(body, _)| body[figure].as_u64().unwrap_or(0)).sum()
    }
}

struct Host {
    controllers: Controllers,
    hop: Hop,
    store: GroupStore,
    orchestrator: Identity,
}

impl Host {
    fn open(dir: &Path, idle_after: Duration) -> Self {
        let store =
            GroupStore::open(&dir.join("groups"), StoreOptions::default(), |why| panic!("{why}"));
        let store = store.unwrap();
        let orchestrator = Identity::new(service::ORCHESTRATOR, 1);
        let config = ControllersConfig {
            signer: Signer::new(Identity::new(service::CONTROLLERS, 3).key, Arc::new(now)),
            orchestrator_keys: TrustedKeys::of(orchestrator.issuer(), &orchestrator.key.jwks())
                .unwrap(),
            agents: Told::agents(),
            idle_after,
        };
        let controllers = Controllers::new(store.clone(), config);
        let hop = Hop::in_process(controllers.router());
        Self { controllers, hop, store, orchestrator }
    }

    async fn start(dir: &Path, told: &Told, idle_after: Duration) -> Self {
        let host = Self::open(dir, idle_after);
        host.controllers.report_to(told.orchestrator(), Arc::new(notes(dir))).await.unwrap();
        host
    }

    /// Brings the group to life, with an agent.
    async fn init(&self) {
        self.limit(&json!({})).await;
        let agents = json!([{"agent_id": "a1", "name": "Mate", "trigger": "mention"}]);
        let config = json!({"version": 1, "agents": agents});
        self.call("PUT", "/groups/g1/config", &config).await;
    }

    /// What the Orchestrator says when limits are set.
    async fn limit(&self, limits: &Value) {
        let init =
            json!({"org_id": "o1", "history_mode": "internal", "epoch": 1, "limits": limits});
        self.call("POST", "/groups/g1/init", &init).await;
    }

    async fn call(&self, method: &str, path: &str, body: &Value) {
        let token = Forged::orchestrator(&self.orchestrator, now(), (method, path), "g1", 1);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", token.encode()))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        self.hop.call(request, 1 << 20).await.unwrap();
    }

    /// Reads something of the group for a user: how many bytes it was.
    async fn read(&self, path: &str) -> Result<u64, Problem> {
        let token = Forged::orchestrator(&self.orchestrator, now(), ("GET", path), "g1", 1);
        let request = Request::get(path)
            .header("authorization", format!("Bearer {}", token.encode()))
            .header("x-routing-token", Forged::routing(&self.orchestrator, now()).encode())
            .body(Bytes::new())
            .unwrap();
        Ok(self.hop.call(request, 1 << 20).await?.len() as u64)
    }

    async fn attach(&self) -> GroupLink {
        let mut link = self.controllers.open(&"g1".parse().unwrap()).await.unwrap();
        let token = Forged::routing(&self.orchestrator, now()).encode();
        let attach = json!({"type": "attach", "ref": "a", "conn": "c", "token": token});
        send(&link, &attach).await;
        until(&mut link, |frame| frame["type"] == "attached").await;
        link
    }

    async fn stop(self) {
        self.controllers.shutdown().await;
        self.store.close();
    }
}

fn notes(dir: &Path) -> SqliteDatabase {
    SqliteDatabase::open(dir.join("lifecycle.db")).unwrap()
}

async fn execute(dir: &Path, sql: &'static str) -> u64 {
    notes(dir).execute(Statement::new(sql, params![])).await.unwrap()
}

async fn send(link: &GroupLink, frame: &Value) {
    link.tx.send(Bytes::from(frame.to_string())).await.unwrap();
}

async fn until(link: &mut GroupLink, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let frame: Value = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
        if wanted(&frame) {
            return frame;
        }
    }
}

/// Has the agent answer, and returns the event of the run's end.
async fn mention(link: &mut GroupLink, message_id: &str) -> Value {
    let post = json!({
        "type": "post", "ref": "p", "conn": "c", "message_id": message_id, "text": "@Mate, ready?",
    });
    send(link, &post).await;
    until(link, |frame| frame["kind"] == "run.finished").await
}

fn key_of(finished: &Value) -> String {
    format!("run-{}", finished["seq"])
}

#[tokio::test]
async fn each_run_is_reported_once_under_the_number_of_its_end() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    let mut keys = Vec::new();
    for nth in 0..3 {
        let finished = mention(&mut link, &format!("m{nth}")).await;
        assert_eq!(finished["status"], "completed", "{finished}");
        keys.push(key_of(&finished));
    }
    let runs = told.until_runs(3).await;
    for (key, body, times) in &runs {
        assert!(keys.contains(key), "{key} is none of {keys:?}");
        assert_eq!((&body["runs"], *times), (&json!(1), 1));
        assert_eq!(body["tokens"], json!({"input_tokens": 40, "output_tokens": 2}));
        assert_eq!(body["egress_bytes"], 9);
        assert!(body["run_id"].as_str().unwrap().starts_with('r'));
    }
    let totals = host.controllers.usage();
    assert_eq!((totals.runs, totals.input_tokens, totals.output_tokens), (3, 120, 6));
    host.stop().await;
}

#[tokio::test]
async fn what_leaves_for_clients_and_how_long_a_group_was_awake_is_reported_when_it_sleeps() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, Duration::from_millis(1_100)).await;
    host.init().await;
    let mut link = host.attach().await;
    let posted = json!({
        "type": "post", "ref": "p", "conn": "c", "message_id": "m1", "text": "x".repeat(20_000),
    });
    send(&link, &posted).await;
    until(&mut link, |frame| frame["kind"] == "message.posted").await;
    drop(link);
    while told.sum("egress_bytes") < 20_000 || told.sum("active_secs") < 1 {
        sleep(Duration::from_millis(10)).await;
    }
    let sent = told.sum("egress_bytes");
    assert!(sent < 40_000, "{sent}");
    assert_eq!(host.controllers.awake(), 0);
    let mut read = 0;
    for path in ["/groups/g1/history", "/groups/g1/messages/m1", "/groups/g1/messages/m1/why"] {
        read += host.read(path).await.unwrap();
    }
    assert!(read > 40_000, "the text was read twice: {read}");
    while told.sum("egress_bytes") < sent + read {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told.sum("egress_bytes"), sent + read);
    host.stop().await;
}

#[tokio::test]
async fn reports_wait_for_the_orchestrator_over_a_restart_and_arrive_once() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    told.away.store(true, Ordering::SeqCst);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    let key = key_of(&mention(&mut link, "m1").await);
    host.stop().await;
    assert_eq!(told.runs(), []);

    told.away.store(false, Ordering::SeqCst);
    let host = Host::start(dir.path(), &told, NEVER).await;
    let runs = told.until_runs(1).await;
    assert_eq!((runs[0].0.as_str(), runs[0].2), (key.as_str(), 1));
    while host.controllers.usage().unsent > 0 {
        sleep(Duration::from_millis(2)).await;
    }
    host.stop().await;
    assert_eq!(execute(dir.path(), "DELETE FROM usage_outbox").await, 0, "nothing is left");
}

#[tokio::test]
async fn the_end_of_a_run_that_a_crash_kept_from_the_outbox_is_found_again_under_its_key() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    let first = key_of(&mention(&mut link, "m1").await);
    told.until_runs(1).await;
    let second = key_of(&mention(&mut link, "m2").await);
    told.until_runs(2).await;
    host.stop().await;

    // As a process leaves it that dies after the commit of the second end and before its note.
    let back = "UPDATE usage_marks SET seq = seq - 1";
    assert_eq!(execute(dir.path(), back).await, 1);
    execute(dir.path(), "DELETE FROM usage_outbox").await;
    told.reports.lock().clear();

    let host = Host::start(dir.path(), &told, NEVER).await;
    let runs = told.until_runs(1).await;
    host.stop().await;
    let found: Vec<_> = runs.iter().map(|(key, ..)| key).collect();
    assert_eq!(found, [&second], "{first} is behind the mark");
}

#[tokio::test]
async fn where_there_is_no_budget_one_run_a_minute_asks_for_all() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    for nth in 0..3 {
        let finished = mention(&mut link, &format!("m{nth}")).await;
        assert_eq!(finished["status"], "completed", "{finished}");
    }
    assert_eq!(told.asked.lock().len(), 1);
    host.stop().await;
}

#[tokio::test]
async fn where_there_is_a_budget_each_run_asks_and_without_room_it_ends_and_the_next_is_suppressed()
{
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    *told.budget.lock() = Some(Value::Null);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    for nth in 0..2 {
        let finished = mention(&mut link, &format!("m{nth}")).await;
        assert_eq!(finished["status"], "completed", "{finished}");
    }
    assert_eq!(told.asked.lock().len(), 2);
    let exhausted = convene_model::Problem::new(convene_model::Code::BudgetExhausted);
    *told.budget.lock() = Some(serde_json::to_value(exhausted).unwrap());
    let finished = mention(&mut link, "m2").await;
    assert_eq!(
        (&finished["status"], &finished["code"]),
        (&json!("failed"), &json!("budget_exhausted"))
    );
    let runs = told.until_runs(3).await;
    let refused = runs.iter().find(|(key, ..)| *key == key_of(&finished)).unwrap();
    let nothing = json!({"input_tokens": 0, "output_tokens": 0});
    assert_eq!((&refused.1["runs"], &refused.1["tokens"]), (&json!(0), &nothing));

    let post = json!({
        "type": "post", "ref": "p", "conn": "c", "message_id": "m3", "text": "@Mate, and now?",
    });
    send(&link, &post).await;
    let decided = until(&mut link, |frame| frame["kind"] == "trigger.decided").await;
    assert_eq!(decided["candidates"][0]["reason"], "budget", "{decided}");
    assert_eq!(told.asked.lock().len(), 3);
    host.stop().await;
}

#[tokio::test]
async fn where_there_is_a_budget_a_summary_is_reserved_and_settled_like_a_run() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    *told.budget.lock() = Some(Value::Null);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    assert_eq!(mention(&mut link, "m0").await["status"], "completed");
    for nth in 1..COMPACT_MESSAGES {
        let post = json!({
            "type": "post", "ref": "p", "conn": "c", "message_id": format!("m{nth}"), "text": "Aye",
        });
        send(&link, &post).await;
    }
    let recorded = until(&mut link, |frame| frame["kind"] == "summary.recorded").await;
    let name = &recorded["run_id"];
    assert_eq!((&recorded["by"], name.is_string()), (&json!("model"), true), "{recorded}");
    assert_eq!(told.asked.lock().len(), 2, "the run and the summary");
    assert_eq!(told.asked.lock().last().map(String::as_str), name.as_str());
    let runs = told.until_runs(2).await;
    let (_, body, times) = runs.iter().find(|(key, ..)| *key == key_of(&recorded)).unwrap();
    assert_eq!((&body["run_id"], &body["runs"], *times), (name, &json!(0), 1));
    assert_eq!(body["tokens"], json!({"input_tokens": 900, "output_tokens": 30}));
    host.stop().await;
}

#[tokio::test]
async fn with_the_orchestrator_away_no_run_starts() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    told.away.store(true, Ordering::SeqCst);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    let finished = mention(&mut link, "m1").await;
    assert_eq!(
        (&finished["code"], &finished["attempt"]),
        (&json!("budget_unavailable"), &json!(0))
    );
    assert!(told.asked.lock().len() > 1, "it is asked again before the run is given up");
    told.away.store(false, Ordering::SeqCst);
    assert_eq!(mention(&mut link, "m2").await["status"], "completed");
    host.stop().await;
}

#[tokio::test]
async fn a_run_that_waits_for_leave_when_the_process_ends_starts_in_the_next_one() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    told.away.store(true, Ordering::SeqCst);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let link = host.attach().await;
    let post = json!({
        "type": "post", "ref": "p", "conn": "c", "message_id": "m1", "text": "@Mate, ready?",
    });
    send(&link, &post).await;
    while told.asked.lock().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    host.stop().await;
    told.away.store(false, Ordering::SeqCst);
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.controllers.wake_due().await.unwrap();
    let runs = told.until_runs(1).await;
    assert_eq!(runs[0].1["runs"], 1, "it ran");
    host.stop().await;
}

#[tokio::test]
async fn who_posts_or_attaches_too_often_is_told_when_to_come_back_and_operators_hear_of_it() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, Duration::from_millis(300)).await;
    host.init().await;
    host.limit(&json!({"user_posts_per_minute": 2, "user_attaches_per_minute": 1})).await;
    let mut link = host.attach().await;
    let post = async |link: &mut GroupLink, nth: usize| {
        let message_id = format!("m{nth}");
        let frame = json!({
            "type": "post", "ref": "p", "conn": "c", "message_id": message_id, "text": "hello",
        });
        send(link, &frame).await;
        until(link, |frame| frame["ref"] == "p").await
    };
    for nth in 0..2 {
        assert_eq!(post(&mut link, nth).await["type"], "ok");
    }
    let refused = post(&mut link, 2).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("rate_limited")));
    let retry = refused["retry_after_ms"].as_u64().unwrap();
    assert!((1..=30_000).contains(&retry), "{retry}");

    let token = Forged::routing(&host.orchestrator, now()).encode();
    let attach = json!({"type": "attach", "ref": "b", "conn": "d", "token": token});
    send(&link, &attach).await;
    let refused = until(&mut link, |frame| frame["ref"] == "b").await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");

    // Another user of the organization has a rate of its own.
    let token = Forged::routing(&host.orchestrator, now()).with("user_id", "u2").encode();
    send(&link, &json!({"type": "attach", "ref": "e", "conn": "e", "token": token})).await;
    until(&mut link, |frame| frame["type"] == "attached" && frame["ref"] == "e").await;

    let refused = || {
        let reports = told.reports.lock();
        let all = reports.values().flat_map(|(body, _)| body["refused"].as_array().cloned());
        let all = all.flatten().map(|refused| {
            assert_eq!((&refused["user_id"], &refused["count"]), (&json!("u1"), &json!(1)));
            refused["kind"].as_str().unwrap().to_owned()
        });
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    };
    while refused() != ["attaches", "posts"] {
        sleep(Duration::from_millis(10)).await;
    }
    host.limit(&json!({})).await;
    assert_eq!(post(&mut link, 3).await["type"], "ok", "without limits nothing is counted");
    host.stop().await;
}

#[tokio::test]
async fn a_group_that_has_sent_as_much_as_it_may_closes_and_opens_when_it_may_again() {
    let dir = TempDir::new().unwrap();
    let told = Told::default();
    let host = Host::start(dir.path(), &told, NEVER).await;
    host.init().await;
    let mut link = host.attach().await;
    let until = now().millis() + 3_600_000;
    host.limit(&json!({"egress_until": until})).await;
    while link.rx.recv().await.is_some() {}
    assert_eq!(link.close.heard().map(|close| close.code), Some(4011));
    let refused = host.controllers.open(&"g1".parse().unwrap()).await.expect_err("it is closed");
    assert_eq!((refused.status, refused.code.as_str()), (402, "egress_exhausted"));
    assert_eq!(refused.extra["resets_at"], until);
    let unread = host.read("/groups/g1/history").await.expect_err("it is closed");
    assert_eq!((unread.code, &unread.extra["resets_at"]), (refused.code, &json!(until)));
    host.limit(&json!({"egress_until": now().millis() - 1})).await;
    host.read("/groups/g1/history").await.unwrap();
    host.attach().await;
    host.stop().await;
}

#[tokio::test]
async fn owners_see_what_their_workspace_has_used_and_members_do_not() {
    let dir = TempDir::new().unwrap();
    let node = crate::convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Ship").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Deck").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    socket.post("m1", "@Guide hello?").await;
    socket.event("run.finished").await;
    let path = format!("/api/orgs/{org}/usage");
    let usage = loop {
        let (status, usage) = ana.get(&path).await;
        assert_eq!(status, 200, "{usage}");
        if usage["runs"] == 1 {
            break usage;
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (&usage["groups"][0]["group_id"], &usage["active_groups"]),
        (&json!(group), &json!(1))
    );
    assert_eq!(usage["peak_active_groups"], 1);
    assert_eq!(ben.get(&path).await.0, 403);
    assert_eq!(ana.get(&format!("{path}?limit=0")).await.0, 422);
    assert_eq!(node.stop().await, Some(0));
}
