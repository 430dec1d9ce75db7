//! A group in virtual time: a small host that keeps what was written, looks up what a post refers
//! to, and checks after each step what holds for all of them.

use std::{fmt::Debug, time::Duration};

use convene_group_controller::{Address, Controller, Effect, Input, Phase, Post, React, RunEnd};
use convene_model::{
    MessageId, Role, RunId, Timestamp, UpstreamId,
    agents::{Approvers, Outcome, ToolRequest, ToolStatus, call_hash},
    claims::{Access, RoutingClaims},
    event::{
        ApprovalDecision, Event, GroupAgent, GroupConfig, ToolFinished, ToolStarted, TriggerPolicy,
    },
    frame::{GroupFrame, GroupState},
    infra::HistoryMode,
    limits::ROUTING_TOKEN_TTL,
    record::Record,
};

pub(crate) use crate::out::{Out, Verdict};
use crate::{shelf::Shelf, watchers::Watchers};

/// Where a room's time begins; a whole second, as tokens have it.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// An id of any kind.
pub(crate) fn id<T: TryFrom<String, Error: Debug>>(text: impl ToString) -> T {
    T::try_from(text.to_string()).unwrap()
}

/// The connection `conn` of the first upstream.
pub(crate) fn on(conn: &str) -> Address {
    at(1, conn)
}

pub(crate) fn at(upstream: u64, conn: &str) -> Address {
    Address { upstream: UpstreamId(upstream), conn: id(conn) }
}

pub(crate) fn agent(agent_id: &str, trigger: TriggerPolicy) -> GroupAgent {
    GroupAgent { agent_id: id(agent_id), name: agent_id.to_owned(), trigger, outside: false }
}

pub(crate) fn config(version: u64, agents: &[(&str, TriggerPolicy)]) -> GroupConfig {
    let agents = agents.iter().map(|(name, trigger)| agent(name, *trigger)).collect();
    GroupConfig { version, agents, paused: false, ..GroupConfig::default() }
}

pub(crate) fn init(epoch: u64) -> Input {
    Input::Init {
        group_id: id("g1"),
        org_id: id("o1"),
        history_mode: HistoryMode::Internal,
        epoch,
        history: id("h1"),
    }
}

pub(crate) fn completed() -> RunEnd {
    RunEnd::Said(Outcome::Completed { usage: None })
}

pub(crate) fn lost() -> RunEnd {
    RunEnd::Lost { code: "worker_cut", detail: "Gone.".to_owned(), may_have_begun: true }
}

/// A call that an attempt hands over.
pub(crate) fn call(call_id: &str, approvers: Option<Approvers>) -> ToolRequest {
    ToolRequest {
        call_id: id(call_id),
        tool: "send".to_owned(),
        tool_version: 1,
        arguments: format!("{{\"to\":\"{call_id}\"}}"),
        hash: call_hash("send", 1, &serde_json::Value::Null, call_id),
        approvers,
    }
}

/// An attempt ends with calls that it hands over.
pub(crate) fn handed(calls: &[ToolRequest]) -> RunEnd {
    RunEnd::Said(Outcome::ToolRequested {
        calls: calls.to_vec(),
        continuation: "so far".to_owned(),
        usage: None,
    })
}

/// A controller whose organization has no budget, as most have none.
pub(crate) fn without_budget(mut controller: Controller) -> Controller {
    let step = controller.step(START, Input::Unlimited { until: Timestamp::from_millis(u64::MAX) });
    // A summary that was under way is asked for again by whatever comes first.
    assert_eq!(step.events, []);
    controller
}

/// A group and its host.
pub(crate) struct Room {
    pub(crate) controller: Controller,
    pub(crate) now: Timestamp,
    /// Everything that was written, as it came back from its encoding.
    pub(crate) log: Vec<Event>,
    pub(crate) shelf: Shelf,
    pub(crate) watchers: Watchers,
    version: u64,
}

impl Room {
    /// A host without a group.
    pub(crate) fn empty() -> Self {
        Self {
            controller: without_budget(Controller::new()),
            now: START,
            log: Vec::new(),
            shelf: Shelf::default(),
            watchers: Watchers::default(),
            version: 0,
        }
    }

