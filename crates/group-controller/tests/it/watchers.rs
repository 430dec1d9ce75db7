//! What each attached connection believes of who is present, from the frames that it got, and who
//! really is.

use std::collections::{BTreeMap, BTreeSet};

use convene_group_controller::{Address, Effect, Input, Step};
use convene_model::{Role, UserId, frame::GroupFrame, limits::MAX_PRESENT_LISTED};

/// The connections of a room.
#[derive(Default)]
pub(crate) struct Watchers {
    attached: BTreeMap<Address, Watcher>,
}

struct Watcher {
    user_id: UserId,
    /// Whether the connection is of a person, rather than of an agent's own process.
    is_person: bool,
    listed: BTreeSet<UserId>,
    count: u64,
}

impl Watchers {
    pub(crate) fn len(&self) -> usize {
        self.attached.len()
    }

    /// The users of all attached connections.
    pub(crate) fn users(&self) -> BTreeSet<UserId> {
        let people = self.attached.values().filter(|watcher| watcher.is_person);
        people.map(|watcher| watcher.user_id.clone()).collect()
    }

    /// Takes in what a step has led to.
    pub(crate) fn watch(&mut self, input: &Input, step: &Step) {
        if let Input::Closed(upstream) = input {
            self.attached.retain(|address, _| address.upstream != *upstream);
        }
        for effect in &step.effects {
            match effect {
                Effect::Send { to, frame } => self.frame_for(to, frame, input),
                Effect::Broadcast(frame) => self.frame_for_all(frame),
                Effect::EndUpstreams => {
                    assert!(
                        self.attached.is_empty(),
                        "an upstream ends when everybody is detached"
                    );
                }
                Effect::Replay { .. }
                | Effect::Reserve { .. }
                | Effect::Unused { .. }
                | Effect::Spent { .. }
                | Effect::Invoke(_)
                | Effect::Abort { .. }
                | Effect::Summarize(_)
                | Effect::Export { .. }
                | Effect::Recollect { .. } => {}
            }
        }
    }

    fn frame_for(&mut self, to: &Address, frame: &GroupFrame, input: &Input) {
        match (frame, input) {
            (GroupFrame::Attached { state, .. }, Input::Attach { access: Ok(access), .. }) => {
                let user_id = access.claims.user_id.clone();
                let listed: BTreeSet<_> = state.present.iter().cloned().collect();
                let all = state.present_count as usize;
                assert_eq!(listed.len(), all.min(MAX_PRESENT_LISTED), "as many as may be");
                let is_person = access.claims.role != Role::Agent;
                let named = all > listed.len() || listed.contains(&user_id);
                assert!(named || !is_person, "oneself is present");
                let count = state.present_count;
                let watcher = Watcher { user_id, is_person, listed, count };
                self.attached.insert(to.clone(), watcher);
            }
            (GroupFrame::Detached { .. }, _) => {
                self.attached.remove(to);
            }
            _ => {}
        }
    }

    fn frame_for_all(&mut self, frame: &GroupFrame) {
        match frame {
            GroupFrame::Presence { joined, left, count } => {
                for watcher in self.attached.values_mut() {
                    watcher.listed.extend(joined.iter().cloned());
                    watcher.listed.retain(|user_id| !left.contains(user_id));
                    watcher.count = *count;
                }
            }
            GroupFrame::Detached { user_id: Some(user_id), .. } => {
                self.attached.retain(|_, watcher| watcher.user_id != *user_id);
            }
            _ => {}
        }
    }

    /// Once nobody comes and goes, everybody knows who is there.
    pub(crate) fn check_settled(&self) {
        let users = self.users();
        for (address, watcher) in &self.attached {
            assert_eq!(watcher.count, users.len() as u64, "{address:?} counts everybody");
            assert_eq!(watcher.listed.len(), users.len().min(MAX_PRESENT_LISTED));
            assert!(watcher.listed.is_subset(&users), "{address:?} lists nobody who left");
        }
    }
}
