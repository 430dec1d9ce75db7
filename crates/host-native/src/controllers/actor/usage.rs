//! What a group has used, as it hands it over. The counting itself is an addition for each frame.

use tokio::time::Instant;

use super::{Actor, EndedRun};

impl Actor {
    /// Hands over what the group has used.
    pub(super) fn hand_over(&mut self, now: Instant) {
        if let Some(state) = self.controller.state() {
            let epoch = state.identity().epoch;
            self.shared.usage.hand_over(&self.group_id, epoch, &mut self.meter, now);
        }
    }

    /// The end of a run is durable.
    pub(super) fn run_ended(&self, run: EndedRun) {
        let epoch = self.controller.state().map_or(0, |state| state.identity().epoch);
        self.shared.usage.run_ended(&self.group_id, epoch, run);
    }
}
