//! Model providers of a workspace, and their keys as encrypted secrets.
//!
//! A provider refers to its key by id. A key goes in and is never shown again: it is opened in one
//! place only, when a run resolves its agent.

mod api;
pub mod kind;

use std::collections::BTreeMap;

use convene_db::{DbError, Row, Statement, params};
use convene_hop::api::{Api, Operation};
use convene_model::{
    Code, OrgId, Problem, UserId,
    agents::{ApiKey, ResolvedModel},
    price::ModelPrice,
};
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

use self::kind::{ProviderConfig, ProviderKind};
use crate::{
    objects::{self, Guard, in_use},
    probing::{self, Seen},
    secrets::store as secrets,
    state::{AppState, fresh_id},
    ui::view::ProviderView,
    validate,
    web::failure::Answer,
    workspaces::audit::{self, Action},
};

/// Providers of one workspace at a time.
pub const MAX_PROVIDERS_PER_ORG: u64 = 100;

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists, Code::Conflict];
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
            Operation::delete(ONE, "deleteProvider", "Delete a provider that no agent uses.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
        .on(
            Operation::post(
                "/api/orgs/{org_id}/providers/{provider_id}/check",
                "checkProvider",
                "Ask a provider which models it offers.",
            )
            .answers::<Seen>(200)
            .problems(&[Code::Forbidden, Code::RateLimited]),
            api::check,
        )
}

const COLUMNS: &str = "provider_id, name, base_url, secret_id, config, seen, version";

fn view(row: &Row) -> Result<ProviderView, DbError> {
    let config = ProviderConfig::parse(&row.get::<String>("config")?)?;
    Ok(ProviderView {
        provider_id: row.get("provider_id")?,
        name: row.get("name")?,
        kind: config.kind,
        base_url: row.get("base_url")?,
        has_key: row.get::<Option<String>>("secret_id")?.is_some(),
        models: config.models,
        options: config.options,
        prices: config.prices,
        seen: Seen::parse(&row.get::<String>("seen")?),
        version: row.get("version")?,
    })
}

/// The providers of a workspace, oldest first.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<ProviderView>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM providers WHERE org_id = $1 ORDER BY created_at, provider_id"
    );
    let found = state.db.query(Statement::new(sql, params![org.as_str()])).await?;
    Ok(found.iter().map(view).collect::<Result<_, _>>()?)
}

/// A provider and the id of its key.
async fn find(
    state: &AppState,
    org: &OrgId,
    provider: &str,
) -> Answer<Option<(ProviderView, Option<String>)>> {
    let sql = format!("SELECT {COLUMNS} FROM providers WHERE org_id = $1 AND provider_id = $2");
    let params = params![org.as_str(), provider];
    let found = state.db.query(Statement::new(sql, params)).await?;
    let both = |row: &Row| Ok::<_, DbError>((view(row)?, row.get("secret_id")?));
    Ok(found.first().map(both).transpose()?)
}

/// One of a provider's models with the key that it wants, and what it costs: for the moment of use. `None` when there
/// is no such provider, or when it lacks a key that it cannot do without.
pub(crate) async fn open(
    state: &AppState,
    org: &OrgId,
    provider: &str,
    model: String,
) -> Answer<Option<(ResolvedModel, Option<ModelPrice>)>> {
    let Some((found, secret)) = find(state, org, provider).await? else { return Ok(None) };
    let key = match secret {
        Some(id) => state.vault.open(org, &id, None).await?,
        None => None,
    };
    let api_key = key.map(|key| ApiKey::new(key.to_string()));
    let price = found.prices.get(&model).copied();
    let (base_url, options) = (found.base_url, found.options);
    let model = match (found.kind, api_key) {
        (ProviderKind::OpenaiCompatible, api_key) => {
            Some(ResolvedModel::OpenaiCompatible { base_url, model, api_key, options })
        }
        (ProviderKind::Anthropic, Some(api_key)) => {
            Some(ResolvedModel::Anthropic { base_url, model, api_key, options })
        }
        (ProviderKind::Gemini, Some(api_key)) => {
            Some(ResolvedModel::Gemini { base_url, model, api_key, options })
        }
        (ProviderKind::Anthropic | ProviderKind::Gemini, None) => None,
    };
    Ok(model.map(|model| (model, price)))
}

