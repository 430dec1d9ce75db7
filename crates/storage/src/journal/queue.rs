//! The queue before the committer: per group in order, between groups in turns.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use convene_model::GroupKey;
use parking_lot::{Condvar, Mutex};

use crate::{
    pending::Pending,
    store::{
        error::{CommitFailed, Overloaded},
        options::{
            FULL_TURN_GROUPS, MAX_BYTES_PER_TURN, MAX_EVENTS_PER_TURN, MAX_GROUP_EVENTS_PER_TURN,
            QUEUE_RETRY_MS, StoreOptions,
        },
    },
};

/// What is called when a batch's fate is known.
pub(crate) type Done = Box<dyn FnOnce(Result<(), CommitFailed>) + Send>;

/// A batch and who waits for it.
pub(crate) struct Submission {
    pub(crate) pending: Arc<Pending>,
    pub(crate) done: Done,
}

/// What the committer writes for one group in one turn: batches that follow each other.
pub(crate) type GroupTurn = Vec<Submission>;

/// The queue of all groups.
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    /// The committer waits here.
    filled: Condvar,
    /// Those who flush wait here.
    emptied: Condvar,
    events: AtomicU64,
    bytes: AtomicU64,
    is_closed: AtomicBool,
    max_events: u64,
    max_bytes: u64,
}

#[derive(Default)]
struct State {
    /// The groups that have something waiting, in the order of their turns.
    turns: VecDeque<GroupKey>,
    waiting: HashMap<GroupKey, VecDeque<Submission>>,
    /// Whether the committer works on a turn that it has taken.
    at_work: bool,
    /// Whether the committer lets more come in before it takes its next turn.
    lingers: bool,
    closed: bool,
}

