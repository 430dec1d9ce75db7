//! People who write and watch while something breaks, and the check of what came of it.
//!
//! Writers post a few messages at a time and resend what was not acknowledged; some messages
//! mention an agent. A watcher in each group resumes by its last number whenever it is cut off.
//! [`Load::end`] then reads everything back and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::client::{Person, Socket};

/// Messages that a writer has under way at a time, so that a fault finds some between two steps.
const UNDER_WAY: usize = 4;
/// Every so manieth message of a writer mentions the agent.
const MENTION_EVERY: usize = 10;
/// How long a writer or watcher waits for a connection or an answer before it connects anew.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long everything may take to settle once the fault is over.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// Writers and watchers at work.
#[derive(Debug)]
pub struct Load {
    groups: Vec<String>,
    writers: Vec<JoinHandle<Written>>,
    watchers: Vec<JoinHandle<Vec<Value>>>,
    acknowledged: Arc<AtomicU64>,
    writing_ends: Arc<AtomicBool>,
    watching_ends: Arc<AtomicBool>,
}

/// What one writer knows at the end.
#[derive(Debug)]
struct Written {
    group: String,
    /// Ids in the order of their first sending.
    sent: Vec<String>,
    /// Acknowledged ids and the numbers they were acknowledged with.
    acknowledged: BTreeMap<String, u64>,
}

/// What happened under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Posts that were acknowledged.
    pub acknowledged: u64,
    /// Runs that were accepted, each of which ended exactly once.
    pub runs: u64,
}

impl Load {
    /// Lets `writers` people at a time write in `groups`, taking turns as the given people (each
    /// with the address that is theirs), and watches each group. `mention` is the name of an agent
    /// in these groups that some messages wake, if any.
    ///
    /// # Panics
    /// When there are no people or no groups.
    #[must_use]
    pub fn start(
        people: &[Person],
        groups: &[String],
        writers: usize,
        mention: Option<&str>,
    ) -> Self {
        assert!(!people.is_empty() && !groups.is_empty(), "somebody writes somewhere");
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writing_ends = Arc::new(AtomicBool::new(false));
        let watching_ends = Arc::new(AtomicBool::new(false));
        let person = |index: usize| people[index % people.len()].clone();
        let writers = (0..writers).map(|index| {
            let writer = Writer {
                person: person(index),
                index,
                mention: mention.map(str::to_owned),
                acknowledged: Arc::clone(&acknowledged),
                done: Arc::clone(&writing_ends),
            };
            tokio::spawn(writer.write(groups[index % groups.len()].clone()))
        });
        let writers = writers.collect();
        let watchers = groups.iter().enumerate().map(|(index, group)| {
            tokio::spawn(watch(person(index), group.clone(), Arc::clone(&watching_ends)))
        });
        Self {
            groups: groups.to_vec(),
            writers,
            watchers: watchers.collect(),
            acknowledged,
            writing_ends,
            watching_ends,
        }
    }

    /// How many posts were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more posts are acknowledged: the service works, or works again.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn progress(&self, posts: u64) {
        let wanted = self.acknowledged() + posts;
        let came = timeout(SETTLE_PATIENCE, async {
            while self.acknowledged() < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        });
        let before = self.acknowledged();
        assert!(came.await.is_ok(), "posts are acknowledged again; {before} were so far");
    }

    /// Lets everybody finish and checks, as `reader`: each acknowledged post is there once, at the
    /// number it was acknowledged with; each writer's posts stand in order; each watcher saw every
    /// event once and none was missing; each run ended exactly once.
    ///
    /// # Panics
    /// When one of these does not hold, or the writers cannot finish.
    pub async fn end(self, reader: &Person) -> Outcome {
        self.writing_ends.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in self.writers {
            let writer = timeout(SETTLE_PATIENCE, writer).await;
            written.push(writer.expect("a writer finishes in time").expect("a writer ends well"));
        }
        self.watching_ends.store(true, Ordering::Relaxed);
        let mut runs = 0;
        for watcher in self.watchers {
            let seen = timeout(SETTLE_PATIENCE * 2, watcher).await;
            runs += check_seen(&seen.expect("a watcher sees the end").expect("it ends well"));
        }
        for group in &self.groups {
            let stored = reader.all_messages(group).await;
            check_stored(&stored, written.iter().filter(|writer| writer.group == *group));
        }
        let acknowledged = written.iter().map(|writer| writer.acknowledged.len() as u64).sum();
        Outcome { acknowledged, runs }
    }
}

fn check_stored<'a>(stored: &[Value], writers: impl Iterator<Item = &'a Written>) {
    let mut numbers = BTreeMap::new();
    for message in stored {
        let id = message["message_id"].as_str().expect("an id").to_owned();
        let seq = message["seq"].as_u64().expect("a number");
        assert!(numbers.insert(id.clone(), seq).is_none(), "{id} is there twice");
    }
    for writer in writers {
        for (id, seq) in &writer.acknowledged {
            assert_eq!(numbers.get(id), Some(seq), "{id} was acknowledged as {seq}");
        }
        let order: Vec<u64> =
            writer.sent.iter().filter_map(|id| numbers.get(id).copied()).collect();
        assert!(order.is_sorted(), "a writer's messages stand in the order of their sending");
    }
}

