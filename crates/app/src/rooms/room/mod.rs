//! One group's sockets in this process and the upstream that they share.
//!
//! A room is one task that owns everything: nothing here is locked, and nothing here waits for
//! anything but its own events. Calls to the Orchestrator run beside it and report back.

mod answers;
mod conn;
mod recorder;
mod upstream;
mod waiting;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use convene_hop::GroupLink;
use convene_model::{
    Code, ConnId, GroupId, HistoryId, Problem, Ref, Timestamp, UserId,
    frame::{ClientFrame, GroupFrame, Render},
    infra::RoutingToken,
    trace::TraceParent,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior},
};

use self::{
    conn::Conn,
    recorder::{Recorded, Recorder},
    waiting::{Reply, Waiting},
};
use super::{
    GroupCommand,
    fanout::Fanout,
    figures::Gauged,
    outbound::Outbound,
    shared::Shared,
    tuning::{MAX_BATCH, SHUTDOWN_PATIENCE},
    ws::CloseCode,
};

/// Who is behind a socket.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// The user, or the agent as one.
    pub(crate) user: UserId,
    /// Whether it is an agent's own process.
    pub(crate) is_agent: bool,
}

/// What is asked of a room.
#[derive(Debug)]
pub(crate) enum Command {
    /// A socket was opened.
    Join { conn: ConnId, who: Who, outbound: Arc<Outbound> },
    /// A client sent a frame; `raw` are its bytes from the opening brace on.
    Frame { conn: ConnId, frame: ClientFrame, raw: Bytes },
    /// A socket ended.
    Leave { conn: ConnId },
    /// A command over HTTP.
    Ask { user: UserId, command: GroupCommand, trace: Option<TraceParent>, reply: Reply },
    /// A user lost access.
    DropUser { user: UserId },
    /// The process stops.
    Stop,
}

/// A room of this process.
pub(crate) struct Room {
    group: GroupId,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    upstream: Upstream,
    /// Attempts to open the upstream since it was last up for a while.
    attempts: u32,
    /// The numbering of the group's events.
    history: Option<HistoryId>,
    fanout: Fanout,
    conns: HashMap<ConnId, Conn>,
    waiting: HashMap<ConnId, Waiting>,
    next_waiting: u64,
    recorder: Recorder,
    /// Whether the workspace was told that the group is on its way into the archive.
    is_frozen: bool,
    tasks: JoinSet<Done>,
    ticker: Interval,
    idle_since: Option<Instant>,
    stop_at: Option<Instant>,
}

/// The room's way to the group.
enum Upstream {
    Closed,
    /// A task is opening it, or waits to do so.
    Opening,
    Open(GroupLink, #[expect(dead_code, reason = "counts while it lives")] Gauged),
}

/// What a task beside the room reports.
enum Done {
    Opened(Result<GroupLink, Problem>),
    ReopenNow,
    Token {
        conn: ConnId,
        result: Result<Option<RoutingToken>, Problem>,
    },
    AttachNow {
        conn: ConnId,
    },
    RecordNow,
    Recorded(Recorded),
    /// The workspace was told where the group stands.
    Noted,
}

enum Happening {
    /// This many frames came; none means that the upstream is lost.
    Frames(usize),
    /// `None` when nobody can reach the room any more.
    Command(Option<Command>),
    Done(Result<Done, JoinError>),
    Tick,
}

impl Room {
    pub(crate) fn new(
        group: GroupId,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let mut ticker = tokio::time::interval(shared.tuning.tick);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            group,
            commands,
            upstream: Upstream::Closed,
            attempts: 0,
            history: None,
            fanout: Fanout::new(shared.config.render),
            conns: HashMap::new(),
            waiting: HashMap::new(),
            next_waiting: 1,
            recorder: Recorder::default(),
            is_frozen: false,
            tasks: JoinSet::new(),
            ticker,
            idle_since: None,
            stop_at: None,
            shared,
        }
    }

    /// Lives until nobody needs the room or the process stops.
    pub(crate) async fn run(mut self) {
        let mut frames = Vec::new();
        loop {
            match self.happening(&mut frames).await {
                Happening::Frames(0) => self.upstream_lost(),
                Happening::Frames(_) => self.fan_out(&mut frames),
                Happening::Command(Some(command)) => self.command(command),
                Happening::Command(None) => return,
                Happening::Done(Ok(done)) => self.done(done),
                Happening::Done(Err(error)) => self.task_failed(&error),
                Happening::Tick => self.tick(),
            }
            if self.is_over() {
                return;
            }
        }
    }

