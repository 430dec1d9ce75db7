//! When the oldest messages of the window become a summary, and who writes it.
//!
//! The model of the agent that ran last is asked. It works while the group goes on; where none ran
//! since the last summary, where it fails, or where the window cannot wait, the beginnings of the
//! messages stand in, which costs nothing. A model is asked only with leave from the organization's
//! budget; without it they stand in as well. A summary whose range a message was changed in is written
//! anew from what the range holds now.

use convene_model::{
    AgentId, RunId,
    agents::{ContextMessage, SummarizeRequest, SummaryAuthor, Usage, speaker_mark},
    event::{EventKind, SummaryRecorded},
    limits::{
        COMPACT_MESSAGES, COMPACT_TOKENS, CONTEXT_MESSAGES, CONTEXT_TOKENS, EXHAUSTED_FOR,
        EXTRACT_CHARS, MAX_ID_LEN, MAX_NAME_CHARS, MAX_SUMMARY_TEXT_BYTES, SUMMARY_OUTPUT_TOKENS,
        SUMMARY_TOKENS,
    },
};

use crate::{Effect, Leave, Summarization, context::newest, controller::Turn};

/// What a summary says of a range in which nothing is left.
const NOTHING: &str = "(The earlier messages were deleted.)";

/// A summary that somebody works at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    id: u64,
    from_seq: u64,
    to_seq: u64,
    /// What stands in when the model fails; `None` while the host looks the messages up.
    extract: Option<String>,
    /// What the model is asked once there is leave to.
    waiting: Option<Box<Summarization>>,
}

/// The summary under way, if there is one, and the number of the next.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Boxed, since most groups have none.
    pending: Option<Box<Pending>>,
    last: u64,
}

impl Compaction {
    /// A message was changed: what is made of its former text is not wanted any more.
    pub(crate) fn changed(&mut self, message_seq: u64) {
        let touches =
            |pending: &mut Box<Pending>| (pending.from_seq..=pending.to_seq).contains(&message_seq);
        self.pending.take_if(touches);
    }

    fn begin(&mut self, from_seq: u64, to_seq: u64, extract: Option<String>) -> u64 {
        self.last += 1;
        let pending = Pending { id: self.last, from_seq, to_seq, extract, waiting: None };
        self.pending = Some(Box::new(pending));
        self.last
    }

    /// The summary that waits for leave under this name.
    fn waiting(&mut self, run_id: &RunId) -> Option<&mut Pending> {
        let named = |asked: &Summarization| asked.request.run_id == *run_id;
        self.pending.as_deref_mut().filter(|pending| pending.waiting.as_deref().is_some_and(named))
    }

    fn take(&mut self, id: u64) -> Option<Pending> {
        self.pending.take_if(|pending| pending.id == id).map(|pending| *pending)
    }
}

/// Takes the next step where one is due.
pub(crate) fn run(turn: &mut Turn<'_>) {
    let Some(state) = turn.existing() else { return };
    if state.frozen.is_some() {
        return;
    }
    let outdated = state.summary.as_ref().filter(|summary| summary.text.is_empty());
    if let Some(summary) = outdated {
        let (from_seq, to_seq) = (summary.from_seq, summary.to_seq);
        if turn.live.compaction.pending.is_none() {
            let id = turn.live.compaction.begin(from_seq, to_seq, None);
            turn.effects.push(Effect::Recollect { id, from_seq, to_seq });
        }
    }
    let Some(state) = turn.existing().filter(|state| !state.config.agents.is_empty()) else {
        return;
    };
    let (messages, tokens) = (state.window.len(), state.window_tokens);
    if messages > CONTEXT_MESSAGES || tokens > CONTEXT_TOKENS {
        if let Some(Fallen { from_seq, to_seq, previous, messages }) = fallen(turn) {
            turn.live.compaction.pending = None;
            record(turn, from_seq, to_seq, extract(previous.as_deref(), &messages));
        }
    } else if (messages > COMPACT_MESSAGES || tokens > COMPACT_TOKENS)
        && outdated_or_busy(turn).is_none()
        && let Some(fallen) = fallen(turn)
    {
        ask(turn, fallen);
    }
}

/// A reason not to begin a summary yet.
fn outdated_or_busy(turn: &Turn<'_>) -> Option<()> {
    let outdated = turn.state().summary.as_ref().is_some_and(|summary| summary.text.is_empty());
    (outdated || turn.live.compaction.pending.is_some()).then_some(())
}

