//! Named secrets of a workspace: whose they are, where they may be used, and their versions.
//!
//! A secret belongs to the workspace, to one agent or to one person. What a run may use follows
//! from these rows and the run's token (see `resolve`); who may see them follows from the caller
//! here. Keys of providers are secrets without a name, and belong to their provider alone.

use convene_db::{DbError, Row, Statement, params};
use convene_model::{AgentId, Code, GroupId, OrgId, Problem, Timestamp, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::uses;
use crate::{
    identity::caller::Caller,
    objects::{self, in_use},
    state::{AppState, fresh_id},
    ui::view::OrgView,
    validate,
    web::{
        failure::{Answer, Failure},
        rows,
    },
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// Named secrets of one workspace at a time.
pub const MAX_SECRETS_PER_ORG: u64 = 1000;
/// Versions of a secret that are kept; the oldest goes.
pub const KEPT_VERSIONS: u64 = 10;
/// Groups that a secret may be granted to by name.
pub const MAX_GRANTS: usize = 200;

/// Whose a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub(crate) enum Owner {
    /// The workspace: agents use it in the groups that it is granted to.
    Workspace,
    /// One agent: no other agent can name it.
    Agent {
        /// Which agent.
        agent_id: AgentId,
    },
    /// One person: usable only in runs that this person began, and seen by nobody else.
    Personal {
        /// Which person.
        user_id: UserId,
    },
}

impl Owner {
    /// The columns `scope` and `owner_id`.
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Self::Workspace => (WORKSPACE, ""),
            Self::Agent { agent_id } => (AGENT, agent_id.as_str()),
            Self::Personal { user_id } => (PERSONAL, user_id.as_str()),
        }
    }
}

pub(super) const WORKSPACE: &str = "workspace";
pub(super) const AGENT: &str = "agent";
pub(super) const PERSONAL: &str = "personal";

/// In which groups a secret of the workspace may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    /// In all of them, those to come included.
    All,
    /// In these.
    #[serde(untagged)]
    Groups(Vec<GroupId>),
}

/// A secret as it is listed: its value is no part of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct SecretView {
    pub(crate) secret_id: String,
    #[serde(flatten)]
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) groups: Grant,
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    /// What stands for the value: it says nothing of it, its length included.
    pub(crate) mask: &'static str,
}

/// What stands for every value.
pub(crate) const MASK: &str = "••••••••";

/// One version of a secret.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VersionView {
    pub(crate) version: u64,
    pub(crate) created_at: Timestamp,
    /// Who set it; empty for what was carried over from an earlier form.
    pub(crate) created_by: String,
}

/// A secret that is to be made.
pub(crate) struct NewSecret {
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) groups: Grant,
    pub(crate) value: Zeroizing<String>,
}

/// A change of a secret; what is absent stays.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) name: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) groups: Option<Grant>,
    pub(crate) value: Option<Zeroizing<String>>,
    /// The version whose value becomes the newest one.
    pub(crate) restore: Option<u64>,
}

const COLUMNS: &str =
    "secret_id, scope, owner_id, name, note, all_groups, version, updated_at, org_id";

/// The secrets that the caller may see: their own, and to those who manage the workspace its own
/// and its agents'.
pub(crate) async fn list(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
) -> Answer<Vec<SecretView>> {
    const GRANTS: &str = "SELECT g.secret_id, g.group_id FROM secret_grants g
        JOIN secrets s ON s.secret_id = g.secret_id WHERE s.org_id = $1
        ORDER BY g.secret_id, g.group_id";
    let sql = format!(
        "SELECT {COLUMNS} FROM secrets WHERE org_id = $1 AND scope <> 'provider'
         AND ((scope <> 'personal' AND $3 = 1) OR (scope = 'personal' AND owner_id = $2))
         ORDER BY scope DESC, name, secret_id"
    );
    let org_id = org.org_id.as_str();
    let seen = params![org_id, caller.id().as_str(), org.role.manages()];
    let found = state.db.query(Statement::new(sql, seen)).await?;
    let grants = state.db.query(Statement::new(GRANTS, params![org_id])).await?;
    let mut views = found.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    for grant in &grants {
        let secret: String = grant.get("secret_id")?;
        let view = views.iter_mut().find(|view| view.secret_id == secret);
        if let Some(SecretView { groups: Grant::Groups(groups), .. }) = view {
            groups.push(rows::id(grant, "group_id")?);
        }
    }
    Ok(views)
}

