//! Errors on their way to a client: a problem for programs, a designed page for people.

use axum::{
    extract::Request,
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use convene_db::DbError;
use convene_hop::ApiError;
use convene_model::{Code, Problem, limits::DATABASE_RETRY_MS, token::TokenError};
use http::{HeaderValue, Method, header};

use crate::ui::{self, view::ErrorView};

/// What a handler fails with.
///
/// It becomes a problem document; [`as_page`] turns it into a page where a page was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) Problem);

/// What a handler or a query answers.
pub(crate) type Answer<T> = Result<T, Failure>;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = ApiError(self.0.clone()).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self(code.into())
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self(error.into())
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self(of_database(&error))
    }
}

/// What a client learns of a database's failure: never its cause, which goes to the log.
pub(crate) fn of_database(error: &DbError) -> Problem {
    match error {
        DbError::Unique { .. } => Problem::new(Code::AlreadyExists),
        DbError::Unmet { .. } => Problem::new(Code::Conflict),
        DbError::Unavailable(cause) => {
            tracing::warn!(%cause, "the workspace database is unavailable");
            Problem::new(Code::Unavailable).with("retry_after_ms", DATABASE_RETRY_MS)
        }
        DbError::Decode { .. } | DbError::Other(_) => {
            tracing::error!(%error, "the workspace database answered with an error");
            Problem::new(Code::Internal)
        }
    }
}

/// Whether a path belongs to the JSON API, so that its errors are problems.
pub(crate) fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || path.starts_with("/.well-known/")
}

/// Turns problems into pages for everything outside the API; a reader who is not signed in is sent
/// to the sign-in form and back.
pub(crate) async fn as_page(request: Request, next: Next) -> Response {
    if is_api(request.uri().path()) {
        return next.run(request).await;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>() else { return response };
    if problem.code == Code::Unauthorized && reads {
        return Redirect::to(&sign_in_url(&target)).into_response();
    }
    let page = ui::pages::error(&describe(problem));
    let (parts, _) = response.into_parts();
    let mut page = (parts.status, Html(page)).into_response();
    if let Some(retry) = parts.headers.get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, retry.clone());
    }
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        page.headers_mut().insert(header::ALLOW, allow.clone());
    }
    page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

/// The sign-in form that leads on to `target`.
pub(crate) fn sign_in_url(target: &str) -> String {
    if target.is_empty() || target == "/" {
        return "/sign-in".to_owned();
    }
    let next: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    format!("/sign-in?next={next}")
}

fn describe(problem: &Problem) -> ErrorView {
    let mut view = ErrorView {
        status: problem.status,
        title: problem.title.clone(),
        detail: problem.detail.clone().unwrap_or_default(),
        href: None,
        action: None,
    };
    let is = |codes: &[Code]| codes.contains(&problem.code);
    if is(&[Code::NotFound, Code::GroupNotFound]) {
        view.title = "There is nothing here".to_owned();
        view.detail = "The page does not exist, or it is not open to you.".to_owned();
    } else if is(&[Code::GroupDeleted]) {
        view.title = "This group was deleted".to_owned();
        view.detail = "An owner or an admin of its workspace removed it for good, with everything \
                       that was said in it."
            .to_owned();
    } else if is(&[Code::BadOrigin]) {
        view.title = "This form is not good any more".to_owned();
        view.detail =
            "Nothing was changed. Go back, load the page again and try once more.".to_owned();
    } else if is(&[Code::Unauthorized]) {
        view.title = "Sign in first".to_owned();
        view.detail = "Nothing was changed.".to_owned();
        view.href = Some("/sign-in".to_owned());
        view.action = Some("Sign in".to_owned());
    } else if is(&[Code::Internal, Code::Unavailable, Code::Overloaded]) {
        view.detail = "Try again in a moment.".to_owned();
    }
    view
}

/// The answer to a path that no route has.
pub(crate) async fn not_found() -> Failure {
    Code::NotFound.into()
}

/// The answer to a method that a route does not have.
pub(crate) async fn method_not_allowed() -> Failure {
    Code::MethodNotAllowed.into()
}
