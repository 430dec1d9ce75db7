//! Archive, restore and delete through real processes, controllers and a folder of snapshots, also
//! when the process dies at any step of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    browser::free_port,
    conformance::{Portal, Target},
    process::{Convene, Launch},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    archive_content::{self, SECRET, files_with, rows_but_others, same_content, say, until_gone},
    convene,
};

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
        let mut upstream = archive_content::enter(&self.portal, GROUP, ORG).await;
        for text in texts {
            say(&mut upstream, text).await;
        }
    }

    /// A group in which people have written, changed, pinned and taken back, and asked an agent.
    async fn lively(&self) {
        let mut upstream = archive_content::enter(&self.portal, GROUP, ORG).await;
        archive_content::lively(&mut upstream, "").await;
        archive_content::asks(&self.portal, GROUP, &mut upstream).await;
    }

    /// Such a group, and all lines of its snapshot; the group is in use,
    /// and its snapshot is gone.
    async fn lively_and_kept(&self) -> Vec<u8> {
        self.lively().await;
        self.archive().await;
        let kept = self.lines().await;
        archive_content::has_everything(&kept);
        self.restore().await;
        for file in self.snapshots() {
            std::fs::remove_file(file).unwrap();
        }
        kept
    }

    /// All lines of the group's latest snapshot, as `convene archive cat` prints them.
    async fn lines(&self) -> Vec<u8> {
        let data = self.dir.path().join("data");
        let manifests = self.snapshots().into_iter();
        let manifests = manifests.filter(|file| file.to_str().unwrap().ends_with(".manifest.json"));
        let epoch = |file: &PathBuf| {
            let manifest: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            manifest["epoch"].as_u64().unwrap()
        };
        let latest = manifests.max_by_key(epoch).unwrap();
        let latest = latest.strip_prefix(data.join("archives")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
        command.args(["archive", "cat", latest.to_str().unwrap(), "--data-dir"]).arg(&data);
        let output = command.current_dir(self.dir.path()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Says that the group's whole content is that of lines that were kept before, and is so again when it was
    /// archived and came back; the group is in use afterwards.
    async fn is_the_same_as(&self, kept: &[u8], when: &str) {
        for _ in 0..2 {
            if self.status().await != "archived" {
                self.archive().await;
            }
            same_content(kept, &self.lines().await, when);
            self.restore().await;
        }
        self.talk(&[]).await;
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
        self.is_killed_at(failpoint, method, what, body).await;
        self.start().await
    }

    /// Makes a call at which the process dies at `failpoint`.
    async fn is_killed_at(&self, failpoint: &str, method: &str, what: &str, body: Value) {
        let node = self.launch().env("CONVENE_FAILPOINT", failpoint).start().await;
        let (portal, method) = (self.portal.clone(), method.to_owned());
        let path = format!("/infra/groups/{GROUP}{what}");
        // There is no answer.
        let call = tokio::spawn(async move { portal.call(&method, &path, body).await });
        let ended = timeout(PATIENCE, node.ended()).await;
        ended.unwrap_or_else(|_| panic!("the process ends at {failpoint}"));
        drop(call);
    }

    /// Starts the process, which goes on with what was under way and dies at `failpoint` by itself.
    async fn goes_on_and_dies_at(&self, failpoint: &str) {
        let (_, said) = self.launch().env("CONVENE_FAILPOINT", failpoint).run_to_end().await;
        assert!(said.contains(&format!("ends at {failpoint}")), "{said}");
    }

    /// Waits until the directory has no task that is under way.
    async fn until_nothing_is_under_way(&self, when: &str) {
        let none = async {
            while self.directory("SELECT count(*) FROM tasks WHERE status = 'running'") > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, none).await.unwrap_or_else(|_| panic!("{when}: every task ends"));
    }

    /// A number from the directory's database.
    fn directory(&self, sql: &str) -> i64 {
        let database = self.dir.path().join("data/infra.db");
        let database = rusqlite::Connection::open(database).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Says that nothing of the group is anywhere but for its tombstone.
    async fn nothing_is_left(&self, node: Convene, when: &str) {
        let data = self.dir.path().join("data");
        until_gone(&self.portal, ORG, &data, when).await;
        assert_eq!(node.stop().await, Some(0), "{when}");
        assert_eq!(files_with(&data, SECRET), Vec::<PathBuf>::new(), "{when}");
        assert_eq!(rows_but_others(&data), Vec::<String>::new(), "{when}");
        assert_eq!(self.snapshots(), Vec::<PathBuf>::new(), "{when}");
        for (table, rows) in [("archives", 0), ("access_revocations", 0), ("routing_records", 1)] {
            let sql = format!("SELECT count(*) FROM {table} WHERE group_id = '{GROUP}'");
            assert_eq!(self.directory(&sql), rows, "{when}: {table}");
        }
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
    let kept = stage.lively_and_kept().await;
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
        // It is fit for everything: also for being archived and coming back.
        stage.is_the_same_as(&kept, name).await;
        assert_eq!(stage.messages().await, before, "{name}");
        node.kill().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_giving_an_archive_up_leaves_the_group_live_and_whole() {
    let stage = Stage::new();
    let node = stage.start().await;
    let kept = stage.lively_and_kept().await;
    let before = stage.messages().await;
    node.kill().await;
    let names = failpoints("thaw.");
    assert_eq!(names.len(), 4);
    for name in names {
        // All of the snapshot is in the store; whoever finds the task gives it up, and dies at that as well.
        let snapshots = stage.snapshots().len();
        stage.is_killed_at("archive.stored", "POST", "/archive", json!({"reason": "a test"})).await;
        assert_eq!(stage.snapshots().len(), snapshots + 2, "{name}");
        stage.goes_on_and_dies_at(name).await;
        let node = stage.start().await;
        stage.until_nothing_is_under_way(name).await;
        let status = stage.rest().await;
        assert!(["active", "idle"].contains(&status.as_str()), "{name}: {status}");
        assert_eq!(stage.snapshots().len(), snapshots, "{name}: nothing of it stays in the store");
        assert_eq!(stage.messages().await, before, "{name}");
        stage.is_the_same_as(&kept, name).await;
        node.kill().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_restore_leaves_the_group_live_or_archived_and_whole()
{
    let stage = Stage::new();
    let node = stage.start().await;
    let kept = stage.lively_and_kept().await;
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
        stage.is_the_same_as(&kept, name).await;
        assert_eq!(stage.messages().await, before, "{name}");
        node.kill().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_giving_a_restore_up_leaves_the_group_archived_and_whole()
 {
    let stage = Stage::new();
    let node = stage.start().await;
    let kept = stage.lively_and_kept().await;
    let before = stage.messages().await;
    stage.archive().await;
    node.kill().await;
    let names = failpoints("abandon.");
    assert_eq!(names.len(), 2);
    for name in names {
        // The last byte of the snapshot is another: all of its events are imported before that is found.
        let mut files = stage.snapshots().into_iter();
        let content = files.find(|file| file.to_str().unwrap().ends_with(".ndjson.gz")).unwrap();
        let good = std::fs::read(&content).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        std::fs::write(&content, &bad).unwrap();
        let node = stage.die_at(name, "POST", "/restore", Value::Null).await;
        stage.until_nothing_is_under_way(name).await;
        assert_eq!(stage.rest().await, "archived", "{name}");
        assert_eq!(std::fs::read(&content).unwrap(), bad, "{name}: it is left as it is");
        let data = stage.dir.path().join("data");
        let left = async {
            while rows_but_others(&data) != Vec::<String>::new() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, left)
            .await
            .unwrap_or_else(|_| panic!("{name}: {:?}", rows_but_others(&data)));
        std::fs::write(&content, &good).unwrap();
        assert_eq!(stage.messages().await, before, "{name}");
        same_content(&kept, &stage.lines().await, name);
        node.kill().await;
    }
    let node = stage.start().await;
    stage.is_the_same_as(&kept, "after all of them").await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_delete_leaves_nothing_of_the_group() {
    let names = failpoints("delete.");
    assert_eq!(names.len(), 4);
    // An archived group has a snapshot to remove, a live one has what its controller keeps.
    for (name, archived) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let stage = Stage::new();
        let node = stage.start().await;
        stage.lively().await;
        if archived {
            stage.archive().await;
            assert!(!files_with(&stage.dir.path().join("data/archives"), GROUP).is_empty());
        } else {
            assert!(!files_with(&stage.dir.path().join("data/groups"), SECRET).is_empty());
        }
        node.kill().await;
        let node = stage.die_at(name, "DELETE", "", Value::Null).await;
        assert_eq!(stage.rest().await, "deleted", "{name}");
        let again = json!({"group_id": GROUP, "org_id": ORG});
        let (status, answer) = stage.portal.call("POST", "/infra/groups", again).await;
        assert_eq!((status, &answer["code"]), (410, &json!("group_deleted")), "{name}");
        let when = format!("{name}, {}", if archived { "archived" } else { "live" });
        stage.nothing_is_left(node, &when).await;
    }
}

#[tokio::test]
async fn a_process_that_dies_while_it_looks_for_leftovers_of_a_deleted_group_looks_again() {
    let stage = Stage::new();
    let node = stage.start().await;
    stage.lively().await;
    stage.archive().await;
    let late = stage.snapshots();
    let late: Vec<_> =
        late.iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
    let path = format!("/infra/groups/{GROUP}");
    stage.portal.call("DELETE", &path, Value::Null).await;
    assert_eq!(stage.rest().await, "deleted");
    node.kill().await;
    // Somebody who was away puts its snapshot after all, and the look that is due in hours is due now.
    for (file, bytes) in &late {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let due = "UPDATE tasks SET lease_until = 0 WHERE kind = 'purge' RETURNING 1";
    assert_eq!(stage.directory(due), 1);
    stage.goes_on_and_dies_at("purge.purged").await;
    assert_eq!(stage.snapshots(), Vec::<PathBuf>::new());
    std::fs::create_dir_all(late[0].0.parent().unwrap()).unwrap();
    std::fs::write(&late[0].0, &late[0].1).unwrap();
    let node = stage.start().await;
    stage.until_nothing_is_under_way("purge.purged").await;
    stage.nothing_is_left(node, "purge.purged").await;
}
