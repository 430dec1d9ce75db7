//! The groups that nobody sees: they are being wiped, or come from a snapshot and are not whole yet.
//!
//! What stands here follows from the controls in the journal: it is read from `rooms.db` and from
//! what is not projected yet when the store is opened.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use convene_model::GroupKey;
use parking_lot::Mutex;

use crate::control::{Control, Import};

/// Why nobody sees a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is being wiped.
    Wiped,
    /// It is not whole yet.
    Importing(Import),
}

/// The groups that nobody sees.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    groups: Mutex<HashMap<GroupKey, Mark>>,
    count: AtomicUsize,
}

impl Marks {
    /// Why nobody sees the group; `None` for one that everybody sees.
    pub(crate) fn get(&self, key: &GroupKey) -> Option<Mark> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.groups.lock().get(key).cloned()
    }

    /// Replaces what is said of a group and returns what was.
    pub(crate) fn set(&self, key: GroupKey, mark: Option<Mark>) -> Option<Mark> {
        let mut groups = self.groups.lock();
        let before = match mark {
            Some(mark) => groups.insert(key, mark),
            None => groups.remove(&key),
        };
        self.count.store(groups.len(), Ordering::Release);
        before
    }

    /// Takes over what a batch says of its group.
    pub(crate) fn learn(&self, key: GroupKey, control: Option<&Control>, completes: bool) {
        match control {
            Some(Control::Wipe | Control::Purge) => drop(self.set(key, Some(Mark::Wiped))),
            Some(Control::Import(import)) => {
                self.set(key, Some(Mark::Importing(import.clone())));
            }
            // A wiped group has no events that could complete anything.
            None if completes => drop(self.set(key, None)),
            None => {}
        }
    }
}
