//! One client's WebSocket: the upgrade, what the client sends, and the end.

use std::{pin::pin, sync::Arc};

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use convene_hop::Handshake;
use convene_model::{
    Code, GroupId, Problem, UserId,
    frame::{self, BadFrame, ClientFrame, GroupFrame},
    limits::MAX_FRAME_BYTES,
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior},
};
use tokio_websockets::{Error, Message, proto::ProtocolError};

use super::{
    doors::{Open, Proof},
    inbox::Inbox,
    outbound::Outbound,
    reader::Reader,
    room::{Command, Who},
    shared::{Seat, Shared},
    tuning::CLOSE_LINGER,
    ws::CloseCode,
};

/// Answers a client's handshake and serves the socket in a task of its own.
pub(crate) fn open(
    shared: &Arc<Shared>,
    group: &GroupId,
    user: UserId,
    proof: Proof,
    mut request: Request,
) -> Result<Response, Problem> {
    let handshake = Handshake::read(request.headers())?;
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(Code::UpgradeRequired)?;
    let seat = shared.seat(group)?;
    let who = Who { user: user.clone(), is_agent: proof.is_agent };
    let door = shared.doors.open(user, group.clone(), proof);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => serve(&shared, seat, door, who, upgraded).await,
            Err(error) => tracing::debug!(%error, "a client's upgrade failed"),
        }
    });
    Ok(handshake.response())
}

async fn serve(shared: &Shared, seat: Seat, door: Open, who: Who, upgraded: Upgraded) {
    let Ok(parts) = downcast::<TokioIo<TcpStream>>(upgraded) else {
        tracing::error!("a client's connection is not the TCP stream that the fan-out writes to");
        return;
    };
    let (stream, read_buf) = (parts.io.into_inner(), parts.read_buf);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client was gone before its socket was set up");
        return;
    }
    let stream = Arc::new(stream);
    let tuning = &shared.tuning;
    let outbound =
        Outbound::bounded(Arc::clone(&stream), tuning.max_backlog_bytes, tuning.max_backlog_frames);
    door.opened(&outbound);
    let conn = seat.room().conn();
    let commands = seat.room().commands.clone();
    let join = Command::Join { conn: conn.clone(), who, outbound: Arc::clone(&outbound) };
    if commands.send(join).await.is_ok() {
        let reader = Reader::new(&read_buf, Arc::clone(&stream), Arc::clone(&outbound));
        drop(read_buf);
        let code = read(shared, &seat, &conn, &outbound, reader).await;
        outbound.close(code);
        if outbound.fell_behind() {
            shared.counters.too_slow();
        }
        let _ = commands.send(Command::Leave { conn }).await;
    } else {
        outbound.close(CloseCode::GoingAway);
    }
    // The place is given back at once; what follows only sees the socket off.
    drop((seat, door));
    let _ = tokio::time::timeout(CLOSE_LINGER, discard(&stream)).await;
    outbound.abort();
}

/// Reads until the socket ends; returns the close code, for the case that none was sent before.
async fn read(
    shared: &Shared,
    seat: &Seat,
    conn: &convene_model::ConnId,
    outbound: &Arc<Outbound>,
    reader: Reader,
) -> CloseCode {
    let mut inbox = Inbox::new(reader);
    let mut ended = pin!(outbound.ended());
    let mut pings = tokio::time::interval(shared.tuning.ping_every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut heard_at = Instant::now();
    let mut silent_pings = 0;
    let commands = &seat.room().commands;
    loop {
        let message = tokio::select! {
            message = inbox.next() => message,
            () = &mut ended => return CloseCode::Normal,
            now = pings.tick() => {
                if outbound.take_heard() {
                    (heard_at, silent_pings) = (now, 0);
                } else {
                    silent_pings += 1;
                }
                // A stall of our own is no silence of the client's: it had pings to answer.
                let silent = silent_pings > 1
                    && now.duration_since(heard_at) >= shared.tuning.silent_for;
                if silent || commands.is_closed() {
                    return CloseCode::GoingAway;
                }
                outbound.ping();
                continue;
            }
        };
        match message {
            None | Some(Err(Error::Io(_) | Error::AlreadyClosed)) => return CloseCode::Normal,
            Some(Ok(message)) if message.is_text() => {
                let Some(command) = command(conn, outbound, message) else { continue };
                if commands.send(command).await.is_err() {
                    return CloseCode::GoingAway;
                }
            }
            Some(Ok(message)) if message.is_binary() => return CloseCode::Unsupported,
            Some(Ok(message)) if message.is_close() => return CloseCode::Normal,
            Some(Ok(_)) => {}
            Some(Err(Error::PayloadTooLong { .. })) => {
                let detail = format!("a frame has at most {MAX_FRAME_BYTES} bytes");
                let bad = BadFrame { code: Code::TooLarge, detail, conn: None, r#ref: None };
                refuse(outbound, bad);
                return CloseCode::TooBig;
            }
            Some(Err(Error::Protocol(ProtocolError::InvalidUtf8))) => return CloseCode::NotUtf8,
            Some(Err(_)) => return CloseCode::Protocol,
        }
    }
}

/// What a text message asks for; one that is not understood is answered right here.
fn command(
    conn: &convene_model::ConnId,
    outbound: &Arc<Outbound>,
    message: Message,
) -> Option<Command> {
    let raw = Bytes::from(message.into_payload());
    // The frame is passed on from its brace: `conn` is put in behind it.
    let raw = raw.slice_ref(raw.trim_ascii());
    match frame::parse::<ClientFrame>(&raw) {
        Ok(frame) => Some(Command::Frame { conn: conn.clone(), frame, raw }),
        Err(bad) => {
            refuse(outbound, bad);
            None
        }
    }
}

fn refuse(outbound: &Arc<Outbound>, bad: BadFrame) {
    let BadFrame { code, detail, r#ref, conn: _ } = bad;
    let error =
        GroupFrame::Error { r#ref, code, detail: Some(detail), retry_after_ms: None, start: None };
    outbound.send_text(&error.encode());
}

/// Reads to the end, so that the close frame is not lost by a reset for unread bytes.
async fn discard(stream: &TcpStream) {
    while stream.readable().await.is_ok() {
        if !discard_what_waits(stream) {
            return;
        }
    }
}

/// Reads what is there; `false` at the end. Not within the future, which every socket has from its
/// beginning: the scratch space would be a part of it.
fn discard_what_waits(stream: &TcpStream) -> bool {
    let mut scratch = [0; 4096];
    loop {
        match stream.try_read(&mut scratch) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}