impl CommitQueue {
    pub(crate) fn new(options: &StoreOptions) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            max_events: options.max_queued_events,
            max_bytes: options.max_queued_bytes,
        }
    }

    /// Whether something more may be queued. What begins below the bounds is taken whole.
    pub(crate) fn has_room(&self) -> Result<(), Overloaded> {
        let full = self.is_closed.load(Ordering::Relaxed)
            || self.events() >= self.max_events
            || self.bytes.load(Ordering::Relaxed) >= self.max_bytes;
        if full { Err(Overloaded { retry_after_ms: QUEUE_RETRY_MS }) } else { Ok(()) }
    }

    /// Queues a batch; gives it back when the queue is closed.
    pub(crate) fn push(&self, submission: Submission) -> Result<(), Submission> {
        let (events, bytes) = (submission.pending.events(), submission.pending.bytes);
        let key = submission.pending.key;
        let mut state = self.state.lock();
        if state.closed {
            return Err(submission);
        }
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let state = &mut *state;
        match state.waiting.entry(key) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push_back(submission),
            Entry::Vacant(waiting) => {
                waiting.insert(VecDeque::from([submission]));
                state.turns.push_back(key);
            }
        }
        // One that lingers is woken when it is worth it.
        if !state.lingers || state.turns.len() >= FULL_TURN_GROUPS {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until something waits and takes the committer's next turn: of each group in order up
    /// to [`MAX_GROUP_EVENTS_PER_TURN`] events. `None` when the queue is closed and empty.
    ///
    /// With `linger` it lets more come in for so long, unless [`FULL_TURN_GROUPS`] groups wait.
    pub(crate) fn next_turn(&self, linger: Duration) -> Option<Vec<GroupTurn>> {
        let mut state = self.state.lock();
        state.at_work = false;
        while state.turns.is_empty() {
            self.emptied.notify_all();
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        state.at_work = true;
        if !linger.is_zero() {
            let until = Instant::now() + linger;
            state.lingers = true;
            while state.turns.len() < FULL_TURN_GROUPS && !state.closed {
                if self.filled.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            state.lingers = false;
        }
        let (mut events, mut bytes) = (0, 0);
        let mut turn = Vec::with_capacity(state.turns.len());
        for _ in 0..state.turns.len() {
            let Some(key) = state.turns.pop_front() else { break };
            let Entry::Occupied(mut waiting) = state.waiting.entry(key) else { continue };
            let mut of_group = 0;
            let mut group_turn = GroupTurn::new();
            while let Some(next) = waiting.get().front() {
                let size = next.pending.records.len();
                let alone = next.pending.control.is_some();
                if of_group > 0 && (alone || of_group + size > MAX_GROUP_EVENTS_PER_TURN) {
                    break;
                }
                of_group += size.max(1);
                bytes += next.pending.bytes as usize;
                group_turn.extend(waiting.get_mut().pop_front());
                if alone {
                    break;
                }
            }
            if waiting.get().is_empty() {
                waiting.remove();
            } else {
                state.turns.push_back(key);
            }
            events += of_group;
            turn.push(group_turn);
            if events >= MAX_EVENTS_PER_TURN || bytes >= MAX_BYTES_PER_TURN {
                break;
            }
        }
        drop(state);
        for submission in turn.iter().flatten() {
            self.events.fetch_sub(submission.pending.events(), Ordering::Relaxed);
            self.bytes.fetch_sub(submission.pending.bytes, Ordering::Relaxed);
        }
        Some(turn)
    }

    /// Closes the queue: nothing comes in any more, what waits is still taken.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes the queue and takes out everything that waits.
    pub(crate) fn fail(&self) -> Vec<Submission> {
        self.is_closed.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.closed = true;
        state.turns.clear();
        let waiting = std::mem::take(&mut state.waiting);
        self.events.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        state.at_work = false;
        self.emptied.notify_all();
        waiting.into_values().flatten().collect()
    }

    /// Waits until everything that was queued is written, or has failed.
    pub(crate) fn wait_until_empty(&self) {
        let mut state = self.state.lock();
        while state.at_work || !state.turns.is_empty() {
            self.emptied.wait(&mut state);
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Events that wait.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use convene_model::{GroupId, record::Record};

    use super::*;
    use crate::store::types::Batch;

    fn submission(group: &str, first_seq: u64, events: u64) -> Submission {
        let group_id = GroupId::new(group).unwrap();
        let record = |seq| Record { seq, body: "{}".into(), text_at: 2, erased: None };
        let pending = Pending::new(Batch {
            key: group_id.key(),
            group_id,
            first_seq,
            records: (first_seq..first_seq + events).map(record).collect(),
            posts: vec![],
            chain: [0; 32],
            wake_at: None,
            snapshot: None,
        });
        Submission { pending: pending.into(), done: Box::new(|_| {}) }
    }

    /// The next turn: each group's first number and count.
    fn turn(queue: &CommitQueue) -> Vec<(String, u64, usize)> {
        let turn = queue.next_turn(Duration::ZERO).unwrap();
        let describe = |group: GroupTurn| {
            let first = &group[0].pending;
            let count = group.iter().map(|submission| submission.pending.records.len()).sum();
            (first.group_id.to_string(), first.first_seq, count)
        };
        turn.into_iter().map(describe).collect()
    }

    #[test]
    fn a_busy_group_has_its_share_of_a_turn_and_others_theirs() {
        let queue = CommitQueue::new(&StoreOptions::default());
        for batch in 0..20 {
            assert!(queue.push(submission("busy", 1 + 10 * batch, 10)).is_ok());
        }
        assert!(queue.push(submission("calm", 1, 1)).is_ok());
        assert_eq!(turn(&queue), [("busy".into(), 1, 60), ("calm".into(), 1, 1)]);
        assert!(queue.push(submission("late", 1, 1)).is_ok());
        assert_eq!(turn(&queue), [("busy".into(), 61, 60), ("late".into(), 1, 1)]);
        assert_eq!(turn(&queue), [("busy".into(), 121, 60)]);
        assert_eq!(turn(&queue), [("busy".into(), 181, 20)]);
        assert_eq!(queue.events(), 0);
    }

    #[test]
    fn a_batch_with_more_than_a_share_goes_alone() {
        let queue = CommitQueue::new(&StoreOptions::default());
        let large = MAX_GROUP_EVENTS_PER_TURN as u64 + 1;
        assert!(queue.push(submission("g", 1, 1)).is_ok());
        assert!(queue.push(submission("g", 2, large)).is_ok());
        assert!(queue.push(submission("g", 2 + large, 1)).is_ok());
        assert_eq!(turn(&queue), [("g".into(), 1, 1)]);
        assert_eq!(turn(&queue), [("g".into(), 2, large as usize)]);
        assert_eq!(turn(&queue), [("g".into(), 2 + large, 1)]);
    }

    #[test]
    fn a_turn_is_bounded_and_the_rest_comes_first_in_the_next() {
        let queue = CommitQueue::new(&StoreOptions::default());
        let share = MAX_GROUP_EVENTS_PER_TURN;
        let groups = MAX_EVENTS_PER_TURN / share + 1;
        for group in 0..groups {
            assert!(queue.push(submission(&format!("g{group}"), 1, share as u64)).is_ok());
        }
        assert_eq!(turn(&queue).len(), groups - 1);
        assert_eq!(turn(&queue), [(format!("g{}", groups - 1), 1, share)]);
    }

    #[test]
    fn a_lingering_turn_ends_when_enough_groups_wait_or_the_queue_is_closed() {
        let queue = Arc::new(CommitQueue::new(&StoreOptions::default()));
        let lingering = || {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                queue.next_turn(Duration::from_secs(3600)).map(|turn| turn.len())
            })
        };
        let taken = lingering();
        for group in 0..FULL_TURN_GROUPS {
            assert!(!taken.is_finished(), "{group} groups wait");
            assert!(queue.push(submission(&format!("g{group}"), 1, 1)).is_ok());
        }
        assert_eq!(taken.join().unwrap(), Some(FULL_TURN_GROUPS));
        assert!(queue.push(submission("last", 1, 1)).is_ok());
        let taken = lingering();
        queue.close();
        assert_eq!(taken.join().unwrap(), Some(1));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_out_the_rest() {
        let queue = CommitQueue::new(&StoreOptions::default());
        assert!(queue.push(submission("g", 1, 1)).is_ok());
        queue.close();
        assert!(queue.push(submission("g", 2, 1)).is_err());
        assert!(queue.has_room().is_err());
        assert_eq!(turn(&queue).len(), 1);
        assert!(queue.next_turn(Duration::ZERO).is_none());
    }
}
