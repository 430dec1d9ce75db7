//! Problems as HTTP answers: the one place where an error becomes a response.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use convene_model::{Code, Problem, token::TokenError};
use http::{StatusCode, header};

/// A problem on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError(pub Problem);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = problem.extra.get("retry_after_ms").and_then(serde_json::Value::as_u64);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        if let Some(millis) = retry_after {
            headers.insert(header::RETRY_AFTER, millis.div_ceil(1000).max(1).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self(code.into())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self(error.into())
    }
}

/// The answer to a path that no route has.
pub async fn not_found() -> ApiError {
    Code::NotFound.into()
}

/// The answer to a method that a route does not have.
pub async fn method_not_allowed() -> ApiError {
    Code::MethodNotAllowed.into()
}
