//! What a room records in the workspace: where its group's messages end, whom they mention, what
//! people have read.
//!
//! Everything that comes while one write is under way goes out with the next, so a busy group costs
//! a few writes a second. What was missed (an upstream that was down, a write that failed, more
//! than can be kept) is read again from the group's history, so what is recorded has no gaps.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use convene_model::{
    Code, ConnId, GroupId, HistoryId, ParticipantId, Problem, Ref, RunId, Timestamp, UserId,
    event::{Author, Candidate, Decision},
    frame::{GroupFrame, RunView},
    history::{HistoryQuery, Message, RawHistoryPage},
    limits::MAX_PAGE,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Done, Room, error_frame};
use crate::rooms::{
    Mark, NO_HISTORY, Records, Said,
    html::event_kind,
    reading::messages,
    shared::{Shared, jittered},
    tuning::{
        MAX_CAUGHT_UP, MAX_KEPT_BYTES, MAX_KEPT_SAID, MAX_RECENT, MAX_UNANSWERED, RECONNECT_MAX,
    },
};

/// Users by whose right history is read, one after the other.
const MAX_READERS: usize = 3;
/// Messages of the first page that is read again.
const FIRST_PAGE: usize = 20;

/// What waits to be recorded.
#[derive(Default)]
pub(super) struct Recorder {
    said: Vec<Said>,
    said_bytes: usize,
    unsaid: Vec<u64>,
    reads: HashMap<UserId, Waiting>,
    /// The latest messages, oldest first and without a gap: event numbers and message numbers.
    recent: VecDeque<(u64, u64)>,
    /// Whether what was missed has to be read from the history first.
    missed: bool,
    /// The numbering of `said`, once it is known.
    history: Option<HistoryId>,
    /// Runs that have not ended, as far as was heard: their replies are still to be recorded.
    runs: HashSet<RunId>,
    /// Users who were here lately, by whose right history is read.
    readers: VecDeque<UserId>,
    busy: Busy,
    not_before: Option<Instant>,
    failures: u32,
}

/// What the recorder does at the moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// Nothing.
    #[default]
    No,
    /// It waits before the next write.
    Pausing,
    /// It writes.
    Writing,
}

/// A user's mark that is not recorded yet.
#[derive(Default)]
struct Waiting {
    up_to: u64,
    asked: Vec<(ConnId, Ref)>,
}

/// One write, handed to a task.
struct Write {
    said: Vec<Said>,
    unsaid: Vec<u64>,
    marks: Vec<Mark>,
    /// Marks whose message number has to be looked up.
    unknown: Vec<(UserId, u64)>,
    missed: bool,
    history: Option<HistoryId>,
    /// Users by whose right history is read.
    readers: Vec<UserId>,
}

/// What became of a write.
pub(super) struct Recorded {
    result: Result<Option<HistoryId>, Problem>,
    asked: Vec<(ConnId, Ref)>,
}

/// An event, as much of it as counts.
#[derive(Deserialize)]
#[serde(tag = "kind")]
enum Heard {
    #[serde(rename = "message.posted")]
    Posted {
        seq: u64,
        at: Timestamp,
        nth: u64,
        author: Author,
        #[serde(default)]
        mentions: Vec<ParticipantId>,
        text: String,
    },
    #[serde(rename = "message.deleted")]
    Deleted { message_seq: u64 },
    #[serde(rename = "trigger.decided")]
    Decided { candidates: Vec<Candidate> },
    #[serde(rename = "run.finished")]
    Finished { run_id: RunId },
}

impl Recorder {
    /// Takes a broadcast in.
    pub(super) fn hear(&mut self, frame: &Bytes) {
        if !event_kind(frame).is_some_and(counts) {
            return;
        }
        let Ok(heard) = serde_json::from_slice::<Heard>(frame) else { return };
        match heard {
            Heard::Posted { seq, at, nth, author, mentions, text } => {
                self.said(Said { seq, nth, at, author, mentions, text: only_with_at(text) });
            }
            Heard::Deleted { message_seq } => {
                // Beyond it a mention of what was taken back stays until it is read.
                if self.unsaid.len() < MAX_KEPT_SAID {
                    self.unsaid.push(message_seq);
                }
            }
            Heard::Decided { candidates } => {
                let begun =
                    candidates.into_iter().filter_map(|candidate| match candidate.decision {
                        Decision::Accepted { run_id, .. } => Some(run_id),
                        Decision::Suppressed { .. } => None,
                    });
                self.runs.extend(begun);
            }
            Heard::Finished { run_id } => drop(self.runs.remove(&run_id)),
        }
    }

    /// Takes in what an attach said of the group.
    pub(super) fn attached(&mut self, history: &HistoryId, runs: Vec<RunView>) {
        if self.history.as_ref().is_some_and(|known| known != history) {
            self.history = None;
            self.missed();
        }
        self.runs = runs.into_iter().map(|run| run.run_id).collect();
    }

