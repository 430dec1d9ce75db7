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

use convene_hop::api::{Api, Operation};
use convene_model::Code;

pub(crate) use self::{
    recording::Recording,
    standing::{SEEN, caught_up, item, of_group, of_user},
};
use crate::state::AppState;

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const READ: &[Code] = &[
        Code::GroupNotFound,
        Code::Forbidden,
        Code::ActiveGroupLimitExceeded,
        Code::GroupControllerUnavailable,
        Code::Overloaded,
    ];
    Api::new()
        .on(
            Operation::put("/api/groups/{group_id}/read", "markRead", "What the caller has read.")
                .body::<api::Read>()
                .answers_empty(204)
                .problems(READ),
            api::read,
        )
        .on(
            Operation::put("/api/groups/{group_id}/preferences", "setPreferences", "Mute a group.")
                .body::<api::Preferences>()
                .answers_empty(204)
                .problems(&[Code::GroupNotFound]),
            api::preferences,
        )
}
