//! What a host tells the controller.

use convene_model::{
    Code, ConnId, GroupId, HistoryId, MessageId, OrgId, ParticipantId, Ref, RunId, UpstreamId,
    UserId, agents::Outcome, claims::Access, event::GroupConfig, infra::HistoryMode,
};

/// One connection of one upstream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The upstream.
    pub upstream: UpstreamId,
    /// The connection on it.
    pub conn: ConnId,
}

/// What a host tells the controller. Every input first runs the deadlines that are due.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Brings the group to life, or repeats that, or raises its epoch.
    Init {
        /// The group.
        group_id: GroupId,
        /// Whose it is.
        org_id: OrgId,
        /// Where its history is kept.
        history_mode: HistoryMode,
        /// Its epoch; a higher one than the controller's is taken over.
        epoch: u64,
        /// The numbering that a new group's events will belong to.
        history: HistoryId,
    },
    /// What the controller needs to know of the group.
    Configure(GroupConfig),
    /// A user's routing tokens issued until now become void.
    Revoke(UserId),
    /// An upstream ended; its connections are gone.
    Closed(UpstreamId),
    /// A connection joins, or renews its right.
    Attach {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// The routing token, verified by the host, or why it does not hold.
        access: Result<Access, Code>,
        /// The last event number that the client has seen.
        after: Option<u64>,
        /// The numbering that `after` belongs to.
        history: Option<HistoryId>,
    },
    /// A connection leaves.
    Detach {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
    },
    /// Somebody writes.
    Post(Post),
    /// Somebody stops a run.
    Cancel {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
    },
    /// A frame that could not be read, or that the host refuses; answered in its turn.
    Refuse {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Option<Ref>,
        /// Why.
        code: Code,
        /// What is particular to it.
        detail: String,
        /// When trying again makes sense.
        retry_after_ms: Option<u64>,
    },
    /// More text of a run's reply.
    RunText {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How many bytes came before.
        offset: u64,
        /// The text.
        text: String,
    },
    /// An attempt is over.
    RunEnded {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How it ended.
        end: RunEnd,
    },
    /// The controller was rebuilt in a new process: no attempt of a run is under way any more.
    Recovered,
    /// Only the time has passed.
    Tick,
}

/// A post, with what the host looked up for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Whose frame it is.
    pub from: Address,
    /// Repeated by the answer.
    pub r#ref: Ref,
    /// Makes the post idempotent.
    pub message_id: MessageId,
    /// Its text.
    pub text: String,
    /// Who is mentioned; where absent, `@name` is matched.
    pub mentions: Option<Vec<ParticipantId>>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// The message that already has this id, committed or not.
    pub found: Option<Found>,
    /// Whether the message that it answers exists; `true` when it answers none.
    pub reply_to_exists: bool,
}

/// A message that the host found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The number of the event that posted it.
    pub seq: u64,
    /// Its content's digest, see `Posted::digest`.
    pub digest: [u8; 16],
}

/// How an attempt ended, as the host saw it.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// The Agents Worker said how.
    Said(Outcome),
    /// The Agents Worker could not be reached, refused the call, or its answer was cut.
    Lost {
        /// A stable code.
        code: &'static str,
        /// One sentence for people.
        detail: String,
    },
}
