//! Runs of agents over the controllers' host: what a worker says reaches the group, what waits for a
//! person outlives the process, and each run ends once.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::post};
use bytes::Bytes;
use convene_hop::{GroupLink, Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig};
use convene_model::{
    GroupId, Timestamp,
    agents::{
        Approvers, InvokeEvent, InvokeRequest, Outcome, ToolRequest, ToolStatus, Verdict, call_hash,
    },
    claims::{AgentAccessClaims, service},
    history::HistoryQuery,
    infra::{HistoryMode, InitRequest},
    keys::TrustedKeys,
    token,
};
use convene_storage::{GroupStore, StoreOptions};
use convene_testing::forge::{Forged, Identity};
use http::{HeaderMap, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

fn now() -> Timestamp {
    convene_host_native::clock::system()()
}

fn group() -> GroupId {
    "g1".parse().unwrap()
}

/// An Agents Worker that says what it was told to say, one script for each call.
#[derive(Default)]
struct Worker {
    scripts: Mutex<VecDeque<Vec<InvokeEvent>>>,
    calls: Mutex<Vec<InvokeRequest>>,
    initiators: Mutex<Vec<Option<String>>>,
}

async fn answer(
    State(worker): State<Arc<Worker>>,
    headers: HeaderMap,
    Json(request): Json<InvokeRequest>,
) -> String {
    let token = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let keys = Identity::new(service::CONTROLLERS, 3);
    let keys = TrustedKeys::of(keys.issuer(), &keys.key.jwks()).unwrap();
    let verified =
        token::verify::<AgentAccessClaims>(&keys, service::AGENTS, token, now()).unwrap();
    worker.initiators.lock().push(verified.claims.initiator.map(|user| user.to_string()));
    worker.calls.lock().push(request);
    let script = worker.scripts.lock().pop_front().expect("a call that was expected");
    let event = |event| format!("data: {}\n\n", serde_json::to_string(event).unwrap());
    script.iter().map(event).collect()
}

fn delta(offset: u64, text: &str) -> InvokeEvent {
    InvokeEvent::Delta { offset, text: text.to_owned() }
}

fn completed() -> InvokeEvent {
    InvokeEvent::Finished(Outcome::Completed { usage: None })
}

fn asks() -> InvokeEvent {
    let call = ToolRequest {
        call_id: "t1".parse().unwrap(),
        tool: "send".to_owned(),
        tool_version: 1,
        arguments: "{}".to_owned(),
        hash: call_hash("send", 1, &json!({}), "{}"),
        approvers: Some(Approvers::Initiator),
    };
    InvokeEvent::Finished(Outcome::ToolRequested {
        calls: vec![call],
        continuation: "for the worker alone".to_owned(),
        usage: None,
    })
}

/// Controllers on a directory, and a worker that outlives them.
struct Host {
    controllers: Controllers,
    store: GroupStore,
    orchestrator: Identity,
    worker: Arc<Worker>,
    dir: TempDir,
}

impl Host {
    fn start(dir: TempDir, worker: Arc<Worker>) -> Self {
        let path: &Path = &dir.path().join("groups");
        let store = GroupStore::open(path, StoreOptions::default(), |why| panic!("{why}")).unwrap();
        let orchestrator = Identity::new(service::ORCHESTRATOR, 1);
        let router = Router::new().route("/invoke", post(answer)).with_state(Arc::clone(&worker));
        let config = ControllersConfig {
            signer: Signer::new(Identity::new(service::CONTROLLERS, 3).key, Arc::new(now)),
            orchestrator_keys: TrustedKeys::of(orchestrator.issuer(), &orchestrator.key.jwks())
                .unwrap(),
            agents: Hop::in_process(router),
            idle_after: Duration::from_millis(100),
        };
        let controllers = Controllers::new(store.clone(), config);
        Self { controllers, store, orchestrator, worker, dir }
    }

    /// A group with the agent `Guide`, and a worker that says these things.
    async fn with(scripts: Vec<Vec<InvokeEvent>>) -> Self {
        let worker = Worker { scripts: Mutex::new(scripts.into()), ..Worker::default() };
        let host = Self::start(tempfile::tempdir().unwrap(), Arc::new(worker));
        let org_id = "o1".parse().unwrap();
        let request = InitRequest {
            org_id,
            history_mode: HistoryMode::Internal,
            epoch: 1,
            limits: Default::default(),
        };
        host.controllers.init(&group(), request).await.unwrap();
        let config = json!({
            "version": 1,
            "agents": [{"agent_id": "a1", "name": "Guide", "trigger": "mention"}],
        });
        let path = "/groups/g1/config";
        let token = Forged::orchestrator(&host.orchestrator, now(), ("PUT", path), "g1", 1);
        let request = Request::put(path)
            .header("authorization", format!("Bearer {}", token.encode()))
            .body(Bytes::from(config.to_string()))
            .unwrap();
        let answer = Hop::in_process(host.controllers.router()).send(request).await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        host
    }

    async fn restarted(self) -> Self {
        self.controllers.shutdown().await;
        self.store.close();
        Self::start(self.dir, self.worker)
    }

    /// A connection of the user of a routing token, and what it is told when it attaches.
    async fn attach(&self) -> (GroupLink, Value) {
        let mut link = self.controllers.open(&group()).await.unwrap();
        let token = Forged::routing(&self.orchestrator, now());
        let attach = json!({"type": "attach", "ref": "a", "conn": "c", "token": token.encode()});
        send(&link, &attach).await;
        let attached = until(&mut link, |frame| frame["type"] == "attached").await;
        (link, attached["state"].clone())
    }

    async fn asleep(&self) {
        while self.controllers.awake() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let calls = self.worker.calls.lock();
        let resume = calls.last().unwrap().resume.clone().unwrap();
        resume.calls.into_iter().map(|call| call.verdict).collect()
    }
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

async fn event(link: &mut GroupLink, kind: &str) -> Value {
    until(link, |frame| frame["kind"] == kind).await
}

async fn say(link: &GroupLink) {
    let text = "@Guide, do it";
    let post = json!({"type": "post", "ref": "p", "conn": "c", "message_id": "m1", "text": text});
    send(link, &post).await;
}

async fn approve(link: &mut GroupLink, approvals: &Value) -> Value {
    let approval = &approvals[0]["approval_id"];
    let decision = json!({
        "type": "approve", "ref": "d", "conn": "c", "approval_id": approval, "decision": "approve",
    });
    send(link, &decision).await;
    event(link, "run.finished").await
}

fn script() -> Vec<Vec<InvokeEvent>> {
    vec![vec![delta(0, "I shall. "), asks()], vec![delta(9, "I did."), completed()]]
}

#[tokio::test]
async fn what_a_worker_says_of_its_calls_reaches_the_group() {
    let call_id = || "t1".parse().unwrap();
    let host = Host::with(vec![vec![
        InvokeEvent::ToolStarted {
            call_id: call_id(),
            tool: "calculator".to_owned(),
            arguments: "{\"expression\":\"6*7\"}".to_owned(),
        },
        InvokeEvent::ToolFinished {
            call_id: call_id(),
            status: ToolStatus::Ok,
            summary: "42".to_owned(),
        },
        delta(0, "42"),
        completed(),
    ]])
    .await;
    let (mut link, _) = host.attach().await;
    say(&link).await;
    let started = event(&mut link, "tool.started").await;
    assert_eq!((&started["tool"], &started["call_id"]), (&json!("calculator"), &json!("t1")));
    let finished = event(&mut link, "tool.finished").await;
    assert_eq!((&finished["status"], &finished["summary"]), (&json!("ok"), &json!("42")));
    assert_eq!(event(&mut link, "run.finished").await["status"], "completed");
    assert_eq!(*host.worker.initiators.lock(), [Some("u1".to_owned())]);
}

#[tokio::test]
async fn a_run_that_waits_for_an_approval_outlives_the_process() {
    let host = Host::with(script()).await;
    let (mut link, _) = host.attach().await;
    say(&link).await;
    let requested = event(&mut link, "tool.requested").await;
    assert_eq!((&requested["said"], &requested["continuation"]), (&json!("I shall. "), &json!("")));
    event(&mut link, "approval.requested").await;

    let host = host.restarted().await;
    let (mut link, state) = host.attach().await;
    assert_eq!(
        (&state["runs"][0]["phase"], &state["runs"][0]["attempt"]),
        (&json!("waiting"), &json!(1))
    );
    let finished = approve(&mut link, &state["approvals"]).await;
    assert_eq!(finished["status"], "completed");
    assert_eq!(host.verdicts(), [Verdict::Make]);
    let resume = host.worker.calls.lock()[1].resume.clone().unwrap();
    assert_eq!((resume.offset, resume.continuation.as_str()), (9, "for the worker alone"));
    let page = host.controllers.history(&group(), HistoryQuery::default()).await.unwrap();
    let reply = serde_json::to_value(page.messages.last().unwrap()).unwrap();
    assert_eq!(reply["message_id"], finished["message_id"]);
    assert_eq!(reply["text"], "I shall. I did.");
}

#[tokio::test]
async fn a_group_sleeps_while_its_run_waits_and_wakes_with_the_approval() {
    let host = Host::with(script()).await;
    let (mut link, _) = host.attach().await;
    say(&link).await;
    event(&mut link, "approval.requested").await;
    drop(link);
    host.asleep().await;
    let (mut link, state) = host.attach().await;
    assert_eq!(approve(&mut link, &state["approvals"]).await["status"], "completed");
    assert_eq!(host.verdicts(), [Verdict::Make]);
    assert_eq!(host.worker.calls.lock().len(), 2, "the model was asked once for each attempt");
}

#[tokio::test]
async fn two_workers_that_answer_the_same_attempt_end_it_once() {
    let both = vec![delta(0, "Hello"), delta(0, "Hello"), completed(), completed()];
    let late = vec![delta(0, "Hello"), completed(), delta(5, " again"), completed()];
    for (script, status) in [(both, "failed"), (late, "completed")] {
        let host = Host::with(vec![script, vec![delta(0, "Later"), completed()]]).await;
        let (mut link, _) = host.attach().await;
        say(&link).await;
        let first = event(&mut link, "run.finished").await;
        assert_eq!((&first["status"], &first["run_id"]), (&json!(status), &json!("r3-0")));
        // Nothing more of it comes before what is said next.
        let post = json!({
            "type": "post", "ref": "q", "conn": "c", "message_id": "m2", "text": "@Guide, again",
        });
        send(&link, &post).await;
        let next = event(&mut link, "run.finished").await;
        assert_ne!(next["run_id"], first["run_id"]);
        assert_eq!(next["status"], "completed");
    }
}