/// Checks a watcher's events and returns how many runs there were.
fn check_seen(seen: &[Value]) -> u64 {
    let numbers: Vec<u64> = seen.iter().filter_map(|event| event["seq"].as_u64()).collect();
    let all: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, all, "a client that resumes sees each event once and misses none");
    let mut open = BTreeSet::new();
    let mut runs = 0;
    for event in seen {
        if event["kind"] == "trigger.decided" {
            for candidate in event["candidates"].as_array().into_iter().flatten() {
                if candidate["outcome"] == "accepted" {
                    runs += 1;
                    open.insert(candidate["run_id"].as_str().expect("a run").to_owned());
                }
            }
        } else if event["kind"] == "run.finished" {
            let run = event["run_id"].as_str().expect("a run");
            assert!(open.remove(run), "{run} ends once and was accepted: {event}");
        }
    }
    assert!(open.is_empty(), "these runs never ended: {open:?}");
    runs
}

/// Whether every run that these events accept has ended in them.
fn runs_ended(seen: &[Value]) -> bool {
    let mut open = BTreeSet::new();
    for event in seen {
        for candidate in event["candidates"].as_array().into_iter().flatten() {
            open.extend(candidate["run_id"].as_str());
        }
        if event["kind"] == "run.finished" {
            open.remove(event["run_id"].as_str().unwrap_or_default());
        }
    }
    open.is_empty()
}

struct Writer {
    person: Person,
    index: usize,
    mention: Option<String>,
    acknowledged: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Writer {
    fn text(&self, number: usize) -> String {
        match &self.mention {
            Some(name) if number.is_multiple_of(MENTION_EVERY) => format!("@{name} hello {number}"),
            Some(_) | None => format!("text {number} of {}", self.index),
        }
    }

    /// Posts one message after the other, resending what was not acknowledged.
    async fn write(self, group: String) -> Written {
        let mut written = Written { group, sent: Vec::new(), acknowledged: BTreeMap::new() };
        let mut open: BTreeSet<usize> = BTreeSet::new();
        while !(self.done.load(Ordering::Relaxed) && open.is_empty()) {
            let Some(mut socket) = attach(&self.person, &written.group, None).await else {
                continue;
            };
            for number in &open {
                socket.post(&written.sent[*number], &self.text(*number)).await;
            }
            if self.converse(&mut socket, &mut written, &mut open).await {
                return written;
            }
            // Refused for now, or cut off: connect anew and resend.
            sleep(Duration::from_millis(50)).await;
        }
        written
    }

    /// Writes on one connection; `true` when all is said and acknowledged.
    async fn converse(
        &self,
        socket: &mut Socket,
        written: &mut Written,
        open: &mut BTreeSet<usize>,
    ) -> bool {
        loop {
            while open.len() < UNDER_WAY && !self.done.load(Ordering::Relaxed) {
                let number = written.sent.len();
                let id = format!("w{}-{number}", self.index);
                open.insert(number);
                socket.post(&id, &self.text(number)).await;
                written.sent.push(id);
            }
            if open.is_empty() {
                return true;
            }
            let Ok(Ok(frame)) = timeout(ANSWER_PATIENCE, socket.next()).await else {
                return false;
            };
            if frame["type"] == "ok" {
                let id = frame["message_id"].as_str().expect("an id").to_owned();
                let number = written.sent.iter().position(|sent| *sent == id).expect("was sent");
                let seq = frame["seq"].as_u64().expect("a number");
                let before = written.acknowledged.insert(id.clone(), seq);
                assert!(before.is_none_or(|before| before == seq), "{id} got two numbers");
                if open.remove(&number) {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            } else if frame["type"] == "error" || frame["type"] == "detached" {
                return false;
            }
        }
    }
}

/// Follows a group through everything by its last number and returns the events that it saw.
async fn watch(person: Person, group: String, done: Arc<AtomicBool>) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    let mut quiet_since = None;
    loop {
        let after = seen.last().and_then(|event| event["seq"].as_u64()).unwrap_or(0);
        let Some(mut socket) = attach(&person, &group, Some(after)).await else { continue };
        loop {
            match timeout(Duration::from_millis(500), socket.next()).await {
                Ok(Ok(frame)) if frame["type"] == "event" => {
                    seen.push(frame);
                    quiet_since = None;
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => break,
                Err(_) if done.load(Ordering::Relaxed) && runs_ended(&seen) => {
                    let since = *quiet_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(1) {
                        return seen;
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// A socket that is attached, or `None` while the service is away.
async fn attach(person: &Person, group: &str, after: Option<u64>) -> Option<Socket> {
    let away = || sleep(Duration::from_millis(20));
    let Ok(Ok(mut socket)) = timeout(ANSWER_PATIENCE, person.connect(group)).await else {
        away().await;
        return None;
    };
    let mut frame = json!({"type": "attach", "ref": "attach"});
    if let Some(after) = after {
        frame["after"] = json!(after);
    }
    socket.send(&frame).await;
    loop {
        let frame = timeout(ANSWER_PATIENCE, socket.next()).await.ok()?.ok()?;
        if frame["ref"] == "attach" {
            if frame["type"] == "attached" {
                return Some(socket);
            }
            away().await;
            return None;
        }
    }
}
