//! Any one process of a cluster is lost and started again, over and over, under load: nothing that
//! was acknowledged is lost, nothing is doubled, clients resume, each run ends once.

use std::time::Duration;

use convene_testing::{
    client::Person,
    cluster::{Cluster, Member, Plan},
    load::Load,
};
use tokio::time::sleep;

/// How often a process is lost in a test, and in its long form.
const LOSSES: u64 = 3;
const MANY_LOSSES: u64 = 40;
/// Posts that must go through between two losses.
const BETWEEN: u64 = 25;
const GROUPS: usize = 3;
const WRITERS: usize = 6;

/// How a process goes away.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Kill,
    Stop,
}

#[tokio::test]
async fn losing_an_app_under_load_heals() {
    check(&[Member::App(0), Member::App(1)], Loss::Kill, LOSSES).await;
}

#[tokio::test]
async fn losing_an_orchestrator_under_load_heals() {
    check(&[Member::Orchestrator(0), Member::Orchestrator(1)], Loss::Kill, LOSSES).await;
}

#[tokio::test]
async fn losing_the_controllers_under_load_heals() {
    check(&[Member::Controllers], Loss::Kill, LOSSES).await;
}

#[tokio::test]
async fn losing_an_agents_worker_under_load_heals() {
    check(&[Member::Agents(0), Member::Agents(1)], Loss::Kill, LOSSES).await;
}

#[tokio::test]
async fn restarting_each_process_in_order_under_load_heals() {
    let all = [Member::App(0), Member::Orchestrator(1), Member::Controllers, Member::Agents(0)];
    check(&all, Loss::Stop, 4).await;
}

/// Every process in turn, for as long as patience lasts; run by `cargo xtask soak`.
#[tokio::test]
async fn soak_losing_any_process_again_and_again_heals() {
    let all = [
        Member::App(0),
        Member::Controllers,
        Member::Orchestrator(1),
        Member::Agents(1),
        Member::App(1),
        Member::Orchestrator(0),
        Member::Controllers,
        Member::Agents(0),
    ];
    check(&all, Loss::Kill, MANY_LOSSES).await;
}

async fn check(members: &[Member], loss: Loss, losses: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).start().await;
    let (ana, load) = under_load(&cluster).await;
    load.progress(BETWEEN).await;
    // Moments that differ from run to run, without a source of randomness.
    let mut moment = u64::from(std::process::id());
    for (round, member) in (0..losses).zip(members.iter().cycle()) {
        moment =
            moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis((moment >> 33) % 200)).await;
        match loss {
            Loss::Kill => cluster.kill(*member).await,
            Loss::Stop => assert_eq!(cluster.stop(*member).await, Some(0), "{member:?}"),
        }
        // Every other time it stays away for a moment.
        if round % 2 == 1 {
            sleep(Duration::from_millis(500)).await;
        }
        cluster.start(*member).await;
        load.progress(BETWEEN).await;
    }
    cluster.until_ready().await;
    let outcome = load.end(&ana).await;
    assert!(outcome.runs > 0, "agents were woken: {outcome:?}");
    cluster.shut_down().await;
}

/// Two people of one workspace, several groups, writers in all of them.
async fn under_load(cluster: &Cluster) -> (Person, Load) {
    let url = cluster.url();
    let ana = Person::sign_up(&url, "Ana").await;
    let ben = Person::sign_up(&url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let mut groups = Vec::new();
    for index in 0..GROUPS {
        groups.push(ana.create_group(&org, &format!("Group {index}")).await);
    }
    let load = Load::start(&[ana.clone(), ben], &groups, WRITERS, Some("Guide"));
    (ana, load)
}
