//! Secrets of a workspace: sealed at rest, opened at the moment of use, shown to people only by an
//! action that is on record.
//!
//! A value is sealed under its organization's data key, which a master key wraps; the master keys
//! come from the host. Provider keys, headers of tools and variables of env profiles all refer to
//! what is kept here by id or by name. No value is in a configuration object, a log line or an
//! answer other than those of `reveal` and `/internal/resolve`.

mod api;
mod cipher;
mod master;
pub(crate) mod store;
mod upkeep;
mod uses;
mod vault;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use convene_db::Db;
use convene_model::Timestamp;

pub(crate) use self::vault::Vault;
pub use self::{
    master::{MasterKeyReader, MasterKeys, master_key_id},
    store::{KEPT_VERSIONS, MAX_GRANTS, MAX_SECRETS_PER_ORG},
    upkeep::{Settled, UpkeepError},
};
use crate::{schema, state::AppState};

/// The API of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/orgs/{org_id}/secrets", get(api::list).post(api::make))
        .route("/api/orgs/{org_id}/secrets/rotate", post(api::rotate))
        .route(
            "/api/orgs/{org_id}/secrets/{secret_id}",
            get(api::get).patch(api::change).delete(api::delete),
        )
        .route("/api/orgs/{org_id}/secrets/{secret_id}/reveal", post(api::reveal))
}

/// Brings all stored secrets to the master key in use, from beside the App; a running App may go on
/// meanwhile.
///
/// # Errors
/// [`UpkeepError`] when the database fails; what was done until then stays done.
pub async fn settle(db: &Db, keys: &MasterKeys, now: Timestamp) -> Result<Settled, UpkeepError> {
    let migrated = db.migrate(schema::MIGRATIONS).await;
    migrated.map_err(|error| UpkeepError(error.to_string()))?;
    let fixed = keys.clone();
    let reader: MasterKeyReader = Arc::new(move || Ok(fixed.clone()));
    Ok(Vault::new(Arc::clone(db), reader, keys).settle(now).await?)
}
