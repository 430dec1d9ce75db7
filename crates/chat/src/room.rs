//! What the client knows of one group, and what it still has to say to it. No terminal, no network:
//! frames come in, frames go out, and the screen shows what stands here.

mod runs;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use convene_model::{
    AgentId, HistoryId, MessageId, ParticipantId, Ref, RunId, Timestamp, UserId,
    event::{Author, Event, EventKind, GroupAgent},
    frame::{ClientFrame, GroupState},
    history::{HistoryPage, Message, Reactions},
    limits::TYPING_TTL,
};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::runs::{Ask, Call, Run};
use crate::text;

/// Events that are kept, so that a page which was read a moment before they came misses nothing.
const MAX_RECENT: usize = 512;

/// A command that the group has not acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) r#ref: Ref,
    pub(crate) frame: ClientFrame,
}

/// What the screen must do beyond showing the room anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send these frames.
    Send(Vec<ClientFrame>),
    /// Read the newest page of history and attach with it.
    Reload,
    /// Send what is not acknowledged again after a pause of so many milliseconds.
    ResendAfter(u64),
    /// Say something to the person.
    Say(String),
    /// A message was refused: give its text back to the person.
    GiveBack(String),
}

/// One group.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) me: UserId,
    /// Messages by the number of the event that posted them.
    pub(crate) messages: BTreeMap<u64, Message>,
    places: HashMap<MessageId, u64>,
    names: HashMap<Author, String>,
    pub(crate) agents: Vec<GroupAgent>,
    pub(crate) paused: bool,
    pub(crate) runs: Vec<Run>,
    /// The calls of the runs that wrote messages.
    used: HashMap<MessageId, Vec<Call>>,
    /// The last run that ended without having done what it was to do.
    failed: Option<RunId>,
    /// The last agent that a bound kept from answering, and the message.
    bounded: Option<(MessageId, AgentId)>,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) present: BTreeSet<UserId>,
    typing: HashMap<UserId, Timestamp>,
    /// Whether there are messages before the first one here.
    pub(crate) more_before: bool,
    /// Whether the messages here reach up to now; not so after a jump into the past.
    pub(crate) reaches_now: bool,
    pub(crate) attached: bool,
    history: Option<HistoryId>,
    /// The last event that was seen.
    head: u64,
    /// The last event that was read, as far as this client knows.
    pub(crate) read_up_to: u64,
    /// Messages after this number are under the line "new".
    pub(crate) marker: Option<u64>,
    /// Whether the person sees what comes.
    pub(crate) watched: bool,
    /// The last events, oldest first.
    recent: VecDeque<Event>,
    next_ref: u64,
}

#[derive(Deserialize)]
struct Attached {
    seq: u64,
    history: HistoryId,
    state: GroupState,
}

impl Room {
    pub(crate) fn new(me: UserId, read_up_to: Option<u64>) -> Self {
        Self {
            me,
            messages: BTreeMap::new(),
            places: HashMap::new(),
            names: HashMap::new(),
            agents: Vec::new(),
            paused: false,
            runs: Vec::new(),
            used: HashMap::new(),
            failed: None,
            bounded: None,
            outgoing: Vec::new(),
            present: BTreeSet::new(),
            typing: HashMap::new(),
            more_before: false,
            reaches_now: true,
            attached: false,
            history: None,
            head: 0,
            read_up_to: read_up_to.unwrap_or(0),
            marker: read_up_to,
            watched: true,
            recent: VecDeque::new(),
            next_ref: 1,
        }
    }

    pub(crate) fn learn_name(&mut self, author: Author, name: &str) {
        self.names.insert(author, text::line(name));
    }

    pub(crate) fn name(&self, author: &Author) -> String {
        match (self.names.get(author), author) {
            (Some(name), _) => name.clone(),
            (None, Author::User(_)) => "somebody who left".to_owned(),
            (None, Author::Agent(_)) => "a former agent".to_owned(),
        }
    }

