//! Archive, restore and delete through real processes, controllers and a folder of snapshots, also
//! when the process dies at any step of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    browser::free_port,
    client::Socket,
    conformance::{Portal, Target},
    process::{Convene, Launch},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::convene;

const GROUP: &str = "g1";
const ORG: &str = "o1";
/// The deadline of what should happen soon; it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Convene on a directory, with an outside app that has groups of its own.
struct Stage {
    dir: tempfile::TempDir,
    infra: String,
    portal: Portal,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("convene.toml"), Target::apps_toml()).unwrap();
        let infra = format!("127.0.0.1:{}", free_port());
        let target = Target::new("", format!("http://{infra}"));
        let portal = Portal::new(&target.infra, &target.portal);
        Self { dir, infra, portal }
    }

    fn launch(&self) -> Launch {
        convene(self.dir.path())
            .arg("--config")
            .arg(self.dir.path().join("convene.toml").to_str().unwrap())
            .arg("--orchestrator-listen")
            .arg(&self.infra)
            .env("CONVENE_ORCHESTRATOR__TASK_LEASE_MS", "1000")
            .env("CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS", "100")
    }

    async fn start(&self) -> Convene {
        self.launch().start().await
    }

    /// Activates the group and writes in it.
    async fn talk(&self, texts: &[&str]) {
        self.portal.activate(GROUP, ORG).await;
        let (mut upstream, token) = self.upstream().await;
        let attach = json!({"type": "attach", "ref": "a", "conn": "c1", "token": token});
        upstream.send(&attach).await;
        let attached = upstream.until(|frame| frame["ref"] == "a").await;
        assert_eq!(attached["type"], "attached", "{attached}");
        for text in texts {
            let message_id = text.replace(' ', "-");
            upstream
                .send(&json!({
                    "type": "post", "ref": text, "conn": "c1",
                    "message_id": message_id, "text": text,
                }))
                .await;
            let ok = upstream.until(|frame| frame["ref"] == *text).await;
            assert_eq!(ok["type"], "ok", "{ok}");
        }
    }

    async fn upstream(&self) -> (Socket, String) {
        let token = self.portal.routing_token(GROUP, "u1").await;
        (self.portal.upstream(GROUP, &token).await.unwrap(), token)
    }

    /// The group's messages as a reader has them. An app activates a group that is not archived
    /// first: its controller may not know yet that an archive was given up.
    async fn messages(&self) -> Value {
        if self.status().await != "archived" {
            self.portal.activate(GROUP, ORG).await;
        }
        let token = self.portal.routing_token(GROUP, "u1").await;
        let (status, page) = self.portal.history(GROUP, &token).await;
        assert_eq!(status, 200, "{page}");
        page["messages"].clone()
    }

    async fn status(&self) -> String {
        let path = format!("/infra/groups/{GROUP}");
        let record = self.portal.done("GET", &path, Value::Null).await;
        record["group_status"].as_str().unwrap().to_owned()
    }

    /// The state in which the group comes to rest.
    async fn rest(&self) -> String {
        let rest = async {
            loop {
                let status = self.status().await;
                if !["archiving", "restoring", "deleting"].contains(&status.as_str()) {
                    return status;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, rest).await.expect("the group comes to rest")
    }

    async fn until(&self, wanted: &str) {
        let until = async {
            while self.status().await != wanted {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("the group becomes {wanted}"));
    }

    async fn archive(&self) -> Value {
        let path = format!("/infra/groups/{GROUP}/archive");
        self.portal.done("POST", &path, json!({"reason": "a test"})).await
    }

    async fn restore(&self) -> Value {
        let path = format!("/infra/groups/{GROUP}/restore");
        self.portal.done("POST", &path, Value::Null).await
    }

    /// Makes a call at which the process dies at `failpoint`; then it is started again.
    async fn die_at(&self, failpoint: &str, method: &str, what: &str, body: Value) -> Convene {
        let node = self.launch().env("CONVENE_FAILPOINT", failpoint).start().await;
        let (portal, method) = (self.portal.clone(), method.to_owned());
        let path = format!("/infra/groups/{GROUP}{what}");
        // There is no answer.
        let call = tokio::spawn(async move { portal.call(&method, &path, body).await });
        let ended = timeout(PATIENCE, node.ended()).await;
        ended.unwrap_or_else(|_| panic!("the process ends at {failpoint}"));
        drop(call);
        self.start().await
    }

    fn snapshots(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.dir.path().join("data").join("archives"), &mut files);
        files
    }
}

/// All files below a folder that belong to a group.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.components().any(|part| part.as_os_str() == GROUP) {
            files.push(path);
        }
    }
}