/// One secret that the caller may see and change; to everybody else it does not exist.
pub(crate) async fn find(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    secret: &str,
) -> Answer<SecretView> {
    let all = list(state, org, caller).await?;
    all.into_iter().find(|view| view.secret_id == secret).ok_or_else(|| Code::NotFound.into())
}

/// The versions of a secret that are kept, newest first.
pub(crate) async fn versions(state: &AppState, secret: &str) -> Answer<Vec<VersionView>> {
    const SQL: &str = "SELECT version, created_at, created_by FROM secret_versions
        WHERE secret_id = $1 ORDER BY version DESC";
    let mut versions = Vec::new();
    for row in state.db.query(Statement::new(SQL, params![secret])).await? {
        versions.push(VersionView {
            version: row.get("version")?,
            created_at: rows::time(&row, "created_at")?,
            created_by: row.get("created_by")?,
        });
    }
    Ok(versions)
}

/// Makes a secret.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    new: NewSecret,
) -> Answer<SecretView> {
    const SQL: &str = "INSERT INTO secrets (secret_id, org_id, sealed, created_at, scope, owner_id,
        name, note, all_groups, version, created_by, updated_at)
        SELECT $1, $2, '', CAST($3 AS BIGINT), $4, $5, $6, $7, CAST($8 AS BIGINT), 1, $9,
        CAST($3 AS BIGINT) WHERE (SELECT count(*) FROM secrets
            WHERE org_id = $2 AND scope <> 'provider') < $10";
    may(org, caller, &new.owner)?;
    let name = validate::secret_name("name", &new.name)?;
    let note = validate::note("note", &new.note)?;
    validate::secret("value", &new.value)?;
    if let Owner::Agent { agent_id } = &new.owner
        && crate::agents::find(state, &org.org_id, agent_id).await?.is_none()
    {
        return Err(validate::invalid("agent_id", "There is no such agent.").into());
    }
    let (groups, now) = (of_owner(&new.owner, new.groups)?, state.now());
    let (id, (scope, owner)) = (fresh_id(now), new.owner.columns());
    let put = state.vault.put(&org.org_id, &id, 1, &new.value, caller.id().as_str(), now).await?;
    let insert = params![
        &id,
        org.org_id.as_str(),
        now.millis(),
        scope,
        owner,
        &name,
        &note,
        groups == Grant::All,
        caller.id().as_str(),
        MAX_SECRETS_PER_ORG
    ];
    let mut batch = vec![
        Statement::new(SQL, insert).expect_rows(),
        put,
        note_action(org, caller, Action::SecretMade, &id, &name, now),
        orgs::reconfigured(&org.org_id),
    ];
    let grants = batch.len();
    batch.extend(grant(&org.org_id, &id, &groups));
    match state.db.batch(batch).await {
        Ok(_) => {}
        Err(DbError::Unmet { index }) if index >= grants => return Err(no_such_group()),
        Err(DbError::Unmet { .. }) => {
            let sentence = format!("There are {MAX_SECRETS_PER_ORG} secrets already.");
            return Err(validate::invalid("name", sentence).into());
        }
        Err(error) => return Err(name_taken(error)),
    }
    let (secret_id, owner) = (id, new.owner);
    Ok(SecretView { secret_id, owner, name, note, groups, version: 1, updated_at: now, mask: MASK })
}

