//! How full the queues of rooms are, and what was refused or dropped because of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{shared::Shared, tuning::ROOM_QUEUE};

/// Figures of the rooms of one process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Open client sockets.
    pub sockets: usize,
    /// Groups with a room here.
    pub rooms: usize,
    /// Open upstreams.
    pub upstreams: usize,
    /// Bytes that wait for clients that do not keep up.
    pub backlog_bytes: usize,
    /// Frames of them.
    pub backlog_frames: usize,
    /// Bytes that wait for the client with the most of them, at most
    /// [`super::tuning::MAX_BACKLOG_BYTES`].
    pub fullest_backlog_bytes: usize,
    /// Frames that wait for the client with the most of them, at most
    /// [`super::tuning::MAX_BACKLOG_FRAMES`].
    pub fullest_backlog_frames: usize,
    /// Frames and commands in the rooms' own queues.
    pub queued_commands: usize,
    /// Those of the fullest room, at most [`super::tuning::ROOM_QUEUE`].
    pub fullest_queue: usize,
    /// Commands over HTTP that wait for their answer.
    pub waiting_commands: usize,
    /// Sockets that were closed with 4008 since the process began.
    pub closed_as_too_slow: u64,
    /// Frames, commands and sockets that were refused as overloaded since the process began.
    pub refused_as_overloaded: u64,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) upstreams: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    too_slow: AtomicU64,
    overloaded: AtomicU64,
}

impl Counters {
    pub(super) fn too_slow(&self) {
        self.too_slow.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn overloaded(&self) {
        self.overloaded.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn figures(&self) -> Figures {
        let backlog = self.doors.backlog();
        let rooms = self.all_rooms();
        let queued = || rooms.iter().map(|room| ROOM_QUEUE - room.commands.capacity());
        Figures {
            sockets: self.doors.count(),
            rooms: rooms.len(),
            upstreams: self.counters.upstreams.load(Ordering::Relaxed),
            backlog_bytes: backlog.total.0,
            backlog_frames: backlog.total.1,
            fullest_backlog_bytes: backlog.fullest.0,
            fullest_backlog_frames: backlog.fullest.1,
            queued_commands: queued().sum(),
            fullest_queue: queued().max().unwrap_or(0),
            waiting_commands: self.counters.waiting.load(Ordering::Relaxed),
            closed_as_too_slow: self.counters.too_slow.load(Ordering::Relaxed),
            refused_as_overloaded: self.counters.overloaded.load(Ordering::Relaxed),
        }
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub(super) struct Gauged(std::sync::Arc<Shared>, fn(&Counters) -> &AtomicUsize);

impl Gauged {
    pub(super) fn new(
        shared: &std::sync::Arc<Shared>,
        gauge: fn(&Counters) -> &AtomicUsize,
    ) -> Self {
        gauge(&shared.counters).fetch_add(1, Ordering::Relaxed);
        Self(std::sync::Arc::clone(shared), gauge)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        (self.1)(&self.0.counters).fetch_sub(1, Ordering::Relaxed);
    }
}
