//! An outside app: it signs its calls of the infra API and speaks for its users.

use std::time::{SystemTime, UNIX_EPOCH};

use convene_model::Timestamp;
use http::{HeaderName, header};
use serde_json::{Value, json};

use crate::{
    client::{Answer, Socket, http_client},
    forge::{Bound, Forged, Identity},
};

/// The header of a user's routing token.
const ROUTING_TOKEN: HeaderName = HeaderName::from_static("x-routing-token");

/// An outside app at an infra API.
#[derive(Debug, Clone)]
pub struct Portal {
    url: String,
    by: Identity,
    http: reqwest::Client,
}

impl Portal {
    /// The app of an identity, at an infra API.
    #[must_use]
    pub fn new(url: &str, by: &Identity) -> Self {
        Self { url: url.to_owned(), by: by.clone(), http: http_client() }
    }

    /// A sound token for a request.
    #[must_use]
    pub fn token(&self, method: &str, path: &str, body: &str) -> Forged {
        Forged::app(&self.by, now(), Bound { method, path, body })
    }

    /// A call with a token of its own.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token = self.token(method, path, &body).encode();
        self.send(method, path, &body, Some(&token), &[]).await
    }

    /// A call that must succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// A request with exactly this token and these headers; `path` may have a query.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body.to_owned()).send().await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Activates a group.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn activate(&self, group: &str, org: &str) -> Value {
        self.done("POST", "/infra/groups", json!({"group_id": group, "org_id": org})).await
    }

    /// A user's routing token.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn routing_token(&self, group: &str, user: &str) -> String {
        let body = json!({"group_id": group, "user_id": user, "role": "member"});
        let answer = self.done("POST", "/infra/routing-token", body).await;
        answer["routing_token"].as_str().expect("a token").to_owned()
    }

    /// A page of history with a user's routing token.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn history(&self, group: &str, routing_token: &str) -> Answer {
        let path = format!("/groups/{group}/history");
        let token = self.token("GET", &path, "").encode();
        self.send("GET", &path, "", Some(&token), &[(ROUTING_TOKEN.as_str(), routing_token)]).await
    }

    /// Opens the upstream of a group with a user's routing token.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn upstream(
        &self,
        group: &str,
        routing_token: &str,
    ) -> Result<Socket, tokio_websockets::Error> {
        let path = format!("/groups/{group}/ws");
        let uri = format!("{}{path}", self.url.replacen("http", "ws", 1));
        let token = self.token("GET", &path, "").encode();
        let headers = [
            (header::AUTHORIZATION, format!("Bearer {token}")),
            (ROUTING_TOKEN, routing_token.to_owned()),
        ];
        Socket::open(&uri, &headers).await
    }
}

/// Attaches a user on an upstream, under a connection of the same name, and returns the answer.
pub(super) async fn attach(upstream: &mut Socket, user: &str, routing_token: &str) -> Value {
    let frame = json!({"type": "attach", "ref": "attach", "conn": user, "token": routing_token});
    upstream.send(&frame).await;
    upstream.until(|frame| frame["conn"] == user && frame["ref"] == "attach").await
}

/// The present, by which outside apps date their tokens.
///
/// # Panics
/// When the clock stands before 1970.
#[expect(clippy::disallowed_methods, reason = "an outside app has the real time")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    Timestamp::from_secs(since.as_secs())
}
