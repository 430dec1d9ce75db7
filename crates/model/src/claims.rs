//! What each type of token says, beside the claims that all of them have.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    AgentId, GroupId, OrgId, Role, RunId, Timestamp, UserId,
    limits::{ROUTING_TOKEN_TTL, SERVICE_TOKEN_TTL},
};

/// Who a token is for, and the issuer names of our own services.
pub mod service {
    /// The App.
    pub const APP: &str = "app";
    /// The Orchestrator.
    pub const ORCHESTRATOR: &str = "orchestrator";
    /// The hosts of Group Controllers.
    pub const CONTROLLERS: &str = "controllers";
    /// The Agents Worker.
    pub const AGENTS: &str = "agents";
    /// No service: the operator at the machine, whose calls are those of an app.
    pub const OPERATOR: &str = "operator";
}

/// A type of token.
pub trait TokenType: Serialize + DeserializeOwned {
    /// The header's `typ` (RFC 8725 explicit typing).
    const TYP: &'static str;
    /// The longest lifetime that a verifier accepts, in seconds.
    const MAX_LIFETIME_SECS: u64;
}

/// A type of token that names the one request it was made for.
pub trait RequestBound {
    /// Method, path without query, and the body's hash where the type has one.
    fn binding(&self) -> (&str, &str, Option<&str>);
}

/// The claims that every token has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Who signed it.
    pub iss: String,
    /// Who it is for: one of [`service`].
    pub aud: String,
    /// When it was issued, epoch seconds.
    pub iat: u64,
    /// From when it holds, epoch seconds.
    pub nbf: u64,
    /// Until when it holds, epoch seconds.
    pub exp: u64,
    /// Its own id.
    pub jti: String,
}

/// App → Orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppClaims {
    /// Which part of the app calls, for the log.
    pub sub: String,
    /// The request's method.
    pub htm: String,
    /// The request's path, without its query.
    pub htu: String,
    /// The request's body, see [`crate::token::body_hash`].
    pub bh: String,
    /// The organization on whose behalf the app calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
}

impl TokenType for AppClaims {
    const TYP: &'static str = "app+jwt";
    const MAX_LIFETIME_SECS: u64 = SERVICE_TOKEN_TTL.as_secs();
}

impl RequestBound for AppClaims {
    fn binding(&self) -> (&str, &str, Option<&str>) {
        (&self.htm, &self.htu, Some(&self.bh))
    }
}

/// A user's right to a group, issued by the Orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingClaims {
    /// Who.
    pub user_id: UserId,
    /// In which organization.
    pub org_id: OrgId,
    /// To which group.
    pub group_id: GroupId,
    /// As what.
    pub role: Role,
    /// Under which epoch.
    pub epoch: u64,
}

impl TokenType for RoutingClaims {
    const TYP: &'static str = "routing+jwt";
    const MAX_LIFETIME_SECS: u64 = ROUTING_TOKEN_TTL.as_secs();
}

/// Orchestrator → Group Controller: the service token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratorClaims {
    /// Which group.
    pub group_id: GroupId,
    /// Under which epoch.
    pub epoch: u64,
    /// The request's method.
    pub htm: String,
    /// The request's path, without its query.
    pub htu: String,
}

impl TokenType for OrchestratorClaims {
    const TYP: &'static str = "orchestrator+jwt";
    const MAX_LIFETIME_SECS: u64 = SERVICE_TOKEN_TTL.as_secs();
}

impl RequestBound for OrchestratorClaims {
    fn binding(&self) -> (&str, &str, Option<&str>) {
        (&self.htm, &self.htu, None)
    }
}

/// The scope of an agent-access token for a run.
pub const SCOPE_INVOKE: &str = "agent:invoke";
/// The scope of an agent-access token for a summary of a group's earlier messages.
pub const SCOPE_SUMMARIZE: &str = "agent:summarize";

/// Group Controller → Agents Worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAccessClaims {
    /// Which group.
    pub group_id: GroupId,
    /// Of which organization.
    pub org_id: OrgId,
    /// Which agent.
    pub agent_id: AgentId,
    /// Which run.
    pub run_id: RunId,
    /// Which attempt of it.
    pub attempt: u32,
    /// [`SCOPE_INVOKE`] or [`SCOPE_SUMMARIZE`].
    pub scope: String,
    /// The request's body.
    pub bh: String,
    /// Who began the chain of messages that led to the run: whose personal secrets it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<UserId>,
    /// Until when the token is honoured as `act` of a `worker+jwt`, epoch seconds.
    pub run_exp: u64,
}

impl TokenType for AgentAccessClaims {
    const TYP: &'static str = "agent-access+jwt";
    const MAX_LIFETIME_SECS: u64 = SERVICE_TOKEN_TTL.as_secs();
}

/// Agents Worker → App and Orchestrator, on behalf of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerClaims {
    /// The request's method.
    pub htm: String,
    /// The request's path, without its query.
    pub htu: String,
    /// The request's body.
    pub bh: String,
    /// The run's agent-access token.
    pub act: String,
}

impl TokenType for WorkerClaims {
    const TYP: &'static str = "worker+jwt";
    const MAX_LIFETIME_SECS: u64 = SERVICE_TOKEN_TTL.as_secs();
}

impl RequestBound for WorkerClaims {
    fn binding(&self) -> (&str, &str, Option<&str>) {
        (&self.htm, &self.htu, Some(&self.bh))
    }
}

/// Group Controller → Orchestrator callbacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerClaims {
    /// Which group.
    pub group_id: GroupId,
    /// Under which epoch.
    pub epoch: u64,
    /// The request's method.
    pub htm: String,
    /// The request's path, without its query.
    pub htu: String,
    /// The request's body.
    pub bh: String,
}

impl TokenType for ControllerClaims {
    const TYP: &'static str = "controller+jwt";
    const MAX_LIFETIME_SECS: u64 = SERVICE_TOKEN_TTL.as_secs();
}

impl RequestBound for ControllerClaims {
    fn binding(&self) -> (&str, &str, Option<&str>) {
        (&self.htm, &self.htu, Some(&self.bh))
    }
}

/// A routing token that was verified: what the controller's `step` is told of an attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// What the token says.
    pub claims: RoutingClaims,
    /// When it was issued, at second precision.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}
