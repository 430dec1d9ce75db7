//! Broken lines between each pair of hops, and clocks that disagree: what was acknowledged stays,
//! nothing is doubled, every run ends once, and everything goes on by itself afterwards.

use std::{path::Path, time::Duration};

use convene_testing::{
    client::Person,
    cluster::{Cluster, Member, Plan},
    fault_proxy::{FaultProxy, Line},
    load::{Load, Outcome},
    process::clock_off_by,
};
use serde_json::json;
use tokio::time::sleep;

/// How long each fault lasts.
const FAULT: Duration = Duration::from_millis(1200);
/// What befalls a line, one after the other.
const FAULTS: [Line; 6] = [
    Line::Refused,
    Line::Silent,
    Line::Slow(Duration::from_millis(60)),
    Line::CutAfter(200),
    Line::CutAfter(5_000),
    Line::DropIdle(Duration::from_millis(100)),
];
const WRITERS: usize = 4;
const GROUPS: usize = 2;

/// One process of each service, each reached through a line that can be broken.
struct World {
    cluster: Cluster,
    client: FaultProxy,
    orchestrator: FaultProxy,
    controllers: FaultProxy,
    agents: FaultProxy,
    app: FaultProxy,
}

impl World {
    async fn start(dir: &Path) -> Self {
        let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir, 1, 1, 1);
        let orchestrator = FaultProxy::to(plan.address(Member::Orchestrator(0))).await;
        let controllers = FaultProxy::to(plan.address(Member::Controllers)).await;
        let agents = FaultProxy::to(plan.address(Member::Agents(0))).await;
        let app = FaultProxy::to(plan.internal_address(0)).await;
        let client = FaultProxy::to(plan.address(Member::App(0))).await;
        let cluster = plan
            .reached_at("orchestrator", vec![orchestrator.address()])
            .reached_at("controllers", vec![controllers.address()])
            .reached_at("agents", vec![agents.address()])
            .reached_at("app", vec![app.address()])
            .start()
            .await;
        Self { cluster, client, orchestrator, controllers, agents, app }
    }
}

/// Lets everything befall one line under load, and checks what came of it.
async fn torment(line: impl Fn(&World) -> &FaultProxy) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let ana = Person::sign_up(&world.cluster.url(), "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let mut groups = Vec::new();
    for index in 0..GROUPS {
        groups.push(ana.create_group(&org, &format!("Group {index}")).await);
    }
    let people = [ana.at(&world.client.url())];
    let load = Load::start(&people, &groups, WRITERS, Some("Guide"));
    load.progress(20).await;
    let line = line(&world);
    assert!(line.opened() > 0, "the line is in use");
    for fault in FAULTS {
        line.set(fault);
        sleep(FAULT).await;
        line.set(Line::Open);
        load.progress(10).await;
    }
    for _ in 0..4 {
        line.cut().await;
        load.progress(2).await;
    }
    let outcome = load.end(&ana).await;
    assert!(outcome.acknowledged >= 100, "too little load: {outcome:?}");
    assert!(outcome.runs >= 10, "agents were at work: {outcome:?}");
    outcome
}

#[tokio::test]
async fn a_broken_line_between_clients_and_the_app_heals() {
    torment(|world| &world.client).await;
}

#[tokio::test]
async fn a_broken_line_to_the_orchestrator_heals() {
    torment(|world| &world.orchestrator).await;
}

#[tokio::test]
async fn a_broken_line_to_the_controllers_heals() {
    torment(|world| &world.controllers).await;
}

#[tokio::test]
async fn a_broken_line_to_the_agents_worker_heals() {
    torment(|world| &world.agents).await;
}

#[tokio::test]
async fn a_broken_line_back_to_the_app_heals() {
    torment(|world| &world.app).await;
}

/// A cluster in which one service's clock is off by so many seconds.
fn off_by(dir: &Path, member: Member, seconds: i64) -> Plan {
    let mut plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir, 1, 1, 1);
    for (name, value) in clock_off_by(seconds) {
        plan = plan.env_of(member, name, value);
    }
    plan
}

const OTHERS: [Member; 3] = [Member::Orchestrator(0), Member::Controllers, Member::Agents(0)];