    /// Somebody is here who may read the group.
    pub(super) fn seen(&mut self, user: &UserId) {
        self.readers.retain(|reader| reader != user);
        self.readers.push_front(user.clone());
        self.readers.truncate(MAX_READERS);
    }

    fn said(&mut self, said: Said) {
        if self.recent.back().is_some_and(|(_, nth)| nth + 1 != said.nth) {
            self.recent.clear();
        }
        self.recent.push_back((said.seq, said.nth));
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        let follows = self.said.last().is_none_or(|last| last.nth + 1 == said.nth);
        let fits =
            self.said.len() < MAX_KEPT_SAID && self.said_bytes + said.text.len() <= MAX_KEPT_BYTES;
        if follows && fits {
            self.said_bytes += said.text.len();
            self.said.push(said);
        } else {
            // All of it is in the history.
            self.said.clear();
            self.said_bytes = 0;
            self.missed = true;
        }
    }

    /// Something may have been said that was not heard.
    pub(super) fn missed(&mut self) {
        self.missed = true;
        self.recent.clear();
        self.runs.clear();
    }

    fn read(&mut self, user: UserId, up_to: u64, conn: ConnId, r#ref: Ref) {
        let waiting = self.reads.entry(user).or_default();
        waiting.up_to = waiting.up_to.max(up_to);
        waiting.asked.push((conn, r#ref));
    }

    /// How many messages there are up to an event, if the latest ones say.
    fn nth_of(&self, up_to: u64, last_seq: u64) -> Option<u64> {
        let before = self.recent.partition_point(|(seq, _)| *seq <= up_to);
        let (_, nth) = *self.recent.get(before.checked_sub(1)?)?;
        (up_to <= last_seq).then_some(nth)
    }

    fn is_empty(&self) -> bool {
        self.said.is_empty() && self.unsaid.is_empty() && self.reads.is_empty() && !self.missed
    }

    /// Whether something is still to be written.
    pub(super) fn has_writes(&self) -> bool {
        !self.said.is_empty() || !self.reads.is_empty() || self.busy == Busy::Writing
    }

    /// Whether the room must stay until something is written.
    pub(super) fn has_work(&self) -> bool {
        self.has_writes() || !self.runs.is_empty()
    }
}

impl Room {
    /// A client has read up to an event.
    pub(super) fn read(&mut self, conn: &ConnId, r#ref: Ref, up_to: u64) {
        let Some(state) = self.conns.get_mut(conn) else { return };
        if state.reads >= MAX_UNANSWERED {
            self.shared.counters.overloaded();
            state.outbound.send_text(&error_frame(Some(r#ref), Code::Overloaded, None));
            return;
        }
        state.reads += 1;
        let user = state.user.clone();
        self.recorder.read(user, up_to, conn.clone(), r#ref);
        self.record();
    }

    /// Writes what waits, unless a write is under way or was a moment ago.
    pub(super) fn record(&mut self) {
        let recorder = &mut self.recorder;
        if recorder.busy != Busy::No || recorder.is_empty() {
            return;
        }
        let now = Instant::now();
        if let Some(at) = recorder.not_before.filter(|at| *at > now) {
            recorder.busy = Busy::Pausing;
            self.tasks.spawn(async move {
                tokio::time::sleep_until(at).await;
                Done::RecordNow
            });
            return;
        }
        recorder.busy = Busy::Writing;
        recorder.not_before = Some(now + self.shared.tuning.record_pause);
        let last_seq = self.fanout.last_seq();
        let (mut marks, mut unknown, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for (user, waiting) in std::mem::take(&mut recorder.reads) {
            match recorder.nth_of(waiting.up_to, last_seq) {
                Some(nth) => marks.push(Mark { user, up_to: waiting.up_to, nth }),
                None => unknown.push((user, waiting.up_to)),
            }
            asked.extend(waiting.asked);
        }
        recorder.said_bytes = 0;
        let write = Write {
            said: std::mem::take(&mut recorder.said),
            unsaid: std::mem::take(&mut recorder.unsaid),
            marks,
            unknown,
            missed: std::mem::take(&mut recorder.missed) || recorder.history.is_none(),
            history: recorder.history.clone(),
            readers: recorder.readers.iter().cloned().collect(),
        };
        let (shared, group) = (Arc::clone(&self.shared), self.group.clone());
        self.tasks.spawn(async move {
            let result = write.carry_out(&shared, &group).await;
            Done::Recorded(Recorded { result, asked })
        });
    }

    pub(super) fn record_now(&mut self) {
        self.recorder.busy = Busy::No;
        self.record();
    }

    pub(super) fn recorded(&mut self, recorded: Recorded) {
        let Recorded { result, asked } = recorded;
        let recorder = &mut self.recorder;
        recorder.busy = Busy::No;
        let held = match result {
            Ok(history) => {
                recorder.failures = 0;
                recorder.history = history;
                true
            }
            Err(problem) => {
                tracing::warn!(
                    group = %self.group, code = problem.code.as_str(), detail = problem.detail,
                    "what was said and read could not be recorded; it is tried again"
                );
                recorder.failures += 1;
                recorder.missed = true;
                let doublings = recorder.failures.min(16);
                let pause = self.shared.tuning.reconnect_first * 2_u32.saturating_pow(doublings);
                recorder.not_before = Some(Instant::now() + jittered(pause.min(RECONNECT_MAX)));
                false
            }
        };
        for (conn, r#ref) in asked {
            let Some(state) = self.conns.get_mut(&conn) else { continue };
            state.reads -= 1;
            let frame = match held {
                true => GroupFrame::Ok { r#ref, seq: None, message_id: None }.encode(),
                false => error_frame(Some(r#ref), Code::Unavailable, None),
            };
            state.outbound.send_text(&frame);
        }
        self.record();
    }
}

impl Write {
    async fn carry_out(
        mut self,
        shared: &Shared,
        group: &GroupId,
    ) -> Result<Option<HistoryId>, Problem> {
        for (user, up_to) in std::mem::take(&mut self.unknown) {
            if let Some(mark) = shared.look_up(group, user, up_to).await? {
                self.marks.push(mark);
            }
        }
        let port = &shared.config.groups;
        // A second time only where another process has written other things in between.
        for _ in 0..2 {
            if self.missed {
                self.catch_up(shared, group).await?;
            }
            let Some(history) = self.history.clone() else { return Ok(None) };
            let records = Records {
                history,
                said: self.said.clone(),
                unsaid: self.unsaid.clone(),
                read: self.marks.clone(),
                jump: false,
            };
            let stands = port.record(group, records).await?;
            let last = self.said.last().map_or(0, |said| said.nth);
            if stands.is_some_and(|head| head.nth >= last) || last == 0 {
                return Ok(self.history);
            }
            self.missed = true;
        }
        Err(Problem::new(Code::Conflict).detail("the messages before these are not recorded"))
    }

    /// Records what the history has after what is recorded.
    async fn catch_up(&mut self, shared: &Shared, group: &GroupId) -> Result<(), Problem> {
        let port = &shared.config.groups;
        let stored = port.head(group).await?;
        let mut said: VecDeque<Said> = VecDeque::new();
        let mut unsaid = Vec::new();
        let mut before = None;
        let mut jump = false;
        let history = loop {
            // Mostly nothing was missed.
            let limit = if before.is_none() { FIRST_PAGE } else { MAX_PAGE };
            let query = HistoryQuery { before, limit: Some(limit), ..HistoryQuery::default() };
            let page = self.page(shared, group, query).await?;
            let known = stored.as_ref().filter(|head| head.history == page.history);
            jump |= stored.is_some() && known.is_none();
            let done = known.map_or(0, |head| head.nth);
            let messages = messages(group, &page)?;
            before = messages.first().map(|message| message.seq);
            let reached = messages.first().is_none_or(|message| message.posted.nth <= done + 1);
            for message in messages.into_iter().rev().filter(|m| m.posted.nth > done) {
                if message.deleted {
                    unsaid.push(message.seq);
                }
                said.push_front(said_of(message));
            }
            if reached {
                break page.history;
            }
            if said.len() >= MAX_CAUGHT_UP {
                jump = true;
                break page.history;
            }
        };
        if history.as_str() == NO_HISTORY {
            return Ok(());
        }
        self.said.retain(|live| said.back().is_none_or(|last| live.nth > last.nth));
        self.history = Some(history.clone());
        if !said.is_empty() || jump {
            let (said, read) = (said.into(), Vec::new());
            port.record(group, Records { history, said, unsaid, read, jump }).await?;
        }
        self.missed = false;
        Ok(())
    }

    /// A page of history, by the right of whoever has it.
    async fn page(
        &self,
        shared: &Shared,
        group: &GroupId,
        query: HistoryQuery,
    ) -> Result<RawHistoryPage, Problem> {
        let mut refusal = Problem::new(Code::Forbidden);
        for user in &self.readers {
            match shared.history(group, user, query).await {
                Err(problem) if problem.code == Code::Forbidden => refusal = problem,
                answer => return answer,
            }
        }
        Err(refusal)
    }
}

/// What a message counts as; one that was taken back mentions nobody.
fn said_of(message: Message) -> Said {
    let Message { seq, at, posted, deleted, .. } = message;
    let mentions = if deleted { Vec::new() } else { posted.mentions };
    let (nth, author) = (posted.nth, posted.author);
    Said { seq, nth, at, author, mentions, text: only_with_at(posted.text) }
}

/// Whether a kind of event moves what is recorded.
fn counts(kind: &[u8]) -> bool {
    [&b"message.posted"[..], b"message.deleted", b"trigger.decided", b"run.finished"]
        .contains(&kind)
}

fn only_with_at(text: String) -> String {
    if text.contains('@') { text } else { String::new() }
}
