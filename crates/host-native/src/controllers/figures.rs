//! How full the queues of the groups are, and what was refused or dropped because of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use convene_hop::GroupLink;
use convene_model::{Code, Problem, UpstreamId};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Sender, WeakSender};

use super::{Controllers, MAILBOX_RETRY_MS, MAX_WAKING, Shared, WAKING_RETRY_MS};

/// Figures of the groups of a process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Groups that are awake, or wake.
    pub awake: usize,
    /// Groups that wait for their turn to be read from the store, or are read.
    pub waking: usize,
    /// Requests that were refused since too many groups were waking.
    pub refused_waking: u64,
    /// Inputs in all mailboxes.
    pub mailboxes: usize,
    /// Inputs in the fullest mailbox.
    pub fullest_mailbox: usize,
    /// Requests that were refused since a mailbox was full.
    pub refused_mailbox: u64,
    /// Open upstreams.
    pub upstreams: usize,
    /// Frames on their way to groups, and those of the fullest upstream.
    pub to_groups: (usize, usize),
    /// Frames on their way from groups, and those of the fullest upstream.
    pub from_groups: (usize, usize),
    /// Upstreams that were closed with 4008.
    pub too_slow: u64,
    /// Words on groups that the Orchestrator has not been told yet.
    pub unreported: usize,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Counters {
    waking: AtomicUsize,
    refused_waking: AtomicU64,
    refused_mailbox: AtomicU64,
    too_slow: AtomicU64,
    links: Mutex<HashMap<UpstreamId, Senders>>,
}

/// The senders of an upstream: to its group and from it.
type Senders = (WeakSender<Bytes>, WeakSender<Bytes>);

impl Counters {
    /// A mailbox is full.
    pub(super) fn mailbox_full(&self) -> Problem {
        self.refused_mailbox.fetch_add(1, Ordering::Relaxed);
        Problem::new(Code::Overloaded).with("retry_after_ms", MAILBOX_RETRY_MS)
    }

    /// A place among the groups that wake.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when [`MAX_WAKING`] do already.
    pub(super) fn waking(&self) -> Result<Waking<'_>, Problem> {
        let waking = Waking(&self.waking);
        if self.waking.fetch_add(1, Ordering::Relaxed) >= MAX_WAKING {
            self.refused_waking.fetch_add(1, Ordering::Relaxed);
            return Err(Problem::new(Code::Overloaded).with("retry_after_ms", WAKING_RETRY_MS));
        }
        Ok(waking)
    }
}

/// A group that wakes, for as long as this lives.
pub(super) struct Waking<'a>(&'a AtomicUsize);

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The group's end of an upstream, which stands in the figures for as long as this lives.
pub(super) struct OpenLink {
    shared: Arc<Shared>,
    id: UpstreamId,
}

impl OpenLink {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: UpstreamId,
        theirs: &GroupLink,
        ours: &GroupLink,
    ) -> Self {
        let senders = (theirs.tx.downgrade(), ours.tx.downgrade());
        shared.counters.links.lock().insert(id, senders);
        Self { shared: Arc::clone(shared), id }
    }

    /// The upstream does not keep up.
    pub(super) fn too_slow(&self) {
        self.shared.counters.too_slow.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        self.shared.counters.links.lock().remove(&self.id);
    }
}

impl Controllers {
    /// How full the queues are, and what was refused or dropped because of it.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        let counters = &shared.counters;
        let mut figures = Figures {
            waking: counters.waking.load(Ordering::Relaxed),
            refused_waking: counters.refused_waking.load(Ordering::Relaxed),
            refused_mailbox: counters.refused_mailbox.load(Ordering::Relaxed),
            too_slow: counters.too_slow.load(Ordering::Relaxed),
            unreported: shared.lifecycle.waiting(),
            ..Figures::default()
        };
        {
            let groups = shared.groups.lock();
            figures.awake = groups.len();
            for slot in groups.values() {
                // One that cannot be looked at wakes, and has an empty mailbox.
                let Ok(slot) = slot.try_lock() else { continue };
                let depth = slot.mailbox.as_ref().map_or(0, depth);
                figures.mailboxes += depth;
                figures.fullest_mailbox = figures.fullest_mailbox.max(depth);
            }
        }
        let links = counters.links.lock();
        figures.upstreams = links.len();
        let add = |(sum, fullest): (usize, usize), sender: &WeakSender<Bytes>| {
            let depth = sender.upgrade().as_ref().map_or(0, depth);
            (sum + depth, fullest.max(depth))
        };
        for (to_group, from_group) in links.values() {
            figures.to_groups = add(figures.to_groups, to_group);
            figures.from_groups = add(figures.from_groups, from_group);
        }
        figures
    }
}

fn depth<T>(sender: &Sender<T>) -> usize {
    sender.max_capacity() - sender.capacity()
}
