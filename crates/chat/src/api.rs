//! The App's HTTP API, as far as the terminal client needs it.

use std::time::Duration;

use convene_model::{
    AgentId, GroupId, MessageId, OrgId, ParticipantId, UserId,
    agents::Usage,
    history::{HistoryPage, SearchPage},
};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::Url;

use crate::text;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the list of unread messages may take; without it the list of groups has no counts.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of the first event with the unread counts at most.
const MAX_UNREAD_BYTES: usize = 4 * 1024 * 1024;

/// The App's API, as one person.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// What the App said no to, or that it was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The App refused.
    #[error("{}", say(.0))]
    Refused(Refusal),
    /// There was no answer.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// The answer was not one of Convene's.
    #[error("the answer from {0} cannot be understood; is a Convene of this version there?")]
    Strange(String),
}

impl ApiError {
    /// Whether the token is void.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 401)
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status == 429 || problem.status >= 500,
            Self::Unreachable(..) => true,
            Self::Strange(_) => false,
        }
    }
}

/// A problem document. Read by its members alone, so that a code which this client does not know
/// is one like any other.
#[derive(Debug, Clone, Deserialize)]
pub struct Refusal {
    status: u16,
    title: String,
    #[serde(default)]
    detail: Option<String>,
}

fn say(refusal: &Refusal) -> String {
    text::line(refusal.detail.as_deref().unwrap_or(&refusal.title))
}

/// `GET /api/me`.
#[derive(Debug, Deserialize)]
pub(crate) struct WhoAmI {
    pub(crate) user: Me,
    pub(crate) orgs: Vec<Org>,
}

/// A signed-in person.
#[derive(Debug, Deserialize)]
pub(crate) struct Me {
    pub(crate) id: UserId,
    pub(crate) name: String,
}

/// A workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Org {
    pub(crate) org_id: OrgId,
    pub(crate) name: String,
}

/// A group in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) group_id: GroupId,
    pub(crate) org_id: OrgId,
    pub(crate) org: String,
    pub(crate) title: String,
    pub(crate) unread: u64,
    pub(crate) mentions: u64,
    pub(crate) muted: bool,
    /// The number of the last event that was read; `None` where the App does not say.
    pub(crate) read_up_to: Option<u64>,
    /// When something happened last, in milliseconds; 0 where the App does not say.
    pub(crate) last_at: u64,
}

#[derive(Deserialize)]
struct GroupItem {
    group_id: GroupId,
    title: String,
}

#[derive(Deserialize)]
struct Unread {
    group_id: GroupId,
    #[serde(default)]
    unread: u64,
    #[serde(default)]
    mentions: u64,
    #[serde(default)]
    muted: bool,
    #[serde(default)]
    read_up_to: Option<u64>,
    #[serde(default)]
    last_at: Option<u64>,
}

/// A person of a workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Person {
    pub(crate) user_id: UserId,
    pub(crate) name: String,
}

/// An agent of a workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Agent {
    pub(crate) agent_id: AgentId,
    pub(crate) name: String,
}

/// Which part of history is asked for.
/// Why agents answered a message, or did not.
#[derive(Debug, Deserialize)]
pub(crate) struct Why {
    pub(crate) agents: Vec<WhyAgent>,
}

/// What was decided about an agent.
#[derive(Debug, Deserialize)]
pub(crate) struct WhyAgent {
    pub(crate) name: String,
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) run: Option<WhyRun>,
}

/// What came of it.
#[derive(Debug, Deserialize)]
pub(crate) struct WhyRun {
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) detail: Option<String>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    #[serde(default)]
    pub(crate) tools: Vec<WhyTool>,
}

