//! Workspaces (organizations): who belongs to them and as what, how people are invited, and what
//! was changed by whom.
//!
//! Roles of groups follow from here. Never reads or writes what was said in a group.

mod api;
pub(crate) mod audit;
mod audit_page;
pub(crate) mod invites;
pub(crate) mod members;
pub(crate) mod orgs;
mod pages;

use axum::{
    Router,
    routing::{get, post},
};
use convene_hop::api::{Api, Operation};
use convene_model::Code;

pub(crate) use self::pages::shell;
use crate::{
    state::AppState,
    ui::view::{MemberView, OrgView},
};

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const MANAGE: &[Code] = &[Code::Forbidden];
    const PEOPLE: &[Code] = &[Code::Forbidden, Code::Conflict];
    Api::new()
        .on(
            Operation::post("/api/orgs", "makeOrg", "Make a workspace; the caller owns it.")
                .body::<api::NewOrg>()
                .answers::<OrgView>(201),
            api::make_org,
        )
        .on(
            Operation::patch("/api/orgs/{org_id}", "renameOrg", "Rename a workspace.")
                .body::<api::NewOrg>()
                .answers::<OrgView>(200)
                .problems(MANAGE),
            api::rename_org,
        )
        .on(
            Operation::get("/api/orgs/{org_id}/members", "listMembers", "Who belongs to it.")
                .answers::<Vec<MemberView>>(200),
            api::members,
        )
        .on(
            Operation::patch("/api/orgs/{org_id}/members/{user_id}", "changeRole", "Another role.")
                .body::<api::RoleChange>()
                .answers_empty(204)
                .problems(PEOPLE),
            api::change_role,
        )
        .on(
            Operation::delete(
                "/api/orgs/{org_id}/members/{user_id}",
                "removeMember",
                "Remove somebody from the workspace, or leave it.",
            )
            .answers_empty(204)
            .problems(PEOPLE),
            api::remove_member,
        )
        .on(
            Operation::get("/api/orgs/{org_id}/invites", "listInvites", "Open invitations.")
                .answers::<Vec<invites::Listed>>(200)
                .problems(MANAGE),
            api::invites,
        )
        .on(
            Operation::post(
                "/api/orgs/{org_id}/invites",
                "makeInvite",
                "A single-use link, 7 days.",
            )
            .answers::<invites::Made>(201)
            .problems(MANAGE),
            api::make_invite,
        )
        .on(
            Operation::delete(
                "/api/orgs/{org_id}/invites/{invite_id}",
                "revokeInvite",
                "Take an invitation back.",
            )
            .answers_empty(204)
            .problems(MANAGE),
            api::revoke_invite,
        )
        .on(
            Operation::get(
                "/api/orgs/{org_id}/audit",
                "listAudit",
                "Who changed what, newest first.",
            )
            .query::<api::AuditQuery>()
            .answers::<Vec<audit::Entry>>(200)
            .problems(MANAGE),
            api::audit,
        )
        .on(
            Operation::post("/api/invites/{token}", "acceptInvite", "Join by an invitation.")
                .answers::<api::Joined>(200)
                .problems(&[Code::Gone]),
            api::accept_invite,
        )
}

/// The pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(pages::start))
        .route("/orgs", post(pages::make_org))
        .route("/o/{org_id}", get(pages::workspace))
        .route("/o/{org_id}/settings/audit", get(audit_page::settings))
        .route("/invite/{token}", get(pages::invite).post(pages::accept_invite))
}