/// Changes a secret; another value is another version, and works at the next use.
pub(crate) async fn change(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    secret: &str,
    change: Change,
) -> Answer<SecretView> {
    const CHANGE: &str = "UPDATE secrets SET name = $3, note = $4, all_groups = $5, version = $6,
        updated_at = $7 WHERE org_id = $1 AND secret_id = $2 AND version = $8";
    const DROP: &str = "DELETE FROM secret_versions WHERE secret_id = $1 AND version <= $2";
    const CLEAR: &str = "DELETE FROM secret_grants WHERE secret_id = $1";
    let current = find(state, org, caller, secret).await?;
    let name = change.name.map(|name| validate::secret_name("name", &name)).transpose()?;
    let name = name.unwrap_or(current.name);
    let note = change.note.map(|note| validate::note("note", &note)).transpose()?;
    let note = note.unwrap_or(current.note);
    let value = match (change.value, change.restore) {
        (Some(_), Some(_)) => {
            let sentence = "A secret gets either another value or a former one.";
            return Err(validate::invalid("restore_version", sentence).into());
        }
        (Some(value), None) => {
            validate::secret("value", &value)?;
            Some(value)
        }
        (None, Some(version)) => {
            let former = state.vault.open(&org.org_id, secret, Some(version)).await?;
            let sentence = "This version is not kept any more.";
            Some(former.ok_or_else(|| validate::invalid("restore_version", sentence))?)
        }
        (None, None) => None,
    };
    let now = state.now();
    let version = current.version + u64::from(value.is_some());
    let granted = change.groups.map(|groups| of_owner(&current.owner, groups)).transpose()?;
    let groups = granted.clone().unwrap_or(current.groups);
    let update = params![
        org.org_id.as_str(),
        secret,
        &name,
        &note,
        groups == Grant::All,
        version,
        now.millis(),
        current.version
    ];
    let mut batch = vec![Statement::new(CHANGE, update).expect_rows()];
    if let Some(value) = &value {
        let by = caller.id().as_str();
        batch.push(state.vault.put(&org.org_id, secret, version, value, by, now).await?);
        let dropped = version.saturating_sub(KEPT_VERSIONS);
        batch.push(Statement::new(DROP, params![secret, dropped]));
    }
    let action = if value.is_some() { Action::SecretSet } else { Action::SecretChanged };
    batch.push(note_action(org, caller, action, secret, &name, now));
    batch.push(orgs::reconfigured(&org.org_id));
    let mut grants = usize::MAX;
    if let Some(groups) = &granted {
        batch.push(Statement::new(CLEAR, params![secret]));
        grants = batch.len();
        batch.extend(grant(&org.org_id, secret, groups));
    }
    match state.db.batch(batch).await {
        Ok(_) => {}
        Err(DbError::Unmet { index }) if index >= grants => return Err(no_such_group()),
        Err(error) => return Err(name_taken(error)),
    }
    let (secret_id, owner) = (current.secret_id, current.owner);
    Ok(SecretView { secret_id, owner, name, note, groups, version, updated_at: now, mask: MASK })
}

/// Deletes a secret with all versions; one that the configuration refers to is kept.
pub(crate) async fn delete(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    secret: &str,
) -> Answer<()> {
    let current = find(state, org, caller, secret).await?;
    let users = uses::of_secret(state, &org.org_id, secret).await?;
    if !users.is_empty() {
        return Err(in_use(&users));
    }
    let mut batch = erase(secret);
    let deleted = Action::SecretDeleted;
    batch.push(note_action(org, caller, deleted, secret, &current.name, state.now()));
    let guards = vec![uses::none(&org.org_id, secret)];
    objects::commit(state, &org.org_id, guards, batch, objects::stale, objects::stale).await?;
    Ok(())
}

/// A secret's value, for the eyes of somebody who may see it; it is on record before it is shown.
pub(crate) async fn reveal(
    state: &AppState,
    org: &OrgView,
    caller: &Caller,
    secret: &str,
    version: Option<u64>,
) -> Answer<Zeroizing<String>> {
    let current = find(state, org, caller, secret).await?;
    let value = state.vault.open(&org.org_id, secret, version).await?;
    let Some(value) = value else { return Err(Code::NotFound.into()) };
    let detail = json!({"name": current.name, "version": version.unwrap_or(current.version)});
    let (revealed, now) = (Action::SecretRevealed, state.now());
    let record = audit::record(&org.org_id, caller.id(), revealed, secret, &detail, now);
    state.db.batch(vec![record]).await?;
    Ok(value)
}

/// The statements that make a provider's key: a secret without a name.
pub(crate) async fn make_key(
    state: &AppState,
    org: &OrgId,
    by: &UserId,
    value: &str,
) -> Answer<(String, Vec<Statement>)> {
    const SQL: &str = "INSERT INTO secrets
        (secret_id, org_id, sealed, created_at, scope, created_by, updated_at)
        VALUES ($1, $2, '', $3, 'provider', $4, $3)";
    let now = state.now();
    let id = fresh_id(now);
    let insert = params![&id, org.as_str(), now.millis(), by.as_str()];
    let put = state.vault.put(org, &id, 1, value, by.as_str(), now).await?;
    Ok((id, vec![Statement::new(SQL, insert), put]))
}

/// The statements that erase a secret.
pub(crate) fn erase(secret: &str) -> Vec<Statement> {
    const GRANTS: &str = "DELETE FROM secret_grants WHERE secret_id = $1";
    const VERSIONS: &str = "DELETE FROM secret_versions WHERE secret_id = $1";
    const SECRET: &str = "DELETE FROM secrets WHERE secret_id = $1";
    [GRANTS, VERSIONS, SECRET].map(|sql| Statement::new(sql, params![secret])).into()
}

