//! What groups use: reports and reservations of their controllers, figures for apps.
//!
//! Owns who may say what a group has used: its own controller, and nobody else.

pub(crate) mod abuse;
pub(crate) mod read_group;
pub(crate) mod read_org;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod reserve;

use convene_hop::RawRequest;
use convene_model::{Code, GroupId, Problem};

use super::PathId;
use crate::{Shared, auth::Controller, directory::OwnedRecord, idempotency::Scope, problem};

/// A group's own controller, and the group.
struct Reporting {
    controller: Controller,
    found: OwnedRecord,
}

impl Reporting {
    fn scope(&self) -> Scope {
        Scope { issuer: self.controller.issuer.clone(), org_id: None }
    }

    /// That the controller works under the group's present epoch.
    ///
    /// # Errors
    /// [`Code::StaleEpoch`].
    fn check_epoch(&self) -> Result<(), Problem> {
        if self.controller.claims.epoch == self.found.record.epoch {
            Ok(())
        } else {
            Err(Code::StaleEpoch.into())
        }
    }
}

impl Shared {
    /// The group of a path, for its own controller under whatever epoch the group has had.
    ///
    /// # Errors
    /// 401 for the token; [`Code::Forbidden`] for another group; [`Code::StaleEpoch`] for an epoch
    /// that the group never had; [`Code::GroupNotFound`].
    async fn reporting(
        &self,
        group_id: PathId<GroupId>,
        request: &RawRequest,
    ) -> Result<Reporting, Problem> {
        let controller = self.auth.controller(request)?;
        let group_id = group_id.found()?;
        if controller.claims.group_id != group_id {
            return Err(Problem::new(Code::Forbidden).detail("the token is for another group"));
        }
        let found = self.directory.record(&group_id).await.map_err(problem::of_directory)?;
        let found = found.ok_or(Code::GroupNotFound)?;
        if controller.claims.epoch > found.record.epoch {
            return Err(Code::StaleEpoch.into());
        }
        Ok(Reporting { controller, found })
    }
}
