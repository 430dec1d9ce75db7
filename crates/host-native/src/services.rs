//! The four services, each opened from the configuration, whoever shares the process with it.
//!
//! Owns where a service's key comes from, whose keys it trusts, and the way to the next hop: in
//! memory within a process, over HTTP between processes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::Router;
use convene_agents_worker::{self as agents_worker, Limits};
use convene_app::App;
use convene_db::Db;
use convene_hop::{Clock, Hop, Links, Signer};
use convene_model::{claims::service, keys::TrustedKeys, signing_keys::SigningKeys};
use convene_orchestrator::{Orchestrator, TrustedApp};
use convene_storage::{GroupStore, SqliteDatabase, StoreOptions};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    agents_transport::ReqwestTransport,
    cli::CliError,
    config::{AppScope, Config, KeySource, Role},
    controllers::{Controllers, ControllersConfig, HistoryService, HistoryServices},
    databases::{self, Database},
    jwks::{KeyRing, Source},
    keys::{ring::KeyFiles, watch::OwnKeys},
    master_keys::MasterKeyFiles,
    metrics::Metrics,
    operator,
    resolver::Backends,
    serve::EXIT_OUTCOME_UNKNOWN,
    stores::{self, Opener},
};

/// What all services of a process share.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) stopping: CancellationToken,
    /// The upstreams over WebSockets.
    pub(crate) links: Links,
    /// The figures of what was opened here.
    pub(crate) metrics: Metrics,
    /// Keys that are read from their URLs.
    sources: Mutex<Vec<Arc<Source>>>,
    /// The keys of this process's services, each read once.
    own_keys: Mutex<BTreeMap<&'static str, SigningKeys>>,
}

impl Host {
    pub(crate) fn new(config: Config, clock: Clock) -> Self {
        Self {
            config,
            clock,
            stopping: CancellationToken::new(),
            links: Links::new(),
            metrics: Metrics::default(),
            sources: Mutex::default(),
            own_keys: Mutex::default(),
        }
    }

    /// The keys of a service of this process, which follow their rotation while it runs.
    pub(crate) fn keys(&self, role: Role) -> Result<SigningKeys, CliError> {
        let mut all = self.own_keys.lock();
        if let Some(keys) = all.get(role.name()) {
            return Ok(keys.clone());
        }
        let own = OwnKeys::open(key_files(&self.config, role), (self.clock)())?;
        let keys = own.keys();
        tokio::spawn(own.follow(Arc::clone(&self.clock), self.stopping.clone()));
        all.insert(role.name(), keys.clone());
        Ok(keys)
    }

    /// The keys of the operator at this machine.
    fn operator_keys(&self) -> Result<SigningKeys, CliError> {
        let own = OwnKeys::open(operator::key_files(&self.config), (self.clock)())?;
        let keys = own.keys();
        tokio::spawn(own.follow(Arc::clone(&self.clock), self.stopping.clone()));
        Ok(keys)
    }

    pub(crate) fn signer(&self, role: Role) -> Result<Signer, CliError> {
        Ok(Signer::new(self.keys(role)?, Arc::clone(&self.clock)))
    }

    /// A service's public keys: its own within a process, else what the configuration says.
    fn trusted(&self, role: Role) -> Result<TrustedKeys, CliError> {
        let keys = TrustedKeys::new();
        if self.config.role.is_none() {
            self.keys(role)?.keep(&keys)?;
            return Ok(keys);
        }
        match self.config.service(role).key_source()? {
            Some(KeySource::Inline(jwks)) => keys.replace(role.name(), &jwks)?,
            Some(KeySource::Published(urls)) => self.watch(role.name(), urls, &keys),
            // The configuration's check has refused that already.
            None => return Err(format!("the public keys of {} are not set", role.name()).into()),
        }
        Ok(keys)
    }

    /// Keeps an issuer's published keys up to date.
    fn watch(&self, issuer: &str, urls: Vec<url::Url>, keys: &TrustedKeys) {
        let source = Source::new(issuer, urls, keys.clone());
        self.sources.lock().push(Arc::clone(&source));
        tokio::spawn(source.keep_fresh(self.stopping.clone()));
    }

    /// The issuers whose keys are read from their URLs.
    pub(crate) fn key_ring(&self) -> KeyRing {
        KeyRing::new(self.sources.lock().clone())
    }

    /// The way to a service in other processes.
    pub(crate) fn hop(&self, role: Role) -> Result<Hop, CliError> {
        let urls = self.config.service(role).urls();
        Ok(Hop::http(&urls, self.links.clone())?)
    }

    /// The way to a service in other processes, where the configuration says one.
    pub(crate) fn optional_hop(&self, role: Role) -> Result<Option<Hop>, CliError> {
        if self.config.service(role).urls().is_empty() {
            return Ok(None);
        }
        self.hop(role).map(Some)
    }

    /// The journal and its projection.
    pub(crate) async fn open_store(&self) -> Result<GroupStore, CliError> {
        let rooms = self.config.data_dir.join("groups");
        let options = StoreOptions {
            disk_reserve_bytes: self.config.controllers.disk_reserve_bytes,
            ..StoreOptions::default()
        };
        let opened = tokio::task::spawn_blocking(move || {
            GroupStore::open(&rooms, options, |why| {
                tracing::error!(why, "a commit failed with an unknown outcome; the process ends");
                eprintln!("convene: {why}");
                std::process::exit(EXIT_OUTCOME_UNKNOWN);
            })
        });
        Ok(opened.await??)
    }

