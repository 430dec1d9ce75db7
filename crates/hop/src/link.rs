//! The upstream of a group: an in-memory pair within a process, a WebSocket to the outside.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use convene_model::{Code, limits::MAX_FRAME_BYTES};
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};
use tokio_websockets::{CloseCode, Limits, Message, ServerBuilder};

use crate::{ApiError, Handshake};

/// Frames that wait in one direction of a link; a full one makes the group drop its upstream.
pub const LINK_QUEUE_FRAMES: usize = 4096;

/// One end of an upstream: JSON text frames in both directions. Dropping a half closes it.
#[derive(Debug)]
pub struct GroupLink {
    /// Frames to the other end.
    pub tx: mpsc::Sender<Bytes>,
    /// Frames from the other end.
    pub rx: mpsc::Receiver<Bytes>,
}

impl GroupLink {
    /// Both ends of a link in memory.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (left_tx, right_rx) = mpsc::channel(LINK_QUEUE_FRAMES);
        let (right_tx, left_rx) = mpsc::channel(LINK_QUEUE_FRAMES);
        (Self { tx: left_tx, rx: left_rx }, Self { tx: right_tx, rx: right_rx })
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
pub struct LinkUpgrade(Kind);

enum Kind {
    InMemory(oneshot::Sender<GroupLink>),
    WebSocket { handshake: Handshake, on_upgrade: OnUpgrade },
}

impl<S: Send + Sync> FromRequestParts<S> for LinkUpgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(sender) = parts.extensions.get::<LinkOffer>().and_then(LinkOffer::take) {
            return Ok(Self(Kind::InMemory(sender)));
        }
        let handshake = Handshake::read(&parts.headers)?;
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(Code::UpgradeRequired)?;
        Ok(Self(Kind::WebSocket { handshake, on_upgrade }))
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
            Kind::WebSocket { handshake, on_upgrade } => {
                tokio::spawn(async move {
                    match on_upgrade.await {
                        Ok(upgraded) => pump(TokioIo::new(upgraded), link).await,
                        Err(error) => tracing::debug!(%error, "an upstream's upgrade failed"),
                    }
                });
                handshake.response()
            }
        }
    }
}

/// Carries frames between a WebSocket and a link until either ends.
async fn pump<S>(socket: S, link: GroupLink)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let limits = Limits::default().max_payload_len(Some(MAX_FRAME_BYTES));
    let (mut out, mut input) = ServerBuilder::new().limits(limits).serve(socket).split();
    let GroupLink { tx, mut rx } = link;
    let reader = async {
        while let Some(Ok(message)) = input.next().await {
            if message.is_text() {
                if tx.send(Bytes::from(message.into_payload())).await.is_err() {
                    return CloseCode::GOING_AWAY;
                }
            } else if message.is_binary() {
                return CloseCode::UNSUPPORTED_DATA;
            } else if message.is_close() {
                return CloseCode::NORMAL_CLOSURE;
            }
        }
        CloseCode::NORMAL_CLOSURE
    };
    let writer = async {
        let mut waiting = Vec::new();
        while rx.recv_many(&mut waiting, 64).await > 0 {
            for frame in waiting.drain(..) {
                // What a link carries is JSON made by a group, hence text; the library checks it.
                let payload = tokio_websockets::Payload::from(frame);
                let Ok(text) = std::str::from_utf8(&payload) else { continue };
                if out.feed(Message::text(text.to_owned())).await.is_err() {
                    return None;
                }
            }
            if out.flush().await.is_err() {
                return None;
            }
        }
        Some(CloseCode::GOING_AWAY)
    };
    let code = tokio::select! {
        code = reader => Some(code),
        code = writer => code,
    };
    if let Some(code) = code {
        let _ = out.send(Message::close(Some(code), "")).await;
        let _ = out.close().await;
    }
}
