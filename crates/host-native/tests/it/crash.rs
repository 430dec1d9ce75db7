//! `kill -9` under load: nothing that was acknowledged is lost, nothing is doubled, order holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use convene_testing::{browser::free_port, client::Person};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::convene;

/// Writers, each with a socket of its own, over several groups.
const WRITERS: usize = 6;
const GROUPS: usize = 3;
/// How often the process is killed.
const KILLS: u64 = 8;
/// How long it runs between two kills at most, in milliseconds.
const LONGEST_RUN_MS: u64 = 900;

/// What one writer knows at the end.
struct Written {
    group: String,
    /// Ids in the order of their first sending.
    sent: Vec<String>,
    /// Acknowledged ids and the numbers they were acknowledged with.
    acknowledged: BTreeMap<String, u64>,
}

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

    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| {
            let group = groups[index % GROUPS].clone();
            tokio::spawn(write(ana.clone(), group, index, Arc::clone(&done)))
        })
        .collect();
    let watcher = tokio::spawn(watch(ana.clone(), groups[0].clone(), Arc::clone(&done)));

    // Moments that differ from run to run, without a source of randomness.
    let mut moment = u64::from(std::process::id());
    for _ in 0..kills {
        moment =
            moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis(50 + (moment >> 33) % LONGEST_RUN_MS)).await;
        node.kill().await;
        node = launch.start().await;
    }
    sleep(Duration::from_secs(1)).await;
    done.store(true, Ordering::Relaxed);

    let mut stored: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut total = 0;
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    for group in &groups {
        stored.insert(group.clone(), ana.all_messages(group).await);
    }
    for writer in &written {
        let messages = &stored[&writer.group];
        let mut positions = BTreeMap::new();
        for message in messages {
            let id = message["message_id"].as_str().unwrap().to_owned();
            let seq = message["seq"].as_u64().unwrap();
            assert!(positions.insert(id.clone(), seq).is_none(), "{id} is there twice");
        }
        for (id, seq) in &writer.acknowledged {
            assert_eq!(positions.get(id), Some(seq), "{id} was acknowledged as {seq}");
        }
        let order: Vec<u64> =
            writer.sent.iter().filter_map(|id| positions.get(id).copied()).collect();
        assert!(order.is_sorted(), "a writer's messages stand in the order of their sending");
        total += writer.acknowledged.len();
    }
    assert!(total as u64 > kills * 10, "only {total} posts were acknowledged: too little load");

    let seen = watcher.await.unwrap();
    let head = *seen.last().unwrap();
    let all: Vec<u64> = (seen[0]..=head).collect();
    assert_eq!(seen, all, "a client that resumes sees each event once and misses none");
    assert_eq!(node.stop().await, Some(0));
}

/// Posts one message after the other, resending what was not acknowledged after each crash.
async fn write(person: Person, group: String, index: usize, done: Arc<AtomicBool>) -> Written {
    let mut written = Written { group, sent: Vec::new(), acknowledged: BTreeMap::new() };
    let mut open: BTreeSet<usize> = BTreeSet::new();
    while !(done.load(Ordering::Relaxed) && open.is_empty()) {
        let Some(mut socket) = attach(&person, &written.group, None).await else { continue };
        for number in &open {
            let id = &written.sent[*number];
            socket.post(id, &format!("text of {id}")).await;
        }
        loop {
            // A few under way at a time, so that a crash finds some of them between two steps.
            while open.len() < 4 && !done.load(Ordering::Relaxed) {
                let id = format!("w{index}-{}", written.sent.len());
                open.insert(written.sent.len());
                socket.post(&id, &format!("text of {id}")).await;
                written.sent.push(id);
            }
            if open.is_empty() {
                return written;
            }
            let Ok(Ok(frame)) = timeout(Duration::from_secs(10), socket.next()).await else {
                break;
            };
            if frame["type"] == "ok" {
                let id = frame["message_id"].as_str().unwrap().to_owned();
                let number = written.sent.iter().position(|sent| *sent == id).unwrap();
                let seq = frame["seq"].as_u64().unwrap();
                let before = written.acknowledged.insert(id.clone(), seq);
                assert!(before.is_none_or(|before| before == seq), "{id} got two numbers");
                open.remove(&number);
            } else if frame["type"] == "error" {
                // Refused for now (the upstream is away): connect anew and resend.
                sleep(Duration::from_millis(50)).await;
                break;
            }
        }
    }
    written
}

/// Follows a group through all crashes by its last number and returns every number it saw.
async fn watch(person: Person, group: String, done: Arc<AtomicBool>) -> Vec<u64> {
    let mut seen: Vec<u64> = Vec::new();
    let mut quiet_since = None;
    loop {
        let Some(mut socket) =
            attach(&person, &group, Some(seen.last().copied().unwrap_or(0))).await
        else {
            continue;
        };
        loop {
            match timeout(Duration::from_millis(500), socket.next()).await {
                Ok(Ok(frame)) if frame["type"] == "event" => {
                    seen.push(frame["seq"].as_u64().unwrap());
                    quiet_since = None;
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => break,
                Err(_) if done.load(Ordering::Relaxed) => {
                    let since = *quiet_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(1) {
                        return seen;
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// A socket that is attached, or `None` while the server is away.
async fn attach(
    person: &Person,
    group: &str,
    after: Option<u64>,
) -> Option<convene_testing::client::Socket> {
    let Ok(mut socket) = person.connect(group).await else {
        sleep(Duration::from_millis(20)).await;
        return None;
    };
    let mut frame = json!({"type": "attach", "ref": "attach"});
    if let Some(after) = after {
        frame["after"] = json!(after);
    }
    socket.send(&frame).await;
    loop {
        let frame = timeout(Duration::from_secs(10), socket.next()).await.ok()?.ok()?;
        if frame["ref"] == "attach" {
            if frame["type"] == "attached" {
                return Some(socket);
            }
            sleep(Duration::from_millis(20)).await;
            return None;
        }
    }
}
