//! A client of the App's API and of the group protocol, for tests from the outside.

use std::time::Duration;

use convene_model::frame::SUBPROTOCOL;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, Uri, header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// How long a test waits for something that should happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A signed-in person with a bearer token.
#[derive(Debug, Clone)]
pub struct Person {
    /// Where Convene serves, without a slash at the end.
    pub url: String,
    /// The bearer token.
    pub token: String,
    /// The person's id.
    pub user_id: String,
    http: reqwest::Client,
}

/// An answer of the API: status and JSON body (`null` when there is none).
pub type Answer = (u16, Value);

impl Person {
    /// Makes an account and signs in.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn sign_up(url: &str, name: &str) -> Self {
        let email = format!("{}@example.org", name.to_lowercase());
        let body = json!({"email": email, "name": name, "password": PASSWORD, "bearer": true});
        Self::enter(url, "/api/auth/sign-up", &body).await
    }

    /// Signs in to an account that [`Person::sign_up`] made.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn sign_in(url: &str, name: &str) -> Self {
        let email = format!("{}@example.org", name.to_lowercase());
        let body = json!({"email": email, "password": PASSWORD, "bearer": true});
        Self::enter(url, "/api/auth/sign-in", &body).await
    }

    async fn enter(url: &str, path: &str, body: &Value) -> Self {
        let http = http_client();
        let mut person =
            Self { url: url.to_owned(), token: String::new(), user_id: String::new(), http };
        let (status, answer) = person.send("POST", path, Some(body)).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer["token"].as_str().expect("a bearer token").clone_into(&mut person.token);
        let (_, me) = person.get("/api/me").await;
        me["user"]["id"].as_str().expect("an id").clone_into(&mut person.user_id);
        person
    }

    /// The same person at another address of the same Convene.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Sends a request as this person.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_send(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a request as this person.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// `POST` that must succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, Some(&body)).await;
        assert!(status < 300, "POST {path}: {status} {answer}");
        answer
    }

    /// Makes a workspace and returns its id.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn create_org(&self, name: &str) -> String {
        let org = self.post("/api/orgs", json!({"name": name})).await;
        org["org_id"].as_str().expect("an org id").to_owned()
    }

    /// Makes a group with the workspace's default agents and returns its id.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn create_group(&self, org_id: &str, title: &str) -> String {
        let body = json!({"org_id": org_id, "title": title, "is_private": false});
        let group = self.post("/api/groups", body).await;
        group["group_id"].as_str().expect("a group id").to_owned()
    }

    /// Lets `other` into a workspace by an invite.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn invite(&self, org_id: &str, other: &Self) {
        let invite = self.post(&format!("/api/orgs/{org_id}/invites"), json!({})).await;
        let token = invite["token"].as_str().expect("an invite token");
        other.post(&format!("/api/invites/{token}"), json!({})).await;
    }

    /// Opens a socket to a group.
    ///
    /// # Errors
    /// When the handshake is refused or the server is away.
    pub async fn connect(&self, group_id: &str) -> Result<Socket, tokio_websockets::Error> {
        let uri = format!("{}/api/groups/{group_id}/ws", self.url.replacen("http", "ws", 1));
        let bearer = format!("Bearer {}", self.token);
        Socket::open(&uri, &[(header::AUTHORIZATION, bearer)]).await
    }

    /// Opens a socket to a group and attaches.
    ///
    /// # Panics
    /// When either is refused.
    pub async fn attach(&self, group_id: &str, after: Option<u64>) -> (Socket, Value) {
        let mut socket = self.connect(group_id).await.expect("a socket");
        let mut frame = json!({"type": "attach", "ref": "attach"});
        if let Some(after) = after {
            frame["after"] = json!(after);
        }
        socket.send(&frame).await;
        let attached = socket.until(|frame| frame["ref"] == "attach").await;
        assert_eq!(attached["type"], "attached", "{attached}");
        (socket, attached)
    }

    /// All messages of a group, oldest first, read page by page.
    ///
    /// # Panics
    /// When a page is refused.
    pub async fn all_messages(&self, group_id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/api/groups/{group_id}/messages?after={after}&limit=200");
            let (status, page) = self.get(&path).await;
            assert_eq!(status, 200, "{page}");
            let messages = page["messages"].as_array().expect("messages").clone();
            let Some(last) = messages.last() else { return all };
            after = last["seq"].as_u64().expect("a number");
            all.extend(messages);
        }
    }
}

