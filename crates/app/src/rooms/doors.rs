//! Which sockets are open by which proof, so that they end with it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use convene_model::{GroupId, Timestamp, UserId};
use parking_lot::Mutex;

use super::{outbound::Outbound, ws::CloseCode};

/// What a socket or a stream was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Its name among its user's proofs.
    pub id: String,
    /// Until when it holds, if it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Whether it is an agent's own process that is behind it.
    pub is_agent: bool,
    /// The bearer token, by its id, if that is what it is.
    pub token_id: Option<String>,
}

impl Proof {
    /// Whether its time has come.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// All open sockets of this process.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<HashMap<UserId, Vec<Arc<Door>>>>);

/// One socket.
#[derive(Debug)]
pub(super) struct Door {
    user: UserId,
    group: GroupId,
    proof: Proof,
    state: Mutex<DoorState>,
}

#[derive(Debug, Default)]
struct DoorState {
    outbound: Option<Arc<Outbound>>,
    ended: bool,
}

/// A socket that is open or about to be; it is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Open {
    doors: Arc<Doors>,
    door: Arc<Door>,
}

impl Doors {
    pub(super) fn open(self: &Arc<Self>, user: UserId, group: GroupId, proof: Proof) -> Open {
        let state = Mutex::default();
        let door = Arc::new(Door { user: user.clone(), group, proof, state });
        self.0.lock().entry(user).or_default().push(Arc::clone(&door));
        Open { doors: Arc::clone(self), door }
    }

    pub(super) fn has(&self, user: &UserId) -> bool {
        self.0.lock().contains_key(user)
    }

    /// The proofs of the sockets that are tokens.
    pub(super) fn tokens(&self) -> Vec<Proof> {
        let doors = self.0.lock();
        let proofs = doors.values().flatten().map(|door| &door.proof);
        proofs.filter(|proof| proof.token_id.is_some()).cloned().collect()
    }

    /// The groups in which a user has sockets.
    pub(super) fn groups_of(&self, user: &UserId) -> BTreeSet<GroupId> {
        let doors = self.0.lock();
        doors.get(user).into_iter().flatten().map(|door| door.group.clone()).collect()
    }

    /// The users who have sockets in a group.
    pub(super) fn users_in(&self, group: &GroupId) -> BTreeSet<UserId> {
        let doors = self.0.lock();
        let inside = doors.values().flatten().filter(|door| door.group == *group);
        inside.map(|door| door.user.clone()).collect()
    }

    /// Closes the sockets of a user whose proof is none of these.
    pub(super) fn keep(&self, user: &UserId, held: &HashSet<String>) {
        let doors = self.0.lock().get(user).cloned().unwrap_or_default();
        doors.iter().filter(|door| !held.contains(&door.proof.id)).for_each(|door| door.end());
    }

    /// Closes the sockets whose proof has ended by itself.
    pub(super) fn close_expired(&self, now: Timestamp) {
        let doors: Vec<_> = self.0.lock().values().flatten().cloned().collect();
        doors.iter().filter(|door| door.proof.has_expired(now)).for_each(|door| door.end());
    }

    /// What waits to be written, in bytes and frames: over all sockets, and the most of each for any
    /// one of them.
    pub(super) fn backlog(&self) -> Backlog {
        let doors = self.0.lock();
        doors.values().flatten().fold(Backlog::default(), |all, door| {
            let waits = door.state.lock().outbound.as_ref().map_or((0, 0), |o| o.backlog());
            let (total, fullest) = (all.total, all.fullest);
            Backlog {
                total: (total.0 + waits.0, total.1 + waits.1),
                fullest: (fullest.0.max(waits.0), fullest.1.max(waits.1)),
            }
        })
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}

/// What waits to be written to clients, in bytes and frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) total: (usize, usize),
    pub(super) fullest: (usize, usize),
}

impl Door {
    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        if let Some(outbound) = &state.outbound {
            outbound.close(CloseCode::Revoked);
        }
    }
}

impl Open {
    /// The socket can be written to from now on; one whose proof has ended already is closed.
    pub(super) fn opened(&self, outbound: &Arc<Outbound>) {
        let mut state = self.door.state.lock();
        state.outbound = Some(Arc::clone(outbound));
        if state.ended {
            outbound.close(CloseCode::Revoked);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut doors = self.doors.0.lock();
        let Some(own) = doors.get_mut(&self.door.user) else { return };
        own.retain(|door| !Arc::ptr_eq(door, &self.door));
        if own.is_empty() {
            doors.remove(&self.door.user);
        }
    }
}
