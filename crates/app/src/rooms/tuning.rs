//! The limits and periods of rooms, by name.

use std::time::Duration;

use convene_model::limits::MAX_CONNS_PER_UPSTREAM;

/// Commands over HTTP that wait in one room; beyond it they are refused as overloaded.
pub const MAX_WAITING_COMMANDS: usize = 500;
/// Sockets of one room in this process; beyond it an upgrade is refused as overloaded.
pub const MAX_SOCKETS_PER_ROOM: usize = MAX_CONNS_PER_UPSTREAM - MAX_WAITING_COMMANDS;
/// Bytes that may wait for one slow client; beyond it the socket is closed with 4008. More than a
/// replay of the usual length, since a replay is written at once.
pub const MAX_BACKLOG_BYTES: usize = 1024 * 1024;
/// Frames that may wait for one slow client; more than a whole replay.
pub const MAX_BACKLOG_FRAMES: usize = 2048;
/// Commands of one client that are not answered yet; beyond it commands are refused as overloaded.
pub const MAX_UNANSWERED: usize = 256;
/// Frames of one client that wait for its attach; beyond it they are refused as overloaded.
pub const MAX_QUEUED_FRAMES: usize = 64;
/// Commands that wait for one room; a full queue makes the sockets' readers wait.
pub const ROOM_QUEUE: usize = 1024;
/// Frames that are joined into one write at most.
pub const MAX_BATCH: usize = 256;
/// Messages that a room keeps until they are recorded; beyond it they are read again from the
/// group's history.
pub const MAX_KEPT_SAID: usize = 512;
/// Bytes of their texts.
pub const MAX_KEPT_BYTES: usize = 256 * 1024;
/// The latest messages whose numbers a room knows, so that marks need no look-up.
pub const MAX_RECENT: usize = 256;
/// Missed messages that are read again; of older ones the mentions are not counted.
pub const MAX_CAUGHT_UP: usize = 10_000;
/// The pause between two writes of a room to the workspace.
pub const RECORD_PAUSE: Duration = Duration::from_millis(250);
/// Rendered messages that a room keeps for replays.
pub const MAX_FRAGMENTS: usize = 256;
/// Bytes of rendered messages that a room keeps for replays.
pub const MAX_FRAGMENT_BYTES: usize = 512 * 1024;
/// Routing tokens kept in this process.
pub const MAX_CACHED_TOKENS: u64 = 100_000;
/// Routing tokens that are asked for at the same time, so that a storm of re-attaching clients
/// does not become one of requests.
pub const TOKENS_AT_ONCE: usize = 32;
/// How long before its expiry a routing token is no longer handed out, and a connection renews.
pub const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Tokens count in whole seconds: one that was issued in the second of a revocation is refused, so
/// the next attempt waits until that second has passed.
pub const AFTER_REVOCATION: Duration = Duration::from_millis(1100);
/// How often an attach is tried with a new token after a withdrawal: for longer than the clocks of
/// two Orchestrators may differ, since one may have recorded the instant and the other mint.
pub const MAX_REVOKED_TRIES: u32 = 6;
/// How long a room without sockets keeps its upstream.
pub const IDLE_AFTER: Duration = Duration::from_secs(30);
/// How often a room looks for connections to renew.
pub const TICK: Duration = Duration::from_secs(5);
/// How often a client is pinged when nothing else is configured.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may then be silent, pongs included, before it counts as gone.
pub const SILENT_FOR: Duration = Duration::from_secs(75);
/// How long a closing socket waits for the client to read what was written and to close.
pub const CLOSE_LINGER: Duration = Duration::from_secs(5);
/// The pause before the second attempt to open a lost upstream; the first is made at once.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// The longest pause between attempts to open a lost upstream.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a command over HTTP waits for the group's answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for commands that are under way.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever changed what a group is waits until the group knows.
pub const TELL_PATIENCE: Duration = Duration::from_secs(5);
/// How often a group is told of a change that it did not take; it is also told whenever its upstream
/// is opened.
pub const TELL_ATTEMPTS: u32 = 20;
/// How long a revocation is tried before it is given up; the role is asked for again at each
/// renewal, so that a token's lifetime bounds what a lost revocation can do.
pub const REVOKE_ATTEMPTS: u32 = 20;

/// The values that tests change.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    pub(crate) max_sockets: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_backlog_bytes: usize,
    pub(crate) max_backlog_frames: usize,
    pub(crate) idle_after: Duration,
    pub(crate) tick: Duration,
    pub(crate) ping_every: Duration,
    pub(crate) silent_for: Duration,
    pub(crate) reconnect_first: Duration,
    pub(crate) after_revocation: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) record_pause: Duration,
    pub(crate) tell_patience: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            max_sockets: MAX_SOCKETS_PER_ROOM,
            max_waiting: MAX_WAITING_COMMANDS,
            max_backlog_bytes: MAX_BACKLOG_BYTES,
            max_backlog_frames: MAX_BACKLOG_FRAMES,
            idle_after: IDLE_AFTER,
            tick: TICK,
            ping_every: PING_EVERY,
            silent_for: SILENT_FOR,
            reconnect_first: RECONNECT_FIRST,
            after_revocation: AFTER_REVOCATION,
            answer_timeout: ANSWER_TIMEOUT,
            record_pause: RECORD_PAUSE,
            tell_patience: TELL_PATIENCE,
        }
    }
}
