//! The start page, a workspace's page and the page of an invite.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use convene_model::{Code, OrgId};
use http::StatusCode;
use serde::Deserialize;

use super::{invites, orgs};
use crate::{
    groups,
    identity::{accounts, caller::Caller, form_errors},
    state::AppState,
    ui::{
        pages,
        view::{
            FormErrors, GroupFilter, InviteState, InviteView, OrgView, Shell, StartView,
            WorkspaceView,
        },
    },
    web::{
        self,
        extract::{Fields, Ids, Search, Visitor},
        failure::{Answer, Failure},
    },
};

/// What stands beside the content on every page of a workspace.
pub(crate) async fn shell(state: &AppState, caller: &Caller, org: OrgView) -> Answer<Shell> {
    groups::life::follow::freshen(state, &org.org_id);
    Ok(Shell {
        csrf: state.csrf.of_session(caller),
        me: caller.me(),
        groups: groups::list(state, &org.org_id, caller.id()).await?,
        orgs: orgs::of_user(state, caller.id()).await?,
        org,
    })
}

pub(super) async fn start(
    State(state): State<AppState>,
    Visitor(visitor): Visitor,
) -> Answer<Response> {
    let Some(caller) = visitor else {
        // Whoever opens a new installation has no account to sign in with.
        let known = accounts::any(&*state.db).await?;
        return Ok(Redirect::to(if known { "/sign-in" } else { "/sign-up" }).into_response());
    };
    Ok(web::page(pages::start(&start_view(&state, &caller).await?)))
}

async fn start_view(state: &AppState, caller: &Caller) -> Answer<StartView> {
    Ok(StartView {
        csrf: state.csrf.of_session(caller),
        me: caller.me(),
        orgs: orgs::of_user(state, caller.id()).await?,
        name: String::new(),
        errors: FormErrors::default(),
    })
}

pub(super) async fn make_org(
    State(state): State<AppState>,
    caller: Caller,
    fields: Fields,
) -> Answer<Response> {
    match orgs::make(&state, caller.id(), fields.get("name")).await {
        Ok(org) => Ok(Redirect::to(&format!("/o/{}", org.org_id)).into_response()),
        Err(failure) => {
            let (status, errors) = form_errors(failure)?;
            let view = StartView {
                name: fields.get("name").to_owned(),
                errors,
                ..start_view(&state, &caller).await?
            };
            Ok((status, web::page(pages::start(&view))).into_response())
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WorkspaceQuery {
    #[serde(default)]
    status: Option<GroupFilter>,
}

pub(super) async fn workspace(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    Search(query): Search<WorkspaceQuery>,
) -> Answer<Response> {
    let org = orgs::enter(&state, &org, &caller).await?;
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::workspace(&WorkspaceView { shell, filter: query.status })))
}

pub(super) async fn invite(
    State(state): State<AppState>,
    Visitor(visitor): Visitor,
    Ids(token): Ids<String>,
) -> Answer<Response> {
    let open = match invites::open(&state, &token).await {
        Ok(open) => Some(open),
        Err(Failure(problem)) if problem.code == Code::Gone => None,
        Err(failure) => return Err(failure),
    };
    let state_of_link = match (&open, &visitor) {
        (None, _) => InviteState::Gone,
        (Some(open), Some(caller))
            if invites::belongs(&state, &open.org_id, caller.id()).await? =>
        {
            InviteState::AlreadyMember
        }
        (Some(_), _) => InviteState::Open,
    };
    let (org, invited_by) = match open {
        Some(open) => (Some((open.org_id, open.org_name)), Some(open.invited_by)),
        None => (None, None),
    };
    let view = InviteView {
        csrf: visitor.as_ref().map(|caller| state.csrf.of_session(caller)).unwrap_or_default(),
        token,
        org,
        invited_by,
        me: visitor.as_ref().map(Caller::me),
        state: state_of_link,
    };
    let status = match state_of_link {
        InviteState::Gone => StatusCode::GONE,
        InviteState::Open | InviteState::AlreadyMember => StatusCode::OK,
    };
    Ok((status, web::page(pages::invite(&view))).into_response())
}

pub(super) async fn accept_invite(
    State(state): State<AppState>,
    caller: Caller,
    Ids(token): Ids<String>,
) -> Answer<Response> {
    let target = match invites::accept(&state, &token, caller.id()).await {
        Ok(org) => format!("/o/{org}"),
        Err(Failure(problem)) if problem.code == Code::Gone => invites::page_path(&token),
        Err(failure) => return Err(failure),
    };
    Ok(Redirect::to(&target).into_response())
}
