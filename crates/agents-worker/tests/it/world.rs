//! What every test stands in: keys, a fixed clock, an App that resolves, a caller with tokens.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use convene_agents_worker::{
    Backend, BackendError, BodyStream, Config, Limits, Transport, TransportError,
    TransportErrorKind, router,
};
use convene_model::{
    AgentId, GroupId, MessageId, OrgId, Problem, RunId, Timestamp, UserId,
    agents::{
        ApiKey, ContextMessage, InvokeEvent, InvokeRequest, Outcome, ResolveRequest, ResolvedAgent,
        ResolvedModel, ResolvedTool, ToolRequest, ToolStatus, Usage,
    },
    claims::{AgentAccessClaims, Registered, SCOPE_INVOKE, WorkerClaims, service},
    event::Author,
    keys::{SigningKey, TrustedKeys},
    replay::ReplayGuard,
    token::{self, RequestLine, Token},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// When every test begins, epoch seconds.
pub(crate) const START: u64 = 1_800_000_000;
/// The key that the agent's provider wants.
pub(crate) const KEY: &str = "test-key-0123456789";

pub(crate) fn controllers_key() -> SigningKey {
    SigningKey::from_seed(service::CONTROLLERS, &[1; 32])
}

pub(crate) fn agents_key() -> SigningKey {
    SigningKey::from_seed(service::AGENTS, &[2; 32])
}

/// The App: checks the worker's token as the real one does, and answers what it is told to.
pub(crate) struct FakeApp {
    agents_keys: TrustedKeys,
    controllers_keys: TrustedKeys,
    replay: ReplayGuard,
    pub(crate) now: Arc<AtomicU64>,
    pub(crate) answer: Mutex<Answer>,
    /// What is answered before that, one for each question.
    pub(crate) failing: Mutex<VecDeque<Answer>>,
    /// How often it said that what is known still holds.
    pub(crate) confirmed: AtomicU64,
    pub(crate) asked: Mutex<Vec<Token<AgentAccessClaims>>>,
}

/// What the App answers.
#[derive(Clone)]
pub(crate) enum Answer {
    Agent(ResolvedAgent),
    Refuse(Problem),
    Garbage,
    /// That what is known still holds, whatever is known.
    Unchanged,
    Unavailable,
    Never,
}

#[async_trait]
impl Backend for FakeApp {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BackendError> {
        let now = Timestamp::from_secs(self.now.load(Ordering::SeqCst));
        let line = RequestLine {
            authorization: request.headers()["authorization"].to_str().ok(),
            method: request.method().as_str(),
            path: request.uri().path(),
            body: request.body(),
        };
        assert_eq!((line.method, line.path), ("POST", "/internal/resolve"));
        let ResolveRequest { known } = serde_json::from_slice(request.body()).unwrap();
        let token = token::authorize::<WorkerClaims>(
            &self.agents_keys,
            service::APP,
            line,
            now,
            Some(&self.replay),
        )
        .unwrap();
        let act = token::verify_past_expiry::<AgentAccessClaims>(
            &self.controllers_keys,
            service::AGENTS,
            &token.claims.act,
            now,
        )
        .unwrap();
        self.asked.lock().unwrap().push(act);
        let next = self.failing.lock().unwrap().pop_front();
        let answer = next.unwrap_or_else(|| self.answer.lock().unwrap().clone());
        match answer {
            Answer::Agent(agent) if known == Some(agent.version) => {
                self.confirmed.fetch_add(1, Ordering::SeqCst);
                Ok(Response::builder().status(204).body(Bytes::new()).unwrap())
            }
            Answer::Agent(agent) => {
                Ok(Response::new(Bytes::from(serde_json::to_vec(&agent).unwrap())))
            }
            Answer::Refuse(problem) => Ok(Response::builder()
                .status(problem.status)
                .body(Bytes::from(serde_json::to_vec(&problem).unwrap()))
                .unwrap()),
            Answer::Garbage => Ok(Response::new(Bytes::from_static(b"[]"))),
            Answer::Unchanged => Ok(Response::builder().status(204).body(Bytes::new()).unwrap()),
            Answer::Unavailable => Err(BackendError("connection refused".into())),
            Answer::Never => std::future::pending().await,
        }
    }
}

/// The Orchestrator: checks the worker's token as the real one does, and answers what it is told to.
pub(crate) struct FakeOrchestrator {
    agents_keys: TrustedKeys,
    controllers_keys: TrustedKeys,
    replay: ReplayGuard,
    now: Arc<AtomicU64>,
    /// Status and body of the answers.
    pub(crate) answer: Mutex<(u16, String)>,
    /// Path and body of the requests.
    pub(crate) asked: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl Backend for FakeOrchestrator {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BackendError> {
        let now = Timestamp::from_secs(self.now.load(Ordering::SeqCst));
        let line = RequestLine {
            authorization: request.headers()["authorization"].to_str().ok(),
            method: request.method().as_str(),
            path: request.uri().path(),
            body: request.body(),
        };
        let token = token::authorize::<WorkerClaims>(
            &self.agents_keys,
            service::ORCHESTRATOR,
            line,
            now,
            Some(&self.replay),
        )
        .unwrap();
        token::verify_run(&self.controllers_keys, &token.claims.act, now).unwrap();
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        self.asked.lock().unwrap().push((request.uri().path().to_owned(), body));
        let (status, body) = self.answer.lock().unwrap().clone();
        Ok(Response::builder().status(status).body(Bytes::from(body)).unwrap())
    }
}

/// The least that a transport must do.
pub(crate) struct PlainTransport(reqwest::Client);

impl PlainTransport {
    fn new() -> Self {
        // The first test that comes installs it; the others find it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        )
    }
}

#[async_trait]
impl Transport for PlainTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        let request = reqwest::Request::try_from(request.map(reqwest::Body::from))
            .map_err(|_| error(TransportErrorKind::NotAllowed))?;
        let response = self.0.execute(request).await.map_err(|failed| {
            error(if failed.is_connect() {
                TransportErrorKind::Unreachable
            } else {
                TransportErrorKind::Cut
            })
        })?;
        let response: Response<reqwest::Body> = response.into();
        Ok(response.map(|body| {
            body.into_data_stream().map_err(|_| error(TransportErrorKind::Cut)).boxed()
        }))
    }
}

