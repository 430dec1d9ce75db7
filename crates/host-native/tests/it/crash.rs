//! `kill -9` under load: nothing that was acknowledged is lost, nothing is doubled, order holds.

use std::time::Duration;

use convene_testing::{browser::free_port, client::Person, load::Load};
use tokio::time::sleep;

use crate::convene;

/// Writers, each with a socket of its own, over several groups.
const WRITERS: usize = 6;
const GROUPS: usize = 3;
/// How often the process is killed.
const KILLS: u64 = 8;
/// How long it runs between two kills at most, in milliseconds.
const LONGEST_RUN_MS: u64 = 900;

#[tokio::test]
async fn killing_the_process_under_load_loses_and_doubles_nothing() {
    check(KILLS).await;
}

/// The same for as long as patience lasts; run by `cargo xtask soak`.
#[tokio::test]
async fn soak_killing_the_process_a_hundred_times_loses_and_doubles_nothing() {
    check(100).await;
}

async fn check(kills: u64) {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let launch = convene(dir.path()).listen(address.clone());
    let mut node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let mut groups = Vec::new();
    for index in 0..GROUPS {
        groups.push(ana.create_group(&org, &format!("Group {index}")).await);
    }

    let load = Load::start(std::slice::from_ref(&ana), &groups, WRITERS, Some("Guide"));
    // Moments that differ from run to run, without a source of randomness.
    let mut moment = u64::from(std::process::id());
    for _ in 0..kills {
        moment =
            moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis(50 + (moment >> 33) % LONGEST_RUN_MS)).await;
        node.kill().await;
        node = launch.start().await;
    }
    load.progress(20).await;
    let outcome = load.end(&ana).await;
    assert!(outcome.acknowledged > kills * 10, "too little load: {outcome:?}");
    assert!(outcome.runs > 0, "agents were at work: {outcome:?}");
    assert_eq!(node.stop().await, Some(0));
}
