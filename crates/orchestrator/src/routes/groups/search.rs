//! `POST /groups/{id}/search`: what a search in a group finds, for the user of the routing token or
//! for an agent of the group.
//!
//! An agent's search comes from the Agents Worker with a `worker+jwt`, whose `act` is the run's
//! agent-access token: the group is that token's, whatever the path says. It changes nothing, so it
//! needs no idempotency key. Both bodies pass through as they are.
//!
//! Errors: 401 for either token, 403 `forbidden`, `stale_epoch`, `access_revoked`, `org_blocked`,
//! 404 `group_not_found`, 409 `group_archived`, 410 `group_deleted`,
//! 502 `group_controller_unavailable`, and the controller's own.

use axum::{extract::State, response::Response};
use convene_hop::{ApiError, RawRequest};
use convene_model::{Code, GroupId, Problem, claims::SCOPE_INVOKE, token::TokenError};

use super::{Admission, check_not_blocked, check_usable};
use crate::{
    auth::Run,
    controllers::UserRequest,
    problem,
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Response, ApiError> {
    match orchestra.auth.run(&request) {
        Ok(run) => return Ok(for_run(&orchestra, &run, group_id, request).await?),
        // It is an app's, or nobody's.
        Err(TokenError::WrongType) => {}
        Err(error) => return Err(error.into()),
    }
    let Admission { found, routing_token } = orchestra.admit(group_id, &request).await?;
    let user = UserRequest { record: &found.record, query: None, routing_token: &routing_token };
    Ok(orchestra.controllers.search(user, request.body).await?)
}

async fn for_run(
    orchestra: &Orchestra,
    run: &Run,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Response, Problem> {
    let forbidden = |why: &str| Problem::new(Code::Forbidden).detail(why.to_owned());
    if group_id.found()? != run.claims.group_id {
        return Err(forbidden("the run is of another group"));
    }
    if run.claims.scope != SCOPE_INVOKE {
        return Err(forbidden("the token is of another scope"));
    }
    let found = orchestra.directory.record(&run.claims.group_id).await;
    let found = found.map_err(problem::of_directory)?.ok_or(Code::GroupNotFound)?;
    if found.record.org_id != run.claims.org_id {
        return Err(forbidden("the run is of another organization"));
    }
    check_not_blocked(&found)?;
    check_usable(&found.record)?;
    orchestra.controllers.search_for_run(&found.record, &run.token, request.body).await
}
