//! Groups: their activation, their record, and what an app does with them on behalf of its users.
//!
//! Owns the check of a user's routing token against the group's record. Never reads what passes
//! between a user and a group.

pub(crate) mod activate;
pub(crate) mod configure;
pub(crate) mod connect;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod message;
pub(crate) mod raise_epoch;
pub(crate) mod read;
pub(crate) mod revoke;
pub(crate) mod search;
pub(crate) mod why;

use axum::response::{IntoResponse, Response};
use convene_hop::RawRequest;
use convene_model::{
    Code, GroupId, Problem, Timestamp,
    claims::Access,
    infra::{GroupStatus, RoutingRecord},
    token::TokenError,
    usage::UsageReport,
};
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;
use uuid::Uuid;

use super::PathId;
use crate::{
    Shared,
    auth::ROUTING_TOKEN_HEADER,
    directory::{OwnedRecord, usage::Arrived},
    problem,
};

/// A user's access to a group, checked at both tokens.
struct Admission {
    found: OwnedRecord,
    routing_token: HeaderValue,
}

/// That a group can be used where it stands.
///
/// # Errors
/// [`Code::GroupDeleted`]; [`Code::GroupArchived`] with the `group_status` that it has, also while the
/// group is on its way to its archive or back.
pub(crate) fn check_usable(record: &RoutingRecord) -> Result<(), Problem> {
    match record.group_status {
        GroupStatus::Active | GroupStatus::Idle => Ok(()),
        GroupStatus::Archiving | GroupStatus::Archived | GroupStatus::Restoring => {
            Err(Problem::new(Code::GroupArchived)
                .with("group_status", record.group_status.as_str()))
        }
        GroupStatus::Deleting | GroupStatus::Deleted => Err(Code::GroupDeleted.into()),
    }
}

/// That a group's organization is not blocked.
///
/// # Errors
/// [`Code::OrgBlocked`].
pub(crate) fn check_not_blocked(found: &OwnedRecord) -> Result<(), Problem> {
    if found.blocked { Err(Code::OrgBlocked.into()) } else { Ok(()) }
}

/// That a group has not sent as many bytes as it may.
///
/// # Errors
/// [`Code::EgressExhausted`] with `resets_at`.
fn check_egress(found: &OwnedRecord, now: Timestamp) -> Result<(), Problem> {
    match found.limits.egress_until.filter(|until| *until > now) {
        Some(until) => Err(Problem::new(Code::EgressExhausted).with("resets_at", until.millis())),
        None => Ok(()),
    }
}

impl Shared {
    /// Admits the user of a request to a group: the app's token, then the user's, then whether
    /// both are for this group as it stands.
    ///
    /// # Errors
    /// 401 for either token; [`Code::GroupNotFound`]; [`Code::Forbidden`] for another group or
    /// organization, [`Code::StaleEpoch`], [`Code::AccessRevoked`]; [`Code::EgressExhausted`]; those
    /// of [`check_usable`].
    async fn admit(
        &self,
        group_id: PathId<GroupId>,
        request: &RawRequest,
    ) -> Result<Admission, Problem> {
        let admission = self.admit_reader(group_id, request).await?;
        check_usable(&admission.found.record)?;
        Ok(admission)
    }

    /// Like [`Shared::admit`], for what can be read wherever the group stands.
    ///
    /// # Errors
    /// Those of [`Shared::admit`] but for where the group stands.
    async fn admit_reader(
        &self,
        group_id: PathId<GroupId>,
        request: &RawRequest,
    ) -> Result<Admission, Problem> {
        let caller = self.auth.app(request)?;
        let access = self.auth.user(request)?;
        let found = self.owned_for(&caller, &group_id.found()?).await?;
        check_not_blocked(&found)?;
        self.check_access(&found.record, &access).await?;
        check_egress(&found, self.now())?;
        let routing_token = request.headers.get(ROUTING_TOKEN_HEADER).cloned();
        let routing_token = routing_token.ok_or(TokenError::Missing)?;
        Ok(Admission { found, routing_token })
    }

    /// An answer that was read for a person from an archived group's snapshot; its bytes leave the
    /// group, as those of a live group's history do.
    ///
    /// # Errors
    /// Those of the directory.
    async fn read_out(
        &self,
        found: &OwnedRecord,
        answer: &impl Serialize,
    ) -> Result<Response, Problem> {
        let body = serde_json::to_vec(answer).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written");
            Problem::new(Code::Internal)
        })?;
        let report = UsageReport { egress_bytes: body.len() as u64, ..UsageReport::default() };
        let key = format!("read-{}", Uuid::new_v4().simple());
        let arrived = Arrived { key: &key, request_hash: "", report: &report, now: self.now() };
        self.directory.record_usage(found, arrived).await.map_err(problem::of_directory)?;
        Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
    }

    async fn check_access(&self, record: &RoutingRecord, access: &Access) -> Result<(), Problem> {
        let claims = &access.claims;
        let forbidden = |why: &str| Problem::new(Code::Forbidden).detail(why.to_owned());
        if claims.group_id != record.group_id {
            return Err(forbidden("the routing token is for another group"));
        }
        if claims.org_id != record.org_id {
            return Err(forbidden("the routing token is for another organization"));
        }
        if claims.epoch != record.epoch {
            return Err(Code::StaleEpoch.into());
        }
        let revoked_at = self
            .directory
            .revoked_at(&record.group_id, &claims.user_id)
            .await
            .map_err(problem::of_directory)?;
        // A token says its second only: one of the very second of the revocation counts as older.
        if revoked_at.is_some_and(|revoked_at| access.issued_at <= revoked_at) {
            return Err(Code::AccessRevoked.into());
        }
        Ok(())
    }
}
