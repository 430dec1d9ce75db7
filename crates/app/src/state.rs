//! What every handler has: the database, the clock, keys and the rooms.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use convene_db::{Db, DbError, Row, Statement};
use convene_hop::Clock;
use convene_model::{
    OrgId, Timestamp, UserId, keys::TrustedKeys, limits::MAX_REMEMBERED_JTIS, rate::RateLimiter,
    replay::ReplayGuard, signing_keys::SigningKeys,
};
use moka::sync::Cache;
use uuid::{ContextV7, Uuid};

use crate::{
    AppError, Config,
    changes::{self, Bell, Change},
    events::Hub,
    groups::life::follow::{FRESH_FOR, MAX_FRESH},
    identity::{csrf::CsrfKey, limiter::Limits, passwords::Passwords, touches::Touches},
    orchestrator::OrchestratorClient,
    probing::Probes,
    rooms::Rooms,
    secrets::Vault,
    web::{client::Network, origin::Origin},
};

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Parts>);

/// What is shared.
pub(crate) struct Parts {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) bell: Bell,
    pub(crate) hub: Arc<Hub>,
    pub(crate) rooms: Rooms,
    pub(crate) orchestrator: OrchestratorClient,
    /// Workspaces of which it was just looked which groups are archived.
    pub(crate) fresh: Cache<OrgId, ()>,
    pub(crate) passwords: Passwords,
    pub(crate) touches: Touches,
    pub(crate) csrf: CsrfKey,
    pub(crate) vault: Vault,
    pub(crate) limits: Limits,
    pub(crate) probes: Probes,
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) requests: RateLimiter<UserId>,
    pub(crate) public_origin: Option<Origin>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) agents_keys: TrustedKeys,
    pub(crate) controller_keys: TrustedKeys,
    pub(crate) worker_replay: ReplayGuard,
    pub(crate) signing_keys: SigningKeys,
}

impl AppState {
    pub(crate) fn new(
        config: Config,
        passwords: Passwords,
        rooms: Rooms,
        bell: Bell,
    ) -> Result<Self, AppError> {
        let public_origin = match &config.public_url {
            Some(url) => Some(Origin::of_url(url).ok_or_else(|| {
                AppError::PublicUrl(format!("{url} is not an http(s) URL with a host"))
            })?),
            None => None,
        };
        let keys = (config.master_keys)().map_err(AppError::Secrets)?;
        Ok(Self(Arc::new(Parts {
            csrf: CsrfKey::derive(&keys.current),
            vault: Vault::new(Arc::clone(&config.db), config.master_keys, &keys),
            limits: Limits::default(),
            probes: Probes::new(config.agents, config.signer.clone()),
            requests_per_minute: config.requests_per_minute,
            requests: RateLimiter::default(),
            worker_replay: ReplayGuard::new(MAX_REMEMBERED_JTIS),
            signing_keys: config.signer.keys().clone(),
            fresh: Cache::builder().max_capacity(MAX_FRESH).time_to_live(FRESH_FOR).build(),
            orchestrator: OrchestratorClient::new(config.orchestrator, config.signer),
            db: config.db,
            clock: config.clock,
            bell,
            hub: Arc::default(),
            rooms,
            passwords,
            touches: Touches::default(),
            public_origin,
            trusted_proxies: config.trusted_proxies,
            agents_keys: config.agents_keys,
            controller_keys: config.controller_keys,
        })))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Commits a batch with what others may have to hear of it, here and in other processes.
    pub(crate) async fn commit(
        &self,
        mut batch: Vec<Statement>,
        changed: &[Change],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        for change in changed {
            changes::note(&mut batch, change);
        }
        let answers = self.db.batch(batch).await?;
        self.bell.ring();
        Ok(answers)
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Counts within a millisecond, so that ids keep their order there too.
static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// A new id: a UUID of version 7, so that the ids of one process sort by age, without its dashes.
pub(crate) fn fresh_id(now: Timestamp) -> String {
    let nanos = u32::try_from(now.millis() % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(&ORDER, now.secs(), nanos)).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_in_one_millisecond_keep_their_order() {
        let ids: Vec<_> =
            (0..1000).map(|n| fresh_id(Timestamp::from_millis(1000 + n / 500))).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| convene_model::ids::is_valid_id(id)));
    }
}
