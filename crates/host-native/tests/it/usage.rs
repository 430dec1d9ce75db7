//! What groups use reaches the Orchestrator: each run once, also after a crash, and nothing waits for
//! it.

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
use convene_model::{Timestamp, claims::service, keys::TrustedKeys};
use convene_storage::{GroupStore, SqliteDatabase, StoreOptions};
use convene_testing::forge::{Forged, Identity};
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
        Hop::in_process(
            Router::new()
                .route("/infra/cleanup", post(async || StatusCode::NO_CONTENT))
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
        Hop::in_process(Router::new().route("/invoke", post(invoke)))
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
        let init = json!({"org_id": "o1", "history_mode": "internal", "epoch": 1});
        self.call("POST", "/groups/g1/init", &init).await;
        let agents = json!([{"agent_id": "a1", "name": "Mate", "trigger": "mention"}]);
        let config = json!({"version": 1, "agents": agents});
        self.call("PUT", "/groups/g1/config", &config).await;
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
    assert!(told.sum("egress_bytes") < 40_000, "{}", told.sum("egress_bytes"));
    assert_eq!(host.controllers.awake(), 0);
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
