//! The groups whose stored rows contradict each other.
//!
//! A group in quarantine is neither read nor written until an operator has looked at it. What it
//! had committed but not projected is put aside in `quarantined_rows`, so nothing is lost.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use convene_model::GroupKey;
use parking_lot::Mutex;

use crate::store::error::{StoreError, hex};

/// The groups in quarantine, each with what was found.
#[derive(Default)]
pub(crate) struct Quarantine {
    groups: Mutex<HashMap<GroupKey, Found>>,
    count: AtomicUsize,
}

struct Found {
    detail: String,
    saved: bool,
}

impl Quarantine {
    /// Puts a group in quarantine that `rooms.db` already has there.
    pub(crate) fn restore(&self, key: GroupKey, detail: String) {
        self.groups.lock().insert(key, Found { detail, saved: true });
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Puts a group in quarantine; the first reason stays.
    pub(crate) fn add(&self, key: GroupKey, detail: String) -> StoreError {
        let mut groups = self.groups.lock();
        let found = groups.entry(key).or_insert_with(|| {
            tracing::error!(group = hex(&key), detail, "a group is put in quarantine");
            self.count.fetch_add(1, Ordering::Release);
            Found { detail, saved: false }
        });
        StoreError::Quarantined { group: key, detail: found.detail.clone() }
    }

    /// Forgets a group of which nothing is left.
    pub(crate) fn forget(&self, key: &GroupKey) {
        if self.groups.lock().remove(key).is_some() {
            self.count.fetch_sub(1, Ordering::Release);
        }
    }

    /// What was found, if the group is in quarantine.
    pub(crate) fn detail(&self, key: &GroupKey) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        self.groups.lock().get(key).map(|found| found.detail.clone())
    }

    /// `Err` if the group is in quarantine.
    pub(crate) fn check(&self, key: &GroupKey) -> Result<(), StoreError> {
        match self.detail(key) {
            None => Ok(()),
            Some(detail) => Err(StoreError::Quarantined { group: *key, detail }),
        }
    }

    /// Those that are not in `rooms.db` yet.
    pub(crate) fn unsaved(&self) -> Vec<(GroupKey, String)> {
        if self.is_empty() {
            return Vec::new();
        }
        let groups = self.groups.lock();
        let unsaved = groups.iter().filter(|(_, found)| !found.saved);
        unsaved.map(|(key, found)| (*key, found.detail.clone())).collect()
    }

    /// Marks groups as being in `rooms.db`.
    pub(crate) fn saved(&self, keys: impl IntoIterator<Item = GroupKey>) {
        let mut groups = self.groups.lock();
        for key in keys {
            if let Some(found) = groups.get_mut(&key) {
                found.saved = true;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}
