//! `PUT /infra/groups/{id}/config`: passes on what the controller needs to know of the group.
//!
//! The body goes to the controller unread: what a configuration may say is the controller's to
//! decide, and so is that an equal or older version changes nothing.
//!
//! Errors: 403 `forbidden`, 404 `group_not_found`, 409 `group_archived`,
//! 410 `group_deleted`, 502 `group_controller_unavailable`, and the
//! controller's own.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest};
use convene_model::GroupId;

use crate::{
    idempotency::{Answer, Scope},
    routes::{Orchestra, PathId},
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let caller = orchestra.auth.app(&request)?;
    let group_id = group_id.found()?;
    let scope = Scope::from(&caller);
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        let config = request.body.clone();
        async move {
            let record = orchestra.group_for(&caller, &group_id).await?;
            super::check_usable(&record)?;
            orchestra.controllers.configure(&record, config).await?;
            Ok(Answer::no_content())
        }
    };
    orchestra.idempotency.once(scope, &request, work).await
}