/// Asks a provider which models it offers, and keeps what it says.
pub(crate) async fn check(state: &AppState, org: &OrgId, provider: &str) -> Answer<Seen> {
    const KEEP: &str = "UPDATE providers SET seen = $3
        WHERE org_id = $1 AND provider_id = $2 AND version = $4";
    let Some((current, _)) = find(state, org, provider).await? else {
        return Err(Code::NotFound.into());
    };
    let Some((model, _)) = open(state, org, provider, String::new()).await? else {
        return Err(Code::NotFound.into());
    };
    let answer = probing::ask(state, org, &probing::models(model)).await?;
    let seen = Seen::of(answer, state.now());
    let text = serde_json::to_string(&seen).map_err(|_| Problem::new(Code::Internal))?;
    let keep = params![org.as_str(), provider, text, current.version];
    state.db.execute(Statement::new(KEEP, keep)).await?;
    Ok(seen)
}

/// A provider that is to be made.
pub(crate) struct NewProvider {
    pub(crate) name: String,
    pub(crate) kind: ProviderKind,
    /// Where it is; the service's own address when not said.
    pub(crate) base_url: Option<String>,
    pub(crate) key: Option<Zeroizing<String>>,
    pub(crate) models: Vec<String>,
    pub(crate) options: Map<String, Value>,
    pub(crate) prices: BTreeMap<String, ModelPrice>,
}

/// Makes a provider.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    new: NewProvider,
) -> Answer<ProviderView> {
    const SQL: &str = "INSERT INTO providers
        (provider_id, org_id, name, name_key, base_url, secret_id, version, created_at, config)
        SELECT $1, $2, $3, $4, $5, $6, 1, CAST($7 AS BIGINT), $9
        WHERE (SELECT count(*) FROM providers WHERE org_id = $2) < $8";
    let name = validate::name("name", &new.name)?;
    let url = new.base_url.as_deref().or(new.kind.home()).unwrap_or_default();
    let base_url = validate::base_url("base_url", url)?;
    let models = kind::models("models", &new.models)?;
    kind::options("options", &new.options)?;
    let prices = kind::prices("prices", &new.prices)?;
    let config = ProviderConfig { kind: new.kind, models, options: new.options, prices };
    if new.kind.needs_key() && new.key.is_none() {
        return Err(key_needed(new.kind).into());
    }
    let now = state.now();
    let provider_id = fresh_id(now);
    let detail = json!({"name": &name});
    let note = |action| audit::record(org, by, action, &provider_id, &detail, now);
    let (mut secret_id, mut batch) = (None, Vec::new());
    if let Some(key) = new.key {
        validate::api_key("api_key", &key)?;
        let (id, insert) = secrets::make_key(state, org, by, &key).await?;
        batch.extend(insert);
        batch.push(note(Action::ProviderSecretSet));
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
        MAX_PROVIDERS_PER_ORG,
        document(&config)?
    ];
    batch.push(Statement::new(SQL, insert).expect_rows());
    batch.push(note(Action::ProviderMade));
    let full = || {
        let sentence = format!("There are {MAX_PROVIDERS_PER_ORG} providers already.");
        validate::invalid("name", sentence)
    };
    objects::commit(state, org, Vec::new(), batch, full, name_taken).await?;
    Ok(as_view(provider_id, name, base_url, secret_id.is_some(), config, 1))
}