/// The failpoints of one call, in order.
fn failpoints(of: &str) -> Vec<&'static str> {
    let all = convene_orchestrator::FAILPOINTS.iter().copied();
    all.filter(|name| name.starts_with(of)).collect()
}

#[tokio::test]
async fn an_archived_group_is_read_from_its_snapshot_comes_back_and_goes_on() {
    let stage = Stage::new();
    let node = stage.start().await;
    stage.talk(&["one", "two", "three"]).await;
    let before = stage.messages().await;
    assert_eq!(stage.snapshots(), Vec::<PathBuf>::new(), "nothing is written for a group in use");
    let archived = stage.archive().await;
    assert_eq!(archived["messages"], 3);
    assert_eq!(stage.snapshots().len(), 2);
    assert_eq!(stage.messages().await, before);
    let refused =
        stage.portal.call("POST", "/infra/groups", json!({"group_id": GROUP, "org_id": ORG}));
    assert_eq!(refused.await.1["code"], "group_archived");
    let restored = stage.restore().await;
    assert_eq!(restored["epoch"], 2);
    assert_eq!(stage.messages().await, before);
    stage.talk(&["four"]).await;
    let after = stage.messages().await;
    assert_eq!(after.as_array().unwrap()[..3], before.as_array().unwrap()[..]);
    assert_eq!(after[3]["text"], "four");
    stage.archive().await;
    assert_eq!(stage.messages().await, after);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_group_that_nobody_uses_is_archived_and_the_store_sees_nothing_before() {
    let stage = Stage::new();
    let node = stage
        .launch()
        .env("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1")
        .env("CONVENE_ORCHESTRATOR__AUTO_ARCHIVE_AFTER_SECS", "2")
        .start()
        .await;
    stage.talk(&["one", "two"]).await;
    stage.until("idle").await;
    assert_eq!(stage.snapshots(), Vec::<PathBuf>::new());
    stage.until("archived").await;
    assert_eq!(stage.snapshots().len(), 2);
    assert_eq!(stage.messages().await.as_array().unwrap().len(), 2);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_an_archive_leaves_the_group_live_or_archived_and_whole()
{
    let stage = Stage::new();
    let node = stage.start().await;
    stage.talk(&["one", "two", "three"]).await;
    let before = stage.messages().await;
    node.kill().await;
    let names = failpoints("archive.");
    assert_eq!(names.len(), 9);
    for name in names {
        let node = stage.die_at(name, "POST", "/archive", json!({"reason": "a test"})).await;
        let status = stage.rest().await;
        let marked = ["archive.marked", "archive.wiped"].contains(&name);
        assert_eq!(status == "archived", marked, "{name}: {status}");
        assert_eq!(stage.messages().await, before, "{name}");
        if status == "archived" {
            stage.restore().await;
            assert_eq!(stage.messages().await, before, "{name}");
        }
        // It is fit for everything: also for being archived and coming back.
        stage.archive().await;
        stage.restore().await;
        stage.talk(&[]).await;
        assert_eq!(stage.messages().await, before, "{name}");
        node.kill().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_restore_leaves_the_group_live_or_archived_and_whole()
{
    let stage = Stage::new();
    let node = stage.start().await;
    stage.talk(&["one", "two", "three"]).await;
    let before = stage.messages().await;
    node.kill().await;
    let names = failpoints("restore.");
    assert_eq!(names.len(), 6);
    for name in names {
        let node = stage.start().await;
        stage.archive().await;
        node.kill().await;
        let node = stage.die_at(name, "POST", "/restore", Value::Null).await;
        let status = stage.rest().await;
        assert!(["active", "idle", "archived"].contains(&status.as_str()), "{name}: {status}");
        assert_eq!(stage.messages().await, before, "{name}");
        if status == "archived" {
            stage.restore().await;
        }
        stage.talk(&[]).await;
        assert_eq!(stage.messages().await, before, "{name}");
        node.kill().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_delete_leaves_nothing_of_the_group() {
    let names = failpoints("delete.");
    assert_eq!(names.len(), 4);
    // An archived group has a snapshot to remove, a live one has what its controller keeps.
    for (name, archived) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let stage = Stage::new();
        let node = stage.start().await;
        stage.talk(&["one", "two"]).await;
        if archived {
            stage.archive().await;
        }
        node.kill().await;
        let node = stage.die_at(name, "DELETE", "", Value::Null).await;
        assert_eq!(stage.rest().await, "deleted", "{name}");
        assert_eq!(stage.snapshots(), Vec::<PathBuf>::new(), "{name}");
        let again =
            stage.portal.call("POST", "/infra/groups", json!({"group_id": GROUP, "org_id": ORG}));
        assert_eq!(again.await.1["code"], "group_deleted", "{name}");
        node.kill().await;
    }
}
