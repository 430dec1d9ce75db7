//! What of the conversation agents are shown: a window of the newest messages, and a summary of those
//! that fell out of it.
//!
//! The window grows at its end and moves in steps at its beginning, so that two calls in a row begin
//! with the same messages. Which step is taken when is decided in `compaction.rs`.

use convene_model::{
    AgentId, MessageId, RunId, Timestamp,
    agents::{ContextMessage, ContextSummary, SummaryAuthor},
    event::{Author, Deleted, Edited, Posted, SummaryRecorded},
    limits::{
        COMPACT_MESSAGES, COMPACT_TOKENS, CONTEXT_MESSAGES, CONTEXT_TOKENS, KEEP_MESSAGES,
        KEEP_TOKENS, MAX_RETRYABLE, MESSAGE_TOKENS,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    remembered::{Broken, Remembered},
    state::State,
};

/// How many times the window may be above its bounds before the oldest messages go unsummarized. No
/// step of a controller leaves it above them; a history from before there were summaries may.
const SLACK: usize = 4;

/// What the messages of a range were about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
    pub(crate) by: SummaryAuthor,
    /// Empty when a message of the range was changed: it must be written anew.
    pub(crate) text: String,
    /// When it was recorded.
    pub(crate) at: Timestamp,
}

impl State {
    pub(crate) fn remember(&mut self, seq: u64, posted: &Posted) {
        self.messages = posted.nth;
        let run = posted.run_id.as_ref().and_then(|run_id| self.run(run_id));
        let (round, initiator) = match (&posted.author, run) {
            (Author::User(user_id), _) => (0, Some(user_id.clone())),
            (Author::Agent(_), Some(run)) => (run.round + 1, run.initiator.clone()),
            (Author::Agent(_), None) => (posted.hop, None),
        };
        let text = cut(&posted.text).to_owned();
        let tokens = tokens_in(&text);
        self.window_bytes += text.len();
        self.window_tokens += tokens;
        self.window.push_back(Remembered {
            seq,
            tokens,
            message: ContextMessage {
                message_id: posted.message_id.clone(),
                author: posted.author.clone(),
                text,
            },
            root: posted.root.clone(),
            hop: posted.hop,
            round,
            initiator,
            stopped: Vec::new(),
            broken: Vec::new(),
        });
        self.trim_window();
    }

    /// Without agents nobody is shown anything: the window is kept for one that may come.
    fn trim_window(&mut self) {
        let (messages, tokens) = if self.config.agents.is_empty() {
            (COMPACT_MESSAGES, COMPACT_TOKENS)
        } else {
            (SLACK * CONTEXT_MESSAGES, SLACK * CONTEXT_TOKENS)
        };
        // The newest message alone always fits, since each is remembered cut to the limit.
        while self.window.len() > messages || self.window_tokens > tokens {
            if self.window.len() <= 1 || !self.drop_oldest() {
                break;
            }
        }
        self.trim_awaited();
    }