    async fn happening(&mut self, frames: &mut Vec<Bytes>) -> Happening {
        let Self { upstream, commands, tasks, ticker, .. } = self;
        tokio::select! {
            count = receive(upstream, frames) => Happening::Frames(count),
            command = commands.recv() => Happening::Command(command),
            Some(done) = tasks.join_next() => Happening::Done(done),
            _ = ticker.tick() => Happening::Tick,
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join { conn, who, outbound } => self.join(conn, who, outbound),
            Command::Frame { conn, frame, raw } => self.client_frame(&conn, frame, raw),
            Command::Leave { conn } => self.remove(&conn),
            Command::Ask { user, command, trace, reply } => self.ask(user, command, trace, reply),
            Command::DropUser { user } => self.drop_user(&user),
            Command::Stop => self.stop(),
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Opened(Ok(link)) => self.opened(link),
            Done::Opened(Err(problem)) => self.not_opened(&problem),
            Done::ReopenNow => {
                self.upstream = Upstream::Closed;
                self.open_if_needed();
            }
            Done::Token { conn, result } if self.waiting.contains_key(&conn) => {
                self.waiting_token(&conn, result);
            }
            Done::Token { conn, result } => self.attach_token(&conn, result),
            Done::AttachNow { conn } => self.attach_now(&conn),
            Done::RecordNow => self.record_now(),
            Done::Recorded(recorded) => self.recorded(recorded),
            Done::Noted => {}
        }
    }

    /// A task of ours panicked: nobody can say what it was about, so everybody starts anew.
    fn task_failed(&mut self, error: &JoinError) {
        tracing::error!(group = %self.group, %error, "a room's task failed");
        self.close_all(CloseCode::Restart);
        self.upstream = Upstream::Closed;
        self.waiting.clear();
        self.recorder = Recorder::default();
    }

    fn tick(&mut self) {
        if matches!(self.upstream, Upstream::Open(..)) {
            self.attempts = 0;
        }
        self.renew_due();
        self.forget_abandoned();
    }

    fn is_over(&mut self) -> bool {
        if let Some(stop_at) = self.stop_at {
            let done = self.waiting.is_empty() && !self.recorder.has_writes();
            return done || Instant::now() >= stop_at;
        }
        let needed = !self.conns.is_empty() || !self.waiting.is_empty();
        if needed || self.recorder.has_work() {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        since.elapsed() >= self.shared.tuning.idle_after && self.shared.retire(&self.group)
    }

    fn stop(&mut self) {
        self.close_all(CloseCode::GoingAway);
        self.stop_at = Some(Instant::now() + SHUTDOWN_PATIENCE);
    }

    fn close_all(&mut self, code: CloseCode) {
        for (conn, state) in self.conns.drain() {
            state.outbound.close(code);
            self.fanout.leave(&conn);
        }
    }

    /// Sends a frame to the group without waiting.
    fn send_up(&self, frame: Bytes) -> Result<(), Code> {
        let Upstream::Open(link, _) = &self.upstream else { return Err(Code::Unavailable) };
        link.tx.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Code::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Code::Unavailable,
        })
    }
}

async fn receive(upstream: &mut Upstream, frames: &mut Vec<Bytes>) -> usize {
    match upstream {
        // A dropped half is a closed link; what came before is still read.
        Upstream::Open(link, _) => tokio::select! {
            biased;
            count = link.rx.recv_many(frames, MAX_BATCH) => count,
            () = link.tx.closed() => 0,
        },
        Upstream::Closed | Upstream::Opening => std::future::pending().await,
    }
}

/// An error for one client.
fn error_frame(r#ref: Option<Ref>, code: Code, detail: Option<String>) -> Bytes {
    let retry_after_ms = passes(code).then_some(1000);
    GroupFrame::Error { r#ref, code, detail, retry_after_ms, start: None }.encode()
}

/// What another hop refused, with the time that it names.
fn problem_frame(r#ref: Option<Ref>, problem: &Problem, now: Timestamp) -> Bytes {
    let Problem { code, detail, extra, .. } = problem;
    let figure = |name: &str| extra.get(name).and_then(serde_json::Value::as_u64);
    let until = figure("resets_at").map(|at| at.saturating_sub(now.millis()));
    let retry_after_ms = figure("retry_after_ms").or(until).or(passes(*code).then_some(1000));
    let (code, detail) = (*code, detail.clone());
    GroupFrame::Error { r#ref, code, detail, retry_after_ms, start: None }.encode()
}

/// Whether the same may go well in a moment.
const fn passes(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::Unavailable | Code::GroupControllerUnavailable)
}

/// Whether a client wants HTML.
fn wants_html(render: Option<Render>) -> bool {
    match render {
        Some(Render::Html) => true,
        None => false,
    }
}
