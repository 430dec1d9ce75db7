//! A process of Convene, with all services or with one: what it starts, and its orderly end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use convene_app::App;
use convene_db::{Db, Statement};
use convene_hop::{
    Hop, LIFECYCLE,
    trace::{of_hops, of_people},
};
use convene_model::claims::service;
use convene_storage::GroupStore;
use convene_threads::{Turns, prefer_turns};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    cli::CliError,
    clock,
    config::{Config, Role},
    controllers::Controllers,
    doors::{Readiness, bind, door, spawn_server},
    lock::DataDirLock,
    log::{self, Queue, Shipper},
    open_files, operator,
    resolver::Backends,
    services::Host,
    stores,
    telemetry::Telemetry,
};

/// How long open requests may take to end when the process stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the door for people among the figures; other doors have their service's name.
const PUBLIC: &str = "public";
/// That of the operator's door.
const OPERATORS: &str = "operators";

/// The exit code after a commit whose outcome is unknown: a supervisor starts the process again,
/// and clients resend.
pub const EXIT_OUTCOME_UNKNOWN: i32 = 70;

/// What a process's tasks run on: threads that take short turns, since what they do for a group takes
/// microseconds and must not wait for work in the background.
///
/// # Errors
/// When no threads can be had.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    let begin = || prefer_turns(Turns::Short);
    Builder::new_multi_thread().enable_all().on_thread_start(begin).build()
}

/// Serves until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// What keeps the process from starting, in words for the person at the terminal.
pub async fn serve(config: Config) -> Result<(), CliError> {
    let queue = log::start(&config.log, config.logs.ships());
    open_files::raise_limit();
    // A second installation happens only where a process embeds the host; the first holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let service = config.role.map(|role| format!("'s {}", role.name())).unwrap_or_default();
    let data_dir = config.data_dir.clone();
    let node = Node::start_logged(config, queue).await?;
    let mut stop = StopSignal::listen()?;
    println!("Convene{service} is ready at {}", node.url());
    stop.wait().await;
    tracing::info!(target: LIFECYCLE, data_dir = %data_dir.display(), "stopping");
    node.stop().await;
    Ok(())
}

/// What asks the process to stop in order; from its making on, also before it is waited for.
struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    fn listen() -> std::io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A running process.
pub struct Node {
    host: Host,
    url: String,
    servers: Vec<JoinHandle<()>>,
    app: Option<App>,
    controllers: Option<(Controllers, GroupStore)>,
    telemetry: Telemetry,
    shipper: Option<Shipper>,
    _lock: DataDirLock,
}

/// What was started, before it is a node.
#[derive(Default)]
struct Started {
    /// Where the process is reached.
    url: String,
    servers: Vec<JoinHandle<()>>,
    app: Option<App>,
    controllers: Option<(Controllers, GroupStore)>,
}

impl Node {
    /// Opens the data directory and starts the services of the configured role.
    ///
    /// # Errors
    /// What keeps them from starting.
    pub async fn start(config: Config) -> Result<Self, CliError> {
        Self::start_logged(config, None).await
    }

    /// Like [`Self::start`], and ships what waits in the queue of the process's log.
    async fn start_logged(config: Config, queue: Option<Arc<Queue>>) -> Result<Self, CliError> {
        let lock = DataDirLock::acquire(&config.data_dir, config.role)?;
        // Before any service is opened: each asks once whether there is a recorder.
        let telemetry = Telemetry::start(&config.telemetry, config.role)?;
        let host = Host::new(config, clock::system());
        let shipper = queue.map(|queue| host.ship(queue)).transpose()?;
        let Started { url, servers, app, controllers } = match host.config.role {
            None => host.start_all().await?,
            Some(Role::App) => host.start_app().await?,
            Some(Role::Orchestrator) => host.start_orchestrator().await?,
            Some(Role::Controllers) => host.start_controllers().await?,
            Some(Role::Agents) => host.start_agents().await?,
        };
        let mut servers = servers;
        if let Some(address) = host.config.metrics.listen {
            let listener = bind(address).await?;
            tracing::info!(address = %listener.local_addr()?, "serving metrics");
            let router = host.metrics.router(host.config.metrics.token()?);
            servers.push(spawn_server(listener, router, host.stopping.clone()));
        }
        let role = host.config.role.map_or("all", Role::name);
        let (version, data_dir) = (env!("CARGO_PKG_VERSION"), host.config.data_dir.display());
        tracing::info!(target: LIFECYCLE, url, role, version, %data_dir, "ready");
        Ok(Self { host, url, servers, app, controllers, telemetry, shipper, _lock: lock })
    }

