//! What models use is never more than what was reserved for it, and that never more than the budget: for
//! random messages, answers, losses and crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use convene_group_controller::{Effect, Input, Leave, RunEnd, Summarization};
use convene_model::{
    RunId, Timestamp,
    agents::{Approvers, Outcome, Usage},
    event::{
        Decision, EventKind, RunFinished, SummaryRecorded, TriggerPolicy,
        TriggerPolicy::{Auto, Discussion, Mention},
    },
    limits::RUN_TOKENS,
};
use proptest::prelude::*;

use crate::harness::{Out, Room, call, id};

const AGENTS: [(&str, TriggerPolicy); 4] =
    [("a", Mention), ("b", Auto), ("c", Discussion), ("d", Mention)];

/// An organization's budget as its directory keeps it.
#[derive(Debug)]
struct Bank {
    budget: u64,
    used: u64,
    held: BTreeMap<RunId, u64>,
    /// Settled in full, since nobody said in time what was used.
    expired: BTreeMap<RunId, u64>,
    settled: BTreeSet<RunId>,
}

impl Bank {
    fn reserved(&self) -> u64 {
        self.held.values().sum()
    }

    fn reserve(&mut self, name: &RunId, tokens: u64) -> Leave {
        let ended = self.expired.contains_key(name) || self.settled.contains(name);
        if ended || self.held.contains_key(name) {
            return Leave::Granted;
        }
        if self.used + self.reserved() + tokens > self.budget {
            return Leave::Refused;
        }
        self.held.insert(name.clone(), tokens);
        Leave::Granted
    }

    /// A report has arrived; `None` where nobody knows what was used.
    fn settle(&mut self, name: &RunId, actual: Option<u64>) {
        if let Some(tokens) = self.held.remove(name) {
            self.used += actual.unwrap_or(tokens);
        } else if let Some(tokens) = self.expired.remove(name) {
            self.used = self.used + actual.unwrap_or(tokens) - tokens;
        } else {
            assert!(actual.unwrap_or(0) == 0, "{name} has nothing to settle, but used {actual:?}");
        }
        self.settled.insert(name.clone());
    }

    fn expire(&mut self) {
        self.used += self.reserved();
        self.expired.append(&mut self.held);
    }
}

/// An attempt at the Agents Worker, which goes by what it may use.
#[derive(Debug, Clone)]
struct Attempt {
    run_id: RunId,
    attempt: u32,
    /// What the attempts before it have used, as the continuation says.
    before: u64,
    used: u64,
}

