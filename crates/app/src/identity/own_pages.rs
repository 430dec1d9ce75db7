//! The page of one's own account, with a workspace beside it or, for whoever belongs to none, alone.

use axum::{extract::State, response::Response};
use convene_model::OrgId;

use super::{caller::Caller, signed_in};
use crate::{
    state::AppState,
    ui::{
        pages,
        view::{AccountView, Shell},
    },
    web::{self, extract::Ids, failure::Answer},
    workspaces::{orgs, shell},
};

pub(super) async fn account(State(state): State<AppState>, caller: Caller) -> Answer<Response> {
    page(&state, &caller, None).await
}

pub(super) async fn account_in_workspace(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let shell = shell(&state, &caller, org).await?;
    page(&state, &caller, Some(shell)).await
}

async fn page(state: &AppState, caller: &Caller, shell: Option<Shell>) -> Answer<Response> {
    let sessions = signed_in::list(state, caller).await?;
    let csrf = state.csrf.of_session(caller);
    Ok(web::page(pages::own_account(&AccountView { csrf, me: caller.me(), shell, sessions })))
}
