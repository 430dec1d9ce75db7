//! An upstream over a WebSocket: frames carried between the socket and a link, the same way on both
//! ends.
//!
//! Owns keep-alive and the detection of dead peers, the limits of frames, and how a close passes
//! from one side to the other. Never looks into a frame.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use convene_model::{limits::MAX_FRAME_BYTES, token::MAX_TOKEN_BYTES};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tokio_websockets::{CloseCode, Error, Message, Payload, WebSocketStream};

use crate::{Close, GroupLink, links::CLOSE_PATIENCE};

/// Each end pings after so long without anything from the other.
pub const LINK_PING_EVERY: Duration = Duration::from_secs(10);
/// How long the other end may be silent, pongs included, before it counts as gone. It is noticed
/// within one [`LINK_PING_EVERY`] more.
pub const LINK_SILENT_FOR: Duration = Duration::from_secs(20);
/// Bytes of a frame to a group: a client's frame with what the App adds to it. What is larger than
/// a client's frame may be is refused by the group alone, so that the upstream of all the others
/// stays.
pub const MAX_FRAME_TO_GROUP: usize = MAX_FRAME_BYTES + MAX_TOKEN_BYTES + 1024;
/// Bytes of a frame from a group: an event with the longest text, each byte of it escaped, and a
/// state with room to spare.
pub const MAX_FRAME_FROM_GROUP: usize = 4 * 1024 * 1024;
/// Frames that are written at a time.
const AT_A_TIME: usize = 64;
/// Bytes of a close frame's reason at most (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;

/// How often is pinged, and when silence is death.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) ping_every: Duration,
    pub(crate) silent_for: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { ping_every: LINK_PING_EVERY, silent_for: LINK_SILENT_FOR }
    }
}

/// Why a carried link ends.
enum End {
    /// The peer said goodbye, or broke a rule of the protocol; the library answers both.
    Closed(Close),
    /// The connection broke.
    Broken,
    /// The peer broke a rule of ours.
    Offended(Close),
    /// Nothing came for too long.
    Silent,
    /// The link's other end is gone.
    Link,
    /// The process stops.
    Stopping,
}

/// Carries frames between a WebSocket and a link until either ends, and tells the other.
pub(crate) async fn carry<S>(
    socket: WebSocketStream<S>,
    link: GroupLink,
    stop: CancellationToken,
    pace: Pace,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut out, mut input) = socket.split();
    let GroupLink { tx, mut rx, close } = link;
    let life = Life::default();
    let reader = async {
        loop {
            let message = match input.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return ended(&error),
                None => return End::Broken,
            };
            life.heard();
            if message.is_text() {
                let frame = Bytes::from(message.into_payload());
                // A full link makes the peer wait; that is no silence of the peer. A link that is
                // gone is noticed below, once what came from it is written.
                match tx.try_reserve() {
                    Ok(permit) => permit.send(frame),
                    Err(_) => drop(life.busy(tx.send(frame)).await),
                }
            } else if message.is_binary() {
                let reason = "frames are text";
                return End::Offended(Close::new(CloseCode::UNSUPPORTED_DATA.into(), reason));
            } else if let Some((code, reason)) = message.as_close() {
                return End::Closed(Close::new(code.into(), reason));
            }
        }
    };
    let writer = async {
        let mut waiting = Vec::with_capacity(AT_A_TIME);
        loop {
            let count = tokio::select! {
                count = rx.recv_many(&mut waiting, AT_A_TIME) => count,
                () = life.ping.notified() => {
                    if out.send(Message::ping(Payload::from(""))).await.is_err() {
                        return End::Broken;
                    }
                    continue;
                }
            };
            if count == 0 {
                return End::Link;
            }
            for frame in waiting.drain(..) {
                // What a link carries is JSON, hence text; a receiver checks it anyway.
                if out.feed(Message::text(Payload::from(frame))).await.is_err() {
                    return End::Broken;
                }
            }
            if out.flush().await.is_err() {
                return End::Broken;
            }
        }
    };
    let end = tokio::select! {
        end = reader => end,
        end = writer => end,
        () = life.watch(pace) => End::Silent,
        () = async { tx.closed().await; sleep(CLOSE_PATIENCE).await } => End::Link,
        () = stop.cancelled() => End::Stopping,
    };
    let farewell = match end {
        End::Closed(said) => {
            close.say(said);
            None
        }
        End::Broken => {
            close.say(Close::new(CloseCode::GOING_AWAY.into(), "the connection broke"));
            return;
        }
        End::Silent => {
            tracing::info!("the other end of an upstream is silent; the upstream is dropped");
            close.say(Close::new(CloseCode::GOING_AWAY.into(), "the other end is silent"));
            return;
        }
        End::Offended(said) => {
            close.say(said.clone());
            Some(said)
        }
        End::Link => Some(
            close
                .heard()
                .unwrap_or_else(|| Close::new(CloseCode::GOING_AWAY.into(), "the group let go")),
        ),
        End::Stopping => {
            let said = Close::new(CloseCode::GOING_AWAY.into(), "the service stops");
            close.say(said.clone());
            Some(said)
        }
    };
    // The link ends first: whoever is behind it need not wait for the peer's goodbye.
    drop((tx, rx));
    let goodbye = async {
        if let Some(said) = farewell
            && out.send(close_message(&said)).await.is_err()
        {
            return;
        }
        // Until the peer has acknowledged, or what we acknowledge is written.
        while let Some(Ok(_)) = input.next().await {}
        let _ = out.close().await;
    };
    let _ = timeout(CLOSE_PATIENCE, goodbye).await;
}

