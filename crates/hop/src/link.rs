//! The upstream of a group: an in-memory pair within a process, a WebSocket between processes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use convene_model::Code;
use http::{StatusCode, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};
use tokio_websockets::{Limits, ServerBuilder};

use crate::{
    ApiError, Handshake,
    links::Links,
    pump::{self, MAX_FRAME_TO_GROUP, Pace},
};

/// Frames that wait in one direction of a link; a full one makes the group drop its upstream.
pub const LINK_QUEUE_FRAMES: usize = 4096;

/// One end of an upstream: JSON text frames in both directions. Dropping a half closes it.
#[derive(Debug)]
pub struct GroupLink {
    /// Frames to the other end.
    pub tx: mpsc::Sender<Bytes>,
    /// Frames from the other end.
    pub rx: mpsc::Receiver<Bytes>,
    /// Why either end closes.
    pub close: LinkClose,
}

impl GroupLink {
    /// Both ends of a link in memory.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (left_tx, right_rx) = mpsc::channel(LINK_QUEUE_FRAMES);
        let (right_tx, left_rx) = mpsc::channel(LINK_QUEUE_FRAMES);
        let left = LinkClose::default();
        let right = LinkClose { ours: Arc::clone(&left.theirs), theirs: Arc::clone(&left.ours) };
        (
            Self { tx: left_tx, rx: left_rx, close: left },
            Self { tx: right_tx, rx: right_rx, close: right },
        )
    }
}

/// Why a link was closed, as a WebSocket's close frame says it (RFC 6455, section 7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The close code.
    pub code: u16,
    /// A few words for people, at most 123 bytes.
    pub reason: String,
}

impl Close {
    /// A close with a reason in a few words.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// The reasons of both ends of a link; each end says its own once, before it drops its halves.
#[derive(Debug, Clone, Default)]
pub struct LinkClose {
    ours: Arc<OnceLock<Close>>,
    theirs: Arc<OnceLock<Close>>,
}

impl LinkClose {
    /// Says why this end closes; the first word holds.
    pub fn say(&self, close: Close) {
        let _ = self.ours.set(close);
    }

    /// Why the other end closed, where it said so.
    #[must_use]
    pub fn heard(&self) -> Option<Close> {
        self.theirs.get().cloned()
    }
}

/// How a caller in the same process takes over a link in place of a WebSocket.
#[derive(Clone)]
pub(crate) struct LinkOffer(Arc<Mutex<Option<oneshot::Sender<GroupLink>>>>);

impl LinkOffer {
    pub(crate) fn new(sender: oneshot::Sender<GroupLink>) -> Self {
        Self(Arc::new(Mutex::new(Some(sender))))
    }

    fn take(&self) -> Option<oneshot::Sender<GroupLink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request that asks for an upstream. Refused with 426 when it asks for something else.
///
/// A server that puts a [`Links`] into its requests' extensions can end the WebSockets in order.
pub struct LinkUpgrade(Kind);

enum Kind {
    InMemory(oneshot::Sender<GroupLink>),
    WebSocket { handshake: Handshake, on_upgrade: OnUpgrade, links: Links },
}

impl<S: Send + Sync> FromRequestParts<S> for LinkUpgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(sender) = parts.extensions.get::<LinkOffer>().and_then(LinkOffer::take) {
            return Ok(Self(Kind::InMemory(sender)));
        }
        let handshake = Handshake::read(&parts.headers)?;
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(Code::UpgradeRequired)?;
        let links = parts.extensions.get::<Links>().cloned().unwrap_or_default();
        Ok(Self(Kind::WebSocket { handshake, on_upgrade, links }))
    }
}

impl LinkUpgrade {
    /// Answers with 101 and connects the caller to `link`. Within a process the caller simply gets
    /// `link` itself, so that a hop that only passes it on costs nothing per frame.
    pub fn accept(self, link: GroupLink) -> Response {
        match self.0 {
            Kind::InMemory(sender) => match sender.send(link) {
                Ok(()) => StatusCode::SWITCHING_PROTOCOLS.into_response(),
                Err(_) => ApiError::from(Code::Unavailable).into_response(),
            },
            Kind::WebSocket { handshake, on_upgrade, links } => {
                let stop = links.stop();
                links.spawn(async move {
                    match on_upgrade.await {
                        Ok(upgraded) => {
                            let limits =
                                Limits::default().max_payload_len(Some(MAX_FRAME_TO_GROUP));
                            let socket =
                                ServerBuilder::new().limits(limits).serve(TokioIo::new(upgraded));
                            pump::carry(socket, link, stop, Pace::default()).await;
                        }
                        Err(error) => tracing::debug!(%error, "an upstream's upgrade failed"),
                    }
                });
                handshake.response()
            }
        }
    }
}
