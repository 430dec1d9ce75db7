//! The HTTP interface: one folder per resource, one file per endpoint.
//!
//! Owns the table of routes ([`table`]) and what all group routes share: which group, whose, and
//! whether the caller may know of it. Answers nothing before the caller's token was verified.

mod groups;
mod lifecycle;
mod org_block;
mod org_limits;
mod orgs;
mod routing_tokens;
mod service;
pub(crate) mod table;
mod tasks;
mod usage;

use std::{collections::HashMap, convert::Infallible, str::FromStr, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, Path},
};
use convene_hop::{method_not_allowed, not_found};
use convene_model::{
    Code, GroupId, MessageId, OrgId, Problem, infra::RoutingRecord, limits::MAX_PAGE, listing,
};
use http::request::Parts;

use crate::{
    Shared,
    auth::Caller,
    directory::{OwnedRecord, listing::Sight},
    idempotency::Scope,
    problem,
};

/// What handlers are given.
pub(crate) type Orchestra = Arc<Shared>;

pub(crate) fn router(shared: Orchestra) -> Router {
    table::api()
        .split()
        .0
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

/// The `{id}` of a path; what is no id names nothing, which is found out after the token's check.
pub(crate) struct PathId<T>(Option<T>);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(path_member(parts, state, "id").await))
    }
}

/// The `{message_id}` of a path; what is no id names no message.
pub(crate) struct PathMessageId(Option<MessageId>);

impl<S: Send + Sync> FromRequestParts<S> for PathMessageId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(path_member(parts, state, "message_id").await))
    }
}

impl PathMessageId {
    fn found(self) -> Result<MessageId, Problem> {
        self.0.ok_or_else(|| Code::MessageNotFound.into())
    }
}

async fn path_member<T: FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Option<T> {
    let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
    path.ok().and_then(|Path(members)| members.get(name)?.parse().ok())
}

/// How many entries a page has that was asked for with this limit.
///
/// # Errors
/// [`Code::InvalidRequest`].
pub(crate) fn page(limit: Option<usize>) -> Result<usize, Problem> {
    listing::page_size(limit).map_err(|limit| {
        let detail = format!("limit is {limit}, but must be 1 to {MAX_PAGE}");
        Problem::new(Code::InvalidRequest).detail(detail)
    })
}

impl<T> PathId<T> {
    fn found(self) -> Result<T, Problem> {
        self.0.ok_or_else(|| Code::GroupNotFound.into())
    }
}

impl Caller {
    /// What this caller sees in lists.
    pub(crate) fn sight(&self) -> Sight<'_> {
        let issuer = (!self.operator).then_some(self.issuer.as_str());
        Sight { issuer, org_id: self.org_id.as_ref() }
    }
}

impl From<&Caller> for Scope {
    fn from(caller: &Caller) -> Self {
        Self { issuer: caller.issuer.clone(), org_id: caller.org_id.clone() }
    }
}

impl Shared {
    /// The record of a group, for a caller that may know of it.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`] when there is none or its organization is another issuer's;
    /// [`Code::Forbidden`] when the token is for another organization.
    async fn group_for(
        &self,
        caller: &Caller,
        group_id: &GroupId,
    ) -> Result<RoutingRecord, Problem> {
        self.owned_for(caller, group_id).await.map(|found| found.record)
    }

    /// Like [`Shared::group_for`], with what the group's life needs to know.
    ///
    /// # Errors
    /// Those of [`Shared::group_for`].
    async fn owned_for(&self, caller: &Caller, group_id: &GroupId) -> Result<OwnedRecord, Problem> {
        let found = self.directory.record(group_id).await.map_err(problem::of_directory)?;
        let found = found.filter(|found| found.issuer == caller.issuer);
        let found = found.ok_or(Code::GroupNotFound)?;
        caller.check_org(&found.record.org_id)?;
        Ok(found)
    }

    /// Like [`Shared::group_for`], for what operators may do with every group.
    ///
    /// # Errors
    /// Those of [`Shared::group_for`].
    async fn group_for_operator(
        &self,
        caller: &Caller,
        group_id: &GroupId,
    ) -> Result<OwnedRecord, Problem> {
        if !caller.operator {
            return self.owned_for(caller, group_id).await;
        }
        let found = self.directory.record(group_id).await.map_err(problem::of_directory)?;
        let found = found.ok_or(Code::GroupNotFound)?;
        caller.check_org(&found.record.org_id)?;
        Ok(found)
    }

    /// That a caller may know of an organization: its own, or one that nobody owns yet; an operator
    /// may know of all.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`] when another issuer owns it; [`Code::Forbidden`] when the token is
    /// for another organization.
    async fn check_org_for(&self, caller: &Caller, org_id: &OrgId) -> Result<(), Problem> {
        let owner = self.directory.owner(org_id).await.map_err(problem::of_directory)?;
        if !caller.operator && owner.is_some_and(|owner| owner != caller.issuer) {
            return Err(Code::GroupNotFound.into());
        }
        caller.check_org(org_id)
    }
}
