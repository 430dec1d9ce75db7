//! Reading requests: bodies within their limit, JSON without unknown members, problems otherwise.

use axum::{
    extract::{FromRequest, OriginalUri, Query, Request},
    http::{HeaderMap, Method, Uri},
};
use bytes::Bytes;
use convene_model::{Code, Problem, limits::MAX_BODY_BYTES, token::RequestLine};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::ApiError;

/// A request with its whole body, as a token's binding needs it.
#[derive(Debug, Clone)]
pub struct RawRequest {
    /// Its method.
    pub method: Method,
    /// Its path as the client sent it, without the query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most [`MAX_BODY_BYTES`] unless it was read with another limit.
    pub body: Bytes,
}

impl RawRequest {
    /// Reads a request with a body of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`read_body`].
    pub async fn read(request: Request, limit: usize) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let path = parts
            .extensions
            .get::<OriginalUri>()
            .map_or_else(|| parts.uri.path().to_owned(), |original| original.0.path().to_owned());
        let body = read_body(body, limit).await?;
        Ok(Self { method: parts.method, path, headers: parts.headers, body })
    }

    /// What a token can be bound to.
    #[must_use]
    pub fn line(&self) -> RequestLine<'_> {
        RequestLine {
            authorization: self.header("authorization"),
            method: self.method.as_str(),
            path: &self.path,
            body: &self.body,
        }
    }

    /// A header's value, if it is there once and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok();
        if values.next().is_some() { None } else { value }
    }
}

impl<S: Send + Sync> FromRequest<S> for RawRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Self::read(request, MAX_BODY_BYTES).await
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`Code::TooLarge`] above the limit, [`Code::InvalidRequest`] when the body breaks off.
pub async fn read_body(body: axum::body::Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::TooLarge).with("limit_bytes", limit))
        }
        Err(_) => Err(Problem::new(Code::InvalidRequest).detail("the body broke off")),
    }
}

/// Reads JSON; unknown members are refused where the type says so.
///
/// # Errors
/// [`Code::InvalidRequest`] that says where the JSON is wrong.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))
}

/// Reads a query; unknown members are refused where the type says so.
///
/// # Errors
/// [`Code::InvalidRequest`] that says what is wrong with it.
pub fn query<T: DeserializeOwned>(raw: Option<&str>) -> Result<T, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest).detail(detail);
    let uri: Uri = format!("/?{}", raw.unwrap_or_default())
        .parse()
        .map_err(|_| invalid("the query is no query".into()))?;
    match Query::<T>::try_from_uri(&uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(invalid(rejection.body_text())),
    }
}

/// A JSON body within the limit.
#[derive(Debug, Clone)]
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read_body(request.into_body(), MAX_BODY_BYTES).await?;
        Ok(Self(json(&body)?))
    }
}
