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
pub(crate) mod reach;
pub(crate) mod store;
mod upkeep;
mod uses;
mod vault;

use std::sync::Arc;

use convene_db::Db;
use convene_hop::api::{Api, Operation};
use convene_model::{Code, Timestamp};

pub(crate) use self::vault::Vault;
pub use self::{
    master::{MasterKeyReader, MasterKeys, master_key_id},
    store::{KEPT_VERSIONS, MAX_GRANTS, MAX_SECRETS_PER_ORG},
    upkeep::{Settled, UpkeepError},
};
use crate::{schema, state::AppState};

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const ALL: &str = "/api/orgs/{org_id}/secrets";
    const ONE: &str = "/api/orgs/{org_id}/secrets/{secret_id}";
    const CODES: &[Code] = &[Code::Forbidden, Code::Conflict, Code::AlreadyExists];
    Api::new()
        .on(
            Operation::get(ALL, "listSecrets", "Secrets that the caller may know of, masked.")
                .answers::<Vec<store::SecretView>>(200)
                .problems(CODES),
            api::list,
        )
        .on(
            Operation::post(ALL, "makeSecret", "Keep a secret.")
                .body::<api::NewBody>()
                .answers::<store::SecretView>(201)
                .problems(CODES),
            api::make,
        )
        .on(
            Operation::post(
                "/api/orgs/{org_id}/secrets/rotate",
                "rotateSecrets",
                "Seal all secrets of the workspace under a new key.",
            )
            .answers::<api::Rotated>(200)
            .problems(CODES),
            api::rotate,
        )
        .on(
            Operation::get(ONE, "readSecret", "A secret and its versions, masked.")
                .answers::<api::Detail>(200)
                .problems(CODES),
            api::get,
        )
        .on(
            Operation::patch(ONE, "changeSecret", "Change what is given; the rest stays.")
                .body::<api::ChangeBody>()
                .answers::<store::SecretView>(200)
                .problems(CODES),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteSecret", "Delete a secret that nothing uses.")
                .answers_empty(204)
                .problems(CODES),
            api::delete,
        )
        .on(
            Operation::post(
                "/api/orgs/{org_id}/secrets/{secret_id}/reveal",
                "revealSecret",
                "A value in the open; on record.",
            )
            .body::<api::RevealBody>()
            .answers::<api::Revealed>(200)
            .problems(CODES),
            api::reveal,
        )
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
