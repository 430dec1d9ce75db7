//! Commands over HTTP: each is a connection of its own for as long as it takes.
//!
//! A command may be sent again (after a lost upstream, a refused token, a withdrawal that leaves
//! the user in the group): each of them is harmless to repeat.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::{
    Code, ConnId, Problem, Ref, UserId,
    frame::{GroupFrame, UpstreamFrame},
    infra::RoutingToken,
    trace::TraceParent,
};
use tokio::sync::oneshot;

use super::{Done, Room, Upstream, conn::encode};
use crate::rooms::{
    Carried, GroupCommand, PostRequest,
    figures::Gauged,
    shared::{is_about_the_user, may_try_again},
};

/// Where the answer to a command goes.
pub(super) type Reply = oneshot::Sender<Result<Carried, Problem>>;

/// A command that waits for its answer.
pub(super) struct Waiting {
    pub(super) user: UserId,
    command: GroupCommand,
    /// The trace that it is followed in.
    pub(super) trace: Option<TraceParent>,
    /// Taken when it is answered.
    reply: Option<Reply>,
    /// How often its attach was refused for its token on this upstream.
    refusals: u32,
    /// Whether it is on its way to the group.
    sent: bool,
    /// Answers to come of commands that were sent behind an attach that did not hold.
    void_answers: u32,
    /// Counts it while it waits.
    _counted: Gauged,
}

impl Room {
    pub(super) fn ask(
        &mut self,
        user: UserId,
        command: GroupCommand,
        trace: Option<TraceParent>,
        reply: Reply,
    ) {
        let limit = self.shared.tuning.max_waiting;
        if self.waiting.len() >= limit {
            self.shared.counters.overloaded();
            let problem = Problem::new(Code::Overloaded).with("limit", limit);
            let _ = reply.send(Err(problem.with("retry_after_ms", 1000)));
            return;
        }
        self.recorder.seen(&user);
        let conn = ConnId::new(format!("p{}", self.next_waiting)).expect("a letter and a number");
        self.next_waiting += 1;
        let waiting = Waiting {
            user: user.clone(),
            command,
            trace,
            reply: Some(reply),
            refusals: 0,
            sent: false,
            void_answers: 0,
            _counted: Gauged::new(&self.shared, |counters| &counters.waiting),
        };
        self.waiting.insert(conn.clone(), waiting);
        match self.upstream {
            Upstream::Open(..) => self.fetch_token(conn, user),
            Upstream::Closed | Upstream::Opening => self.open_if_needed(),
        }
    }

    /// Sends all commands on an upstream that was just opened.
    pub(super) fn start_waiting(&mut self) {
        let all = self.waiting.iter().map(|(conn, waiting)| (conn.clone(), waiting.user.clone()));
        for (conn, user) in all.collect::<Vec<_>>() {
            self.fetch_token(conn, user);
        }
    }

    pub(super) fn waiting_token(
        &mut self,
        conn: &ConnId,
        result: Result<Option<RoutingToken>, Problem>,
    ) {
        let token = match result {
            Ok(Some(token)) => token,
            Ok(None) => return self.answer(conn, Err(Problem::new(Code::Forbidden))),
            Err(problem) => return self.answer(conn, Err(problem)),
        };
        let Some(waiting) = self.waiting.get_mut(conn) else { return };
        if waiting.sent {
            return;
        }
        waiting.sent = true;
        let frame = frame_of(conn, &waiting.command, waiting.trace);
        let attach = encode(&UpstreamFrame::Attach {
            conn: conn.clone(),
            r#ref: attach_ref(),
            token: token.routing_token,
            after: None,
            history: None,
            render: None,
        });
        match self.send_up(attach).and_then(|()| self.send_up(encode(&frame))) {
            Ok(()) => {}
            Err(Code::Overloaded) => {
                self.shared.counters.overloaded();
                self.detach_up(conn);
                let problem = Problem::new(Code::Overloaded).with("retry_after_ms", 1000);
                self.answer(conn, Err(problem));
            }
            // The upstream was lost while the token was fetched: the command is sent on the next one.
            Err(_) => {
                if let Some(waiting) = self.waiting.get_mut(conn) {
                    waiting.sent = false;
                }
            }
        }
    }

    pub(super) fn waiting_answer(&mut self, conn: &ConnId, frame: &Bytes) {
        let Ok(frame) = serde_json::from_slice::<GroupFrame>(frame) else { return };
        let Some(waiting) = self.waiting.get_mut(conn) else { return };
        match frame {
            GroupFrame::Ok { r#ref, seq, message_id } if r#ref == command_ref() => {
                let message_id = message_id.or_else(|| waiting.command.message_id().cloned());
                self.detach_up(conn);
                self.answer(conn, Ok(Carried { seq, message_id }));
            }
            GroupFrame::Error { r#ref, code, detail, retry_after_ms, .. } => {
                let of_attach = r#ref == Some(attach_ref());
                if !of_attach && code == Code::NotAttached && waiting.void_answers > 0 {
                    // The answer to the command behind an attach that did not hold.
                    waiting.void_answers -= 1;
                    return;
                }
                if of_attach && is_about_the_user(code) && may_try_again(waiting.refusals, code) {
                    return self.ask_again(conn, code);
                }
                self.detach_up(conn);
                let mut problem = Problem::new(code);
                problem.detail = detail;
                if let Some(millis) = retry_after_ms {
                    problem = problem.with("retry_after_ms", millis);
                }
                self.answer(conn, Err(problem));
            }
            GroupFrame::Detached { .. } => self.waiting_detached(conn),
            GroupFrame::Presence { .. }
            | GroupFrame::Typing { .. }
            | GroupFrame::Attached { .. }
            | GroupFrame::Ok { .. }
            | GroupFrame::Reset { .. }
            | GroupFrame::Delta { .. } => {}
        }
    }

