//! Limits that an operator sets at the command line reach people's sockets: rates and bytes, through the
//! Orchestrator, the group's controller and the App, until the limit is lifted.

use std::{path::Path, time::Duration};

use convene_testing::{
    client::{Person, Socket},
    process::Convene,
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::convene;

/// The deadline of what should happen soon; it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a group may send in a test.
const BYTES: usize = 20_000;

/// One process, two people of one workspace, two groups.
struct World {
    node: Convene,
    dir: tempfile::TempDir,
    org: String,
    ana: Person,
    ben: Person,
    deck: String,
    hold: String,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = convene(dir.path())
            .env("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1")
            .env("CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS", "100")
            .start()
            .await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        let ben = Person::sign_up(&node.url, "Ben").await;
        let org = ana.create_org("Ship").await;
        ana.invite(&org, &ben).await;
        let deck = ana.create_group(&org, "Deck").await;
        let hold = ana.create_group(&org, "Hold").await;
        Self { node, dir, org, ana, ben, deck, hold }
    }

    /// Runs `convene orgs …` beside the process; what it printed.
    async fn operator(&self, args: &[&str]) -> Value {
        operator(self.dir.path(), args).await
    }

    async fn limit(&self, limits: &[&str]) {
        let set = limits.iter().flat_map(|limit| ["--set", limit]);
        self.operator(&[&["limits", &self.org][..], &set.collect::<Vec<_>>()].concat()).await;
    }
}

async fn operator(dir: &Path, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_convene"))
        .arg("orgs")
        .args(args)
        .args(["--json", "--data-dir"])
        .arg(dir.join("data"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().next().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
}

/// Asks to be attached; the answer.
async fn attach(socket: &mut Socket) -> Value {
    socket.send(&json!({"type": "attach", "ref": "attach"})).await;
    socket.answer("attach").await
}

async fn post(socket: &mut Socket, id: &str) -> Value {
    socket.post(id, "hello").await;
    socket.answer(id).await
}

#[track_caller]
fn is_told_to_come_back(refused: &Value, code: &str, most: u64) {
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(code)), "{refused}");
    let retry = refused["retry_after_ms"].as_u64();
    assert!(retry.is_some_and(|retry| (1..=most).contains(&retry)), "{refused}");
}

/// Tries again until it is as it should be.
async fn soon<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tried = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, tried).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test]
async fn what_an_operator_allows_is_what_people_may_do() {
    let world = World::start().await;
    rates(&world).await;
    bytes(&world).await;
    block(&world).await;
    assert_eq!(world.node.stop().await, Some(0));
}

/// Of one person, and of the workspace over its groups.
async fn rates(world: &World) {
    let World { ana, ben, deck, hold, .. } = world;
    // Known from the groups' first moment on.
    let rates = ["user_posts_per_minute=2", "org_posts_per_minute=3", "user_attaches_per_minute=2"];
    world.limit(&rates).await;
    let (mut of_ana, _) = ana.attach(deck, None).await;
    let (mut of_ben, _) = ben.attach(hold, None).await;
    for id in ["a1", "a2"] {
        assert_eq!(post(&mut of_ana, id).await["type"], "ok");
    }
    let refused = post(&mut of_ana, "a3").await;
    is_told_to_come_back(&refused, "rate_limited", 30_000);
    assert!(refused["detail"].as_str().unwrap().contains("2 messages"), "{refused}");
    // What the workspace may post is not a group's own: Ben has written one message in another.
    assert_eq!(post(&mut of_ben, "b1").await["type"], "ok");
    let refused = post(&mut of_ben, "b2").await;
    is_told_to_come_back(&refused, "rate_limited", 20_000);
    assert!(refused["detail"].as_str().unwrap().contains("3 messages"), "{refused}");
    let path = format!("/api/groups/{hold}/messages");
    let body = json!({"message_id": "b3", "text": "hello"});
    let (status, refused) = ben.send("POST", &path, Some(&body)).await;
    assert_eq!((status, &refused["code"]), (429, &json!("rate_limited")), "{refused}");
    assert!(refused["retry_after_ms"].as_u64().is_some_and(|retry| retry > 0), "{refused}");

    let mut another = ana.connect(hold).await.unwrap();
    assert_eq!(attach(&mut another).await["type"], "attached");
    let mut third = ana.connect(hold).await.unwrap();
    is_told_to_come_back(&attach(&mut third).await, "rate_limited", 30_000);

    let lifted = rates.map(|rate| format!("{}=default", rate.split_once('=').unwrap().0));
    world.limit(&lifted.each_ref().map(String::as_str)).await;
    let mut nth = 0;
    soon("the rates are lifted", async || {
        nth += 1;
        let answer = post(&mut of_ben, &format!("lifted-{nth}")).await;
        (answer["type"] == "ok").then_some(())
    })
    .await;
    // What was refused is nowhere.
    let texts = ana.all_messages(deck).await;
    assert_eq!(texts.len(), 2, "{texts:?}");
    // Operators learn who it was.
    let flag = soon("the refusals are reported", async || {
        let flag = world.operator(&["abuse"]).await;
        (!flag.is_null()).then_some(flag)
    });
    drop((of_ana, of_ben, another, third));
    assert_eq!(flag.await["org_id"], world.org.as_str());
}

