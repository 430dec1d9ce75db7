//! Groups as the workspace knows them: title, who may see them, which agents take part.
//!
//! Open groups are everybody's in their workspace; private ones exist only for their members, also
//! for owners and admins. What is said in a group is never here: messages pass through `rooms` to
//! the group's controller. What the controller must know has a version that grows with each change.

pub(crate) mod agents;
mod api;
mod commands;
mod make;
pub(crate) mod members;
mod messages;
mod page;
mod port;
pub(crate) mod store;

use axum::{
    Router,
    routing::{get, post, put},
};

use crate::state::AppState;
pub use port::WorkspaceGroups;
pub(crate) use store::list;

/// The API and the page of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/groups", get(api::list).post(api::make))
        .route("/api/groups/{group_id}", get(api::show).patch(api::change))
        .route("/api/groups/{group_id}/clone", post(api::clone))
        .route("/api/groups/{group_id}/members", get(api::members))
        .route(
            "/api/groups/{group_id}/members/{user_id}",
            put(api::add_member).delete(api::remove_member),
        )
        .route("/api/groups/{group_id}/agents", get(api::agents).put(api::set_agents))
        .route("/api/groups/{group_id}/messages", get(messages::history).post(commands::post))
        .route(
            "/api/groups/{group_id}/messages/{message_id}",
            get(messages::detail).patch(commands::edit).delete(commands::delete),
        )
        .route(
            "/api/groups/{group_id}/messages/{message_id}/reactions/{emoji}",
            put(commands::add_reaction).delete(commands::remove_reaction),
        )
        .route(
            "/api/groups/{group_id}/messages/{message_id}/pin",
            put(commands::pin).delete(commands::unpin),
        )
        .route("/api/groups/{group_id}/search", get(messages::search))
        .route("/api/groups/{group_id}/ws", get(messages::socket))
        .route("/g/{group_id}", get(page::group))
        .route("/g/{group_id}/m/{message_id}", get(page::at_message))
}
