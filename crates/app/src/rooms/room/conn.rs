//! One client's connection: how it gets into the group's stream and stays there.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use convene_hop::trace::{self, Origin, Span};
use convene_model::{
    Code, ConnId, HistoryId, Problem, Ref, Timestamp, UserId,
    claims::service,
    frame::{ClientFrame, DetachReason, GroupFrame, UpstreamFrame, with_conn, with_trace},
    infra::RoutingToken,
    limits::TYPING_PAUSE,
};
use uuid::Uuid;

use super::{Done, Room, Upstream, Who, error_frame, problem_frame, wants_html};
use crate::rooms::{
    NO_HISTORY,
    outbound::Outbound,
    shared::{is_about_the_user, may_try_again},
    tuning::{MAX_QUEUED_FRAMES, MAX_UNANSWERED, RECONNECT_FIRST, RENEW_BEFORE},
    ws::CloseCode,
};

/// One client's connection.
pub(super) struct Conn {
    pub(super) user: UserId,
    /// Whether it is an agent's own process.
    is_agent: bool,
    pub(super) outbound: Arc<Outbound>,
    /// The attach that is not sent yet: it waits for the upstream or for a token.
    pub(super) want: Option<Attach>,
    /// Whether a task beside the room works for `want`.
    pub(super) busy: bool,
    /// Attaches that the group has not answered, in order.
    pub(super) sent: VecDeque<Attach>,
    /// What the client sent after an attach that is not sent yet.
    pub(super) queue: VecDeque<Queued>,
    /// Commands that the group has not answered.
    pub(super) unanswered: Vec<Ref>,
    /// Marks that are not recorded yet.
    pub(super) reads: usize,
    /// Whether the client ever asked to be attached.
    asked: bool,
    pub(super) attached: bool,
    /// What it had seen when it was attached last.
    pub(super) base: u64,
    /// What of a replay is still to come.
    pub(super) replay: Option<Replay>,
    renew_at: Timestamp,
    /// When the client last said that its user is writing.
    typing_at: Option<Timestamp>,
    /// Whether it has the texts of running replies already, so that their repetition is kept back.
    pub(super) has_deltas: bool,
}

/// An attach on its way to the group.
#[derive(Debug, Clone)]
pub(super) struct Attach {
    pub(super) purpose: Purpose,
    pub(super) r#ref: Ref,
    pub(super) after: Option<u64>,
    pub(super) history: Option<HistoryId>,
    /// How often it was refused for its token.
    pub(super) refusals: u32,
}

/// Who wants an attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The client; it gets the answer.
    Client,
    /// We, since the connection fell out of the stream; the client gets what it missed.
    Resume,
    /// We, before the token expires.
    Renew,
}

/// What a client sent.
pub(super) enum Queued {
    Attach(Attach),
    Command(Ref, Bytes),
}

/// A replay under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay {
    pub(super) seen: u64,
    pub(super) upto: u64,
}

impl Conn {
    /// The last event that the client has, when `fanned_out` is the last that all have.
    pub(super) fn seen(&self, fanned_out: u64) -> u64 {
        match self.replay {
            Some(replay) => replay.seen,
            None if self.attached => self.base.max(fanned_out),
            None => self.base,
        }
    }

    /// Notes that the connection is out of the stream.
    pub(super) fn fall_out(&mut self, fanned_out: u64) {
        self.base = self.seen(fanned_out);
        self.replay = None;
        self.attached = false;
    }

    fn waits_for_attach(&self) -> bool {
        self.want.as_ref().is_some_and(|attach| attach.purpose != Purpose::Renew)
    }

    /// Whether it fell out of the stream and is on its way back.
    pub(super) fn is_resuming(&self) -> bool {
        let resumes = |attach: &Attach| attach.purpose == Purpose::Resume;
        self.want.as_ref().is_some_and(resumes) || self.sent.iter().any(resumes)
    }

    pub(super) fn answered(&mut self, r#ref: &Ref) {
        if let Some(place) = self.unanswered.iter().position(|open| open == r#ref) {
            self.unanswered.remove(place);
        }
    }
}

