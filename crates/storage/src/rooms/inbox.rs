//! What the committer hands to the projector.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    journal::files::RetiredFile,
    pending::Committed,
    store::options::{PROJECTOR_BATCH_EVENTS, PROJECTOR_LINGER_MS},
};

/// How often the projector looks around when nothing happens.
const IDLE_PERIOD: Duration = Duration::from_secs(5);

/// How long nothing must happen before a few messages are brought into the search index.
const INDEX_PAUSE: Duration = Duration::from_millis(500);

/// Committed batches and retired files, in order. Unbounded: the bound is on the overlay, which
/// holds the same batches.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    committed: VecDeque<Committed>,
    events: usize,
    retired: Vec<RetiredFile>,
    stop: Option<Stop>,
    /// Whether somebody waits for the search index.
    hurry: bool,
    /// While it is set, nothing is brought into the index.
    #[cfg(test)]
    holds_index: bool,
    /// While it is set, only so many events may still be taken.
    #[cfg(test)]
    allowance: Option<usize>,
}

/// How the projector ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// When everything is carried over.
    WhenEmpty,
    /// At once; the rest is carried over when the store is opened again.
    Now,
}

/// How much the projector could do for the search index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// Nothing.
    None,
    /// So little that it waits for a quiet moment.
    Little,
    /// Enough for a slice.
    Much,
}

/// What the projector does next.
pub(crate) enum Next {
    /// Bring a slice into the search index, as nothing waits to be carried over.
    Index,
    /// Carry these over.
    Project(Vec<Committed>),
    /// Nothing waits.
    Idle,
    /// End.
    Stop,
}

impl Inbox {
    /// Adds what the committer wrote.
    pub(crate) fn push(&self, committed: Vec<Committed>) {
        let mut state = self.state.lock();
        let before = state.events;
        state.events += events(&committed);
        state.committed.extend(committed);
        // A busy committer fills a batch without waking the projector at each commit.
        if before == 0
            || (before < PROJECTOR_BATCH_EVENTS && state.events >= PROJECTOR_BATCH_EVENTS)
        {
            self.filled.notify_all();
        }
    }

    /// Adds a file that is written no more.
    pub(crate) fn retire(&self, file: RetiredFile) {
        self.state.lock().retired.push(file);
    }

    /// The files that were retired since the last call.
    pub(crate) fn take_retired(&self) -> Vec<RetiredFile> {
        std::mem::take(&mut self.state.lock().retired)
    }

    /// Ends the projector; what was said first stays.
    pub(crate) fn stop(&self, stop: Stop) {
        self.state.lock().stop.get_or_insert(stop);
        self.filled.notify_all();
    }

    /// Whether the projector is to end at once.
    pub(crate) fn is_stopping_now(&self) -> bool {
        self.state.lock().stop == Some(Stop::Now)
    }

    /// Whether the projector is to end, sooner or later.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().stop.is_some()
    }

    /// Somebody waits for the search index: what is there is brought into it without a pause.
    pub(crate) fn hurry(&self) {
        self.state.lock().hurry = true;
        self.filled.notify_all();
    }

    /// Waits for work: a full batch, or whatever there is when the linger is over, or the index.
    pub(crate) fn next(&self, backlog: Backlog) -> Next {
        let mut state = self.state.lock();
        let mut deadline = None;
        loop {
            let full = state.takeable() >= PROJECTOR_BATCH_EVENTS;
            let rest = state.takeable() > 0;
            match state.stop {
                Some(Stop::Now) => return Next::Stop,
                Some(Stop::WhenEmpty) if !rest => return Next::Stop,
                Some(Stop::WhenEmpty) => return Next::Project(state.take()),
                None if full => return Next::Project(state.take()),
                None => {}
            }
            let backlog = state.allowed(backlog);
            if !rest && backlog == Backlog::Much {
                return Next::Index;
            }
            let now = Instant::now();
            let wait = if rest {
                let linger = Duration::from_millis(PROJECTOR_LINGER_MS);
                deadline.get_or_insert(now + linger).saturating_duration_since(now)
            } else if backlog == Backlog::Little {
                INDEX_PAUSE
            } else {
                IDLE_PERIOD
            };
            if wait.is_zero() {
                return Next::Project(state.take());
            }
            if self.filled.wait_for(&mut state, wait).timed_out() && !rest {
                return if backlog == Backlog::Little { Next::Index } else { Next::Idle };
            }
        }
    }
}

impl State {
    fn takeable(&self) -> usize {
        #[cfg(test)]
        if let Some(allowance) = self.allowance {
            return self.events.min(allowance);
        }
        self.events
    }

    /// What of a backlog may be worked on, and how soon.
    fn allowed(&mut self, backlog: Backlog) -> Backlog {
        #[cfg(test)]
        if self.holds_index {
            return Backlog::None;
        }
        match backlog {
            Backlog::None => {
                self.hurry = false;
                Backlog::None
            }
            Backlog::Little if self.hurry => Backlog::Much,
            Backlog::Little | Backlog::Much => backlog,
        }
    }

    /// Takes whole rows of the journal, up to a batch.
    fn take(&mut self) -> Vec<Committed> {
        let limit = self.takeable().min(PROJECTOR_BATCH_EVENTS);
        let mut taken: Vec<Committed> = Vec::new();
        let mut count = 0;
        while let Some(next) = self.committed.front() {
            let same_row = taken.last().is_some_and(|last| last.pos == next.pos);
            if count >= limit && !same_row {
                break;
            }
            count += next.pending.events() as usize;
            taken.extend(self.committed.pop_front());
        }
        self.events -= count;
        #[cfg(test)]
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(count);
        }
        taken
    }
}

fn events(committed: &[Committed]) -> usize {
    committed.iter().map(|committed| committed.pending.events() as usize).sum()
}

#[cfg(test)]
impl Inbox {
    /// Whether messages are kept out of the search index from now on.
    pub(crate) fn hold_index(&self, hold: bool) {
        self.state.lock().holds_index = hold;
        self.filled.notify_all();
    }

    /// From now on the projector takes only so many events (whole rows); `None`: all.
    pub(crate) fn allow(&self, events: Option<usize>) {
        self.state.lock().allowance = events;
        self.filled.notify_all();
    }
}
