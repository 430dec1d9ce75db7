//! What a group has used and what it may use: figures are handed over now and then, rates are looked at
//! before a frame becomes an input. Where nothing is limited, neither costs more than an addition.

use std::sync::Arc;

use convene_group_controller::{Address, Input, Leave};
use convene_hop::Close;
use convene_model::{
    Code, OrgId, Problem, Ref, RunId, Timestamp, UserId, agents::Usage, claims::Access,
    frame::CLOSE_EGRESS, infra::GroupLimits, limits::OUTSIDE_FRAMES_PER_MINUTE,
};
use tokio::time::Instant;

use super::{Actor, EndedRun};
use crate::controllers::{
    budget::{self, Waiting},
    policy::Beyond,
};

impl Actor {
    /// Hands over what the group has used.
    pub(super) fn hand_over(&mut self, now: Instant) {
        if let Some(state) = self.controller.state() {
            let epoch = state.identity().epoch;
            self.shared.usage.hand_over(&self.group_id, epoch, &mut self.meter, now);
        }
    }

    /// The end of a run is durable.
    pub(super) fn run_ended(&self, run: EndedRun) {
        self.shared.usage.run_ended(&self.group_id, self.epoch(), run);
    }

    /// Asks whether a run may start, unless it is known that its organization has no budget.
    pub(super) fn reserve(&mut self, run_id: RunId, tokens: u64) {
        let Some((org_id, now)) = self.org_and_now() else { return };
        if let Some(until) = self.shared.budgets.unlimited_until(org_id, now) {
            // Neither is refused: the group exists.
            let _ = self.step(Input::Unlimited { until });
            let _ = self.step(Input::Reserved { run_id, leave: Leave::Granted });
            return;
        }
        let waiting = Waiting {
            group_id: self.group_id.clone(),
            org_id: org_id.clone(),
            epoch: self.epoch(),
            run_id,
            tokens,
        };
        self.asking += 1;
        let (shared, mailbox) = (Arc::clone(&self.shared), self.mailbox.clone());
        self.shared.tasks.spawn(budget::ask(shared, waiting, mailbox));
    }

    /// A run does not start that holds something.
    pub(super) fn unused(&self, run_id: RunId) {
        self.spent(run_id, Some(Usage::default()));
    }

    /// A summary that no event tells of has used something.
    pub(super) fn spent(&self, run_id: RunId, used: Option<Usage>) {
        self.shared.usage.settle(&self.group_id, self.epoch(), run_id, used);
    }

    fn epoch(&self) -> u64 {
        self.controller.state().map_or(0, |state| state.identity().epoch)
    }

    /// Takes over what the organization's limits leave to the group; `None` when it wakes by itself.
    pub(super) fn limit(&mut self, handed_down: Option<GroupLimits>) {
        let Some(state) = self.controller.state() else { return };
        let (org_id, policy) = (&state.identity().org_id, &self.shared.policy);
        match handed_down {
            Some(limits) => {
                policy.hand_down(org_id, limits);
                self.limits = limits;
            }
            None => self.limits = policy.of(org_id),
        }
        if self.check_egress().is_err() {
            tracing::warn!(group = %self.group_id, "a group has sent as much as it may");
            self.upstreams
                .close_all(&Close::new(CLOSE_EGRESS, "the group has sent as much as it may"));
        }
    }

    /// That the group may send anything for now.
    pub(super) fn check_egress(&self) -> Result<(), Problem> {
        let now = (self.shared.clock)();
        match self.limits.egress_until.filter(|until| *until > now) {
            Some(until) => {
                Err(Problem::new(Code::EgressExhausted).with("resets_at", until.millis()))
            }
            None => Ok(()),
        }
    }

    /// Refuses an attach of a user who attaches too often.
    pub(super) fn limit_attach(
        &self,
        from: &Address,
        r#ref: &Ref,
        access: &Result<Access, Code>,
    ) -> Option<Input> {
        self.limits.user_attaches_per_minute?;
        let user = &access.as_ref().ok()?.claims.user_id;
        let (org_id, now) = self.org_and_now()?;
        let beyond = self.shared.policy.attach(self.limits, org_id, user, now).err()?;
        Some(self.refuse(from, r#ref, user, beyond))
    }

    /// Refuses a post of a user who posts too often, or whose organization does.
    pub(super) fn limit_post(&self, from: &Address, r#ref: &Ref) -> Option<Input> {
        if self.limits.user_posts_per_minute.is_none() && self.limits.org_posts_per_minute.is_none()
        {
            return None;
        }
        let user = &self.controller.access(from)?.claims.user_id;
        let (org_id, now) = self.org_and_now()?;
        let beyond = self.shared.policy.post(self.limits, org_id, user, now).err()?;
        Some(self.refuse(from, r#ref, user, beyond))
    }

    /// Refuses what an agent's own process says about its runs too often.
    pub(super) fn limit_run(&self, from: &Address, r#ref: &Ref) -> Option<Input> {
        let user = &self.controller.access(from)?.claims.user_id;
        let (org_id, now) = self.org_and_now()?;
        let retry_after = self.shared.policy.outside_frame(org_id, user, now).err()?;
        Some(Input::Refuse {
            from: from.clone(),
            r#ref: Some(r#ref.clone()),
            code: Code::RateLimited,
            detail: format!(
                "an agent sends at most {OUTSIDE_FRAMES_PER_MINUTE} frames about runs a minute"
            ),
            retry_after_ms: Some(retry_after.as_millis().max(1) as u64),
        })
    }

    fn org_and_now(&self) -> Option<(&OrgId, Timestamp)> {
        Some((&self.controller.state()?.identity().org_id, (self.shared.clock)()))
    }

    fn refuse(&self, from: &Address, r#ref: &Ref, user: &UserId, beyond: Beyond) -> Input {
        self.shared.usage.refused(&self.group_id, self.epoch(), beyond.kind, user);
        Input::Refuse {
            from: from.clone(),
            r#ref: Some(r#ref.clone()),
            code: Code::RateLimited,
            detail: beyond.detail,
            retry_after_ms: Some(beyond.retry_after.as_millis().max(1) as u64),
        }
    }
}
