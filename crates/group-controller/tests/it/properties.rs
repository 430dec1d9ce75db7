//! What holds whatever happens: for random inputs at random times, crashes included.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use convene_group_controller::{Controller, Effect, Input, Phase, Post, RunEnd};
use convene_model::{
    Code, Role, RunId, Timestamp, UpstreamId,
    agents::Outcome,
    event::{Decision, Event, EventKind, GroupConfig, TriggerPolicy},
    frame::GroupFrame,
    infra::HistoryMode,
    limits::{MAX_ATTEMPTS, MAX_ROUNDS, MAX_RUNS_AT_ONCE},
};
use proptest::prelude::*;

use crate::harness::{Out, Room, agent, at, id};

/// Something that happens to a group, small enough that things meet often.
#[derive(Debug, Clone)]
enum Act {
    Wait(u64),
    Init {
        epoch: u64,
        org: u8,
        external: bool,
    },
    Configure {
        ahead: u64,
        policies: Vec<Option<TriggerPolicy>>,
        paused: bool,
    },
    Attach {
        conn: u8,
        user: u8,
        epoch_off: u64,
        age: u64,
        role: Role,
        after: Option<u64>,
        history: u8,
    },
    BadToken(u8),
    Detach(u8),
    Closed(u8),
    Revoke(u8),
    Post {
        conn: u8,
        message: u8,
        text: String,
        mentions: Option<Vec<u8>>,
        answers: Option<u8>,
    },
    Cancel {
        conn: u8,
        run: usize,
    },
    Refuse(u8),
    /// Text of a run: which, how far its attempt and its offset are from the right ones.
    Text {
        run: usize,
        attempt_off: i8,
        offset_off: u64,
        text: String,
    },
    End {
        run: usize,
        attempt_off: i8,
        end: u8,
    },
    Tick,
    Crash,
}

fn policy() -> impl Strategy<Value = TriggerPolicy> {
    prop_oneof![Just(TriggerPolicy::Off), Just(TriggerPolicy::Mention), Just(TriggerPolicy::Auto)]
}

/// A text that may mention agents, be empty, or be far too long.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(vec!["@a0", "@a1", "@a2", "@a3", "@a4", "@a5"]).prop_map(String::from),
        2 => prop::sample::select(vec!["hi", "ü€😀", "\u{0}", "@", "me@a1"]).prop_map(String::from),
        1 => ".{0,8}",
    ];
    prop_oneof![
        20 => prop::collection::vec(word, 0..5).prop_map(|words| words.join(" ")),
        4 => Just("@a5 @a4 @a3 @a2 @a1 @a0".to_owned()),
        3 => (20_000..40_000_usize).prop_map(|length| "long ".repeat(length / 5)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let wait = prop_oneof![40 => 0..20_000_u64, 12 => 60_000..400_000_u64, 1 => Just(u64::MAX / 2)];
    let role = prop_oneof![6 => Just(Role::Member), 1 => Just(Role::Agent), 1 => Just(Role::Owner)];
    let after = prop::option::of(prop_oneof![8 => 0..40_u64, 1 => any::<u64>()]);
    let attempt_off = prop_oneof![8 => Just(0_i8), 1 => Just(-1_i8), 1 => Just(1_i8)];
    let offset_off = prop_oneof![8 => Just(0_u64), 1 => 1..4_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        4 => wait.prop_map(Act::Wait),
        2 => (0..4_u64, 0..8_u8, prop::bool::weighted(0.1))
            .prop_map(|(epoch, org, external)| Act::Init { epoch, org, external }),
        3 => (0..3_u64, prop::collection::vec(prop::option::weighted(0.9, policy()), 0..7), prop::bool::weighted(0.2))
            .prop_map(|(ahead, policies, paused)| Act::Configure { ahead, policies, paused }),
        6 => (0..4_u8, 0..3_u8, prop_oneof![8 => Just(0_u64), 1 => Just(1_u64)], 0..400_u64, role, after, 0..8_u8)
            .prop_map(|(conn, user, epoch_off, age, role, after, history)| {
                Act::Attach { conn, user, epoch_off, age, role, after, history }
            }),
        1 => (0..4_u8).prop_map(Act::BadToken),
        1 => (0..4_u8).prop_map(Act::Detach),
        1 => (0..2_u8).prop_map(Act::Closed),
        1 => (0..3_u8).prop_map(Act::Revoke),
        12 => (0..4_u8, any::<u8>(), text(), prop::option::weighted(0.3, prop::collection::vec(0..7_u8, 0..4)), prop::option::weighted(0.2, any::<u8>()))
            .prop_map(|(conn, message, text, mentions, answers)| {
                Act::Post { conn, message, text, mentions, answers }
            }),
        2 => (0..4_u8, 0..6_usize).prop_map(|(conn, run)| Act::Cancel { conn, run }),
        1 => (0..4_u8).prop_map(Act::Refuse),
        10 => (0..5_usize, attempt_off.clone(), offset_off, text())
            .prop_map(|(run, attempt_off, offset_off, text)| Act::Text { run, attempt_off, offset_off, text }),
        10 => (0..5_usize, attempt_off, 0..6_u8)
            .prop_map(|(run, attempt_off, end)| Act::End { run, attempt_off, end }),
        2 => Just(Act::Tick),
        1 => Just(Act::Crash),
    ]
}

/// Acts on a group that exists; half of the time one with agents and somebody attached.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let ready = [
        Act::Configure { ahead: 2, policies: vec![Some(TriggerPolicy::Mention); 6], paused: false },
        Act::Attach {
            conn: 0,
            user: 0,
            epoch_off: 0,
            age: 0,
            role: Role::Member,
            after: None,
            history: 0,
        },
    ];
    (any::<bool>(), prop::collection::vec(act(), 1..80)).prop_map(move |(prepared, acts)| {
        if prepared { ready.iter().cloned().chain(acts).collect() } else { acts }
    })
}

