//! `PUT /infra/orgs/{id}/block`: blocks an organization, or lifts its block; operators only.
//!
//! Any organization can be blocked, whoever owns it. From the block on its groups are not activated,
//! restored or read, and its users get no tokens; those that they have are void, since every group's
//! epoch is raised in the same transaction. The controllers are told at once, and again by scheduled
//! work until they know, so that upstreams are closed within seconds. A repeat voids tokens again.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 422 `validation_failed`.

use axum::extract::State;
use convene_hop::{ApiError, LIFECYCLE, RawRequest, json};
use convene_model::{Code, OrgId, Problem, infra::BlockRequest};

use crate::{
    auth::Caller,
    idempotency::{Answer, Scope},
    problem, reconcile,
    routes::{Orchestra, PathId, lifecycle::check_reason},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    org_id: PathId<OrgId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    check_operator(&caller)?;
    let org_id = org_id.found()?;
    caller.check_org(&org_id)?;
    let body: BlockRequest = json(&request.body)?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { set(&orchestra, &caller, &org_id, &body).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn set(
    shared: &Orchestra,
    caller: &Caller,
    org_id: &OrgId,
    body: &BlockRequest,
) -> Result<Answer, Problem> {
    let BlockRequest { blocked, reason } = body;
    check_reason(reason)?;
    let directory = &shared.directory;
    if *blocked {
        directory.block(org_id, reason, shared.now()).await.map_err(problem::of_directory)?;
        // Tokens are void already; what a controller cannot be told now it is told by scheduled work.
        if let Err(error) = reconcile::tell(shared).await {
            tracing::warn!(%error, "controllers are told later");
        }
    } else {
        directory.unblock(org_id).await.map_err(problem::of_directory)?;
    }
    let issuer = &caller.issuer;
    tracing::warn!(target: LIFECYCLE, %org_id, blocked, reason, issuer, "block set");
    Answer::json(&directory.org_block(org_id).await.map_err(problem::of_directory)?)
}

/// That a caller has operator scope.
///
/// # Errors
/// [`Code::Forbidden`].
pub(super) fn check_operator(caller: &Caller) -> Result<(), Problem> {
    if caller.operator {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden).detail("only operators block organizations"))
}
