//! Two Agents Workers beside each other behave as one: each serves runs by what the workspace says now, and
//! one that stands still and wakes up late changes nothing.

use std::{path::Path, process::Command, time::Duration};

use convene_testing::{
    client::{Person, Socket},
    cluster::{Cluster, Member, Plan},
    model_server::{ModelServer, Recorded, Script},
};
use serde_json::{Value, json};

/// A cluster with two Agents Workers, and a group with one agent on a model of the test.
struct Works {
    cluster: Cluster,
    models: ModelServer,
    ana: Person,
    org: String,
    provider: String,
    agent: String,
    group: String,
    socket: Socket,
    posts: usize,
}

impl Works {
    /// Of the two Agents Workers only the first runs.
    async fn open(dir: &Path) -> Self {
        let models = ModelServer::start().await.unwrap();
        let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir, 1, 1, 2)
            .env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1");
        let mut cluster = plan.prepare().await;
        for member in
            [Member::App(0), Member::Orchestrator(0), Member::Controllers, Member::Agents(0)]
        {
            cluster.start(member).await;
        }
        cluster.until_ready().await;
        let ana = Person::sign_up(&cluster.app_url(0), "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let new = json!({"name": "Models", "base_url": models.base_url(), "api_key": "sk-first"});
        let made = ana.post(&format!("/api/orgs/{org}/providers"), new).await;
        let provider = made["provider_id"].as_str().unwrap().to_owned();
        let new = json!({
            "name": "Scribe", "provider_id": provider, "model": "m", "system_prompt": "First.",
        });
        let made = ana.post(&format!("/api/orgs/{org}/agents"), new).await;
        let agent = made["agent_id"].as_str().unwrap().to_owned();
        let new = json!({"org_id": org, "title": "Plans", "agent_ids": [agent]});
        let made = ana.post("/api/groups", new).await;
        let group = made["group_id"].as_str().unwrap().to_owned();
        let (socket, _) = ana.attach(&group, None).await;
        Self { cluster, models, ana, org, provider, agent, group, socket, posts: 0 }
    }

    async fn mention(&mut self) {
        self.posts += 1;
        let message_id = format!("m{}", self.posts);
        self.socket.post(&message_id, "@Scribe are you there?").await;
    }

    /// Mentions the agent, and returns what its model was sent.
    async fn asked(&mut self) -> Recorded {
        self.mention().await;
        let finished = self.socket.event("run.finished").await;
        assert_eq!(finished["status"], "completed", "{finished}");
        self.models.requests().pop().unwrap()
    }

    async fn change(&self, path: &str, change: Value) {
        let path = format!("/api/orgs/{}/{path}", self.org);
        let (status, answer) = self.ana.send("PATCH", &path, Some(&change)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Asks until four requests one after the other are of the new kind: two of each worker, since they
    /// are taken in turn.
    async fn until_both(&mut self, is_new: impl Fn(&Recorded) -> bool) {
        let mut in_a_row = 0;
        while in_a_row < 4 {
            let sent = self.asked().await;
            in_a_row = if is_new(&sent) { in_a_row + 1 } else { 0 };
        }
    }

    fn signal(&self, member: Member, signal: &str) {
        let pid = self.cluster.pid(member).to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

fn key(sent: &Recorded) -> &str {
    sent.header("authorization").unwrap_or_default()
}

fn prompt(sent: &Recorded) -> String {
    sent.messages()[0].1.clone()
}

#[tokio::test]
async fn both_workers_serve_runs_and_learn_of_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut works = Works::open(dir.path()).await;
    works.cluster.start(Member::Agents(1)).await;
    works.cluster.until_ready().await;
    works.models.always("m", Script::Say("Here.".to_owned()));
    works.models.always("m2", Script::Say("Here.".to_owned()));
    works.until_both(|sent| key(sent) == "Bearer sk-first").await;

    let (provider, agent) = (works.provider.clone(), works.agent.clone());
    works.change(&format!("providers/{provider}"), json!({"api_key": "sk-second"})).await;
    works.until_both(|sent| key(sent) == "Bearer sk-second").await;
    let change = json!({"system_prompt": "Second.", "model": "m2"});
    works.change(&format!("agents/{agent}"), change).await;
    works
        .until_both(|sent| prompt(sent).starts_with("Second.") && sent.body["model"] == "m2")
        .await;

    // Each of them does so also without the other.
    for (gone, stays) in [(0, 1), (1, 0)] {
        works.cluster.kill(Member::Agents(gone)).await;
        let sent = works.asked().await;
        assert_eq!(key(&sent), "Bearer sk-second", "worker {stays}");
        assert!(prompt(&sent).starts_with("Second."), "worker {stays}");
        works.cluster.start(Member::Agents(gone)).await;
        works.cluster.until_ready().await;
    }
    works.cluster.shut_down().await;
}

#[tokio::test]
async fn a_worker_that_stands_still_and_wakes_up_late_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut works = Works::open(dir.path()).await;
    let (chunks, pause) = (vec!["Too ".to_owned(), "late.".to_owned()], Duration::from_secs(1));
    works.models.next("m", Script::Slow { chunks, pause });
    works.models.always("m", Script::Say("In time.".to_owned()));
    works.mention().await;
    while works.models.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    works.signal(Member::Agents(0), "-STOP");
    works.cluster.start(Member::Agents(1)).await;

    // Its silence is noticed, which takes half a minute, and the other one answers.
    while works.ana.all_messages(&works.group).await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let finished = works.socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert!(finished["attempt"].as_u64() > Some(1), "{finished}");
    works.signal(Member::Agents(0), "-CONT");
    // What it does now is seen by nobody: it has answered the next mention, and said nothing of the first.
    works.cluster.kill(Member::Agents(1)).await;
    works.asked().await;

    let messages = works.ana.all_messages(&works.group).await;
    let texts: Vec<_> = messages.iter().map(|message| message["text"].as_str().unwrap()).collect();
    let (asked, answer) = ("@Scribe are you there?", "In time.");
    assert_eq!(texts, [asked, answer, asked, answer]);
    let (mut again, attached) = works.ana.attach(&works.group, Some(0)).await;
    assert_eq!(attached["state"]["runs"], json!([]), "{attached}");
    let head = attached["seq"].as_u64();
    let (mut ends, mut seq) = (Vec::new(), Some(0));
    while seq < head {
        let event = again.until(|frame| frame["type"] == "event").await;
        seq = event["seq"].as_u64();
        if event["kind"] == "run.finished" {
            ends.push(event["run_id"].clone());
        }
    }
    assert_eq!(ends.len(), 2);
    assert_ne!(ends[0], ends[1], "each run ended once");
    works.cluster.shut_down().await;
}
