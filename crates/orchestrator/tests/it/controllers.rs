//! Controllers for tests: they verify the service token of each call, write the call down, and
//! behave as a test wants them to.

use std::{
    sync::{Arc, Mutex, MutexGuard},
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
    archive::{
        BeginImport, DeleteQuery, ExportQuery, FreezeRequest, ImportQuery, NEXT_HEADER,
        ThawRequest, WipeRequest,
    },
    claims::{OrchestratorClaims, service},
    infra::InitRequest,
    keys::TrustedKeys,
    replay::ReplayGuard,
    token,
};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use crate::groups::Groups;

/// One call as it arrived, after its token was found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) line: String,
    pub(crate) epoch: u64,
    pub(crate) body: String,
    pub(crate) routing_token: Option<String>,
    pub(crate) run_token: Option<String>,
}

/// How often an answer that does not come is waited for in all.
pub(crate) const ASKED: usize = 4;

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
    /// It is done, but the answer does not arrive.
    LostAnswer,
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
    groups: Mutex<Groups>,
    /// Behaviours of single calls, by the last part of their path, before that of all.
    scripted: Mutex<Vec<(String, Behaviour)>>,
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
                groups: Mutex::default(),
                scripted: Mutex::default(),
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

    /// Behaves so at the next call of this kind, once.
    pub(crate) fn once(&self, verb: &str, behaviour: Behaviour) {
        self.shared.scripted.lock().unwrap().push((verb.to_owned(), behaviour));
    }

    /// Refuses calls of this kind for as long as they are repeated.
    pub(crate) fn refuses(&self, verb: &str, code: Code) {
        for _ in 0..ASKED {
            self.once(verb, Behaviour::Refuse(Box::new(code.into())));
        }
    }

    /// The groups that they have.
    pub(crate) fn groups(&self) -> MutexGuard<'_, Groups> {
        self.shared.groups.lock().unwrap()
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
    let rest = request.path.strip_prefix("/groups/").unwrap();
    let (group, verb) = rest.split_once('/').unwrap_or((rest, "remove"));
    if token.claims.group_id.as_str() != group {
        return Err(Code::Forbidden.into());
    }
    let params = query.clone().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    shared.calls.lock().unwrap().push(Call {
        line: format!("{} {}{query}", request.method, request.path),
        epoch: token.claims.epoch,
        body: String::from_utf8(request.body.to_vec()).unwrap(),
        routing_token: request.header("x-routing-token").map(str::to_owned),
        run_token: request.header("x-run-token").map(str::to_owned),
    });
    let kind = verb.rsplit('/').next().unwrap();
    let kind = if verb.starts_with("import/") && kind != "finish" { "piece" } else { kind };
    let behaviour = {
        let mut scripted = shared.scripted.lock().unwrap();
        let at = scripted.iter().position(|(verb, _)| verb == kind);
        at.map(|at| scripted.remove(at).1)
    };
    let behaviour = behaviour.unwrap_or_else(|| shared.behaviour.lock().unwrap().clone());
    let behaviour = match behaviour {
        Behaviour::LostAnswer => {
            let _ = lifecycle(&shared, &token.claims, kind, &request, &params);
            return Ok((StatusCode::BAD_GATEWAY, "").into_response());
        }
        behaviour => behaviour,
    };
    let epoch = match behaviour {
        Behaviour::Healthy => token.claims.epoch,
        Behaviour::OtherEpoch => token.claims.epoch + 1,
        Behaviour::Refuse(problem) => return Err(ApiError(*problem)),
        Behaviour::Broken(status) => return Ok((status, "<html>oops</html>").into_response()),
        Behaviour::EmptySuccess => return Ok(StatusCode::NO_CONTENT.into_response()),
        Behaviour::LostAnswer => unreachable!("it was handled above"),
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
            let mut initialized =
                shared.groups.lock().unwrap().init(&token.claims.group_id, init.epoch)?;
            if epoch != token.claims.epoch {
                initialized.epoch = epoch;
            }
            Ok(Json(initialized).into_response())
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
        _ => lifecycle(&shared, &token.claims, kind, &request, &params),
    }
}

/// The calls by which a group is archived, restored and removed.
fn lifecycle(
    shared: &Shared,
    claims: &OrchestratorClaims,
    kind: &str,
    request: &RawRequest,
    params: &str,
) -> Result<Response, ApiError> {
    let mut groups = shared.groups.lock().unwrap();
    let group_id = &claims.group_id;
    let same = |epoch: u64| assert_eq!(epoch, claims.epoch, "one epoch in token and request");
    match kind {
        "freeze" => {
            let body: FreezeRequest = json(&request.body)?;
            same(body.epoch);
            Ok(Json(groups.freeze(group_id, &body)?).into_response())
        }
        "export" => {
            let asked: ExportQuery = query(params);
            same(asked.epoch);
            let (lines, next) = groups.export(group_id, &asked)?;
            let mut response = lines.into_response();
            if let Some(next) = next {
                response.headers_mut().insert(NEXT_HEADER, next.into());
            }
            Ok(response)
        }
        "thaw" => {
            let body: ThawRequest = json(&request.body)?;
            same(body.epoch);
            groups.thaw(group_id, &body)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        "wipe" => {
            let body: WipeRequest = json(&request.body)?;
            same(body.epoch);
            groups.wipe(group_id, &body)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        "remove" => {
            let asked: DeleteQuery = query(params);
            same(asked.epoch);
            groups.remove(group_id, asked.epoch)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        "import" => {
            let body: BeginImport = json(&request.body)?;
            same(body.epoch);
            Ok(Json(groups.begin_import(group_id, body)?).into_response())
        }
        "piece" | "finish" => {
            let rest = request.path.split_once("/import/").unwrap().1;
            let import_id = rest.trim_end_matches("/finish").parse().unwrap();
            if kind == "finish" {
                return Ok(Json(groups.finish_import(group_id, &import_id)?).into_response());
            }
            let ImportQuery { from } = query(params);
            Ok(Json(groups.import(group_id, &import_id, from, &request.body)?).into_response())
        }
        other => panic!("the controllers have no {other}"),
    }
}

fn query<T: DeserializeOwned>(params: &str) -> T {
    let uri: http::Uri = format!("/?{params}").parse().unwrap();
    axum::extract::Query::try_from_uri(&uri).unwrap().0
}
