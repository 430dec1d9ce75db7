//! All streams of this process, and the task that follows the log of changes for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use convene_db::{DbError, Statement, params};
use convene_model::{Code, GroupId, Problem, UserId};
use parking_lot::Mutex;
use tokio::{sync::RwLock, time::Instant};

use super::{
    MAX_STREAMS, MAX_STREAMS_PER_USER, STALLED_AFTER, full,
    stream::{EventStream, Told},
};
use crate::{
    changes::{Change, Log},
    identity::{
        self,
        caller::{Caller, Credential},
        touches::{Holder, PRECISION, SESSION_PRECISION},
    },
    reading,
    state::AppState,
    web::{
        failure::{Answer, Failure},
        rows,
    },
};

/// How often streams and sockets are looked through for what has ended by itself.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often the tokens of open streams and sockets are noted as used.
const NOTED_EVERY: Duration = PRECISION;

/// How often the sessions of open streams are; a page that shows groups has one all the time.
const SESSIONS_NOTED_EVERY: Duration = SESSION_PRECISION;

/// All streams of this process.
pub(crate) struct Hub {
    most_of_user: usize,
    most: usize,
    streams: Mutex<Streams>,
    /// Held shared while a stream is begun, and alone while changes are told: so a stream's
    /// beginning never mixes with a change that it may or may not show already.
    gate: RwLock<()>,
    stopping: AtomicBool,
    /// Streams that there was no room for.
    refused: AtomicU64,
}

#[derive(Default)]
struct Streams {
    of_user: HashMap<UserId, Vec<Arc<EventStream>>>,
    count: usize,
}

/// A stream that is being read; it ends when it is dropped.
pub(super) struct Subscription {
    hub: Arc<Hub>,
    stream: Arc<EventStream>,
}

/// Whom a changed group is told.
enum Whom {
    /// Everybody: some may see it from now on, or no longer.
    Everybody,
    /// Those who have it in their list.
    Listing,
    /// These.
    Only(BTreeSet<UserId>),
}

impl Subscription {
    pub(super) async fn next(&self) -> Option<Told> {
        self.stream.next().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(&self.stream);
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::limited(MAX_STREAMS_PER_USER, MAX_STREAMS)
    }
}

impl Hub {
    fn limited(most_of_user: usize, most: usize) -> Self {
        let (streams, gate, stopping) = (Mutex::default(), RwLock::new(()), AtomicBool::new(false));
        Self { most_of_user, most, streams, refused: AtomicU64::new(0), gate, stopping }
    }

