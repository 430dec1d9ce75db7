//! The keeper: after each transaction of the projector it lets look-ups see it and takes what was
//! projected out of the overlay.
//!
//! The projector runs at the lowest priority and could be put aside in the middle of this, with a
//! lock that every post needs; so this is a thread of its own, at normal priority.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use convene_model::GroupKey;
use convene_threads::Turns;

use crate::{
    pending::Committed,
    rooms::{ids::MAX_LEARNED_IDS, lookup::Lookup, marks::Marks, overlay::Overlay},
    store::options::MAX_ROWS_PER_READ,
};

/// Batches that are taken out of the overlay without a pause: some tens of microseconds.
const BATCHES_IN_A_ROW: usize = 64;

/// What is asked of the keeper.
pub(crate) enum Keep {
    /// These are committed in `rooms.db`.
    Projected(Vec<Committed>),
    /// Nothing of this group is left.
    Wiped(GroupKey),
    /// The search index holds more.
    Indexed,
    /// End the look-ups' transactions, then answer.
    Refresh(Sender<()>),
    /// Read which message ids a group has.
    Learn {
        /// The group.
        key: GroupKey,
        /// Which reading this is.
        reading: u64,
    },
    /// The projector has ended, and nobody asks any more.
    End,
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

    /// Waits until `is_settled` holds, for so long at most; whether it does.
    pub(crate) fn wait_for(&self, patience: Duration, is_settled: impl Fn() -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut lock = self.lock.lock();
        while !is_settled() {
            if self.changed.wait_until(&mut lock, until).timed_out() {
                return is_settled();
            }
        }
        true
    }

    /// Waits until `is_settled` holds; it is asked again after each step of the keeper.
    pub(crate) fn wait_until(&self, mut is_settled: impl FnMut() -> bool) {
        let mut lock = self.lock.lock();
        while !is_settled() {
            self.changed.wait(&mut lock);
        }
    }
}

/// Works until it is told to end.
pub(crate) fn run(
    requests: Receiver<Keep>,
    lookup: &Lookup,
    overlay: &Arc<Overlay>,
    marks: &Marks,
    settled: &Settled,
    learning: &AtomicUsize,
) {
    convene_threads::prefer_turns(Turns::Short);
    for request in requests {
        if let Keep::Learn { key, reading } = request {
            learning.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = learn(lookup, overlay, &key, reading) {
                tracing::warn!(%error, "a group's message ids cannot be read; each is looked up");
                overlay.give_up_learning(&key);
            }
            continue;
        }
        lookup.refresh();
        match request {
            Keep::Projected(batch) => {
                for (n, committed) in batch.into_iter().enumerate() {
                    overlay.remove(&committed.pending);
                    // Whoever waits for this CPU goes first.
                    if n % BATCHES_IN_A_ROW == 0 {
                        std::thread::yield_now();
                    }
                }
                settled.notify();
            }
            Keep::Wiped(key) => {
                overlay.forget(&key);
                marks.set(key, None);
                settled.notify();
            }
            Keep::Indexed => settled.notify(),
            Keep::Refresh(answer) => {
                // Nobody waits any more when the projector has ended meanwhile.
                let _ = answer.send(());
            }
            Keep::Learn { .. } => {}
            Keep::End => return,
        }
    }
}

/// Reads a group's ids into the filter that already gets those which are submitted meanwhile.
fn learn(
    lookup: &Lookup,
    overlay: &Overlay,
    key: &GroupKey,
    reading: u64,
) -> Result<(), rusqlite::Error> {
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let ids = lookup.ids(key, &after)?;
        count += ids.len();
        if count > MAX_LEARNED_IDS {
            overlay.give_up_learning(key);
            return Ok(());
        }
        let complete = ids.len() < MAX_ROWS_PER_READ;
        if !overlay.learn(key, reading, &ids, complete) || complete {
            return Ok(());
        }
        if let Some(last) = ids.last() {
            after = last.as_str().to_owned();
        }
    }
}
