//! Model providers of a workspace, and their keys as encrypted secrets.
//!
//! A provider refers to its key by id. A key goes in and is never shown again: it is opened in one
//! place only, when a run resolves its agent.

mod api;

use convene_db::{DbError, Row, Statement, params};
use convene_hop::api::{Api, Operation};
use convene_model::{Code, OrgId, Problem, UserId, agents::ApiKey};
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    secrets::store as secrets,
    state::{AppState, fresh_id},
    ui::view::ProviderView,
    validate,
    web::failure::Answer,
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// Providers of one workspace at a time.
pub const MAX_PROVIDERS_PER_ORG: u64 = 100;

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists];
    const LIST: &str = "/api/orgs/{org_id}/providers";
    const ONE: &str = "/api/orgs/{org_id}/providers/{provider_id}";
    Api::new()
        .on(
            Operation::get(LIST, "listProviders", "The workspace's model providers.")
                .answers::<Vec<ProviderView>>(200),
            api::list,
        )
        .on(
            Operation::post(LIST, "makeProvider", "Make a model provider.")
                .body::<api::NewProvider>()
                .answers::<ProviderView>(201)
                .problems(MANAGE),
            api::make,
        )
        .on(
            Operation::patch(ONE, "changeProvider", "Change what is given; the rest stays.")
                .body::<api::ProviderChange>()
                .answers::<ProviderView>(200)
                .problems(MANAGE),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteProvider", "Delete a model provider.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
}

fn view(row: &Row) -> Result<ProviderView, DbError> {
    Ok(ProviderView {
        provider_id: row.get("provider_id")?,
        name: row.get("name")?,
        base_url: row.get("base_url")?,
        has_key: row.get::<Option<String>>("secret_id")?.is_some(),
    })
}

/// The providers of a workspace, oldest first.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<ProviderView>> {
    const SQL: &str = "SELECT provider_id, name, base_url, secret_id FROM providers
        WHERE org_id = $1 ORDER BY created_at, provider_id";
    let found = state.db.query(Statement::new(SQL, params![org.as_str()])).await?;
    Ok(found.iter().map(view).collect::<Result<_, _>>()?)
}

/// Where a provider is and the key that it wants: for the moment of use.
pub(crate) async fn open(
    state: &AppState,
    org: &OrgId,
    provider: &str,
) -> Answer<Option<(String, Option<ApiKey>)>> {
    const SQL: &str = "SELECT base_url, secret_id FROM providers
        WHERE org_id = $1 AND provider_id = $2";
    let params = params![org.as_str(), provider];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let key = match row.get::<Option<String>>("secret_id")? {
        Some(id) => state.vault.open(org, &id, None).await?,
        None => None,
    };
    let key = key.map(|key| ApiKey::new(key.to_string()));
    Ok(Some((row.get("base_url")?, key)))
}

/// Makes a provider.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    name: &str,
    base_url: &str,
    key: Option<Zeroizing<String>>,
) -> Answer<ProviderView> {
    const SQL: &str = "INSERT INTO providers
        (provider_id, org_id, name, name_key, base_url, secret_id, version, created_at)
        SELECT $1, $2, $3, $4, $5, $6, 1, CAST($7 AS BIGINT)
        WHERE (SELECT count(*) FROM providers WHERE org_id = $2) < $8";
    let name = validate::name("name", name)?;
    let base_url = validate::base_url("base_url", base_url)?;
    let now = state.now();
    let provider_id = fresh_id(now);
    let (mut secret_id, mut batch) = (None, Vec::new());
    if let Some(key) = key {
        validate::api_key("api_key", &key)?;
        let (id, insert) = secrets::make_key(state, org, by, &key).await?;
        let set = Action::ProviderSecretSet;
        batch.extend(insert);
        batch.push(audit::record(org, by, set, &provider_id, &json!({"name": &name}), now));
        secret_id = Some(id);
    }
    let insert = params![
        &provider_id,
        org.as_str(),
        &name,
        name.to_lowercase(),
        &base_url,
        secret_id.as_deref(),
        now.millis(),
        MAX_PROVIDERS_PER_ORG
    ];
    batch.push(Statement::new(SQL, insert).expect_rows());
    batch.push(orgs::reconfigured(org));
    match state.db.batch(batch).await {
        Ok(_) => Ok(ProviderView { provider_id, name, base_url, has_key: secret_id.is_some() }),
        Err(DbError::Unmet { .. }) => {
            let sentence = format!("There are {MAX_PROVIDERS_PER_ORG} providers already.");
            Err(validate::invalid("name", sentence).into())
        }
        Err(error) => Err(name_taken(error)),
    }
}

