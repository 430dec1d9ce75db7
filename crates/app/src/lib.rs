//! The App, first hop of the chain and the only one that a client ever talks to.
//!
//! Owns people, workspaces, groups as the workspace sees them (titles, members, agents), agents,
//! providers and their secrets, and the doors to all of it: pages, the JSON API, client sockets.
//! It never decides what happened in a group: that is the Group Controller's, reached through the
//! Orchestrator and nothing else.

pub mod agents;
mod changes;
pub mod env_profiles;
pub mod events;
pub mod groups;
pub mod identity;
pub mod mcp_servers;
pub mod objects;
pub mod openapi;
pub mod orchestrator;
pub mod probing;
pub mod providers;
mod reading;
pub mod resolve;
pub mod rooms;
mod schema;
pub mod secrets;
mod settings;
mod state;
pub mod tools;
pub mod ui;
mod usage;
pub mod validate;
pub mod web;
pub mod workspaces;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::Router;
use convene_db::{Db, DbError};
use convene_hop::{Clock, Hop, Signer};
use convene_model::{OrgId, keys::TrustedKeys};
use url::Url;

use crate::{
    changes::{Bell, Log},
    groups::WorkspaceGroups,
    identity::passwords::Passwords,
    orchestrator::OrchestratorClient,
    rooms::{Figures, Rooms, RoomsConfig},
    secrets::{MasterKeyReader, UpkeepError},
    state::AppState,
    web::client::Network,
};

/// What an App is made of.
pub struct Config {
    /// The workspace's own database; nobody else writes to it.
    pub db: Db,
    /// The next hop.
    pub orchestrator: Hop,
    /// The Agents Worker, for what people try out in the settings; without it they cannot.
    pub agents: Option<Hop>,
    /// Signs the App's calls, as issuer `app`.
    pub signer: Signer,
    /// The Agents Worker's public keys, issuer `agents`.
    pub agents_keys: TrustedKeys,
    /// The Group Controllers' public keys, issuer `controllers`.
    pub controller_keys: TrustedKeys,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where browsers reach the App. With it, the allowed Origin and the cookies' `Secure` are
    /// fixed; without it both follow from each request's own `Host`.
    pub public_url: Option<Url>,
    /// From whom `x-forwarded-for` and `x-forwarded-proto` are believed.
    pub trusted_proxies: Vec<Network>,
    /// How often a client's socket is pinged, so that nothing between takes it for idle; silent for
    /// two and a half times as long, it counts as gone.
    pub ping_every: Duration,
    /// How many requests one person may make in a minute; without it as many as they like.
    pub requests_per_minute: Option<u32>,
    /// The organizations whose own services keep what is written in their groups.
    pub external_history: BTreeSet<OrgId>,
    /// The keys behind secrets at rest and CSRF tokens. Without them stored secrets are lost.
    pub master_keys: MasterKeyReader,
}

/// Why an App did not open.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The workspace's database did not open or migrate.
    #[error("the workspace database: {0}")]
    Database(#[from] DbError),
    /// The system gave no random bytes, or a password could not be hashed.
    #[error("{0}")]
    System(String),
    /// The public URL is not an http(s) URL with a host.
    #[error("public_url: {0}")]
    PublicUrl(String),
    /// The master keys cannot be read, or what they guard cannot be brought up to date.
    #[error("secrets: {0}")]
    Secrets(String),
}

/// The App, open.
#[derive(Clone)]
pub struct App {
    state: AppState,
}

/// Brings the workspace's schema up to date and opens the App.
///
/// # Errors
/// [`AppError`] when the database, the system's randomness or the configuration fails.
pub async fn open(config: Config) -> Result<App, AppError> {
    config.db.migrate(schema::MIGRATIONS).await?;
    let passwords = Passwords::open().await.map_err(AppError::System)?;
    let bell = Bell::default();
    let (db, clock) = (config.db.clone(), config.clock.clone());
    let groups = WorkspaceGroups::with_bell(db, clock, bell.clone());
    let rooms = Rooms::new(RoomsConfig {
        orchestrator: OrchestratorClient::new(config.orchestrator.clone(), config.signer.clone()),
        groups: Arc::new(groups),
        render: ui::markdown::render,
        clock: config.clock.clone(),
        external_history: config.external_history.clone(),
        ping_every: config.ping_every,
    });
    let log = Log::open(config.db.clone()).await?;
    let state = AppState::new(config, passwords, rooms, bell)?;
    let settled = state.vault.settle(state.now()).await;
    match settled.map_err(|failure| AppError::Secrets(UpkeepError::from(failure).to_string()))? {
        secrets::Settled { adopted: 0, rewrapped: 0, resealed: 0, unreadable: 0 } => {}
        settled => tracing::info!(?settled, "stored secrets were brought to the keys in use"),
    }
    tokio::spawn(Arc::clone(&state.hub).follow(state.clone(), log));
    tokio::spawn(groups::life::follow::follow(state.clone()));
    Ok(App { state })
}

/// Figures of an App at one moment, for its operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppFigures {
    /// Those of client sockets and upstreams.
    pub rooms: Figures,
    /// Open event streams, at most [`events::MAX_STREAMS`].
    pub event_streams: usize,
    /// Event streams that were refused since the process began.
    pub refused_event_streams: u64,
    /// Password hashes that are computed or wait, at most [`identity::passwords::MAX_HASHES_WAITING`].
    pub password_hashes: usize,
    /// Requests that were refused for want of a place among them since the process began.
    pub refused_password_hashes: u64,
}

impl App {
    /// How full the queues are, and what was refused or dropped because of it.
    #[must_use]
    pub fn figures(&self) -> AppFigures {
        AppFigures {
            rooms: self.state.rooms.figures(),
            event_streams: self.state.hub.open_streams(),
            refused_event_streams: self.state.hub.refused(),
            password_hashes: self.state.passwords.waiting(),
            refused_password_hashes: self.state.passwords.refused(),
        }
    }

    /// The public door: pages, the JSON API, client sockets, `/healthz`, the JWKS, and the files of
    /// the pages.
    ///
    /// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that clients can be
    /// told apart by their address; requests without one share the limits of one address.
    pub fn router(&self) -> Router {
        web::public_router(&self.state)
    }

    /// `POST /internal/resolve`, for the Agents Worker alone; it is not part of the public door.
    pub fn internal_router(&self) -> Router {
        resolve::router(&self.state)
    }

    /// Ends all client sockets, event streams and upstreams in an orderly way.
    pub async fn shutdown(&self) {
        self.state.hub.stop();
        self.state.rooms.shutdown().await;
    }
}
