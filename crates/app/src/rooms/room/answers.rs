//! What comes from the group: broadcasts for everybody, answers for one connection.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::{
    Code, ConnId, HistoryId, Ref, UserId,
    frame::{DetachReason, GroupFrame},
    infra::GroupStatus,
};

use super::{
    Done, Room,
    conn::{Attach, Purpose, Replay},
    error_frame,
};
use crate::rooms::{
    fanout::{Action, Batch},
    html::event_seq,
    ws::CloseCode,
};

const DELTA_START: &[u8] = b"{\"type\":\"delta\"";

impl Room {
    pub(super) fn fan_out(&mut self, frames: &mut Vec<Bytes>) {
        frames.iter().for_each(|frame| self.recorder.hear(frame));
        let mut batch = self.fanout.prepare(frames);
        for (at, action) in batch.take_actions() {
            match action {
                Action::Directed(conn, frame) => self.directed(&batch, at, &conn, &frame),
                Action::UserDetached(user) => self.user_detached(&batch, at, &user),
                Action::AllDetached => self.all_detached(&batch, at),
            }
        }
        self.fanout.flush(&batch);
        for conn in self.fanout.take_gone() {
            self.remove(&conn);
        }
        self.record();
    }

    fn directed(&mut self, batch: &Batch, at: usize, conn: &ConnId, frame: &Bytes) {
        if self.waiting.contains_key(conn) {
            return self.waiting_answer(conn, frame);
        }
        let Some(state) = self.conns.get_mut(conn) else { return };
        if let Some(seq) = event_seq(frame) {
            state.replay = state.replay.and_then(|replay| {
                let upto = replay.upto;
                (seq < upto).then_some(Replay { seen: seq, upto })
            });
            return self.fanout.direct(batch, at, conn, frame);
        }
        if frame.starts_with(DELTA_START) {
            if !state.has_deltas {
                self.fanout.direct(batch, at, conn, frame);
            }
            return;
        }
        let Ok(parsed) = serde_json::from_slice::<GroupFrame>(frame) else {
            return self.fanout.direct(batch, at, conn, frame);
        };
        match parsed {
            GroupFrame::Attached { r#ref, seq, history, state, .. } => {
                self.recorder.attached(&history, state.runs);
                self.attached(batch, at, conn, frame, &r#ref, seq, history);
            }
            GroupFrame::Error { r#ref: Some(r#ref), code, .. } => {
                self.refused(batch, at, conn, frame, &r#ref, code);
            }
            GroupFrame::Reset { r#ref, .. } => {
                match self.take_sent(conn, &r#ref).map(|attach| attach.purpose) {
                    Some(Purpose::Resume | Purpose::Renew) => self.close(conn, CloseCode::Restart),
                    Some(Purpose::Client) | None => self.fanout.direct(batch, at, conn, frame),
                }
            }
            GroupFrame::Detached { reason, .. } => {
                self.conn_detached(batch, at, conn, frame, reason);
            }
            GroupFrame::Ok { r#ref, .. } => {
                state.answered(&r#ref);
                self.fanout.direct(batch, at, conn, frame);
            }
            GroupFrame::Error { r#ref: None, .. }
            | GroupFrame::Delta { .. }
            | GroupFrame::Presence { .. }
            | GroupFrame::Typing { .. } => {
                self.fanout.direct(batch, at, conn, frame);
            }
        }
    }

    /// The attach that an answer belongs to: the first that is not answered, since answers come in
    /// the order of their attaches.
    fn take_sent(&mut self, conn: &ConnId, r#ref: &Ref) -> Option<Attach> {
        let state = self.conns.get_mut(conn)?;
        let answers_it = state.sent.front().is_some_and(|attach| attach.r#ref == *r#ref);
        if answers_it { state.sent.pop_front() } else { None }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame and its place")]
    fn attached(
        &mut self,
        batch: &Batch,
        at: usize,
        conn: &ConnId,
        frame: &Bytes,
        r#ref: &Ref,
        seq: u64,
        history: HistoryId,
    ) {
        let Some(attach) = self.take_sent(conn, r#ref) else { return };
        let other = self.history.as_ref() != Some(&history);
        if other && self.history.replace(history).is_some() {
            self.fanout.renumber();
        }
        let Some(state) = self.conns.get_mut(conn) else { return };
        if attach.purpose == Purpose::Renew {
            // One that fell out of the stream meanwhile is brought back by its own attach.
            state.has_deltas = state.attached;
            return;
        }
        state.attached = true;
        state.base = seq;
        state.has_deltas = false;
        let missed = attach.after.filter(|after| *after < seq);
        state.replay = missed.map(|seen| Replay { seen, upto: seq });
        if attach.purpose == Purpose::Client {
            self.fanout.direct(batch, at, conn, frame);
        }
        self.fanout.attach(conn, at);
    }

    fn refused(
        &mut self,
        batch: &Batch,
        at: usize,
        conn: &ConnId,
        frame: &Bytes,
        r#ref: &Ref,
        code: Code,
    ) {
        let Some(attach) = self.take_sent(conn, r#ref) else {
            let Some(state) = self.conns.get_mut(conn) else { return };
            state.answered(r#ref);
            if code == Code::NotAttached && state.is_resuming() {
                // The client has not left: we bring it back, and it may send the command again.
                let error = error_frame(Some(r#ref.clone()), Code::Unavailable, None);
                return self.fanout.direct(batch, at, conn, &error);
            }
            return self.fanout.direct(batch, at, conn, frame);
        };
        if self.retry(conn, attach.clone(), code) {
            return;
        }
        match (attach.purpose, code) {
            (Purpose::Client, _) => self.fanout.direct(batch, at, conn, frame),
            // The next tick tries again, until the group says that the token has expired.
            (Purpose::Renew, _) => {}
            (Purpose::Resume, Code::GroupArchived) => self.tell_archived(conn),
            (Purpose::Resume, Code::Forbidden | Code::AccessRevoked) => self.close_revoked(conn),
            // The client attaches anew and gets the same answer for its own numbers.
            (Purpose::Resume, Code::TooOld) => self.close(conn, CloseCode::Restart),
            (Purpose::Resume, _) => self.close(conn, CloseCode::Overloaded),
        }
    }

    fn conn_detached(
        &mut self,
        batch: &Batch,
        at: usize,
        conn: &ConnId,
        frame: &Bytes,
        reason: DetachReason,
    ) {
        self.fanout.detach(batch, at, conn);
        let Some(state) = self.conns.get_mut(conn) else { return };
        state.fall_out(batch.seq_at(at));
        match reason {
            DetachReason::Requested => self.fanout.direct(batch, at, conn, frame),
            DetachReason::TokenExpired | DetachReason::EpochRaised => {
                self.shared.withdraw_token(&self.group, &state.user);
                self.resume(conn);
            }
            // The client stays: it reads, and its next attach is told how the group stands then.
            DetachReason::GroupArchived => {
                self.shared.withdraw_token(&self.group, &state.user);
                self.fanout.direct(batch, at, conn, frame);
                self.frozen();
            }
            DetachReason::Revoked => {
                self.fanout.direct(batch, at, conn, frame);
                self.close(conn, CloseCode::Revoked);
            }
        }
    }

    /// The group is on its way into the archive, which the workspace hears once.
    fn frozen(&mut self) {
        if std::mem::replace(&mut self.is_frozen, true) {
            return;
        }
        let (shared, group) = (Arc::clone(&self.shared), self.group.clone());
        self.tasks.spawn(async move {
            let noted = shared.config.groups.stands(&group, GroupStatus::Archiving).await;
            if let Err(problem) = noted {
                tracing::warn!(%group, code = problem.code.as_str(), "a freeze was not noted");
            }
            Done::Noted
        });
    }

    /// What a user was allowed until now was withdrawn: the sockets get what came before, and
    /// nothing after. Who has lost access is closed; who has another role comes back with it.
    fn user_detached(&mut self, batch: &Batch, at: usize, user: &UserId) {
        self.shared.withdraw_token(&self.group, user);
        for conn in self.fanout.of_user(user) {
            self.fall_out_and_resume(batch, at, &conn);
        }
        self.all_waiting_detached(Some(user));
    }

    /// The epoch was raised: every token is void, and whoever still has access comes back with a
    /// new one.
    fn all_detached(&mut self, batch: &Batch, at: usize) {
        for conn in self.conns.keys().cloned().collect::<Vec<_>>() {
            self.fall_out_and_resume(batch, at, &conn);
        }
        self.all_waiting_detached(None);
    }

    fn fall_out_and_resume(&mut self, batch: &Batch, at: usize, conn: &ConnId) {
        self.fanout.detach(batch, at, conn);
        let Some(state) = self.conns.get_mut(conn) else { return };
        self.shared.withdraw_token(&self.group, &state.user);
        // One whose attach is on its way gets the answer to it: a refusal, which is tried again.
        if state.attached {
            state.fall_out(batch.seq_at(at));
            self.resume(conn);
        }
    }
}
