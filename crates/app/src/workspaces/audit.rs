//! What was changed in a workspace, by whom and when; written in the commit of the change itself.

use convene_db::{Statement, params};
use convene_model::{OrgId, Timestamp, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{
    state::{AppState, fresh_id},
    web::{failure::Answer, rows},
};

/// Entries in one page of the audit.
pub(crate) const AUDIT_PAGE: usize = 200;

/// Each action by its name in the audit, and as a page tells it: between who did it and what it was done to.
macro_rules! actions {
    ($($action:ident = $name:literal, $words:literal;)*) => {
        /// What is recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Action {
            $($action,)*
        }

        impl Action {
            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)*
                }
            }

            /// What was done, in words.
            pub(super) const fn words(self) -> &'static str {
                match self {
                    $(Self::$action => $words,)*
                }
            }

            /// The action of this name.
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$action),)*
                    _ => None,
                }
            }
        }
    };
}

actions! {
    InviteMade = "invite.made", "made a link to join";
    InviteAccepted = "invite.accepted", "joined";
    InviteRevoked = "invite.revoked", "took a link to join back";
    OrgRenamed = "org.renamed", "renamed the workspace";
    RoleChanged = "member.role_changed", "changed the role of";
    MemberRemoved = "member.removed", "removed";
    MemberRenamed = "member.renamed", "changed their own name";
    ProviderSecretSet = "provider.secret_set", "set the key of the provider";
    ProviderSecretRemoved = "provider.secret_removed", "removed the key of the provider";
    PasswordReset = "member.password_reset", "reset the password of";
    PasswordChanged = "member.password_changed", "changed their own password";
    RevisionsSet = "group.revisions_set", "set what becomes of former texts in the group";
    GroupArchived = "group.archived", "archived the group";
    GroupRestored = "group.restored", "restored the group";
    GroupDeleted = "group.deleted", "deleted the group";
    SecretMade = "secret.made", "made the secret";
    SecretSet = "secret.set", "set a new value of the secret";
    SecretChanged = "secret.changed", "changed the secret";
    SecretDeleted = "secret.deleted", "deleted the secret";
    SecretRevealed = "secret.revealed", "looked at the value of the secret";
    SecretsRotated = "secrets.rotated", "sealed all secrets anew";
    ProviderMade = "provider.made", "added the provider";
    ProviderChanged = "provider.changed", "changed the provider";
    ProviderDeleted = "provider.deleted", "deleted the provider";
    AgentMade = "agent.made", "made the agent";
    AgentTokenMade = "agent.token_made", "made a token for the agent";
    AgentTokenRevoked = "agent.token_revoked", "deleted a token of the agent";
    AgentChanged = "agent.changed", "changed the agent";
    AgentDeleted = "agent.deleted", "deleted the agent";
    HttpToolMade = "http_tool.made", "added the HTTP tool";
    HttpToolChanged = "http_tool.changed", "changed the HTTP tool";
    HttpToolDeleted = "http_tool.deleted", "deleted the HTTP tool";
    McpServerMade = "mcp_server.made", "added the MCP server";
    McpServerChanged = "mcp_server.changed", "changed the MCP server";
    McpServerDeleted = "mcp_server.deleted", "deleted the MCP server";
    EnvProfileMade = "env_profile.made", "made the env profile";
    EnvProfileChanged = "env_profile.changed", "changed the env profile";
    EnvProfileDeleted = "env_profile.deleted", "deleted the env profile";
    ToolHostsSet = "org.tool_hosts_set", "set which hosts tools may reach";
}

/// The statement that records an action; it belongs into the batch of the change.
pub(crate) fn record(
    org: &OrgId,
    actor: &UserId,
    action: Action,
    subject: &str,
    detail: &Value,
    now: Timestamp,
) -> Statement {
    const SQL: &str = "INSERT INTO audit (audit_id, org_id, at, actor_id, action, subject, detail)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    Statement::new(
        SQL,
        params![
            fresh_id(now),
            org.as_str(),
            now.millis(),
            actor.as_str(),
            action.as_str(),
            subject,
            detail.to_string()
        ],
    )
}

/// One entry.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(super) audit_id: String,
    pub(super) at: Timestamp,
    pub(super) actor_id: UserId,
    pub(super) action: String,
    /// The id of what was changed.
    pub(super) subject: String,
    #[schemars(with = "serde_json::Value")]
    pub(super) detail: Box<RawValue>,
}

/// An entry with the names that people know.
pub(super) struct Told {
    pub(super) entry: Entry,
    /// Who did it, if that is somebody with an account.
    pub(super) actor: Option<String>,
    /// What it was done to, if that is a person or an agent.
    pub(super) subject: Option<String>,
}

/// The newest entries, or the newest before `before` (an `audit_id`); at most so many.
pub(super) async fn list(
    state: &AppState,
    org: &OrgId,
    before: Option<&str>,
    most: usize,
) -> Answer<Vec<Told>> {
    const SQL: &str = "SELECT e.audit_id, e.at, e.actor_id, e.action, e.subject, e.detail,
            u.name AS actor_name, COALESCE(s.name, a.name) AS subject_name
        FROM audit e
        LEFT JOIN users u ON u.user_id = e.actor_id
        LEFT JOIN users s ON s.user_id = e.subject
        LEFT JOIN agents a ON a.agent_id = e.subject
        WHERE e.org_id = $1 AND ($2 = '' OR e.audit_id < $2) ORDER BY e.audit_id DESC LIMIT $3";
    let params = params![org.as_str(), before.unwrap_or_default(), most as u64];
    let mut told = Vec::new();
    for row in state.db.query(Statement::new(SQL, params)).await? {
        let entry = Entry {
            audit_id: row.get("audit_id")?,
            at: rows::time(&row, "at")?,
            actor_id: rows::id(&row, "actor_id")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: RawValue::from_string(row.get("detail")?)
                .map_err(|error| convene_db::DbError::decode("detail", error))?,
        };
        let (actor, subject) = (row.get("actor_name")?, row.get("subject_name")?);
        told.push(Told { entry, actor, subject });
    }
    Ok(told)
}
