//! The App's calls to the Orchestrator, each with a fresh token that is bound to the request.
//!
//! Owns the way from a typed call to a request and back. Keeps nothing between calls and never
//! decides who may do what; routing tokens are cached by their users (see `rooms`).

mod lives;

use std::time::Duration;

use bytes::Bytes;
use convene_hop::{ConnectError, GroupLink, Hop, Signer};
use convene_model::{
    Code, GroupId, MessageId, OrgId, Problem, UserId,
    claims::{AppClaims, service},
    event::GroupConfig,
    history::{HistoryQuery, SearchRequest},
    infra::{ActivateRequest, Activation, RevokeRequest, RoutingToken, RoutingTokenRequest},
    limits::MAX_BODY_BYTES,
    token::body_hash,
    usage::{OrgUsage, OrgUsageQuery},
};
use http::{HeaderName, Method, Request, header};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

pub use lives::Begun;

/// Bytes of a page of history at most: a full page of the longest texts, escaped.
pub const MAX_HISTORY_BYTES: usize = 64 * 1024 * 1024;
/// How often a call is tried when the Orchestrator or the group cannot be reached.
pub const ATTEMPTS: u32 = 3;
/// The pause before the second attempt; it doubles with each further one.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ROUTING_TOKEN: HeaderName = HeaderName::from_static("x-routing-token");

/// The next hop, and how the App proves itself to it.
#[derive(Debug, Clone)]
pub struct OrchestratorClient {
    hop: Hop,
    signer: Signer,
}

/// One call, whatever the attempt.
struct Call<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    org: &'a OrgId,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    limit: usize,
}

impl OrchestratorClient {
    /// A client of `hop` that signs as `signer`'s issuer.
    #[must_use]
    pub fn new(hop: Hop, signer: Signer) -> Self {
        Self { hop, signer }
    }

    /// Brings a group to life, or finds it alive: `POST /infra/groups`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`Code::ActiveGroupLimitExceeded`] among them.
    pub async fn activate(&self, request: &ActivateRequest) -> Result<Activation, Problem> {
        self.mutate(Method::POST, "/infra/groups", &request.org_id, request).await
    }