    /// Drops the oldest message of the window, but for a run that it woke or that may be made again.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.window.pop_front() else { return false };
        self.window_bytes -= oldest.message.text.len();
        self.window_tokens -= oldest.tokens;
        let is_trigger = self.runs.iter().any(|run| oldest.is(&run.trigger));
        if is_trigger || oldest.may_be_retried() {
            self.awaited.push(oldest);
        }
        true
    }

    /// Lets go of messages that woke no run that has not ended, but the last that may be retried.
    pub(crate) fn trim_awaited(&mut self) {
        let runs = &self.runs;
        let mut spare = MAX_RETRYABLE;
        let mut keeps = |remembered: &Remembered| {
            if runs.iter().any(|run| remembered.is(&run.trigger)) {
                return true;
            }
            let keeps = remembered.may_be_retried() && spare > 0;
            spare -= usize::from(keeps);
            keeps
        };
        let kept: Vec<bool> = self.awaited.iter().rev().map(&mut keeps).collect();
        let mut kept = kept.into_iter().rev();
        self.awaited.retain(|_| kept.next().unwrap_or(false));
    }

    /// Counts tokens anew after the state was read: they are not stored.
    pub(crate) fn count_tokens(&mut self) {
        for remembered in self.window.iter_mut().chain(&mut self.awaited) {
            remembered.tokens = tokens_in(&remembered.message.text);
        }
        self.window_tokens = self.window.iter().map(|remembered| remembered.tokens).sum();
    }

    /// How many of the oldest messages have to go so that the rest is within what a step keeps.
    pub(crate) fn surplus(&self) -> usize {
        let mut tokens = 0;
        let kept = self.window.iter().rev().take(KEEP_MESSAGES).take_while(|remembered| {
            tokens += remembered.tokens;
            tokens <= KEEP_TOKENS
        });
        // The newest stays, however long it is.
        let kept = kept.count().max(1);
        self.window.len().saturating_sub(kept)
    }

    /// What the agent that `trigger` wakes is shown, oldest first: the newest messages within
    /// [`CONTEXT_MESSAGES`] and [`CONTEXT_TOKENS`], and `trigger` among them however old it is.
    pub(crate) fn context(&self, trigger: &MessageId) -> Vec<ContextMessage> {
        let awaited = self.awaited.iter().find(|m| m.message.message_id == *trigger);
        let mut tokens = awaited.map_or(0, |awaited| awaited.tokens);
        let newest =
            self.window.iter().rev().take(CONTEXT_MESSAGES - usize::from(awaited.is_some()));
        let mut messages: Vec<_> = newest
            .take_while(|remembered| {
                tokens += remembered.tokens;
                tokens <= CONTEXT_TOKENS
            })
            .chain(awaited)
            .map(|remembered| remembered.message.clone())
            .collect();
        messages.reverse();
        messages
    }

    /// The summary that goes before the window; none while it is to be written anew.
    pub(crate) fn context_summary(&self) -> Option<ContextSummary> {
        let summary = self.summary.as_ref().filter(|summary| !summary.text.is_empty())?;
        Some(ContextSummary {
            from_seq: summary.from_seq,
            to_seq: summary.to_seq,
            by: summary.by,
            text: summary.text.clone(),
        })
    }

    /// Whether a message that woke a run which has not ended is there still; a deleted one is not.
    pub(crate) fn remembers(&self, trigger: &MessageId) -> bool {
        self.remembered(trigger).is_some()
    }

    /// A message that can be shown to an agent still.
    pub(crate) fn remembered(&self, message_id: &MessageId) -> Option<&Remembered> {
        let mut remembered = self.window.iter().rev().chain(&self.awaited);
        remembered.find(|remembered| remembered.is(message_id))
    }

    pub(crate) fn remembered_mut(&mut self, message_id: &MessageId) -> Option<&mut Remembered> {
        let mut remembered = self.window.iter_mut().rev().chain(&mut self.awaited);
        remembered.find(|remembered| remembered.is(message_id))
    }

    /// The messages that woke an agent while its own process was not there, and that it has not been
    /// woken for since, oldest first, with the numbers of the events that posted them.
    pub(crate) fn missed(&self, agent_id: &AgentId) -> Vec<(MessageId, u64)> {
        let remembered = self.window.iter().chain(&self.awaited);
        let missed = remembered.filter(|remembered| {
            let mut broken = remembered.broken.iter();
            broken.any(|broken| broken.agent_id == *agent_id && broken.missed && !broken.retried)
        });
        let mut missed: Vec<_> =
            missed.map(|one| (one.message.message_id.clone(), one.seq)).collect();
        missed.sort_by_key(|(_, seq)| *seq);
        missed
    }

    /// The message whose run ended without a whole reply, and that run.
    pub(crate) fn broken(&self, run_id: &RunId) -> Option<(&Remembered, &Broken)> {
        let mut remembered = self.window.iter().rev().chain(&self.awaited);
        remembered.find_map(|remembered| {
            let broken = remembered.broken.iter().find(|broken| broken.run_id == *run_id)?;
            Some((remembered, broken))
        })
    }

    pub(crate) fn reword(&mut self, edited: &Edited) {
        let text = cut(&edited.text);
        let is_it = |m: &&mut Remembered| m.message.message_id == edited.message_id;
        if let Some(remembered) = self.window.iter_mut().find(is_it) {
            self.window_bytes = self.window_bytes - remembered.message.text.len() + text.len();
            self.window_tokens -= remembered.tokens;
            remembered.reword(text);
            self.window_tokens += remembered.tokens;
            self.trim_window();
        } else if let Some(remembered) = self.awaited.iter_mut().find(is_it) {
            remembered.reword(text);
        }
        self.outdate(edited.message_seq);
    }

    pub(crate) fn forget(&mut self, deleted: &Deleted) {
        let message_id = &deleted.message_id;
        let at = self.window.iter().position(|m| m.message.message_id == *message_id);
        if let Some(gone) = at.and_then(|at| self.window.remove(at)) {
            self.window_bytes -= gone.message.text.len();
            self.window_tokens -= gone.tokens;
        }
        self.awaited.retain(|m| m.message.message_id != *message_id);
        self.unpin(message_id);
        self.outdate(deleted.message_seq);
    }

    /// What a message said is in the summary no longer.
    fn outdate(&mut self, message_seq: u64) {
        if let Some(summary) = &mut self.summary
            && (summary.from_seq..=summary.to_seq).contains(&message_seq)
        {
            summary.text.clear();
        }
    }

    /// The window begins behind what was summarized.
    pub(crate) fn summarize(&mut self, recorded: &SummaryRecorded, at: Timestamp) {
        self.summary = Some(Box::new(Summary {
            from_seq: recorded.from_seq,
            to_seq: recorded.to_seq,
            by: recorded.by,
            text: recorded.text.clone(),
            at,
        }));
        while self.window.front().is_some_and(|oldest| oldest.seq <= recorded.to_seq) {
            self.drop_oldest();
        }
        self.trim_awaited();
    }
}

