//! What holds whatever happens: for random inputs at random times, crashes included.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use convene_group_controller::{Address, Controller, Effect, Input, Phase};
use convene_model::{
    AgentId, ApprovalId, CallId, MessageId, Role, RunId, Timestamp, UserId,
    agents::{ToolStatus, Verdict},
    event::{
        Author, Candidate, Decision, Event, EventKind, GroupConfig, TriggerPolicy, WakeReason,
    },
    frame::GroupFrame,
    limits::{AGENT_COOLDOWN, MAX_ATTEMPTS, MAX_ROUNDS, MAX_RUNS_AT_ONCE, MAX_TOOL_ROUNDS},
};
use proptest::prelude::*;

use crate::{
    acts::{Given, World, acts, again},
    harness::{Out, Room},
};

/// Runs that work: at most so many, at most one for each agent, each of an agent of the group.
fn check_runs(room: &Room) {
    let state = room.controller.state().unwrap();
    let working: Vec<_> = state.runs().iter().filter(|run| run.phase.works()).collect();
    assert!(working.len() <= MAX_RUNS_AT_ONCE);
    let agents: BTreeSet<_> = working.iter().map(|run| &run.agent_id).collect();
    assert_eq!(agents.len(), working.len(), "one run for each agent");
    for run in state.runs() {
        assert!(state.config().agents.iter().any(|agent| agent.agent_id == run.agent_id));
        let open = open_of(room, &run.run_id);
        assert_eq!(run.phase == Phase::Waiting, open > 0, "it waits while it asks: {run:?}");
    }
    if !state.config().paused && working.len() < MAX_RUNS_AT_ONCE {
        let mut queued = state.runs().iter().filter(|run| run.phase == Phase::Queued);
        let idle = queued.find(|run| !agents.contains(&run.agent_id));
        assert_eq!(idle, None, "nobody waits who could work");
    }
}

/// How many approvals of a run are open, counted from the events.
fn open_of(room: &Room, run_id: &RunId) -> usize {
    room.log.iter().fold(0, |open, event| match &event.kind {
        EventKind::ApprovalRequested(asked) if asked.run_id == *run_id => open + 1,
        EventKind::ApprovalResolved(resolved) if resolved.run_id == *run_id => open - 1,
        EventKind::ApprovalExpired(expired) if expired.run_id == *run_id => open - 1,
        _ => open,
    })
}

/// A step that was called a refusal did no more than a tick would have done, but say so.
fn check_refusal(world: &World, out: &Out) {
    if out.0.answer.is_ok() {
        return;
    }
    let (last, before) = world.given.split_last().unwrap();
    let Given::Input(now, _) = last else { panic!("a refusal is of an input") };
    let log = &world.room.log;
    let mut other = again(before, log, |_, _| {});
    let tick = other.step(*now, Input::Tick);
    assert_eq!(out.0.events, tick.events);
    let (own, said) = out.0.effects.split_at(tick.effects.len());
    assert_eq!(own, tick.effects);
    assert_eq!(world.room.controller.connections(), other.connections());
    assert_eq!(out.0.wake_at, tick.wake_at);
    let errors = said
        .iter()
        .all(|effect| matches!(effect, Effect::Send { frame: GroupFrame::Error { .. }, .. }));
    assert!(errors && said.len() <= 1, "{said:?}");
}

/// What stands still does so until its directory lets it go on: nothing else happens in it, it
/// admits nobody, no agent works for it and nothing will wake it.
fn check_still(room: &Room, frozen_at: &mut Option<u64>, out: &Out) {
    for event in &out.0.events {
        match &event.kind {
            EventKind::GroupFrozen { .. } => *frozen_at = Some(event.seq),
            EventKind::GroupThawed(_) | EventKind::GroupRestored(_) => *frozen_at = None,
            kind => assert_eq!(*frozen_at, None, "{kind:?}"),
        }
    }
    let state = room.controller.state().unwrap();
    assert_eq!(state.frozen().is_some(), frozen_at.is_some());
    if let Some(seq) = frozen_at {
        assert_eq!(state.seq(), *seq, "the freeze is the last event");
        assert_eq!(room.controller.connections(), 0);
        assert!(state.runs().is_empty() && out.0.wake_at.is_none());
    }
}