    /// The group `g1` of `o1` in epoch 1, without agents.
    pub(crate) fn new() -> Self {
        let mut room = Self::empty();
        room.step(init(1)).accepted();
        room
    }

    /// A group with agents, named as their ids, and with ann attached on `c1`.
    pub(crate) fn with(agents: &[(&str, TriggerPolicy)]) -> Self {
        let mut room = Self::new();
        room.configure(agents);
        room.attach("c1", "ann").accepted();
        room
    }

    /// Takes an input in and keeps what was written.
    pub(crate) fn step(&mut self, input: Input) -> Out {
        let step = self.controller.step(self.now, input.clone());
        for event in &step.events {
            assert_eq!(event.seq, self.log.len() as u64 + 1, "numbers have no gaps");
            assert_eq!(event.at, self.now);
            let stored = Record::encode(event).decode().unwrap();
            assert_eq!(stored, *event, "an event comes back as it was written");
            self.shelf.keep(event);
            self.log.push(stored);
        }
        for effect in &step.effects {
            if let Effect::Send { frame: GroupFrame::Attached { seq, .. }, .. } = effect {
                assert_eq!(*seq, self.log.len() as u64, "an attach names the step's last event");
            }
        }
        self.watchers.watch(&input, &step);
        assert_eq!(self.controller.connections(), self.watchers.len());
        let durable = self.controller.durable_deadline();
        let alarmed = |deadline| step.wake_at.is_some_and(|wake_at| wake_at <= deadline);
        // A run that waits for leave only has to be asked for again by another process.
        let asked_again = |deadline: &Timestamp| *deadline >= START;
        assert!(
            durable.filter(asked_again).is_none_or(alarmed),
            "the alarm is set for each deadline"
        );
        Out(step)
    }

    pub(crate) fn after(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        self
    }

    pub(crate) fn tick(&mut self) -> Out {
        self.step(Input::Tick)
    }

    /// Gives the group other agents.
    pub(crate) fn configure(&mut self, agents: &[(&str, TriggerPolicy)]) -> Out {
        self.version += 1;
        self.step(Input::Configure(config(self.version, agents))).accepted()
    }

    /// Pauses the agents, or lets them go on.
    pub(crate) fn pause(&mut self, paused: bool) -> Out {
        self.version += 1;
        let agents = self.controller.state().unwrap().config().agents.clone();
        let config =
            GroupConfig { version: self.version, agents, paused, ..GroupConfig::default() };
        self.step(Input::Configure(config)).accepted()
    }

    /// Sets the group's own bounds of discussions.
    pub(crate) fn bounds(&mut self, max_rounds: Option<u32>, cooldown_secs: Option<u64>) -> Out {
        self.version += 1;
        let agents = self.controller.state().unwrap().config().agents.clone();
        let version = self.version;
        let config =
            GroupConfig { version, agents, max_rounds, cooldown_secs, ..GroupConfig::default() };
        self.step(Input::Configure(config))
    }

    /// A routing token of `user` issued now, of the current epoch.
    pub(crate) fn access(&self, user: &str) -> Access {
        let identity = self.controller.state().unwrap().identity();
        let issued_at = Timestamp::from_secs(self.now.secs());
        Access {
            claims: RoutingClaims {
                user_id: id(user),
                org_id: identity.org_id.clone(),
                group_id: identity.group_id.clone(),
                role: Role::Member,
                epoch: identity.epoch,
            },
            issued_at,
            expires_at: issued_at + ROUTING_TOKEN_TTL,
        }
    }

    pub(crate) fn attach(&mut self, conn: &str, user: &str) -> Out {
        self.attach_with(on(conn), self.access(user), None)
    }

    pub(crate) fn attach_as(&mut self, conn: &str, user: &str, role: Role) -> Out {
        let mut access = self.access(user);
        access.claims.role = role;
        self.attach_with(on(conn), access, None)
    }

