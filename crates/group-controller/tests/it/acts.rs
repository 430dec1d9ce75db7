//! Random inputs at random times, crashes included, and the world that they happen to.

use std::{collections::BTreeMap, time::Duration};

use convene_group_controller::{Controller, Input, Post, React, RunEnd};
use convene_model::{
    Code, MessageId, Role, RunId, Timestamp, UpstreamId,
    agents::{Approvers, Outcome, ToolStatus},
    event::{
        ApprovalDecision, Event, EventKind, GroupConfig, ToolFinished, ToolStarted, TriggerPolicy,
    },
    infra::HistoryMode,
};
use proptest::prelude::*;

use crate::harness::{Out, Room, agent, at, call, handed, id, without_budget};

/// Something that happens to a group, small enough that things meet often.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Wait(u64),
    Init {
        epoch: u64,
        org: u8,
        external: bool,
    },
    /// Whose attempt, and how far its epoch is from the group's.
    Freeze {
        archive: u8,
        ahead: i8,
    },
    Thaw {
        archive: u8,
        ahead: i8,
    },
    Restore {
        ahead: i8,
    },
    Configure {
        ahead: u64,
        policies: Vec<Option<TriggerPolicy>>,
        paused: bool,
        max_rounds: Option<u32>,
        cooldown_secs: Option<u64>,
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
    Edit {
        conn: u8,
        message: Which,
        text: String,
    },
    Delete {
        conn: u8,
        message: Which,
    },
    React {
        conn: u8,
        message: Which,
        emoji: &'static str,
        on: bool,
    },
    Pin {
        conn: u8,
        message: Which,
        on: bool,
    },
    Typing(u8),
    Cancel {
        conn: u8,
        run: usize,
    },
    /// Decides about one of the approvals that were asked for, counted from the last.
    Approve {
        conn: u8,
        back: usize,
        decision: ApprovalDecision,
    },
    Continue {
        conn: u8,
        message: Which,
        agent: u8,
    },
    /// Retries one of the runs that ended, counted from the last.
    Retry {
        conn: u8,
        back: usize,
    },
    /// An attempt tells of a call: one of its own, or one that was handed over to it.
    Call {
        run: usize,
        attempt_off: i8,
        call: u8,
        ends: bool,
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

/// A message that a command is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// So far back among those that were posted; often one that is there.
    Back(usize),
    Named(u8),
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![8 => (0..6_usize).prop_map(Which::Back), 1 => any::<u8>().prop_map(Which::Named)]
}

/// Emojis of which there are few, and what is none.
fn emoji() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["👍", "👎", "❤️", "\u{2764}", "🏽", "no", ""])
}

