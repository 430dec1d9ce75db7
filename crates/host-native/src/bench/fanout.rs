//! Frames per second from one upstream to many sockets: the room's broadcaster against a bare
//! `write(2)` loop of the same bytes to the same kind of sockets.
//!
//! Both run in a closed loop: the next `in_flight` messages leave when the last ones are written to
//! every socket. A thread of its own reads at the other end as soon as something comes, and both
//! loops wait for it when it is far behind: full buffers make the kernel join frames, which
//! flatters whoever writes.

use std::{
    io::{ErrorKind, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use convene_app::rooms::{fanout::Fanout, outbound::Outbound};
use convene_hop::GroupLink;
use convene_model::{ConnId, UserId};
use tokio::{
    io::AsyncReadExt,
    sync::{Notify, mpsc},
};

use super::Figure;
use crate::cli::CliError;

/// Bytes of each message's payload; with its header a frame has four more.
const PAYLOAD_BYTES: usize = 300;
/// Messages that the other ends may be behind by before a loop waits for them.
const READ_LAG: u64 = 16;
/// Frames that the broadcaster takes from the upstream at once, as a room does.
const BATCH: usize = 256;

/// Measures the fan-out to `sockets` sockets with `in_flight` messages under way, in turn with the
/// bare loop.
pub(super) fn measure(
    sockets: usize,
    in_flight: usize,
    slice: Duration,
    slices: usize,
) -> Result<Figure, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut measured = Vec::with_capacity(slices);
    for _ in 0..slices {
        let limit = with_sockets(sockets, |sockets, read| bare_writes(&sockets, &read, slice))?;
        let value = with_sockets(sockets, |sockets, read| {
            // As a task, as a room is one.
            let task = runtime.spawn(broadcasts(sockets, read, in_flight, slice));
            runtime.block_on(task).map_err(CliError::from)?
        })?;
        measured.push((value, limit));
    }
    Ok(Figure::from_slices("frames/s", &measured))
}

/// A message as a room's upstream carries it.
fn payload() -> Bytes {
    let start = r#"{"type":"event","seq":1,"at":1732100000000,"kind":"message.posted","text":""#;
    let text = "x".repeat(PAYLOAD_BYTES - start.len() - 2);
    Bytes::from(format!("{start}{text}\"}}"))
}

/// Writes the message to each socket in turn, one frame with each call.
fn bare_writes(sockets: &[TcpStream], read: &ReadBytes, time: Duration) -> Result<f64, CliError> {
    let payload = payload();
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&payload);
    let mut frames = 0_u64;
    let started = Instant::now();
    while started.elapsed() < time {
        while read.is_behind(frames, sockets.len()) {
            std::thread::yield_now();
        }
        for mut socket in sockets {
            let mut rest = &frame[..];
            while !rest.is_empty() {
                match socket.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        frames += sockets.len() as u64;
    }
    Ok(frames as f64 / started.elapsed().as_secs_f64())
}

/// Fans out what a group sends over its link.
async fn broadcasts(
    sockets: Vec<TcpStream>,
    read: ReadBytes,
    in_flight: usize,
    time: Duration,
) -> Result<f64, CliError> {
    let mut fanout = Fanout::new(|text| text.to_owned());
    let mut outbounds = Vec::with_capacity(sockets.len());
    for (number, socket) in sockets.into_iter().enumerate() {
        let outbound = Outbound::new(Arc::new(tokio::net::TcpStream::from_std(socket)?));
        let conn = ConnId::new(format!("c{number}"))?;
        fanout.join(conn.clone(), UserId::new("user")?, Arc::clone(&outbound));
        fanout.attach(&conn, 0);
        outbounds.push(outbound);
    }
    let (group, mut link) = GroupLink::pair();
    let (done, written) = mpsc::channel(1);
    let group = tokio::spawn(send(group, in_flight, written, time));
    let (mut frames, mut sent) = (Vec::new(), 0_u64);
    let started = Instant::now();
    while link.rx.recv_many(&mut frames, BATCH).await > 0 {
        sent += (frames.len() * outbounds.len()) as u64;
        let batch = fanout.prepare(&mut frames);
        // What waits for a full socket is not written yet, and the bare loop would wait for it.
        if fanout.flush(&batch) > 0 {
            while outbounds.iter().any(|outbound| outbound.backlog().0 > 0) {
                tokio::task::yield_now().await;
            }
        }
        if !fanout.take_gone().is_empty() {
            return Err("a socket fell behind although it is read".into());
        }
        while read.is_behind(sent, outbounds.len()) {
            tokio::task::yield_now().await;
        }
        if sent.is_multiple_of((in_flight * outbounds.len()) as u64) {
            let _ = done.send(()).await;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    group.await??;
    Ok(sent as f64 / seconds)
}

/// Plays the group: `in_flight` messages, then waits until they are written.
async fn send(
    link: GroupLink,
    in_flight: usize,
    mut written: mpsc::Receiver<()>,
    time: Duration,
) -> Result<(), CliError> {
    let payload = payload();
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        for _ in 0..in_flight {
            link.tx.send(payload.clone()).await?;
        }
        written.recv().await.ok_or("the broadcaster ended")?;
    }
    Ok(())
}

/// Opens connected sockets, has the other ends read, and gives them to `run`. They are opened anew
/// for each slice, so that a measurement needs no more descriptors than a shell allows.
fn with_sockets(
    count: usize,
    run: impl FnOnce(Vec<TcpStream>, ReadBytes) -> Result<f64, CliError>,
) -> Result<f64, CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut near, mut far) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        far.push(TcpStream::connect(listener.local_addr()?)?);
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        near.push(socket);
    }
    let reader = Reader::start(far)?;
    let measured = run(near, reader.read.clone());
    reader.stop()?;
    measured
}

/// How many bytes the other ends have read.
#[derive(Clone, Default)]
struct ReadBytes(Arc<AtomicU64>);

impl ReadBytes {
    /// Whether the other ends of `sockets` are behind by more than [`READ_LAG`] of the messages that
    /// were written as `frames`.
    fn is_behind(&self, frames: u64, sockets: usize) -> bool {
        let read = self.0.load(Ordering::Relaxed) / (PAYLOAD_BYTES as u64 + 4);
        frames.saturating_sub(read) > READ_LAG * sockets as u64
    }
}

/// The thread that reads the other ends.
struct Reader {
    read: ReadBytes,
    stop: Arc<Notify>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Reader {
    fn start(sockets: Vec<TcpStream>) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let read = ReadBytes::default();
        let count = read.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for socket in sockets {
                    socket.set_nonblocking(true)?;
                    let socket = tokio::net::TcpStream::from_std(socket)?;
                    tokio::spawn(read_to_end(socket, count.clone()));
                }
                stopped.notified().await;
                Ok(())
            })
        });
        Ok(Self { read, stop, thread })
    }

    fn stop(self) -> Result<(), CliError> {
        self.stop.notify_one();
        self.thread.join().map_err(|_| "the reading thread panicked")??;
        Ok(())
    }
}

async fn read_to_end(mut socket: tokio::net::TcpStream, read: ReadBytes) {
    let mut buffer = [0; 4096];
    while let Ok(len) = socket.read(&mut buffer).await {
        if len == 0 {
            return;
        }
        read.0.fetch_add(len as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loops_reach_every_socket() {
        let figure = measure(3, 2, Duration::from_millis(50), 1).unwrap();
        assert!(figure.value > 0.0 && figure.limit > 0.0);
        assert_eq!(payload().len(), PAYLOAD_BYTES);
    }
}
