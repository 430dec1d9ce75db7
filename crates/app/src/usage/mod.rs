//! What a workspace uses: figures of the Orchestrator, for its owners and admins.
//!
//! Counts nothing itself, and never says the title of a group that the reader may not open.

mod page;

use axum::{Json, Router, extract::State, response::Response, routing::get};
use convene_hop::api::{Api, Operation};
use convene_model::{
    Code, OrgId,
    usage::{Month, OrgUsage, OrgUsageQuery},
};

use crate::{
    identity::caller::Caller,
    state::AppState,
    web::{
        self,
        extract::{Ids, Search},
        failure::Answer,
    },
    workspaces::{orgs, shell},
};

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    Api::new().on(
        Operation::get(
            "/api/orgs/{org_id}/usage",
            "readUsage",
            "What the workspace has used in a month, and its groups, those with the most tokens first.",
        )
        .query::<OrgUsageQuery>()
        .answers::<OrgUsage>(200)
        .problems(&[Code::Forbidden, Code::ValidationFailed]),
        read,
    )
}

/// The pages of this part.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/o/{org_id}/settings/usage", get(settings))
}

async fn read(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    Search(query): Search<OrgUsageQuery>,
) -> Answer<Json<OrgUsage>> {
    let org = orgs::manage(&state, &org, &caller).await?;
    Ok(Json(state.orchestrator.org_usage(&org.org_id, &query).await?))
}

async fn settings(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    Search(query): Search<OrgUsageQuery>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let usage = state.orchestrator.org_usage(&org.org_id, &query).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(page::render(&shell, &usage, Month::of(state.now()))))
}