    pub(crate) fn is_me(&self, author: &Author) -> bool {
        matches!(author, Author::User(user) if *user == self.me)
    }

    pub(crate) fn message(&self, id: &MessageId) -> Option<&Message> {
        self.places.get(id).and_then(|seq| self.messages.get(seq))
    }

    /// Names that can be mentioned: agents of the group first, then people.
    pub(crate) fn mentionable(&self) -> Vec<String> {
        let mut names: Vec<_> = self.agents.iter().map(|agent| agent.name.clone()).collect();
        let mut people: Vec<_> = self
            .names
            .iter()
            .filter(|(author, _)| matches!(author, Author::User(user) if *user != self.me))
            .map(|(_, name)| name.clone())
            .collect();
        people.sort_unstable();
        names.extend(people);
        names
    }

    /// Whom a text mentions, when that is more than agents, whom the group finds itself.
    pub(crate) fn mentions(&self, text: &str) -> Option<Vec<ParticipantId>> {
        let lower = text.to_lowercase();
        let mentioned = |name: &str| {
            let name = format!("@{}", name.to_lowercase());
            lower.match_indices(&name).any(|(at, found)| {
                let before = lower[..at].chars().next_back();
                let after = lower[at + found.len()..].chars().next();
                let in_word = |c: char| c.is_alphanumeric() || c == '_';
                !before.is_some_and(in_word) && !after.is_some_and(|c| in_word(c) || c == '-')
            })
        };
        let people: Vec<_> = self
            .names
            .iter()
            .filter_map(|(author, name)| match author {
                Author::User(user) if mentioned(name) => Some(user.as_str()),
                Author::User(_) | Author::Agent(_) => None,
            })
            .collect();
        if people.is_empty() {
            return None;
        }
        let agents = self.agents.iter().filter(|agent| mentioned(&agent.name));
        let ids = people.into_iter().chain(agents.map(|agent| agent.agent_id.as_str()));
        Some(ids.filter_map(|id| ParticipantId::new(id).ok()).collect())
    }

    /// Begins anew with the newest page: what is attached next goes on after it.
    pub(crate) fn restart(&mut self, page: HistoryPage) {
        self.recent.clear();
        self.head = page.head;
        self.history = Some(page.history.clone());
        self.show(page, true);
    }

    /// Shows another part of the conversation, while the stream goes on.
    pub(crate) fn show(&mut self, page: HistoryPage, newest: bool) {
        self.messages.clear();
        self.places.clear();
        self.reaches_now = newest || !page.more_after;
        self.prepend(page);
    }

    /// Takes in the page before the first message.
    pub(crate) fn prepend(&mut self, page: HistoryPage) {
        self.more_before = page.more_before;
        self.take_ended(page.runs);
        self.add(page.messages);
        // What came while the page was under way is not in it.
        let missed: Vec<_> =
            self.recent.iter().filter(|event| event.seq > page.head).cloned().collect();
        for event in missed {
            self.change_messages(&event);
        }
    }

