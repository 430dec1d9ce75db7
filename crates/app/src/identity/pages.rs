//! The forms to sign up, in and out; they work without script.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use convene_model::{Code, Problem};
use http::{StatusCode, header};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    caller::Caller,
    signing_in::{self, NewAccount},
    tokens,
};
use crate::{
    state::AppState,
    ui::{
        pages,
        view::{FormErrors, SignInView, SignUpView},
    },
    web::{
        self, cookies,
        extract::{Fields, Search, Site, Visitor},
        failure::{Answer, Failure},
    },
    workspaces::invites,
};

#[derive(Deserialize)]
pub(super) struct FormQuery {
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    invite: Option<String>,
}

/// Where to go after signing in: a path of this site, or the start page.
fn safe_next(next: Option<&str>) -> Option<String> {
    let next = next?;
    let local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.chars().any(char::is_control);
    (local && next != "/").then(|| next.to_owned())
}

/// The CSRF token of an anonymous form, and the cookie to set when there is none yet.
fn form_csrf(state: &AppState, site: &Site) -> Result<(String, Option<String>), Problem> {
    match &site.form_cookie {
        Some(cookie) if !cookie.is_empty() => Ok((state.csrf.of_form(cookie), None)),
        Some(_) | None => {
            let cookie = tokens::fresh()?;
            Ok((state.csrf.of_form(&cookie), Some(cookie)))
        }
    }
}

fn with_cookie(site: &Site, cookie: Option<String>, mut response: Response) -> Response {
    if let Some(cookie) = cookie {
        let value = cookies::set(cookies::FORM, &cookie, None, site.secure);
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

pub(super) async fn sign_up_form(
    State(state): State<AppState>,
    site: Site,
    Visitor(visitor): Visitor,
    Search(query): Search<FormQuery>,
) -> Answer<Response> {
    let next = safe_next(query.next.as_deref());
    if visitor.is_some() {
        return Ok(Redirect::to(next.as_deref().unwrap_or("/")).into_response());
    }
    let (csrf, cookie) = form_csrf(&state, &site)?;
    let invite_org = invite_org(&state, query.invite.as_deref()).await?;
    let view = SignUpView { csrf, next, invite: query.invite, invite_org, ..SignUpView::default() };
    Ok(with_cookie(&site, cookie, web::page(pages::sign_up(&view))))
}

pub(super) async fn sign_up(
    State(state): State<AppState>,
    site: Site,
    fields: Fields,
) -> Answer<Response> {
    let next = safe_next(fields.filled("next"));
    let invite = fields.filled("invite").map(str::to_owned);
    let new = NewAccount {
        email: fields.get("email").to_owned(),
        name: fields.get("name").to_owned(),
        password: Zeroizing::new(fields.get("password").to_owned()),
    };
    match signing_in::sign_up(&state, &site, new).await {
        Ok(proven) => {
            let target = match &invite {
                Some(token) => match invites::accept(&state, token, &proven.user.user_id).await {
                    Ok(org_id) => format!("/o/{org_id}"),
                    // The account stands; the invite's own page says that it is not good any more.
                    Err(_) => invites::page_path(token),
                },
                None => next.unwrap_or_else(|| "/".to_owned()),
            };
            let response = Redirect::to(&target).into_response();
            signing_in::with_session(&state, &site, &proven, response).await
        }
        Err(failure) => {
            let (status, errors) = form_errors(failure)?;
            let (csrf, cookie) = form_csrf(&state, &site)?;
            let view = SignUpView {
                csrf,
                next,
                invite_org: invite_org(&state, invite.as_deref()).await?,
                invite,
                email: fields.get("email").to_owned(),
                name: fields.get("name").to_owned(),
                errors,
            };
            let response = (status, web::page(pages::sign_up(&view))).into_response();
            Ok(with_cookie(&site, cookie, response))
        }
    }
}

pub(super) async fn sign_in_form(
    State(state): State<AppState>,
    site: Site,
    Visitor(visitor): Visitor,
    Search(query): Search<FormQuery>,
) -> Answer<Response> {
    let next = safe_next(query.next.as_deref());
    if visitor.is_some() {
        return Ok(Redirect::to(next.as_deref().unwrap_or("/")).into_response());
    }
    let (csrf, cookie) = form_csrf(&state, &site)?;
    let invite_org = org_on_the_way(&state, next.as_deref()).await?;
    let view = SignInView { csrf, next, invite_org, ..SignInView::default() };
    Ok(with_cookie(&site, cookie, web::page(pages::sign_in(&view))))
}

pub(super) async fn sign_in(
    State(state): State<AppState>,
    site: Site,
    fields: Fields,
) -> Answer<Response> {
    let next = safe_next(fields.filled("next"));
    let password = Zeroizing::new(fields.get("password").to_owned());
    match signing_in::sign_in(&state, &site, fields.get("email"), password).await {
        Ok(proven) => {
            let response = Redirect::to(next.as_deref().unwrap_or("/")).into_response();
            signing_in::with_session(&state, &site, &proven, response).await
        }
        Err(failure) => {
            let (status, errors) = form_errors(failure)?;
            let (csrf, cookie) = form_csrf(&state, &site)?;
            let view = SignInView {
                csrf,
                invite_org: org_on_the_way(&state, next.as_deref()).await?,
                next,
                email: fields.get("email").to_owned(),
                errors,
            };
            let response = (status, web::page(pages::sign_in(&view))).into_response();
            Ok(with_cookie(&site, cookie, response))
        }
    }
}

pub(super) async fn sign_out(
    State(state): State<AppState>,
    site: Site,
    caller: Caller,
) -> Answer<Response> {
    let response = Redirect::to("/sign-in").into_response();
    signing_in::sign_out(&state, &site, &caller, response).await
}

/// The name of the workspace that an invite is for, while it is open.
async fn invite_org(state: &AppState, token: Option<&str>) -> Answer<Option<String>> {
    let Some(token) = token else { return Ok(None) };
    match invites::open(state, token).await {
        Ok(invite) => Ok(Some(invite.org_name)),
        Err(Failure(problem)) if problem.code == Code::Gone => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The same for somebody who is sent to sign in on the way to an invite.
async fn org_on_the_way(state: &AppState, next: Option<&str>) -> Answer<Option<String>> {
    invite_org(state, next.and_then(|next| next.strip_prefix("/invite/"))).await
}

/// What a refused form says, with the status of its answer; other failures pass on.
pub(crate) fn form_errors(failure: Failure) -> Result<(StatusCode, FormErrors), Failure> {
    let Failure(problem) = &failure;
    let sentence = || problem.detail.clone().unwrap_or_else(|| problem.title.clone());
    let field = problem.extra.get("field").and_then(|field| field.as_str());
    let errors = match (problem.code, field) {
        (Code::ValidationFailed | Code::AlreadyExists, Some(field)) => {
            FormErrors::default().field(field, sentence())
        }
        (Code::Unauthorized | Code::RateLimited | Code::Overloaded, _) => {
            FormErrors::general(sentence())
        }
        _ => return Err(failure),
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok((status, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_one_stays_on_this_site() {
        assert_eq!(safe_next(Some("/g/1?x=1#y")).as_deref(), Some("/g/1?x=1#y"));
        for elsewhere in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "evil",
            "",
            "/a\r\nb",
            "/",
        ] {
            assert_eq!(safe_next(Some(elsewhere)), None, "{elsewhere:?}");
        }
    }
}
