//! All services in one process: the wiring of the chain, and its orderly end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use convene_agents_worker::{self as agents_worker, Limits};
use convene_app::App;
use convene_hop::{Clock, Hop, Signer};
use convene_model::{
    claims::service,
    keys::{SigningKey, TrustedKeys},
};
use convene_orchestrator::{Orchestrator, TrustedApp};
use convene_storage::{GroupStore, SqliteDatabase, StoreOptions};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    agents_transport::ReqwestTransport,
    cli::CliError,
    clock,
    config::{AppScope, Config},
    controllers::{Controllers, ControllersConfig},
    jwks, keys,
    lock::DataDirLock,
    log, open_files,
    resolver::AppResolver,
};

/// How long open requests may take to end when the process stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The exit code after a commit whose outcome is unknown: a supervisor starts the process again,
/// and clients resend.
pub const EXIT_OUTCOME_UNKNOWN: i32 = 70;

/// Serves everything until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// What keeps the process from starting, in words for the person at the terminal.
pub async fn serve(config: Config) -> Result<(), CliError> {
    log::start(&config.log);
    open_files::raise_limit();
    // A second installation happens only where a process embeds the host; the first holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node::start(config).await?;
    println!("Convene is ready at {}", node.url());
    stop_signal().await?;
    tracing::info!("stopping");
    node.stop().await;
    Ok(())
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// A running process with all services.
pub struct Node {
    app: App,
    controllers: Controllers,
    store: GroupStore,
    url: String,
    stopping: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    _lock: DataDirLock,
}

/// The services' keys; each service signs with its own and knows the others' public halves.
struct Keys {
    app: SigningKey,
    orchestrator: SigningKey,
    controllers: SigningKey,
    agents: SigningKey,
}

impl Node {
    /// Opens the data directory and starts all services.
    ///
    /// # Errors
    /// What keeps them from starting.
    pub async fn start(config: Config) -> Result<Self, CliError> {
        let lock = DataDirLock::acquire(&config.data_dir)?;
        let clock = clock::system();
        let stopping = CancellationToken::new();
        let folder = config.data_dir.join("keys");
        let keys = Keys {
            app: keys::signing_key(&folder, service::APP)?,
            orchestrator: keys::signing_key(&folder, service::ORCHESTRATOR)?,
            controllers: keys::signing_key(&folder, service::CONTROLLERS)?,
            agents: keys::signing_key(&folder, service::AGENTS)?,
        };

        let rooms = config.data_dir.join("groups");
        let store = tokio::task::spawn_blocking(move || {
            GroupStore::open(&rooms, StoreOptions::default(), |why| {
                tracing::error!(why, "a commit failed with an unknown outcome; the process ends");
                eprintln!("convene: {why}");
                std::process::exit(EXIT_OUTCOME_UNKNOWN);
            })
        })
        .await??;

        let resolver = AppResolver::default();
        let agents = agents_hop(&config, &keys, &clock, &resolver)?;
        let controllers = Controllers::new(
            store.clone(),
            ControllersConfig {
                signer: Signer::new(keys.controllers.clone(), Arc::clone(&clock)),
                orchestrator_keys: trusted(&keys.orchestrator)?,
                agents,
            },
        );
        let orchestrator =
            open_orchestrator(&config, &keys, &clock, &controllers, &stopping).await?;
        let app = open_app(&config, &keys, &clock, &orchestrator, &folder).await?;
        resolver.set(Hop::in_process(app.internal_router()));

        let public = TcpListener::bind(config.listen)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        let url = match &config.app.public_url {
            Some(url) => url.to_string(),
            None => format!("http://{}/", public.local_addr()?),
        };
        let mut servers = vec![spawn_server(public, app.router(), stopping.clone())];
        if let Some(address) = config.orchestrator.listen {
            let infra = TcpListener::bind(address)
                .await
                .map_err(|error| format!("cannot listen on {address}: {error}"))?;
            tracing::info!(address = %infra.local_addr()?, "serving the infra API");
            servers.push(spawn_server(infra, orchestrator.router(), stopping.clone()));
        }
        let woken = controllers.wake_due().await?;
        tracing::info!(url, woken, data_dir = %config.data_dir.display(), "ready");
        Ok(Self { app, controllers, store, url, stopping, servers, _lock: lock })
    }

    /// The URL by which people reach the App.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops taking requests, tells clients to come back later, commits what was accepted.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.app.shutdown().await;
        for server in self.servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(DRAIN_TIMEOUT, server).await.is_err() {
                abort.abort();
            }
        }
        self.controllers.shutdown().await;
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the journal did not close in order; it recovers at the next start");
        }
    }
}

