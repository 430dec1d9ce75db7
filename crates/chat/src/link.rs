//! The WebSocket to a group: opened, and opened again whenever it is lost.
//!
//! Knows bytes and time; what frames mean is the room's affair. What is sent while there is no
//! connection is dropped: the room sends again what was not acknowledged.

use std::time::Duration;

use convene_model::{GroupId, frame::SUBPROTOCOL};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Uri, header};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_websockets::{ClientBuilder, Error, Limits, Message, upgrade};

use crate::api::Api;

/// The pause before the second attempt; the first after a loss is made at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long an opening handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the App may be silent: it pings every 30 seconds.
const SILENT_FOR: Duration = Duration::from_secs(75);
/// A connection that lasted this long was a good one: the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// Bytes of a frame from the App: a reply with its rendering is larger than what clients may send.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// What happens to the connection.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// It is open; the group is not attached yet.
    Open,
    /// A text frame.
    Frame(String),
    /// It is gone, or could not be opened; the next attempt is made then.
    Lost { why: String, again_at: Instant },
    /// It will not be opened again.
    Ended(String),
}

/// The way to a connection that keeps itself open.
#[derive(Debug)]
pub(crate) struct Link {
    frames: mpsc::UnboundedSender<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Link {
    /// Opens a connection; what happens to it comes out of `events`.
    pub(crate) fn open(api: &Api, group: &GroupId, events: mpsc::Sender<LinkEvent>) -> Self {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(api.clone(), group.clone(), outgoing, events));
        Self { frames, task }
    }

    /// Sends a frame if there is a connection.
    pub(crate) fn send(&self, frame: String) {
        let _ = self.frames.send(frame);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    api: Api,
    group: GroupId,
    mut outgoing: mpsc::UnboundedReceiver<String>,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let lost = match connection(&api, &group, &mut outgoing, &events).await {
            Ok(why) => why,
            Err(End::Passing(why)) => why,
            Err(End::Final(why)) => {
                let _ = events.send(LinkEvent::Ended(why)).await;
                return;
            }
            Err(End::NobodyListens) => return,
        };
        if began.elapsed() > GOOD_AFTER {
            pause = Duration::ZERO;
        }
        let again_at = Instant::now() + jittered(pause);
        if events.send(LinkEvent::Lost { why: lost, again_at }).await.is_err() {
            return;
        }
        tokio::time::sleep_until(again_at).await;
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        // What was meant for the lost connection is sent again by the room.
        while outgoing.try_recv().is_ok() {}
    }
}

enum End {
    Passing(String),
    Final(String),
    NobodyListens,
}

/// One connection from its opening to its loss.
async fn connection(
    api: &Api,
    group: &GroupId,
    outgoing: &mut mpsc::UnboundedReceiver<String>,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<String, End> {
    let broken = |error: Error| End::Passing(error.to_string());
    let fault = |why: String| End::Final(why);
    let base = api.base().as_str().replacen("http", "ws", 1);
    let uri: Uri = format!("{base}api/groups/{group}/ws")
        .parse()
        .map_err(|_| fault(format!("{base} is not an address")))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", api.token()))
        .map_err(|_| fault("the token is not one of Convene's".to_owned()))?;
    let builder = ClientBuilder::from_uri(uri)
        .limits(Limits::default().max_payload_len(Some(MAX_FRAME_BYTES)))
        .add_header(header::AUTHORIZATION, bearer)
        .map_err(broken)?
        .add_header(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL))
        .map_err(broken)?;
    let mut socket = match timeout(CONNECT_TIMEOUT, builder.connect()).await {
        Err(_) => return Err(End::Passing("there was no answer in time".to_owned())),
        Ok(Ok((socket, _))) => socket,
        Ok(Err(Error::Upgrade(upgrade::Error::DidNotSwitchProtocols(status)))) => {
            return Err(match status {
                401 => End::Final("you are signed out; run `convene chat sign-in`".to_owned()),
                403 | 404 | 410 => End::Final("the group is not open to you any more".to_owned()),
                status => End::Passing(format!("the server answered {status}")),
            });
        }
        Ok(Err(error)) => return Err(broken(error)),
    };
    let tell = async |event| events.send(event).await.map_err(|_| End::NobodyListens);
    tell(LinkEvent::Open).await?;
    loop {
        tokio::select! {
            message = timeout(SILENT_FOR, socket.next()) => match message {
                Err(_) => return Ok("the server is silent".to_owned()),
                Ok(None) => return Ok("the connection was closed".to_owned()),
                Ok(Some(Err(error))) => return Ok(error.to_string()),
                Ok(Some(Ok(message))) => {
                    if let Some(text) = message.as_text() {
                        tell(LinkEvent::Frame(text.to_owned())).await?;
                    } else if let Some((code, _)) = message.as_close() {
                        return match u16::from(code) {
                            4003 => Err(End::Final("your access was withdrawn".to_owned())),
                            1001 => Ok("the server is restarting".to_owned()),
                            4008 => Ok("this connection was too slow".to_owned()),
                            code => Ok(format!("the server closed the connection ({code})")),
                        };
                    }
                }
            },
            frame = outgoing.recv() => match frame {
                None => return Err(End::NobodyListens),
                Some(frame) => {
                    let sent = timeout(CONNECT_TIMEOUT, socket.send(Message::text(frame))).await;
                    match sent {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Ok(error.to_string()),
                        Err(_) => return Ok("the connection takes nothing more".to_owned()),
                    }
                }
            },
        }
    }
}

/// Between half and one and a half times as long, so that not everybody returns at once.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX))
}