/// A change of a provider; what is absent stays.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) base_url: Option<String>,
    /// `Some(None)` takes the key away.
    pub(crate) key: Option<Option<Zeroizing<String>>>,
    pub(crate) models: Option<Vec<String>>,
    pub(crate) options: Option<Map<String, Value>>,
    pub(crate) prices: Option<BTreeMap<String, ModelPrice>>,
    /// The version that the change was made from; the newest when absent.
    pub(crate) version: Option<u64>,
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
    const CHANGE: &str = "UPDATE providers SET name = $3, name_key = $4, base_url = $5,
        secret_id = $6, config = $8, seen = '', version = version + 1
        WHERE org_id = $1 AND provider_id = $2 AND version = $7";
    let Some((current, old_secret)) = find(state, org, provider).await? else {
        return Err(Code::NotFound.into());
    };
    let version = change.version.unwrap_or(current.version);
    let name = change.name.map(|name| validate::name("name", &name)).transpose()?;
    let name = name.unwrap_or(current.name);
    let base_url = change.base_url.map(|url| validate::base_url("base_url", &url)).transpose()?;
    let base_url = base_url.unwrap_or_else(|| current.base_url.clone());
    let models = change.models.map(|models| kind::models("models", &models)).transpose()?;
    let models = models.unwrap_or(current.models);
    let options = change.options.unwrap_or(current.options);
    kind::options("options", &options)?;
    let prices = change.prices.map(|prices| kind::prices("prices", &prices)).transpose()?;
    let prices = prices.unwrap_or(current.prices);
    let config = ProviderConfig { kind: current.kind, models, options, prices };
    if old_secret.is_some() && change.key.is_none() && !same_site(&current.base_url, &base_url) {
        let sentence = "The key belongs to the former address. Enter it again for the new one.";
        return Err(validate::invalid("api_key", sentence).into());
    }

    let now = state.now();
    let mut batch = Vec::new();
    let note = |action| audit::record(org, by, action, provider, &json!({"name": &name}), now);
    let secret_id = match change.key {
        None => old_secret.clone(),
        Some(None) if current.kind.needs_key() => return Err(key_needed(current.kind).into()),
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
        version,
        document(&config)?
    ];
    batch.push(Statement::new(CHANGE, update).expect_rows());
    batch.push(note(Action::ProviderChanged));
    if let Some(old) = old_secret.filter(|old| secret_id.as_ref() != Some(old)) {
        batch.extend(secrets::erase(&old));
    }
    objects::commit(state, org, Vec::new(), batch, objects::stale, name_taken).await?;
    let (provider, has_key) = (provider.to_owned(), secret_id.is_some());
    Ok(as_view(provider, name, base_url, has_key, config, version + 1))
}

/// Deletes a provider that no agent uses, and its key with it.
pub(crate) async fn delete(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    provider: &str,
) -> Answer<()> {
    const DELETE: &str = "DELETE FROM providers WHERE org_id = $1 AND provider_id = $2
        AND secret_id IS NOT DISTINCT FROM $3";
    const USERS: &str = "SELECT name FROM agents
        WHERE org_id = $1 AND provider_id = $2 AND deleted_at IS NULL ORDER BY name";
    const UNUSED: &str = "SELECT org_id FROM orgs WHERE org_id = $1 AND NOT EXISTS
        (SELECT 1 FROM agents WHERE org_id = $1 AND provider_id = $2 AND deleted_at IS NULL)";
    let Some((current, secret)) = find(state, org, provider).await? else {
        return Err(Code::NotFound.into());
    };
    let both = || params![org.as_str(), provider];
    let users = state.db.query(Statement::new(USERS, both())).await?;
    let users = users.iter().map(|row| row.get("name")).collect::<Result<Vec<String>, _>>()?;
    if !users.is_empty() {
        return Err(in_use(&users));
    }
    let (now, detail) = (state.now(), json!({"name": current.name}));
    let note = |action| audit::record(org, by, action, provider, &detail, now);
    let delete = params![org.as_str(), provider, secret.as_deref()];
    let mut batch = vec![Statement::new(DELETE, delete).expect_rows()];
    if let Some(secret) = secret {
        batch.extend(secrets::erase(&secret));
        batch.push(note(Action::ProviderSecretRemoved));
    }
    batch.push(note(Action::ProviderDeleted));
    let unused = Guard::new(Statement::new(UNUSED, both()), objects::stale());
    objects::commit(state, org, vec![unused], batch, objects::stale, name_taken).await?;
    Ok(())
}

fn document(config: &ProviderConfig) -> Result<String, Problem> {
    serde_json::to_string(config).map_err(|_| Problem::new(Code::Internal))
}

fn as_view(
    provider_id: String,
    name: String,
    base_url: String,
    has_key: bool,
    config: ProviderConfig,
    version: u64,
) -> ProviderView {
    let ProviderConfig { kind, models, options, prices } = config;
    let seen = None;
    ProviderView {
        provider_id,
        name,
        kind,
        base_url,
        has_key,
        models,
        options,
        prices,
        seen,
        version,
    }
}

fn key_needed(kind: ProviderKind) -> Problem {
    validate::invalid("api_key", format!("{} answers nothing without a key.", kind.title()))
}

fn same_site(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin(),
        (Ok(_) | Err(_), _) => false,
    }
}

fn name_taken() -> Problem {
    Problem::new(Code::AlreadyExists)
        .detail("Another provider of the workspace has this name.")
        .with("field", "name")
}
