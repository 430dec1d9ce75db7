//! Which message ids a group has, so that a post with a new one needs no look-up in the database.
//!
//! A filter that never says no to an id that the group has: its yes is only a reason to look, its
//! no is an answer. It is learned from the database once a group posts, and follows what is
//! submitted from then on. It lives in memory alone, so a crash cannot make it wrong.

use std::hash::{BuildHasher, RandomState};

use convene_model::MessageId;

/// Look-ups of a group after which its ids are learned: one that posts now and then is not worth it.
pub(crate) const LOOKUPS_BEFORE_LEARNING: u8 = 4;
/// Ids that are read from the database to learn a group; one with more is looked up each time.
pub(crate) const MAX_LEARNED_IDS: usize = 32 * 1024;
/// Bytes that the filters of all groups have together; beyond it no further one is begun or grown.
pub(crate) const MAX_FILTER_BYTES: usize = 64 * 1024 * 1024;

/// Ids of the first layer; each further one takes four times as many.
const FIRST_LAYER_IDS: usize = 64;
/// Bits for each id: with [`PROBES`] one foreign id in two thousand is taken for a known one.
const BITS_PER_ID: usize = 16;
const PROBES: u64 = 7;

/// What is known of a group's ids.
#[derive(Debug)]
pub(crate) enum Knowledge {
    /// So many look-ups were made.
    LookedUp(u8),
    /// They are being read. The number tells this reading from an earlier one of the same group,
    /// which may have passed over ids that came since.
    Learning { reading: u64, filter: IdFilter },
    /// The filter has them all.
    Complete(IdFilter),
    /// There are too many.
    TooMany,
}

impl Knowledge {
    /// The bytes of its filter.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Learning { filter, .. } | Self::Complete(filter) => filter.bytes(),
            Self::LookedUp(_) | Self::TooMany => 0,
        }
    }

    /// The filter, complete or not.
    pub(crate) fn filter_mut(&mut self) -> Option<&mut IdFilter> {
        match self {
            Self::Learning { filter, .. } | Self::Complete(filter) => Some(filter),
            Self::LookedUp(_) | Self::TooMany => None,
        }
    }
}

/// A Bloom filter in layers, so that it grows without being filled anew.
#[derive(Debug, Default)]
pub(crate) struct IdFilter {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    bits: Box<[u64]>,
    /// Ids that it still takes.
    room: usize,
}

/// The digest of an id under this process's key, so that nobody outside can make ids collide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdHash(u64);

impl IdHash {
    pub(crate) fn new(state: &RandomState, id: &MessageId) -> Self {
        Self(state.hash_one(id.as_str()))
    }

    /// The bits that stand for the id, of `len`, which is a power of two.
    fn probes(self, len: usize) -> impl Iterator<Item = usize> {
        let (start, stride) = (self.0, self.0.rotate_left(32) | 1);
        let mask = len as u64 - 1;
        (0..PROBES).map(move |n| (start.wrapping_add(stride.wrapping_mul(n)) & mask) as usize)
    }
}

impl IdFilter {
    /// Adds an id. `room` is how many bytes the filter may grow by; `false` when that was too
    /// little, and the filter is of no use any more.
    pub(crate) fn insert(&mut self, id: IdHash, room: usize) -> bool {
        if self.layers.last().is_none_or(|layer| layer.room == 0) {
            let ids = FIRST_LAYER_IDS << (2 * self.layers.len());
            let words = ids * BITS_PER_ID / 64;
            if words * 8 > room {
                return false;
            }
            self.layers.push(Layer { bits: vec![0; words].into(), room: ids });
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.room -= 1;
            for bit in id.probes(layer.bits.len() * 64) {
                layer.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        true
    }

    /// Whether the id may have been added; `false` is certain.
    pub(crate) fn may_contain(&self, id: IdHash) -> bool {
        self.layers.iter().rev().any(|layer| {
            id.probes(layer.bits.len() * 64)
                .all(|bit| layer.bits[bit / 64] & (1 << (bit % 64)) != 0)
        })
    }

    fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bits.len() * 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(state: &RandomState, prefix: &str, n: usize) -> IdHash {
        IdHash::new(state, &MessageId::new(format!("{prefix}{n}")).unwrap())
    }

    #[test]
    fn what_was_added_is_never_denied_and_others_rarely_taken_for_it() {
        let state = RandomState::new();
        let mut filter = IdFilter::default();
        for n in 0..20_000 {
            assert!(filter.insert(hash(&state, "m", n), usize::MAX));
        }
        assert!((0..20_000).all(|n| filter.may_contain(hash(&state, "m", n))));
        let wrong = (0..20_000).filter(|n| filter.may_contain(hash(&state, "other", *n))).count();
        assert!(wrong < 200, "{wrong} of 20000");
        assert!(filter.bytes() < 20_000 * 16, "{} bytes", filter.bytes());
    }

    #[test]
    fn a_filter_says_when_it_may_not_grow() {
        let state = RandomState::new();
        let mut filter = IdFilter::default();
        assert!(!filter.insert(hash(&state, "m", 0), 127));
        for n in 0..FIRST_LAYER_IDS {
            assert!(filter.insert(hash(&state, "m", n), 128));
        }
        assert!(!filter.insert(hash(&state, "m", FIRST_LAYER_IDS), 128));
    }
}