/// A log in which each run that was accepted ends at most once and says nothing afterwards.
fn check_log(room: &Room) {
    let mut open = BTreeSet::new();
    let mut ended = BTreeSet::new();
    let mut work = Work::default();
    let mut bounds = Bounds::default();
    for event in &room.log {
        work.see(event);
        bounds.see(event);
        match &event.kind {
            EventKind::TriggerDecided(decided) => {
                for candidate in &decided.candidates {
                    if let Decision::Accepted { run_id, .. } = &candidate.decision {
                        assert!(
                            open.insert(run_id.clone()) && !ended.contains(run_id),
                            "{run_id} is new"
                        );
                    }
                }
            }
            EventKind::RunStarted(started) => assert!(open.contains(&started.run_id)),
            EventKind::RunStreaming { run_id, .. } => assert!(open.contains(run_id)),
            EventKind::RunFinished(finished) => {
                assert!(open.remove(&finished.run_id), "{} ends once", finished.run_id);
                ended.insert(finished.run_id.clone());
                work.ended(&finished.run_id);
            }
            EventKind::MessagePosted(posted) => {
                assert_eq!(posted.hop == 0, posted.root == posted.message_id);
                if let Some(run_id) = &posted.run_id {
                    assert!(open.contains(run_id), "a reply comes before the end of its run");
                }
            }
            EventKind::GroupActivated(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::AccessRevoked { .. }
            | EventKind::GroupThawed(_)
            | EventKind::GroupRestored(_)
            | EventKind::SummaryRecorded(_)
            | EventKind::HistoryExported { .. } => {}
            EventKind::GroupFrozen { .. } => assert!(open.is_empty(), "the runs have ended"),
            // The shelf has checked these against each other as they came.
            EventKind::MessageEdited(_)
            | EventKind::MessageDeleted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_) => {}
            EventKind::ToolsRequested(asked) => assert!(open.contains(&asked.run_id)),
            EventKind::ToolStarted(started) => assert!(open.contains(&started.run_id)),
            EventKind::ToolFinished(finished) => assert!(open.contains(&finished.run_id)),
            EventKind::ApprovalRequested(asked) => assert!(open.contains(&asked.run_id)),
            EventKind::ApprovalVoted(voted) => assert!(open.contains(&voted.run_id)),
            EventKind::ApprovalResolved(resolved) => assert!(open.contains(&resolved.run_id)),
            EventKind::ApprovalExpired(expired) => assert!(open.contains(&expired.run_id)),
            EventKind::GroupAdopted(_) => panic!("nothing makes these yet: {event:?}"),
        }
    }
    let running: BTreeSet<_> =
        room.controller.state().unwrap().runs().iter().map(|run| run.run_id.clone()).collect();
    assert_eq!(open, running, "what has not ended is known to run");
}

/// A call and an approval end once, and before their run does; a run has so many attempts that were
/// cut off, and so many hand-overs.
#[derive(Default)]
struct Work {
    calls: BTreeSet<(RunId, CallId)>,
    approvals: BTreeMap<ApprovalId, RunId>,
    closed: BTreeSet<ApprovalId>,
    attempts: BTreeMap<RunId, (u32, u32)>,
}

impl Work {
    fn see(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted(started) => {
                let (attempts, rounds) = self.attempts.entry(started.run_id.clone()).or_default();
                *attempts += 1;
                assert_eq!(started.attempt, *attempts, "attempts are counted without gaps");
                assert!(*attempts <= MAX_ATTEMPTS + *rounds && *rounds <= MAX_TOOL_ROUNDS);
            }
            EventKind::ToolsRequested(asked) => {
                self.attempts.entry(asked.run_id.clone()).or_default().1 += 1;
            }
            EventKind::ToolStarted(started) => {
                let call = (started.run_id.clone(), started.call_id.clone());
                assert!(self.calls.insert(call), "a call begins once");
            }
            EventKind::ToolFinished(finished) => {
                let call = (finished.run_id.clone(), finished.call_id.clone());
                let begun = self.calls.remove(&call);
                assert!(begun || finished.status == ToolStatus::Denied, "a call ends once");
            }
            EventKind::ApprovalRequested(asked) => {
                self.approvals.insert(asked.approval_id.clone(), asked.run_id.clone());
            }
            EventKind::ApprovalResolved(resolved) => self.close(&resolved.approval_id),
            EventKind::ApprovalExpired(expired) => self.close(&expired.approval_id),
            _ => {}
        }
    }

    fn close(&mut self, approval_id: &ApprovalId) {
        assert!(self.approvals.remove(approval_id).is_some(), "an approval was asked for");
        assert!(self.closed.insert(approval_id.clone()), "an approval ends once");
    }

    fn ended(&self, run_id: &RunId) {
        assert!(self.calls.iter().all(|(of, _)| of != run_id), "its calls have ended");
        assert!(self.approvals.values().all(|of| of != run_id), "its approvals have ended");
    }
}

