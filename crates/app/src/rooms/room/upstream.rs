//! Opening the upstream, and opening it again when it is lost.

use std::{collections::HashSet, sync::Arc};

use convene_hop::{GroupLink, trace};
use convene_model::{
    Code, ConnId, Problem, UserId,
    frame::{CLOSE_ASLEEP, CLOSE_EPOCH_RAISED},
};

use super::{
    Done, Room, Upstream,
    conn::{Attach, Purpose, Queued},
    error_frame, problem_frame,
};
use crate::rooms::{figures::Gauged, shared::jittered, tuning::RECONNECT_MAX, ws::CloseCode};

/// Whose routing tokens are tried for one upgrade at most.
const MAX_CANDIDATES: usize = 8;

impl Room {
    /// Opens the upstream if somebody waits for it.
    pub(super) fn open_if_needed(&mut self) {
        match self.upstream {
            Upstream::Closed => {}
            Upstream::Opening | Upstream::Open(..) => return,
        }
        let waiting = self.conns.values().filter(|conn| conn.want.is_some());
        let asking = self.waiting.values().map(|waiting| &waiting.user);
        let users: HashSet<&UserId> = waiting.map(|conn| &conn.user).chain(asking).collect();
        if users.is_empty() {
            return;
        }
        let users: Vec<UserId> = users.into_iter().take(MAX_CANDIDATES).cloned().collect();
        self.upstream = Upstream::Opening;
        self.attempts += 1;
        let (shared, group) = (Arc::clone(&self.shared), self.group.clone());
        let trace = self.waiting.values().find_map(|waiting| waiting.trace);
        self.tasks.spawn(async move {
            Done::Opened(trace::within(trace, shared.open(&group, &users)).await)
        });
    }

    pub(super) fn opened(&mut self, link: GroupLink) {
        tracing::debug!(group = %self.group, "the upstream is open");
        self.upstream =
            Upstream::Open(link, Gauged::new(&self.shared, |counters| &counters.upstreams));
        self.is_frozen = false;
        // What was said before it was open is read from the history.
        self.recorder.missed();
        self.record();
        let waiting: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, state)| state.want.is_some() && !state.busy)
            .map(|(conn, _)| conn.clone())
            .collect();
        for conn in waiting {
            self.attach_now(&conn);
        }
        self.start_waiting();
    }

    pub(super) fn not_opened(&mut self, problem: &Problem) {
        let for_good = problem.status < 500 && problem.status != 429 && problem.status != 401;
        tracing::warn!(
            group = %self.group, code = problem.code.as_str(), detail = problem.detail,
            attempts = self.attempts, "the upstream could not be opened"
        );
        self.fail_waiting(problem);
        let conns: Vec<ConnId> = self.conns.keys().cloned().collect();
        let mut resuming = false;
        for conn in conns {
            resuming |= self.refuse_waiting(&conn, problem, for_good);
        }
        if resuming {
            self.reopen_later();
        } else {
            self.upstream = Upstream::Closed;
            self.attempts = 0;
        }
    }

    /// Answers what a client waits for. Returns whether its connection is still to be resumed.
    fn refuse_waiting(&mut self, conn: &ConnId, problem: &Problem, for_good: bool) -> bool {
        let now = self.shared.now();
        let Some(state) = self.conns.get_mut(conn) else { return false };
        let resuming = state.want.as_ref().is_some_and(|want| want.purpose == Purpose::Resume);
        let error = |r#ref| problem_frame(r#ref, problem, now);
        if resuming && !for_good {
            return true;
        }
        if resuming && problem.code == Code::GroupArchived {
            state.want = None;
            self.tell_archived(conn);
        } else if resuming {
            state.outbound.send_text(&error(None));
            let code = if problem.code == Code::Forbidden {
                CloseCode::Revoked
            } else if problem.code == Code::EgressExhausted {
                CloseCode::Overloaded
            } else {
                CloseCode::Refused
            };
            self.close(conn, code);
            return false;
        }
        let Some(state) = self.conns.get_mut(conn) else { return false };
        if let Some(Attach { r#ref, .. }) = state.want.take() {
            state.outbound.send_text(&error(Some(r#ref)));
        }
        for queued in state.queue.drain(..) {
            let frame = match queued {
                Queued::Attach(attach) => error(Some(attach.r#ref)),
                Queued::Command(r#ref, _) => error_frame(Some(r#ref), Code::NotAttached, None),
            };
            state.outbound.send_text(&frame);
        }
        false
    }

    /// The upstream is lost: everybody falls out of the stream and is brought back where they were.
    pub(super) fn upstream_lost(&mut self) {
        let lost = std::mem::replace(&mut self.upstream, Upstream::Closed);
        if was_let_go(&lost) {
            // No fault: whoever wants the group next opens a new one at once.
            tracing::debug!(group = %self.group, "the group has let its upstream go");
            self.attempts = 0;
        } else {
            tracing::info!(group = %self.group, sockets = self.conns.len(), "the upstream is lost");
        }
        drop(lost);
        self.fanout.detach_all();
        self.recorder.missed();
        self.restart_waiting();
        let fanned_out = self.fanout.last_seq();
        let conns: Vec<ConnId> = self.conns.keys().cloned().collect();
        for conn in &conns {
            self.fall_out(conn, fanned_out);
        }
        if self.attempts == 0 {
            self.open_if_needed();
        } else if self.conns.values().any(|conn| conn.want.is_some()) || !self.waiting.is_empty() {
            // It was lost soon after it was opened.
            self.reopen_later();
        }
    }

    fn fall_out(&mut self, conn: &ConnId, fanned_out: u64) {
        let Some(state) = self.conns.get_mut(conn) else { return };
        let resumes = |attach: &Attach| attach.purpose == Purpose::Resume;
        let resume = state.attached
            || state.want.as_ref().is_some_and(resumes)
            || state.sent.iter().any(resumes);
        state.fall_out(fanned_out);
        state.has_deltas = false;
        for r#ref in std::mem::take(&mut state.unanswered) {
            state.outbound.send_text(&error_frame(Some(r#ref), Code::Unavailable, None));
        }
        // The client's own attaches that got no answer are asked again, in their order.
        let asked = state.sent.drain(..).chain(state.want.take());
        let asked: Vec<_> = asked.filter(|attach| attach.purpose == Purpose::Client).collect();
        for attach in asked.into_iter().rev() {
            state.queue.push_front(Queued::Attach(attach));
        }
        if resume {
            let after = Some(state.base);
            state.want = Some(Attach::ours(Purpose::Resume, after, self.history.clone()));
        } else if let Some(Queued::Attach(_)) = state.queue.front()
            && let Some(Queued::Attach(attach)) = state.queue.pop_front()
        {
            state.want = Some(attach);
        }
    }

    fn reopen_later(&mut self) {
        self.upstream = Upstream::Opening;
        let doublings = self.attempts.saturating_sub(1).min(16);
        let pause = self.shared.tuning.reconnect_first * 2_u32.saturating_pow(doublings);
        let pause = jittered(pause.min(RECONNECT_MAX));
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            Done::ReopenNow
        });
    }
}

/// Whether the upstream ended since its group sleeps or has a new epoch.
fn was_let_go(upstream: &Upstream) -> bool {
    match upstream {
        Upstream::Open(link, _) => {
            let close = link.close.heard();
            close.is_some_and(|close| matches!(close.code, CLOSE_ASLEEP | CLOSE_EPOCH_RAISED))
        }
        Upstream::Closed | Upstream::Opening => false,
    }
}
