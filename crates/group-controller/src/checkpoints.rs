//! When the text so far of a reply is stored, so that a crash does not lose all of it.
//!
//! Often at first and ever less often: a long reply costs a bounded number of writes, and what a crash
//! can lose is about as much as is kept.

use std::collections::BTreeMap;

use convene_model::{
    RunId, Timestamp,
    limits::{CHECKPOINT_AFTER, CHECKPOINT_BYTES, MAX_CHECKPOINTS},
};

/// The schedules of all replies in flight.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    replies: BTreeMap<RunId, Schedule>,
}

/// When a reply was first heard of, and how often it was stored.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    since: Timestamp,
    made: u32,
}

impl Checkpoints {
    /// Takes note that a reply has so many bytes now; whether it is to be stored.
    pub(crate) fn grown(&mut self, now: Timestamp, run_id: &RunId, bytes: usize) -> bool {
        let fresh = Schedule { since: now, made: 0 };
        let schedule = self.replies.entry(run_id.clone()).or_insert(fresh);
        let due = schedule.is_due(now, bytes);
        schedule.made += u32::from(due);
        due
    }

    /// Forgets a reply.
    pub(crate) fn end(&mut self, run_id: &RunId) {
        self.replies.remove(run_id);
    }
}

impl Schedule {
    fn is_due(self, now: Timestamp, bytes: usize) -> bool {
        self.made < MAX_CHECKPOINTS
            && (bytes >= CHECKPOINT_BYTES << self.made
                || now.since(self.since) >= CHECKPOINT_AFTER * 4_u32.pow(self.made))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convene_model::limits::MAX_REPLY_BYTES;
    use proptest::prelude::*;

    use super::*;

    fn run() -> RunId {
        RunId::new("r1-0").unwrap()
    }

    const START: Timestamp = Timestamp::from_secs(1_000);

    /// After how many bytes a reply is stored that comes at once.
    fn sizes(step: usize) -> Vec<usize> {
        let mut checkpoints = Checkpoints::default();
        let sizes = (step..=MAX_REPLY_BYTES).step_by(step);
        sizes.filter(|bytes| checkpoints.grown(START, &run(), *bytes)).collect()
    }

    #[test]
    fn a_fast_reply_is_stored_each_time_it_has_doubled() {
        let kib = [2, 4, 8, 16, 32, 64].map(|kib| kib * 1024);
        assert_eq!(sizes(1), kib);
        assert_eq!(sizes(1).len(), MAX_CHECKPOINTS as usize);
    }

    #[test]
    fn a_slow_reply_is_stored_after_a_while() {
        let mut checkpoints = Checkpoints::default();
        let seconds = (0..300_u64).filter(|second| {
            checkpoints.grown(START + Duration::from_secs(*second), &run(), *second as usize + 1)
        });
        assert_eq!(seconds.collect::<Vec<_>>(), [8, 32, 128]);
    }

    #[test]
    fn a_reply_that_ended_begins_anew() {
        let mut checkpoints = Checkpoints::default();
        assert!(checkpoints.grown(START, &run(), CHECKPOINT_BYTES));
        assert!(!checkpoints.grown(START, &run(), CHECKPOINT_BYTES + 1));
        checkpoints.end(&run());
        assert!(checkpoints.grown(START, &run(), CHECKPOINT_BYTES));
    }

    proptest! {
        /// A thousand tokens are about 4 KiB. With the first text and the end of the run that makes
        /// five writes.
        #[test]
        fn a_thousand_tokens_are_stored_three_times_at_most(
            pauses in prop::collection::vec(0..60_000_u64, 1000)
        ) {
            let mut checkpoints = Checkpoints::default();
            let (mut now, mut stored) = (START, 0);
            for (token, pause) in pauses.iter().enumerate() {
                now = now + Duration::from_millis(*pause);
                // No run lasts longer.
                if now.since(START) > convene_model::limits::RUN_TIMEOUT {
                    break;
                }
                stored += u32::from(checkpoints.grown(now, &run(), (token + 1) * 4));
            }
            prop_assert!(stored <= 3, "{stored}");
        }
    }
}
