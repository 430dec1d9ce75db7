//! What is submitted but not projected, by group, in memory; and which ids a group has.
//!
//! Every read asks here first and the database afterwards: a batch leaves the overlay only when
//! each later read of the database sees it, so nothing falls in between.
//!
//! The ids are kept under the same lock. When a group's ids begin to be learned, those in the
//! overlay are taken over, those that are submitted later are added, and those that left the
//! overlay before are in the database for the reading that begins then.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use convene_model::{GroupId, GroupKey, MessageId, Timestamp};
use parking_lot::Mutex;

use crate::{
    pending::Pending,
    rooms::ids::{IdFilter, IdHash, Knowledge, LOOKUPS_BEFORE_LEARNING, MAX_FILTER_BYTES},
    store::types::FoundMessage,
};

/// Locks over which the groups are spread.
const SHARDS: usize = 16;

/// The overlay of all groups.
pub(crate) struct Overlay {
    shards: [Mutex<Shard>; SHARDS],
    events: AtomicU64,
    bytes: AtomicU64,
    hash_key: RandomState,
    readings: AtomicU64,
    filter_bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    waiting: HashMap<GroupKey, Waiting>,
    known: HashMap<GroupKey, Knowledge>,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Arc<Pending>>,
    ids: HashMap<MessageId, FoundMessage>,
}

/// What is known of a message id without the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// The post that has it.
    Post(FoundMessage),
    /// No post has it.
    Absent,
    /// The database must be asked.
    Unknown,
    /// The same; and it is time to learn the group's ids, in a reading with this number.
    Learn(u64),
}