fn trusted(key: &SigningKey) -> Result<TrustedKeys, CliError> {
    Ok(TrustedKeys::of(key.issuer(), &key.jwks())?)
}

fn agents_hop(
    config: &Config,
    keys: &Keys,
    clock: &Clock,
    resolver: &AppResolver,
) -> Result<Hop, CliError> {
    let limits = Limits {
        provider_silent: config.agents.silence(),
        demo_pace: Duration::from_millis(config.agents.demo_word_pause_ms),
        ..Limits::default()
    };
    Ok(Hop::in_process(agents_worker::router(agents_worker::Config {
        signing: keys.agents.clone(),
        controllers: trusted(&keys.controllers)?,
        clock: Arc::clone(clock),
        jti: Arc::new(|| Uuid::new_v4().simple().to_string()),
        sleep: Arc::new(|duration| Box::pin(tokio::time::sleep(duration))),
        resolver: Arc::new(resolver.clone()),
        transport: Arc::new(ReqwestTransport::new(&config.agents.allow_hosts)?),
        limits,
    })))
}

async fn open_orchestrator(
    config: &Config,
    keys: &Keys,
    clock: &Clock,
    controllers: &Controllers,
    stopping: &CancellationToken,
) -> Result<Orchestrator, CliError> {
    let app_keys = trusted(&keys.app)?;
    let mut apps = vec![TrustedApp { issuer: service::APP.to_owned(), operator: true }];
    for app in &config.orchestrator.apps {
        if let Some(jwks) = app.inline_keys()? {
            app_keys.replace(&app.issuer, &jwks)?;
        }
        if let Some(url) = app.jwks_url.clone() {
            let (issuer, keys) = (app.issuer.clone(), app_keys.clone());
            tokio::spawn(jwks::keep_fresh(issuer, url, keys, stopping.clone()));
        }
        let operator = app.scope == Some(AppScope::Operator);
        apps.push(TrustedApp { issuer: app.issuer.clone(), operator });
    }
    let db = SqliteDatabase::open(config.data_dir.join("infra.db"))?;
    let orchestrator = convene_orchestrator::open(convene_orchestrator::Config {
        signer: Signer::new(keys.orchestrator.clone(), Arc::clone(clock)),
        apps,
        app_keys,
        controller_keys: trusted(&keys.controllers)?,
        controllers: Hop::in_process(controllers.router()),
        db: Arc::new(db),
        clock: Arc::clone(clock),
        default_max_active_groups: config.orchestrator.max_active_groups,
    })
    .await?;
    Ok(orchestrator)
}

async fn open_app(
    config: &Config,
    keys: &Keys,
    clock: &Clock,
    orchestrator: &Orchestrator,
    key_folder: &std::path::Path,
) -> Result<App, CliError> {
    let db = SqliteDatabase::open(config.data_dir.join("workspace.db"))?;
    let app = convene_app::open(convene_app::Config {
        db: Arc::new(db),
        orchestrator: Hop::in_process(orchestrator.router()),
        signer: Signer::new(keys.app.clone(), Arc::clone(clock)),
        agents_keys: trusted(&keys.agents)?,
        controller_keys: trusted(&keys.controllers)?,
        clock: Arc::clone(clock),
        public_url: config.app.public_url.clone(),
        trusted_proxies: config.app.proxies()?,
        master_key: keys::load_or_make(&key_folder.join("master.key"))?,
    })
    .await?;
    Ok(app)
}

fn spawn_server(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection cannot be set to no-delay");
            }
        });
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, service)
            .with_graceful_shutdown(async move { stopping.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "a server ended");
        }
    })
}
