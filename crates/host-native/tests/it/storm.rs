//! Everybody comes back at once after a crash, each with what it has seen: every client gets exactly
//! what it missed.

use std::sync::Arc;

use convene_testing::{browser::free_port, client::Person};
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use crate::convene;

/// Messages before the crash, of which each client sees some others' number.
const BEFORE: u64 = 60;
/// Messages that nobody is there for.
const UNSEEN: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reconnects_after_a_crash_brings_every_client_exactly_what_it_missed() {
    storm(300).await;
}

/// The same with two thousand clients; run by `cargo xtask soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_two_thousand_clients_reconnect_at_once_and_miss_nothing() {
    storm(2000).await;
}

async fn storm(clients: usize) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let launch = convene(dir.path()).listen(format!("127.0.0.1:{}", free_port()));
    let node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut writer, attached) = ana.attach(&group, None).await;
    let first = attached["seq"].as_u64().unwrap();
    let history = attached["history"].as_str().unwrap().to_owned();

    // Each client leaves in the middle of the stream, at a place of its own.
    let people = [ana.clone(), ben.clone()];
    let ready = Arc::new(Barrier::new(clients + 1));
    let mut watching = JoinSet::new();
    for number in 0..clients {
        let (person, group) = (people[number % people.len()].clone(), group.clone());
        let ready = Arc::clone(&ready);
        watching.spawn(async move {
            let (mut socket, _) = person.attach(&group, Some(first)).await;
            ready.wait().await;
            let leaves_at = first + number as u64 % (BEFORE + 1);
            let mut seen = first;
            while seen < leaves_at {
                let event = socket.until(|frame| frame["type"] == "event").await;
                assert_eq!(event["seq"].as_u64(), Some(seen + 1), "client {number}");
                seen += 1;
            }
            (number, seen)
        });
    }
    ready.wait().await;
    for number in 0..BEFORE {
        writer.post(&format!("before-{number}"), "before").await;
        writer.until(|frame| frame["type"] == "ok").await;
    }
    let left: Vec<(usize, u64)> = watching.join_all().await;
    for number in 0..UNSEEN {
        writer.post(&format!("unseen-{number}"), "unseen").await;
        writer.until(|frame| frame["type"] == "ok").await;
    }
    let head = ana.all_messages(&group).await.last().unwrap()["seq"].as_u64().unwrap();
    assert!(head >= first + BEFORE + UNSEEN);
    node.kill().await;
    let node = launch.start().await;

    let ready = Arc::new(Barrier::new(clients + 1));
    let mut returning = JoinSet::new();
    for (number, seen) in left {
        let (person, group) = (people[number % people.len()].clone(), group.clone());
        let (history, ready) = (history.clone(), Arc::clone(&ready));
        returning.spawn(async move {
            let mut socket = person.connect(&group).await.expect("the server takes everybody");
            socket
                .send(&json!({"type": "attach", "ref": "a", "after": seen, "history": history}))
                .await;
            let attached = socket.until(|frame| frame["ref"] == "a").await;
            assert_eq!(attached["type"], "attached", "client {number}: {attached}");
            let mut next = seen + 1;
            while next <= head {
                let event = socket.until(|frame| frame["type"] == "event").await;
                assert_eq!(event["seq"].as_u64(), Some(next), "client {number} saw {seen}");
                next += 1;
            }
            ready.wait().await;
            // From here on it is in the stream like everybody else: nothing comes twice.
            let event = socket.until(|frame| frame["type"] == "event").await;
            assert_eq!(event["seq"].as_u64(), Some(next), "client {number} after the storm");
            assert_eq!(event["text"], "after the storm");
        });
    }
    ready.wait().await;
    let (mut writer, _) = ana.attach(&group, None).await;
    writer.post("after", "after the storm").await;
    assert_eq!(returning.join_all().await.len(), clients);
    assert_eq!(node.stop().await, Some(0));
}