    /// Streams that were refused since the process began.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many streams are open.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.lock().count
    }

    /// Whether the process stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends all streams; none is opened afterwards.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for stream in self.all() {
            stream.end();
        }
    }

    pub(super) async fn open(
        self: &Arc<Self>,
        state: &AppState,
        caller: &Caller,
    ) -> Answer<Subscription> {
        let subscription = self.enter(caller)?;
        let _gate = self.gate.read().await;
        // The credential may have ended before the stream could be found by it.
        if !identity::proof_holds(state, caller).await? {
            return Err(Code::Unauthorized.into());
        }
        let groups = reading::of_user(&*state.db, caller.id(), None).await?;
        subscription.stream.begin(groups);
        Ok(subscription)
    }

    fn enter(self: &Arc<Self>, caller: &Caller) -> Result<Subscription, Problem> {
        let mut streams = self.streams.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Problem::new(Code::Unavailable).detail("the service is stopping"));
        }
        if streams.count >= self.most {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(full(self.most));
        }
        let own = streams.of_user.entry(caller.id().clone()).or_default();
        if own.len() >= self.most_of_user {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(full(self.most_of_user));
        }
        let stream = Arc::new(EventStream::new(caller.id().clone(), caller.proof()));
        own.push(Arc::clone(&stream));
        streams.count += 1;
        Ok(Subscription { hub: Arc::clone(self), stream })
    }

    fn leave(&self, stream: &Arc<EventStream>) {
        let mut streams = self.streams.lock();
        let Some(own) = streams.of_user.get_mut(&stream.user) else { return };
        let before = own.len();
        own.retain(|other| !Arc::ptr_eq(other, stream));
        let (left, now_empty) = (before - own.len(), own.is_empty());
        if now_empty {
            streams.of_user.remove(&stream.user);
        }
        streams.count -= left;
    }

    fn all(&self) -> Vec<Arc<EventStream>> {
        self.streams.lock().of_user.values().flatten().cloned().collect()
    }

    fn of(&self, user: &UserId) -> Vec<Arc<EventStream>> {
        self.streams.lock().of_user.get(user).cloned().unwrap_or_default()
    }

    /// Follows the log until the process stops.
    pub(crate) async fn follow(self: Arc<Self>, state: AppState, mut log: Log) {
        let mut heard: HashSet<Change> = HashSet::new();
        let mut swept = Instant::now();
        let (mut noted, mut sessions_noted) = (state.now(), state.now());
        while !self.stopping.load(Ordering::Relaxed) {
            state.bell.rung().await;
            match log.next().await {
                Ok(changes) => {
                    if log.has_more(changes.len()) {
                        state.bell.ring();
                    }
                    heard.extend(changes);
                }
                Err(error) => tracing::warn!(%error, "the log of changes cannot be read"),
            }
            if !heard.is_empty() {
                match self.tell(&state, &heard).await {
                    Ok(()) => heard.clear(),
                    Err(Failure(problem)) => tracing::warn!(
                        code = problem.code.as_str(),
                        "changes cannot be told; it is tried again"
                    ),
                }
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                self.sweep(&state);
            }
            let now = state.now();
            if now.since(noted) >= NOTED_EVERY {
                noted = now;
                self.note_uses(&state);
            }
            if now.since(sessions_noted) >= SESSIONS_NOTED_EVERY {
                sessions_noted = now;
                self.note_sessions(&state);
            }
        }
    }

    async fn tell(&self, state: &AppState, changes: &HashSet<Change>) -> Answer<()> {
        let mut groups: BTreeMap<&GroupId, Whom> = BTreeMap::new();
        for change in changes {
            match change {
                Change::User(user) => self.recheck(state, user).await?,
                Change::Person(user) => self.tell_name(state, user).await?,
                Change::Group(group) => {
                    state.rooms.recheck_group(group).await?;
                    groups.insert(group, Whom::Everybody);
                }
                Change::Head(group) => match groups.get_mut(group) {
                    Some(Whom::Everybody) => {}
                    Some(Whom::Listing | Whom::Only(_)) | None => {
                        groups.insert(group, Whom::Listing);
                    }
                },
                Change::Reader(group, user) => {
                    let whom = groups.entry(group).or_insert_with(|| Whom::Only(BTreeSet::new()));
                    match whom {
                        Whom::Only(users) => drop(users.insert(user.clone())),
                        Whom::Everybody | Whom::Listing => {}
                    }
                }
            }
        }
        for (group, whom) in groups {
            self.tell_group(state, group, &whom).await?;
        }
        Ok(())
    }

    async fn tell_group(
        &self,
        state: &AppState,
        group: &GroupId,
        whom: &Whom,
    ) -> Result<(), DbError> {
        let concerned = |stream: &Arc<EventStream>| match whom {
            Whom::Everybody => true,
            Whom::Listing => stream.lists(group),
            Whom::Only(users) => users.contains(&stream.user),
        };
        let _gate = self.gate.write().await;
        let streams: Vec<_> = self.all().into_iter().filter(concerned).collect();
        let users: BTreeSet<&UserId> = streams.iter().map(|stream| &stream.user).collect();
        let users: Vec<UserId> = users.into_iter().cloned().collect();
        let seen = reading::of_group(&*state.db, group, &users).await?;
        let seen: HashMap<_, _> = seen.iter().map(|(user, item)| (user, item)).collect();
        for stream in streams {
            stream.tell(group, seen.get(&stream.user).copied());
        }
        Ok(())
    }

    /// Somebody has another name: whoever shares a workspace with them is told, and they are.
    async fn tell_name(&self, state: &AppState, user: &UserId) -> Answer<()> {
        const NAME: &str = "SELECT name FROM users WHERE user_id = $1";
        const KNOWN_TO: &str = "SELECT DISTINCT user_id FROM org_members
            WHERE org_id IN (SELECT org_id FROM org_members WHERE user_id = $1)";
        if self.open_streams() == 0 {
            return Ok(());
        }
        let _gate = self.gate.write().await;
        let about = || params![user.as_str()];
        let found = state.db.query(Statement::new(NAME, about())).await?;
        let Some(row) = found.first() else { return Ok(()) };
        let name: String = row.get("name")?;
        let known_to = state.db.query(Statement::new(KNOWN_TO, about())).await?;
        let ids = known_to.iter().map(|row| rows::id(row, "user_id"));
        let mut known_to = ids.collect::<Result<HashSet<UserId>, _>>()?;
        known_to.insert(user.clone());
        for stream in self.all() {
            if known_to.contains(&stream.user) {
                stream.tell_name(user, &name);
            }
        }
        Ok(())
    }

    /// What somebody may do has changed: streams and sockets end whose credential does not hold any
    /// more, the others are told of groups that came and went.
    async fn recheck(&self, state: &AppState, user: &UserId) -> Answer<()> {
        let streams = self.of(user);
        if streams.is_empty() && !state.rooms.has_sockets(user) {
            return Ok(());
        }
        let held = identity::proofs_of(state, user).await?;
        state.rooms.keep_sockets(user, &held);
        state.rooms.recheck_user(user).await?;
        let _gate = self.gate.write().await;
        let groups = reading::of_user(&*state.db, user, None).await?;
        for stream in self.of(user) {
            if held.contains(&stream.proof.id) {
                stream.tell_all(&groups);
            } else {
                stream.end();
            }
        }
        Ok(())
    }

    /// What is open is in use: else a token would seem to have been forgotten whose program has been
    /// connected for a week.
    fn note_uses(&self, state: &AppState) {
        let now = state.now();
        let streams = self.all().into_iter().map(|stream| stream.proof.clone());
        for proof in streams.chain(state.rooms.tokens_in_use()) {
            let Some(token_id) = &proof.token_id else { continue };
            let holder = if proof.is_agent { Holder::Agent } else { Holder::Person };
            state.touches.note(state, holder, token_id, None, now);
        }
    }

    /// The same for the browsers that have a page open.
    fn note_sessions(&self, state: &AppState) {
        let now = state.now();
        for stream in self.all() {
            if let Some(digest) = Credential::session_of(&stream.proof.id) {
                state.touches.note(state, Holder::Browser, digest, None, now);
            }
        }
    }

    fn sweep(&self, state: &AppState) {
        let now = state.now();
        state.rooms.close_expired(now);
        for stream in self.all() {
            if stream.proof.has_expired(now) || stream.has_stalled(STALLED_AFTER) {
                stream.end();
                // Its connection may be stuck; its place is free all the same.
                self.leave(&stream);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