/// What an error of the library means for the link.
fn ended(error: &Error) -> End {
    match error {
        Error::PayloadTooLong { max_len, .. } => End::Closed(Close::new(
            CloseCode::MESSAGE_TOO_BIG.into(),
            format!("a frame has at most {max_len} bytes"),
        )),
        Error::Protocol(_) => {
            End::Closed(Close::new(CloseCode::PROTOCOL_ERROR.into(), "no WebSocket frame"))
        }
        _ => End::Broken,
    }
}

fn close_message(close: &Close) -> Message {
    let code = CloseCode::try_from(close.code).ok().filter(|code| !code.is_reserved());
    let mut end = close.reason.len().min(MAX_REASON_BYTES);
    while !close.reason.is_char_boundary(end) {
        end -= 1;
    }
    Message::close(Some(code.unwrap_or(CloseCode::GOING_AWAY)), &close.reason[..end])
}

/// Whether the peer lives, as far as can be heard.
#[derive(Default)]
struct Life {
    heard: AtomicBool,
    busy: AtomicBool,
    ping: Notify,
}

impl Life {
    fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Waits for something of ours, during which the peer cannot be heard.
    async fn busy<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.busy.store(true, Ordering::Relaxed);
        let done = waiting.await;
        self.busy.store(false, Ordering::Relaxed);
        self.heard();
        done
    }

    /// Asks for pings while nothing is heard; ends when the peer has been silent for too long.
    async fn watch(&self, pace: Pace) {
        let mut silent = Duration::ZERO;
        loop {
            sleep(pace.ping_every).await;
            let heard = self.heard.swap(false, Ordering::Relaxed);
            if heard || self.busy.load(Ordering::Relaxed) {
                silent = Duration::ZERO;
            } else {
                silent += pace.ping_every;
            }
            if silent >= pace.silent_for {
                return;
            }
            if !heard {
                self.ping.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::DuplexStream, task::JoinHandle, time::Instant};
    use tokio_websockets::{ClientBuilder, Limits, ServerBuilder};

    use super::*;

    /// A link that is carried over one half of a duplex stream, and the raw other half.
    fn serving(size: usize) -> (GroupLink, DuplexStream, CancellationToken, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(size);
        let limits = Limits::default().max_payload_len(Some(1000));
        let socket = ServerBuilder::new().limits(limits).serve(near);
        let (ours, theirs) = GroupLink::pair();
        let stop = CancellationToken::new();
        let task = tokio::spawn(carry(socket, theirs, stop.clone(), Pace::default()));
        (ours, far, stop, task)
    }

    fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        ClientBuilder::new().take_over(stream)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_and_says_nothing_is_dropped_within_tens_of_seconds() {
        let (mut link, far, _, _) = serving(1 << 16);
        let from = Instant::now();
        assert_eq!(link.rx.recv().await, None);
        let after = from.elapsed();
        assert!(after >= LINK_SILENT_FOR && after <= LINK_SILENT_FOR + LINK_PING_EVERY);
        assert_eq!(link.close.heard().unwrap().reason, "the other end is silent");
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_stays_however_quiet_it_is() {
        let (link, far, _, _) = serving(1 << 16);
        let mut far = client(far);
        let pongs = tokio::spawn(async move {
            while let Some(Ok(message)) = far.next().await {
                if message.is_text() {
                    return;
                }
            }
            panic!("the upstream was dropped");
        });
        sleep(LINK_SILENT_FOR * 100).await;
        link.tx.send(Bytes::from_static(b"{}")).await.unwrap();
        pongs.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_not_silent_while_we_are_the_ones_who_do_not_take_its_frames() {
        let (mut link, far, _, _) = serving(1 << 22);
        let mut far = client(far);
        let frames = crate::LINK_QUEUE_FRAMES + 10;
        for _ in 0..frames {
            far.feed(Message::text("{}")).await.unwrap();
        }
        far.flush().await.unwrap();
        let (mut far_out, mut far_in) = far.split();
        tokio::spawn(async move { while let Some(Ok(_)) = far_in.next().await {} });
        sleep(LINK_SILENT_FOR * 10).await;
        for _ in 0..frames {
            assert!(link.rx.recv().await.is_some(), "all frames come in the end");
        }
        far_out.send(Message::text("{}")).await.unwrap();
        assert!(link.rx.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_and_a_binary_one_are_refused_with_their_codes() {
        for (message, code) in [
            (Message::text("x".repeat(1001)), CloseCode::MESSAGE_TOO_BIG),
            (Message::binary(vec![1]), CloseCode::UNSUPPORTED_DATA),
            (Message::text(Payload::from(vec![0xff])), CloseCode::PROTOCOL_ERROR),
        ] {
            let (mut link, far, _, _) = serving(1 << 16);
            let mut far = client(far);
            far.send(Message::text("x".repeat(1000))).await.unwrap();
            assert!(link.rx.recv().await.is_some(), "at the limit it passes");
            far.send(message).await.unwrap();
            let close = far.next().await.unwrap().unwrap();
            let said = close.as_close().unwrap().0;
            // What is no UTF-8 is a breach of the protocol that has a code of its own.
            assert!(
                said == code
                    || (code == CloseCode::PROTOCOL_ERROR
                        && said == CloseCode::INVALID_FRAME_PAYLOAD_DATA),
                "{said:?}"
            );
            assert_eq!(link.rx.recv().await, None);
            assert!(link.close.heard().is_some());
        }
    }

    #[tokio::test]
    async fn what_a_group_said_before_it_let_go_arrives_with_its_reason() {
        let (link, far, _, _) = serving(1 << 16);
        let mut far = client(far);
        for number in 0..100 {
            link.tx.send(Bytes::from(format!("{number}"))).await.unwrap();
        }
        link.close.say(Close::new(4008, "it cannot keep up"));
        drop(link);
        for number in 0..100 {
            let message = far.next().await.unwrap().unwrap();
            assert_eq!(message.as_text(), Some(number.to_string().as_str()));
        }
        let close = far.next().await.unwrap().unwrap();
        let (code, reason) = close.as_close().unwrap();
        assert_eq!((u16::from(code), reason), (4008, "it cannot keep up"));
    }

    #[tokio::test]
    async fn a_process_that_stops_says_so_to_both_sides() {
        let (mut link, far, stop, task) = serving(1 << 16);
        let mut far = client(far);
        stop.cancel();
        let close = far.next().await.unwrap().unwrap();
        assert_eq!(close.as_close().unwrap().0, CloseCode::GOING_AWAY);
        assert_eq!(link.rx.recv().await, None);
        assert_eq!(link.close.heard(), Some(Close::new(1001, "the service stops")));
        while let Some(Ok(_)) = far.next().await {}
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_connection_ends_the_link_at_once() {
        let (mut link, far, _, task) = serving(1 << 16);
        drop(far);
        assert_eq!(link.rx.recv().await, None);
        assert_eq!(link.close.heard().unwrap().code, 1001);
        task.await.unwrap();
    }
}
