//! What the rooms of this process share: the next hop, the workspace, routing tokens, the register.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use convene_hop::GroupLink;
use convene_model::{
    Code, ConnId, GroupId, OrgId, Problem, Timestamp, UserId,
    infra::{ActivateRequest, GroupStatus, HistoryMode, RoutingToken, RoutingTokenRequest},
    limits::ROUTING_TOKEN_TTL,
};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::{
    RoomsConfig,
    doors::Doors,
    figures::Counters,
    room::{Command, Room},
    tuning::{
        MAX_CACHED_TOKENS, MAX_REVOKED_TRIES, RENEW_BEFORE, ROOM_QUEUE, TOKENS_AT_ONCE, Tuning,
    },
};

/// What the rooms of this process share.
pub(crate) struct Shared {
    pub(crate) config: RoomsConfig,
    pub(crate) tuning: Tuning,
    tokens: Cache<(GroupId, UserId), RoutingToken>,
    /// Counts withdrawals, so that a token that was asked for before one is not kept after it.
    withdrawals: AtomicU64,
    orgs: Cache<GroupId, OrgId>,
    permits: Semaphore,
    rooms: Mutex<HashMap<GroupId, Arc<RoomHandle>>>,
    pub(super) doors: Arc<Doors>,
    pub(super) counters: Counters,
    stopping: AtomicBool,
}

/// The way to a room. Whoever holds one keeps the room alive.
#[derive(Debug)]
pub(crate) struct RoomHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    sockets: AtomicUsize,
    next_conn: AtomicU64,
}

/// A place for one socket in a room, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<RoomHandle>);

impl RoomHandle {
    /// A connection id that this room has not used.
    pub(crate) fn conn(&self) -> ConnId {
        let number = self.next_conn.fetch_add(1, Ordering::Relaxed);
        ConnId::new(format!("c{number}")).expect("a letter and a number are an id")
    }
}