/// Of a group in a day, and of a workspace in a month.
async fn bytes(world: &World) {
    let World { ana, ben, deck, hold, .. } = world;
    let (mut socket, _) = ana.attach(deck, None).await;
    socket.post("long", &"x".repeat(BYTES)).await;
    socket.answer("long").await;
    drop(socket);
    // A group that falls asleep says what it has sent.
    soon("the bytes are reported", async || {
        let usage = world.operator(&["usage", &world.org]).await;
        let sent = usage["egress_bytes"].as_u64().unwrap_or_default();
        (sent > BYTES as u64).then_some(())
    })
    .await;
    let (mut there, _) = ana.attach(deck, None).await;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    world.limit(&[&format!("group_daily_egress_bytes={BYTES}")]).await;
    let told = there.until(|frame| frame["type"] == "error").await;
    is_told_to_come_back(&told, "egress_exhausted", DAY_MS);
    while there.next().await.is_ok() {}
    let mut waiting = ana.connect(deck).await.unwrap();
    is_told_to_come_back(&attach(&mut waiting).await, "egress_exhausted", DAY_MS);
    let path = format!("/api/groups/{deck}/messages");
    let body = json!({"message_id": "closed", "text": "hello"});
    let (status, refused) = ana.send("POST", &path, Some(&body)).await;
    assert_eq!((status, &refused["code"]), (402, &json!("egress_exhausted")), "{refused}");
    assert!(refused["resets_at"].as_u64().is_some(), "{refused}");
    let (mut other, attached) = ben.attach(hold, None).await;
    assert_eq!(attached["type"], "attached", "another group of the workspace goes on");

    // The month is the workspace's, so it closes the other group, too.
    let monthly = format!("monthly_egress_bytes={BYTES}");
    world.limit(&["group_daily_egress_bytes=default", &monthly]).await;
    let told = other.until(|frame| frame["type"] == "error").await;
    is_told_to_come_back(&told, "egress_exhausted", 31 * DAY_MS);

    world.limit(&["monthly_egress_bytes=default"]).await;
    soon("the limit is lifted", async || {
        (attach(&mut waiting).await["type"] == "attached").then_some(())
    })
    .await;
    assert_eq!(post(&mut waiting, "again").await["type"], "ok");
}

async fn block(world: &World) {
    let World { ana, deck, org, .. } = world;
    let (mut there, _) = ana.attach(deck, None).await;
    world.operator(&["block", org, "--reason", "abuse"]).await;
    let told = there.until(|frame| frame["type"] == "error").await;
    assert_eq!(told["code"], "org_blocked", "{told}");
    while there.next().await.is_ok() {}
    let mut waiting = ana.connect(deck).await.unwrap();
    assert_eq!(attach(&mut waiting).await["code"], "org_blocked");
    world.operator(&["unblock", org]).await;
    assert_eq!(attach(&mut waiting).await["type"], "attached");
}
