//! Who is present: users with an attached connection, and those who had one a moment ago.
//!
//! Changes are gathered, so that many of them make one frame. Beyond [`MAX_PRESENT_LISTED`] users
//! are counted and not named. Never persisted: it begins anew with the process.

use std::mem;

use convene_model::{
    Timestamp, UserId,
    frame::GroupFrame,
    limits::{MAX_PRESENT_LISTED, PRESENCE_GRACE, PRESENCE_PAUSE, TYPING_PAUSE},
};

use crate::few::{Few, FewKeys};

/// Who is present.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    users: Few<UserId, Present>,
    /// Users of `users` who are named, at most [`MAX_PRESENT_LISTED`].
    listed: FewKeys<UserId>,
    /// The others, who take the places of those who leave.
    unlisted: FewKeys<UserId>,
    /// When each user without a connection leaves.
    leaving: FewKeys<(Timestamp, UserId)>,
    /// Users who came to `listed` or left it since the last frame.
    changed: FewKeys<UserId>,
    /// When the changes are told; `None` while there are none.
    tell_at: Option<Timestamp>,
}

/// A user who is present.
#[derive(Debug, Default)]
struct Present {
    connections: usize,
    /// When the user leaves, while no connection is left.
    leaves_at: Option<Timestamp>,
    /// When the user's typing was last passed on.
    typed_at: Option<Timestamp>,
}

impl Presence {
    /// A connection of the user was attached.
    pub(crate) fn arrive(&mut self, now: Timestamp, user_id: &UserId) {
        if let Some(present) = self.users.get_mut(user_id) {
            present.connections += 1;
            if let Some(at) = present.leaves_at.take() {
                self.leaving.remove(&(at, user_id.clone()));
            }
            return;
        }
        self.users.insert(user_id.clone(), Present { connections: 1, ..Present::default() });
        self.unlisted.insert(user_id.clone(), ());
        self.fill();
        self.tell_soon(now);
    }

    /// A connection of the user ended. The user leaves a while after the last one did.
    pub(crate) fn depart(&mut self, now: Timestamp, user_id: &UserId) {
        let Some(present) = self.users.get_mut(user_id) else { return };
        present.connections = present.connections.saturating_sub(1);
        if present.connections == 0 && present.leaves_at.is_none() {
            let at = now + PRESENCE_GRACE;
            present.leaves_at = Some(at);
            self.leaving.insert((at, user_id.clone()), ());
        }
    }

    /// The user leaves at once, with whatever connections there were. Everything that was not told
    /// yet is told with it; `None` when the user was not present.
    pub(crate) fn expel(&mut self, user_id: &UserId) -> Option<GroupFrame> {
        self.users.contains_key(user_id).then(|| {
            self.leave(user_id);
            self.fill();
            self.tell()
        })
    }

    /// Lets those leave whose time has come; what there is to tell, once it is time for it.
    pub(crate) fn run(&mut self, now: Timestamp) -> Option<GroupFrame> {
        let mut left = false;
        while self.leaving.first().is_some_and(|((at, _), ())| *at <= now) {
            let Some(((_, user_id), ())) = self.leaving.pop_first() else { break };
            self.leave(&user_id);
            left = true;
        }
        if left {
            self.fill();
            self.tell_soon(now);
        }
        self.tell_at.is_some_and(|at| at <= now).then(|| self.tell())
    }

    /// Whether the typing of a user who is present is passed on now.
    pub(crate) fn types(&mut self, now: Timestamp, user_id: &UserId) -> bool {
        let Some(present) = self.users.get_mut(user_id) else { return false };
        if present.typed_at.is_some_and(|at| now.since(at) < TYPING_PAUSE) {
            return false;
        }
        present.typed_at = Some(now);
        true
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.leaving.first().map(|((at, _), ())| *at).into_iter().chain(self.tell_at).min()
    }

    /// Users who are named, in no order that means anything.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &UserId> {
        self.listed.keys()
    }

    pub(crate) fn count(&self) -> u64 {
        self.users.len() as u64
    }

    fn leave(&mut self, user_id: &UserId) {
        if let Some(at) = self.users.remove(user_id).and_then(|present| present.leaves_at) {
            self.leaving.remove(&(at, user_id.clone()));
        }
        self.unlisted.remove(user_id);
        if self.listed.remove(user_id).is_some() {
            self.changed.insert(user_id.clone(), ());
        }
    }

    /// Names as many as may be. The caller lets everybody leave first who is to leave, so that
    /// nobody is named in passing.
    fn fill(&mut self) {
        while self.listed.len() < MAX_PRESENT_LISTED
            && let Some((user_id, ())) = self.unlisted.pop_first()
        {
            self.changed.insert(user_id.clone(), ());
            self.listed.insert(user_id, ());
        }
    }

    fn tell_soon(&mut self, now: Timestamp) {
        self.tell_at.get_or_insert(now + PRESENCE_PAUSE);
    }

    /// Who attached since the last frame has seen some of the changes already: a frame says where
    /// each changed user stands now, and saying it twice does no harm.
    fn tell(&mut self) -> GroupFrame {
        self.tell_at = None;
        let (joined, left) = mem::take(&mut self.changed)
            .into_entries()
            .map(|(user_id, ())| user_id)
            .partition(|user_id| self.listed.contains_key(user_id));
        GroupFrame::Presence { joined, left, count: self.count() }
    }
}
