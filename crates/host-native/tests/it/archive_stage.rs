//! A stage for archive, restore and delete as an operator of many organizations has them: two
//! Orchestrators over PostgreSQL, a bucket that speaks S3, the controllers, and a line that can fail
//! between each of them. An outside app has the groups.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    client::Socket,
    cluster::{Cluster, Member, Plan},
    conformance::{Portal, Target},
    fault_proxy::FaultProxy,
    postgres::TestDatabase,
    s3_server::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::archive_content::{self, say};

pub(crate) const GROUP: &str = "g1";
pub(crate) const ORG: &str = "o1";
/// The deadline of what should happen soon; it only turns a hang into a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The processes in which a group's life is decided.
pub(crate) const ORCHESTRATORS: [Member; 2] = [Member::Orchestrator(0), Member::Orchestrator(1)];

const FAILPOINT: &str = "CONVENE_FAILPOINT";
/// Long enough that a busy machine keeps a lease, and no longer than tests like to wait.
const LEASE_MS: &str = "2000";

/// What an outside app does, and what a call came to.
pub(crate) type Answer = (u16, Value);

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) store: S3Server,
    /// The line from the Orchestrators to PostgreSQL.
    pub(crate) to_database: FaultProxy,
    /// The line from the Orchestrators to the controllers.
    pub(crate) to_controllers: FaultProxy,
    /// One app, at each of the Orchestrators.
    pub(crate) portals: [Portal; 2],
    dir: tempfile::TempDir,
    _database: TestDatabase,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further settings of all processes.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = TestDatabase::fresh().await;
        let to_database = FaultProxy::to(database.address()).await;
        let store = S3Server::start().await.unwrap();
        let mut plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 2, 1);
        let to_controllers = FaultProxy::to(plan.address(Member::Controllers)).await;
        let infra = ORCHESTRATORS.map(|member| format!("http://{}", plan.address(member)));
        plan = plan
            .toml(&Target::apps_toml())
            .reached_at("controllers", vec![to_controllers.address()])
            .env("CONVENE_ORCHESTRATOR__TASK_LEASE_MS", LEASE_MS)
            .env("CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS", "200");
        let url = database.url_through(&to_database.address());
        for (name, value) in bucket(&store) {
            plan = plan.env(name, value);
        }
        for member in ORCHESTRATORS {
            plan = plan.env_of(member, "CONVENE_DATABASE_URL", url.clone());
        }
        for (name, value) in settings {
            plan = plan.env(name, *value);
        }
        let mut cluster = plan.prepare().await;
        // The App is there for its keys alone: an Orchestrator is ready when it has them.
        for member in [Member::App(0), Member::Controllers, ORCHESTRATORS[0], ORCHESTRATORS[1]] {
            cluster.start(member).await;
        }
        until_usable(&cluster).await;
        let portals = infra.map(|infra| {
            let target = Target::new("", infra);
            Portal::new(&target.infra, &target.portal)
        });
        Self { cluster, store, to_database, to_controllers, portals, dir, _database: database }
    }

    /// The app where nothing is wrong.
    pub(crate) fn portal(&self) -> &Portal {
        &self.portals[1]
    }

    /// Writes in the group, which is in use by then.
    pub(crate) async fn talk(&self, texts: &[&str]) {
        let mut upstream = self.enter().await;
        for text in texts {
            say(&mut upstream, text).await;
        }
    }

    /// Activates the group and attaches somebody to it.
    pub(crate) async fn enter(&self) -> Socket {
        archive_content::enter(self.portal(), GROUP, ORG).await
    }

    /// A group in which people have written, changed, pinned and taken back.
    pub(crate) async fn lively(&self) {
        self.lively_in("").await;
    }

    /// The same with what tells one time from another.
    pub(crate) async fn lively_in(&self, round: &str) {
        archive_content::lively(&mut self.enter().await, round).await;
    }

    /// Such a group, in which an agent was asked as well, and all lines of its snapshot before anything went
    /// wrong; the group is in use, and nothing of it is in the bucket.
    pub(crate) async fn lively_and_kept(&self) -> Vec<u8> {
        let mut upstream = self.enter().await;
        archive_content::lively(&mut upstream, "").await;
        archive_content::asks(self.portal(), GROUP, &mut upstream).await;
        let kept = self.keep().await;
        archive_content::has_everything(&kept);
        kept
    }

    /// All lines of the snapshot that the group has if it is archived now. It is in use afterwards, and nothing
    /// of it is in the bucket.
    pub(crate) async fn keep(&self) -> Vec<u8> {
        self.archived().await;
        let lines = self.lines().await;
        self.restored().await;
        for file in self.files() {
            std::fs::remove_file(file).unwrap();
        }
        lines
    }

    /// The group's messages as a reader has them.
    pub(crate) async fn messages(&self) -> Value {
        if self.status().await != "archived" {
            self.portal().activate(GROUP, ORG).await;
        }
        let token = self.portal().routing_token(GROUP, "u1").await;
        let (status, page) = self.portal().history(GROUP, &token).await;
        assert_eq!(status, 200, "{page}");
        page["messages"].clone()
    }

    pub(crate) async fn record(&self) -> Value {
        self.portal().done("GET", &path(""), Value::Null).await
    }

    pub(crate) async fn status(&self) -> String {
        self.record().await["group_status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn until(&self, wanted: &str) {
        let until = async {
            while self.status().await != wanted {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("the group becomes {wanted}"));
    }

    /// The state in which the group comes to rest. An Orchestrator whose database is away says so.
    pub(crate) async fn rest(&self) -> String {
        let rest = async {
            loop {
                let (code, record) = self.portal().call("GET", &path(""), Value::Null).await;
                let status = record["group_status"].as_str().unwrap_or_default();
                if code == 200 && !["archiving", "restoring", "deleting"].contains(&status) {
                    return status.to_owned();
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, rest).await.expect("the group comes to rest")
    }

    pub(crate) async fn archive(&self) -> Answer {
        archive(self.portal()).await
    }

    pub(crate) async fn restore(&self) -> Answer {
        restore(self.portal()).await
    }

    /// Archives and waits until the controllers have let go of the group: only then is nothing on
    /// its way any more.
    pub(crate) async fn archived(&self) {
        let (status, answer) = self.archive().await;
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) async fn restored(&self) {
        let (status, answer) = self.restore().await;
        assert_eq!(status, 200, "{answer}");
        self.talk(&[]).await;
    }

    /// Says that the group's whole content is that of lines that were kept before, and is so again when it was
    /// archived and restored; the group is in use afterwards.
    pub(crate) async fn is_the_same_as(&self, kept: &[u8], when: &str) {
        for _ in 0..2 {
            if self.status().await != "archived" {
                self.archived().await;
            }
            archive_content::same_content(kept, &self.lines().await, when);
            self.restored().await;
        }
    }

    /// The same of a group in which people have gone on since.
    pub(crate) async fn goes_on_from(&self, kept: &[u8], when: &str) {
        if self.status().await == "archived" {
            self.restored().await;
        }
        self.archived().await;
        archive_content::goes_on_from(kept, &self.lines().await, when);
    }

    /// All lines of the group's latest snapshot, as `convene archive cat` prints them.
    pub(crate) async fn lines(&self) -> Vec<u8> {
        let epoch = |path: &String| {
            let manifest = std::fs::read(self.store.bucket_dir().join(path)).unwrap();
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            manifest["epoch"].as_u64().unwrap()
        };
        let latest = self.manifests().into_iter().max_by_key(epoch).unwrap();
        let (code, lines, said) = self.command(&["cat", &latest]).await;
        assert_eq!(code, Some(0), "{said}");
        lines
    }

    /// The data directory of all processes.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs `convene archive` beside the processes.
    pub(crate) async fn command(&self, args: &[&str]) -> (Option<i32>, Vec<u8>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
        command.arg("archive").args(args).arg("--data-dir").arg(self.dir.path().join("data"));
        command.envs(bucket(&self.store)).current_dir(self.dir.path());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, said)
    }

    /// All files of the group in the bucket, parts under way included.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.store.bucket_dir().join("groups").join(GROUP), &mut files);
        files
    }

    /// Where the group's manifests are in the bucket.
    pub(crate) fn manifests(&self) -> Vec<String> {
        let bucket = self.store.bucket_dir();
        let files = self.files().into_iter();
        let names = files.map(|file| file.strip_prefix(&bucket).unwrap().display().to_string());
        names.filter(|name| name.ends_with(".manifest.json")).collect()
    }

    /// Waits until no more than the files of earlier snapshots are there.
    pub(crate) async fn until_tidy(&self, files: usize) {
        let tidy = async {
            while self.files().len() != files {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, tidy).await;
        waited.unwrap_or_else(|_| panic!("{files} files stay: {:?}", self.files()));
    }

    /// Waits until the bucket has failed somebody more often than so often.
    pub(crate) async fn until_met(&self, failed: u64) {
        let met = async {
            while self.store.failed() <= failed {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, met).await.expect("the fault is met");
    }

    /// Waits until every process is fit for use.
    pub(crate) async fn until_usable(&self) {
        until_usable(&self.cluster).await;
    }

    /// Starts the first Orchestrator anew, with a failpoint or none.
    pub(crate) async fn first_with(&mut self, failpoint: &str) {
        let first = ORCHESTRATORS[0];
        self.cluster.set_env(first, FAILPOINT, failpoint);
        self.cluster.kill(first).await;
        self.cluster.start(first).await;
        self.cluster.until_one_is_ready(first).await;
    }

    /// Makes a call of the first Orchestrator and waits until that stands still at the failpoint.
    pub(crate) async fn stall(&mut self, failpoint: &str, call: &Call) -> JoinHandle<Answer> {
        self.first_with(&format!("stall:{failpoint}")).await;
        let (portal, call) = (self.portals[0].clone(), *call);
        let call = tokio::spawn(async move { call.make(&portal).await });
        let stalled = async {
            while !self.is_stopped(ORCHESTRATORS[0]) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let stalled = timeout(PATIENCE, stalled).await;
        stalled.unwrap_or_else(|_| panic!("the Orchestrator stands still at {failpoint}"));
        call
    }

    /// Lets the first Orchestrator go on where it stood.
    pub(crate) async fn wake(&self) {
        let pid = self.cluster.pid(ORCHESTRATORS[0]).to_string();
        assert!(Command::new("kill").args(["-CONT", &pid]).status().await.unwrap().success());
    }

    fn is_stopped(&self, member: Member) -> bool {
        let stat = format!("/proc/{}/stat", self.cluster.pid(member));
        let stat = std::fs::read_to_string(stat).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        after_name.trim_start().starts_with('T')
    }
}

/// Waits until the Orchestrators are ready and the controllers know their keys: until then they
/// answer them with 503. An Agents Worker is not needed.
async fn until_usable(cluster: &Cluster) {
    cluster.until_one_has(Member::Controllers, "keys of orchestrator").await;
    for member in ORCHESTRATORS {
        cluster.until_one_is_ready(member).await;
    }
}

/// A call of the infra API about the group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Archive,
    Restore,
    Delete,
}

impl Call {
    /// The call during which a failpoint is come by.
    pub(crate) fn of(failpoint: &str) -> Self {
        match failpoint.split('.').next() {
            Some("archive") => Self::Archive,
            Some("restore") => Self::Restore,
            _ => Self::Delete,
        }
    }

    pub(crate) async fn make(self, portal: &Portal) -> Answer {
        match self {
            Self::Archive => archive(portal).await,
            Self::Restore => restore(portal).await,
            Self::Delete => portal.call("DELETE", &path(""), Value::Null).await,
        }
    }
}

pub(crate) async fn archive(portal: &Portal) -> Answer {
    portal.call("POST", &path("/archive"), json!({"reason": "a test"})).await
}

pub(crate) async fn restore(portal: &Portal) -> Answer {
    portal.call("POST", &path("/restore"), Value::Null).await
}

pub(crate) fn path(what: &str) -> String {
    format!("/infra/groups/{GROUP}{what}")
}

pub(crate) fn bucket(store: &S3Server) -> HashMap<&'static str, String> {
    HashMap::from([
        ("CONVENE_ARCHIVES__STORE", "s3".to_owned()),
        ("CONVENE_ARCHIVES__BUCKET", BUCKET.to_owned()),
        ("CONVENE_ARCHIVES__ENDPOINT", store.path_style_endpoint()),
        ("CONVENE_ARCHIVES__ALLOW_HTTP", "true".to_owned()),
        ("CONVENE_ARCHIVES__ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("CONVENE_ARCHIVES__SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
    ])
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
