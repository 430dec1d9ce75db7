//! First activations per second, through the Orchestrator's API to the groups' journal and back,
//! on each database, against raw durable commits of one row on the same one.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use convene_hop::{Hop, Signer};
use convene_model::{
    claims::{AppClaims, service},
    limits::MAX_BODY_BYTES,
    token::body_hash,
};
use http::{Request, header};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::{Figure, posts, raw_rows};
use crate::{
    cli::CliError,
    clock,
    config::{Config, DatabaseConfig, OrchestratorConfig, Role},
    services::Host,
};

/// Activations under way at a time.
const IN_FLIGHT: usize = 32;

/// Groups of an organization: many are active anywhere.
const GROUPS_PER_ORG: u64 = 100;

/// More than will be activated.
const NO_LIMIT: u64 = 1_000_000_000;

/// On files, or on the PostgreSQL database of a URL, which must be empty.
pub(super) fn measure(
    dir: &Path,
    postgres: Option<&str>,
    slice: Duration,
    slices: usize,
) -> Result<Figure, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let data_dir = dir.join("activations");
        let _ = std::fs::remove_dir_all(&data_dir);
        std::fs::create_dir_all(data_dir.join("keys"))?;
        let raw = match postgres {
            Some(url) => Some(RawPostgres::open(url).await?),
            None => None,
        };
        let database =
            DatabaseConfig { url: postgres.map(|url| url.to_owned().into()), ..Default::default() };
        let orchestrator =
            OrchestratorConfig { max_active_groups: NO_LIMIT, ..OrchestratorConfig::default() };
        let host = Host::new(
            Config { data_dir, database, orchestrator, ..Config::default() },
            clock::system(),
        );
        let store = host.open_store().await?;
        let controllers = host.open_controllers(store.clone(), Hop::in_process(Router::new()))?;
        let opened = host.open_orchestrator(Hop::in_process(controllers.router())).await?;
        let app = App {
            hop: Hop::in_process(opened.router()),
            signer: host.signer(Role::App)?,
            activated: Arc::default(),
        };
        let mut measured = Vec::new();
        for _ in 0..slices {
            let activated = app.activate_for(slice).await?;
            let limit = match &raw {
                Some(raw) => raw.commits_per_second(slice).await?,
                None => {
                    let dir = dir.to_owned();
                    let commits =
                        move || raw_rows::commits_per_second(&dir, 1, 1, posts::ROW_BYTES, slice);
                    tokio::task::spawn_blocking(commits).await??
                }
            };
            measured.push((activated, limit));
        }
        controllers.shutdown().await;
        tokio::task::spawn_blocking(move || store.close()).await?;
        if let Some(raw) = raw {
            raw.clear().await?;
        }
        Ok(Figure::from_slices("activations/s", &measured))
    })
}

/// Calls the Orchestrator as the App does.
#[derive(Clone)]
struct App {
    hop: Hop,
    signer: Signer,
    activated: Arc<AtomicU64>,
}

impl App {
    async fn activate_for(&self, slice: Duration) -> Result<f64, CliError> {
        let before = self.activated.load(Ordering::Relaxed);
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let app = self.clone();
            callers.spawn(async move {
                while started.elapsed() < slice {
                    app.activate().await?;
                }
                Ok::<_, CliError>(())
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        let activated = self.activated.load(Ordering::Relaxed) - before;
        Ok(activated as f64 / started.elapsed().as_secs_f64())
    }

    async fn activate(&self) -> Result<(), CliError> {
        let nth = self.activated.fetch_add(1, Ordering::Relaxed);
        let org = nth / GROUPS_PER_ORG;
        let body = format!(r#"{{"group_id":"g{nth}","org_id":"o{org}"}}"#);
        let claims = AppClaims {
            sub: "bench".to_owned(),
            htm: "POST".to_owned(),
            htu: "/infra/groups".to_owned(),
            bh: body_hash(body.as_bytes()),
            org_id: None,
        };
        let token = self.signer.mint(service::ORCHESTRATOR, claims);
        let request = Request::post("/infra/groups")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Bytes::from(body))?;
        self.hop.call(request, MAX_BODY_BYTES).await.map_err(|problem| problem.title)?;
        Ok(())
    }
}

/// One connection that commits row after row.
struct RawPostgres {
    client: tokio_postgres::Client,
}

impl RawPostgres {
    async fn open(url: &str) -> Result<Self, CliError> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let there = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'infra'";
        if client.query_opt(there, &[]).await?.is_some() {
            return Err("the database has a schema `infra`; name one that is empty".into());
        }
        client
            .batch_execute("CREATE TABLE raw_commits (id BIGINT PRIMARY KEY, body BYTEA NOT NULL)")
            .await?;
        Ok(Self { client })
    }

    async fn commits_per_second(&self, slice: Duration) -> Result<f64, CliError> {
        self.client.batch_execute("TRUNCATE raw_commits").await?;
        let insert = self.client.prepare("INSERT INTO raw_commits VALUES ($1, $2)").await?;
        let body = vec![b'x'; posts::ROW_BYTES];
        let (started, mut rows) = (Instant::now(), 0_i64);
        while started.elapsed() < slice {
            self.client.execute(&insert, &[&rows, &body]).await?;
            rows += 1;
        }
        Ok(rows as f64 / started.elapsed().as_secs_f64())
    }

    async fn clear(self) -> Result<(), CliError> {
        self.client.batch_execute("DROP TABLE raw_commits; DROP SCHEMA infra CASCADE").await?;
        Ok(())
    }
}