/// What agents wake keeps to the rounds and to the cooldown that hold at that moment, counted from
/// the events alone.
#[derive(Default)]
struct Bounds {
    config: GroupConfig,
    rounds: BTreeMap<MessageId, u32>,
    runs: Vec<Woken>,
    started: BTreeMap<AgentId, Timestamp>,
}

/// A run, as much of it as counts here.
struct Woken {
    run_id: RunId,
    agent_id: AgentId,
    message_id: MessageId,
    round: u32,
    begun: bool,
}

impl Bounds {
    fn see(&mut self, event: &Event) {
        match &event.kind {
            EventKind::GroupConfigured(config) => {
                self.config = config.clone();
                let in_group = |id: &AgentId| config.agents.iter().any(|a| a.agent_id == *id);
                self.started.retain(|agent_id, _| in_group(agent_id));
            }
            EventKind::MessagePosted(posted) => {
                let run = posted.run_id.as_ref().map(|run_id| self.run(run_id).round);
                self.rounds.insert(posted.message_id.clone(), run.map_or(0, |round| round + 1));
            }
            EventKind::RunStarted(started) => {
                self.started.insert(started.agent_id.clone(), event.at);
                self.run(&started.run_id).begun = true;
            }
            EventKind::RunFinished(finished) => {
                self.run(&finished.run_id).begun = true;
            }
            EventKind::TriggerDecided(decided) => {
                for candidate in &decided.candidates {
                    self.accepted(event.at, &decided.message_id, candidate);
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, run_id: &RunId) -> &mut Woken {
        self.runs.iter_mut().find(|run| run.run_id == *run_id).unwrap()
    }

    fn accepted(&mut self, at: Timestamp, message_id: &MessageId, candidate: &Candidate) {
        let Decision::Accepted { reason, run_id } = &candidate.decision else { return };
        let agent_id = &candidate.agent_id;
        let round = self.rounds[message_id];
        if matches!(reason, WakeReason::Auto | WakeReason::Discussion) {
            let cooldown = self.config.cooldown_secs.map_or(AGENT_COOLDOWN, Duration::from_secs);
            let last = self.started.get(agent_id);
            assert!(last.is_none_or(|last| at.since(*last) >= cooldown), "it has cooled down");
            let queued = self.runs.iter().any(|run| run.agent_id == *agent_id && !run.begun);
            assert!(!queued, "it waits once");
        }
        if *reason == WakeReason::Discussion {
            let most = self.config.max_rounds.unwrap_or(MAX_ROUNDS);
            assert!(round < most, "agents answer each other so far and no further");
        }
        let round = match reason {
            WakeReason::Continue => 0,
            // As far as the run was that is made again.
            WakeReason::Retry => {
                let of_it =
                    |run: &&Woken| run.agent_id == *agent_id && run.message_id == *message_id;
                self.runs.iter().rfind(of_it).unwrap().round
            }
            _ => round,
        };
        self.runs.push(Woken {
            run_id: run_id.clone(),
            agent_id: agent_id.clone(),
            message_id: message_id.clone(),
            round,
            begun: false,
        });
    }
}

/// What was done to a message was done by somebody who may.
fn check_permissions(given: &Given, roles: &Roles, out: &Out) {
    let Given::Input(_, input) = given else { return };
    let (from, target) = match &**input {
        Input::Edit { from, target, .. }
        | Input::Delete { from, target, .. }
        | Input::Pin { from, target, .. } => (from, target),
        Input::React(react) => (&react.from, &react.target),
        _ => return,
    };
    if out.0.answer.is_err() {
        return;
    }
    let (user, role) = &roles.0[from];
    let target = target.as_ref().expect("what is done is done to a message");
    let own = target.author == Author::User(user.clone());
    let may = match **input {
        Input::Edit { .. } => own,
        Input::Delete { .. } => own || matches!(role, Role::Admin | Role::Owner),
        _ => *role != Role::Agent,
    };
    assert!(may, "{role} {input:?}");
    for event in &out.0.events {
        let by = match &event.kind {
            EventKind::MessageEdited(edited) => &edited.author,
            EventKind::MessageDeleted(deleted) => &deleted.author,
            EventKind::MessagePinned(pinned) | EventKind::MessageUnpinned(pinned) => &pinned.author,
            EventKind::ReactionAdded(reaction) | EventKind::ReactionRemoved(reaction) => {
                &reaction.author
            }
            _ => continue,
        };
        assert_eq!(*by, Author::User(user.clone()));
    }
}

/// Who is attached where, as what: the last attach that was accepted says it.
#[derive(Default)]
struct Roles(BTreeMap<Address, (UserId, Role)>);

impl Roles {
    fn learn(&mut self, given: &Given, out: &Out) {
        let Given::Input(_, input) = given else { return };
        if let Input::Attach { from, access: Ok(access), .. } = &**input
            && matches!(
                out.to(from).last(),
                Some(GroupFrame::Attached { .. } | GroupFrame::Delta { .. })
            )
        {
            let claims = &access.claims;
            self.0.insert(from.clone(), (claims.user_id.clone(), claims.role));
        }
    }
}

/// A call belongs to an attempt that was recorded in the same step, and shows its trigger.
fn check_calls(out: &Out) {
    for call in out.invocations() {
        let request = &call.request;
        let resumes = out.0.events.iter().filter_map(|event| match &event.kind {
            EventKind::ToolStarted(started) if started.run_id == request.run_id => Some(started),
            _ => None,
        });
        for started in resumes {
            let calls = request.resume.iter().flat_map(|resume| &resume.calls);
            let made = calls.filter(|call| call.call_id == started.call_id);
            assert!(made.into_iter().any(|call| call.verdict == Verdict::Make), "{started:?}");
        }
        let recorded = out.0.events.iter().any(|event| {
            matches!(&event.kind, EventKind::RunStarted(started)
                if started.run_id == request.run_id && started.attempt == request.attempt)
        });
        assert!(recorded, "{request:?}");
        assert!(request.messages.iter().any(|message| message.message_id == request.trigger));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Also: no input makes it panic, and the room's harness finds the numbers without gaps.
    #[test]
    fn the_rules_of_runs_and_refusals_hold_whatever_happens(acts in acts()) {
        let mut world = World::new();
        let mut roles = Roles::default();
        let mut frozen_at = None;
        for act in acts {
            let Some(out) = world.act(act) else { continue };
            let given = world.given.last().unwrap();
            check_permissions(given, &roles, &out);
            roles.learn(given, &out);
            check_calls(&out);
            check_runs(&world.room);
            check_still(&world.room, &mut frozen_at, &out);
            check_refusal(&world, &out);
        }
        check_log(&world.room);
    }

    #[test]
    fn the_state_is_the_same_from_a_snapshot_at_any_point_and_the_events_after_it(
        acts in acts(),
        point in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        let point = point.index(acts.len());
        let mut kept = (None, 0);
        for (index, act) in acts.into_iter().enumerate() {
            world.act(act);
            if index == point {
                kept = (world.room.controller.snapshot(), world.room.seq() as usize);
            }
        }
        let (snapshot, seq) = kept;
        let later = world.room.log[seq..].to_vec();
        let rebuilt = Controller::rebuild(snapshot.as_deref(), later).unwrap();
        prop_assert_eq!(rebuilt.state(), world.room.controller.state());
        prop_assert_eq!(rebuilt.durable_deadline(), world.room.controller.durable_deadline());
        // The text so far of replies stands beside the state; it is as old as the snapshot.
        let state = |controller: &Controller| {
            let snapshot: Option<serde_json::Value> =
                controller.snapshot().map(|bytes| serde_json::from_slice(&bytes).unwrap());
            snapshot.map(|snapshot| snapshot["state"].to_string())
        };
        prop_assert_eq!(state(&rebuilt), state(&world.room.controller));
    }

    #[test]
    fn the_same_inputs_have_the_same_steps(acts in acts()) {
        let mut world = World::new();
        let mut outs = Vec::new();
        for act in acts {
            outs.extend(world.act(act));
        }
        let inputs = world.given.iter().enumerate().filter(|(_, given)| matches!(given, Given::Input(..)));
        // The first input is the init, which the world gave by itself.
        let expected: BTreeMap<usize, Out> = inputs.map(|(index, _)| index).skip(1).zip(outs).collect();
        again(&world.given, &world.room.log, |index, out| {
            assert!(expected.get(&index).is_none_or(|first| first == out), "step {index}");
        });
    }

    /// Agents that always mention everybody, with a person who does too, come to rest by themselves.
    #[test]
    fn a_discussion_among_eager_agents_ends(
        agents in 2..6_usize,
        pauses in prop::collection::vec(0..40_u64, 1..30),
    ) {
        let names: Vec<String> = (0..agents).map(|index| format!("a{index}")).collect();
        let agents: Vec<_> = names.iter().map(|name| (name.as_str(), TriggerPolicy::Auto)).collect();
        let mut room = Room::with(&agents);
        let everybody: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        room.say(&everybody.join(" "));
        let mut replies = 0;
        while let Some(run) = room.controller.state().unwrap().runs().first().cloned() {
            room.after(Duration::from_secs(pauses[replies % pauses.len()]));
            room.reply(&run.run_id, &everybody.join(" "));
            replies += 1;
            prop_assert!(replies <= agents.len() + agents.len() * agents.len(), "it never ends");
        }
        check_log(&room);
    }
}