fn policy() -> impl Strategy<Value = TriggerPolicy> {
    prop::sample::select(TriggerPolicy::ALL.to_vec())
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
    let role = prop_oneof![
        6 => Just(Role::Member),
        1 => Just(Role::Agent),
        1 => Just(Role::Admin),
        1 => Just(Role::Owner),
    ];
    let after = prop::option::of(prop_oneof![8 => 0..40_u64, 1 => any::<u64>()]);
    let attempt_off = prop_oneof![8 => Just(0_i8), 1 => Just(-1_i8), 1 => Just(1_i8)];
    let offset_off = prop_oneof![8 => Just(0_u64), 1 => 1..4_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        4 => wait.prop_map(Act::Wait),
        2 => (0..4_u64, 0..8_u8, prop::bool::weighted(0.1))
            .prop_map(|(epoch, org, external)| Act::Init { epoch, org, external }),
        1 => (0..2_u8, -1..2_i8).prop_map(|(archive, ahead)| Act::Freeze { archive, ahead }),
        3 => (0..2_u8, -1..3_i8).prop_map(|(archive, ahead)| Act::Thaw { archive, ahead }),
        1 => (-1..2_i8).prop_map(|ahead| Act::Restore { ahead }),
        3 => (0..3_u64, prop::collection::vec(prop::option::weighted(0.9, policy()), 0..7), prop::bool::weighted(0.2), prop::option::of(0..10_u32), prop::option::of(0..30_u64))
            .prop_map(|(ahead, policies, paused, max_rounds, cooldown_secs)| {
                Act::Configure { ahead, policies, paused, max_rounds, cooldown_secs }
            }),
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
        4 => (0..4_u8, which(), text())
            .prop_map(|(conn, message, text)| Act::Edit { conn, message, text }),
        3 => (0..4_u8, which()).prop_map(|(conn, message)| Act::Delete { conn, message }),
        6 => (0..4_u8, which(), emoji(), prop::bool::weighted(0.7))
            .prop_map(|(conn, message, emoji, on)| Act::React { conn, message, emoji, on }),
        4 => (0..4_u8, which(), prop::bool::weighted(0.7))
            .prop_map(|(conn, message, on)| Act::Pin { conn, message, on }),
        1 => (0..4_u8).prop_map(Act::Typing),
        2 => (0..4_u8, 0..6_usize).prop_map(|(conn, run)| Act::Cancel { conn, run }),
        6 => (0..4_u8, 0..4_usize, prop::bool::weighted(0.7)).prop_map(|(conn, back, yes)| {
            let decision = if yes { ApprovalDecision::Approve } else { ApprovalDecision::Deny };
            Act::Approve { conn, back, decision }
        }),
        4 => (0..4_u8, which(), 0..6_u8)
            .prop_map(|(conn, message, agent)| Act::Continue { conn, message, agent }),
        3 => (0..4_u8, 0..4_usize).prop_map(|(conn, back)| Act::Retry { conn, back }),
        6 => (0..5_usize, attempt_off.clone(), 0..4_u8, any::<bool>())
            .prop_map(|(run, attempt_off, call, ends)| Act::Call { run, attempt_off, call, ends }),
        1 => (0..4_u8).prop_map(Act::Refuse),
        10 => (0..5_usize, attempt_off.clone(), offset_off, text())
            .prop_map(|(run, attempt_off, offset_off, text)| Act::Text { run, attempt_off, offset_off, text }),
        10 => (0..5_usize, attempt_off, 0..10_u8)
            .prop_map(|(run, attempt_off, end)| Act::End { run, attempt_off, end }),
        2 => Just(Act::Tick),
        1 => Just(Act::Crash),
    ]
}

