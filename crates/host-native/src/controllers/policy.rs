//! What organizations' limits leave to their groups: rates of messages and attaches.
//!
//! This process has every group, so it sees all that a rate counts. The Orchestrator alone knows the
//! limits and hands them down with each `init`; a group that wakes by itself has those that were handed
//! down for its organization last.

use std::{collections::HashMap, time::Duration};

use convene_model::{
    OrgId, Timestamp, UserId, infra::GroupLimits, limits::OUTSIDE_FRAMES_PER_MINUTE,
    rate::RateLimiter, usage::RefusedKind,
};
use parking_lot::Mutex;

/// Rates of organizations and their users.
#[derive(Default)]
pub(super) struct Policy {
    of_orgs: Mutex<HashMap<OrgId, GroupLimits>>,
    user_posts: RateLimiter<(OrgId, UserId)>,
    org_posts: RateLimiter<OrgId>,
    user_attaches: RateLimiter<(OrgId, UserId)>,
    outside_frames: RateLimiter<(OrgId, UserId)>,
}

/// Somebody goes beyond a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beyond {
    pub(super) kind: RefusedKind,
    pub(super) detail: String,
    pub(super) retry_after: Duration,
}

impl Policy {
    /// Keeps an organization's rates. Nothing is kept of one that has none.
    pub(super) fn hand_down(&self, org_id: &OrgId, limits: GroupLimits) {
        let rates = GroupLimits { egress_until: None, ..limits };
        let mut of_orgs = self.of_orgs.lock();
        if rates.are_none() {
            of_orgs.remove(org_id);
        } else {
            of_orgs.insert(org_id.clone(), rates);
        }
    }

    /// The rates that were handed down for an organization last.
    pub(super) fn of(&self, org_id: &OrgId) -> GroupLimits {
        self.of_orgs.lock().get(org_id).copied().unwrap_or_default()
    }

    /// A user posts a message.
    pub(super) fn post(
        &self,
        limits: GroupLimits,
        org_id: &OrgId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), Beyond> {
        if let Some(rate) = limits.user_posts_per_minute {
            let key = (org_id.clone(), user.clone());
            self.user_posts.take(key, rate, now).map_err(|too_often| Beyond {
                kind: RefusedKind::Posts,
                detail: format!("a person posts at most {rate} messages a minute here"),
                retry_after: too_often.retry_after,
            })?;
        }
        if let Some(rate) = limits.org_posts_per_minute {
            self.org_posts.take(org_id.clone(), rate, now).map_err(|too_often| Beyond {
                kind: RefusedKind::Posts,
                detail: format!("at most {rate} messages a minute are posted in this workspace"),
                retry_after: too_often.retry_after,
            })?;
        }
        Ok(())
    }

    /// An agent's own process sends a frame about a run; how long it has to wait if that is too often.
    pub(super) fn outside_frame(
        &self,
        org_id: &OrgId,
        agent: &UserId,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let key = (org_id.clone(), agent.clone());
        let taken = self.outside_frames.take(key, OUTSIDE_FRAMES_PER_MINUTE, now);
        taken.map_err(|too_often| too_often.retry_after)
    }

    /// A user attaches a connection.
    pub(super) fn attach(
        &self,
        limits: GroupLimits,
        org_id: &OrgId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), Beyond> {
        let Some(rate) = limits.user_attaches_per_minute else { return Ok(()) };
        let key = (org_id.clone(), user.clone());
        self.user_attaches.take(key, rate, now).map_err(|too_often| Beyond {
            kind: RefusedKind::Attaches,
            detail: format!("a person attaches at most {rate} times a minute here"),
            retry_after: too_often.retry_after,
        })
    }
}
