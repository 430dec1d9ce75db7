//! A group behind an Orchestrator, both as small as the rooms can bear, with real tokens.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use convene_hop::{Clock, Close, GroupLink, LinkClose, Signer};
use convene_model::{
    Code, ConnId, HistoryId, MessageId, ParticipantId, Problem, Ref, Timestamp, UserId,
    claims::service,
    event::{Author, Event, EventKind, GroupConfig, Posted},
    frame::{
        self, DetachReason, GroupFrame, GroupState, RunPhase, RunView, UpstreamFrame, with_conn,
    },
    keys::{SigningKey, TrustedKeys},
    record::Record,
    replay::ReplayGuard,
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
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) app_keys: TrustedKeys,
    pub(super) own_keys: TrustedKeys,
    pub(super) signer: Signer,
    pub(super) replay: Arc<ReplayGuard>,
    changed: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) events: Vec<Bytes>,
    pub(super) message_ids: HashMap<MessageId, u64>,
    pub(super) upstreams: BTreeMap<u64, mpsc::Sender<Bytes>>,
    closes: Vec<LinkClose>,
    pub(super) conns: HashMap<(u64, ConnId), UserId>,
    pub(super) next_upstream: u64,
    pub(super) activated: bool,
    pub(super) config: Option<GroupConfig>,
    pub(super) revoked: HashMap<UserId, Timestamp>,
    /// What is called instead of being carried out.
    pub(super) refuse_activation: Option<Code>,
    pub(super) refuse_configurations: Option<Code>,
    pub(super) refuse_connect: Option<Problem>,
    pub(super) refuse_attaches: Vec<Code>,
    pub(super) hold_answers: bool,
    pub(super) forget_before: u64,
    pub(super) running: Option<String>,
    pub(super) busy: bool,
    pub(super) cut_replay_after: Option<usize>,
    pub(super) counts: Counts,
    pub(super) roles: HashSet<String>,
    /// The frames that are neither attaches nor posts, as they came.
    pub(super) heard: Vec<serde_json::Value>,
    pub(super) epoch: u64,
    /// Whether the controller has yet to hear of the epoch, which an activation tells it.
    pub(super) epoch_is_unheard: bool,
    /// Whom the next message mentions.
    pub(super) mentions: Vec<ParticipantId>,
    pub(super) history_reads: usize,
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
            inner: Arc::new(Mutex::new(Inner { epoch: 1, ..Inner::default() })),
            app_keys: TrustedKeys::of(service::APP, &app.jwks()).unwrap(),
            own_keys: TrustedKeys::of(service::ORCHESTRATOR, &own.jwks()).unwrap(),
            signer: Signer::new(own, clock),
            replay: Arc::new(ReplayGuard::new(100_000)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Writes a message into the group, as if by another app's user.
    pub(super) fn say(&self, text: &str) -> u64 {
        self.inner.lock().say(text)
    }

    /// Writes a message that mentions somebody.
    pub(super) fn say_to(&self, user: &str, text: &str) -> u64 {
        let mut inner = self.inner.lock();
        inner.mentions = vec![ParticipantId::new(user).unwrap()];
        inner.say(text)
    }

    /// Adds an event that is no message.
    pub(super) fn event(&self, kind: EventKind) -> u64 {
        self.inner.lock().event(kind)
    }

    /// How often history was read.
    pub(super) fn history_reads(&self) -> usize {
        self.inner.lock().history_reads
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

    /// Raises the epoch, as who gives an archive up does before anybody tells the controller.
    pub(super) fn raise_epoch_unheard(&self, epoch: u64) {
        let mut inner = self.inner.lock();
        inner.epoch = epoch;
        inner.epoch_is_unheard = true;
    }

    /// Raises the epoch, as an operator does: every connection is detached, every token void.
    pub(super) fn raise_epoch(&self, epoch: u64) {
        let mut inner = self.inner.lock();
        inner.epoch = epoch;
        inner.conns.clear();
        let (reason, user_id) = (DetachReason::EpochRaised, None);
        inner.broadcast(&GroupFrame::Detached { reason, user_id }.encode());
    }

    /// Loses all upstreams.
    pub(super) fn cut(&self) {
        let mut inner = self.inner.lock();
        inner.upstreams.clear();
        inner.conns.clear();
        drop(inner);
        self.touch();
    }

    /// Ends the upstreams as a group does that nobody uses.
    pub(super) fn fall_asleep(&self) {
        self.close(frame::CLOSE_ASLEEP);
    }

    /// Ends the upstreams with a code.
    pub(super) fn close(&self, code: u16) {
        for close in self.inner.lock().closes.drain(..) {
            close.say(Close::new(code, ""));
        }
        self.cut();
    }

    pub(super) fn refuse_activation(&self, code: impl Into<Option<Code>>) {
        self.inner.lock().refuse_activation = code.into();
    }

    pub(super) fn refuse_configurations(&self, code: Option<Code>) {
        self.inner.lock().refuse_configurations = code;
    }

    pub(super) fn refuse_connect(&self, code: impl Into<Option<Code>>) {
        self.refuse_connect_with(code.into().map(Problem::from));
    }

    /// The same with what a problem says beside its code.
    pub(super) fn refuse_connect_with(&self, problem: impl Into<Option<Problem>>) {
        self.inner.lock().refuse_connect = problem.into();
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

    /// The frames that were neither attaches nor posts, without their `conn` and `ref`.
    pub(super) fn heard(&self) -> Vec<serde_json::Value> {
        let mut heard = self.inner.lock().heard.clone();
        for frame in &mut heard {
            let frame = frame.as_object_mut().unwrap();
            frame.remove("conn");
            frame.remove("ref");
        }
        heard
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

    pub(super) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.signer.now()
    }

    pub(super) fn link(&self, link: GroupLink) {
        let upstream = {
            let mut inner = self.inner.lock();
            inner.next_upstream += 1;
            let id = inner.next_upstream;
            inner.upstreams.insert(id, link.tx);
            inner.closes.push(link.close);
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
        let heard: serde_json::Value = serde_json::from_slice(frame).unwrap();
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
            UpstreamFrame::Approve { conn, r#ref, .. }
            | UpstreamFrame::Retry { conn, r#ref, .. }
            | UpstreamFrame::RunClaim { conn, r#ref, .. }
            | UpstreamFrame::RunText { conn, r#ref, .. }
            | UpstreamFrame::RunEnd { conn, r#ref, .. } => {
                let mut inner = self.inner.lock();
                if !inner.conns.contains_key(&(upstream, conn.clone())) {
                    return inner.refuse(upstream, &conn, r#ref, Code::NotAttached);
                }
                inner.heard.push(heard);
                let ok = GroupFrame::Ok { r#ref, seq: None, message_id: None };
                inner.send(upstream, &ok.encode_for(&conn));
            }
            UpstreamFrame::Continue { conn, r#ref, message_id, .. }
            | UpstreamFrame::Edit { conn, r#ref, message_id, .. }
            | UpstreamFrame::Delete { conn, r#ref, message_id }
            | UpstreamFrame::React { conn, r#ref, message_id, .. }
            | UpstreamFrame::Pin { conn, r#ref, message_id, .. } => {
                let mut inner = self.inner.lock();
                if !inner.conns.contains_key(&(upstream, conn.clone())) {
                    return inner.refuse(upstream, &conn, r#ref, Code::NotAttached);
                }
                if !inner.message_ids.contains_key(&message_id) {
                    return inner.refuse(upstream, &conn, r#ref, Code::MessageNotFound);
                }
                inner.heard.push(heard);
                let ok = GroupFrame::Ok { r#ref, seq: None, message_id: Some(message_id) };
                inner.send(upstream, &ok.encode_for(&conn));
            }
            UpstreamFrame::Typing { .. } => self.inner.lock().heard.push(heard),
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
            tools: Vec::new(),
        });
        let state = GroupState { runs: runs.collect(), ..GroupState::default() };
        let attached =
            GroupFrame::Attached { r#ref, seq, epoch: self.epoch, history: numbering(), state };
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

    /// Adds an event that is no message.
    fn event(&mut self, kind: EventKind) -> u64 {
        let seq = self.events.len() as u64 + 1;
        let record = Record::encode(&Event { seq, at: Timestamp::from_millis(1), kind });
        self.broadcast(&record.body);
        self.events.push(record.body);
        seq
    }

    fn post(&mut self, user: UserId, message_id: MessageId, text: String) -> u64 {
        let seq = self.events.len() as u64 + 1;
        self.message_ids.insert(message_id.clone(), seq);
        let nth = self.message_ids.len() as u64;
        let mentions = std::mem::take(&mut self.mentions);
        let kind = EventKind::MessagePosted(Posted {
            root: message_id.clone(),
            message_id,
            author: Author::User(user),
            hop: 0,
            nth,
            reply_to: None,
            run_id: None,
            mentions,
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

    pub(super) fn broadcast(&self, frame: &Bytes) {
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
