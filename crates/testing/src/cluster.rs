//! Convene as several processes, one service each, as an operator would run it on one machine: a
//! shared data directory, one configuration file, balancers in front of the App and the infra API.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    balancer::Balancer,
    client::http_client,
    process::{Convene, Launch},
};

/// How long the processes may take until each finds what it needs.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// One process of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// An App, by its number from 0.
    App(usize),
    /// An Orchestrator, by its number from 0.
    Orchestrator(usize),
    /// The controllers.
    Controllers,
    /// An Agents Worker, by its number from 0.
    Agents(usize),
}

impl Member {
    /// The role that the process is started with.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::App(_) => "app",
            Self::Orchestrator(_) => "orchestrator",
            Self::Controllers => "controllers",
            Self::Agents(_) => "agents",
        }
    }
}

/// How to start a cluster. Its addresses are fixed from the beginning, so that a test can put
/// something between two hops before anything runs.
#[derive(Debug)]
pub struct Plan {
    binary: PathBuf,
    dir: PathBuf,
    counts: [usize; 3],
    /// The address of each process's door, and of the Apps' internal doors.
    addresses: BTreeMap<Member, String>,
    internal: Vec<String>,
    urls: BTreeMap<&'static str, Vec<String>>,
    toml: String,
    env: Vec<(Option<Member>, String, String)>,
    shared_data: bool,
}

impl Plan {
    /// Two Apps, two Orchestrators, the controllers and two Agents Workers of `binary` in `dir`.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, dir: &Path) -> Self {
        Self::sized(binary, dir, 2, 2, 2)
    }

    /// The same with other numbers of processes; the controllers are always one.
    #[must_use]
    pub fn sized(
        binary: impl Into<PathBuf>,
        dir: &Path,
        apps: usize,
        orchestrators: usize,
        agents: usize,
    ) -> Self {
        let mut plan = Self {
            binary: binary.into(),
            dir: dir.to_owned(),
            counts: [apps, orchestrators, agents],
            addresses: BTreeMap::new(),
            internal: (0..apps).map(|_| address()).collect(),
            urls: BTreeMap::new(),
            toml: String::new(),
            env: Vec::new(),
            shared_data: true,
        };
        plan.addresses = plan.members().into_iter().map(|member| (member, address())).collect();
        plan
    }

    /// All processes, in the order in which they are started.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let [apps, orchestrators, agents] = self.counts;
        let apps = (0..apps).map(Member::App);
        let orchestrators = (0..orchestrators).map(Member::Orchestrator);
        let agents = (0..agents).map(Member::Agents);
        apps.chain(orchestrators).chain([Member::Controllers]).chain(agents).collect()
    }

    /// `host:port` of a process's door: the public one of an App, else the one for other hops.
    #[must_use]
    pub fn address(&self, member: Member) -> &str {
        &self.addresses[&member]
    }

    /// `host:port` of an App's internal door.
    #[must_use]
    pub fn internal_address(&self, app: usize) -> &str {
        &self.internal[app]
    }

    /// Lets callers reach the services of a role (`app` for the internal door) at other addresses,
    /// each `host:port`, than where they listen.
    #[must_use]
    pub fn reached_at(mut self, role: &'static str, addresses: Vec<String>) -> Self {
        self.urls.insert(role, addresses);
        self
    }

    /// Adds lines to the configuration file; they follow the sections of the four services.
    #[must_use]
    pub fn toml(mut self, lines: &str) -> Self {
        self.toml.push_str(lines);
        self.toml.push('\n');
        self
    }

    /// Sets an environment variable of all processes.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((None, name.to_owned(), value.into()));
        self
    }

    /// Sets an environment variable of one process.
    #[must_use]
    pub fn env_of(mut self, member: Member, name: &str, value: impl Into<String>) -> Self {
        self.env.push((Some(member), name.to_owned(), value.into()));
        self
    }

    /// Gives the processes no data directory in common: each needs one by `CONVENE_DATA_DIR`.
    #[must_use]
    pub fn without_shared_data(mut self) -> Self {
        self.shared_data = false;
        self
    }

    /// Writes the configuration and starts the balancers, but no process yet.
    ///
    /// # Panics
    /// When the configuration cannot be written.
    pub async fn prepare(self) -> Cluster {
        fs::write(self.config_file(), self.config()).expect("the configuration can be written");
        let doors = |wanted: &str| -> Vec<String> {
            let of_role = self.addresses.iter().filter(|(member, _)| member.role() == wanted);
            of_role.map(|(_, address)| address.clone()).collect()
        };
        let public = Balancer::start(doors("app")).await;
        let infra = Balancer::start(doors("orchestrator")).await;
        Cluster { plan: self, public, infra, running: BTreeMap::new() }
    }

    /// Starts everything and waits until each process finds what it needs.
    ///
    /// # Panics
    /// When a process does not start or become ready.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.prepare().await;
        for member in cluster.plan.members() {
            cluster.start(member).await;
        }
        cluster.until_ready().await;
        cluster
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    fn config(&self) -> String {
        let urls = |role: &str| -> String {
            let addresses = self.urls.get(role).cloned().unwrap_or_else(|| match role {
                "app" => self.internal.clone(),
                _ => {
                    let all = self.addresses.iter().filter(|(member, _)| member.role() == role);
                    all.map(|(_, address)| address.clone()).collect()
                }
            });
            let quoted = addresses.iter().map(|address| format!("\"http://{address}\""));
            quoted.collect::<Vec<_>>().join(", ")
        };
        format!(
            "[app]\ninternal_urls = [{}]\n[orchestrator]\nurls = [{}]\n[controllers]\nurl = {}\n\
             [agents]\nurls = [{}]\n{}",
            urls("app"),
            urls("orchestrator"),
            urls("controllers"),
            urls("agents"),
            self.toml
        )
    }

    fn launch(&self, member: Member) -> Launch {
        let address = &self.addresses[&member];
        let mut launch = Launch::new(&self.binary, &self.dir.join("data"))
            .arg("--role")
            .arg(member.role())
            .arg("--config")
            .arg(self.config_file().to_string_lossy());
        launch = match member {
            Member::App(number) => launch
                .listen(address.clone())
                .env("CONVENE_APP__INTERNAL_LISTEN", self.internal[number].clone()),
            Member::Orchestrator(_) => launch.env("CONVENE_ORCHESTRATOR__LISTEN", address.clone()),
            Member::Controllers => launch.env("CONVENE_CONTROLLERS__LISTEN", address.clone()),
            Member::Agents(_) => launch.env("CONVENE_AGENTS__LISTEN", address.clone()),
        };
        if !self.shared_data {
            launch = launch.configured_data_dir();
        }
        for (of, name, value) in &self.env {
            if of.is_none_or(|of| of == member) {
                launch = launch.env(name, value.clone());
            }
        }
        launch
    }
}

