//! A service on loopback as agents' tools call it: it tells what it was sent, and misbehaves by path.
//!
//! It records every request. It never reaches out and knows nothing of Convene.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

/// A running service; it stops when it is dropped.
///
/// | path | answer |
/// |---|---|
/// | `/echo…` | what was sent, as JSON |
/// | `/text/{text}` | the last segment, decoded no further |
/// | `/status/{n}` | that status, with what was sent as JSON |
/// | `/to?{url}` | a redirect to the URL in the query |
/// | `/big` | 100,000 letters |
/// | `/binary` | bytes that are no text |
/// | `/empty` | nothing |
/// | `/silent` | never an answer |
/// | `/stuck` | the beginning of an answer |
#[derive(Debug)]
pub struct WebService {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl WebService {
    /// Starts a service on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::default();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&requests));
        let task = tokio::spawn(async move {
            // Ends with the task only.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, requests, task })
    }

    /// The URL of the service, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for WebService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(requests): State<Arc<Mutex<Vec<Request>>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = Request { method, uri, headers, body };
    requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let path = request.uri.path();
    let echo = || json(&echo(&request));
    match path.split('/').nth(1).unwrap_or_default() {
        "echo" => echo(),
        "text" => path.rsplit('/').next().unwrap_or_default().to_owned().into_response(),
        "status" => {
            let status = path.rsplit('/').next().and_then(|status| status.parse().ok());
            let mut response = echo();
            *response.status_mut() = status.unwrap_or(StatusCode::IM_A_TEAPOT);
            response
        }
        "to" => {
            let to = request.uri.query().unwrap_or_default().to_owned();
            (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        }
        "big" => "x".repeat(100_000).into_response(),
        "binary" => vec![0xff_u8, 0xfe, 0x00].into_response(),
        "empty" => StatusCode::NO_CONTENT.into_response(),
        "silent" => std::future::pending().await,
        "stuck" => {
            let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"begun"))]);
            Body::from_stream(begun.chain(stream::pending())).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn echo(request: &Request) -> Value {
    let headers: serde_json::Map<_, _> = request
        .headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect();
    json!({
        "method": request.method.as_str(),
        "path": request.uri.path(),
        "query": request.uri.query(),
        "headers": headers,
        "body": request.body,
    })
}

fn json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
