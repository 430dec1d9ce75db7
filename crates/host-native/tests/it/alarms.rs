//! What a group has to do at a certain time is done also when nobody has it awake, and when its process
//! was not there at that time.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use bytes::Bytes;
use convene_hop::{GroupLink, Hop, Signer};
use convene_host_native::controllers::{Controllers, ControllersConfig};
use convene_model::{Timestamp, claims::service, keys::TrustedKeys, limits::APPROVAL_TTL};
use convene_storage::{GroupStore, StoreOptions};
use convene_testing::forge::{Forged, Identity};
use http::Request;
use serde_json::{Value, json};

const START: u64 = 1_800_000_000_000;

/// Controllers of one group whose agent wants something permitted.
struct Host {
    controllers: Controllers,
    store: GroupStore,
    orchestrator: Identity,
    hop: Hop,
    time: Arc<AtomicU64>,
    invoked: Arc<AtomicUsize>,
}

impl Host {
    async fn start(dir: &Path, time: u64) -> Self {
        let store = GroupStore::open(dir, StoreOptions::default(), |why| panic!("{why}")).unwrap();
        let time = Arc::new(AtomicU64::new(time));
        let clock = Arc::clone(&time);
        let now = move || Timestamp::from_millis(clock.load(Ordering::Relaxed));
        let orchestrator = Identity::new(service::ORCHESTRATOR, 1);
        let invoked = Arc::new(AtomicUsize::new(0));
        let config = ControllersConfig {
            signer: Signer::new(Identity::new(service::CONTROLLERS, 3).key, Arc::new(now)),
            orchestrator_keys: TrustedKeys::of(orchestrator.issuer(), &orchestrator.key.jwks())
                .unwrap(),
            agents: agents(Arc::clone(&invoked)),
            idle_after: Duration::from_millis(50),
        };
        let controllers = Controllers::new(store.clone(), config);
        let hop = Hop::in_process(controllers.router());
        controllers.wake_due().await.unwrap();
        Self { controllers, store, orchestrator, hop, time, invoked }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::Relaxed))
    }

    async fn call(&self, method: &str, path: &str, body: &Value) {
        let token = Forged::orchestrator(&self.orchestrator, self.now(), (method, path), "g1", 1);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", token.encode()))
            .body(Bytes::from(body.to_string()))
            .unwrap();
        self.hop.call(request, 1 << 20).await.unwrap();
    }

    async fn attach(&self, after: u64) -> GroupLink {
        let link = self.controllers.open(&"g1".parse().unwrap()).await.unwrap();
        let token = Forged::routing(&self.orchestrator, self.now()).encode();
        let attach =
            json!({"type": "attach", "ref": "a", "conn": "c", "token": token, "after": after});
        send(&link, &attach).await;
        link
    }

    async fn asleep(&self) {
        while self.controllers.awake() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn stop(self) {
        self.controllers.shutdown().await;
        self.store.close();
    }
}

/// An Agents Worker whose agent hands over a call that somebody has to permit.
fn agents(invoked: Arc<AtomicUsize>) -> Hop {
    let invoke = async move || {
        invoked.fetch_add(1, Ordering::Relaxed);
        let call = json!({
            "call_id": "c1", "tool": "restart", "tool_version": 1, "arguments": "{}",
            "hash": "0".repeat(64), "approvers": {"kind": "initiator"},
        });
        let end = json!({
            "type": "finished", "status": "tool_requested", "calls": [call], "continuation": "x",
        });
        format!("data: {end}\n\n")
    };
    Hop::in_process(Router::new().route("/invoke", post(invoke)))
}

async fn send(link: &GroupLink, frame: &Value) {
    link.tx.send(Bytes::from(frame.to_string())).await.unwrap();
}

async fn event(link: &mut GroupLink, kind: &str) -> Value {
    loop {
        let frame: Value = serde_json::from_slice(&link.rx.recv().await.unwrap()).unwrap();
        if frame["kind"] == kind {
            return frame;
        }
    }
}

#[tokio::test]
async fn what_waits_in_a_sleeping_group_expires_at_its_time_also_when_the_process_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), START).await;
    let init = json!({"org_id": "o1", "history_mode": "internal", "epoch": 1, "limits": {}});
    host.call("POST", "/groups/g1/init", &init).await;
    let agents = json!([{"agent_id": "a1", "name": "Mate", "trigger": "mention"}]);
    host.call("PUT", "/groups/g1/config", &json!({"version": 1, "agents": agents})).await;
    let mut link = host.attach(0).await;
    let post = json!({
        "type": "post", "ref": "p", "conn": "c", "message_id": "m1", "text": "@Mate restart it",
    });
    send(&link, &post).await;
    let requested = event(&mut link, "approval.requested").await;
    let seq = requested["seq"].as_u64().unwrap();
    drop(link);
    // A group that waits for a person is not awake for it.
    host.asleep().await;
    host.stop().await;

    // A process that comes after the time does what was to be done, though nobody asks for the group.
    let host = Host::start(dir.path(), START + APPROVAL_TTL.as_millis() as u64 + 60_000).await;
    while host.store.alarms().unwrap().iter().any(|(_, at)| *at <= host.now()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.asleep().await;
    let mut link = host.attach(seq).await;
    let expired = event(&mut link, "approval.expired").await;
    assert_eq!(expired["approval_id"], requested["approval_id"]);
    let finished = event(&mut link, "run.finished").await;
    assert_eq!(finished["run_id"], requested["run_id"]);
    assert_eq!(host.invoked.load(Ordering::Relaxed), 0, "nothing is made that nobody permitted");
    drop(link);
    host.stop().await;
}
