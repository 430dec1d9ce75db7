//! The keeper: after each transaction of the projector it lets look-ups see it and takes what was
//! projected out of the overlay.
//!
//! The projector runs at the lowest priority and could be put aside in the middle of this, with a
//! lock that every post needs; so this is a thread of its own, at normal priority.

use std::sync::{
    Arc,
    mpsc::{Receiver, Sender},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    pending::Committed,
    rooms::{lookup::Lookup, overlay::Overlay},
};

/// What the projector asks of the keeper.
pub(crate) enum Keep {
    /// These are committed in `rooms.db`.
    Projected(Vec<Committed>),
    /// The search index holds more.
    Indexed,
    /// End the look-ups' transactions, then answer.
    Refresh(Sender<()>),
}

/// Wakes those who wait until everything is projected.
#[derive(Default)]
pub(crate) struct Settled {
    lock: Mutex<()>,
    changed: Condvar,
}

impl Settled {
    fn notify(&self) {
        drop(self.lock.lock());
        self.changed.notify_all();
    }

    /// Waits until `is_settled` holds; it is asked again after each step of the keeper.
    pub(crate) fn wait_until(&self, mut is_settled: impl FnMut() -> bool) {
        let mut lock = self.lock.lock();
        while !is_settled() {
            self.changed.wait(&mut lock);
        }
    }
}

/// Works until the projector has ended.
pub(crate) fn run(
    requests: Receiver<Keep>,
    lookup: &Lookup,
    overlay: &Arc<Overlay>,
    settled: &Settled,
) {
    for request in requests {
        lookup.refresh();
        match request {
            Keep::Projected(batch) => {
                for committed in &batch {
                    overlay.remove(&committed.pending);
                }
                settled.notify();
            }
            Keep::Indexed => settled.notify(),
            Keep::Refresh(answer) => {
                // Nobody waits any more when the projector has ended meanwhile.
                let _ = answer.send(());
            }
        }
    }
}