impl Seat {
    pub(crate) fn room(&self) -> &RoomHandle {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(config: RoomsConfig, tuning: Tuning) -> Self {
        Self {
            config,
            tuning,
            tokens: Cache::builder()
                .max_capacity(MAX_CACHED_TOKENS)
                .time_to_live(ROUTING_TOKEN_TTL)
                .build(),
            withdrawals: AtomicU64::new(0),
            orgs: Cache::new(MAX_CACHED_TOKENS),
            permits: Semaphore::new(TOKENS_AT_ONCE),
            rooms: Mutex::default(),
            doors: Arc::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    /// The group's room, opened if there is none.
    pub(crate) fn room(self: &Arc<Self>, group: &GroupId) -> Result<Arc<RoomHandle>, Problem> {
        let mut rooms = self.rooms.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Problem::new(Code::Unavailable).detail("the service is stopping"));
        }
        if let Some(room) = rooms.get(group).filter(|room| !room.commands.is_closed()) {
            return Ok(Arc::clone(room));
        }
        let (sender, commands) = mpsc::channel(ROOM_QUEUE);
        let handle = Arc::new(RoomHandle {
            commands: sender,
            sockets: AtomicUsize::new(0),
            next_conn: AtomicU64::new(1),
        });
        rooms.insert(group.clone(), Arc::clone(&handle));
        tokio::spawn(Room::new(group.clone(), Arc::clone(self), commands).run());
        Ok(handle)
    }

    /// A place for one more socket in the group's room.
    pub(crate) fn seat(self: &Arc<Self>, group: &GroupId) -> Result<Seat, Problem> {
        let seat = Seat(self.room(group)?);
        // Counted even when refused: dropping the seat takes it back.
        if seat.0.sockets.fetch_add(1, Ordering::Relaxed) >= self.tuning.max_sockets {
            self.counters.overloaded();
            return Err(Problem::new(Code::Overloaded)
                .detail("the group has too many open connections")
                .with("limit", self.tuning.max_sockets)
                .with("retry_after_ms", 10_000));
        }
        Ok(seat)
    }

    /// Takes the room off the register unless somebody holds it.
    pub(crate) fn retire(&self, group: &GroupId) -> bool {
        let mut rooms = self.rooms.lock();
        let held = rooms.get(group).is_some_and(|room| Arc::strong_count(room) > 1);
        if !held {
            rooms.remove(group);
        }
        !held
    }

    /// The group's room if there is one.
    pub(crate) fn existing(&self, group: &GroupId) -> Option<Arc<RoomHandle>> {
        self.rooms.lock().get(group).cloned()
    }

    /// Takes all rooms off the register for good.
    pub(crate) fn stop(&self) -> Vec<Arc<RoomHandle>> {
        let mut rooms = self.rooms.lock();
        self.stopping.store(true, Ordering::Relaxed);
        rooms.drain().map(|(_, room)| room).collect()
    }

    pub(super) fn all_rooms(&self) -> Vec<Arc<RoomHandle>> {
        self.rooms.lock().values().cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn open_rooms(&self) -> usize {
        self.rooms.lock().len()
    }

    /// Whose group it is.
    pub(crate) async fn org(&self, group: &GroupId) -> Result<OrgId, Problem> {
        if let Some(org) = self.orgs.get(group) {
            return Ok(org);
        }
        let org = self.config.groups.describe(group).await?.org_id;
        self.orgs.insert(group.clone(), org.clone());
        Ok(org)
    }

    /// A user's routing token; `None` when the user has no access.
    pub(crate) async fn token(
        &self,
        group: &GroupId,
        user: &UserId,
    ) -> Result<Option<RoutingToken>, Problem> {
        let key = (group.clone(), user.clone());
        if let Some(token) = self.kept_token(&key) {
            return Ok(Some(token));
        }
        let _permit = self.permits.acquire().await.map_err(|_| Problem::new(Code::Internal))?;
        if let Some(token) = self.kept_token(&key) {
            return Ok(Some(token));
        }
        let withdrawals = self.withdrawals.load(Ordering::Acquire);
        let Some(role) = self.config.groups.role(group, user).await? else { return Ok(None) };
        let org = self.org(group).await?;
        let request = RoutingTokenRequest { group_id: group.clone(), user_id: user.clone(), role };
        let token = self.config.orchestrator.routing_token(&org, &request).await?;
        if self.withdrawals.load(Ordering::Acquire) == withdrawals {
            self.tokens.insert(key, token.clone());
        }
        Ok(Some(token))
    }

    fn kept_token(&self, key: &(GroupId, UserId)) -> Option<RoutingToken> {
        let soonest = self.now() + RENEW_BEFORE;
        self.tokens.get(key).filter(|token| token.expires_at > soonest)
    }

    /// Lets the next [`Shared::token`] of the user be a new one.
    pub(crate) fn withdraw_token(&self, group: &GroupId, user: &UserId) {
        self.withdrawals.fetch_add(1, Ordering::AcqRel);
        self.tokens.invalidate(&(group.clone(), user.clone()));
    }

    /// Activates a group; where it stands instead, if it cannot be, is noted.
    async fn activate(&self, group: &GroupId, request: &ActivateRequest) -> Result<(), Problem> {
        let Err(problem) = self.config.orchestrator.activate(request).await else { return Ok(()) };
        let said = problem.extra.get("group_status").and_then(serde_json::Value::as_str);
        let status = if problem.code == Code::GroupDeleted {
            Some(GroupStatus::Deleted)
        } else {
            said.and_then(GroupStatus::parse)
        };
        if let Some(status) = status {
            self.config.groups.stands(group, status).await?;
        }
        Err(problem)
    }

    /// Activates a group without opening it, so that its controller knows the epoch by which its
    /// users' tokens are made.
    pub(super) async fn wake(&self, group: &GroupId) -> Result<(), Problem> {
        let request = self.activation_of(group, self.org(group).await?);
        self.activate(group, &request).await
    }

    /// Where a workspace's groups keep their history when they are activated.
    pub(super) fn history_mode(&self, org: &OrgId) -> HistoryMode {
        if self.config.external_history.contains(org) {
            HistoryMode::External
        } else {
            HistoryMode::Internal
        }
    }

    fn activation_of(&self, group: &GroupId, org_id: OrgId) -> ActivateRequest {
        let history_mode = self.history_mode(&org_id);
        ActivateRequest { group_id: group.clone(), org_id, history_mode, region: None }
    }

    /// Activates the group, tells its controller of it and connects, with the routing token of the
    /// first of `users` that has one.
    pub(crate) async fn open(
        &self,
        group: &GroupId,
        users: &[UserId],
    ) -> Result<GroupLink, Problem> {
        let config = &self.config;
        let description = config.groups.describe(group).await?;
        let org = description.org_id;
        let request = self.activation_of(group, org.clone());
        self.activate(group, &request).await?;
        config.groups.activated(group).await?;
        config.orchestrator.configure(group, &org, &description.config).await?;
        let mut refused = Problem::new(Code::Forbidden);
        for user in users {
            // A token that was kept may be void by now: then a new one is tried.
            let kept = self.kept_token(&(group.clone(), user.clone())).is_some();
            for _ in 0..1 + usize::from(kept) {
                let Some(token) = self.token(group, user).await? else { break };
                match config.orchestrator.connect(group, &org, &token.routing_token).await {
                    Err(problem) if is_about_the_user(problem.code) => {
                        self.withdraw_token(group, user);
                        refused = problem;
                    }
                    answer => return answer,
                }
            }
        }
        Err(refused)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("rooms", &self.rooms.lock().len()).finish_non_exhaustive()
    }
}

/// Whether a refusal concerns the token, so that another token may do better.
pub(crate) fn is_about_the_user(code: Code) -> bool {
    matches!(
        code,
        Code::Forbidden
            | Code::AccessRevoked
            | Code::StaleEpoch
            | Code::TokenExpired
            | Code::Unauthorized
    )
}

/// Whether an attach that was refused this often before, and now with this code, is tried again with
/// a new token.
pub(crate) fn may_try_again(refusals: u32, code: Code) -> bool {
    let tries = if code == Code::AccessRevoked { MAX_REVOKED_TRIES } else { 1 };
    refusals < tries
}

/// `pause` between half and one and a half times its length, so that what broke at the same time
/// does not return at the same time.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX))
}