/// The statements that erase what somebody or some agent owns: with its owner it is of no use.
pub(crate) fn erase_owned(org: &OrgId, owner: &Owner) -> Vec<Statement> {
    const GRANTS: &str = "DELETE FROM secret_grants WHERE secret_id IN
        (SELECT secret_id FROM secrets WHERE org_id = $1 AND scope = $2 AND owner_id = $3)";
    const VERSIONS: &str = "DELETE FROM secret_versions WHERE secret_id IN
        (SELECT secret_id FROM secrets WHERE org_id = $1 AND scope = $2 AND owner_id = $3)";
    const SECRETS: &str = "DELETE FROM secrets WHERE org_id = $1 AND scope = $2 AND owner_id = $3";
    let (scope, id) = owner.columns();
    [GRANTS, VERSIONS, SECRETS]
        .map(|sql| Statement::new(sql, params![org.as_str(), scope, id]))
        .into()
}

fn view(row: &Row) -> Result<SecretView, DbError> {
    Ok(SecretView {
        secret_id: row.get("secret_id")?,
        owner: owner(row)?,
        name: row.get("name")?,
        note: row.get("note")?,
        groups: if row.get("all_groups")? { Grant::All } else { Grant::Groups(Vec::new()) },
        version: row.get("version")?,
        updated_at: rows::time(row, "updated_at")?,
        mask: MASK,
    })
}

fn owner(row: &Row) -> Result<Owner, DbError> {
    let scope: String = row.get("scope")?;
    match scope.as_str() {
        WORKSPACE => Ok(Owner::Workspace),
        AGENT => Ok(Owner::Agent { agent_id: rows::id(row, "owner_id")? }),
        PERSONAL => Ok(Owner::Personal { user_id: rows::id(row, "owner_id")? }),
        other => Err(DbError::decode("scope", format!("{other:?} is no scope of a secret"))),
    }
}

/// Only one's own secrets are made without managing the workspace.
fn may(org: &OrgView, caller: &Caller, owner: &Owner) -> Result<(), Problem> {
    let detail = match owner {
        Owner::Personal { user_id } if user_id == caller.id() => return Ok(()),
        Owner::Personal { .. } => "A personal secret belongs to whoever makes it.",
        Owner::Workspace | Owner::Agent { .. } if org.role.manages() => return Ok(()),
        Owner::Workspace | Owner::Agent { .. } => {
            "Only owners and admins of the workspace may do this."
        }
    };
    Err(Problem::new(Code::Forbidden).detail(detail))
}

/// The grants as they fit the owner: what is not the workspace's goes wherever its owner does.
fn of_owner(owner: &Owner, groups: Grant) -> Result<Grant, Problem> {
    match (owner, groups) {
        (_, Grant::All) => Ok(Grant::All),
        (Owner::Workspace, Grant::Groups(mut groups)) => {
            groups.sort_unstable();
            groups.dedup();
            if groups.len() > MAX_GRANTS {
                let sentence = format!("A secret is granted to at most {MAX_GRANTS} groups.");
                return Err(validate::invalid("groups", sentence));
            }
            Ok(Grant::Groups(groups))
        }
        (Owner::Agent { .. } | Owner::Personal { .. }, Grant::Groups(_)) => {
            let sentence = "Only a secret of the workspace is granted to groups.";
            Err(validate::invalid("groups", sentence))
        }
    }
}

fn grant(org: &OrgId, secret: &str, groups: &Grant) -> Vec<Statement> {
    const SQL: &str = "INSERT INTO secret_grants (secret_id, group_id)
        SELECT $1, group_id FROM chat_groups WHERE group_id = $2 AND org_id = $3";
    let Grant::Groups(groups) = groups else { return Vec::new() };
    let one = |group: &GroupId| {
        Statement::new(SQL, params![secret, group.as_str(), org.as_str()]).expect_rows()
    };
    groups.iter().map(one).collect()
}

fn note_action(
    org: &OrgView,
    caller: &Caller,
    action: Action,
    secret: &str,
    name: &str,
    now: Timestamp,
) -> Statement {
    audit::record(&org.org_id, caller.id(), action, secret, &json!({"name": name}), now)
}

fn no_such_group() -> Failure {
    validate::invalid("groups", "One of these groups does not exist in the workspace.").into()
}

fn name_taken(error: DbError) -> Failure {
    match error {
        DbError::Unique { .. } => Problem::new(Code::AlreadyExists)
            .detail("Another secret of the same owner has this name.")
            .with("field", "name")
            .into(),
        DbError::Unmet { .. }
        | DbError::Unavailable(_)
        | DbError::Decode { .. }
        | DbError::Other(_) => error.into(),
    }
}
