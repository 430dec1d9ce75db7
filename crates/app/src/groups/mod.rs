//! Groups as the workspace knows them: title, who may see them, which agents take part.
//!
//! Open groups are everybody's in their workspace; private ones exist only for their members, also
//! for owners and admins. What is said in a group is never here: messages pass through `rooms` to
//! the group's controller. Where a group stands in its life is the Orchestrator's (`life`). What the controller must know has a version that grows with each change.

pub(crate) mod agents;
mod api;
mod commands;
pub(crate) mod life;
mod make;
pub(crate) mod members;
mod messages;
mod page;
mod port;
mod routes;
pub(crate) mod store;

use axum::{Router, routing::get};

use crate::state::AppState;
pub use port::WorkspaceGroups;
pub(crate) use routes::api;
pub(crate) use store::list;

/// The pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/g/{group_id}", get(page::group))
        .route("/g/{group_id}/m/{message_id}", get(page::at_message))
}