    /// The URL by which people reach the App, or others the service.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops taking requests, tells clients to come back later, commits what was accepted.
    pub async fn stop(self) {
        self.host.stopping.cancel();
        if let Some(app) = self.app {
            app.shutdown().await;
        }
        for server in self.servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(DRAIN_TIMEOUT, server).await.is_err() {
                abort.abort();
            }
        }
        if let Some((controllers, store)) = self.controllers {
            controllers.shutdown().await;
            self.host.links.close().await;
            let closed = tokio::task::spawn_blocking(move || store.close()).await;
            if let Err(error) = closed {
                tracing::error!(%error, "the journal did not close in order; it recovers at the next start");
            }
        } else {
            self.host.links.close().await;
        }
        self.telemetry.stop().await;
        if let Some(shipper) = self.shipper {
            shipper.stop().await;
        }
    }
}

impl Host {
    /// Ships the lines of the log into their store.
    fn ship(&self, queue: Arc<Queue>) -> Result<Shipper, CliError> {
        let (store, prefix) = stores::logs(&self.config)?;
        self.metrics.has_log(&queue);
        let (every, keep) = (self.config.logs.every(), self.config.logs.keep());
        Ok(Shipper::start(queue, log::Target { store, prefix, every, keep }))
    }

    async fn start_all(&self) -> Result<Started, CliError> {
        let store = self.open_store().await?;
        let backends = Backends::default();
        let agents = Hop::in_process(of_hops(service::AGENTS, self.agents_router(&backends)?));
        let controllers = self.open_controllers(store.clone(), agents.clone())?;
        let orchestrator = self
            .open_orchestrator(Hop::in_process(of_hops(service::CONTROLLERS, controllers.router())))
            .await?;
        let infra = of_hops(service::ORCHESTRATOR, orchestrator.router());
        let db = self.open_workspace().await?;
        let infra_hop = Hop::in_process(infra.clone());
        let app = self.open_app(db.clone(), infra_hop.clone(), Some(agents)).await?;
        backends.orchestrator.set(infra_hop);
        backends.app.set(Hop::in_process(of_hops(service::APP, app.internal_router())));

        let readiness = Readiness::default().needs("database", database(&db)).needs_hop(
            "orchestrator",
            Hop::in_process(infra.clone()),
            "/readyz",
        );
        let (url, mut servers) = self.open_public_door(&app, readiness).await?;
        servers.push(self.open_operators_door(&infra)?);
        if let Some(address) = self.config.orchestrator.listen {
            let listener = bind(address).await?;
            tracing::info!(address = %listener.local_addr()?, "serving the infra API");
            servers.push(self.serve_infra(listener, infra.clone(), Readiness::default())?);
        }
        let woken = controllers.wake_due().await?;
        tracing::info!(woken, "groups with a deadline are awake");
        self.report_lifecycle(&controllers, Hop::in_process(infra.clone())).await?;
        Ok(Started { url, servers, app: Some(app), controllers: Some((controllers, store)) })
    }

    async fn start_app(&self) -> Result<Started, CliError> {
        let db = self.open_workspace().await?;
        let orchestrator = self.hop(Role::Orchestrator)?;
        let agents = self.optional_hop(Role::Agents)?;
        let app = self.open_app(db.clone(), orchestrator.clone(), agents).await?;
        let readiness = Readiness::default()
            .needs("database", database(&db))
            .needs_hop("orchestrator", orchestrator, "/healthz")
            .needs_keys(&self.key_ring());
        let (url, servers) = self.open_public_door(&app, readiness).await?;
        Ok(Started { url, servers, app: Some(app), controllers: None })
    }

    async fn start_orchestrator(&self) -> Result<Started, CliError> {
        let controllers = self.hop(Role::Controllers)?;
        let orchestrator = self.open_orchestrator(controllers.clone()).await?;
        let router = of_hops(service::ORCHESTRATOR, orchestrator.router());
        let listener = self.listen(self.config.orchestrator.listen).await?;
        let url = address_of(&listener)?;
        // Without an Agents Worker only the searches of runs fail, and its keys are read when one comes.
        let readiness = Readiness::default()
            .needs_hop("controllers", controllers, "/healthz")
            .needs_keys(&self.key_ring().without(service::AGENTS));
        let operators = self.open_operators_door(&router)?;
        let servers = vec![operators, self.serve_infra(listener, router, readiness)?];
        Ok(Started { url, servers, ..Started::default() })
    }

    async fn start_controllers(&self) -> Result<Started, CliError> {
        let listener = self.listen(self.config.controllers.listen).await?;
        let store = self.open_store().await?;
        let agents = self.hop(Role::Agents)?;
        let controllers = self.open_controllers(store.clone(), agents.clone())?;
        let readiness = Readiness::default()
            .needs_hop("agents", agents, "/healthz")
            .needs_hop("orchestrator", self.hop(Role::Orchestrator)?, "/healthz")
            .needs_keys(&self.key_ring());
        let url = address_of(&listener)?;
        let router = of_hops(service::CONTROLLERS, controllers.router());
        let servers = vec![self.open_door(listener, Role::Controllers, router, readiness)?];
        let woken = controllers.wake_due().await?;
        tracing::info!(woken, "groups with a deadline are awake");
        self.report_lifecycle(&controllers, self.hop(Role::Orchestrator)?).await?;
        Ok(Started { url, servers, app: None, controllers: Some((controllers, store)) })
    }

