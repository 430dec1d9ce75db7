//! The canonical objects of a workspace's configuration: what its tools, servers and env profiles
//! are, each one document with an id, a name and a version.
//!
//! Owns the rows, who may not be lost because somebody refers to them, and the record of changes.
//! What a document means is its kind's own affair (`tools`, `mcp_servers`, `env_profiles`). No
//! document holds a secret: it names one by id, or by a name that a run fills in.

pub mod values;

use convene_db::{DbError, Row, Statement, params};
use convene_model::{Code, OrgId, Problem, Timestamp, UserId};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    identity::caller::Caller,
    state::{AppState, fresh_id},
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

/// HTTP tools of one workspace at a time.
pub const MAX_HTTP_TOOLS_PER_ORG: u64 = 200;
/// MCP servers of one workspace at a time.
pub const MAX_MCP_SERVERS_PER_ORG: u64 = 50;
/// Env profiles of one workspace at a time.
pub const MAX_ENV_PROFILES_PER_ORG: u64 = 100;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    HttpTool,
    McpServer,
    EnvProfile,
}

impl Kind {
    /// As it stands in the column `kind`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::HttpTool => "http_tool",
            Self::McpServer => "mcp_server",
            Self::EnvProfile => "env_profile",
        }
    }

    /// What people call it.
    const fn title(self) -> &'static str {
        match self {
            Self::HttpTool => "HTTP tool",
            Self::McpServer => "MCP server",
            Self::EnvProfile => "env profile",
        }
    }

    const fn limit(self) -> u64 {
        match self {
            Self::HttpTool => MAX_HTTP_TOOLS_PER_ORG,
            Self::McpServer => MAX_MCP_SERVERS_PER_ORG,
            Self::EnvProfile => MAX_ENV_PROFILES_PER_ORG,
        }
    }

    const fn made(self) -> Action {
        match self {
            Self::HttpTool => Action::HttpToolMade,
            Self::McpServer => Action::McpServerMade,
            Self::EnvProfile => Action::EnvProfileMade,
        }
    }

    const fn changed(self) -> Action {
        match self {
            Self::HttpTool => Action::HttpToolChanged,
            Self::McpServer => Action::McpServerChanged,
            Self::EnvProfile => Action::EnvProfileChanged,
        }
    }

    const fn deleted(self) -> Action {
        match self {
            Self::HttpTool => Action::HttpToolDeleted,
            Self::McpServer => Action::McpServerDeleted,
            Self::EnvProfile => Action::EnvProfileDeleted,
        }
    }
}

/// An object as it stands in its row.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) config: String,
    /// What a check of it last found; empty before the first one.
    pub(crate) seen: String,
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
}

impl Object {
    /// The document as its kind's own type.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, DbError> {
        serde_json::from_str(&self.config).map_err(|error| DbError::decode("config", error))
    }
}

/// Something that must hold in the commit of a change, or else the change is refused.
pub(crate) struct Guard {
    statement: Statement,
    otherwise: Problem,
}

impl Guard {
    /// `statement` has to meet a row; `otherwise` is what its absence means.
    pub(crate) fn new(statement: Statement, otherwise: Problem) -> Self {
        Self { statement: statement.expect_rows(), otherwise }
    }

    /// There is an object of this kind.
    pub(crate) fn object(org: &OrgId, kind: Kind, id: &str, field: &str) -> Self {
        const SQL: &str = "SELECT object_id FROM config_objects
            WHERE org_id = $1 AND kind = $2 AND object_id = $3";
        let sentence = format!("There is no such {}.", kind.title());
        let params = params![org.as_str(), kind.as_str(), id];
        Self::new(Statement::new(SQL, params), validate::invalid(field, sentence))
    }
}

/// Runs a change behind its guards: the statements of `batch` come after them. Changes of one
/// workspace's configuration wait for each other, so that nothing which one of them relies on goes
/// away meanwhile.
///
/// A statement of `batch` that meets no row is answered as `unmet`.
pub(crate) async fn commit(
    state: &AppState,
    org: &OrgId,
    guards: Vec<Guard>,
    batch: Vec<Statement>,
    unmet: impl FnOnce() -> Problem,
    taken: impl FnOnce() -> Problem,
) -> Answer<Vec<Vec<Row>>> {
    let (checks, mut refusals): (Vec<_>, Vec<_>) =
        guards.into_iter().map(|guard| (guard.statement, guard.otherwise)).unzip();
    let (first, mut all) = (1 + checks.len(), vec![orgs::reconfigured(org)]);
    all.extend(checks);
    all.extend(batch);
    match state.db.batch(all).await {
        Ok(mut answers) => Ok(answers.split_off(first)),
        Err(DbError::Unmet { index }) if index > 0 && index < first => {
            Err(refusals.swap_remove(index - 1).into())
        }
        Err(DbError::Unmet { .. }) => Err(unmet().into()),
        Err(DbError::Unique { .. }) => Err(taken().into()),
        Err(error @ (DbError::Unavailable(_) | DbError::Decode { .. } | DbError::Other(_))) => {
            Err(error.into())
        }
    }
}