/// A running cluster; all processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    public: Balancer,
    infra: Balancer,
    running: BTreeMap<Member, Convene>,
}

impl Cluster {
    /// Where people reach the Apps: the balancer in front of them.
    #[must_use]
    pub fn url(&self) -> String {
        self.public.url()
    }

    /// Where outside apps reach the infra API: the balancer in front of the Orchestrators.
    #[must_use]
    pub fn infra_url(&self) -> String {
        self.infra.url()
    }

    /// Where one App is reached without the balancer.
    #[must_use]
    pub fn app_url(&self, app: usize) -> String {
        format!("http://{}", self.plan.address(Member::App(app)))
    }

    /// The balancer in front of the Apps.
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        &self.public
    }

    /// What it was started from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts a process that does not run. It is ready to answer, not ready to serve: see
    /// [`Self::until_ready`].
    ///
    /// # Panics
    /// When it runs already or does not start.
    pub async fn start(&mut self, member: Member) {
        assert!(!self.running.contains_key(&member), "{member:?} runs already");
        let process = self.plan.launch(member).start().await;
        self.running.insert(member, process);
    }

    /// Kills a process as `kill -9` does.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self, member: Member) {
        self.running.remove(&member).expect("it runs").kill().await;
    }

    /// Asks a process to stop and returns its exit code.
    ///
    /// # Panics
    /// When it does not run, or does not stop in time.
    pub async fn stop(&mut self, member: Member) -> Option<i32> {
        self.running.remove(&member).expect("it runs").stop().await
    }

    /// Sets an environment variable of one process from its next start on.
    pub fn set_env(&mut self, member: Member, name: &str, value: impl Into<String>) {
        self.plan.env.push((Some(member), name.to_owned(), value.into()));
    }

    /// Waits until a process has ended by itself.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn ended(&mut self, member: Member) {
        self.running.remove(&member).expect("it runs").ended().await;
    }

    /// The process id of a member, for signals.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, member: Member) -> u32 {
        self.running[&member].pid()
    }

    /// A process that is expected not to start: exit code and standard error.
    pub async fn run_to_end(&self, member: Member) -> (Option<i32>, String) {
        self.plan.launch(member).run_to_end().await
    }

    /// Waits until every running process finds what it needs.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until_ready(&self) {
        for member in self.running.keys() {
            self.until_one_is_ready(*member).await;
        }
    }

    /// Waits until a running process finds what it needs.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until_one_is_ready(&self, member: Member) {
        self.until(member, |ready, _| ready).await;
    }

    /// Waits until a running process finds one thing that it needs, named as `/readyz` names it,
    /// whatever else it lacks.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until_one_has(&self, member: Member, need: &str) {
        self.until(member, |_, answer| answer["checks"][need] == "ok").await;
    }

    async fn until(&self, member: Member, enough: impl Fn(bool, &Value) -> bool) {
        let http = http_client();
        let deadline = Instant::now() + READY_TIMEOUT;
        let url = format!("http://{}/readyz", self.plan.address(member));
        loop {
            let said = match http.get(&url).send().await {
                Ok(answer) => {
                    let ready = answer.status().is_success();
                    let said = answer.text().await.unwrap_or_default();
                    if enough(ready, &serde_json::from_str(&said).unwrap_or_default()) {
                        break;
                    }
                    said
                }
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "{member:?} is not ready: {said}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops all processes in order, the last hop last.
    ///
    /// # Panics
    /// When one of them does not end as it should.
    pub async fn shut_down(mut self) {
        for member in self.plan.members() {
            if self.running.contains_key(&member) {
                assert_eq!(self.stop(member).await, Some(0), "{member:?}");
            }
        }
    }
}

/// A free address of loopback below the ports that the system gives to outgoing connections, so
/// that it is still free when a process is started on it again.
fn address() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        // Tests run as processes of their own: their numbers keep them apart.
        let offset = std::process::id().wrapping_mul(41).wrapping_add(step) % 20_000;
        let port = 11_000 + u16::try_from(offset).expect("it is below 20,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}
