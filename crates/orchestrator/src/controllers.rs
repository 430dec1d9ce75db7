//! The third hop as the Orchestrator calls it.
//!
//! Every request carries a service token made for it alone, bound to its method and path. Never
//! interprets what a group's history or upstream carries.

pub(crate) mod lifecycle;

use std::{fmt::Display, time::Duration};

use axum::response::Response;
use bytes::Bytes;
use convene_hop::{ConnectError, GroupLink, Hop, Signer, read_body};
use convene_model::{
    Code, GroupId, MessageId, Problem, UserId,
    claims::{OrchestratorClaims, service},
    infra::{InitRequest, Initialized, RevokeRequest, RoutingRecord},
    limits::MAX_BODY_BYTES,
};
use http::{HeaderValue, Method, Request, header};
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    auth::{ROUTING_TOKEN_HEADER, RUN_TOKEN_HEADER},
    directory::OwnedRecord,
};

/// How long the controllers may take to begin their answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The client of the controllers.
pub(crate) struct Controllers {
    hop: Hop,
    signer: Signer,
}

/// A request of one user that is passed on with the user's routing token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserRequest<'a> {
    pub(crate) record: &'a RoutingRecord,
    pub(crate) query: Option<&'a str>,
    pub(crate) routing_token: &'a HeaderValue,
}

impl Controllers {
    pub(crate) fn new(hop: Hop, signer: Signer) -> Self {
        Self { hop, signer }
    }

    /// Brings the group's controller to life.
    ///
    /// # Errors
    /// [`Code::GroupControllerUnavailable`], whatever went wrong; the cause is in the log.
    pub(crate) async fn init(&self, found: &OwnedRecord) -> Result<(), Problem> {
        let record = &found.record;
        let refused = |why: &dyn Display| unavailable(&record.group_id, why);
        let initialized = self.initialize(found).await.map_err(|problem| {
            refused(&format_args!("init was refused: {}", problem.code.as_str()))
        })?;
        if initialized.epoch == record.epoch {
            Ok(())
        } else {
            Err(refused(&format_args!(
                "it works under epoch {}, the directory under {}",
                initialized.epoch, record.epoch
            )))
        }
    }

