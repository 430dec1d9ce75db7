//! A group behind an Orchestrator, both as small as the rooms can bear, with real tokens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use convene_hop::{ApiError, Clock, GroupLink, LinkUpgrade, RawRequest, Signer, json};
use convene_model::{
    Code, ConnId, GroupId, HistoryId, MessageId, Problem, Ref, Timestamp, UserId,
    claims::{AppClaims, RoutingClaims, service},
    event::{Author, Event, EventKind, GroupConfig, Posted},
    frame::{
        self, DetachReason, GroupFrame, GroupState, RunPhase, RunView, UpstreamFrame, with_conn,
    },
    infra::{
        ActivateRequest, Activation, GroupStatus, RevokeRequest, RoutingToken, RoutingTokenRequest,
    },
    keys::{SigningKey, TrustedKeys},
    limits::ROUTING_TOKEN_TTL,
    record::Record,
    replay::ReplayGuard,
    token::{authorize, verify_routing},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

/// The only group.
pub(super) const GROUP: &str = "g1";
/// Events that are replayed at most.
pub(super) const REPLAYED: u64 = 1000;

/// A scripted group and the Orchestrator before it.
#[derive(Clone)]
pub(super) struct FakeGroup {
    inner: Arc<Mutex<Inner>>,
    app_keys: TrustedKeys,
    own_keys: TrustedKeys,
    signer: Signer,
    replay: Arc<ReplayGuard>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Inner {
    events: Vec<Bytes>,
    message_ids: HashMap<MessageId, u64>,
    upstreams: BTreeMap<u64, mpsc::Sender<Bytes>>,
    conns: HashMap<(u64, ConnId), UserId>,
    next_upstream: u64,
    activated: bool,
    config: Option<GroupConfig>,
    revoked: HashMap<UserId, Timestamp>,
    /// What is called instead of being carried out.
    refuse_activation: Option<Code>,
    refuse_connect: Option<Code>,
    refuse_attaches: Vec<Code>,
    hold_answers: bool,
    forget_before: u64,
    running: Option<String>,
    busy: bool,
    cut_replay_after: Option<usize>,
    counts: Counts,
    roles: HashSet<String>,
}

/// How often what was asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) activations: usize,
    pub(super) configurations: usize,
    pub(super) tokens: usize,
    pub(super) connects: usize,
    pub(super) attaches: usize,
    pub(super) detaches: usize,
    pub(super) revocations: usize,
}

impl FakeGroup {
    pub(super) fn new(app: &SigningKey, clock: Clock) -> Self {
        let own = SigningKey::from_seed(service::ORCHESTRATOR, &[2; 32]);
        Self {
            inner: Arc::default(),
            app_keys: TrustedKeys::of(service::APP, &app.jwks()).unwrap(),
            own_keys: TrustedKeys::of(service::ORCHESTRATOR, &own.jwks()).unwrap(),
            signer: Signer::new(own, clock),
            replay: Arc::new(ReplayGuard::new(100_000)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/infra/groups", post(activate))
            .route("/infra/groups/{id}/config", put(configure))
            .route("/infra/groups/{id}/revoke", post(revoke))
            .route("/infra/routing-token", post(routing_token))
            .route("/groups/{id}/history", get(history))
            .route("/groups/{id}/ws", get(connect))
            .with_state(self.clone())
    }

    /// Writes a message into the group, as if by another app's user.
    pub(super) fn say(&self, text: &str) -> u64 {
        self.inner.lock().say(text)
    }

    /// Sends a frame to all upstreams.
    pub(super) fn broadcast(&self, frame: &GroupFrame) {
        self.inner.lock().broadcast(&frame.encode());
    }

    /// Sends a frame to each connection of a user.
    pub(super) fn send_to(&self, user: &str, frame: &GroupFrame) {
        let inner = self.inner.lock();
        for ((upstream, conn), owner) in &inner.conns {
            if owner.as_str() == user {
                inner.send(*upstream, &frame.encode_for(conn));
            }
        }
    }

    /// Detaches each connection of a user, as after the expiry of its token.
    pub(super) fn detach(&self, user: &str, reason: DetachReason) {
        self.send_to(user, &GroupFrame::Detached { reason, user_id: None });
        self.inner.lock().conns.retain(|_, owner| owner.as_str() != user);
    }

    /// Loses all upstreams.
    pub(super) fn cut(&self) {
        let mut inner = self.inner.lock();
        inner.upstreams.clear();
        inner.conns.clear();
        drop(inner);
        self.touch();
    }

    pub(super) fn refuse_activation(&self, code: impl Into<Option<Code>>) {
        self.inner.lock().refuse_activation = code.into();
    }

    pub(super) fn refuse_connect(&self, code: impl Into<Option<Code>>) {
        self.inner.lock().refuse_connect = code.into();
    }

    /// Refuses the next attaches, one for each code.
    pub(super) fn refuse_attaches(&self, codes: &[Code]) {
        self.inner.lock().refuse_attaches = codes.iter().rev().copied().collect();
    }

    /// Answers no posts while it holds.
    pub(super) fn hold_answers(&self, hold: bool) {
        self.inner.lock().hold_answers = hold;
    }

    /// Makes everything before `seq` too old to replay.
    pub(super) fn forget_before(&self, seq: u64) {
        self.inner.lock().forget_before = seq;
    }

    /// The text so far of a running reply, which is sent at each attach.
    pub(super) fn running(&self, text: &str) {
        self.inner.lock().running = Some(text.to_owned());
    }

    /// Lets something be said right before and right after each attach.
    pub(super) fn busy(&self) {
        self.inner.lock().busy = true;
    }

    /// Loses the upstream when this much of the next replay is sent.
    pub(super) fn cut_replay_after(&self, events: usize) {
        self.inner.lock().cut_replay_after = Some(events);
    }

    pub(super) fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    pub(super) fn upstreams(&self) -> usize {
        self.inner.lock().upstreams.len()
    }

    pub(super) fn conns(&self) -> usize {
        self.inner.lock().conns.len()
    }

    pub(super) fn head(&self) -> u64 {
        self.inner.lock().events.len() as u64
    }

    pub(super) fn config(&self) -> Option<GroupConfig> {
        self.inner.lock().config.clone()
    }

    /// The roles that tokens were asked for with.
    pub(super) fn roles(&self) -> HashSet<String> {
        self.inner.lock().roles.clone()
    }

    /// Waits until something of the group is so.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(super::world::PATIENCE, waiting).await;
        assert!(waited.is_ok(), "waited for {what} in vain");
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn now(&self) -> Timestamp {
        self.signer.now()
    }

    fn check(&self, request: &RawRequest) -> Result<(), Problem> {
        let (line, now) = (request.line(), self.now());
        let guard = Some(&*self.replay);
        let token =
            authorize::<AppClaims>(&self.app_keys, service::ORCHESTRATOR, line, now, guard)?;
        assert_eq!(token.claims.org_id.unwrap().as_str(), "o1");
        if request.method != http::Method::GET {
            assert!(request.header("idempotency-key").is_some(), "a mutation has its key");
        }
        Ok(())
    }

    fn check_routing(&self, token: Option<&str>) -> Result<UserId, Problem> {
        let token = token.ok_or(Code::Unauthorized)?;
        let access = verify_routing(&self.own_keys, token, self.now())?;
        let revoked = self.inner.lock().revoked.get(&access.claims.user_id).copied();
        if revoked.is_some_and(|at| access.issued_at <= at) {
            return Err(Code::AccessRevoked.into());
        }
        Ok(access.claims.user_id)
    }

    fn link(&self, link: GroupLink) {
        let upstream = {
            let mut inner = self.inner.lock();
            inner.next_upstream += 1;
            let id = inner.next_upstream;
            inner.upstreams.insert(id, link.tx);
            id
        };
        self.touch();
        let group = self.clone();
        let mut rx = link.rx;
        tokio::spawn(async move {
            while let Some(frame) = rx.recv().await {
                group.frame(upstream, &frame);
                group.touch();
            }
            let mut inner = group.inner.lock();
            inner.upstreams.remove(&upstream);
            inner.conns.retain(|(of, _), _| *of != upstream);
            drop(inner);
            group.touch();
        });
    }

    fn frame(&self, upstream: u64, frame: &Bytes) {
        let frame = frame::parse::<UpstreamFrame>(frame).expect("an app sends what is understood");
        match frame {
            UpstreamFrame::Attach { conn, r#ref, token, after, history, render: _ } => {
                let user = self.check_routing(Some(&token));
                self.inner.lock().attach(upstream, conn, r#ref, user, after, history);
            }
            UpstreamFrame::Detach { conn, r#ref } => {
                let mut inner = self.inner.lock();
                inner.counts.detaches += 1;
                inner.conns.remove(&(upstream, conn.clone()));
                let ok = GroupFrame::Ok { r#ref, seq: None, message_id: None };
                inner.send(upstream, &ok.encode_for(&conn));
                let (reason, user_id) = (DetachReason::Requested, None);
                let detached = GroupFrame::Detached { reason, user_id };
                inner.send(upstream, &detached.encode_for(&conn));
            }
            UpstreamFrame::Post { conn, r#ref, message_id, text, .. } => {
                let mut inner = self.inner.lock();
                let Some(user) = inner.conns.get(&(upstream, conn.clone())).cloned() else {
                    return inner.refuse(upstream, &conn, r#ref, Code::NotAttached);
                };
                if text == "refuse me" {
                    return inner.refuse(upstream, &conn, r#ref, Code::ValidationFailed);
                }
                let known = inner.message_ids.get(&message_id).copied();
                let seq = known.unwrap_or_else(|| inner.post(user, message_id.clone(), text));
                if !inner.hold_answers {
                    let (seq, message_id) = (Some(seq), Some(message_id));
                    let ok = GroupFrame::Ok { r#ref, seq, message_id };
                    inner.send(upstream, &ok.encode_for(&conn));
                }
            }
            UpstreamFrame::Cancel { conn, r#ref, .. } => {
                self.inner.lock().refuse(upstream, &conn, r#ref, Code::RunNotFound);
            }
            UpstreamFrame::Edit { conn, r#ref, .. }
            | UpstreamFrame::Delete { conn, r#ref, .. }
            | UpstreamFrame::React { conn, r#ref, .. }
            | UpstreamFrame::Pin { conn, r#ref, .. } => {
                self.inner.lock().refuse(upstream, &conn, r#ref, Code::MessageNotFound);
            }
            UpstreamFrame::Typing { .. } => {}
        }
    }
}

impl Inner {
    fn attach(
        &mut self,
        upstream: u64,
        conn: ConnId,
        r#ref: Ref,
        user: Result<UserId, Problem>,
        after: Option<u64>,
        history: Option<HistoryId>,
    ) {
        self.counts.attaches += 1;
        if let Some(code) = self.refuse_attaches.pop() {
            return self.refuse(upstream, &conn, r#ref, code);
        }
        let user = match user {
            Ok(user) => user,
            Err(problem) => return self.refuse(upstream, &conn, r#ref, problem.code),
        };
        if self.busy {
            self.say("right before");
        }
        let seq = self.events.len() as u64;
        if history.is_some_and(|history| history != numbering()) || after.is_some_and(|a| a > seq) {
            let reset = GroupFrame::Reset { r#ref, seq, history: numbering() };
            return self.send(upstream, &reset.encode_for(&conn));
        }
        if after.is_some_and(|after| after < self.forget_before || seq - after > REPLAYED) {
            return self.refuse(upstream, &conn, r#ref, Code::TooOld);
        }
        self.conns.insert((upstream, conn.clone()), user);
        let run_id = convene_model::RunId::new("r1").unwrap();
        let runs = self.running.iter().map(|_| RunView {
            run_id: run_id.clone(),
            agent_id: convene_model::AgentId::new("a1").unwrap(),
            trigger: MessageId::new("m").unwrap(),
            attempt: 1,
            phase: RunPhase::Writing,
        });
        let state = GroupState { runs: runs.collect(), ..GroupState::default() };
        let attached = GroupFrame::Attached { r#ref, seq, epoch: 1, history: numbering(), state };
        self.send(upstream, &attached.encode_for(&conn));
        let replay = &self.events[after.unwrap_or(seq) as usize..];
        let whole = replay.len();
        let upto = if whole == 0 { None } else { self.cut_replay_after.take() };
        for event in &replay[..upto.unwrap_or(whole)] {
            self.send(upstream, &with_conn(&conn, event));
        }
        if upto.is_some() {
            self.upstreams.clear();
            self.conns.clear();
            return;
        }
        if self.busy {
            self.say("right after");
        }
        if let Some(text) = self.running.clone() {
            let delta = GroupFrame::Delta { run_id, attempt: 1, offset: 0, text };
            self.send(upstream, &delta.encode_for(&conn));
        }
    }

    fn say(&mut self, text: &str) -> u64 {
        let seq = self.events.len() as u64 + 1;
        let id = MessageId::new(format!("said-{seq}")).unwrap();
        self.post(UserId::new("elsewhere").unwrap(), id, text.to_owned())
    }

    fn post(&mut self, user: UserId, message_id: MessageId, text: String) -> u64 {
        let seq = self.events.len() as u64 + 1;
        self.message_ids.insert(message_id.clone(), seq);
        let kind = EventKind::MessagePosted(Posted {
            root: message_id.clone(),
            message_id,
            author: Author::User(user),
            hop: 0,
            nth: 1,
            reply_to: None,
            run_id: None,
            mentions: vec![],
            text,
        });
        let record = Record::encode(&Event { seq, at: Timestamp::from_millis(1), kind });
        self.broadcast(&record.body);
        self.events.push(record.body);
        seq
    }

    fn refuse(&self, upstream: u64, conn: &ConnId, r#ref: Ref, code: Code) {
        let (detail, retry_after_ms) = (None, None);
        let error =
            GroupFrame::Error { r#ref: Some(r#ref), code, detail, retry_after_ms, start: None };
        self.send(upstream, &error.encode_for(conn));
    }

    fn broadcast(&self, frame: &Bytes) {
        for upstream in self.upstreams.keys() {
            self.send(*upstream, frame);
        }
    }

    fn send(&self, upstream: u64, frame: &Bytes) {
        if let Some(link) = self.upstreams.get(&upstream) {
            let _ = link.try_send(frame.clone());
        }
    }
}

pub(super) fn numbering() -> HistoryId {
    HistoryId::new("h1").unwrap()
}

type Answer = Result<Response, ApiError>;

async fn activate(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let body: ActivateRequest = json(&request.body)?;
    let mut inner = group.inner.lock();
    inner.counts.activations += 1;
    if let Some(code) = inner.refuse_activation {
        return Err(code.into());
    }
    inner.activated = true;
    Ok(axum::Json(Activation {
        group_controller_id: body.group_id.controller_id(),
        group_id: body.group_id,
        status: GroupStatus::Active,
        history_mode: body.history_mode,
        epoch: 1,
    })
    .into_response())
}

async fn configure(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let config: GroupConfig = json(&request.body)?;
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    inner.counts.configurations += 1;
    inner.config = Some(config);
    drop(inner);
    group.touch();
    Ok(axum::Json(serde_json::json!({})).into_response())
}

async fn revoke(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let RevokeRequest { user_id } = json(&request.body)?;
    let now = group.now();
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    inner.counts.revocations += 1;
    inner.revoked.insert(user_id.clone(), now);
    inner.conns.retain(|_, owner| *owner != user_id);
    let reason = DetachReason::Revoked;
    inner.broadcast(&GroupFrame::Detached { reason, user_id: Some(user_id) }.encode());
    drop(inner);
    group.touch();
    Ok(axum::Json(serde_json::json!({})).into_response())
}

async fn routing_token(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let RoutingTokenRequest { group_id, user_id, role } = json(&request.body)?;
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    inner.counts.tokens += 1;
    inner.roles.insert(role.as_str().to_owned());
    drop(inner);
    group.touch();
    let org_id = convene_model::OrgId::new("o1").unwrap();
    let claims = RoutingClaims { user_id, org_id, group_id, role, epoch: 1 };
    let routing_token = group.signer.mint(service::CONTROLLERS, claims);
    let expires_at = group.now() + ROUTING_TOKEN_TTL;
    Ok(axum::Json(RoutingToken { routing_token, expires_at }).into_response())
}

async fn history(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    let inner = group.inner.lock();
    let events = inner.events.iter().map(|event| String::from_utf8_lossy(event).into_owned());
    let page = format!(
        r#"{{"messages":[{}],"runs":[],"more_before":false,"head":{},"history":"h1"}}"#,
        events.collect::<Vec<_>>().join(","),
        inner.events.len()
    );
    Ok(page.into_response())
}

async fn connect(
    State(group): State<FakeGroup>,
    Path(id): Path<GroupId>,
    upgrade: LinkUpgrade,
    request: RawRequest,
) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    assert_eq!(id.as_str(), GROUP);
    let refusal = {
        let mut inner = group.inner.lock();
        inner.counts.connects += 1;
        inner.refuse_connect
    };
    if let Some(code) = refusal {
        group.touch();
        return Err(code.into());
    }
    let (theirs, ours) = GroupLink::pair();
    group.link(ours);
    Ok(upgrade.accept(theirs))
}