/// What falls out of the window with the next step.
struct Fallen {
    from_seq: u64,
    to_seq: u64,
    previous: Option<String>,
    messages: Vec<ContextMessage>,
}

fn fallen(turn: &Turn<'_>) -> Option<Fallen> {
    let state = turn.state();
    let surplus = state.surplus();
    let to_seq = state.window.get(surplus.checked_sub(1)?)?.seq;
    let previous = state.summary.as_ref().filter(|summary| !summary.text.is_empty());
    let first = state.window.front().map_or(to_seq, |oldest| oldest.seq);
    Some(Fallen {
        from_seq: state.summary.as_ref().map_or(first, |summary| summary.from_seq),
        to_seq,
        previous: previous.map(|summary| summary.text.clone()),
        messages: state.window.iter().take(surplus).map(|m| m.message.clone()).collect(),
    })
}

/// Has a summary written; by nobody's model where there is none to ask, or where the budget has no room.
fn ask(turn: &mut Turn<'_>, fallen: Fallen) {
    let Fallen { from_seq, to_seq, previous, messages } = fallen;
    let extract = extract(previous.as_deref(), &messages);
    let refused = turn.live.budget.exhausted_until > turn.now;
    let Some(agent_id) = writer(turn).filter(|_| !messages.is_empty() && !refused) else {
        return record(turn, from_seq, to_seq, extract);
    };
    let id = turn.live.compaction.begin(from_seq, to_seq, Some(extract));
    let state = turn.state();
    let agents = state.config.agents.iter();
    let agents = agents.map(|agent| (agent.agent_id.clone(), agent.name.clone())).collect();
    let tokens = needed(previous.as_deref(), &messages);
    let request = SummarizeRequest {
        group_id: state.identity.group_id.clone(),
        agent_id,
        run_id: summary_id(to_seq, id, tokens),
        agents,
        previous,
        messages,
        tokens,
    };
    let org_id = state.identity.org_id.clone();
    let asked = Box::new(Summarization { id, org_id, request });
    if turn.live.budget.unlimited_until > turn.now {
        turn.effects.push(Effect::Summarize(asked));
        return;
    }
    let run_id = asked.request.run_id.clone();
    if let Some(pending) = &mut turn.live.compaction.pending {
        pending.waiting = Some(asked);
    }
    turn.effects.push(Effect::Reserve { run_id, tokens });
}

/// How many tokens a summary takes at most: a token for each byte that the model reads, names among them, and
/// what it may write.
fn needed(previous: Option<&str>, messages: &[ContextMessage]) -> u64 {
    /// The worker's instructions, and what a provider puts around them.
    const FRAME: usize = 4_096;
    /// A speaker's name in front of a line, each of its characters as long as one can be; marks of lines.
    const AROUND_A_MESSAGE: usize = 4 * MAX_NAME_CHARS + MAX_ID_LEN + 16;
    // A line that looks like another speaker's has a mark of two bytes before it.
    let message = |message: &ContextMessage| {
        AROUND_A_MESSAGE + message.text.len() + 2 * message.text.matches('\n').count()
    };
    let read = messages.iter().map(message).fold(FRAME, usize::saturating_add);
    let read = read.saturating_add(previous.map_or(0, str::len));
    let read = u64::try_from(read).unwrap_or(SUMMARY_TOKENS);
    read.saturating_add(SUMMARY_OUTPUT_TOKENS).min(SUMMARY_TOKENS)
}

/// Whether the answer is for the summary that waits for leave; what it means is done.
pub(crate) fn answered(turn: &mut Turn<'_>, run_id: &RunId, leave: Leave) -> bool {
    let stands_still = turn.existing().is_none_or(|state| state.frozen.is_some());
    let Some(pending) = turn.live.compaction.waiting(run_id) else { return false };
    if leave == Leave::Granted && !stands_still {
        turn.effects.extend(pending.waiting.take().map(Effect::Summarize));
        return true;
    }
    let Pending { from_seq, to_seq, extract, .. } = pending.clone();
    turn.live.compaction.pending = None;
    match leave {
        Leave::Granted => turn.effects.push(Effect::Unused { run_id: run_id.clone() }),
        Leave::Refused => turn.live.budget.exhausted_until = turn.now + EXHAUSTED_FOR,
        Leave::Unknown => {}
    }
    if !stands_still {
        record(turn, from_seq, to_seq, extract.unwrap_or_else(|| NOTHING.to_owned()));
    }
    true
}

