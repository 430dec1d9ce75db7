//! What needs a hand on the store's inner parts: a projector that stands still, a journal that
//! cannot grow, rows that were tampered with.

mod crashes;
mod faults;
mod ids;
mod model;
#[path = "../../../tests/it/support.rs"]
mod support;

use std::sync::Arc;

use super::{GroupStore, Hooks, StoreError, StoreOptions};

/// What `support` needs, by one name here and in the integration tests.
mod api {
    pub(crate) use crate::{
        Batch, CommitFailed, GroupStore, PageParts, PostIndex, Snapshot, StoreError, StoreOptions,
    };
}

/// Opens a store whose projector carries over at most `allowance` events.
fn open_held(dir: &tempfile::TempDir, allowance: Option<usize>) -> Result<GroupStore, StoreError> {
    open_held_with(dir, allowance, StoreOptions::default())
}

fn open_held_with(
    dir: &tempfile::TempDir,
    allowance: Option<usize>,
    options: StoreOptions,
) -> Result<GroupStore, StoreError> {
    let hooks = Hooks { allowance, ..Hooks::default() };
    let on_fatal = Arc::new(|reason| panic!("fatal: {reason}"));
    GroupStore::open_with(dir.path(), options, on_fatal, &hooks)
}

impl GroupStore {
    /// Whether messages are kept out of the search index from now on.
    fn hold_index(&self, hold: bool) {
        self.inner.inbox.hold_index(hold);
    }

    /// Waits until the keeper has done what it was asked before.
    fn let_keeper_catch_up(&self) {
        let (answer, answered) = std::sync::mpsc::channel();
        self.inner.to_keeper.send(super::Keep::Refresh(answer)).unwrap();
        answered.recv().unwrap();
    }

    /// Lets look-ups see what other connections have done.
    fn refresh_lookups(&self) {
        self.inner.lookup.refresh();
    }

    /// Lets the projector carry over so many events more; `None`: all.
    fn let_project(&self, events: Option<usize>) {
        self.inner.inbox.allow(events);
    }
}
