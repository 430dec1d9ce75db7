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

use serde::de::IgnoredAny;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::{
    Figure,
    infra::{Caller, Infra},
    posts, raw_rows,
};
use crate::cli::CliError;

/// Activations under way at a time.
const IN_FLIGHT: usize = 32;

/// Groups of an organization: many are active anywhere.
const GROUPS_PER_ORG: u64 = 100;

/// On files, or on the PostgreSQL database of a URL, which must be empty.
pub(super) fn measure(
    dir: &Path,
    postgres: Option<&str>,
    slice: Duration,
    slices: usize,
) -> Result<Figure, CliError> {
    let runtime = crate::serve::runtime()?;
    runtime.block_on(async {
        let raw = match postgres {
            Some(url) => Some(RawPostgres::open(url).await?),
            None => None,
        };
        let infra = Infra::open(&dir.join("activations"), postgres).await?;
        let app = App { caller: infra.app.clone(), activated: Arc::default() };
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
        infra.close().await?;
        if let Some(raw) = raw {
            raw.clear().await?;
        }
        Ok(Figure::from_slices("activations/s", &measured))
    })
}

/// Calls the Orchestrator as the App does.
#[derive(Clone)]
struct App {
    caller: Caller,
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
        let _: IgnoredAny = self.caller.call("POST", "/infra/groups", body).await?;
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
