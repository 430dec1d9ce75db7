//! One stream: what its reader was told, and what waits to be told.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use convene_model::{GroupId, UserId};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{rooms::Proof, ui::view::GroupItem};

/// One stream of a person.
pub(super) struct EventStream {
    pub(super) user: UserId,
    pub(super) proof: Proof,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// What the reader was or will be told of each group, as a digest.
    listed: HashMap<GroupId, [u8; 8]>,
    whole: Option<Vec<GroupItem>>,
    /// The latest of each group; `None` for one that is gone.
    updates: BTreeMap<GroupId, Option<GroupItem>>,
    /// The latest name of each person who has another one.
    names: BTreeMap<UserId, String>,
    /// Since when something waits.
    waits_since: Option<Instant>,
    ended: bool,
}

/// What a reader is told at a time.
pub(super) struct Told {
    pub(super) whole: Option<Vec<GroupItem>>,
    pub(super) updates: Vec<Update>,
    pub(super) names: BTreeMap<UserId, String>,
}

/// A change of one group.
pub(super) enum Update {
    Stands(Box<GroupItem>),
    Gone(GroupId),
}

impl EventStream {
    pub(super) fn new(user: UserId, proof: Proof) -> Self {
        Self { user, proof, state: Mutex::default(), changed: Notify::new() }
    }

    /// What the stream begins with.
    pub(super) fn begin(&self, groups: Vec<GroupItem>) {
        let mut state = self.state.lock();
        state.listed = groups.iter().map(|item| (item.group_id.clone(), digest(item))).collect();
        state.whole = Some(groups);
        // What was told before the stream had begun is older than the whole.
        state.updates.clear();
        state.waits();
        self.changed.notify_one();
    }

    pub(super) fn lists(&self, group: &GroupId) -> bool {
        self.state.lock().listed.contains_key(group)
    }

    /// How a group stands by now; `None` when the reader may not see it.
    pub(super) fn tell(&self, group: &GroupId, item: Option<&GroupItem>) {
        let mut state = self.state.lock();
        let known = state.listed.get(group).copied();
        match item {
            Some(item) => {
                let new = digest(item);
                if known == Some(new) {
                    return;
                }
                state.listed.insert(group.clone(), new);
            }
            None if known.is_none() => return,
            None => drop(state.listed.remove(group)),
        }
        state.updates.insert(group.clone(), item.cloned());
        state.waits();
        self.changed.notify_one();
    }

    /// How all groups stand by now.
    pub(super) fn tell_all(&self, groups: &[GroupItem]) {
        let gone: Vec<GroupId> = {
            let state = self.state.lock();
            let listed = state.listed.keys();
            listed.filter(|id| groups.iter().all(|g| g.group_id != **id)).cloned().collect()
        };
        for group in gone {
            self.tell(&group, None);
        }
        for item in groups {
            self.tell(&item.group_id, Some(item));
        }
    }

    /// What somebody is called by now.
    pub(super) fn tell_name(&self, user: &UserId, name: &str) {
        let mut state = self.state.lock();
        state.names.insert(user.clone(), name.to_owned());
        state.waits();
        self.changed.notify_one();
    }

    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    pub(super) fn has_stalled(&self, for_long: Duration) -> bool {
        self.state.lock().waits_since.is_some_and(|since| since.elapsed() >= for_long)
    }

    /// Waits for something to tell; `None` when the stream has ended.
    pub(super) async fn next(&self) -> Option<Told> {
        loop {
            {
                let mut state = self.state.lock();
                if state.ended {
                    return None;
                }
                if state.waits_since.take().is_some() {
                    let updates = std::mem::take(&mut state.updates).into_iter();
                    let updates = updates.map(|(group, item)| match item {
                        Some(item) => Update::Stands(Box::new(item)),
                        None => Update::Gone(group),
                    });
                    let (updates, names) = (updates.collect(), std::mem::take(&mut state.names));
                    return Some(Told { whole: state.whole.take(), updates, names });
                }
            }
            self.changed.notified().await;
        }
    }
}

impl State {
    fn waits(&mut self) {
        self.waits_since.get_or_insert_with(Instant::now);
    }
}

fn digest(item: &GroupItem) -> [u8; 8] {
    let json = serde_json::to_vec(item).unwrap_or_default();
    let mut out = [0; 8];
    out.copy_from_slice(&blake3::hash(&json).as_bytes()[..8]);
    out
}