struct World {
    room: Room,
    bank: Bank,
    /// What models have really used.
    real: u64,
    asked: Vec<(RunId, u64)>,
    attempts: Vec<Attempt>,
    /// Of which nobody listens any more; they may go on for a while.
    orphans: Vec<Attempt>,
    summaries: Vec<Summarization>,
    runs: Vec<RunId>,
    messages: Vec<String>,
    said: u32,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Act {
    Say(Vec<usize>),
    Long,
    Answer(usize),
    /// A model reads and writes so many thousandths of what is left.
    Work(usize, u64),
    Orphan(usize, u64),
    Text(usize),
    HandOver {
        nth: usize,
        says: bool,
        asks: bool,
    },
    Decide(bool),
    End {
        nth: usize,
        says: bool,
        fails: bool,
    },
    Lost {
        nth: usize,
        begun: bool,
    },
    Summarized {
        thousandths: u64,
        says: bool,
    },
    Cancel(usize),
    Retry(usize),
    Continue(usize, usize),
    Pause(bool),
    Wait(u64),
    Expire,
    /// The process ends; with what the last step wanted done, or without.
    Crash {
        silent: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let few = 0..6_usize;
    prop_oneof![
        5 => prop::collection::vec(0..AGENTS.len(), 0..4).prop_map(Act::Say),
        1 => Just(Act::Long),
        9 => few.clone().prop_map(Act::Answer),
        6 => (few.clone(), 0..=1000_u64).prop_map(|(nth, part)| Act::Work(nth, part)),
        1 => (few.clone(), 0..=1000_u64).prop_map(|(nth, part)| Act::Orphan(nth, part)),
        1 => few.clone().prop_map(Act::Text),
        2 => (few.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(nth, says, asks)| Act::HandOver { nth, says, asks }),
        2 => any::<bool>().prop_map(Act::Decide),
        4 => (few.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(nth, says, fails)| Act::End { nth, says, fails }),
        3 => (few.clone(), any::<bool>()).prop_map(|(nth, begun)| Act::Lost { nth, begun }),
        1 => (0..=1000_u64, any::<bool>())
            .prop_map(|(thousandths, says)| Act::Summarized { thousandths, says }),
        1 => few.clone().prop_map(Act::Cancel),
        2 => (0..12_usize).prop_map(Act::Retry),
        1 => (0..12_usize, 0..AGENTS.len()).prop_map(|(nth, agent)| Act::Continue(nth, agent)),
        1 => any::<bool>().prop_map(Act::Pause),
        2 => (0..400_u64).prop_map(Act::Wait),
        1 => Just(Act::Expire),
        1 => any::<bool>().prop_map(|silent| Act::Crash { silent }),
    ]
}

fn pick<T>(all: &[T], nth: usize) -> Option<usize> {
    (!all.is_empty()).then(|| nth % all.len())
}

impl World {
    fn new(budget: u64) -> Self {
        let mut room = Room::with(&AGENTS);
        room.step(Input::Unlimited { until: Timestamp::ZERO }).accepted();
        let (held, expired, settled) = Default::default();
        Self {
            room,
            bank: Bank { budget, used: 0, held, expired, settled },
            real: 0,
            asked: Vec::new(),
            attempts: Vec::new(),
            orphans: Vec::new(),
            summaries: Vec::new(),
            runs: Vec::new(),
            messages: Vec::new(),
            said: 0,
        }
    }

    /// What the events of a step say reaches the directory, whatever happens to the process.
    fn report(&mut self, out: &Out) {
        for event in &out.0.events {
            match &event.kind {
                EventKind::RunFinished(RunFinished {
                    run_id, attempt, usage, reservation, ..
                }) => {
                    let used = if *attempt == 0 { Some(0) } else { usage.and_then(Usage::tokens) };
                    self.bank.settle(reservation.as_ref().unwrap_or(run_id), used);
                    let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attempts)
                        .into_iter()
                        .partition(|one| one.run_id == *run_id);
                    self.attempts = on;
                    // Of those that said what they used nothing more comes.
                    self.orphans.extend(over.into_iter().filter(|_| used.is_none()));
                }
                EventKind::SummaryRecorded(SummaryRecorded {
                    run_id: Some(name), usage, ..
                }) => {
                    self.bank.settle(name, usage.and_then(Usage::tokens));
                }
                EventKind::TriggerDecided(decided) => {
                    for candidate in &decided.candidates {
                        if let Decision::Accepted { run_id, .. } = &candidate.decision {
                            self.runs.push(run_id.clone());
                        }
                    }
                }
                EventKind::MessagePosted(posted) => {
                    self.messages.push(posted.message_id.to_string());
                }
                _ => {}
            }
        }
    }

    fn run_effects(&mut self, out: &Out) {
        for effect in &out.0.effects {
            match effect {
                Effect::Reserve { run_id, tokens } => self.asked.push((run_id.clone(), *tokens)),
                Effect::Unused { run_id } => self.bank.settle(run_id, Some(0)),
                Effect::Spent { run_id, usage } => {
                    self.bank.settle(run_id, usage.and_then(Usage::tokens));
                }
                Effect::Summarize(asked) => self.summaries.push((**asked).clone()),
                Effect::Invoke(invocation) => {
                    let request = &invocation.request;
                    let before = request
                        .resume
                        .as_ref()
                        .map_or(0, |resume| resume.continuation.parse().expect("a worker left it"));
                    let (run_id, attempt) = (request.run_id.clone(), request.attempt);
                    self.attempts.push(Attempt { run_id, attempt, before, used: 0 });
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, out: Out) {
        self.report(&out);
        self.run_effects(&out);
        self.check();
    }

    fn check(&self) {
        let Bank { used, budget, .. } = self.bank;
        let reserved = self.bank.reserved();
        assert!(self.real <= used + reserved, "{} used of {used} and {reserved}", self.real);
        assert!(used + reserved <= budget, "{used} and {reserved} of {budget}");
    }

    fn spend(attempt: &mut Attempt, thousandths: u64) -> u64 {
        let left = RUN_TOKENS - attempt.before - attempt.used;
        let spent = left * thousandths / 1000;
        attempt.used += spent;
        spent
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Say(agents) => {
                let names: Vec<_> =
                    agents.iter().map(|nth| format!("@{}", AGENTS[*nth].0)).collect();
                self.said += 1;
                let out = self.room.post("c1", &format!("p{}", self.said), &names.join(" "));
                self.take(out);
            }
            Act::Long => {
                self.said += 1;
                let text = "word ".repeat(6_000);
                let out = self.room.post("c1", &format!("p{}", self.said), &text);
                self.take(out);
            }
            Act::Answer(nth) => {
                let Some(nth) = pick(&self.asked, nth) else { return };
                let (run_id, tokens) = self.asked.remove(nth);
                let leave = self.bank.reserve(&run_id, tokens);
                let out = self.room.step(Input::Reserved { run_id, leave });
                self.take(out);
            }
            Act::Work(nth, part) => {
                let Some(nth) = pick(&self.attempts, nth) else { return };
                self.real += Self::spend(&mut self.attempts[nth], part);
            }
            Act::Orphan(nth, part) => {
                let Some(nth) = pick(&self.orphans, nth) else { return };
                self.real += Self::spend(&mut self.orphans[nth], part);
            }
            Act::Text(nth) => {
                let Some(nth) = pick(&self.attempts, nth) else { return };
                let Attempt { run_id, attempt, .. } = self.attempts[nth].clone();
                let out = self.room.text(&run_id, attempt, 0, "So ");
                self.take(out);
            }
            Act::HandOver { nth, says, asks } => {
                let Some(Attempt { run_id, attempt, before, used }) = self.over(nth) else {
                    return;
                };
                let usage = says.then(|| tokens(before + used));
                let name = format!("c{attempt}");
                let calls = vec![call(&name, asks.then_some(Approvers::Initiator))];
                let continuation = (before + used).to_string();
                let handed = Outcome::ToolRequested { calls, continuation, usage };
                let out = self.room.end(&run_id, attempt, RunEnd::Said(handed));
                self.take(out);
            }
            Act::Decide(permit) => {
                let Some(approval) = self.room.open_approvals().into_iter().next() else { return };
                let out = if permit {
                    self.room.approve("c1", &approval)
                } else {
                    self.room.deny("c1", &approval)
                };
                self.take(out);
            }
            Act::End { nth, says, fails } => {
                let Some(Attempt { run_id, attempt, before, used }) = self.over(nth) else {
                    return;
                };
                let usage = says.then(|| tokens(before + used));
                let end = if fails {
                    let (code, detail) = ("provider_cut".to_owned(), "Cut.".to_owned());
                    Outcome::Failed { code, detail, retry_after_ms: None, usage }
                } else {
                    Outcome::Completed { usage }
                };
                let out = self.room.end(&run_id, attempt, RunEnd::Said(end));
                self.take(out);
            }
            Act::Lost { nth, begun } => {
                let Some(one) = self.over(nth) else { return };
                // One that never arrived has asked no model.
                let may_have_begun = begun || one.used > 0;
                let (run_id, attempt) = (one.run_id.clone(), one.attempt);
                if may_have_begun {
                    self.orphans.push(one);
                }
                let detail = "Gone.".to_owned();
                let end = RunEnd::Lost { code: "worker_cut", detail, may_have_begun };
                let out = self.room.end(&run_id, attempt, end);
                self.take(out);
            }
            Act::Summarized { thousandths, says } => {
                let Some(asked) = self.summaries.pop() else { return };
                let spent = asked.request.tokens * thousandths / 1000;
                self.real += spent;
                let usage = says.then(|| tokens(spent));
                let (id, run_id) = (asked.id, asked.request.run_id);
                let text = Some("They talked.".to_owned());
                let out = self.room.step(Input::Summarized { id, run_id, text, usage });
                self.take(out);
            }
            Act::Cancel(nth) => {
                let runs = self.room.controller.state().unwrap().runs();
                let Some(run) = pick(runs, nth).map(|nth| runs[nth].run_id.clone()) else { return };
                let out = self.room.cancel(&run);
                self.take(out);
            }
            Act::Retry(nth) => {
                let Some(nth) = pick(&self.runs, nth) else { return };
                let run = self.runs[nth].clone();
                let out = self.room.retry(&run);
                self.take(out);
            }
            Act::Continue(nth, agent) => {
                let Some(nth) = pick(&self.messages, nth) else { return };
                let out = self.room.let_continue(&id(&self.messages[nth]), AGENTS[agent].0);
                self.take(out);
            }
            Act::Pause(paused) => {
                let out = self.room.pause(paused);
                self.take(out);
            }
            Act::Wait(secs) => {
                // Who stays renews the right to be here before it ends.
                let out = self.room.attach("c1", "ann");
                self.take(out);
                self.room.after(Duration::from_secs(secs));
                let out = self.room.tick();
                self.take(out);
            }
            Act::Expire => self.bank.expire(),
            Act::Crash { silent } => {
                self.asked.clear();
                self.orphans.append(&mut self.attempts);
                self.summaries.clear();
                self.room.rebuild_with_budget();
                let out = self.room.step(Input::Recovered);
                self.report(&out);
                if silent {
                    // It ends again before anything of that is done.
                    self.room.rebuild_with_budget();
                    let out = self.room.step(Input::Recovered);
                    self.take(out);
                } else {
                    self.run_effects(&out);
                }
                let out = self.room.attach("c1", "ann");
                self.take(out);
            }
        }
        self.check();
    }

    /// The attempt ends, and says nothing more.
    fn over(&mut self, nth: usize) -> Option<Attempt> {
        let nth = pick(&self.attempts, nth)?;
        Some(self.attempts.remove(nth))
    }
}

fn tokens(input_tokens: u64) -> Usage {
    Usage { input_tokens, ..Usage::default() }
}

proptest! {
    /// Whatever is said and whatever fails: models use no more than what is reserved, and no more is reserved
    /// than the budget has.
    #[test]
    fn nothing_makes_agents_exceed_what_was_reserved_nor_that_the_budget(
        budget in RUN_TOKENS / 2..RUN_TOKENS * 8,
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut world = World::new(budget);
        for act in acts {
            world.act(act);
        }
    }
}