#[tokio::test]
async fn clocks_four_seconds_apart_disturb_nothing() {
    for (member, seconds) in OTHERS.into_iter().zip([4, -4, 4]) {
        let dir = tempfile::tempdir().unwrap();
        let cluster = off_by(dir.path(), member, seconds).start().await;
        let ana = Person::sign_up(&cluster.url(), "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let group = ana.create_group(&org, "Plans").await;
        let (mut socket, _) = ana.attach(&group, None).await;
        socket.post("m1", "@Guide hello").await;
        let finished = socket.event("run.finished").await;
        assert_eq!(finished["status"], "completed", "{member:?} by {seconds} s: {finished}");
    }
}

#[tokio::test]
async fn clocks_a_minute_apart_are_refused_change_nothing_and_heal() {
    for (member, seconds) in [(Member::Orchestrator(0), 60), (Member::Controllers, -60)] {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = off_by(dir.path(), member, seconds).start().await;
        let ana = Person::sign_up(&cluster.url(), "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let group = ana.create_group(&org, "Plans").await;
        let path = format!("/api/groups/{group}/messages");
        let body = json!({"message_id": "m1", "text": "too early"});
        let (status, problem) = ana.send("POST", &path, Some(&body)).await;
        assert!((500..600).contains(&status), "{member:?}: {status} {problem}");
        assert!(problem["code"].is_string(), "{problem}");

        // With its clock set right it serves, and nothing of the refused post is there.
        cluster.stop(member).await;
        cluster.set_env(member, "FAKETIME", "+0s");
        cluster.start(member).await;
        cluster.until_ready().await;
        let (mut socket, attached) = ana.attach(&group, None).await;
        assert_eq!(attached["state"]["runs"], json!([]));
        socket.post("m2", "in time").await;
        socket.until(|frame| frame["type"] == "ok").await;
        let texts: Vec<_> = ana.all_messages(&group).await;
        let texts: Vec<_> = texts.iter().map(|message| message["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["in time"], "{member:?} by {seconds} s");
    }
}

#[tokio::test]
async fn a_balancer_that_drops_idle_connections_does_not_drop_those_of_clients() {
    let dir = tempfile::tempdir().unwrap();
    let node = crate::convene(dir.path()).env("CONVENE_APP__PING_EVERY_MS", "200").start().await;
    let line = FaultProxy::to(node.address()).await;
    line.set(Line::DropIdle(Duration::from_secs(1)));
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut behind, _) = ana.at(&line.url()).attach(&group, None).await;
    let opened = line.opened();
    // Nothing is read meanwhile but what the client answers pings with.
    let quiet = async { while behind.next().await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(3), quiet).await.is_err(), "it stays open");
    let (mut direct, _) = ana.attach(&group, None).await;
    direct.post("m1", "still there?").await;
    assert_eq!(behind.event("message.posted").await["text"], "still there?");
    assert_eq!(line.opened(), opened, "on the first connection");
}

#[tokio::test]
async fn a_half_open_socket_is_noticed_and_its_user_is_gone_until_the_client_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let node = crate::convene(dir.path()).env("CONVENE_APP__PING_EVERY_MS", "200").start().await;
    let line = FaultProxy::to(node.address()).await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut to_ana, attached) = ana.at(&line.url()).attach(&group, None).await;
    let head = attached["seq"].as_u64().unwrap();
    let (mut to_ben, attached) = ben.attach(&group, None).await;
    assert!(attached["state"]["present"].as_array().unwrap().contains(&json!(ana.user_id)));

    line.set(Line::Silent);
    let left = to_ben.until(|frame| frame["left"].as_array().is_some_and(|l| !l.is_empty())).await;
    assert_eq!(left["left"], json!([ana.user_id]));
    to_ben.post("m1", "where are you?").await;
    to_ben.until(|frame| frame["type"] == "ok").await;

    line.set(Line::Open);
    while to_ana.next().await.is_ok() {}
    let (mut to_ana, _) = ana.at(&line.url()).attach(&group, Some(head)).await;
    assert_eq!(to_ana.event("message.posted").await["text"], "where are you?");
    let joined = to_ben.until(|frame| frame["joined"].is_array()).await;
    assert_eq!(joined["joined"], json!([ana.user_id]));
}

/// The line between App and Orchestrator says nothing for longer than either side waits; the heavy
/// part is the waiting.
#[tokio::test]
async fn soak_a_half_open_upstream_is_noticed_and_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let ana = Person::sign_up(&world.cluster.url(), "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    world.orchestrator.set(Line::Silent);
    sleep(Duration::from_secs(40)).await;
    world.orchestrator.set(Line::Open);
    // Refused for the moment or taken: the connection itself was never lost. The event and the `ok`
    // come in either order.
    let (mut taken, mut heard) = (false, false);
    socket.post("m1", "and now?").await;
    while !(taken && heard) {
        let frame = socket.next().await.expect("the connection is never closed");
        if frame["ref"] == "m1" && frame["type"] == "error" {
            sleep(Duration::from_secs(1)).await;
            socket.post("m1", "and now?").await;
        }
        taken |= frame["ref"] == "m1" && frame["type"] == "ok";
        heard |= frame["kind"] == "message.posted" && frame["text"] == "and now?";
    }
}