/// Acts on a group that exists; half of the time one with agents and somebody attached.
pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let ready = [
        Act::Configure {
            ahead: 2,
            policies: vec![
                Some(TriggerPolicy::Mention),
                Some(TriggerPolicy::Discussion),
                Some(TriggerPolicy::Mention),
                Some(TriggerPolicy::Auto),
                Some(TriggerPolicy::Discussion),
            ],
            paused: false,
            max_rounds: None,
            cooldown_secs: None,
        },
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
pub(crate) enum Given {
    Input(Timestamp, Box<Input>),
    Crash(u64),
}

/// A room that acts happen to, with how much of each reply was sent.
pub(crate) struct World {
    pub(crate) room: Room,
    pub(crate) given: Vec<Given>,
    sent: BTreeMap<(RunId, u32), u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self { room: Room::empty(), given: vec![], sent: BTreeMap::new() };
        world.step(crate::harness::init(1));
        world
    }

    fn step(&mut self, input: Input) -> Out {
        self.given.push(Given::Input(self.room.now, Box::new(input.clone())));
        self.room.step(input)
    }

    /// The id of a message that was posted or not.
    fn message(&self, which: Which) -> MessageId {
        let posted = |event: &Event| match &event.kind {
            EventKind::MessagePosted(posted) => Some(posted.message_id.clone()),
            _ => None,
        };
        match which {
            Which::Back(so_far) => self.room.log.iter().rev().filter_map(posted).nth(so_far),
            Which::Named(number) => Some(id(format!("m{number}"))),
        }
        .unwrap_or_else(|| id("m0"))
    }

    /// Something of an event so far back among those that have it.
    fn back<T>(&self, back: usize, of: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.room.log.iter().rev().filter_map(of).nth(back)
    }

    /// An epoch that is so far from the group's.
    fn epoch(&self, ahead: i8) -> u64 {
        let identity = self.room.controller.state().unwrap().identity();
        identity.epoch.saturating_add_signed(ahead.into())
    }

    /// The run that is so far down the list, working ones more often than not.
    fn run(&self, index: usize) -> Option<(RunId, u32)> {
        let runs = self.room.controller.state()?.runs();
        let run = runs.get(index.min(runs.len().checked_sub(1)?))?;
        Some((run.run_id.clone(), run.phase.attempt()))
    }

    /// Lets an act happen; `None` when it says nothing to the controller.
    pub(crate) fn act(&mut self, act: Act) -> Option<Out> {
        let conn = |conn: u8| at(u64::from(conn % 2), &format!("c{conn}"));
        let input = match act {
            Act::Wait(millis) => {
                let to = self.room.now.millis().saturating_add(millis).min(u64::MAX / 4);
                self.room.now = Timestamp::from_millis(to);
                return None;
            }
            Act::Crash => {
                self.given.push(Given::Crash(self.room.seq()));
                self.room.rebuild();
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
            Act::Freeze { archive, ahead } => {
                let archive_id = id(format!("x{archive}"));
                Input::Freeze { archive_id, epoch: self.epoch(ahead) }
            }
            Act::Thaw { archive, ahead } => {
                let archive_id = id(format!("x{archive}"));
                Input::Thaw { archive_id, epoch: self.epoch(ahead) }
            }
            Act::Restore { ahead } => Input::Restore { epoch: self.epoch(ahead) },
            Act::Configure { ahead, policies, paused, max_rounds, cooldown_secs } => {
                let version = self.room.controller.state().unwrap().config().version + ahead;
                let named = policies.iter().enumerate();
                let agents = named
                    .filter_map(|(index, policy)| Some(agent(&format!("a{index}"), (*policy)?)));
                Input::Configure(GroupConfig {
                    version,
                    agents: agents.collect(),
                    paused,
                    max_rounds,
                    cooldown_secs,
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
                    answered: reply_to.as_ref().and_then(|id| self.room.shelf.target(id)),
                    reply_to,
                    mentions: mentions.map(named),
                    ..self.room.post_of("c0", &format!("m{message}"), &text)
                })
            }
            Act::Edit { conn: c, message, text } => {
                let message_id = self.message(message);
                let target = self.room.shelf.target(&message_id);
                Input::Edit { from: conn(c), r#ref: id("1"), message_id, text, target }
            }
            Act::Delete { conn: c, message } => {
                let message_id = self.message(message);
                let target = self.room.shelf.target(&message_id);
                Input::Delete { from: conn(c), r#ref: id("1"), message_id, target }
            }
            Act::React { conn: c, message, emoji, on } => {
                let message_id = self.message(message);
                Input::React(React {
                    from: conn(c),
                    r#ref: id("1"),
                    target: self.room.shelf.target(&message_id),
                    reactions: self.room.shelf.reactions(&message_id),
                    message_id,
                    emoji: emoji.to_owned(),
                    on,
                })
            }
            Act::Pin { conn: c, message, on } => {
                let message_id = self.message(message);
                let target = self.room.shelf.target(&message_id);
                Input::Pin { from: conn(c), r#ref: id("1"), message_id, on, target }
            }
            Act::Typing(c) => Input::Typing { from: conn(c) },
            Act::Cancel { conn: c, run } => Input::Cancel {
                from: conn(c),
                r#ref: id("1"),
                run_id: self.run(run).map_or_else(|| id("r1-0"), |(run_id, _)| run_id),
            },
            Act::Approve { conn: c, back, decision } => {
                let asked = self.back(back, |event| match &event.kind {
                    EventKind::ApprovalRequested(asked) => Some(asked.approval_id.clone()),
                    _ => None,
                });
                let approval_id = asked.unwrap_or_else(|| id("ap1"));
                Input::Approve { from: conn(c), r#ref: id("1"), approval_id, decision }
            }
            Act::Continue { conn: c, message, agent } => Input::Continue {
                from: conn(c),
                r#ref: id("1"),
                message_id: self.message(message),
                agent_id: id(format!("a{agent}")),
            },
            Act::Retry { conn: c, back } => {
                let ended = self.back(back, |event| match &event.kind {
                    EventKind::RunFinished(finished) => Some(finished.run_id.clone()),
                    _ => None,
                });
                let run_id = ended.unwrap_or_else(|| id("r1-0"));
                Input::Retry { from: conn(c), r#ref: id("1"), run_id }
            }
            Act::Call { run, attempt_off, call, ends } => {
                let (run_id, attempt) = self.run(run)?;
                let before = attempt.saturating_sub(1);
                let call_id = match call {
                    0 => id(format!("{before}-a")),
                    1 => id(format!("{before}-b")),
                    other => id(format!("{attempt}-own-{other}")),
                };
                let attempt = attempt.saturating_add_signed(attempt_off.into());
                if ends {
                    let (status, summary) = (ToolStatus::Ok, "done".to_owned());
                    Input::ToolFinished(ToolFinished { run_id, attempt, call_id, status, summary })
                } else {
                    let (tool, arguments) = ("look".to_owned(), "{}".to_owned());
                    Input::ToolStarted(ToolStarted { run_id, attempt, call_id, tool, arguments })
                }
            }
            Act::Refuse(c) => Input::Refuse {
                from: conn(c),
                r#ref: None,
                code: Code::InvalidFrame,
                detail: String::new(),
                retry_after_ms: None,
            },
            Act::Text { run, attempt_off, offset_off, text } => {
                let (run_id, attempt) = self.run(run)?;
                let said = self.back(0, |event| match &event.kind {
                    EventKind::ToolsRequested(asked) if asked.run_id == run_id => {
                        Some(asked.said.len() as u64)
                    }
                    _ => None,
                });
                let sent = self.sent.entry((run_id.clone(), attempt));
                let sent = sent.or_insert(said.unwrap_or(0));
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
                    0 => crate::harness::lost(),
                    2 => RunEnd::Lost {
                        code: "worker_unavailable",
                        detail: "Refused.".into(),
                        may_have_begun: false,
                    },
                    3..=5 => {
                        // Calls of an attempt are told apart by it; 5 needs one of two people.
                        let who = match end {
                            3 => None,
                            4 => Some(Approvers::Role { role: Role::Member }),
                            _ => Some(Approvers::NOfM { n: 2, users: vec![id("u0"), id("u1")] }),
                        };
                        let name = |n| format!("{attempt}-{n}");
                        handed(&[call(&name("a"), who), call(&name("b"), None)])
                    }
                    1 => RunEnd::Said(Outcome::Failed {
                        code: "provider_error".into(),
                        detail: "Broken.".into(),
                        retry_after_ms: None,
                        usage: None,
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
pub(crate) fn again(
    given: &[Given],
    log: &[Event],
    mut seen: impl FnMut(usize, &Out),
) -> Controller {
    let mut controller = without_budget(Controller::new());
    for (index, given) in given.iter().enumerate() {
        match given {
            Given::Input(now, input) => {
                let step = controller.step(*now, (**input).clone());
                seen(index, &Out(step));
            }
            Given::Crash(seq) => {
                let written = log[..*seq as usize].to_vec();
                controller = without_budget(Controller::rebuild(None, written).unwrap());
            }
        }
    }
    controller
}