/// A change of a provider; what is absent stays.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) base_url: Option<String>,
    /// `Some(None)` takes the key away.
    pub(crate) key: Option<Option<Zeroizing<String>>>,
}

/// Changes a provider. A key does not follow to another site: whoever moves a provider there must
/// know the key, or else could read it with a server of their own.
pub(crate) async fn change(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    provider: &str,
    change: Change,
) -> Answer<ProviderView> {
    const FIND: &str = "SELECT provider_id, name, base_url, secret_id, version FROM providers
        WHERE org_id = $1 AND provider_id = $2";
    const CHANGE: &str = "UPDATE providers SET name = $3, name_key = $4, base_url = $5,
        secret_id = $6, version = version + 1
        WHERE org_id = $1 AND provider_id = $2 AND version = $7";
    let find = params![org.as_str(), provider];
    let found = state.db.query(Statement::new(FIND, find)).await?;
    let Some(row) = found.first() else { return Err(Code::NotFound.into()) };
    let current = view(row)?;
    let old_secret: Option<String> = row.get("secret_id")?;
    let version: u64 = row.get("version")?;

    let name = change.name.map(|name| validate::name("name", &name)).transpose()?;
    let name = name.unwrap_or(current.name);
    let base_url = change.base_url.map(|url| validate::base_url("base_url", &url)).transpose()?;
    let base_url = base_url.unwrap_or_else(|| current.base_url.clone());
    if old_secret.is_some() && change.key.is_none() && !same_site(&current.base_url, &base_url) {
        let sentence = "The key belongs to the former address. Enter it again for the new one.";
        return Err(validate::invalid("api_key", sentence).into());
    }

    let now = state.now();
    let mut batch = Vec::new();
    let note = |action| audit::record(org, by, action, provider, &json!({"name": &name}), now);
    let secret_id = match change.key {
        None => old_secret.clone(),
        Some(None) => {
            if old_secret.is_some() {
                batch.push(note(Action::ProviderSecretRemoved));
            }
            None
        }
        Some(Some(key)) => {
            validate::api_key("api_key", &key)?;
            let (id, insert) = secrets::make_key(state, org, by, &key).await?;
            batch.extend(insert);
            batch.push(note(Action::ProviderSecretSet));
            Some(id)
        }
    };
    let update = params![
        org.as_str(),
        provider,
        &name,
        name.to_lowercase(),
        &base_url,
        secret_id.as_deref(),
        version
    ];
    batch.push(Statement::new(CHANGE, update).expect_rows());
    if let Some(old) = old_secret.filter(|old| secret_id.as_ref() != Some(old)) {
        batch.extend(secrets::erase(&old));
    }
    batch.push(orgs::reconfigured(org));
    state.db.batch(batch).await.map_err(name_taken)?;
    let has_key = secret_id.is_some();
    Ok(ProviderView { provider_id: provider.to_owned(), name, base_url, has_key })
}

/// Deletes a provider and its key; agents that use it fail until they have another.
pub(crate) async fn delete(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    provider: &str,
) -> Answer<()> {
    const DELETE: &str = "DELETE FROM providers WHERE org_id = $1 AND provider_id = $2
        AND secret_id IS NOT DISTINCT FROM $3";
    const FIND: &str = "SELECT name, secret_id FROM providers
        WHERE org_id = $1 AND provider_id = $2";
    let both = params![org.as_str(), provider];
    let found = state.db.query(Statement::new(FIND, both)).await?;
    let Some(row) = found.first() else { return Err(Code::NotFound.into()) };
    let name: String = row.get("name")?;
    let secret: Option<String> = row.get("secret_id")?;
    let delete = params![org.as_str(), provider, secret.as_deref()];
    let mut batch = vec![Statement::new(DELETE, delete).expect_rows()];
    if let Some(secret) = secret {
        let removed = Action::ProviderSecretRemoved;
        batch.extend(secrets::erase(&secret));
        batch.push(audit::record(org, by, removed, provider, &json!({"name": name}), state.now()));
    }
    batch.push(orgs::reconfigured(org));
    state.db.batch(batch).await?;
    Ok(())
}

fn same_site(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin(),
        (Ok(_) | Err(_), _) => false,
    }
}

fn name_taken(error: DbError) -> crate::web::failure::Failure {
    match error {
        DbError::Unique { .. } => Problem::new(Code::AlreadyExists)
            .detail("Another provider of the workspace has this name.")
            .with("field", "name")
            .into(),
        DbError::Unmet { .. }
        | DbError::Unavailable(_)
        | DbError::Decode { .. }
        | DbError::Other(_) => error.into(),
    }
}
