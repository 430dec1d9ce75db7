//! What lives only while the controller is in memory: connections and the text of running replies.

use std::collections::{BTreeMap, BTreeSet};

use convene_model::{
    ConnId, RunId, Timestamp, UpstreamId, UserId,
    claims::Access,
    limits::{EXPIRED_TOKEN_GRACE, MAX_CONNS_PER_UPSTREAM, MAX_UPSTREAMS_PER_GROUP},
};

use crate::Address;

/// Connections and the text of running replies.
#[derive(Debug, Default)]
pub(crate) struct Live {
    upstreams: BTreeMap<UpstreamId, BTreeMap<ConnId, Access>>,
    /// When each connection is detached unless it renews.
    expiry: BTreeSet<(Timestamp, Address)>,
    /// The text so far of each running reply.
    pub(crate) replies: BTreeMap<RunId, String>,
}

impl Live {
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

    pub(crate) fn join(&mut self, address: Address, access: Access) {
        self.leave(&address);
        self.expiry.insert((detach_at(&access), address.clone()));
        self.upstreams.entry(address.upstream).or_default().insert(address.conn, access);
    }

    pub(crate) fn leave(&mut self, address: &Address) -> bool {
        let Some(conns) = self.upstreams.get_mut(&address.upstream) else { return false };
        let Some(access) = conns.remove(&address.conn) else { return false };
        if conns.is_empty() {
            self.upstreams.remove(&address.upstream);
        }
        self.expiry.remove(&(detach_at(&access), address.clone()));
        true
    }

    pub(crate) fn close(&mut self, upstream: UpstreamId) {
        if self.upstreams.remove(&upstream).is_some() {
            self.expiry.retain(|(_, address)| address.upstream != upstream);
        }
    }

    /// Takes the connections whose tokens have been expired for too long.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Address> {
        let mut gone = Vec::new();
        while self.expiry.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, address)) = self.expiry.pop_first() else { break };
            self.leave(&address);
            gone.push(address);
        }
        gone
    }

    /// Takes the connections that `which` says yes to.
    pub(crate) fn leave_where(&mut self, which: impl Fn(&Access) -> bool) -> Vec<Address> {
        let gone: Vec<Address> = self
            .upstreams
            .iter()
            .flat_map(|(upstream, conns)| {
                conns.iter().map(move |(conn, access)| (upstream, conn, access))
            })
            .filter(|(_, _, access)| which(access))
            .map(|(upstream, conn, _)| Address { upstream: *upstream, conn: conn.clone() })
            .collect();
        for address in &gone {
            self.leave(address);
        }
        gone
    }

    pub(crate) fn leave_user(&mut self, user_id: &UserId) {
        self.leave_where(|access| access.claims.user_id == *user_id);
    }

    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiry.first().map(|(at, _)| *at)
    }

    pub(crate) fn connections(&self) -> usize {
        self.expiry.len()
    }
}

fn detach_at(access: &Access) -> Timestamp {
    access.expires_at + EXPIRED_TOKEN_GRACE
}