/// The objects of a kind, by name.
pub(crate) async fn list(state: &AppState, org: &OrgId, kind: Kind) -> Answer<Vec<Object>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM config_objects WHERE org_id = $1 AND kind = $2
         ORDER BY name_key, object_id"
    );
    let params = params![org.as_str(), kind.as_str()];
    let found = state.db.query(Statement::new(sql, params)).await?;
    Ok(found.iter().map(object).collect::<Result<_, _>>()?)
}

/// One object of a kind.
pub(crate) async fn find(state: &AppState, org: &OrgId, kind: Kind, id: &str) -> Answer<Object> {
    let found = some(state, org, &[id]).await?;
    let found = found.into_iter().find(|object| object.kind == kind.as_str());
    found.ok_or_else(|| Code::NotFound.into())
}

/// The objects with these ids, whatever their kind; what does not exist is left out.
pub(crate) async fn some(state: &AppState, org: &OrgId, ids: &[&str]) -> Answer<Vec<Object>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = (0..ids.len()).map(|n| format!("${}", n + 2)).collect();
    let sql = format!(
        "SELECT {COLUMNS} FROM config_objects WHERE org_id = $1 AND object_id IN ({})",
        places.join(", ")
    );
    let mut params = params![org.as_str()];
    params.extend(ids.iter().map(|id| (*id).into()));
    let found = state.db.query(Statement::new(sql, params)).await?;
    Ok(found.iter().map(object).collect::<Result<_, _>>()?)
}

const COLUMNS: &str = "object_id, kind, name, config, seen, version, updated_at";

fn object(row: &Row) -> Result<Object, DbError> {
    Ok(Object {
        id: row.get("object_id")?,
        kind: row.get("kind")?,
        name: row.get("name")?,
        config: row.get("config")?,
        seen: row.get("seen")?,
        version: row.get("version")?,
        updated_at: rows::time(row, "updated_at")?,
    })
}

/// An object as somebody describes it, checked but for what only the database knows.
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) config: String,
    pub(crate) guards: Vec<Guard>,
}

impl Draft {
    pub(crate) fn new(
        name: String,
        config: &impl Serialize,
        guards: Vec<Guard>,
    ) -> Result<Self, Problem> {
        let config = serde_json::to_string(config).map_err(|_| Problem::new(Code::Internal))?;
        Ok(Self { name, config, guards })
    }
}

/// Makes an object.
pub(crate) async fn make(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    kind: Kind,
    draft: Draft,
) -> Answer<Object> {
    const SQL: &str = "INSERT INTO config_objects
        (object_id, org_id, kind, name, name_key, config, version, created_at, updated_at)
        SELECT $1, $2, $3, $4, $5, $6, 1, CAST($7 AS BIGINT), CAST($7 AS BIGINT)
        WHERE (SELECT count(*) FROM config_objects WHERE org_id = $2 AND kind = $3) < $8";
    let now = state.now();
    let (id, Draft { name, config, guards }) = (fresh_id(now), draft);
    let insert = params![
        &id,
        org.as_str(),
        kind.as_str(),
        &name,
        name.to_lowercase(),
        &config,
        now.millis(),
        kind.limit()
    ];
    let record = audit::record(org, caller.id(), kind.made(), &id, &json!({"name": &name}), now);
    let batch = vec![Statement::new(SQL, insert).expect_rows(), record];
    let full = || {
        let sentence = format!("There are {} of these already.", kind.limit());
        validate::invalid("name", sentence)
    };
    commit(state, org, guards, batch, full, || taken(kind)).await?;
    let kind = kind.as_str().to_owned();
    Ok(Object { id, kind, name, config, seen: String::new(), version: 1, updated_at: now })
}