impl Remembered {
    fn reword(&mut self, text: &str) {
        text.clone_into(&mut self.message.text);
        self.tokens = tokens_in(text);
    }
}

/// Tokens that a message with this text comes to, about; no two providers count alike: a quarter for
/// each ASCII character, a whole one for each other.
fn tokens_in(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let others = text.bytes().filter(|byte| *byte >= 0xC0).count();
    (ascii + others * 4).div_ceil(4) + MESSAGE_TOKENS
}

/// The newest messages within [`CONTEXT_TOKENS`], each cut as the window cuts it.
pub(crate) fn newest(messages: Vec<(u64, ContextMessage)>) -> Vec<(u64, ContextMessage)> {
    let mut tokens = 0;
    let cut = messages.into_iter().rev().map(|(seq, message)| {
        let text = cut(&message.text).to_owned();
        (seq, ContextMessage { text, ..message })
    });
    let mut newest: Vec<_> = cut
        .take_while(|(_, message)| {
            tokens += tokens_in(&message.text);
            tokens <= CONTEXT_TOKENS
        })
        .collect();
    newest.reverse();
    newest
}

/// As much of a text as fits into the context, cut between code points.
fn cut(text: &str) -> &str {
    const MOST: usize = (CONTEXT_TOKENS - MESSAGE_TOKENS) * 4;
    if text.len() <= MOST / 4 {
        return text;
    }
    let mut quarters = 0;
    let end = text.char_indices().find(|(_, char)| {
        quarters += if char.is_ascii() { 1 } else { 4 };
        quarters > MOST
    });
    end.map_or(text, |(end, _)| &text[..end])
}