    pub(crate) fn open_controllers(
        &self,
        store: GroupStore,
        agents: Hop,
    ) -> Result<Controllers, CliError> {
        let config = ControllersConfig {
            signer: self.signer(Role::Controllers)?,
            orchestrator_keys: self.trusted(Role::Orchestrator)?,
            agents,
            idle_after: self.config.controllers.idle_after(),
        };
        let controllers = Controllers::new(store.clone(), config);
        let external = &self.config.controllers.external_history;
        if !external.is_empty() {
            let mut services = BTreeMap::new();
            let mut hosts = Vec::new();
            for service in external {
                let url = service.url.clone();
                hosts.extend(
                    url.host()
                        .zip(url.port_or_known_default())
                        .map(|(host, port)| format!("{host}:{port}")),
                );
                let secret = service.secret()?;
                services.insert(service.org_id.clone(), HistoryService { url, secret });
            }
            let transport = Arc::new(ReqwestTransport::new(&hosts)?);
            controllers.keep_history_with(HistoryServices::new(services, transport));
        }
        self.metrics.has_controllers(&controllers, &store);
        Ok(controllers)
    }

    /// Lets the controllers tell the Orchestrator which groups are awake and which sleep.
    pub(crate) async fn report_lifecycle(
        &self,
        controllers: &Controllers,
        orchestrator: Hop,
    ) -> Result<(), CliError> {
        let db = SqliteDatabase::open(self.config.data_dir.join("groups").join("lifecycle.db"))?;
        Ok(controllers.report_to(orchestrator, Arc::new(db)).await?)
    }

    pub(crate) fn agents_router(&self, backends: &Backends) -> Result<Router, CliError> {
        let config = &self.config.agents;
        let limits = Limits {
            provider_silent: config.silence(),
            demo_pace: Duration::from_millis(config.demo_word_pause_ms),
            ..Limits::default()
        };
        Ok(agents_worker::router(agents_worker::Config {
            signing: self.keys(Role::Agents)?,
            controllers: self.trusted(Role::Controllers)?,
            app_keys: self.trusted(Role::App)?,
            clock: Arc::clone(&self.clock),
            jti: Arc::new(|| Uuid::new_v4().simple().to_string()),
            sleep: Arc::new(|duration| Box::pin(tokio::time::sleep(duration))),
            app: Arc::new(backends.app.clone()),
            orchestrator: Arc::new(backends.orchestrator.clone()),
            transport: Arc::new(ReqwestTransport::new(&config.allow_hosts)?),
            limits,
        }))
    }

    pub(crate) async fn open_orchestrator(
        &self,
        controllers: Hop,
    ) -> Result<Orchestrator, CliError> {
        let config = &self.config.orchestrator;
        let app_keys = self.trusted(Role::App)?;
        let mut apps = vec![TrustedApp { issuer: Role::App.name().to_owned(), operator: true }];
        self.operator_keys()?.keep(&app_keys)?;
        apps.push(TrustedApp { issuer: service::OPERATOR.to_owned(), operator: true });
        for app in &config.apps {
            if let Some(jwks) = app.inline_keys()? {
                app_keys.replace(&app.issuer, &jwks)?;
            }
            if let Some(url) = app.jwks_url.clone() {
                self.watch(&app.issuer, vec![url], &app_keys);
            }
            let operator = app.scope == Some(AppScope::Operator);
            apps.push(TrustedApp { issuer: app.issuer.clone(), operator });
        }
        let db = self.open_infra().await?;
        let orchestrator = convene_orchestrator::open(convene_orchestrator::Config {
            signer: self.signer(Role::Orchestrator)?,
            apps,
            app_keys,
            controller_keys: self.trusted(Role::Controllers)?,
            agents_keys: self.trusted(Role::Agents)?,
            external_history: self.config.controllers.external_orgs(),
            controllers,
            db,
            clock: Arc::clone(&self.clock),
            default_max_active_groups: config.max_active_groups,
            archives: stores::archives(&self.config, Opener::Service)?,
            times: config.times(self.config.archives.max_snapshot_bytes()),
        });
        let orchestrator = orchestrator.await?;
        let (stopping, scheduled) = (self.stopping.clone(), orchestrator.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = scheduled.reconcile() => {}
            }
        });
        Ok(orchestrator)
    }

    pub(crate) async fn open_app(
        &self,
        db: Db,
        orchestrator: Hop,
        agents: Option<Hop>,
    ) -> Result<App, CliError> {
        let config = &self.config.app;
        let files = MasterKeyFiles::of(&self.config);
        // A key that cannot be used is an error of the start, not of the first secret.
        files.load()?;
        let master_keys = Arc::new(move || files.load().map_err(|error| error.to_string()));
        let app = convene_app::open(convene_app::Config {
            db,
            orchestrator,
            agents,
            signer: self.signer(Role::App)?,
            agents_keys: self.trusted(Role::Agents)?,
            controller_keys: self.trusted(Role::Controllers)?,
            clock: Arc::clone(&self.clock),
            public_url: config.public_url.clone(),
            trusted_proxies: config.proxies()?,
            external_history: self.config.controllers.external_orgs(),
            ping_every: config.ping_every(),
            requests_per_minute: config.requests_per_minute,
            master_keys,
        });
        let app = app.await?;
        self.metrics.has_app(&app);
        Ok(app)
    }

    /// The Orchestrator's database.
    async fn open_infra(&self) -> Result<Db, CliError> {
        databases::open_when_there(&self.config, Database::Infra).await
    }

    /// The workspace's database.
    pub(crate) async fn open_workspace(&self) -> Result<Db, CliError> {
        databases::open_when_there(&self.config, Database::Workspace).await
    }
}

/// Where the keys of a service are.
pub(crate) fn key_files(config: &Config, role: Role) -> KeyFiles {
    let (path, must_exist) = config.service(role).key_file(&config.data_dir);
    KeyFiles::new(role.name(), path, must_exist)
}