/// A client for plain HTTP requests.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn http_client() -> reqwest::Client {
    // One for the process, so that clients which libraries build find it as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().expect("a client can be built")
}

/// The password of everybody who signed up here.
pub const PASSWORD: &str = "correct horse battery staple";

/// A socket that speaks the group protocol.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Opens a socket with the protocol's subprotocol and some headers.
    ///
    /// # Errors
    /// When the handshake is refused or the server is away.
    ///
    /// # Panics
    /// When `uri` or a header is malformed.
    pub async fn open(
        uri: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Self, tokio_websockets::Error> {
        let uri: Uri = uri.parse().expect("a URI");
        let protocol = (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.to_owned());
        let mut builder = ClientBuilder::from_uri(uri);
        for (name, value) in headers.iter().chain([&protocol]) {
            let value = HeaderValue::from_str(value).expect("a header value");
            builder = builder.add_header(name.clone(), value)?;
        }
        let (stream, _) = builder.connect().await?;
        Ok(Self { stream })
    }

    /// Sends a frame; a connection that is gone shows at the next read.
    pub async fn send(&mut self, frame: &Value) {
        let _ = self.stream.send(Message::text(frame.to_string())).await;
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) {
        let _ = self.stream.send(message).await;
    }

    /// Posts a message without waiting for the answer; its `ref` is the message id.
    pub async fn post(&mut self, message_id: &str, text: &str) {
        self.send(&json!({
            "type": "post", "ref": message_id, "message_id": message_id, "text": text
        }))
        .await;
    }

    /// Edits a message without waiting for the answer; its `ref` is `edit-` and the message id.
    pub async fn edit(&mut self, message_id: &str, text: &str) {
        self.change("edit", message_id, json!({"text": text})).await;
    }

    /// Deletes a message without waiting for the answer; its `ref` is `delete-` and the message id.
    pub async fn delete(&mut self, message_id: &str) {
        self.change("delete", message_id, json!({})).await;
    }

    /// Puts a reaction on a message or takes it off without waiting for the answer; its `ref` is
    /// `react-` and the message id.
    pub async fn react(&mut self, message_id: &str, emoji: &str, on: bool) {
        self.change("react", message_id, json!({"emoji": emoji, "on": on})).await;
    }

    /// Pins a message or takes it off without waiting for the answer; its `ref` is `pin-` and the
    /// message id.
    pub async fn pin(&mut self, message_id: &str, on: bool) {
        self.change("pin", message_id, json!({"on": on})).await;
    }

    /// Says that the user is writing; nobody answers.
    pub async fn typing(&mut self) {
        self.send(&json!({"type": "typing"})).await;
    }

    async fn change(&mut self, kind: &str, message_id: &str, with: Value) {
        let r#ref = format!("{kind}-{message_id}");
        let mut frame = json!({"type": kind, "ref": r#ref, "message_id": message_id});
        for (name, value) in with.as_object().into_iter().flatten() {
            frame[name] = value.clone();
        }
        self.send(&frame).await;
    }

    /// The answer to the frame with that `ref`: an `ok` or an `error`.
    ///
    /// # Panics
    /// When the connection ends or nothing comes before that.
    pub async fn answer(&mut self, r#ref: &str) -> Value {
        self.until(|frame| frame["ref"] == r#ref).await
    }

    /// The next frame, or the close code (1006 when the connection broke).
    ///
    /// # Errors
    /// The close code.
    ///
    /// # Panics
    /// When nothing comes in time, or something that is not a JSON text frame.
    pub async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("a frame comes in time") {
                Some(Ok(message)) if message.is_text() => {
                    let text = message.as_text().unwrap_or_default();
                    return Ok(serde_json::from_str(text).expect("a JSON frame"));
                }
                Some(Ok(message)) if message.is_close() => {
                    return Err(message.as_close().map_or(1005, |(code, _)| code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next frame that `wanted` says yes to.
    ///
    /// # Panics
    /// When the connection ends or nothing comes before that.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next().await.expect("the socket stays open");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// The next event of a kind.
    ///
    /// # Panics
    /// When the connection ends or nothing comes before that.
    pub async fn event(&mut self, kind: &str) -> Value {
        self.until(|frame| frame["type"] == "event" && frame["kind"] == kind).await
    }
}