fn error(kind: TransportErrorKind) -> TransportError {
    TransportError::new(kind, format!("It is {kind:?}."))
}

/// A transport that refuses everything.
pub(crate) struct Refusing;

#[async_trait]
impl Transport for Refusing {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        Err(error(TransportErrorKind::NotAllowed))
    }
}

/// One worker and everything around it.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) app: Arc<FakeApp>,
    pub(crate) orchestrator: Arc<FakeOrchestrator>,
    pub(crate) now: Arc<AtomicU64>,
    next: AtomicU64,
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) events: Vec<InvokeEvent>,
    /// Everything that is not an event.
    pub(crate) comments: usize,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        self.deltas().into_iter().map(|(_, text)| text).collect()
    }

    pub(crate) fn deltas(&self) -> Vec<(u64, String)> {
        let delta = |event: &InvokeEvent| match event {
            InvokeEvent::Delta { offset, text } => Some((*offset, text.clone())),
            InvokeEvent::ToolStarted { .. }
            | InvokeEvent::ToolFinished { .. }
            | InvokeEvent::Finished(_) => None,
        };
        self.events.iter().filter_map(delta).collect()
    }

    /// The outcome, which is the last event and the only one of its kind.
    pub(crate) fn outcome(&self) -> Outcome {
        let mut outcomes = self.events.iter().filter_map(|event| match event {
            InvokeEvent::Finished(outcome) => Some(outcome.clone()),
            InvokeEvent::Delta { .. }
            | InvokeEvent::ToolStarted { .. }
            | InvokeEvent::ToolFinished { .. } => None,
        });
        let outcome = outcomes.next().unwrap();
        assert_eq!(outcomes.next(), None);
        assert!(matches!(self.events.last(), Some(InvokeEvent::Finished(_))));
        outcome
    }

    /// The calls that were made, as (tool, arguments, status, summary), in the order of their ends.
    pub(crate) fn tools(&self) -> Vec<(String, String, ToolStatus, String)> {
        let mut begun = BTreeMap::new();
        let mut made = Vec::new();
        for event in &self.events {
            match event {
                InvokeEvent::ToolStarted { call_id, tool, arguments } => {
                    let before = begun.insert(call_id.clone(), (tool.clone(), arguments.clone()));
                    assert_eq!(before, None, "{call_id} began twice");
                }
                InvokeEvent::ToolFinished { call_id, status, summary } => {
                    let (tool, arguments) = begun.remove(call_id).unwrap_or_default();
                    made.push((tool, arguments, *status, summary.clone()));
                }
                InvokeEvent::Delta { .. } | InvokeEvent::Finished(_) => {}
            }
        }
        assert_eq!(begun, BTreeMap::new(), "calls without an end");
        made
    }

    /// The calls that are handed over, and the continuation.
    pub(crate) fn requested(&self) -> (Vec<ToolRequest>, String) {
        match self.outcome() {
            Outcome::ToolRequested { calls, continuation, .. } => (calls, continuation),
            other @ (Outcome::Completed { .. } | Outcome::Failed { .. }) => panic!("{other:?}"),
        }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        match self.outcome() {
            Outcome::Completed { usage } | Outcome::Failed { usage, .. } => usage,
            other @ Outcome::ToolRequested { .. } => panic!("{other:?}"),
        }
    }

    /// Code, detail and retry time of the failure.
    pub(crate) fn failure(&self) -> (String, String, Option<u64>) {
        match self.outcome() {
            Outcome::Failed { code, detail, retry_after_ms, .. } => (code, detail, retry_after_ms),
            completed @ (Outcome::Completed { .. } | Outcome::ToolRequested { .. }) => {
                panic!("{completed:?}")
            }
        }
    }
}

