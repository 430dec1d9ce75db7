//! Keys are rotated and retired while people post, attach and wake agents: nobody notices.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use convene_testing::{client::Person, cluster::Plan, forge::Identity};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinHandle, time::sleep};

/// How long a new key is published here; no shorter time is allowed.
const AFTER_SECS: &str = "10";
/// Requests of each kind that must go through between two steps.
const BETWEEN: u64 = 8;

/// Runs `convene keys …` on a data directory and returns the lines of its JSON.
async fn keys(dir: &Path, args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    let command = command.arg("keys").args(args).args(["--json", "--data-dir"]).arg(dir);
    let output = command.current_dir(dir).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids of the keys of each service that are in a state.
async fn kids(dir: &Path, state: &str) -> Vec<String> {
    let all = keys(dir, &["list"]).await;
    let found = all.iter().filter(|key| key["state"] == state);
    found.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Requests without any second attempt: the first that fails fails the test.
struct Requests {
    workers: Vec<JoinHandle<()>>,
    done: Arc<AtomicBool>,
    counts: [Arc<AtomicU64>; 3],
}

impl Requests {
    /// Posts, attaches and agents' replies, as `person` in `groups`, one after the other of each.
    fn start(person: &Person, groups: &[String]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let counts: [Arc<AtomicU64>; 3] = std::array::from_fn(|_| Arc::default());
        let mut workers = Vec::new();
        for group in groups {
            let (posts, attaches, replies) = (&counts[0], &counts[1], &counts[2]);
            let (p, g, d, n) = (person.clone(), group.clone(), done.clone(), posts.clone());
            workers.push(tokio::spawn(async move {
                while !d.load(Ordering::Relaxed) {
                    let path = format!("/api/groups/{g}/messages");
                    p.post(&path, json!({"text": "still here"})).await;
                    let (status, read) = p.get(&format!("{path}?limit=5")).await;
                    assert_eq!(status, 200, "{read}");
                    n.fetch_add(1, Ordering::Relaxed);
                }
            }));
            let (p, g, d, n) = (person.clone(), group.clone(), done.clone(), attaches.clone());
            workers.push(tokio::spawn(async move {
                while !d.load(Ordering::Relaxed) {
                    let (_socket, attached) = p.attach(&g, None).await;
                    assert_eq!(attached["type"], "attached", "{attached}");
                    n.fetch_add(1, Ordering::Relaxed);
                }
            }));
            let (p, g, d, n) = (person.clone(), group.clone(), done.clone(), replies.clone());
            workers.push(tokio::spawn(async move {
                let (mut socket, _) = p.attach(&g, None).await;
                while !d.load(Ordering::Relaxed) {
                    let id = format!("ask-{}", n.load(Ordering::Relaxed));
                    socket.post(&id, "@Guide hello").await;
                    let finished = socket.event("run.finished").await;
                    assert_eq!(finished["status"], "completed", "{finished}");
                    n.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { workers, done, counts }
    }

    /// Waits until more requests of each kind went through, and that none has failed.
    async fn progress(&self) {
        for count in &self.counts {
            let wanted = count.load(Ordering::Relaxed) + BETWEEN;
            while count.load(Ordering::Relaxed) < wanted {
                assert!(!self.workers.iter().any(JoinHandle::is_finished), "a request failed");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn end(self) {
        self.done.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.expect("no request failed");
        }
    }
}

async fn published(url: &str) -> Vec<String> {
    let url = format!("{url}/.well-known/jwks.json");
    let jwks: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Rotates and retires all services' keys under load; `doors` publish the App's.
async fn check(person: &Person, dir: &Path, doors: &[String]) {
    let org = person.create_org("Lighthouse").await;
    let mut groups = Vec::new();
    for title in ["One", "Two"] {
        groups.push(person.create_group(&org, title).await);
    }
    let load = Requests::start(person, &groups);
    load.progress().await;
    let old = kids(dir, "signing").await;
    assert_eq!(old.len(), 4, "{old:?}");

    let next = keys(dir, &["rotate", "--after", AFTER_SECS]).await;
    assert_eq!(next.len(), 4, "{next:?}");
    let next: Vec<_> = next.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    load.progress().await;
    assert_eq!(kids(dir, "signing").await, old);
    while kids(dir, "signing").await != next {
        load.progress().await;
    }
    // Running processes change over with their next look.
    sleep(Duration::from_secs(3)).await;
    load.progress().await;
    for door in doors {
        assert!(published(door).await.contains(&old[0]), "what it signed is under way");
    }

    for service in ["app", "orchestrator", "controllers", "agents"] {
        let retired = keys(dir, &["retire", service, "--force"]).await;
        assert_eq!(retired.len(), 1, "{retired:?}");
    }
    for door in doors {
        while published(door).await.len() != 1 {
            load.progress().await;
        }
        assert_eq!(published(door).await, [next[0].clone()]);
    }
    load.progress().await;
    load.end().await;
}

#[tokio::test]
async fn no_request_fails_while_the_keys_of_one_process_are_rotated_and_retired() {
    let dir = tempfile::tempdir().unwrap();
    let convene = crate::convene(dir.path()).start().await;
    let ana = Person::sign_up(&convene.url, "Ana").await;
    check(&ana, &dir.path().join("data"), std::slice::from_ref(&convene.url)).await;

    // A restart goes on with the new keys.
    assert_eq!(convene.stop().await, Some(0));
    let again = crate::convene(dir.path()).start().await;
    let signing = kids(&dir.path().join("data"), "signing").await;
    assert_eq!(published(&again.url).await, [signing[0].clone()]);
    assert_eq!(again.stop().await, Some(0));
}

#[tokio::test]
async fn no_request_fails_while_the_keys_of_several_processes_are_rotated_and_retired() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).start().await;
    let ana = Person::sign_up(&cluster.url(), "Ana").await;
    let doors = [cluster.app_url(0), cluster.app_url(1)];
    check(&ana, &dir.path().join("data"), &doors).await;
    cluster.shut_down().await;
}

#[tokio::test]
async fn the_keys_of_one_service_are_printed_for_a_configuration_without_any_secret() {
    let dir = tempfile::tempdir().unwrap();
    crate::convene(dir.path()).start().await.stop().await;
    let run = |args: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
        command.arg("keys").args(args).arg("--data-dir").arg(dir.path().join("data"));
        async move { command.output().await.unwrap() }
    };
    let jwks = run(&["list", "app", "--jwks"]).await;
    let jwks: Value = serde_json::from_slice(&jwks.stdout).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    assert!(jwks["keys"][0].get("d").is_none(), "{jwks}");
    assert_ne!(jwks["keys"][0]["kid"], Identity::new("app", 1).key.kid());

    let refused = run(&["retire", "app"]).await;
    assert!(refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing to retire"));
    let refused = run(&["rotate", "--after", "9"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("at least 10 s"));
    assert!(!refused.status.success());
}