    /// Brings the group's controller to life, and says how it stands.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn initialize(&self, found: &OwnedRecord) -> Result<Initialized, Problem> {
        let record = &found.record;
        let body = InitRequest {
            org_id: record.org_id.clone(),
            history_mode: record.history_mode,
            epoch: record.epoch,
            limits: found.limits,
        };
        let request = self.request(record, Method::POST, "init", None, to_json(&body)?);
        let answer = self.call(record, request).await?;
        serde_json::from_slice(&answer).map_err(|error| unavailable(&record.group_id, &error))
    }

    /// Passes on what the controller needs to know of the group.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn configure(
        &self,
        record: &RoutingRecord,
        config: Bytes,
    ) -> Result<(), Problem> {
        let request = self.request(record, Method::PUT, "config", None, config);
        self.call(record, request).await.map(|_| ())
    }

    /// Tells the controller that a user's access ended.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn revoke(
        &self,
        record: &RoutingRecord,
        user_id: &UserId,
    ) -> Result<(), Problem> {
        let body = to_json(&RevokeRequest { user_id: user_id.clone() })?;
        let request = self.request(record, Method::POST, "revoke", None, body);
        self.call(record, request).await.map(|_| ())
    }

    /// Asks for a page of history; the body of the answer is passed on as it comes.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn history(&self, user: UserRequest<'_>) -> Result<Response, Problem> {
        self.pass(user.record, self.user_request(user, Method::GET, "history", Bytes::new())).await
    }

    /// Asks for one message; the body of the answer is passed on as it comes.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn message(
        &self,
        user: UserRequest<'_>,
        message_id: &MessageId,
    ) -> Result<Response, Problem> {
        let what = format!("messages/{message_id}");
        self.pass(user.record, self.user_request(user, Method::GET, &what, Bytes::new())).await
    }

    /// Asks why agents answered a message; the body of the answer is passed on as it comes.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn why(
        &self,
        user: UserRequest<'_>,
        message_id: &MessageId,
    ) -> Result<Response, Problem> {
        let what = format!("messages/{message_id}/why");
        self.pass(user.record, self.user_request(user, Method::GET, &what, Bytes::new())).await
    }

    /// Asks for what a search finds; both bodies are passed on as they come.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn search(
        &self,
        user: UserRequest<'_>,
        body: Bytes,
    ) -> Result<Response, Problem> {
        self.pass(user.record, self.user_request(user, Method::POST, "search", body)).await
    }

    /// Like [`Controllers::search`], for the run of an agent-access token.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn search_for_run(
        &self,
        record: &RoutingRecord,
        run_token: &str,
        body: Bytes,
    ) -> Result<Response, Problem> {
        let mut request = self.request(record, Method::POST, "search", None, body);
        // It was verified, so it is letters, digits and dots.
        let token = HeaderValue::try_from(run_token).map_err(|_| Code::Unauthorized)?;
        request.headers_mut().insert(RUN_TOKEN_HEADER, token);
        self.pass(record, request).await
    }

    async fn pass(
        &self,
        record: &RoutingRecord,
        request: Request<Bytes>,
    ) -> Result<Response, Problem> {
        let response = self.send(record, request).await?;
        if !response.status().is_success() {
            return Err(problem_in(&record.group_id, response).await);
        }
        let (mut parts, body) = response.into_parts();
        let content_type = parts.headers.remove(header::CONTENT_TYPE);
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        if let Some(content_type) = content_type {
            answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        Ok(answer)
    }

    /// Opens an upstream.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn connect(&self, user: UserRequest<'_>) -> Result<GroupLink, Problem> {
        let group_id = &user.record.group_id;
        let request = self.user_request(user, Method::GET, "ws", Bytes::new());
        match timeout(ANSWER_TIMEOUT, self.hop.connect(request)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(ConnectError::Refused(problem))) => Err(passed_on(group_id, problem)),
            Ok(Err(ConnectError::Unavailable(error))) => Err(unavailable(group_id, &error)),
            Err(_) => Err(unavailable(group_id, &"no answer in time")),
        }
    }

    async fn call(
        &self,
        record: &RoutingRecord,
        request: Request<Bytes>,
    ) -> Result<Bytes, Problem> {
        let response = self.send(record, request).await?;
        if !response.status().is_success() {
            return Err(problem_in(&record.group_id, response).await);
        }
        read_body(response.into_body(), MAX_BODY_BYTES)
            .await
            .map_err(|problem| unavailable(&record.group_id, &problem.code.as_str()))
    }

    async fn send(
        &self,
        record: &RoutingRecord,
        request: Request<Bytes>,
    ) -> Result<Response, Problem> {
        match timeout(ANSWER_TIMEOUT, self.hop.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unavailable(&record.group_id, &error)),
            Err(_) => Err(unavailable(&record.group_id, &"no answer in time")),
        }
    }

    fn user_request(
        &self,
        user: UserRequest<'_>,
        method: Method,
        what: &str,
        body: Bytes,
    ) -> Request<Bytes> {
        let mut request = self.request(user.record, method, what, user.query, body);
        request.headers_mut().insert(ROUTING_TOKEN_HEADER, user.routing_token.clone());
        request
    }

    /// A request about a group as its record stands.
    fn request(
        &self,
        record: &RoutingRecord,
        method: Method,
        what: &str,
        query: Option<&str>,
        body: Bytes,
    ) -> Request<Bytes> {
        let path = format!("/groups/{}/{what}", record.group_id);
        self.bound(&record.group_id, record.epoch, method, path, query, body)
    }

    /// A request with a fresh service token for a group and an epoch.
    fn bound(
        &self,
        group_id: &GroupId,
        epoch: u64,
        method: Method,
        path: String,
        query: Option<&str>,
        body: Bytes,
    ) -> Request<Bytes> {
        let token = self.signer.mint(
            service::CONTROLLERS,
            OrchestratorClaims {
                group_id: group_id.clone(),
                epoch,
                htm: method.as_str().to_owned(),
                htu: path.clone(),
            },
        );
        let uri = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(body)
            .expect("an id, a query that was part of a URI and a token make a request")
    }
}

/// The problem in an answer that is no success.
async fn problem_in(group_id: &GroupId, response: Response) -> Problem {
    let status = response.status();
    let body = read_body(response.into_body(), MAX_BODY_BYTES).await.unwrap_or_default();
    match serde_json::from_slice(&body) {
        Ok(problem) => passed_on(group_id, problem),
        Err(_) => unavailable(group_id, &format_args!("it answered {status} without a problem")),
    }
}

/// A problem of the controllers as the app sees it: the same, unless it is about our own token.
///
/// An app that is told 401 would doubt its own. Only `token_expired` passes: the service token is
/// fresh, so it speaks of the user's routing token, which ran out on the way.
fn passed_on(group_id: &GroupId, problem: Problem) -> Problem {
    if problem.status == 401 && problem.code != Code::TokenExpired {
        return unavailable(group_id, &format_args!("our token was refused: {:?}", problem.detail));
    }
    problem
}

fn unavailable(group_id: &GroupId, cause: &dyn Display) -> Problem {
    tracing::warn!(%group_id, %cause, "a group's controller cannot be used");
    Code::GroupControllerUnavailable.into()
}

fn to_json<T: Serialize>(body: &T) -> Result<Bytes, Problem> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "a body of ours cannot be encoded");
        Code::Internal.into()
    })
}
