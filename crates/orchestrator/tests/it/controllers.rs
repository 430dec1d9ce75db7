//! Controllers for tests: they verify the service token of each call, write the call down, and
//! behave as a test wants them to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{FromRequest, FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use convene_hop::{ApiError, Clock, GroupLink, LinkUpgrade, RawRequest, json};
use convene_model::{
    Code, Problem,
    claims::{OrchestratorClaims, service},
    infra::{InitRequest, Initialized},
    keys::TrustedKeys,
    replay::ReplayGuard,
    token,
};
use http::StatusCode;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

/// One call as it arrived, after its token was found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) line: String,
    pub(crate) epoch: u64,
    pub(crate) body: String,
    pub(crate) routing_token: Option<String>,
}

/// What the controllers do with the next calls.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    Healthy,
    Refuse(Box<Problem>),
    /// An answer that is no problem document.
    Broken(StatusCode),
    /// Success, but under another epoch than the one that was asked for.
    OtherEpoch,
    /// Success without the document that was asked for.
    EmptySuccess,
    /// No answer at all.
    Silent,
    /// An answer only after [`FakeControllers::let_pass`].
    Held,
}

#[derive(Clone)]
pub(crate) struct FakeControllers {
    shared: Arc<Shared>,
}

struct Shared {
    keys: TrustedKeys,
    clock: Clock,
    replay: ReplayGuard,
    behaviour: Mutex<Behaviour>,
    calls: Mutex<Vec<Call>>,
    links: Mutex<Vec<GroupLink>>,
    arrived: Notify,
    passes: Semaphore,
}

impl FakeControllers {
    pub(crate) fn new(keys: TrustedKeys, clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                keys,
                clock,
                replay: ReplayGuard::new(100_000),
                behaviour: Mutex::new(Behaviour::Healthy),
                calls: Mutex::default(),
                links: Mutex::default(),
                arrived: Notify::new(),
                passes: Semaphore::new(0),
            }),
        }
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(serve).with_state(Arc::clone(&self.shared))
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn refuse(&self, problem: Problem) {
        self.behave(Behaviour::Refuse(Box::new(problem)));
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.line).collect()
    }

    /// The group's end of the upstream that was opened last.
    pub(crate) fn take_link(&self) -> GroupLink {
        self.shared.links.lock().unwrap().pop().expect("an upstream was opened")
    }

    /// Waits until a held call has arrived; the deadline only turns a hang into a failure.
    pub(crate) async fn arrived(&self) {
        let arrived = self.shared.arrived.notified();
        tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("a call arrives");
    }

    /// Lets one held call go on.
    pub(crate) fn let_pass(&self) {
        self.shared.passes.add_permits(1);
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map(str::to_owned);
    let request = RawRequest::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let token = token::authorize::<OrchestratorClaims>(
        &shared.keys,
        service::CONTROLLERS,
        request.line(),
        (shared.clock)(),
        Some(&shared.replay),
    )?;
    let (group, verb) =
        request.path.strip_prefix("/groups/").and_then(|rest| rest.split_once('/')).unwrap();
    if token.claims.group_id.as_str() != group {
        return Err(Code::Forbidden.into());
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    shared.calls.lock().unwrap().push(Call {
        line: format!("{} {}{query}", request.method, request.path),
        epoch: token.claims.epoch,
        body: String::from_utf8(request.body.to_vec()).unwrap(),
        routing_token: request.header("x-routing-token").map(str::to_owned),
    });
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let epoch = match behaviour {
        Behaviour::Healthy => token.claims.epoch,
        Behaviour::OtherEpoch => token.claims.epoch + 1,
        Behaviour::Refuse(problem) => return Err(ApiError(*problem)),
        Behaviour::Broken(status) => return Ok((status, "<html>oops</html>").into_response()),
        Behaviour::EmptySuccess => return Ok(StatusCode::NO_CONTENT.into_response()),
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Held => {
            shared.arrived.notify_one();
            shared.passes.acquire().await.unwrap().forget();
            token.claims.epoch
        }
    };
    match verb {
        "init" => {
            let init: InitRequest = json(&request.body)?;
            assert_eq!(init.epoch, token.claims.epoch, "one epoch in token and body");
            let history = "h1".parse().unwrap();
            Ok(Json(Initialized { epoch, head: 1, history }).into_response())
        }
        "config" | "revoke" => Ok(StatusCode::NO_CONTENT.into_response()),
        "history" => Ok(Json(json!({ "messages": [], "head": 7 })).into_response()),
        "search" => Ok(Json(json!({ "hits": [], "more": false })).into_response()),
        message if message.starts_with("messages/") => {
            Ok(Json(json!({ "message": message, "revisions": [] })).into_response())
        }
        "ws" => {
            let upgrade = LinkUpgrade::from_request_parts(&mut parts, &()).await?;
            let (ours, theirs) = GroupLink::pair();
            shared.links.lock().unwrap().push(ours);
            Ok(upgrade.accept(theirs))
        }
        other => panic!("the controllers have no {other}"),
    }
}
