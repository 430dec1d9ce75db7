//! Workspaces (organizations): who belongs to them and as what, how people are invited, and what
//! was changed by whom.
//!
//! Roles of groups follow from here. Never reads or writes what was said in a group.

mod api;
pub(crate) mod audit;
pub(crate) mod invites;
pub(crate) mod members;
pub(crate) mod orgs;
mod pages;
mod settings;

use axum::{
    Router,
    routing::{delete, get, patch, post},
};

pub(crate) use self::pages::shell;
use crate::state::AppState;

/// The API and the pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/orgs", post(api::make_org))
        .route("/api/orgs/{org_id}", patch(api::rename_org))
        .route("/api/orgs/{org_id}/members", get(api::members))
        .route(
            "/api/orgs/{org_id}/members/{user_id}",
            patch(api::change_role).delete(api::remove_member),
        )
        .route("/api/orgs/{org_id}/invites", get(api::invites).post(api::make_invite))
        .route("/api/orgs/{org_id}/invites/{invite_id}", delete(api::revoke_invite))
        .route("/api/orgs/{org_id}/audit", get(api::audit))
        .route("/api/invites/{token}", post(api::accept_invite))
        .route("/", get(pages::start))
        .route("/orgs", post(pages::make_org))
        .route("/o/{org_id}", get(pages::workspace))
        .route("/invite/{token}", get(pages::invite).post(pages::accept_invite))
        .route("/o/{org_id}/settings/members", get(settings::members))
        .route("/o/{org_id}/settings/agents", get(settings::agents))
        .route("/o/{org_id}/settings/providers", get(settings::providers))
        .route("/o/{org_id}/settings/tokens", get(settings::tokens))
}
