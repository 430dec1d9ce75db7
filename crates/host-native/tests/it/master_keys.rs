//! The master key of the secrets from each place that it may come from, with the real binary: what was sealed
//! opens after a change of the key, and never with another one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use convene_testing::{
    client::{Person, Socket},
    model_server::{ModelServer, Script},
    process::{Convene, Launch},
};
use serde_json::json;

use crate::convene;

const KEY: &str = "sk-master-test-1";

/// A workspace whose agent needs a secret for each answer.
struct House {
    models: ModelServer,
    ana: Person,
    org: String,
    group: String,
    posts: usize,
}

fn launch(dir: &Path) -> Launch {
    convene(dir).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1")
}

/// A key file as operators put them.
fn put(path: &Path, byte: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, [byte; 32]).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

impl House {
    async fn open(node: &Convene) -> Self {
        let models = ModelServer::start().await.unwrap();
        models.always("m", Script::Say("Here.".to_owned()));
        let ana = Person::sign_up(&node.url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let new = json!({"name": "Models", "base_url": models.base_url(), "api_key": KEY});
        let provider = ana.post(&format!("/api/orgs/{org}/providers"), new).await;
        let new = json!({"name": "Scribe", "provider_id": provider["provider_id"], "model": "m"});
        let agent = ana.post(&format!("/api/orgs/{org}/agents"), new).await;
        let new = json!({"org_id": org, "title": "Plans", "agent_ids": [agent["agent_id"]]});
        let group = ana.post("/api/groups", new).await["group_id"].as_str().unwrap().to_owned();
        Self { models, ana, org, group, posts: 0 }
    }

    /// Mentions the agent at a process, and says how its run ended.
    async fn ask(&mut self, node: &Convene) -> String {
        let ana = self.ana.at(&node.url);
        let (mut socket, _): (Socket, _) = ana.attach(&self.group, None).await;
        self.posts += 1;
        socket.post(&format!("m{}", self.posts), "@Scribe are you there?").await;
        let finished = socket.event("run.finished").await;
        if finished["status"] == "completed" {
            let requests = self.models.requests();
            let sent = requests.last().unwrap().header("authorization");
            assert_eq!(sent, Some(&*format!("Bearer {KEY}")));
        }
        finished["code"].as_str().unwrap_or("completed").to_owned()
    }

    /// Starts a process, asks the agent once, and stops it.
    async fn once(&mut self, launch: &Launch) -> String {
        let node = launch.start().await;
        let ended = self.ask(&node).await;
        assert_eq!(node.stop().await, Some(0));
        ended
    }
}

#[tokio::test]
async fn secrets_open_with_a_master_key_from_the_environment_and_after_its_change() {
    let dir = tempfile::tempdir().unwrap();
    let with = |byte: u8| launch(dir.path()).env("CONVENE_APP__MASTER_KEY", hex(byte));
    let node = with(0xa1).start().await;
    let mut house = House::open(&node).await;
    assert_eq!(house.ask(&node).await, "completed");
    assert_eq!(node.stop().await, Some(0));
    assert!(!dir.path().join("data/keys/master.key").exists(), "no key was made beside it");

    let retired = dir.path().join("data/keys/retired/first.key");
    put(&retired, 0xa1);
    assert_eq!(house.once(&with(0xa2)).await, "completed", "what the first one wrapped");
    fs::remove_file(&retired).unwrap();
    assert_eq!(house.once(&with(0xa2)).await, "completed", "the first one is needed no more");
    assert_eq!(house.once(&with(0xa3)).await, "resolve_failed", "and another one opens nothing");
    assert_eq!(house.once(&with(0xa2)).await, "completed", "nor does it spoil anything");
}

#[tokio::test]
async fn secrets_open_with_a_master_key_from_a_named_file_and_after_its_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("elsewhere/master.key");
    put(&file, 1);
    let named = launch(dir.path()).env("CONVENE_APP__MASTER_KEY_FILE", file.to_string_lossy());
    let node = named.start().await;
    let mut house = House::open(&node).await;
    assert_eq!(house.ask(&node).await, "completed");
    assert_eq!(node.stop().await, Some(0));
    put(&dir.path().join("data/keys/retired/first.key"), 1);
    put(&file, 2);
    assert_eq!(house.once(&named).await, "completed");
    fs::remove_file(dir.path().join("data/keys/retired/first.key")).unwrap();
    assert_eq!(house.once(&named).await, "completed");
}

#[tokio::test]
async fn secrets_open_with_the_organizations_own_key_and_not_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let plain = launch(dir.path());
    let node = plain.start().await;
    let mut house = House::open(&node).await;
    assert_eq!(node.stop().await, Some(0));
    let keys = dir.path().join("data/keys");
    let own = keys.join(format!("organizations/{}.key", house.org));
    put(&own, 1);
    assert_eq!(house.once(&plain).await, "completed");
    // It is taken away, and another one is no key to what it wrapped.
    put(&own, 2);
    assert_eq!(house.once(&plain).await, "resolve_failed");
    put(&keys.join("retired/own.key"), 1);
    assert_eq!(house.once(&plain).await, "completed", "the former one opens it for the new one");
    fs::remove_file(keys.join("retired/own.key")).unwrap();
    assert_eq!(house.once(&plain).await, "completed");
    let copy = dir.path().join("copy");
    let backup = Command::new(env!("CARGO_BIN_EXE_convene"))
        .args(["backup", "--to", &copy.to_string_lossy(), "--data-dir"])
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    let copied = copy.join(format!("keys/organizations/{}.key", house.org));
    assert_eq!(fs::read(copied).unwrap(), [2; 32], "a backup has it as it has the master key");
    put(&keys.join("organizations/not an id.key"), 3);
    let (code, errors) = plain.run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("not an id.key"), "{errors}");
}