    async fn start_agents(&self) -> Result<Started, CliError> {
        let backends = Backends::default();
        let app = self.hop(Role::App)?;
        backends.app.set(app.clone());
        backends.orchestrator.set(self.hop(Role::Orchestrator)?);
        let router = of_hops(service::AGENTS, self.agents_router(&backends)?);
        let listener = self.listen(self.config.agents.listen).await?;
        let url = address_of(&listener)?;
        let readiness =
            Readiness::default().needs_hop("app", app, "/healthz").needs_keys(&self.key_ring());
        let servers = vec![self.open_door(listener, Role::Agents, router, readiness)?];
        Ok(Started { url, servers, ..Started::default() })
    }

    /// The door for people, and where it is configured the one for the Agents Worker.
    async fn open_public_door(
        &self,
        app: &App,
        readiness: Readiness,
    ) -> Result<(String, Vec<JoinHandle<()>>), CliError> {
        let listener = bind(self.config.listen).await?;
        let url = match &self.config.app.public_url {
            Some(url) => url.to_string(),
            None => address_of(&listener)?,
        };
        let mut public = of_people(service::APP, app.router());
        let mut servers = Vec::new();
        match self.config.app.internal_listen {
            Some(address) if address == self.config.listen => {
                let internal = of_hops(service::APP, app.internal_router());
                public = with_internal(public, internal);
            }
            Some(address) => {
                let listener = bind(address).await?;
                tracing::info!(address = %listener.local_addr()?, "serving the agents worker");
                let router = of_hops(service::APP, app.internal_router());
                servers.push(self.open_door(listener, Role::App, router, readiness.clone())?);
            }
            None => {}
        }
        let public = self.door(PUBLIC, Role::App, public, readiness)?;
        servers.push(spawn_server(listener, public, self.stopping.clone()));
        Ok((url, servers))
    }

    fn serve_infra(
        &self,
        listener: TcpListener,
        router: Router,
        readiness: Readiness,
    ) -> Result<JoinHandle<()>, CliError> {
        let directory = Hop::in_process(router.clone());
        let readiness = readiness.needs_hop("database", directory, "/readyz");
        self.open_door(listener, Role::Orchestrator, router, readiness)
    }

    /// The door for the operator at the machine.
    fn open_operators_door(&self, infra: &Router) -> Result<JoinHandle<()>, CliError> {
        let router =
            self.door(OPERATORS, Role::Orchestrator, infra.clone(), Readiness::default())?;
        Ok(operator::spawn_door(&self.config.data_dir, router, self.stopping.clone()))
    }

    /// A door for other services; with a token it answers `/metrics` too.
    fn open_door(
        &self,
        listener: TcpListener,
        role: Role,
        router: Router,
        readiness: Readiness,
    ) -> Result<JoinHandle<()>, CliError> {
        let mut router = self.door(role.name(), role, router, readiness)?;
        if let Some(token) = self.config.metrics.token()? {
            router = self.metrics.router(Some(token)).fallback_service(router);
        }
        Ok(spawn_server(listener, router, self.stopping.clone()))
    }

    /// A service's routes behind a door whose requests are counted under `name`.
    fn door(
        &self,
        name: &'static str,
        role: Role,
        router: Router,
        readiness: Readiness,
    ) -> Result<Router, CliError> {
        let keys = self.keys(role)?;
        let router = door(router, keys, self.key_ring(), readiness, self.links.clone());
        Ok(self.metrics.counted(name, router))
    }

    async fn listen(&self, address: Option<SocketAddr>) -> Result<TcpListener, CliError> {
        let address = address.ok_or("the role's address is not set")?;
        bind(address).await
    }
}

/// The public door with the Agents Worker's route on it.
fn with_internal(public: Router, internal: Router) -> Router {
    use convene_agents_worker::RESOLVE_PATH;
    Router::new().route(RESOLVE_PATH, axum::routing::any_service(internal)).fallback_service(public)
}

fn address_of(listener: &TcpListener) -> Result<String, CliError> {
    Ok(format!("http://{}/", listener.local_addr()?))
}

/// Whether a database answers.
fn database(
    db: &Db,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync + 'static {
    let db = db.clone();
    move || {
        let db = db.clone();
        Box::pin(
            async move { db.query(Statement::new("SELECT 1 AS one", Vec::new())).await.is_ok() },
        )
    }
}