impl World {
    /// A worker whose agent runs on `model`.
    pub(crate) fn new(model: ResolvedModel) -> Self {
        Self::with(model, Limits { demo_pace: Duration::from_millis(1), ..Limits::default() })
    }

    pub(crate) fn with(model: ResolvedModel, limits: Limits) -> Self {
        Self::over(model, limits, Arc::new(PlainTransport::new()))
    }

    pub(crate) fn over(
        model: ResolvedModel,
        limits: Limits,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let now = Arc::new(AtomicU64::new(START));
        let controllers = TrustedKeys::of(service::CONTROLLERS, &controllers_key().jwks()).unwrap();
        let app = Arc::new(FakeApp {
            agents_keys: TrustedKeys::of(service::AGENTS, &agents_key().jwks()).unwrap(),
            controllers_keys: controllers.clone(),
            replay: ReplayGuard::new(1000),
            now: Arc::clone(&now),
            answer: Mutex::new(Answer::Agent(agent(model))),
            failing: Mutex::default(),
            confirmed: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        // Another issuer's key is trusted too, so that a token of it fails for its issuer alone.
        controllers.replace(service::ORCHESTRATOR, &orchestrator_key().jwks()).unwrap();
        let orchestrator = Arc::new(FakeOrchestrator {
            agents_keys: TrustedKeys::of(service::AGENTS, &agents_key().jwks()).unwrap(),
            controllers_keys: controllers.clone(),
            replay: ReplayGuard::new(1000),
            now: Arc::clone(&now),
            answer: Mutex::new((200, r#"{"hits":[],"more":false}"#.to_owned())),
            asked: Mutex::default(),
        });
        let app_keys = TrustedKeys::of(service::APP, &app_key().jwks()).unwrap();
        app_keys.replace("portal", &orchestrator_key().jwks()).unwrap();
        let clock = Arc::clone(&now);
        let ids = AtomicU64::new(0);
        let config = Config {
            signing: agents_key().into(),
            controllers,
            app_keys,
            clock: Arc::new(move || Timestamp::from_secs(clock.load(Ordering::SeqCst))),
            jti: Arc::new(move || format!("w{}", ids.fetch_add(1, Ordering::SeqCst))),
            sleep: Arc::new(sleep),
            app: Arc::clone(&app) as Arc<dyn Backend>,
            orchestrator: Arc::clone(&orchestrator) as Arc<dyn Backend>,
            transport,
            limits,
        };
        Self { router: router(config), app, orchestrator, now, next: AtomicU64::new(0) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.now.load(Ordering::SeqCst))
    }

    pub(crate) fn advance(&self, secs: u64) {
        self.now.fetch_add(secs, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.app.asked.lock().unwrap().len()
    }

    /// How often the App was asked, and how often it confirmed what was known.
    pub(crate) fn questions(&self) -> (usize, u64) {
        (self.asked(), self.app.confirmed.load(Ordering::SeqCst))
    }

    /// A token for `body`, with claims of its own for what the test is about.
    pub(crate) fn token(&self, body: &[u8]) -> Token<AgentAccessClaims> {
        let request = request("");
        let now = self.now().secs();
        Token {
            registered: Registered {
                iss: service::CONTROLLERS.into(),
                aud: service::AGENTS.into(),
                iat: now,
                nbf: now,
                exp: now + 60,
                jti: format!("j{}", self.next.fetch_add(1, Ordering::SeqCst)),
            },
            claims: AgentAccessClaims {
                group_id: request.group_id,
                org_id: OrgId::new("o1").unwrap(),
                agent_id: request.agent_id,
                run_id: request.run_id,
                attempt: request.attempt,
                scope: SCOPE_INVOKE.into(),
                bh: token::body_hash(body),
                initiator: None,
                run_exp: now + 900,
            },
        }
    }

    /// Sends exactly this and returns the answer as it comes.
    pub(crate) async fn send(&self, authorization: Option<&str>, body: Vec<u8>) -> Response<Body> {
        self.send_to("/invoke", authorization, body).await
    }

    /// The same to another path.
    pub(crate) async fn send_to(
        &self,
        path: &str,
        authorization: Option<&str>,
        body: Vec<u8>,
    ) -> Response<Body> {
        let mut request = Request::post(path);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    /// Gives the agent these tools from now on.
    pub(crate) fn give(&self, tools: Vec<ResolvedTool>) {
        self.change(|agent| agent.tools = tools);
    }

    /// Changes the agent, as the App answers it from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ResolvedAgent)) {
        let mut answer = self.app.answer.lock().unwrap();
        let Answer::Agent(agent) = &mut *answer else { panic!("there is no agent") };
        agent.version += 1;
        change(agent);
    }

    /// Sends `request` with a token of its own.
    pub(crate) async fn open(&self, request: &InvokeRequest) -> Response<Body> {
        let body = serde_json::to_vec(request).unwrap();
        let mut token = self.token(&body);
        token.claims.attempt = request.attempt;
        let token = token::sign(&controllers_key(), &token);
        self.send(Some(&format!("Bearer {token}")), body).await
    }

    /// Runs `request` to its end.
    pub(crate) async fn invoke(&self, request: &InvokeRequest) -> Reply {
        read(self.open(request).await).await
    }

    /// Runs a conversation of one message by Ana to its end.
    pub(crate) async fn say(&self, text: &str) -> Reply {
        self.invoke(&request(text)).await
    }
}

/// Waits that a test is about are short. One of seconds is there for what never ends, and would be over
/// before an answer is read when the machine stands still for so long.
fn sleep(time: Duration) -> BoxFuture<'static, ()> {
    if time >= Duration::from_secs(5) {
        return std::future::pending().boxed();
    }
    tokio::time::sleep(time).boxed()
}

pub(crate) fn app_key() -> SigningKey {
    SigningKey::from_seed(service::APP, &[4; 32])
}

pub(crate) fn orchestrator_key() -> SigningKey {
    SigningKey::from_seed(service::ORCHESTRATOR, &[3; 32])
}

async fn read(response: Response<Body>) -> Reply {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    let mut events = Vec::new();
    let mut comments = 0;
    for block in text.split_terminator("\n\n") {
        match block.strip_prefix("data: ") {
            Some(json) => events.push(serde_json::from_str(json).unwrap()),
            None => {
                assert_eq!(block, ": keep-alive");
                comments += 1;
            }
        }
    }
    Reply { events, comments }
}

/// The problem in an answer that is one.
pub(crate) async fn problem(response: Response<Body>) -> Problem {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.status, status);
    problem
}

pub(crate) fn openai(base_url: &str, model: &str) -> ResolvedModel {
    ResolvedModel::OpenaiCompatible {
        base_url: base_url.to_owned(),
        model: model.to_owned(),
        api_key: Some(ApiKey::new(KEY.to_owned())),
        options: serde_json::Map::new(),
    }
}

pub(crate) fn agent(model: ResolvedModel) -> ResolvedAgent {
    ResolvedAgent {
        agent_id: AgentId::new("a1").unwrap(),
        name: "Aria".into(),
        version: 1,
        system_prompt: "Be brief.".into(),
        model,
        price: None,
        people: BTreeMap::from([
            (UserId::new("u1").unwrap(), "Ana".into()),
            (UserId::new("u2").unwrap(), "Ben".into()),
        ]),
        tools: Vec::new(),
        tool_hosts: None,
    }
}

pub(crate) fn message(id: &str, author: Author, text: &str) -> ContextMessage {
    ContextMessage { message_id: MessageId::new(id).unwrap(), author, text: text.into() }
}

pub(crate) fn user(id: &str) -> Author {
    Author::User(UserId::new(id).unwrap())
}

pub(crate) fn agent_author(id: &str) -> Author {
    Author::Agent(AgentId::new(id).unwrap())
}

/// A call with one message, by Ana.
pub(crate) fn request(text: &str) -> InvokeRequest {
    InvokeRequest {
        group_id: GroupId::new("g1").unwrap(),
        agent_id: AgentId::new("a1").unwrap(),
        run_id: RunId::new("r1").unwrap(),
        attempt: 1,
        trigger: MessageId::new("m1").unwrap(),
        agents: BTreeMap::from([
            (AgentId::new("a1").unwrap(), "Aria".into()),
            (AgentId::new("a2").unwrap(), "Critic".into()),
        ]),
        messages: vec![message("m1", user("u1"), text)],
        summary: None,
        resume: None,
    }
}
