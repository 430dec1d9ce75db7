//! Client sockets and fan-out: one upstream per active group, shared by all its sockets.
//!
//! ```text
//! client ══WebSocket══ socket ──Command──▶ room ──GroupLink──▶ orchestrator ──▶ group
//!    ▲                                      │
//!    └──────────── outbound ◀── fanout ◀────┘
//! ```
//!
//! Owns the way between clients and groups: joining, renewing, resuming, writing. Never decides
//! who may do what (the workspace does, see [`Groups`]) nor what happened in a group (its
//! controller does), and keeps nothing that outlives the process.

mod commands;
mod doors;
pub mod fanout;
mod figures;
mod html;
mod inbox;
pub mod outbound;
mod raw;
mod reader;
mod reading;
mod records;
mod room;
mod shared;
mod socket;
mod telling;
pub mod tuning;
mod ws;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use convene_hop::{ApiError, Clock, trace};
use convene_model::{
    Code, GroupId, MessageId, OrgId, Problem, Role, Timestamp, UserId,
    event::GroupConfig,
    history::{HistoryQuery, RawHistoryPage, SearchRequest},
    infra::{GroupStatus, HistoryMode},
    why::Why,
};
use tokio::sync::oneshot;

use self::{
    room::Command,
    shared::{Shared, jittered},
    tuning::{RECONNECT_MAX, REVOKE_ATTEMPTS, SHUTDOWN_PATIENCE, Tuning},
};
use crate::orchestrator::OrchestratorClient;

pub use commands::{Carried, GroupCommand, PostRequest};
pub use doors::Proof;
pub use figures::Figures;
pub use html::Render;
pub use raw::{RawHit, RawMessageDetail, RawSearchPage, WithHtml};
pub use records::{Head, Mark, Records, Said};

/// The numbering that is named on the page of a group that was never activated, and that an attach
/// may repeat.
pub const NO_HISTORY: &str = "none";

/// What the Orchestrator and the controller must know of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Whose it is.
    pub org_id: OrgId,
    /// What the controller needs to know.
    pub config: GroupConfig,
}

/// What the rooms ask the workspace.
#[async_trait]
pub trait Groups: Send + Sync {
    /// A group's description.
    ///
    /// # Errors
    /// [`Code::GroupNotFound`], or that the workspace could not be asked.
    async fn describe(&self, group: &GroupId) -> Result<GroupDescription, Problem>;
    /// What a user is in a group; `None` without access.
    ///
    /// # Errors
    /// That the workspace could not be asked.
    async fn role(&self, group: &GroupId, user: &UserId) -> Result<Option<Role>, Problem>;
    /// Up to where a group's messages are recorded; `None` when nothing is.
    ///
    /// # Errors
    /// That the workspace could not be asked.
    async fn head(&self, group: &GroupId) -> Result<Option<Head>, Problem>;
    /// Records what was said and read in a group, and says up to where it is recorded then.
    /// Messages that do not follow what is recorded move nothing, unless they may jump.
    ///
    /// # Errors
    /// That the workspace could not note it.
    async fn record(&self, group: &GroupId, records: Records) -> Result<Option<Head>, Problem>;
    /// The group was activated. Called again whenever its upstream is opened.
    ///
    /// # Errors
    /// That the workspace could not note it.
    async fn activated(&self, group: &GroupId) -> Result<(), Problem>;
    /// The group was found to stand so, by what it or the Orchestrator answered.
    ///
    /// # Errors
    /// That the workspace could not note it.
    async fn stands(&self, group: &GroupId, status: GroupStatus) -> Result<(), Problem>;
}

/// What rooms are made of.
pub struct RoomsConfig {
    /// The next hop.
    pub orchestrator: OrchestratorClient,
    /// The workspace.
    pub groups: Arc<dyn Groups>,
    /// Markdown to a sanitised fragment.
    pub render: Render,
    /// The time, by which routing tokens expire.
    pub clock: Clock,
    /// The organizations whose own services keep what is written in their groups.
    pub external_history: BTreeSet<OrgId>,
    /// How often a client is pinged; silent for two and a half times as long, it counts as gone.
    pub ping_every: Duration,
}

/// All rooms of this process.
#[derive(Debug, Clone)]
pub struct Rooms(Arc<Shared>);