impl Overlay {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            hash_key: RandomState::new(),
            readings: AtomicU64::new(0),
            filter_bytes: AtomicUsize::new(0),
        }
    }

    /// Adds a group's next batch.
    pub(crate) fn push(&self, pending: &Arc<Pending>) {
        self.events.fetch_add(pending.events(), Ordering::Relaxed);
        self.bytes.fetch_add(pending.bytes, Ordering::Relaxed);
        let mut shard = self.shard(&pending.key).lock();
        let shard = &mut *shard;
        if !pending.posts.is_empty()
            && let Some(known) = shard.known.get_mut(&pending.key)
        {
            self.add_ids(known, pending.posts.iter().map(|post| &post.message_id));
        }
        let waiting = shard.waiting.entry(pending.key).or_default();
        for post in &pending.posts {
            let found = FoundMessage { seq: post.seq, digest: post.digest };
            waiting.ids.entry(post.message_id.clone()).or_insert(found);
        }
        waiting.batches.push_back(Arc::clone(pending));
    }

    /// Takes a batch away: the database holds it now, or it was refused after all.
    pub(crate) fn remove(&self, pending: &Arc<Pending>) {
        let mut shard = self.shard(&pending.key).lock();
        if let Some(waiting) = shard.waiting.get_mut(&pending.key) {
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
                shard.waiting.remove(&pending.key);
            }
        }
        drop(shard);
        self.events.fetch_sub(pending.events(), Ordering::Relaxed);
        self.bytes.fetch_sub(pending.bytes, Ordering::Relaxed);
    }

    /// Whether anything of a group is here.
    pub(crate) fn holds(&self, key: &GroupKey) -> bool {
        self.shard(key).lock().waiting.contains_key(key)
    }

    /// A group's batches, in order.
    pub(crate) fn batches(&self, key: &GroupKey) -> Vec<Arc<Pending>> {
        let shard = self.shard(key).lock();
        shard
            .waiting
            .get(key)
            .map(|waiting| waiting.batches.iter().cloned().collect())
            .unwrap_or_default()
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
        let Some(batches) = shard.waiting.get(key).map(|waiting| &waiting.batches) else {
            return (None, Vec::new());
        };
        let start = batches.partition_point(|batch| batch.last_seq() < from);
        let inside = batches.range(start..).take_while(|batch| batch.first_seq <= to);
        (batches.front().map(|batch| batch.first_seq), inside.cloned().collect())
    }

    /// A post of a group by its message.
    pub(crate) fn find(&self, key: &GroupKey, message_id: &MessageId) -> Option<FoundMessage> {
        self.shard(key).lock().waiting.get(key)?.ids.get(message_id).copied()
    }

    /// What is known of a message of a group without the database.
    pub(crate) fn look_up(&self, key: &GroupKey, message_id: &MessageId) -> Known {
        let mut shard = self.shard(key).lock();
        let shard = &mut *shard;
        let waiting = shard.waiting.get(key);
        if let Some(found) = waiting.and_then(|waiting| waiting.ids.get(message_id)) {
            return Known::Post(*found);
        }
        let known = shard.known.entry(*key).or_insert(Knowledge::LookedUp(0));
        match known {
            Knowledge::Complete(filter) => {
                let id = IdHash::new(&self.hash_key, message_id);
                if filter.may_contain(id) { Known::Unknown } else { Known::Absent }
            }
            Knowledge::Learning { .. } | Knowledge::TooMany => Known::Unknown,
            Knowledge::LookedUp(times) if *times < LOOKUPS_BEFORE_LEARNING => {
                *times += 1;
                Known::Unknown
            }
            Knowledge::LookedUp(_) => {
                let reading = self.readings.fetch_add(1, Ordering::Relaxed);
                *known = Knowledge::Learning { reading, filter: IdFilter::default() };
                if let Some(waiting) = waiting {
                    self.add_ids(known, waiting.ids.keys());
                }
                Known::Learn(reading)
            }
        }
    }

    /// Adds ids that a reading found in the database; the last ones when `complete`. `false` when
    /// nobody waits for the reading any more.
    pub(crate) fn learn(
        &self,
        key: &GroupKey,
        reading: u64,
        ids: &[MessageId],
        complete: bool,
    ) -> bool {
        let mut shard = self.shard(key).lock();
        let Some(known) = shard.known.get_mut(key) else { return false };
        let is_this = |known: &Knowledge| matches!(known, Knowledge::Learning { reading: under_way, .. } if *under_way == reading);
        if !is_this(known) {
            return false;
        }
        self.add_ids(known, ids.iter());
        if complete
            && is_this(known)
            && let Some(filter) = known.filter_mut().map(std::mem::take)
        {
            *known = Knowledge::Complete(filter);
        }
        is_this(known)
    }

    /// Puts off learning a group's ids: the keeper has enough to do.
    pub(crate) fn learn_later(&self, key: &GroupKey) {
        self.forget(key);
    }

    /// Gives up learning a group's ids: each is looked up from now on.
    pub(crate) fn give_up_learning(&self, key: &GroupKey) {
        if let Entry::Occupied(mut known) = self.shard(key).lock().known.entry(*key) {
            let known = known.get_mut();
            self.filter_bytes.fetch_sub(known.bytes(), Ordering::Relaxed);
            *known = Knowledge::TooMany;
        }
    }

    /// Forgets what is known of a group's ids, which costs memory.
    pub(crate) fn forget(&self, key: &GroupKey) {
        let known = self.shard(key).lock().known.remove(key);
        let bytes = known.map_or(0, |known| known.bytes());
        self.filter_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn add_ids<'a>(&self, known: &mut Knowledge, ids: impl Iterator<Item = &'a MessageId>) {
        let before = known.bytes();
        let Some(filter) = known.filter_mut() else { return };
        let room = MAX_FILTER_BYTES.saturating_sub(self.filter_bytes.load(Ordering::Relaxed));
        for id in ids {
            if !filter.insert(IdHash::new(&self.hash_key, id), room) {
                self.filter_bytes.fetch_sub(before, Ordering::Relaxed);
                *known = Knowledge::TooMany;
                return;
            }
        }
        let grown = known.bytes() - before;
        self.filter_bytes.fetch_add(grown, Ordering::Relaxed);
    }

    /// The alarm of each group that is in the overlay.
    pub(crate) fn alarms(&self) -> HashMap<GroupId, Option<Timestamp>> {
        let mut alarms = HashMap::new();
        for shard in &self.shards {
            for waiting in shard.lock().waiting.values() {
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

    /// Bytes of the filters over groups' ids.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter_bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &GroupKey) -> &Mutex<Shard> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }
}
