//! Two Agents Workers beside each other behave as one: what was changed holds for the next run, whichever of
//! them has it, and one that stands still and wakes up late changes nothing.

use std::{path::Path, process::Command, time::Duration};

use convene_testing::{
    client::{Person, Socket},
    cluster::{Cluster, Member, Plan},
    fault_proxy::{FaultProxy, Line},
    model_server::{ModelServer, Recorded, Script},
};
use serde_json::{Value, json};

/// A cluster with two Agents Workers, and a group with one agent on a model of the test.
struct Works {
    cluster: Cluster,
    /// The line from the workers to the App.
    to_app: FaultProxy,
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
        let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir, 1, 1, 2);
        let to_app = FaultProxy::to(plan.internal_address(0)).await;
        let plan = plan
            .reached_at("app", vec![to_app.address()])
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
        Self { cluster, to_app, models, ana, org, provider, agent, group, socket, posts: 0 }
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
        // Somebody may have asked for a summary meanwhile.
        let to_agent = |sent: &Recorded| !prompt(sent).starts_with("You write the summary");
        self.models.requests().into_iter().rfind(to_agent).unwrap()
    }

    async fn change(&self, path: &str, change: Value) {
        let path = format!("/api/orgs/{}/{path}", self.org);
        let (status, answer) = self.ana.send("PATCH", &path, Some(&change)).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn make(&self, what: &str, id: &str, new: Value) -> String {
        let made = self.ana.post(&format!("/api/orgs/{}/{what}", self.org), new).await;
        made[id].as_str().unwrap_or_else(|| panic!("no {id} in {made}")).to_owned()
    }

    /// Both workers have it that way from the next run on: of four, each has two, since they are taken in
    /// turn, and the latter two find both of them warm.
    async fn both(&mut self, holds: impl Fn(&Recorded) -> bool) {
        for run in 1..=4 {
            let sent = self.asked().await;
            assert!(holds(&sent), "run {run}: {} {}", key(&sent), sent.body);
        }
    }

    async fn pause(&self, paused: bool) {
        let path = format!("/api/groups/{}/agents", self.group);
        let (status, answer) = self.ana.send("PUT", &path, Some(&json!({"paused": paused}))).await;
        assert_eq!(status, 200, "{answer}");
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
async fn what_was_changed_holds_for_the_next_run_on_both_workers() {
    let dir = tempfile::tempdir().unwrap();
    let mut works = Works::open(dir.path()).await;
    works.cluster.start(Member::Agents(1)).await;
    works.cluster.until_ready().await;
    works.models.always("m", Script::Say("Here.".to_owned()));
    works.models.always("m2", Script::Say("Here.".to_owned()));
    works.both(|sent| key(sent) == "Bearer sk-first").await;

    let (provider, agent) = (works.provider.clone(), works.agent.clone());
    works.change(&format!("providers/{provider}"), json!({"api_key": "sk-second"})).await;
    works.both(|sent| key(sent) == "Bearer sk-second").await;
    let change = json!({"system_prompt": "Second.", "model": "m2"});
    works.change(&format!("agents/{agent}"), change).await;
    works.both(|sent| prompt(sent).starts_with("Second.") && sent.body["model"] == "m2").await;

    // A tool that needs a secret, and the secret's grant to this group.
    let secret = json!({"scope": "workspace", "name": "TOKEN", "value": "t-1"});
    let secret = works.make("secrets", "secret_id", secret).await;
    let tool = json!({"name": "look", "config": {
        "description": "Looks something up.", "base_url": works.models.root_url(),
        "methods": ["GET"], "headers": [{"name": "x-key", "value": {"secret": secret}}],
    }});
    let tool = works.make("http-tools", "tool_id", tool).await;
    works.change(&format!("agents/{agent}"), json!({"config": {"http_tools": [tool]}})).await;
    let has_tool = |sent: &Recorded| sent.body["tools"].to_string().contains("\"look\"");
    works.both(has_tool).await;
    works.change(&format!("secrets/{secret}"), json!({"groups": []})).await;
    works.both(|sent| !has_tool(sent)).await;
    works.change(&format!("secrets/{secret}"), json!({"groups": "all"})).await;
    works.both(has_tool).await;

    // Changes and runs by turns: no run is of a former one.
    for number in 0..10 {
        let text = format!("Number {number}.");
        works.change(&format!("agents/{agent}"), json!({"system_prompt": text})).await;
        let sent = works.asked().await;
        assert!(prompt(&sent).starts_with(&text), "{}", prompt(&sent));
    }

    // What wakes agents is the group's to know, and it knows when the change is answered.
    for _ in 0..5 {
        works.pause(true).await;
        let asked = works.models.requests().len();
        works.mention().await;
        let decided = works.socket.event("trigger.decided").await;
        assert!(decided.to_string().contains("paused"), "{decided}");
        assert_eq!(works.models.requests().len(), asked);
        works.pause(false).await;
        works.asked().await;
    }

    // Each of them does so also without the other.
    for (gone, stays) in [(0, 1), (1, 0)] {
        works.cluster.kill(Member::Agents(gone)).await;
        let text = format!("Worker {stays}.");
        works.change(&format!("agents/{agent}"), json!({"system_prompt": text})).await;
        let sent = works.asked().await;
        assert!(prompt(&sent).starts_with(&text), "worker {stays}");
        works.cluster.start(Member::Agents(gone)).await;
        works.cluster.until_ready().await;
    }
    works.cluster.shut_down().await;
}

#[tokio::test]
async fn a_run_waits_for_an_app_that_is_away_for_a_moment_and_fails_when_it_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut works = Works::open(dir.path()).await;
    works.models.always("m", Script::Say("Here.".to_owned()));
    works.asked().await;

    // While the line is cut nothing of what the worker knows is used, and the change is not missed.
    works.to_app.set(Line::Refused);
    let tried = works.to_app.opened();
    works.change(&format!("agents/{}", works.agent), json!({"system_prompt": "Second."})).await;
    works.mention().await;
    while works.to_app.opened() < tried + 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(works.models.requests().len(), 1);
    works.to_app.set(Line::Open);
    let finished = works.socket.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert!(prompt(&works.models.requests()[1]).starts_with("Second."));

    works.to_app.set(Line::Refused);
    works.mention().await;
    let finished = works.socket.event("run.finished").await;
    assert_eq!(
        (&finished["status"], &finished["code"]),
        (&json!("failed"), &json!("resolve_failed"))
    );
    assert_eq!(works.models.requests().len(), 2, "the model was not asked");
    works.to_app.set(Line::Open);
    works.asked().await;
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