impl Rooms {
    /// No rooms yet. Needs a Tokio runtime once it is used.
    #[must_use]
    pub fn new(config: RoomsConfig) -> Self {
        let ping_every = config.ping_every;
        let silent_for = ping_every * 5 / 2;
        Self::tuned(config, Tuning { ping_every, silent_for, ..Tuning::default() })
    }

    /// Where a workspace's groups keep their history when they are activated.
    pub(crate) fn history_mode(&self, org: &OrgId) -> HistoryMode {
        self.0.history_mode(org)
    }

    pub(crate) fn tuned(config: RoomsConfig, tuning: Tuning) -> Self {
        Self(Arc::new(Shared::new(config, tuning)))
    }

    /// Opens a client's WebSocket in a group. The caller has checked who the user is and that the
    /// request may come from where it comes from.
    ///
    /// Answers 101, 426 when the request is no handshake for our subprotocol, or 503 when the room
    /// is full or the process stops. The group is activated by the client's first attach.
    ///
    /// From its return on the socket is found by [`Rooms::keep_sockets`], so a caller that checks
    /// the proof once more afterwards misses no end of it.
    pub async fn upgrade(
        &self,
        group: GroupId,
        user: UserId,
        proof: Proof,
        request: Request,
    ) -> Response {
        let opened = socket::open(&self.0, &group, user, proof, request);
        opened.unwrap_or_else(|problem| ApiError(problem).into_response())
    }

    /// How full the queues are, and what was refused or dropped because of it.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// The tokens that sockets here were opened with.
    #[must_use]
    pub fn tokens_in_use(&self) -> Vec<Proof> {
        self.0.doors.tokens()
    }

    /// Whether a user has sockets here.
    #[must_use]
    pub fn has_sockets(&self, user: &UserId) -> bool {
        self.0.doors.has(user)
    }

    /// Closes the sockets of a user in all groups that the user may not see any more, as the
    /// workspace has it. The group's own word does the same; this holds when it is lost.
    ///
    /// # Errors
    /// That the workspace could not be asked.
    pub async fn recheck_user(&self, user: &UserId) -> Result<(), Problem> {
        for group in self.0.doors.groups_of(user) {
            self.recheck(&group, user).await?;
        }
        Ok(())
    }

    /// Closes the sockets in a group of all users who may not see it any more.
    ///
    /// # Errors
    /// That the workspace could not be asked.
    pub async fn recheck_group(&self, group: &GroupId) -> Result<(), Problem> {
        for user in self.0.doors.users_in(group) {
            self.recheck(group, &user).await?;
        }
        Ok(())
    }

    async fn recheck(&self, group: &GroupId, user: &UserId) -> Result<(), Problem> {
        if self.0.config.groups.role(group, user).await?.is_some() {
            return Ok(());
        }
        self.0.withdraw_token(group, user);
        if let Some(room) = self.0.existing(group) {
            let _ = room.commands.send(Command::DropUser { user: user.clone() }).await;
        }
        Ok(())
    }

    /// Closes the sockets of a user whose proof is none of these, with 4003.
    pub fn keep_sockets(&self, user: &UserId, held: &HashSet<String>) {
        self.0.doors.keep(user, held);
    }

    /// Closes the sockets whose proof has ended by itself, with 4003.
    pub fn close_expired(&self, now: Timestamp) {
        self.0.doors.close_expired(now);
    }

