//! The second hop: the infra API that places groups on controllers and lets apps reach them.
//!
//! Owns the routing records, the organizations' limits and who may call: every call brings an
//! `app+jwt` bound to it, and what concerns one user a `routing+jwt` besides. Never knows what is
//! said in a group, never keeps an upstream's frames, and never talks to an agent.

pub mod adoption;
mod auth;
mod controllers;
mod directory;
mod failpoints;
mod flows;
mod idempotency;
mod lifecycle;
mod manifests;
pub mod openapi;
mod problem;
mod reconcile;
mod routes;
mod times;

use std::{collections::BTreeSet, sync::Arc};

use axum::Router;
use convene_db::{Db, DbError};
use convene_hop::{Clock, Hop, Signer};
use convene_model::{OrgId, keys::TrustedKeys, rate::RateLimiter};
use object_store::ObjectStore;

use auth::Auth;
use controllers::Controllers;
use directory::Directory;
use flows::Runner;
use idempotency::Idempotency;
use manifests::Manifests;

pub use directory::MIGRATIONS;
pub use failpoints::FAILPOINTS;
pub use reconcile::Reconciled;
pub use times::{MAX_AUTO_ARCHIVE_SECS, Times};

/// What an Orchestrator is made of.
pub struct Config {
    /// Signs routing and service tokens; its issuer is `orchestrator`.
    pub signer: Signer,
    /// The apps that may call.
    pub apps: Vec<TrustedApp>,
    /// The apps' public keys. An issuer that has keys here but is not in `apps` may call too,
    /// without operator scope.
    pub app_keys: TrustedKeys,
    /// The public keys of the controllers' host.
    pub controller_keys: TrustedKeys,
    /// The public keys of the Agents Worker.
    pub agents_keys: TrustedKeys,
    /// The organizations whose own services keep what is written in their groups.
    pub external_history: BTreeSet<OrgId>,
    /// The third hop.
    pub controllers: Hop,
    /// The directory database.
    pub db: Db,
    /// Where the time comes from.
    pub clock: Clock,
    /// How many groups an organization may have active or idle when no limit was set for it.
    pub default_max_active_groups: u64,
    /// Where snapshots are kept.
    pub archives: Arc<dyn ObjectStore>,
    /// Periods and limits of scheduled work.
    pub times: Times,
}

/// An app that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedApp {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Whether it may set limits.
    pub operator: bool,
}

/// A running Orchestrator; cheap to clone.
#[derive(Clone)]
pub struct Orchestrator {
    shared: Arc<Shared>,
}

/// What the routes work with.
pub(crate) struct Shared {
    pub(crate) auth: Auth,
    pub(crate) directory: Directory,
    pub(crate) idempotency: Idempotency,
    pub(crate) controllers: Controllers,
    pub(crate) signer: Signer,
    pub(crate) clock: Clock,
    pub(crate) archives: Arc<dyn ObjectStore>,
    pub(crate) manifests: Manifests,
    pub(crate) times: Times,
    pub(crate) runner: Runner,
    /// How often organizations activate groups.
    pub(crate) activations: RateLimiter<OrgId>,
    /// The organizations whose own services keep what is written in their groups.
    pub(crate) external_history: BTreeSet<OrgId>,
}

/// Brings the directory up to date and starts an Orchestrator on it.
///
/// # Errors
/// [`DbError`] when the directory cannot be migrated, or when the Orchestrator's own public key is
/// no key.
pub async fn open(config: Config) -> Result<Orchestrator, DbError> {
    let Config { signer, apps, app_keys, controller_keys, controllers, db, clock, .. } = config;
    let agents_keys = config.agents_keys;
    db.migrate(MIGRATIONS).await?;
    let own_keys = TrustedKeys::new();
    signer
        .keys()
        .keep(&own_keys)
        .map_err(|error| DbError::Other(format!("the orchestrator's signing key: {error}")))?;
    let operators = apps.into_iter().filter(|app| app.operator).map(|app| app.issuer).collect();
    Ok(Orchestrator {
        shared: Arc::new(Shared {
            auth: Auth::new(
                operators,
                app_keys,
                controller_keys,
                agents_keys,
                own_keys,
                Arc::clone(&clock),
            ),
            directory: Directory::new(Arc::clone(&db), config.default_max_active_groups),
            idempotency: Idempotency::new(db, Arc::clone(&clock)),
            controllers: Controllers::new(controllers, signer.clone()),
            signer,
            clock,
            archives: config.archives,
            manifests: Manifests::new(),
            times: config.times,
            runner: Runner::new(),
            activations: RateLimiter::default(),
            external_history: config.external_history,
        }),
    })
}

impl Orchestrator {
    /// The HTTP interface: called in memory by the App of the same process, or served to others.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.shared))
    }

    /// Does scheduled work, again and again, until this future is dropped. Of several Orchestrators
    /// on one directory one at a time does each kind of it.
    pub async fn reconcile(&self) {
        reconcile::forever(&self.shared).await;
    }

    /// Does all scheduled work that is due, once, whoever leads; waits for the tasks that it takes
    /// up.
    ///
    /// # Errors
    /// [`DbError`] of the directory.
    pub async fn reconcile_once(&self) -> Result<Reconciled, DbError> {
        reconcile::once(&self.shared).await
    }

    /// How many tasks this process works on at the moment.
    #[must_use]
    pub fn running_tasks(&self) -> usize {
        self.shared.runner.running()
    }
}
