//! What is written to one client: directly while it keeps up, through a bounded backlog while not.
//!
//! Every byte that goes to a client passes here, so that frames never interleave. Never waits: a
//! client that would block gets a task that lives only until it has caught up, and one that falls
//! too far behind is closed with 4008 at a frame boundary.

use std::{
    collections::VecDeque,
    io::ErrorKind,
    net::Shutdown,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::Notify};

use super::{
    tuning::{MAX_BACKLOG_BYTES, MAX_BACKLOG_FRAMES},
    ws::{self, CloseCode},
};

/// The writing side of one client's socket.
#[derive(Debug)]
pub struct Outbound {
    stream: Arc<TcpStream>,
    state: Mutex<State>,
    /// Told once when nothing more will be accepted.
    ended: Notify,
    heard: AtomicBool,
    max_bytes: usize,
    max_frames: usize,
}

/// What became of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They are written.
    Written,
    /// They wait in the backlog, whole or in part.
    Waiting,
    /// The socket takes nothing more: it fell too far behind, is closing or is gone.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    backlog: VecDeque<Chunk>,
    /// Bytes of the backlog that are not written.
    bytes: usize,
    /// Frames of the backlog, the cut one included.
    frames: usize,
    draining: bool,
    fell_behind: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The close frame is the last of the backlog.
    Closing,
    /// Everything is written, or the socket failed.
    Closed,
}

/// Whole frames, of which a part may be written.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    written: usize,
    frames: usize,
}

impl Outbound {
    /// The writing side of `stream`, with [`MAX_BACKLOG_BYTES`] and [`MAX_BACKLOG_FRAMES`].
    #[must_use]
    pub fn new(stream: Arc<TcpStream>) -> Arc<Self> {
        Self::bounded(stream, MAX_BACKLOG_BYTES, MAX_BACKLOG_FRAMES)
    }

    pub(crate) fn bounded(
        stream: Arc<TcpStream>,
        max_bytes: usize,
        max_frames: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream,
            state: Mutex::default(),
            ended: Notify::new(),
            heard: AtomicBool::new(false),
            max_bytes,
            max_frames,
        })
    }

    /// Writes `bytes[from..]`, which are `frames` whole frames. Copies nothing: what cannot be
    /// written now is kept as a reference to `bytes`.
    pub fn send(self: &Arc<Self>, bytes: &Bytes, from: usize, frames: usize) -> Sent {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Closed => return Sent::Gone,
        }
        let mut written = 0;
        if state.backlog.is_empty() {
            match self.stream.try_write(&bytes[from..]) {
                Ok(len) if len == bytes.len() - from => return Sent::Written,
                Ok(len) => written = len,
                Err(error) if is_passing(error.kind()) => {}
                Err(_) => {
                    self.fail(&mut state);
                    return Sent::Gone;
                }
            }
        }
        state.push(Chunk { bytes: bytes.slice(from..), written, frames });
        let too_slow = state.bytes > self.max_bytes || state.frames > self.max_frames;
        if too_slow {
            state.drop_whole_frames();
            state.fell_behind = true;
            self.close_locked(&mut state, CloseCode::TooSlow);
        }
        self.drain_locked(&mut state);
        if too_slow { Sent::Gone } else { Sent::Waiting }
    }

    /// Writes one text frame.
    pub fn send_text(self: &Arc<Self>, payload: &[u8]) -> Sent {
        self.send(&ws::text(payload), 0, 1)
    }

    pub(crate) fn ping(self: &Arc<Self>) -> Sent {
        self.send(&ws::ping(), 0, 1)
    }

    /// Ends the stream with a close frame, after everything that was accepted before.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode) {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {
                self.close_locked(&mut state, code);
                self.drain_locked(&mut state);
            }
            Phase::Closing | Phase::Closed => {}
        }
    }

    /// Gives the socket up, whatever waits.
    pub(crate) fn abort(&self) {
        self.fail(&mut self.state.lock());
        self.shutdown(Shutdown::Both);
    }

    /// Waits until nothing more is accepted. For one waiter: the socket's reader.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Notes that the client sent something.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the client sent something since the last call.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    fn close_locked(&self, state: &mut State, code: CloseCode) {
        state.push(Chunk { bytes: ws::close(code), written: 0, frames: 1 });
        state.phase = Phase::Closing;
        self.ended.notify_one();
    }

    fn fail(&self, state: &mut State) {
        state.phase = Phase::Closed;
        state.backlog.clear();
        (state.bytes, state.frames) = (0, 0);
        self.ended.notify_one();
    }

    /// Writes what can be written, and leaves the rest to a task.
    fn drain_locked(self: &Arc<Self>, state: &mut State) {
        self.write_backlog(state);
        if !state.backlog.is_empty() && !state.draining {
            state.draining = true;
            tokio::spawn(Arc::clone(self).drain());
        }
    }

    async fn drain(self: Arc<Self>) {
        loop {
            let writable = self.stream.writable().await;
            let mut state = self.state.lock();
            if writable.is_err() {
                self.fail(&mut state);
            }
            self.write_backlog(&mut state);
            if state.backlog.is_empty() {
                state.draining = false;
                return;
            }
        }
    }

    fn write_backlog(&self, state: &mut State) {
        while let Some(chunk) = state.backlog.front_mut() {
            let rest = &chunk.bytes[chunk.written..];
            match self.stream.try_write(rest) {
                Ok(0) if !rest.is_empty() => return self.fail(state),
                Ok(len) => {
                    chunk.written += len;
                    state.bytes -= len;
                    if chunk.written == chunk.bytes.len() {
                        state.frames -= chunk.frames;
                        state.backlog.pop_front();
                    }
                }
                Err(error) if is_passing(error.kind()) => return,
                Err(_) => return self.fail(state),
            }
        }
        match state.phase {
            Phase::Closing => {
                state.phase = Phase::Closed;
                self.shutdown(Shutdown::Write);
            }
            Phase::Open | Phase::Closed => {}
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // The stream is shared, so it is shut down through a second handle to the same socket.
        if let Ok(socket) = self.stream.as_fd().try_clone_to_owned() {
            let _ = std::net::TcpStream::from(socket).shutdown(how);
        }
    }

    /// Whether the client was closed for not keeping up.
    pub(crate) fn fell_behind(&self) -> bool {
        self.state.lock().fell_behind
    }

    /// What waits for the client: bytes and frames.
    pub fn backlog(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.bytes, state.frames)
    }
}

impl State {
    fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.bytes.len() - chunk.written;
        self.frames += chunk.frames;
        self.backlog.push_back(chunk);
    }

    /// Drops every frame of which nothing is written, so that a close frame can follow at once.
    fn drop_whole_frames(&mut self) {
        let cut = self.backlog.pop_front();
        self.backlog.clear();
        (self.bytes, self.frames) = (0, 0);
        if let Some(Chunk { bytes, written, .. }) = cut {
            let end = ws::boundary(&bytes, written);
            if end > written {
                self.push(Chunk { bytes: bytes.slice(..end), written, frames: 1 });
            }
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "tests/outbound.rs"]
mod tests;
