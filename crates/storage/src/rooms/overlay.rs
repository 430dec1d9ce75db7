//! What is submitted but not projected, by group, in memory.
//!
//! Every read asks here first and the database afterwards: a batch leaves the overlay only when
//! each later read of the database sees it, so nothing falls in between.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use convene_model::{GroupId, GroupKey, MessageId, Timestamp};
use parking_lot::Mutex;

use crate::{pending::Pending, store::types::FoundMessage};

/// Locks over which the groups are spread.
const SHARDS: usize = 16;

/// The overlay of all groups.
pub(crate) struct Overlay {
    shards: [Mutex<HashMap<GroupKey, Waiting>>; SHARDS],
    events: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Arc<Pending>>,
    ids: HashMap<MessageId, FoundMessage>,
}

impl Overlay {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Adds a group's next batch.
    pub(crate) fn push(&self, pending: &Arc<Pending>) {
        self.events.fetch_add(pending.events(), Ordering::Relaxed);
        self.bytes.fetch_add(pending.bytes, Ordering::Relaxed);
        let mut shard = self.shard(&pending.key).lock();
        let waiting = shard.entry(pending.key).or_default();
        for post in &pending.posts {
            let found = FoundMessage { seq: post.seq, digest: post.digest };
            waiting.ids.entry(post.message_id.clone()).or_insert(found);
        }
        waiting.batches.push_back(Arc::clone(pending));
    }

    /// Takes a batch away: the database holds it now, or it was refused after all.
    pub(crate) fn remove(&self, pending: &Arc<Pending>) {
        let mut shard = self.shard(&pending.key).lock();
        if let Some(waiting) = shard.get_mut(&pending.key) {
            // Batches are projected in order, so this is the first one but after a refusal.
            let at = waiting.batches.iter().position(|batch| Arc::ptr_eq(batch, pending));
            if let Some(at) = at {
                waiting.batches.remove(at);
            }
            for post in &pending.posts {
                if waiting.ids.get(&post.message_id).is_some_and(|found| found.seq == post.seq) {
                    waiting.ids.remove(&post.message_id);
                }
            }
            if waiting.batches.is_empty() {
                shard.remove(&pending.key);
            }
        }
        drop(shard);
        self.events.fetch_sub(pending.events(), Ordering::Relaxed);
        self.bytes.fetch_sub(pending.bytes, Ordering::Relaxed);
    }

    /// A group's batches, in order.
    pub(crate) fn batches(&self, key: &GroupKey) -> Vec<Arc<Pending>> {
        let shard = self.shard(key).lock();
        shard.get(key).map(|waiting| waiting.batches.iter().cloned().collect()).unwrap_or_default()
    }

    /// A group's batches that reach into the events `from` to `to`, in order, and the number of
    /// the first event that the overlay holds.
    pub(crate) fn range(
        &self,
        key: &GroupKey,
        from: u64,
        to: u64,
    ) -> (Option<u64>, Vec<Arc<Pending>>) {
        let shard = self.shard(key).lock();
        let Some(batches) = shard.get(key).map(|waiting| &waiting.batches) else {
            return (None, Vec::new());
        };
        let start = batches.partition_point(|batch| batch.last_seq() < from);
        let inside = batches.range(start..).take_while(|batch| batch.first_seq <= to);
        (batches.front().map(|batch| batch.first_seq), inside.cloned().collect())
    }

    /// A post of a group by its message.
    pub(crate) fn find(&self, key: &GroupKey, message_id: &MessageId) -> Option<FoundMessage> {
        self.shard(key).lock().get(key)?.ids.get(message_id).copied()
    }

    /// The alarm of each group that is in the overlay.
    pub(crate) fn alarms(&self) -> HashMap<GroupId, Option<Timestamp>> {
        let mut alarms = HashMap::new();
        for shard in &self.shards {
            for waiting in shard.lock().values() {
                if let Some(last) = waiting.batches.back() {
                    alarms.insert(last.group_id.clone(), last.wake_at);
                }
            }
        }
        alarms
    }

    /// Events in the overlay.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Bytes in the overlay.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &GroupKey) -> &Mutex<HashMap<GroupKey, Waiting>> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }
}
