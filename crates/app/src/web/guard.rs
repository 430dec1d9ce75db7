//! What every request passes first: who calls, from which site, and with what proof.
//!
//! A bearer token is proof in itself. A session cookie is sent by browsers on their own, so with it
//! a request that changes something needs more: it must come from this site, and it must carry the
//! session's CSRF token, in the header `x-csrf-token` or, for a form, in the field `csrf`. Forms of
//! people who are not signed in carry a token that belongs to a cookie of their own. Handlers never
//! check any of this again.

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use convene_hop::read_body;
use convene_model::{Code, Problem, token};
use http::{HeaderMap, HeaderValue, Method, header};

use super::{
    client, cookies,
    extract::{Fields, Site},
    failure::{Answer, is_api},
    origin,
};
use crate::{
    agents::tokens::{self, AgentCaller},
    identity::{bearer, caller::Caller, sessions},
    state::AppState,
};

/// Bytes of a form at most.
pub const MAX_FORM_BYTES: usize = 64 * 1024;

/// The header with the CSRF token of a session.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// What a foreign page may not open either: it could not read it, but it would keep it open.
const EVENTS: &str = "/api/events";

/// Calls that make a session rather than use one, so a session's token proves nothing for them.
const SIGNING_IN: &[&str] = &["/api/auth/sign-in", "/api/auth/sign-up", "/sign-in", "/sign-up"];

/// Lets a request through with what it is known by, or refuses it before anything is changed.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match admit(&state, request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn admit(state: &AppState, mut request: Request) -> Answer<Request> {
    name_host(&mut request);
    let site = site(state, &request);
    let bearer = request.headers().contains_key(header::AUTHORIZATION);
    let caller = if bearer {
        match by_bearer(state, request.headers()).await? {
            Bearer::Person(caller) => Some(caller),
            Bearer::Agent(agent) => {
                request.extensions_mut().insert(agent);
                None
            }
        }
    } else {
        match cookies::read(request.headers(), cookies::SESSION) {
            Some(token) => sessions::find(state, token).await?,
            None => None,
        }
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let upgrades = asks_for_websocket(request.headers());
    let streams = request.uri().path() == EVENTS;
    if !bearer && (changes || upgrades || streams) {
        if !origin::is_own(request.headers(), state.public_origin.as_ref(), upgrades) {
            return Err(Code::BadOrigin.into());
        }
        if changes {
            request = with_proof(state, &site, caller.as_ref(), request).await?;
        }
    }
    request.extensions_mut().insert(site);
    if let Some(caller) = caller {
        check_rate(state, &caller)?;
        request.extensions_mut().insert(caller);
    }
    Ok(request)
}

/// That a person does not call more often than the operator allows; a page is a call as well.
fn check_rate(state: &AppState, caller: &Caller) -> Answer<()> {
    let Some(rate) = state.requests_per_minute else { return Ok(()) };
    state.requests.take(caller.id().clone(), rate, state.now()).map_err(|too_often| {
        Problem::new(Code::RateLimited)
            .detail(format!("a person makes at most {rate} requests a minute here"))
            .with("retry_after_ms", too_often.retry_after.as_millis().max(1) as u64)
            .into()
    })
}

/// Where a request names its host in the URI, as HTTP/2 does, a header names it from here on.
fn name_host(request: &mut Request) {
    if request.headers().contains_key(header::HOST) {
        return;
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    if let Some(Ok(host)) = authority.map(HeaderValue::try_from) {
        request.headers_mut().insert(header::HOST, host);
    }
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

fn site(state: &AppState, request: &Request) -> Site {
    let headers = request.headers();
    let peer = request
        .extensions()
        .get::<ConnectInfo<std::net::SocketAddr>>()
        .map(|ConnectInfo(address)| address.ip());
    let https = client::forwarded_https(peer, headers, &state.trusted_proxies);
    let own = state.public_origin.clone().or_else(|| origin::of_host(headers, https));
    Site {
        secure: own.as_ref().map_or(https, origin::Origin::is_https),
        origin: own.map(|own| own.to_string()).unwrap_or_default(),
        client: client::address(peer, headers, &state.trusted_proxies),
        user_agent: headers.get(header::USER_AGENT).cloned(),
        form_cookie: cookies::read(headers, cookies::FORM).map(str::to_owned),
    }
}

/// Whose a bearer token is.
enum Bearer {
    Person(Caller),
    Agent(AgentCaller),
}

async fn by_bearer(state: &AppState, headers: &HeaderMap) -> Answer<Bearer> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    if values.next().is_some() {
        return Err(Code::Unauthorized.into());
    }
    let token = token::bearer(value)?;
    let found = if token.starts_with(tokens::PREFIX) {
        tokens::find(state, token).await?.map(Bearer::Agent)
    } else {
        bearer::find(state, token).await?.map(Bearer::Person)
    };
    found.ok_or_else(|| Code::Unauthorized.into())
}

/// Checks the proof that a page of ours made the request; a form's fields go along with it.
async fn with_proof(
    state: &AppState,
    site: &Site,
    caller: Option<&Caller>,
    request: Request,
) -> Answer<Request> {
    let path = request.uri().path().to_owned();
    let signs_in = SIGNING_IN.contains(&path.as_str());
    if is_api(&path) {
        // A foreign page can send JSON only after asking, and is refused then.
        if !is_json(request.headers()) {
            let detail = "a body is sent as content-type: application/json";
            return Err(Problem::new(Code::InvalidRequest).detail(detail).into());
        }
        let Some(caller) = caller.filter(|_| !signs_in) else { return Ok(request) };
        let given = request.headers().get(CSRF_HEADER).map(|value| value.as_bytes());
        let holds = given.is_some_and(|given| state.csrf.holds_for_session(caller, given));
        return if holds { Ok(request) } else { Err(bad_proof()) };
    }
    let (mut parts, body) = request.into_parts();
    let body = read_body(body, MAX_FORM_BYTES).await?;
    let fields = Fields::parse(&body);
    let given = fields.get("csrf").as_bytes();
    let by_session = caller.is_some_and(|caller| state.csrf.holds_for_session(caller, given));
    let by_cookie = (caller.is_none() || signs_in)
        && site.form_cookie.as_ref().is_some_and(|cookie| state.csrf.holds_for_form(cookie, given));
    if !by_session && !by_cookie {
        return Err(bad_proof());
    }
    parts.extensions.insert(fields);
    Ok(Request::from_parts(parts, Body::empty()))
}

fn bad_proof() -> super::failure::Failure {
    Problem::new(Code::BadOrigin).detail("the CSRF token is missing or of another session").into()
}

/// Whether a body, if there is one, says that it is JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !headers.contains_key(header::TRANSFER_ENCODING);
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    match essence {
        Some(essence) => essence.eq_ignore_ascii_case("application/json"),
        None => empty,
    }
}
