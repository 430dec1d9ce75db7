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

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    InviteMade,
    InviteAccepted,
    InviteRevoked,
    OrgRenamed,
    RoleChanged,
    MemberRemoved,
    MemberRenamed,
    ProviderSecretSet,
    ProviderSecretRemoved,
    PasswordReset,
    PasswordChanged,
    RevisionsSet,
    GroupArchived,
    GroupRestored,
    GroupDeleted,
    SecretMade,
    SecretSet,
    SecretChanged,
    SecretDeleted,
    SecretRevealed,
    SecretsRotated,
    ProviderMade,
    ProviderChanged,
    ProviderDeleted,
    AgentMade,
    AgentTokenMade,
    AgentTokenRevoked,
    AgentChanged,
    AgentDeleted,
    HttpToolMade,
    HttpToolChanged,
    HttpToolDeleted,
    McpServerMade,
    McpServerChanged,
    McpServerDeleted,
    EnvProfileMade,
    EnvProfileChanged,
    EnvProfileDeleted,
    ToolHostsSet,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InviteMade => "invite.made",
            Self::InviteAccepted => "invite.accepted",
            Self::InviteRevoked => "invite.revoked",
            Self::OrgRenamed => "org.renamed",
            Self::RoleChanged => "member.role_changed",
            Self::MemberRemoved => "member.removed",
            Self::MemberRenamed => "member.renamed",
            Self::ProviderSecretSet => "provider.secret_set",
            Self::ProviderSecretRemoved => "provider.secret_removed",
            Self::PasswordReset => "member.password_reset",
            Self::PasswordChanged => "member.password_changed",
            Self::RevisionsSet => "group.revisions_set",
            Self::GroupArchived => "group.archived",
            Self::GroupRestored => "group.restored",
            Self::GroupDeleted => "group.deleted",
            Self::SecretMade => "secret.made",
            Self::SecretSet => "secret.set",
            Self::SecretChanged => "secret.changed",
            Self::SecretDeleted => "secret.deleted",
            Self::SecretRevealed => "secret.revealed",
            Self::SecretsRotated => "secrets.rotated",
            Self::ProviderMade => "provider.made",
            Self::ProviderChanged => "provider.changed",
            Self::ProviderDeleted => "provider.deleted",
            Self::AgentTokenMade => "agent.token_made",
            Self::AgentTokenRevoked => "agent.token_revoked",
            Self::AgentMade => "agent.made",
            Self::AgentChanged => "agent.changed",
            Self::AgentDeleted => "agent.deleted",
            Self::HttpToolMade => "http_tool.made",
            Self::HttpToolChanged => "http_tool.changed",
            Self::HttpToolDeleted => "http_tool.deleted",
            Self::McpServerMade => "mcp_server.made",
            Self::McpServerChanged => "mcp_server.changed",
            Self::McpServerDeleted => "mcp_server.deleted",
            Self::EnvProfileMade => "env_profile.made",
            Self::EnvProfileChanged => "env_profile.changed",
            Self::EnvProfileDeleted => "env_profile.deleted",
            Self::ToolHostsSet => "org.tool_hosts_set",
        }
    }
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
    audit_id: String,
    at: Timestamp,
    actor_id: UserId,
    action: String,
    /// The id of what was changed.
    subject: String,
    #[schemars(with = "serde_json::Value")]
    detail: Box<RawValue>,
}

/// The newest entries, or the newest before `before` (an `audit_id`).
pub(crate) async fn list(
    state: &AppState,
    org: &OrgId,
    before: Option<&str>,
) -> Answer<Vec<Entry>> {
    const SQL: &str = "SELECT audit_id, at, actor_id, action, subject, detail FROM audit
        WHERE org_id = $1 AND ($2 = '' OR audit_id < $2) ORDER BY audit_id DESC LIMIT $3";
    let params = params![org.as_str(), before.unwrap_or_default(), AUDIT_PAGE as u64];
    let mut entries = Vec::new();
    for row in state.db.query(Statement::new(SQL, params)).await? {
        entries.push(Entry {
            audit_id: row.get("audit_id")?,
            at: rows::time(&row, "at")?,
            actor_id: rows::id(&row, "actor_id")?,
            action: row.get("action")?,
            subject: row.get("subject")?,
            detail: RawValue::from_string(row.get("detail")?)
                .map_err(|error| convene_db::DbError::decode("detail", error))?,
        });
    }
    Ok(entries)
}