    fn add(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.places.insert(message.posted.message_id.clone(), message.seq);
            self.messages.insert(message.seq, message);
        }
    }

    /// Whether there is something to attach after.
    pub(crate) fn is_loaded(&self) -> bool {
        self.history.is_some()
    }

    /// The last event that was seen.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The frame that joins the group's stream after what is here.
    pub(crate) fn attach(&mut self) -> ClientFrame {
        self.attached = false;
        let after = self.history.as_ref().map(|_| self.head);
        ClientFrame::Attach {
            r#ref: Ref::new("attach").expect("letters are a ref"),
            after,
            history: self.history.clone(),
            render: None,
        }
    }

    /// Notes that the connection is gone.
    pub(crate) fn detached(&mut self) {
        self.attached = false;
        self.typing.clear();
        self.present.clear();
    }

    /// Makes a command and keeps it until it is acknowledged. Returns what to send now.
    pub(crate) fn command(&mut self, make: impl FnOnce(Ref) -> ClientFrame) -> Effect {
        let r#ref = self.fresh_ref();
        let frame = make(r#ref.clone());
        self.outgoing.push(Outgoing { r#ref, frame: frame.clone() });
        // Before the group is joined nothing is sent: what waits goes out with the attach.
        Effect::Send(if self.attached { vec![frame] } else { Vec::new() })
    }

    /// Tells the App that everything here was read, if that is news.
    pub(crate) fn read(&mut self) -> Option<ClientFrame> {
        if !self.attached || !self.reaches_now || self.read_up_to >= self.head {
            return None;
        }
        self.read_up_to = self.head;
        Some(ClientFrame::Read { r#ref: self.fresh_ref(), up_to: self.head })
    }

    fn fresh_ref(&mut self) -> Ref {
        let number = self.next_ref;
        self.next_ref += 1;
        Ref::new(format!("t{number}")).expect("a letter and a number are a ref")
    }

    /// What is sent again after an attach or a pause.
    pub(crate) fn unacknowledged(&self) -> Vec<ClientFrame> {
        self.outgoing.iter().map(|outgoing| outgoing.frame.clone()).collect()
    }

    /// Who is writing now.
    pub(crate) fn typing(&mut self, now: Timestamp) -> Vec<String> {
        self.typing.retain(|_, since| now.since(*since) < TYPING_TTL);
        let me = &self.me;
        let users: Vec<_> = self.typing.keys().filter(|user| *user != me).cloned().collect();
        users.into_iter().map(|user| self.name(&Author::User(user))).collect()
    }

    /// Takes in a frame.
    pub(crate) fn frame(&mut self, raw: &str, now: Timestamp) -> Vec<Effect> {
        let Ok(value) = serde_json::from_str::<Value>(raw) else { return Vec::new() };
        let kind = value["type"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "event" => self.event(value),
            "attached" => self.attached(value),
            "reset" => vec![Effect::Reload],
            "delta" => {
                if let Ok(delta) = serde_json::from_value(value) {
                    self.delta(delta);
                }
                Vec::new()
            }
            "ok" => {
                self.acknowledge(value["ref"].as_str());
                Vec::new()
            }
            "error" => self.error(&value),
            "presence" => {
                for (member, joined) in [("joined", true), ("left", false)] {
                    for user in users(&value[member]) {
                        if joined {
                            self.present.insert(user);
                        } else {
                            self.present.remove(&user);
                        }
                    }
                }
                Vec::new()
            }
            "typing" => {
                if let Some(user) = value["user_id"].as_str().and_then(|id| UserId::new(id).ok()) {
                    self.typing.insert(user, now);
                }
                Vec::new()
            }
            // A frame of a later protocol.
            _ => Vec::new(),
        }
    }

    fn attached(&mut self, value: Value) -> Vec<Effect> {
        let Ok(Attached { seq, history, state }) = serde_json::from_value(value) else {
            return vec![Effect::Reload];
        };
        self.attached = true;
        if self.history.is_none() {
            self.head = seq;
        }
        self.history = Some(history);
        for agent in &state.agents {
            self.learn_name(Author::Agent(agent.agent_id.clone()), &agent.name);
        }
        self.agents = state.agents;
        self.paused = state.paused;
        self.present = state.present.into_iter().collect();
        self.take_runs(state.runs, state.approvals);
        vec![Effect::Send(self.unacknowledged())]
    }

    fn acknowledge(&mut self, r#ref: Option<&str>) -> Option<Outgoing> {
        let place = self.outgoing.iter().position(|open| Some(open.r#ref.as_str()) == r#ref)?;
        Some(self.outgoing.remove(place))
    }

    fn error(&mut self, value: &Value) -> Vec<Effect> {
        let code = value["code"].as_str().unwrap_or_default();
        let r#ref = value["ref"].as_str();
        if r#ref == Some("attach") {
            return match code {
                "too_old" => vec![Effect::Reload],
                _ => vec![
                    Effect::Say(reason(value)),
                    // Attaching anew is what a resend begins with while nothing is attached.
                    // What lasts for hours may be lifted before.
                    Effect::ResendAfter(
                        value["retry_after_ms"].as_u64().unwrap_or(3000).min(60_000),
                    ),
                ],
            };
        }
        if !self.outgoing.iter().any(|open| Some(open.r#ref.as_str()) == r#ref) {
            // Of a read marker or of typing: nothing that a person waits for.
            return Vec::new();
        }
        let passing = matches!(
            code,
            "overloaded"
                | "unavailable"
                | "not_attached"
                | "group_controller_unavailable"
                | "rate_limited"
                | "storage_full"
        );
        if passing {
            let pause = value["retry_after_ms"].as_u64().unwrap_or(1000);
            return vec![Effect::ResendAfter(pause.clamp(200, 30_000))];
        }
        let refused = self.acknowledge(r#ref);
        let mut effects = vec![Effect::Say(reason(value))];
        if let Some(Outgoing {
            frame: ClientFrame::Post { text, .. } | ClientFrame::Edit { text, .. },
            ..
        }) = refused
        {
            effects.push(Effect::GiveBack(text));
        }
        effects
    }

    fn event(&mut self, value: Value) -> Vec<Effect> {
        let Some(seq) = value["seq"].as_u64() else { return Vec::new() };
        if seq <= self.head {
            return Vec::new();
        }
        // What is seen at once is not new, unless it stands below what is.
        if self.watched && self.marker.is_none_or(|marker| marker >= self.head) {
            self.marker = Some(seq);
        }
        self.head = seq;
        // A kind of a later protocol has a number like any other.
        let Ok(event) = serde_json::from_value::<Event>(value) else { return Vec::new() };
        self.change_messages(&event);
        self.recent.push_back(event.clone());
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        self.apply(event)
    }

    /// What an event makes of the messages that are here.
    fn change_messages(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::MessagePosted(posted) if self.reaches_now => {
                let message = Message {
                    seq: event.seq,
                    at,
                    posted: posted.clone(),
                    edited_at: None,
                    deleted: false,
                    reactions: Vec::new(),
                };
                self.add(vec![message]);
            }
            EventKind::MessageEdited(edited) => self.change(edited.message_seq, |message| {
                message.posted.text.clone_from(&edited.text);
                message.edited_at = Some(at);
            }),
            EventKind::MessageDeleted(deleted) => self.change(deleted.message_seq, |message| {
                message.posted.text.clear();
                message.deleted = true;
                message.reactions.clear();
            }),
            EventKind::ReactionAdded(reaction) => self.change(reaction.message_seq, |message| {
                react(&mut message.reactions, &reaction.emoji, &reaction.author, true);
            }),
            EventKind::ReactionRemoved(reaction) => self.change(reaction.message_seq, |message| {
                react(&mut message.reactions, &reaction.emoji, &reaction.author, false);
            }),
            EventKind::MessagePosted(_)
            | EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::TriggerDecided(_)
            | EventKind::RunStarted(_)
            | EventKind::RunStreaming { .. }
            | EventKind::RunFinished(_)
            | EventKind::ToolsRequested(_)
            | EventKind::ToolStarted(_)
            | EventKind::ToolFinished(_)
            | EventKind::ApprovalRequested(_)
            | EventKind::ApprovalVoted(_)
            | EventKind::ApprovalResolved(_)
            | EventKind::ApprovalExpired(_)
            | EventKind::SummaryRecorded(_)
            | EventKind::HistoryExported { .. } => {}
        }
    }

    /// What an event makes of everything else.
    fn apply(&mut self, event: Event) -> Vec<Effect> {
        match event.kind {
            EventKind::MessagePosted(posted) => {
                let id = &posted.message_id;
                self.outgoing.retain(|open| {
                    !matches!(&open.frame, ClientFrame::Post { message_id, .. } if message_id == id)
                });
                if let Author::User(user) = &posted.author {
                    self.typing.remove(user);
                    if *user == self.me {
                        // Who writes has seen what stood there.
                        self.marker = Some(event.seq);
                    }
                }
                self.has_replied(&posted);
                Vec::new()
            }
            EventKind::TriggerDecided(decided) => self.decided(decided),
            EventKind::RunStarted(started) => self.run_started(started),
            EventKind::ToolsRequested(requested) => self.tools_requested(requested),
            EventKind::ToolStarted(started) => self.tool_started(started),
            EventKind::ToolFinished(finished) => self.tool_finished(&finished),
            EventKind::ApprovalRequested(requested) => self.asked(requested),
            EventKind::ApprovalVoted(voted) => self.voted(voted),
            EventKind::ApprovalResolved(resolved) => {
                self.settled(&resolved.run_id, &resolved.approval_id)
            }
            EventKind::ApprovalExpired(expired) => {
                self.settled(&expired.run_id, &expired.approval_id)
            }
            EventKind::RunFinished(finished) => self.run_finished(finished),
            EventKind::GroupConfigured(config) => {
                for agent in &config.agents {
                    self.learn_name(Author::Agent(agent.agent_id.clone()), &agent.name);
                }
                self.agents = config.agents;
                self.paused = config.paused;
                Vec::new()
            }
            EventKind::GroupActivated(_)
            | EventKind::GroupAdopted(_)
            | EventKind::EpochRaised { .. }
            | EventKind::GroupFrozen { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::AccessRevoked { .. }
            | EventKind::MessageEdited(_)
            | EventKind::MessageDeleted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::RunStreaming { .. }
            | EventKind::SummaryRecorded(_)
            | EventKind::HistoryExported { .. } => Vec::new(),
        }
    }

    fn change(&mut self, seq: u64, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.messages.get_mut(&seq) {
            change(message);
        }
    }

    /// Frames that stop the runs under way. Not kept: a run that has ended needs no stop.
    pub(crate) fn stop_frames(&mut self) -> Vec<ClientFrame> {
        let runs: Vec<RunId> = self.runs.iter().map(|run| run.run_id.clone()).collect();
        runs.into_iter()
            .map(|run_id| ClientFrame::Cancel { r#ref: self.fresh_ref(), run_id })
            .collect()
    }

    /// Notes whether the person sees what comes; what comes meanwhile stands under the line "new".
    pub(crate) fn watch(&mut self, watched: bool) {
        if !watched && self.watched && self.marker.is_none() {
            self.marker = Some(self.head);
        }
        self.watched = watched;
    }

    /// The newest message that `wanted` says yes to.
    pub(crate) fn newest(&self, wanted: impl Fn(&Message) -> bool) -> Option<&Message> {
        self.messages.values().rev().find(|message| !message.deleted && wanted(message))
    }
}

fn react(reactions: &mut Vec<Reactions>, emoji: &str, author: &Author, on: bool) {
    let place = reactions.iter().position(|reaction| reaction.emoji == emoji);
    match (place, on) {
        (Some(place), true) => {
            let reaction = &mut reactions[place];
            reaction.count += 1;
            reaction.authors.push(author.clone());
        }
        (Some(place), false) => {
            let reaction = &mut reactions[place];
            reaction.count = reaction.count.saturating_sub(1);
            reaction.authors.retain(|other| other != author);
            if reaction.count == 0 {
                reactions.remove(place);
            }
        }
        (None, true) => {
            let authors = vec![author.clone()];
            reactions.push(Reactions { emoji: emoji.to_owned(), count: 1, authors });
        }
        (None, false) => {}
    }
}

fn users(list: &Value) -> Vec<UserId> {
    let ids = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    ids.filter_map(|id| UserId::new(id).ok()).collect()
}

/// What an error frame says to a person.
fn reason(value: &Value) -> String {
    let code = value["code"].as_str().unwrap_or("error");
    match value["detail"].as_str() {
        Some(detail) => text::line(detail),
        None => {
            let known = serde_json::from_value::<convene_model::Code>(value["code"].clone());
            known.map_or_else(|_| text::line(code), |code| code.title().to_owned())
        }
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