/// A tool that was used for it.
#[derive(Debug, Deserialize)]
pub(crate) struct WhyTool {
    pub(crate) tool: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Page {
    Newest,
    Before(u64),
    Around(u64),
}

impl Api {
    pub(crate) fn new(base: &Url, token: Option<String>) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .connect_timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("convene-chat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ApiError::Unreachable(base.to_string(), error.to_string()))?;
        Ok(Self { http, base: base.clone(), token })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Signs in and returns who that is, with a bearer token.
    pub(crate) async fn sign_in(
        &self,
        email: &str,
        password: &str,
    ) -> Result<(Me, String), ApiError> {
        #[derive(Deserialize)]
        struct SignedIn {
            user: Me,
            token: String,
        }
        let body = json!({"email": email, "password": password, "bearer": true});
        let answer: SignedIn = self.ask(Method::POST, "/api/auth/sign-in", Some(body)).await?;
        Ok((answer.user, answer.token))
    }

    pub(crate) async fn sign_out(&self) -> Result<(), ApiError> {
        self.send(Method::POST, "/api/auth/sign-out", Some(json!({}))).await.map(drop)
    }

    pub(crate) async fn me(&self) -> Result<WhoAmI, ApiError> {
        self.ask(Method::GET, "/api/me", None).await
    }

    /// All groups that the person may open: unread ones first, then those where something happened
    /// last.
    pub(crate) async fn groups(&self) -> Result<Vec<Group>, ApiError> {
        let me = self.me().await?;
        let mut groups = Vec::new();
        for org in me.orgs {
            let path = format!("/api/groups?org_id={}", org.org_id);
            let items: Vec<GroupItem> = self.ask(Method::GET, &path, None).await?;
            groups.extend(items.into_iter().map(|item| Group {
                group_id: item.group_id,
                org_id: org.org_id.clone(),
                org: text::line(&org.name),
                title: text::line(&item.title),
                unread: 0,
                mentions: 0,
                muted: false,
                read_up_to: None,
                last_at: 0,
            }));
        }
        let unread = tokio::time::timeout(UNREAD_TIMEOUT, self.unread()).await;
        for unread in unread.ok().flatten().unwrap_or_default() {
            if let Some(group) = groups.iter_mut().find(|g| g.group_id == unread.group_id) {
                group.unread = unread.unread;
                group.mentions = unread.mentions;
                group.muted = unread.muted;
                group.read_up_to = unread.read_up_to;
                group.last_at = unread.last_at.unwrap_or(0);
            }
        }
        groups.sort_by_key(|g| (g.muted || g.unread == 0, std::cmp::Reverse(g.last_at)));
        Ok(groups)
    }

    /// The first event of `/api/events`; `None` where it cannot be had.
    async fn unread(&self) -> Option<Vec<Unread>> {
        #[derive(Deserialize)]
        struct First {
            groups: Vec<Unread>,
        }
        let request = self.request(Method::GET, "/api/events", None).ok()?;
        let mut response = request.send().await.ok().filter(|r| r.status() == StatusCode::OK)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_UNREAD_BYTES {
                return None;
            }
            let events = String::from_utf8_lossy(&bytes);
            for event in events.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n")) {
                let data: String =
                    event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                if let Ok(First { groups }) = serde_json::from_str(&data) {
                    return Some(groups);
                }
            }
        }
        None
    }

    /// Names of everybody who can stand in a group of a workspace.
    pub(crate) async fn people(&self, org: &OrgId) -> Result<Vec<Person>, ApiError> {
        self.ask(Method::GET, &format!("/api/orgs/{org}/members"), None).await
    }

    /// The agents of a workspace.
    pub(crate) async fn agents(&self, org: &OrgId) -> Result<Vec<Agent>, ApiError> {
        self.ask(Method::GET, &format!("/api/orgs/{org}/agents"), None).await
    }

    pub(crate) async fn history(
        &self,
        group: &GroupId,
        page: Page,
        limit: usize,
    ) -> Result<HistoryPage, ApiError> {
        let place = match page {
            Page::Newest => String::new(),
            Page::Before(seq) => format!("&before={seq}"),
            Page::Around(seq) => format!("&around={seq}"),
        };
        let path = format!("/api/groups/{group}/messages?limit={limit}{place}");
        self.ask(Method::GET, &path, None).await
    }

    pub(crate) async fn search(
        &self,
        group: &GroupId,
        query: &str,
    ) -> Result<SearchPage, ApiError> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.ask(Method::GET, &format!("/api/groups/{group}/search?q={query}&limit=30"), None).await
    }

    /// Why agents answered a message, or did not.
    pub(crate) async fn why(&self, group: &GroupId, message: &MessageId) -> Result<Why, ApiError> {
        self.ask(Method::GET, &format!("/api/groups/{group}/messages/{message}/why"), None).await
    }

    /// Writes a message; a repeat with the same id is harmless.
    pub(crate) async fn post(
        &self,
        group: &GroupId,
        message_id: &MessageId,
        text: &str,
        mentions: Option<&[ParticipantId]>,
    ) -> Result<Value, ApiError> {
        let mut body = json!({"message_id": message_id, "text": text});
        if let Some(mentions) = mentions {
            body["mentions"] = json!(mentions);
        }
        self.ask(Method::POST, &format!("/api/groups/{group}/messages"), Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, ApiError> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|_| ApiError::Strange(self.base.to_string()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, ApiError> {
        let unreachable = |error: reqwest::Error| {
            let why = match error.is_timeout() {
                true => "there was no answer in time".to_owned(),
                false => innermost(&error),
            };
            ApiError::Unreachable(self.base.to_string(), why)
        };
        let request = self.request(method, path, body)?.timeout(ANSWER_TIMEOUT);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        Err(match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => ApiError::Refused(refusal),
            Err(_) => ApiError::Strange(self.base.to_string()),
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let url = self.base.join(path).map_err(|_| ApiError::Strange(self.base.to_string()))?;
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(match body {
            Some(body) => request.json(&body),
            None => request,
        })
    }
}

/// What is at the bottom of an error: "connection refused", rather than that sending failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
