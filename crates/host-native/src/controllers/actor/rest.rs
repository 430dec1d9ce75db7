//! How a group goes to sleep: when nobody uses it, in steps that each leave it fit for use.
//!
//! First the upstreams that carry nobody are closed, then the state is stored as a snapshot, so that
//! waking is cheap; then, while nobody holds a way to the mailbox, the group leaves the register.
//! Whatever comes in before that is served, and the group begins anew to wait for its rest.

use std::time::Duration;

use convene_group_controller::State;
use convene_hop::Close;
use convene_model::frame::CLOSE_ASLEEP;
use tokio::time::Instant;

use super::Actor;

/// The pause between two steps: what the one leads to is over by then.
const STEP: Duration = Duration::from_millis(5);
/// How long a group is kept that does not exist: somebody asked for a wrong id.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What is to be done about a group's rest.
pub(super) enum Rest {
    /// To look again then.
    LookAgain(Instant),
    /// Nothing: the group has left the register, and nothing can reach it any more.
    Asleep,
}

impl Actor {
    /// Looks whether the group may sleep, and takes the next step towards that.
    pub(super) fn rest(&mut self) -> Rest {
        let now = Instant::now();
        if self.meter.is_due(now) {
            self.hand_over(now);
        }
        // What waits for the organization's own service is sent by a group that is awake, and an
        // agent's own process finds only such a one waiting for it.
        let busy = !self.runs.is_empty()
            || self.asking > 0
            || self.controller.is_exporting()
            || self.controller.awaits_outside();
        if self.controller.connections() > 0 || busy {
            self.used_at = now;
        }
        let after = self.controller.state().map_or(UNKNOWN, |_| self.shared.config.idle_after);
        let tired_at = self.used_at + after;
        if now < tired_at {
            return Rest::LookAgain(tired_at);
        }
        let next = Rest::LookAgain(now + STEP);
        if self.gate.len() > 0 {
            return next;
        }
        if self.upstreams.len() > 0 {
            self.upstreams.close_all(&Close::new(CLOSE_ASLEEP, "the group sleeps"));
            return next;
        }
        let seq = self.controller.state().map_or(0, State::seq);
        if seq > self.last_snapshot {
            // A node that is behind has better things to do.
            if self.shared.store.has_room().is_ok() {
                self.commit_snapshot();
                return next;
            }
            return Rest::LookAgain(now + after);
        }
        if self.shared.retire(&self.group_id, &self.inbox) { Rest::Asleep } else { next }
    }

    /// Leaves what outlives the group's task: its alarm, and word of its sleep.
    pub(super) fn fall_asleep(&mut self) {
        self.hand_over(Instant::now());
        if let Some(at) = self.stored_wake_at {
            self.shared.alarms.set(&self.shared, at, self.group_id.clone());
        }
        if let Some(state) = self.controller.state().filter(|state| state.frozen().is_none()) {
            let releases = state.runs().is_empty();
            self.shared.lifecycle.asleep(&self.group_id, state.identity().epoch, releases);
        }
        tracing::debug!(group = %self.group_id, "a group sleeps");
    }
}