impl Attach {
    pub(super) fn ours(purpose: Purpose, after: Option<u64>, history: Option<HistoryId>) -> Self {
        let r#ref = Ref::new(format!("app-{}", Uuid::new_v4().simple()))
            .expect("letters, digits and a hyphen are a ref");
        Self { purpose, r#ref, after, history, refusals: 0 }
    }
}

impl Room {
    pub(super) fn join(&mut self, conn: ConnId, who: Who, outbound: Arc<Outbound>) {
        let Who { user, is_agent } = who;
        self.recorder.seen(&user);
        self.fanout.join(conn.clone(), user.clone(), Arc::clone(&outbound));
        let state = Conn {
            user,
            is_agent,
            outbound,
            want: None,
            busy: false,
            sent: VecDeque::new(),
            queue: VecDeque::new(),
            unanswered: Vec::new(),
            reads: 0,
            asked: false,
            attached: false,
            base: 0,
            replay: None,
            renew_at: Timestamp::ZERO,
            typing_at: None,
            has_deltas: false,
        };
        self.conns.insert(conn, state);
    }

    /// Takes a connection out, here and in the group.
    pub(super) fn remove(&mut self, conn: &ConnId) {
        self.fanout.leave(conn);
        if self.conns.remove(conn).is_some_and(|state| state.asked) {
            self.detach_up(conn);
        }
    }