/// What the room's controller was given: enough to do it all again.
#[derive(Debug, Clone)]
enum Given {
    Input(Timestamp, Box<Input>),
    Crash(u64),
}

/// A room that acts happen to, with how much of each reply was sent.
struct World {
    room: Room,
    given: Vec<Given>,
    sent: BTreeMap<(RunId, u32), u64>,
}

impl World {
    fn new() -> Self {
        let mut world = Self { room: Room::empty(), given: vec![], sent: BTreeMap::new() };
        world.step(crate::harness::init(1));
        world
    }

    fn step(&mut self, input: Input) -> Out {
        self.given.push(Given::Input(self.room.now, Box::new(input.clone())));
        self.room.step(input)
    }

    /// The run that is so far down the list, working ones more often than not.
    fn run(&self, index: usize) -> Option<(RunId, u32)> {
        let runs = self.room.controller.state()?.runs();
        let run = runs.get(index.min(runs.len().checked_sub(1)?))?;
        Some((run.run_id.clone(), run.phase.attempt()))
    }

    /// Lets an act happen; `None` when it says nothing to the controller.
    fn act(&mut self, act: Act) -> Option<Out> {
        let conn = |conn: u8| at(u64::from(conn % 2), &format!("c{conn}"));
        let input = match act {
            Act::Wait(millis) => {
                let to = self.room.now.millis().saturating_add(millis).min(u64::MAX / 4);
                self.room.now = Timestamp::from_millis(to);
                return None;
            }
            Act::Crash => {
                self.given.push(Given::Crash(self.room.seq()));
                self.room.controller = Controller::rebuild(None, self.room.log.clone()).unwrap();
                self.sent.clear();
                Input::Recovered
            }
            Act::Init { epoch, org, external } => Input::Init {
                group_id: id("g1"),
                org_id: id(if org == 0 { "o2" } else { "o1" }),
                history_mode: if external { HistoryMode::External } else { HistoryMode::Internal },
                epoch,
                history: id("h1"),
            },
            Act::Configure { ahead, policies, paused } => {
                let version = self.room.controller.state().unwrap().config().version + ahead;
                let named = policies.iter().enumerate();
                let agents = named
                    .filter_map(|(index, policy)| Some(agent(&format!("a{index}"), (*policy)?)));
                Input::Configure(GroupConfig {
                    version,
                    agents: agents.collect(),
                    paused,
                    ..GroupConfig::default()
                })
            }
            Act::Attach { conn: c, user, epoch_off, age, role, after, history } => {
                let mut access = self.room.access(&format!("u{user}"));
                access.claims.epoch += epoch_off;
                access.claims.role = role;
                let age = Duration::from_secs(age);
                access.issued_at = access.issued_at - age;
                access.expires_at = access.expires_at - age;
                let history = [None, Some(id("h1")), Some(id("h2"))]
                    .into_iter()
                    .nth(history.into())
                    .flatten();
                Input::Attach { from: conn(c), r#ref: id("1"), access: Ok(access), after, history }
            }
            Act::BadToken(c) => Input::Attach {
                from: conn(c),
                r#ref: id("1"),
                access: Err(Code::Unauthorized),
                after: None,
                history: None,
            },
            Act::Detach(c) => Input::Detach { from: conn(c), r#ref: id("1") },
            Act::Closed(upstream) => Input::Closed(UpstreamId(upstream.into())),
            Act::Revoke(user) => Input::Revoke(id(format!("u{user}"))),
            Act::Post { conn: c, message, text, mentions, answers } => {
                let reply_to = answers.map(|answers| id(format!("m{answers}")));
                let named = |names: Vec<u8>| names.iter().map(|n| id(format!("a{n}"))).collect();
                Input::Post(Post {
                    from: conn(c),
                    reply_to_exists: reply_to.as_ref().is_none_or(|id| self.room.exists(id)),
                    reply_to,
                    mentions: mentions.map(named),
                    ..self.room.post_of("c0", &format!("m{message}"), &text)
                })
            }
            Act::Cancel { conn: c, run } => Input::Cancel {
                from: conn(c),
                r#ref: id("1"),
                run_id: self.run(run).map_or_else(|| id("r1-0"), |(run_id, _)| run_id),
            },
            Act::Refuse(c) => Input::Refuse {
                from: conn(c),
                r#ref: None,
                code: Code::InvalidFrame,
                detail: String::new(),
                retry_after_ms: None,
            },
            Act::Text { run, attempt_off, offset_off, text } => {
                let (run_id, attempt) = self.run(run)?;
                let sent = self.sent.entry((run_id.clone(), attempt)).or_default();
                let offset = sent.saturating_add(offset_off);
                if attempt_off == 0 && offset_off == 0 && attempt > 0 {
                    *sent += text.len() as u64;
                }
                let attempt = attempt.saturating_add_signed(attempt_off.into());
                Input::RunText { run_id, attempt, offset, text }
            }
            Act::End { run, attempt_off, end } => {
                let (run_id, attempt) = self.run(run)?;
                let attempt = attempt.saturating_add_signed(attempt_off.into());
                let end = match end {
                    0 => RunEnd::Lost { code: "worker_cut", detail: "Gone.".into() },
                    1 => RunEnd::Said(Outcome::Failed {
                        code: "provider_error".into(),
                        detail: "Broken.".into(),
                        retry_after_ms: None,
                    }),
                    _ => crate::harness::completed(),
                };
                Input::RunEnded { run_id, attempt, end }
            }
            Act::Tick => Input::Tick,
        };
        Some(self.step(input))
    }
}

/// Does again what was done to a controller and returns it with its last step.
fn again(given: &[Given], log: &[Event], mut seen: impl FnMut(usize, &Out)) -> Controller {
    let mut controller = Controller::new();
    for (index, given) in given.iter().enumerate() {
        match given {
            Given::Input(now, input) => {
                let step = controller.step(*now, (**input).clone());
                seen(index, &Out(step));
            }
            Given::Crash(seq) => {
                let written = log[..*seq as usize].to_vec();
                controller = Controller::rebuild(None, written).unwrap();
            }
        }
    }
    controller
}

/// Runs that work: at most so many, at most one for each agent, each of an agent of the group.
fn check_runs(room: &Room) {
    let state = room.controller.state().unwrap();
    let working: Vec<_> = state.runs().iter().filter(|run| run.phase != Phase::Queued).collect();
    assert!(working.len() <= MAX_RUNS_AT_ONCE);
    let agents: BTreeSet<_> = working.iter().map(|run| &run.agent_id).collect();
    assert_eq!(agents.len(), working.len(), "one run for each agent");
    for run in state.runs() {
        assert!(state.config().agents.iter().any(|agent| agent.agent_id == run.agent_id));
        assert!(run.phase.attempt() <= MAX_ATTEMPTS);
    }
    if !state.config().paused && working.len() < MAX_RUNS_AT_ONCE {
        let idle = state.runs().iter().find(|run| !agents.contains(&run.agent_id));
        assert_eq!(idle, None, "nobody waits who could work");
    }
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

/// A log in which each run that was accepted ends at most once and says nothing afterwards.
fn check_log(room: &Room) {
    let mut open = BTreeSet::new();
    let mut ended = BTreeSet::new();
    for event in &room.log {
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
            }
            EventKind::MessagePosted(posted) => {
                assert!(posted.hop <= MAX_ROUNDS, "agents answer each other so far and no further");
                assert_eq!(posted.hop == 0, posted.root == posted.message_id);
                if let Some(run_id) = &posted.run_id {
                    assert!(open.contains(run_id), "a reply comes before the end of its run");
                }
            }
            EventKind::GroupActivated(_)
            | EventKind::GroupConfigured(_)
            | EventKind::EpochRaised { .. }
            | EventKind::AccessRevoked { .. } => {}
            EventKind::MessageEdited(_)
            | EventKind::MessageDeleted(_)
            | EventKind::MessagePinned(_)
            | EventKind::MessageUnpinned(_)
            | EventKind::ReactionAdded(_)
            | EventKind::ReactionRemoved(_)
            | EventKind::ApprovalRequested(_)
            | EventKind::ApprovalResolved(_)
            | EventKind::ApprovalExpired(_) => panic!("nothing makes these yet: {event:?}"),
        }
    }
    let running: BTreeSet<_> =
        room.controller.state().unwrap().runs().iter().map(|run| run.run_id.clone()).collect();
    assert_eq!(open, running, "what has not ended is known to run");
}

/// A call belongs to an attempt that was recorded in the same step, and shows its trigger.
fn check_calls(out: &Out) {
    for call in out.invocations() {
        let request = &call.request;
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
        for act in acts {
            let Some(out) = world.act(act) else { continue };
            check_calls(&out);
            check_runs(&world.room);
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
        prop_assert_eq!(rebuilt.snapshot(), world.room.controller.snapshot());
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
