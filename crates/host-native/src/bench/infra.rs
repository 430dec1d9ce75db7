//! Orchestrator and controllers of one process, called as the App calls them.

use std::{path::Path, time::Duration};

use axum::Router;
use bytes::Bytes;
use convene_hop::{Hop, Signer};
use convene_model::{
    claims::{AppClaims, service},
    limits::MAX_BODY_BYTES,
    tasks::{Task, TaskStatus},
    token::body_hash,
};
use convene_storage::GroupStore;
use http::{Request, header};
use serde::de::DeserializeOwned;

use crate::{
    cli::CliError,
    clock,
    config::{Config, DatabaseConfig, OrchestratorConfig, Role},
    controllers::Controllers,
    services::Host,
};

/// More groups than will be active.
const NO_LIMIT: u64 = 1_000_000_000;

/// How often a task is looked at whose time is measured.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What stands behind the App.
pub(super) struct Infra {
    pub(super) app: Caller,
    pub(super) controllers: Controllers,
    /// Signs as the Orchestrator does.
    pub(super) orchestrator: Signer,
    pub(super) store: GroupStore,
}

/// Calls the Orchestrator as the App does.
#[derive(Clone)]
pub(super) struct Caller {
    hop: Hop,
    signer: Signer,
}

impl Infra {
    /// In an empty folder, with its directory there or in a PostgreSQL database.
    pub(super) async fn open(data_dir: &Path, postgres: Option<&str>) -> Result<Self, CliError> {
        let _ = std::fs::remove_dir_all(data_dir);
        std::fs::create_dir_all(data_dir.join("keys"))?;
        let database =
            DatabaseConfig { url: postgres.map(|url| url.to_owned().into()), ..Default::default() };
        let orchestrator =
            OrchestratorConfig { max_active_groups: NO_LIMIT, ..OrchestratorConfig::default() };
        let data_dir = data_dir.to_owned();
        let host = Host::new(
            Config { data_dir, database, orchestrator, ..Config::default() },
            clock::system(),
        );
        let store = host.open_store().await?;
        let controllers = host.open_controllers(store.clone(), Hop::in_process(Router::new()))?;
        let opened = host.open_orchestrator(Hop::in_process(controllers.router())).await?;
        let app = Caller { hop: Hop::in_process(opened.router()), signer: host.signer(Role::App)? };
        let orchestrator = host.signer(Role::Orchestrator)?;
        Ok(Self { app, controllers, orchestrator, store })
    }

    /// Returns when everything is in its files.
    pub(super) async fn close(self) -> Result<(), CliError> {
        self.controllers.shutdown().await;
        let store = self.store;
        Ok(tokio::task::spawn_blocking(move || store.close()).await?)
    }
}

impl Caller {
    /// Makes a call and reads what it answers.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<T, CliError> {
        let claims = AppClaims {
            sub: "bench".to_owned(),
            htm: method.to_owned(),
            htu: path.to_owned(),
            bh: body_hash(body.as_bytes()),
            org_id: None,
        };
        let token = self.signer.mint(service::ORCHESTRATOR, claims);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Bytes::from(body))?;
        let answer = self.hop.call(request, MAX_BODY_BYTES).await;
        let answer = answer.map_err(|problem| format!("{method} {path}: {problem:?}"))?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Makes a call that goes on as a task when it takes long; returns what it answers in the end.
    pub(super) async fn done(
        &self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<serde_json::Value, CliError> {
        self.done_with(method, path, body, LOOK_EVERY).await
    }

    /// The same, with as long between two looks at the task.
    pub(super) async fn done_with(
        &self,
        method: &str,
        path: &str,
        body: String,
        look_every: Duration,
    ) -> Result<serde_json::Value, CliError> {
        let answer: serde_json::Value = self.call(method, path, body).await?;
        let Some(task_id) = answer["task_id"].as_str() else { return Ok(answer) };
        let path = format!("/infra/tasks/{task_id}");
        loop {
            let task: Task = self.call("GET", &path, String::new()).await?;
            match task.status {
                TaskStatus::Running => tokio::time::sleep(look_every).await,
                TaskStatus::Done => return Ok(task.result.unwrap_or_default()),
                TaskStatus::Failed => return Err(format!("{path}: {:?}", task.problem).into()),
            }
        }
    }
}