    pub(super) fn detach_up(&self, conn: &ConnId) {
        let r#ref = Ref::new("gone").expect("letters are a ref");
        // A full queue is no loss: the group detaches the connection when its token expires.
        let _ = self.send_up(encode(&UpstreamFrame::Detach { conn: conn.clone(), r#ref }));
    }

    /// Ends a connection with a close frame.
    pub(super) fn close(&mut self, conn: &ConnId, code: CloseCode) {
        if let Some(state) = self.conns.get(conn) {
            state.outbound.close(code);
        }
        self.remove(conn);
    }

    /// Ends a connection of a user without access.
    pub(super) fn close_revoked(&mut self, conn: &ConnId) {
        let detached = GroupFrame::Detached { reason: DetachReason::Revoked, user_id: None };
        if let Some(state) = self.conns.get(conn) {
            state.outbound.send_text(&detached.encode());
        }
        self.close(conn, CloseCode::Revoked);
    }

    /// Lets a connection know that its group is archived, as it could not be brought back. It stays
    /// open, since the client reads and may attach again.
    pub(super) fn tell_archived(&self, conn: &ConnId) {
        let detached = GroupFrame::Detached { reason: DetachReason::GroupArchived, user_id: None };
        if let Some(state) = self.conns.get(conn) {
            state.outbound.send_text(&detached.encode());
        }
    }

    pub(super) fn drop_user(&mut self, user: &UserId) {
        for conn in self.fanout.of_user(user) {
            self.close_revoked(&conn);
        }
    }

    pub(super) fn client_frame(&mut self, conn: &ConnId, frame: ClientFrame, raw: Bytes) {
        let queued = match frame {
            ClientFrame::Attach { r#ref, after, history, render } => {
                self.fanout.set_html(conn, wants_html(render));
                // The page of a group that was never activated names no numbering.
                let history = history.filter(|history| history.as_str() != NO_HISTORY);
                let (purpose, refusals) = (Purpose::Client, 0);
                Queued::Attach(Attach { purpose, r#ref, after, history, refusals })
            }
            ClientFrame::Post { r#ref, .. } => Queued::Command(r#ref, self.traced(raw)),
            ClientFrame::Detach { r#ref }
            | ClientFrame::Cancel { r#ref, .. }
            | ClientFrame::Approve { r#ref, .. }
            | ClientFrame::Continue { r#ref, .. }
            | ClientFrame::Retry { r#ref, .. }
            | ClientFrame::RunClaim { r#ref, .. }
            | ClientFrame::RunText { r#ref, .. }
            | ClientFrame::RunEnd { r#ref, .. }
            | ClientFrame::Edit { r#ref, .. }
            | ClientFrame::Delete { r#ref, .. }
            | ClientFrame::React { r#ref, .. }
            | ClientFrame::Pin { r#ref, .. } => Queued::Command(r#ref, raw),
            ClientFrame::Read { r#ref, up_to } => {
                let Some(state) = self.conns.get(conn) else { return };
                if state.is_agent {
                    let detail = Some("what was read is noted for people".to_owned());
                    let error = error_frame(Some(r#ref), Code::Forbidden, detail);
                    state.outbound.send_text(&error);
                    return;
                }
                return self.read(conn, r#ref, up_to);
            }
            ClientFrame::Typing {} => return self.typing(conn, &raw),
        };
        let Some(state) = self.conns.get_mut(conn) else { return };
        if state.waits_for_attach() && state.queue.len() >= MAX_QUEUED_FRAMES {
            let r#ref = match queued {
                Queued::Attach(Attach { r#ref, .. }) | Queued::Command(r#ref, _) => r#ref,
            };
            self.shared.counters.overloaded();
            state.outbound.send_text(&error_frame(Some(r#ref), Code::Overloaded, None));
            return;
        }
        state.queue.push_back(queued);
        self.advance(conn);
    }

    /// A post with the trace that it is followed in from here on, where it is.
    fn traced(&self, post: Bytes) -> Bytes {
        let mut span = Span::begin(service::APP, "post", Origin::Outside(None));
        let Some(trace) = span.context() else { return post };
        span.note("group.id", &self.group);
        with_trace(trace, &post)
    }

    /// Carries out what the client sent, up to an attach that has to wait.
    pub(super) fn advance(&mut self, conn: &ConnId) {
        while let Some(state) = self.conns.get_mut(conn) {
            if state.waits_for_attach() {
                break;
            }
            match state.queue.pop_front() {
                Some(Queued::Attach(attach)) => {
                    state.want = Some(attach);
                    self.attach_now_if_free(conn);
                }
                Some(Queued::Command(r#ref, raw)) => self.forward(conn, r#ref, &raw),
                None => break,
            }
        }
    }

    fn forward(&mut self, conn: &ConnId, r#ref: Ref, raw: &Bytes) {
        let sent = match self.conns.get(conn) {
            None => return,
            Some(state) if !state.asked => Err(Code::NotAttached),
            Some(state) if state.unanswered.len() >= MAX_UNANSWERED => Err(Code::Overloaded),
            Some(_) => self.send_up(with_conn(conn, raw)),
        };
        let Some(state) = self.conns.get_mut(conn) else { return };
        match sent {
            Ok(()) => state.unanswered.push(r#ref),
            Err(code) => {
                if code == Code::Overloaded {
                    self.shared.counters.overloaded();
                }
                state.outbound.send_text(&error_frame(Some(r#ref), code, None));
            }
        }
    }

    /// Passes on that the user is writing, unless that was said a moment ago. It is no command: it
    /// is not answered, and it waits for nothing.
    fn typing(&mut self, conn: &ConnId, raw: &Bytes) {
        let now = self.shared.now();
        let Some(state) = self.conns.get_mut(conn) else { return };
        let just_said = state.typing_at.is_some_and(|said| now.since(said) < TYPING_PAUSE);
        if !state.attached || just_said {
            return;
        }
        state.typing_at = Some(now);
        // What does not fit now is said again in a moment.
        let _ = self.send_up(with_conn(conn, raw));
    }

    fn attach_now_if_free(&mut self, conn: &ConnId) {
        if self.conns.get(conn).is_some_and(|state| !state.busy) {
            self.attach_now(conn);
        }
    }

    /// Starts what a wanted attach needs: the upstream, then a token.
    pub(super) fn attach_now(&mut self, conn: &ConnId) {
        let Some(state) = self.conns.get_mut(conn) else { return };
        state.busy = false;
        if state.want.is_none() {
            return;
        }
        match self.upstream {
            Upstream::Open(..) => {
                state.busy = true;
                let user = state.user.clone();
                self.fetch_token(conn.clone(), user);
            }
            Upstream::Closed | Upstream::Opening => self.open_if_needed(),
        }
    }

    pub(super) fn fetch_token(&mut self, conn: ConnId, user: UserId) {
        let (shared, group) = (Arc::clone(&self.shared), self.group.clone());
        let trace = self.waiting.get(&conn).and_then(|waiting| waiting.trace);
        self.tasks.spawn(async move {
            let result = trace::within(trace, shared.token(&group, &user)).await;
            Done::Token { conn, result }
        });
    }

    pub(super) fn attach_token(
        &mut self,
        conn: &ConnId,
        result: Result<Option<RoutingToken>, Problem>,
    ) {
        let now = self.shared.now();
        let Some(state) = self.conns.get_mut(conn) else { return };
        state.busy = false;
        let Some(attach) = state.want.take() else { return };
        match result {
            Ok(Some(token)) => self.send_attach(conn, attach, &token),
            Ok(None) => {
                if attach.purpose == Purpose::Client {
                    let error = error_frame(Some(attach.r#ref), Code::Forbidden, None);
                    state.outbound.send_text(&error);
                }
                self.close_revoked(conn);
            }
            Err(problem) => match attach.purpose {
                Purpose::Client => {
                    let error = problem_frame(Some(attach.r#ref), &problem, now);
                    state.outbound.send_text(&error);
                    self.advance(conn);
                }
                Purpose::Resume if problem.status >= 500 || problem.status == 429 => {
                    state.want = Some(attach);
                    self.attach_later(conn, RECONNECT_FIRST * 5);
                }
                Purpose::Resume if problem.code == Code::GroupArchived => {
                    self.tell_archived(conn);
                    self.advance(conn);
                }
                Purpose::Resume => {
                    state.outbound.send_text(&problem_frame(None, &problem, now));
                    self.close(conn, CloseCode::Refused);
                }
                // The next tick tries again, until the group says that the token has expired.
                Purpose::Renew => {}
            },
        }
    }

    fn send_attach(&mut self, conn: &ConnId, attach: Attach, token: &RoutingToken) {
        if !matches!(self.upstream, Upstream::Open(..)) {
            if let Some(state) = self.conns.get_mut(conn) {
                state.want = Some(attach);
            }
            return self.open_if_needed();
        }
        let sent = self.send_up(encode(&UpstreamFrame::Attach {
            conn: conn.clone(),
            r#ref: attach.r#ref.clone(),
            token: token.routing_token.clone(),
            after: attach.after,
            history: attach.history.clone(),
            render: None,
        }));
        let Some(state) = self.conns.get_mut(conn) else { return };
        match (sent, attach.purpose) {
            (Ok(()), _) => {
                state.asked = true;
                state.renew_at = token.expires_at - RENEW_BEFORE;
                state.sent.push_back(attach);
            }
            // The upstream is lost, which is noticed at the next turn.
            (Err(Code::Unavailable), _) => state.want = Some(attach),
            (Err(code), Purpose::Client) => {
                state.outbound.send_text(&error_frame(Some(attach.r#ref), code, None));
            }
            (Err(_), Purpose::Resume) => return self.close(conn, CloseCode::Overloaded),
            (Err(_), Purpose::Renew) => {}
        }
        self.advance(conn);
    }

    /// Asks for an attach of our own. What the client asked for meanwhile comes after it.
    pub(super) fn attach_ours(&mut self, conn: &ConnId, attach: Attach) {
        let Some(state) = self.conns.get_mut(conn) else { return };
        if let Some(former) = state.want.take().filter(|want| want.purpose == Purpose::Client) {
            state.queue.push_front(Queued::Attach(former));
        }
        state.want = Some(attach);
        self.attach_now_if_free(conn);
    }

    /// Brings a connection back that fell out of the stream.
    pub(super) fn resume(&mut self, conn: &ConnId) {
        let Some(state) = self.conns.get(conn) else { return };
        let attach = Attach::ours(Purpose::Resume, Some(state.base), self.history.clone());
        self.attach_ours(conn, attach);
    }

    pub(super) fn renew_due(&mut self) {
        let now = self.shared.now();
        let due = |state: &Conn| {
            let under_way = state.sent.iter().any(|attach| attach.purpose != Purpose::Client);
            state.attached && state.want.is_none() && !under_way && state.renew_at <= now
        };
        let due: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, state)| due(state))
            .map(|(conn, _)| conn.clone())
            .collect();
        for conn in due {
            self.attach_ours(&conn, Attach::ours(Purpose::Renew, None, None));
        }
    }

    /// Tries an attach again that was refused for its token, with a new token.
    pub(super) fn retry(&mut self, conn: &ConnId, mut attach: Attach, code: Code) -> bool {
        if !is_about_the_user(code) || !may_try_again(attach.refusals, code) {
            return false;
        }
        let Some(state) = self.conns.get_mut(conn) else { return true };
        attach.refusals += 1;
        self.shared.withdraw_token(&self.group, &state.user);
        // A later attach of the client comes after this one, as it was sent.
        if let Some(later) = state.want.replace(attach).filter(|l| l.purpose == Purpose::Client) {
            state.queue.push_front(Queued::Attach(later));
        }
        if code == Code::AccessRevoked {
            let pause = self.shared.tuning.after_revocation;
            self.attach_later(conn, pause);
        } else {
            self.attach_now_if_free(conn);
        }
        true
    }

    fn attach_later(&mut self, conn: &ConnId, pause: std::time::Duration) {
        let Some(state) = self.conns.get_mut(conn).filter(|state| !state.busy) else { return };
        state.busy = true;
        let conn = conn.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            Done::AttachNow { conn }
        });
    }
}

pub(super) fn encode(frame: &UpstreamFrame) -> Bytes {
    serde_json::to_vec(frame).expect("frames have only text keys").into()
}