    /// A command's connection left the group before its answer came: it is asked again, as whoever
    /// its user is by now.
    pub(super) fn waiting_detached(&mut self, conn: &ConnId) {
        let Some(waiting) = self.waiting.get(conn) else { return };
        if !waiting.sent {
            return;
        }
        if may_try_again(waiting.refusals, Code::AccessRevoked) {
            self.ask_again(conn, Code::StaleEpoch);
        } else {
            self.answer(conn, Err(Problem::new(Code::AccessRevoked)));
        }
    }

    /// All commands of a user, or of everybody, whose connections left the group.
    pub(super) fn all_waiting_detached(&mut self, user: Option<&UserId>) {
        let theirs = self.waiting.iter().filter(|(_, w)| user.is_none_or(|user| w.user == *user));
        for conn in theirs.map(|(conn, _)| conn.clone()).collect::<Vec<_>>() {
            self.waiting_detached(&conn);
        }
    }

    fn ask_again(&mut self, conn: &ConnId, code: Code) {
        let Some(waiting) = self.waiting.get_mut(conn) else { return };
        waiting.refusals += 1;
        waiting.sent = false;
        waiting.void_answers += 1;
        let user = waiting.user.clone();
        self.shared.withdraw_token(&self.group, &user);
        if code != Code::AccessRevoked {
            return self.fetch_token(conn.clone(), user);
        }
        let pause = self.shared.tuning.after_revocation;
        let (shared, group, conn) = (Arc::clone(&self.shared), self.group.clone(), conn.clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            let result = shared.token(&group, &user).await;
            Done::Token { conn, result }
        });
    }

    fn answer(&mut self, conn: &ConnId, answer: Result<Carried, Problem>) {
        if let Some(reply) = self.waiting.remove(conn).and_then(|waiting| waiting.reply) {
            let _ = reply.send(answer);
        }
    }

    pub(super) fn fail_waiting(&mut self, problem: &Problem) {
        for (_, waiting) in self.waiting.drain() {
            if let Some(reply) = waiting.reply {
                let _ = reply.send(Err(problem.clone()));
            }
        }
    }

    /// Lets commands be sent again on the next upstream.
    pub(super) fn restart_waiting(&mut self) {
        for waiting in self.waiting.values_mut() {
            (waiting.refusals, waiting.void_answers, waiting.sent) = (0, 0, false);
        }
    }

    /// Takes out the commands whose callers no longer wait.
    pub(super) fn forget_abandoned(&mut self) {
        let abandoned = |waiting: &Waiting| waiting.reply.as_ref().is_none_or(|r| r.is_closed());
        let gone = self.waiting.iter().filter(|(_, waiting)| abandoned(waiting));
        for conn in gone.map(|(conn, _)| conn.clone()).collect::<Vec<_>>() {
            self.waiting.remove(&conn);
            self.detach_up(&conn);
        }
    }
}

fn frame_of(
    conn: &ConnId,
    command: &GroupCommand,
    traceparent: Option<TraceParent>,
) -> UpstreamFrame {
    let (conn, r#ref) = (conn.clone(), command_ref());
    match command.clone() {
        GroupCommand::Post(PostRequest { message_id, text, mentions, reply_to }) => {
            UpstreamFrame::Post { conn, r#ref, message_id, text, mentions, reply_to, traceparent }
        }
        GroupCommand::Edit { message_id, text } => {
            UpstreamFrame::Edit { conn, r#ref, message_id, text }
        }
        GroupCommand::Delete { message_id } => UpstreamFrame::Delete { conn, r#ref, message_id },
        GroupCommand::React { message_id, emoji, on } => {
            UpstreamFrame::React { conn, r#ref, message_id, emoji, on }
        }
        GroupCommand::Pin { message_id, on } => UpstreamFrame::Pin { conn, r#ref, message_id, on },
        GroupCommand::Cancel { run_id } => UpstreamFrame::Cancel { conn, r#ref, run_id },
        GroupCommand::Retry { run_id } => UpstreamFrame::Retry { conn, r#ref, run_id },
        GroupCommand::Approve { approval_id, decision } => {
            UpstreamFrame::Approve { conn, r#ref, approval_id, decision }
        }
        GroupCommand::Continue { message_id, agent_id } => {
            UpstreamFrame::Continue { conn, r#ref, message_id, agent_id }
        }
    }
}

fn attach_ref() -> Ref {
    Ref::new("attach").expect("letters are a ref")
}

fn command_ref() -> Ref {
    Ref::new("command").expect("letters are a ref")
}
