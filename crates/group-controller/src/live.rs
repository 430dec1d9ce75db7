//! What lives only while the controller is in memory: connections, who is present, and the text of
//! running replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use convene_model::{
    AgentId, ConnId, Role, RunId, Timestamp, UpstreamId, UserId,
    claims::Access,
    frame::GroupFrame,
    limits::{EXPIRED_TOKEN_GRACE, MAX_CONNS_PER_UPSTREAM, MAX_UPSTREAMS_PER_GROUP},
};

use crate::{
    Address, Run,
    checkpoints::Checkpoints,
    compaction::Compaction,
    few::{Few, FewKeys},
    outside::{self, Claims},
    presence::Presence,
};

/// Connections, who is present, and the text of running replies.
#[derive(Debug, Default)]
pub(crate) struct Live {
    upstreams: Few<UpstreamId, Few<ConnId, Access>>,
    /// When each connection is detached unless it renews.
    expiry: FewKeys<(Timestamp, Address)>,
    pub(crate) presence: Presence,
    /// The text so far of each running reply, where the state does not have it.
    pub(crate) replies: BTreeMap<RunId, String>,
    /// When that is to be stored.
    pub(crate) checkpoints: Checkpoints,
    /// Whether something is on its way to the organization's own history service.
    pub(crate) exporting: bool,
    /// The summary under way.
    pub(crate) compaction: Compaction,
    pub(crate) budget: Budget,
    /// Whose each run of an outside agent is.
    pub(crate) claims: Claims,
}

/// What is known of the organization's budget. After a restart it is asked for again.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Until then runs start without leave.
    pub(crate) unlimited_until: Timestamp,
    /// Until then triggers are suppressed: a run found no room a moment ago.
    pub(crate) exhausted_until: Timestamp,
    /// Under which names leave was asked for runs.
    pub(crate) asked: BTreeSet<RunId>,
    /// Waiting runs that have it.
    pub(crate) granted: BTreeSet<RunId>,
}

impl Live {
    /// Nobody is there, but for the text so far of replies.
    pub(crate) fn with_replies(replies: BTreeMap<RunId, String>) -> Self {
        Self { replies, ..Self::default() }
    }

    pub(crate) fn access(&self, address: &Address) -> Option<&Access> {
        self.upstreams.get(&address.upstream)?.get(&address.conn)
    }

    /// Whether a new connection at `address` would be within the limits.
    pub(crate) fn has_room(&self, address: &Address) -> bool {
        match self.upstreams.get(&address.upstream) {
            Some(conns) => {
                conns.len() < MAX_CONNS_PER_UPSTREAM || conns.contains_key(&address.conn)
            }
            None => self.upstreams.len() < MAX_UPSTREAMS_PER_GROUP,
        }
    }

    /// Takes a connection in, or renews its right; its user is the one that it had.
    pub(crate) fn join(&mut self, now: Timestamp, address: Address, access: Access) {
        let was_person = self.take(&address).is_some_and(|held| is_person(&held));
        match (was_person, is_person(&access)) {
            (false, true) => self.presence.arrive(now, &access.claims.user_id),
            (true, false) => self.presence.depart(now, &access.claims.user_id),
            (true, true) | (false, false) => {}
        }
        self.expiry.insert((detach_at(&access), address.clone()), ());
        match self.upstreams.get_mut(&address.upstream) {
            Some(conns) => drop(conns.insert(address.conn, access)),
            None => {
                let mut conns = Few::default();
                conns.insert(address.conn, access);
                self.upstreams.insert(address.upstream, conns);
            }
        }
    }

    pub(crate) fn leave(&mut self, now: Timestamp, address: &Address) -> bool {
        let access = self.take(address);
        if let Some(access) = access.as_ref().filter(|access| is_person(access)) {
            self.presence.depart(now, &access.claims.user_id);
        }
        access.is_some()
    }

    pub(crate) fn close(&mut self, now: Timestamp, upstream: UpstreamId) {
        let conns = self.upstreams.remove(&upstream).unwrap_or_default();
        for (conn, access) in conns.into_entries() {
            self.expiry.remove(&(detach_at(&access), Address { upstream, conn }));
            if is_person(&access) {
                self.presence.depart(now, &access.claims.user_id);
            }
        }
    }

