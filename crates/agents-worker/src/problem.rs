//! Problems as HTTP answers (RFC 9457).
//!
//! The crate that the native hops share for this needs an async runtime, which this one must not.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use convene_model::{Code, Problem, token::TokenError};
use http::{HeaderValue, StatusCode, header};

/// A problem on its way to the caller.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Problem>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self(Box::new(code.into()))
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self(Box::new(error.into()))
    }
}

/// The answer to a path that no route has.
pub(crate) async fn not_found() -> ApiError {
    Code::NotFound.into()
}

/// The answer to a method that a route does not have.
pub(crate) async fn method_not_allowed() -> ApiError {
    Code::MethodNotAllowed.into()
}
