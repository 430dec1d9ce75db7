//! A map in the order of its keys that is small while it has few entries.
//!
//! Most groups have one app and a handful of people, and a node keeps thousands of them in memory;
//! the first entry of a B-tree takes the room of eleven. Beyond [`MOST`] entries it becomes a B-tree,
//! since a group may have ten thousand connections.

use std::{collections::BTreeMap, mem};

/// Entries that are kept side by side at most.
const MOST: usize = 8;

/// A map in the order of its keys.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "so it takes no more than its list, and many maps are small"
)]
pub(crate) enum Few<K, V> {
    /// At most [`MOST`], sorted, with no room to spare.
    Few(Vec<(K, V)>),
    /// More, or what is left of more.
    Many(Box<BTreeMap<K, V>>),
}

/// A set in order.
pub(crate) type FewKeys<K> = Few<K, ()>;

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::Few(few) => place(few, key).ok().map(|at| &few[at].1),
            Self::Many(many) => many.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Self::Few(few) => place(few, key).ok().map(|at| &mut few[at].1),
            Self::Many(many) => many.get_mut(key),
        }
    }

    /// Sets the value of a key; the one that it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let few = match self {
            Self::Few(few) => few,
            Self::Many(many) => return many.insert(key, value),
        };
        match place(few, &key) {
            Ok(at) => Some(mem::replace(&mut few[at].1, value)),
            Err(at) if few.len() < MOST => {
                few.reserve_exact(1);
                few.insert(at, (key, value));
                None
            }
            Err(_) => {
                let mut many: BTreeMap<K, V> = mem::take(few).into_iter().collect();
                many.insert(key, value);
                *self = Self::Many(Box::new(many));
                None
            }
        }
    }

    /// Takes a key away; the value that it had.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = match self {
            Self::Few(few) => place(few, key).ok().map(|at| few.remove(at).1),
            Self::Many(many) => many.remove(key),
        };
        self.give_back();
        removed
    }

    /// The first key and its value.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        match self {
            Self::Few(few) => few.first().map(|(key, value)| (key, value)),
            Self::Many(many) => many.first_key_value(),
        }
    }

    /// Takes the first key away.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        let first = match self {
            Self::Few(few) => (!few.is_empty()).then(|| few.remove(0)),
            Self::Many(many) => many.pop_first(),
        };
        self.give_back();
        first
    }

    /// The keys and their values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(&**many)),
        };
        few.iter().map(|(key, value)| (key, value)).chain(many.into_iter().flatten())
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All of it, in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        let (few, many) = match self {
            Self::Few(few) => (few, BTreeMap::new()),
            Self::Many(many) => (Vec::new(), *many),
        };
        few.into_iter().chain(many)
    }

    /// What is empty takes no memory.
    fn give_back(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// Where a key is among sorted entries, or would be.
fn place<K: Ord, V>(few: &[(K, V)], key: &K) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| other.cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Change {
        Insert(u8, u16),
        Remove(u8),
        PopFirst,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            4 => (0..20_u8, any::<u16>()).prop_map(|(key, value)| Change::Insert(key, value)),
            3 => (0..20_u8).prop_map(Change::Remove),
            1 => Just(Change::PopFirst),
        ];
        prop::collection::vec(change, 0..80)
    }

    proptest! {
        #[test]
        fn it_is_the_same_as_a_b_tree(changes in changes()) {
            let (mut few, mut tree) = (Few::default(), BTreeMap::new());
            for change in changes {
                match change {
                    Change::Insert(key, value) => {
                        prop_assert_eq!(few.insert(key, value), tree.insert(key, value));
                    }
                    Change::Remove(key) => prop_assert_eq!(few.remove(&key), tree.remove(&key)),
                    Change::PopFirst => prop_assert_eq!(few.pop_first(), tree.pop_first()),
                }
                prop_assert_eq!(few.len(), tree.len());
                prop_assert_eq!(few.first(), tree.first_key_value());
                prop_assert!(few.iter().eq(tree.iter()));
                for key in 0..20 {
                    prop_assert_eq!(few.get(&key), tree.get(&key));
                    prop_assert_eq!(few.get_mut(&key), tree.get_mut(&key));
                }
            }
            prop_assert!(few.into_entries().eq(tree));
        }
    }

    #[test]
    fn one_entry_takes_the_room_of_one_and_none_takes_none() {
        let mut few: Few<u64, u64> = Few::default();
        few.insert(1, 1);
        assert!(matches!(&few, Few::Few(entries) if entries.capacity() == 1));
        few.remove(&1);
        assert_eq!(mem::size_of_val(&few), mem::size_of::<Vec<(u64, u64)>>());
        assert!(matches!(&few, Few::Few(entries) if entries.capacity() == 0));
    }
}