/// Sets an object anew, if it still is of the version that the caller has seen. What a check had
/// found of it is forgotten.
pub(crate) async fn change(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    kind: Kind,
    id: &str,
    version: u64,
    draft: Draft,
) -> Answer<Object> {
    const SQL: &str = "UPDATE config_objects SET name = $3, name_key = $4, config = $5, seen = '',
        version = version + 1, updated_at = $6
        WHERE org_id = $1 AND object_id = $2 AND version = $7";
    find(state, org, kind, id).await?;
    let Draft { name, config, guards } = draft;
    let now = state.now();
    let update =
        params![org.as_str(), id, &name, name.to_lowercase(), &config, now.millis(), version];
    let record = audit::record(org, caller.id(), kind.changed(), id, &json!({"name": &name}), now);
    let batch = vec![Statement::new(SQL, update).expect_rows(), record];
    commit(state, org, guards, batch, stale, || taken(kind)).await?;
    let (id, kind) = (id.to_owned(), kind.as_str().to_owned());
    let version = version + 1;
    Ok(Object { id, kind, name, config, seen: String::new(), version, updated_at: now })
}

/// Deletes an object that no agent refers to.
pub(crate) async fn delete(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    kind: Kind,
    id: &str,
) -> Answer<()> {
    const SQL: &str = "DELETE FROM config_objects WHERE org_id = $1 AND object_id = $2
        AND NOT EXISTS (SELECT 1 FROM agents a
            WHERE a.org_id = $1 AND a.deleted_at IS NULL AND a.config LIKE $3)";
    let current = find(state, org, kind, id).await?;
    let users = agents_with(state, org, id).await?;
    if !users.is_empty() {
        return Err(in_use(&users));
    }
    let delete = params![org.as_str(), id, quoted(id)];
    let detail = json!({"name": current.name});
    let record = audit::record(org, caller.id(), kind.deleted(), id, &detail, state.now());
    let batch = vec![Statement::new(SQL, delete).expect_rows(), record];
    commit(state, org, Vec::new(), batch, stale, || taken(kind)).await?;
    Ok(())
}

/// Keeps what a check found, if the object still is what was checked.
pub(crate) async fn saw(
    state: &AppState,
    org: &OrgId,
    object: &Object,
    seen: &impl Serialize,
) -> Answer<()> {
    const SQL: &str = "UPDATE config_objects SET seen = $3
        WHERE org_id = $1 AND object_id = $2 AND version = $4";
    let seen = serde_json::to_string(seen).map_err(|_| Problem::new(Code::Internal))?;
    let params = params![org.as_str(), &object.id, seen, object.version];
    state.db.execute(Statement::new(SQL, params)).await?;
    Ok(())
}

/// The names of the agents whose configuration names this id.
async fn agents_with(state: &AppState, org: &OrgId, id: &str) -> Answer<Vec<String>> {
    const SQL: &str = "SELECT name FROM agents
        WHERE org_id = $1 AND deleted_at IS NULL AND config LIKE $2 ORDER BY name";
    let params = params![org.as_str(), quoted(id)];
    let found = state.db.query(Statement::new(SQL, params)).await?;
    Ok(found.iter().map(|row| row.get("name")).collect::<Result<_, _>>()?)
}

/// An id within a document. It is of letters and digits and like no other text, so it is found as
/// text.
fn quoted(id: &str) -> String {
    format!("%\"{id}\"%")
}

/// The refusal to delete what others refer to, with their names.
pub(crate) fn in_use(users: &[String]) -> Failure {
    let names = match users {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    let detail = format!("It is in use by {names}. Change that first.");
    Problem::new(Code::Conflict).detail(detail).with("users", users).into()
}

/// The refusal of a change to something that changed meanwhile.
pub(crate) fn stale() -> Problem {
    let detail = "Somebody changed it meanwhile. Load it again, then repeat your change.";
    Problem::new(Code::Conflict).detail(detail)
}

fn taken(kind: Kind) -> Problem {
    Problem::new(Code::AlreadyExists)
        .detail(format!("Another {} of the workspace has this name.", kind.title()))
        .with("field", "name")
}

/// The guard that somebody belongs to the workspace.
pub(crate) fn member(org: &OrgId, user: &UserId, field: &str) -> Guard {
    const SQL: &str = "SELECT user_id FROM org_members WHERE org_id = $1 AND user_id = $2";
    let sentence = "Somebody of these does not belong to the workspace.";
    let params = params![org.as_str(), user.as_str()];
    Guard::new(Statement::new(SQL, params), validate::invalid(field, sentence))
}

/// The guard that a secret of the workspace exists.
pub(crate) fn secret(org: &OrgId, secret: &str, field: &str) -> Guard {
    const SQL: &str = "SELECT secret_id FROM secrets
        WHERE org_id = $1 AND secret_id = $2 AND scope = 'workspace'";
    let sentence = "There is no such secret of the workspace.";
    let params = params![org.as_str(), secret];
    Guard::new(Statement::new(SQL, params), validate::invalid(field, sentence))
}
