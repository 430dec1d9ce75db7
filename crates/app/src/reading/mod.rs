//! What people have read: marks, mentions, muted groups, and the counts that follow from them.
//!
//! Kept here and not in the groups: what a person has read is nobody else's business, and an event
//! for each reader and message would be a commit and a broadcast each. Messages are numbered among
//! themselves by their group, so a count of unread ones is a difference of two numbers. Rooms tell
//! what is said (see [`crate::rooms::Groups::record`]); several App processes tell the same, which
//! changes nothing.

mod api;
mod recording;
mod standing;

use axum::{Router, routing::put};

pub(crate) use self::{
    recording::Recording,
    standing::{SEEN, caught_up, item, of_group, of_user},
};
use crate::state::AppState;

/// The API of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/groups/{group_id}/read", put(api::read))
        .route("/api/groups/{group_id}/preferences", put(api::preferences))
}
