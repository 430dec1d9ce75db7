//! Frames per second from one upstream to many sockets: the room's broadcaster against a bare
//! `write(2)` loop of the same bytes to the same kind of sockets.
//!
//! Both run in a closed loop: the next `in_flight` messages leave when the last ones are written to
//! every socket. A thread of its own reads at the other end, seldom and much at a time, so that it
//! takes as little as possible of the machine that is measured.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use convene_app::rooms::{fanout::Fanout, outbound::Outbound};
use convene_hop::GroupLink;
use convene_model::{ConnId, UserId};
use tokio::sync::mpsc;

use super::Figure;
use crate::cli::CliError;

/// Bytes of each message's payload; with its header a frame has four more.
const PAYLOAD_BYTES: usize = 300;
/// How often the other end reads.
const READ_EVERY: Duration = Duration::from_millis(2);
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
        let limit = with_sockets(sockets, |sockets| bare_writes(&sockets, slice))?;
        let value = with_sockets(sockets, |sockets| {
            runtime.block_on(async {
                tokio::spawn(broadcasts(sockets, in_flight, slice)).await.map_err(CliError::from)?
            })
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
fn bare_writes(sockets: &[TcpStream], time: Duration) -> Result<f64, CliError> {
    let payload = payload();
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&payload);
    let mut frames = 0_u64;
    let started = Instant::now();
    while started.elapsed() < time {
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
    let (mut frames, mut sent) = (Vec::new(), 0);
    let started = Instant::now();
    while link.rx.recv_many(&mut frames, BATCH).await > 0 {
        sent += frames.len();
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
        if sent % in_flight == 0 {
            let _ = done.send(()).await;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    group.await??;
    Ok((sent * outbounds.len()) as f64 / seconds)
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
    run: impl FnOnce(Vec<TcpStream>) -> Result<f64, CliError>,
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
    let measured = run(near);
    reader.stop()?;
    measured
}

/// The thread that reads the other ends.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Reader {
    fn start(sockets: Vec<TcpStream>) -> Result<Self, CliError> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while !stopped.load(Ordering::Relaxed) {
                for mut socket in &sockets {
                    match socket.read(&mut buffer) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                std::thread::sleep(READ_EVERY);
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<(), CliError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the reading thread panicked")??;
        Ok(())
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