    /// Takes the connections whose tokens have been expired for too long.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Address> {
        let mut gone = Vec::new();
        while self.expiry.first().is_some_and(|((at, _), ())| *at <= now) {
            let Some(((_, address), ())) = self.expiry.pop_first() else { break };
            self.leave(now, &address);
            gone.push(address);
        }
        gone
    }

    /// Takes all connections of a user and the user's presence with them; what there is to tell the
    /// others, if anybody is there.
    pub(crate) fn expel(&mut self, user_id: &UserId) -> Option<GroupFrame> {
        let mut gone = Vec::new();
        for (upstream, conns) in self.upstreams.iter() {
            for (conn, access) in conns.iter() {
                if access.claims.user_id == *user_id {
                    gone.push(Address { upstream: *upstream, conn: conn.clone() });
                }
            }
        }
        for address in &gone {
            self.take(address);
        }
        self.presence.expel(user_id).filter(|_| !self.expiry.is_empty())
    }

    /// Takes all connections. Nobody is left who could be told of it.
    pub(crate) fn expel_all(&mut self) -> Vec<Address> {
        self.upstreams = Few::default();
        self.presence = Presence::default();
        let expiry = mem::take(&mut self.expiry);
        expiry.into_entries().map(|((_, address), ())| address).collect()
    }

    /// Lets the users leave whose time has come; what there is to tell everybody, if anybody is
    /// there.
    pub(crate) fn presence_due(&mut self, now: Timestamp) -> Option<GroupFrame> {
        self.presence.run(now).filter(|_| !self.expiry.is_empty())
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let expiry = self.expiry.first().map(|((at, _), ())| *at);
        let offers = outside::next_deadline(&self.claims);
        expiry.into_iter().chain(self.presence.next_deadline()).chain(offers).min()
    }

    /// Whether a process of an agent's own is attached.
    pub(crate) fn has_agent(&self, agent_id: &AgentId) -> bool {
        let all = self.upstreams.iter().flat_map(|(_, conns)| conns.iter());
        let mut agents = all.map(|(_, access)| access).filter(|access| !is_person(access));
        agents.any(|access| access.claims.user_id.as_str() == agent_id.as_str())
    }

    pub(crate) fn connections(&self) -> usize {
        self.expiry.len()
    }

    /// The text so far of a run's reply.
    pub(crate) fn reply<'a>(&'a self, run: &'a Run) -> &'a str {
        self.replies.get(&run.run_id).map_or(&run.work.said, String::as_str)
    }

    /// Adds to the text of a run's reply; whether it is to be stored.
    pub(crate) fn say(&mut self, now: Timestamp, run: &Run, text: &str) -> bool {
        let reply = self.replies.entry(run.run_id.clone());
        let reply = reply.or_insert_with(|| run.work.said.clone());
        reply.push_str(text);
        let bytes = reply.len();
        self.checkpoints.grown(now, &run.run_id, bytes)
    }

    /// Takes the text of a run's reply, which has ended.
    pub(crate) fn take_reply(&mut self, run: &Run) -> String {
        self.checkpoints.end(&run.run_id);
        self.replies.remove(&run.run_id).unwrap_or_else(|| run.work.said.clone())
    }

    fn take(&mut self, address: &Address) -> Option<Access> {
        let conns = self.upstreams.get_mut(&address.upstream)?;
        let access = conns.remove(&address.conn)?;
        if conns.is_empty() {
            self.upstreams.remove(&address.upstream);
        }
        self.expiry.remove(&(detach_at(&access), address.clone()));
        Some(access)
    }
}

/// Whether a connection is of somebody who is present, rather than of an agent's own process.
fn is_person(access: &Access) -> bool {
    match access.claims.role {
        Role::Member | Role::Admin | Role::Owner => true,
        Role::Agent => false,
    }
}

fn detach_at(access: &Access) -> Timestamp {
    access.expires_at + EXPIRED_TOKEN_GRACE
}