    pub(crate) fn attach_with(&mut self, from: Address, access: Access, after: Option<u64>) -> Out {
        self.step(Input::Attach { from, r#ref: id("at"), access: Ok(access), after, history: None })
    }

    /// A post, looked up as a host does it.
    pub(crate) fn post_of(&self, conn: &str, message_id: &str, text: &str) -> Post {
        let message_id: MessageId = id(message_id);
        Post {
            from: on(conn),
            r#ref: id("po"),
            found: self.shelf.found(&message_id),
            message_id,
            text: text.to_owned(),
            mentions: None,
            reply_to: None,
            answered: None,
        }
    }

    /// A post that answers another message, looked up as a host does it.
    pub(crate) fn reply_of(&self, conn: &str, message_id: &str, text: &str, to: &str) -> Post {
        let reply_to: MessageId = id(to);
        let answered = self.shelf.target(&reply_to);
        Post { reply_to: Some(reply_to), answered, ..self.post_of(conn, message_id, text) }
    }

    pub(crate) fn post(&mut self, conn: &str, message_id: &str, text: &str) -> Out {
        let post = self.post_of(conn, message_id, text);
        self.step(Input::Post(post))
    }

    pub(crate) fn edit(&mut self, conn: &str, message_id: &str, text: &str) -> Out {
        let message_id = id(message_id);
        let target = self.shelf.target(&message_id);
        let text = text.to_owned();
        self.step(Input::Edit { from: on(conn), r#ref: id("ed"), message_id, text, target })
    }

    pub(crate) fn delete(&mut self, conn: &str, message_id: &str) -> Out {
        let message_id = id(message_id);
        let target = self.shelf.target(&message_id);
        self.step(Input::Delete { from: on(conn), r#ref: id("de"), message_id, target })
    }

    pub(crate) fn react(&mut self, conn: &str, message_id: &str, emoji: &str, on: bool) -> Out {
        let message_id = id(message_id);
        self.step(Input::React(React {
            from: self::on(conn),
            r#ref: id("re"),
            target: self.shelf.target(&message_id),
            reactions: self.shelf.reactions(&message_id),
            message_id,
            emoji: emoji.to_owned(),
            on,
        }))
    }

    pub(crate) fn pin(&mut self, conn: &str, message_id: &str, on: bool) -> Out {
        let message_id = id(message_id);
        let target = self.shelf.target(&message_id);
        self.step(Input::Pin { from: self::on(conn), r#ref: id("pi"), message_id, on, target })
    }

    pub(crate) fn types(&mut self, conn: &str) -> Out {
        self.step(Input::Typing { from: on(conn) })
    }

    /// Posts a text on `c1` under an id of its own.
    pub(crate) fn say(&mut self, text: &str) -> Out {
        let message_id = format!("m{}", self.log.len());
        let post = self.post_of("c1", &message_id, text);
        self.step(Input::Post(post)).accepted()
    }

    /// Posts a text and returns the run that it starts.
    pub(crate) fn wake(&mut self, text: &str) -> RunId {
        let started = self.say(text).invocations();
        assert_eq!(started.len(), 1, "one run starts");
        started[0].request.run_id.clone()
    }

    pub(crate) fn text(&mut self, run_id: &RunId, attempt: u32, offset: u64, text: &str) -> Out {
        let (run_id, text) = (run_id.clone(), text.to_owned());
        self.step(Input::RunText { run_id, attempt, offset, text })
    }

    pub(crate) fn end(&mut self, run_id: &RunId, attempt: u32, end: RunEnd) -> Out {
        self.step(Input::RunEnded { run_id: run_id.clone(), attempt, end })
    }

    /// The first attempt of a run says a text and is done.
    pub(crate) fn reply(&mut self, run_id: &RunId, text: &str) -> Out {
        self.text(run_id, 1, 0, text);
        self.end(run_id, 1, completed())
    }

    pub(crate) fn cancel(&mut self, run_id: &RunId) -> Out {
        self.step(Input::Cancel { from: on("c1"), r#ref: id("ca"), run_id: run_id.clone() })
    }

    pub(crate) fn retry(&mut self, run_id: &RunId) -> Out {
        self.step(Input::Retry { from: on("c1"), r#ref: id("rt"), run_id: run_id.clone() })
    }

    pub(crate) fn let_continue(&mut self, message_id: &MessageId, agent_id: &str) -> Out {
        let (message_id, agent_id) = (message_id.clone(), id(agent_id));
        self.step(Input::Continue { from: on("c1"), r#ref: id("co"), message_id, agent_id })
    }

    pub(crate) fn approve(&mut self, conn: &str, approval_id: &str) -> Out {
        self.decide(conn, approval_id, ApprovalDecision::Approve)
    }

    pub(crate) fn deny(&mut self, conn: &str, approval_id: &str) -> Out {
        self.decide(conn, approval_id, ApprovalDecision::Deny)
    }

    fn decide(&mut self, conn: &str, approval_id: &str, decision: ApprovalDecision) -> Out {
        let (from, approval_id) = (on(conn), id(approval_id));
        self.step(Input::Approve { from, r#ref: id("ap"), approval_id, decision })
    }

    /// The ids of the approvals that are open, as a client that attaches is told.
    pub(crate) fn open_approvals(&mut self) -> Vec<String> {
        let approvals = self.view().approvals;
        approvals.iter().map(|approval| approval.requested.approval_id.to_string()).collect()
    }

    /// What a client that attaches is told.
    pub(crate) fn view(&mut self) -> GroupState {
        let frames = self.attach("looker", "looker").to(&on("looker"));
        let Some(GroupFrame::Attached { state, .. }) = frames.into_iter().next() else {
            panic!("it is attached")
        };
        self.step(Input::Detach { from: on("looker"), r#ref: id("de") }).accepted();
        state
    }

    pub(crate) fn begins(&mut self, run_id: &RunId, attempt: u32, call_id: &str) -> Out {
        self.step(Input::ToolStarted(ToolStarted {
            run_id: run_id.clone(),
            attempt,
            call_id: id(call_id),
            tool: "look".to_owned(),
            arguments: "{}".to_owned(),
        }))
    }

    pub(crate) fn ends(&mut self, run_id: &RunId, attempt: u32, call_id: &str) -> Out {
        self.step(Input::ToolFinished(ToolFinished {
            run_id: run_id.clone(),
            attempt,
            call_id: id(call_id),
            status: ToolStatus::Ok,
            summary: "done".to_owned(),
        }))
    }

    /// The process ends; another rebuilds the group from what was written.
    pub(crate) fn crash(&mut self) -> Out {
        self.rebuild_with_budget();
        // Before anything is due: nothing but what was under way outside of runs is asked for again.
        let unlimited = Input::Unlimited { until: Timestamp::from_millis(u64::MAX) };
        let first = self.controller.step(START, unlimited);
        assert_eq!(first.events, []);
        let mut out = self.step(Input::Recovered);
        out.0.effects.splice(0..0, first.effects);
        out
    }

    /// Another process takes the group over; everybody is gone.
    pub(crate) fn rebuild(&mut self) {
        self.controller = without_budget(Controller::rebuild(None, self.log.clone()).unwrap());
        self.watchers = Watchers::default();
    }

    /// The same, of an organization that may have a budget.
    pub(crate) fn rebuild_with_budget(&mut self) {
        self.controller = Controller::rebuild(None, self.log.clone()).unwrap();
        self.watchers = Watchers::default();
    }

    pub(crate) fn seq(&self) -> u64 {
        self.log.len() as u64
    }

    /// The phase of a run that has not ended.
    pub(crate) fn phase(&self, run_id: &RunId) -> Option<Phase> {
        let runs = self.controller.state().unwrap().runs();
        runs.iter().find(|run| run.run_id == *run_id).map(|run| run.phase.clone())
    }

    /// The agents that work, and those that wait, in the order of their triggers.
    pub(crate) fn working_and_waiting(&self) -> (Vec<String>, Vec<String>) {
        let runs = self.controller.state().unwrap().runs();
        let (waiting, working): (Vec<_>, Vec<_>) = runs.iter().partition(|run| !run.phase.works());
        let names = |runs: Vec<&convene_group_controller::Run>| {
            runs.iter().map(|run| run.agent_id.to_string()).collect()
        };
        (names(working), names(waiting))
    }
}

/// Each room that was built ends as its events alone would have it.
impl Drop for Room {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let rebuilt = Controller::rebuild(None, self.log.clone()).unwrap();
            assert_eq!(rebuilt.state(), self.controller.state(), "the state is a fold over events");
            if let Some(state) = rebuilt.state() {
                self.shelf.check_pins(state.pins());
            }
        }
    }
}