    /// Carries out a user's command and waits until it is durable.
    ///
    /// # Errors
    /// The group's or the Orchestrator's problem; [`Code::Forbidden`] for a user without access;
    /// [`Code::Unavailable`] when there was no answer in time, in which case the command may still
    /// arrive and may be sent again.
    pub async fn command(
        &self,
        group: GroupId,
        user: UserId,
        command: GroupCommand,
    ) -> Result<Carried, Problem> {
        // Held until the answer is there, so that the room stays.
        let room = self.0.room(&group)?;
        let (reply, answer) = oneshot::channel();
        let unavailable = |why: &str| Problem::new(Code::Unavailable).detail(why);
        let asked = async {
            let command = Command::Ask { user, command, trace: trace::current(), reply };
            room.commands
                .send(command)
                .await
                .map_err(|_| unavailable("the service is stopping"))?;
            answer.await.map_err(|_| unavailable("the group's answer was lost"))?
        };
        match tokio::time::timeout(self.0.tuning.answer_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable("the group did not answer in time")),
        }
    }

    /// A page of a group's history. Activates nothing: a group that was never activated has an
    /// empty page with head 0 and the numbering [`NO_HISTORY`].
    ///
    /// # Errors
    /// [`Code::Forbidden`] for a user without access; the Orchestrator's problem.
    pub async fn history(
        &self,
        group: GroupId,
        user: UserId,
        query: HistoryQuery,
    ) -> Result<RawHistoryPage, Problem> {
        self.0.history(&group, &user, query).await
    }

    /// One message and its former versions.
    ///
    /// # Errors
    /// [`Code::MessageNotFound`]; [`Code::Forbidden`] for a user without access; the Orchestrator's
    /// problem.
    pub async fn message(
        &self,
        group: GroupId,
        user: UserId,
        message: MessageId,
    ) -> Result<RawMessageDetail, Problem> {
        self.0.message(&group, &user, message).await
    }

    /// Why agents answered a message, or did not.
    ///
    /// # Errors
    /// [`Code::MessageNotFound`]; [`Code::Forbidden`] for a user without access; the Orchestrator's
    /// problem.
    pub async fn why(
        &self,
        group: GroupId,
        user: UserId,
        message: MessageId,
    ) -> Result<Why, Problem> {
        self.0.why(&group, &user, message).await
    }

    /// What a search in a group finds. A group that was never activated has nothing to find.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for a user without access; the Orchestrator's problem.
    pub async fn search(
        &self,
        group: GroupId,
        user: UserId,
        request: SearchRequest,
    ) -> Result<RawSearchPage, Problem> {
        self.0.search(&group, &user, request).await
    }

    /// How many messages a group has up to an event, by its own history; `None` when the user has
    /// lost access.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn look_up(
        &self,
        group: &GroupId,
        user: &UserId,
        up_to: u64,
    ) -> Result<Option<Mark>, Problem> {
        self.0.look_up(group, user.clone(), up_to).await
    }

    /// Tells the group's controller that its description changed, and returns once it knows: what is
    /// posted from then on is decided by the new one. A group that was never activated, or is in the
    /// archive, is told when it is opened. Begins at once, and goes on when the caller does not wait.
    ///
    /// # Errors
    /// [`Code::GroupControllerUnavailable`] when the group did not take it in time; it is told again
    /// beside the caller until it has.
    pub fn reconfigure(
        &self,
        group: &GroupId,
    ) -> impl Future<Output = Result<(), Problem>> + use<> {
        telling::tell(&self.0, group)
    }

    /// Withdraws what a user was allowed in a group until now; to be called after the workspace
    /// has changed. A user who lost access is dropped here at once; everywhere else, and with
    /// another role, the user's sockets end with the group's own word. Runs beside the caller.
    pub fn revoke(&self, group: &GroupId, user: &UserId) {
        self.0.withdraw_token(group, user);
        let (shared, group, user) = (Arc::clone(&self.0), group.clone(), user.clone());
        tokio::spawn(async move {
            let role = shared.config.groups.role(&group, &user).await;
            if let (Ok(None), Some(room)) = (role, shared.existing(&group)) {
                let _ = room.commands.send(Command::DropUser { user: user.clone() }).await;
            }
            revoke_until_done(&shared, &group, &user).await;
            shared.withdraw_token(&group, &user);
        });
    }

    /// Closes all sockets with 1001 and waits for the commands that are under way. Nothing is opened
    /// afterwards.
    pub async fn shutdown(&self) {
        let rooms = self.0.stop();
        for room in &rooms {
            let _ = room.commands.send(Command::Stop).await;
        }
        let ended = async {
            for room in &rooms {
                room.commands.closed().await;
            }
        };
        let patience = SHUTDOWN_PATIENCE + self.0.tuning.tick;
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("some rooms did not end in time");
        }
    }
}

async fn revoke_until_done(shared: &Shared, group: &GroupId, user: &UserId) {
    let mut pause = shared.tuning.reconnect_first;
    for _ in 0..REVOKE_ATTEMPTS {
        let revoked = async {
            let org = shared.org(group).await?;
            shared.config.orchestrator.revoke(group, &org, user).await
        };
        match revoked.await {
            Ok(()) => return,
            // Never activated: there is nothing that a token could open.
            Err(problem) if problem.code == Code::GroupNotFound => return,
            Err(problem) => tracing::warn!(
                %group, %user, code = problem.code.as_str(), detail = problem.detail,
                "a revocation did not go through"
            ),
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
    tracing::error!(%group, %user, "a revocation was given up");
}