    /// Tells the group's controller what it needs to know: `PUT /infra/groups/{id}/config`. An
    /// equal or older version changes nothing.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn configure(
        &self,
        group: &GroupId,
        org: &OrgId,
        config: &GroupConfig,
    ) -> Result<(), Problem> {
        let path = format!("/infra/groups/{group}/config");
        self.mutate_raw(Method::PUT, &path, org, encode(config)?).await?;
        Ok(())
    }

    /// A user's right to a group: `POST /infra/routing-token`.
    ///
    /// # Errors
    /// The Orchestrator's problem; [`Code::GroupNotFound`] for a group that was never activated.
    pub async fn routing_token(
        &self,
        org: &OrgId,
        request: &RoutingTokenRequest,
    ) -> Result<RoutingToken, Problem> {
        self.mutate(Method::POST, "/infra/routing-token", org, request).await
    }

    /// Voids a user's routing tokens: `POST /infra/groups/{id}/revoke`.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn revoke(&self, group: &GroupId, org: &OrgId, user: &UserId) -> Result<(), Problem> {
        let path = format!("/infra/groups/{group}/revoke");
        let body = encode(&RevokeRequest { user_id: user.clone() })?;
        self.mutate_raw(Method::POST, &path, org, body).await?;
        Ok(())
    }

    /// A page of history as the bytes of its JSON: `GET /groups/{id}/history`.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn history(
        &self,
        group: &GroupId,
        org: &OrgId,
        routing_token: &str,
        query: &HistoryQuery,
    ) -> Result<Bytes, Problem> {
        self.call(Call {
            method: Method::GET,
            path: &format!("/groups/{group}/history"),
            query: &history_query(query),
            org,
            headers: vec![(ROUTING_TOKEN, routing_token.to_owned())],
            body: Bytes::new(),
            limit: MAX_HISTORY_BYTES,
        })
        .await
    }

    /// One message and its former versions as the bytes of their JSON:
    /// `GET /groups/{id}/messages/{message_id}`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`Code::MessageNotFound`] among them.
    pub async fn message(
        &self,
        group: &GroupId,
        org: &OrgId,
        routing_token: &str,
        message: &MessageId,
    ) -> Result<Bytes, Problem> {
        self.call(Call {
            method: Method::GET,
            path: &format!("/groups/{group}/messages/{message}"),
            query: "",
            org,
            headers: vec![(ROUTING_TOKEN, routing_token.to_owned())],
            body: Bytes::new(),
            limit: MAX_HISTORY_BYTES,
        })
        .await
    }

    /// Why agents answered a message, as the bytes of its JSON:
    /// `GET /groups/{id}/messages/{message_id}/why`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`Code::MessageNotFound`] among them.
    pub async fn why(
        &self,
        group: &GroupId,
        org: &OrgId,
        routing_token: &str,
        message: &MessageId,
    ) -> Result<Bytes, Problem> {
        self.call(Call {
            method: Method::GET,
            path: &format!("/groups/{group}/messages/{message}/why"),
            query: "",
            org,
            headers: vec![(ROUTING_TOKEN, routing_token.to_owned())],
            body: Bytes::new(),
            limit: MAX_HISTORY_BYTES,
        })
        .await
    }

    /// A page of what a search finds as the bytes of its JSON: `POST /groups/{id}/search`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`Code::ValidationFailed`] for a query that is none among them.
    pub async fn search(
        &self,
        group: &GroupId,
        org: &OrgId,
        routing_token: &str,
        request: &SearchRequest,
    ) -> Result<Bytes, Problem> {
        self.call(Call {
            method: Method::POST,
            path: &format!("/groups/{group}/search"),
            query: "",
            org,
            headers: vec![
                (ROUTING_TOKEN, routing_token.to_owned()),
                (header::CONTENT_TYPE, "application/json".to_owned()),
            ],
            body: encode(request)?,
            limit: MAX_HISTORY_BYTES,
        })
        .await
    }

    /// What an organization has used in a month: `GET /infra/orgs/{id}/usage`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`Code::ValidationFailed`] for a page that is none among them.
    pub async fn org_usage(&self, org: &OrgId, query: &OrgUsageQuery) -> Result<OrgUsage, Problem> {
        let path = format!("/infra/orgs/{org}/usage");
        let OrgUsageQuery { month, limit, offset } = query;
        let members = [
            month.map(|month| format!("month={month}")),
            limit.map(|limit| format!("limit={limit}")),
            offset.map(|offset| format!("offset={offset}")),
        ];
        let members: Vec<_> = members.into_iter().flatten().collect();
        let query =
            if members.is_empty() { String::new() } else { format!("?{}", members.join("&")) };
        let answer = self
            .call(Call {
                method: Method::GET,
                path: &path,
                query: &query,
                org,
                headers: Vec::new(),
                body: Bytes::new(),
                limit: MAX_BODY_BYTES,
            })
            .await?;
        serde_json::from_slice(&answer)
            .map_err(|error| internal(&format!("{path} answered with something else: {error}")))
    }

    /// Opens the upstream of a group: `GET /groups/{id}/ws`.
    ///
    /// # Errors
    /// The Orchestrator's problem, or [`Code::Unavailable`] when it did not answer.
    pub async fn connect(
        &self,
        group: &GroupId,
        org: &OrgId,
        routing_token: &str,
    ) -> Result<GroupLink, Problem> {
        let path = format!("/groups/{group}/ws");
        let request = self.request(&Call {
            method: Method::GET,
            path: &path,
            query: "",
            org,
            headers: vec![(ROUTING_TOKEN, routing_token.to_owned())],
            body: Bytes::new(),
            limit: 0,
        })?;
        self.hop.connect(request).await.map_err(|error| match error {
            ConnectError::Refused(problem) => problem,
            ConnectError::Unavailable(error) => {
                Problem::new(Code::Unavailable).detail(error.to_string())
            }
        })
    }

    async fn mutate<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        org: &OrgId,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        let answer = self.mutate_raw(method, path, org, encode(body)?).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| internal(&format!("{path} answered with something else: {error}")))
    }

    async fn mutate_raw(
        &self,
        method: Method,
        path: &str,
        org: &OrgId,
        body: Bytes,
    ) -> Result<Bytes, Problem> {
        // One key for all attempts, so that a repeat after a lost answer does nothing twice.
        let key = Uuid::new_v4().simple().to_string();
        let headers =
            vec![(IDEMPOTENCY_KEY, key), (header::CONTENT_TYPE, "application/json".to_owned())];
        self.call(Call { method, path, query: "", org, headers, body, limit: MAX_BODY_BYTES }).await
    }

    async fn call(&self, call: Call<'_>) -> Result<Bytes, Problem> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.hop.call(self.request(&call)?, call.limit).await {
                Err(problem) if is_passing(problem.code) => {
                    tracing::debug!(path = call.path, code = problem.code.as_str(), "trying again");
                }
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.hop.call(self.request(&call)?, call.limit).await
    }

    /// One attempt, with a token of its own.
    fn request(&self, call: &Call<'_>) -> Result<Request<Bytes>, Problem> {
        let claims = AppClaims {
            sub: "web".to_owned(),
            htm: call.method.as_str().to_owned(),
            htu: call.path.to_owned(),
            bh: body_hash(&call.body),
            org_id: Some(call.org.clone()),
        };
        let token = self.signer.mint(service::ORCHESTRATOR, claims);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", call.path, call.query))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        request.body(call.body.clone()).map_err(|error| internal(&error.to_string()))
    }
}

/// Whether a problem may be over soon, and the call did nothing or may be repeated.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::GroupControllerUnavailable)
}

fn encode(body: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| internal(&error.to_string()))
}

fn internal(why: &str) -> Problem {
    tracing::error!(why, "a call to the orchestrator failed");
    Problem::new(Code::Internal)
}

fn history_query(query: &HistoryQuery) -> String {
    let mut out = String::new();
    let limit = query.limit.map(|limit| limit as u64);
    let HistoryQuery { before, after, around, .. } = *query;
    for (name, value) in
        [("before", before), ("after", after), ("around", around), ("limit", limit)]
    {
        if let Some(value) = value {
            let separator = if out.is_empty() { '?' } else { '&' };
            out.push_str(&format!("{separator}{name}={value}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_query_names_what_is_asked_for() {
        assert_eq!(history_query(&HistoryQuery::default()), "");
        let query = HistoryQuery {
            before: Some(7),
            after: None,
            limit: Some(20),
            ..HistoryQuery::default()
        };
        assert_eq!(history_query(&query), "?before=7&limit=20");
        let query = HistoryQuery { around: Some(9), ..HistoryQuery::default() };
        assert_eq!(history_query(&query), "?around=9");
    }
}