/// The agent whose model writes: the one of the group that ran last, if any did since the last summary.
/// The model of an outside agent is not ours to ask.
fn writer(turn: &Turn<'_>) -> Option<AgentId> {
    let state = turn.state();
    let since = state.summary.as_ref().map(|summary| summary.at);
    let ran = state.last_started.iter().filter(|(agent_id, at)| {
        state.agent(agent_id).is_some_and(|agent| !agent.outside)
            && since.is_none_or(|since| **at > since)
    });
    ran.max_by_key(|(_, at)| **at).map(|(agent_id, _)| agent_id.clone())
}

/// The name of a summary, by what it reserves too: what has one name asks for the same.
///
/// # Panics
/// Never: three numbers and a letter make an id.
fn summary_id(to_seq: u64, id: u64, tokens: u64) -> RunId {
    RunId::new(format!("s{to_seq}-{id}-{tokens}")).expect("three numbers and a letter make an id")
}

/// The summary under way, if this is it; in a group that stands still nothing comes of it.
fn taken(turn: &mut Turn<'_>, id: u64) -> Option<Pending> {
    let pending = turn.live.compaction.take(id)?;
    turn.state().frozen.is_none().then_some(pending)
}

/// The messages of an outdated summary's range, as they are now.
pub(crate) fn recollected(turn: &mut Turn<'_>, id: u64, found: Vec<(u64, ContextMessage)>) {
    let Some(pending) = taken(turn, id) else { return };
    let found = newest(found);
    let from_seq = found.first().map_or(pending.from_seq, |(seq, _)| *seq).max(pending.from_seq);
    let messages: Vec<_> = found.into_iter().map(|(_, message)| message).collect();
    let to_seq = pending.to_seq;
    if messages.is_empty() {
        return record(turn, from_seq, to_seq, NOTHING.to_owned());
    }
    ask(turn, Fallen { from_seq, to_seq, previous: None, messages });
}

/// The model has written a summary, or has not. What it used counts, also when nobody wants it any more.
pub(crate) fn summarized(
    turn: &mut Turn<'_>,
    id: u64,
    run_id: RunId,
    text: Option<String>,
    usage: Option<Usage>,
) {
    let Some(pending) = taken(turn, id) else {
        turn.effects.push(Effect::Spent { run_id, usage });
        return;
    };
    let (from_seq, to_seq) = (pending.from_seq, pending.to_seq);
    let (by, text) = match text.filter(|text| !text.trim().is_empty()) {
        Some(text) => {
            let end = text.floor_char_boundary(MAX_SUMMARY_TEXT_BYTES);
            (SummaryAuthor::Model, text[..end].to_owned())
        }
        None => {
            let extract = pending.extract.unwrap_or_else(|| NOTHING.to_owned());
            (SummaryAuthor::Extractive, extract)
        }
    };
    let run_id = Some(run_id);
    turn.emit(EventKind::SummaryRecorded(SummaryRecorded {
        from_seq,
        to_seq,
        by,
        run_id,
        usage,
        text,
    }));
}

/// Records the beginnings of messages in place of a summary that no model was asked for.
fn record(turn: &mut Turn<'_>, from_seq: u64, to_seq: u64, extract: String) {
    turn.emit(EventKind::SummaryRecorded(SummaryRecorded {
        from_seq,
        to_seq,
        by: SummaryAuthor::Extractive,
        run_id: None,
        usage: None,
        text: extract,
    }));
}

/// The beginnings of messages, one a line behind who wrote it; of a longer list the end.
fn extract(previous: Option<&str>, messages: &[ContextMessage]) -> String {
    let mut lines: Vec<String> = previous.into_iter().map(str::to_owned).collect();
    for message in messages.iter().filter(|message| !message.text.trim().is_empty()) {
        let flat = message.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut text: String = flat.chars().take(EXTRACT_CHARS).collect();
        if text.len() < flat.len() {
            text.push('…');
        }
        lines.push(format!("{}: {text}", speaker_mark(&message.author)));
    }
    let text = lines.join("\n");
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    let begin = text.ceil_char_boundary(text.len().saturating_sub(MAX_SUMMARY_TEXT_BYTES));
    // Half a line says nothing.
    let line = if begin == 0 { 0 } else { text[begin..].find('\n').map_or(0, |end| end + 1) };
    text[begin + line..].to_owned()
}
