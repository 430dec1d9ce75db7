//! What a host tells the controller.

use convene_model::{
    AgentId, ApprovalId, ArchiveId, Code, ConnId, GroupId, HistoryId, MessageId, OrgId,
    ParticipantId, Ref, RunId, Timestamp, UpstreamId, UserId,
    agents::{ContextMessage, Outcome, OutsideOutcome, Usage},
    claims::Access,
    event::{ApprovalDecision, Author, GroupConfig, ToolFinished, ToolStarted},
    infra::HistoryMode,
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
    /// Makes the group stand still, so that it can be archived; or repeats that.
    Freeze {
        /// The attempt to archive it.
        archive_id: ArchiveId,
        /// The epoch under which it is archived; a higher one than the controller's is taken over.
        epoch: u64,
    },
    /// Lets a group go on that was to be archived; or repeats that.
    Thaw {
        /// The attempt that was given up.
        archive_id: ArchiveId,
        /// The epoch from now on, higher than the one under which it was frozen.
        epoch: u64,
    },
    /// Lets a group go on that came back from its snapshot, frozen as it was.
    Restore {
        /// The epoch from now on, higher than the one under which it was frozen.
        epoch: u64,
    },
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
    /// Somebody decides about a call that an agent wants to make.
    Approve {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which approval.
        approval_id: ApprovalId,
        /// What is decided.
        decision: ApprovalDecision,
    },
    /// Somebody lets an agent answer a message where a bound had stopped it.
    Continue {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Which agent.
        agent_id: AgentId,
    },
    /// Somebody wants a run again that ended without a whole reply.
    Retry {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
    },
    /// An agent's own process acts on a run.
    Run {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// What it does.
        act: RunAct,
    },
    /// Somebody replaces the text of a message.
    Edit {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Its new text.
        text: String,
        /// The message as it stands.
        target: Option<Target>,
    },
    /// Somebody takes a message back.
    Delete {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// The message as it stands.
        target: Option<Target>,
    },
    /// Somebody puts a reaction on a message or takes it off.
    React(React),
    /// Somebody pins a message or takes it off.
    Pin {
        /// Whose frame it is.
        from: Address,
        /// Repeated by the answer.
        r#ref: Ref,
        /// Which message.
        message_id: MessageId,
        /// Whether it should be pinned.
        on: bool,
        /// The message as it stands.
        target: Option<Target>,
    },
    /// Somebody is writing.
    Typing {
        /// Whose frame it is.
        from: Address,
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
    /// The answer to `Effect::Reserve`.
    Reserved {
        /// Which run.
        run_id: RunId,
        /// Whether it may start.
        leave: Leave,
    },
    /// The organization has no budget: until then runs start without leave.
    Unlimited {
        /// Until when.
        until: Timestamp,
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
    /// An attempt began a call of a tool.
    ToolStarted(ToolStarted),
    /// A call of a tool that an attempt began is over.
    ToolFinished(ToolFinished),
    /// An attempt is over.
    RunEnded {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
        /// How it ended.
        end: RunEnd,
    },
    /// The model has written a summary, or could not.
    Summarized {
        /// Which summary.
        id: u64,
        /// Its name.
        run_id: RunId,
        /// What it wrote.
        text: Option<String>,
        /// What it used; `None` when nobody knows.
        usage: Option<Usage>,
    },
    /// The messages that a summary is to be written of anew.
    Recollected {
        /// Which summary.
        id: u64,
        /// The messages with the numbers of the events that posted them, oldest first.
        messages: Vec<(u64, ContextMessage)>,
    },
    /// The organization's own history service has acknowledged events.
    Exported {
        /// The last of them.
        upto: u64,
        /// Whether these were all that it was to be told of this time.
        whole: bool,
    },
    /// The controller was rebuilt in a new process: no attempt of a run is under way any more.
    Recovered,
    /// Only the time has passed.
    Tick,
}

/// What an agent's own process does with a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunAct {
    /// It takes the run on.
    Claim,
    /// More text of the reply.
    Text {
        /// How many bytes came before.
        offset: u64,
        /// The text.
        text: String,
    },
    /// The run is over.
    End(OutsideOutcome),
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
    /// The message that it answers, as it stands.
    pub answered: Option<Target>,
}

/// A reaction put on or taken off, with what the host looked up for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct React {
    /// Whose frame it is.
    pub from: Address,
    /// Repeated by the answer.
    pub r#ref: Ref,
    /// Which message.
    pub message_id: MessageId,
    /// The emoji.
    pub emoji: String,
    /// Whether it should stand.
    pub on: bool,
    /// The message as it stands.
    pub target: Option<Target>,
    /// The reactions that stand on it.
    pub reactions: Vec<Standing>,
}

/// A message that a command refers to, as it stands after everything that the controller has said
/// so far, committed or not. The host looks it up; `None` in its place means that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The number of the event that posted it.
    pub seq: u64,
    /// Who wrote it.
    pub author: Author,
    /// Whether it was taken back.
    pub deleted: bool,
    /// Its current text.
    pub text: String,
}

/// An emoji on a message, and who put it there; at least one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The emoji.
    pub emoji: String,
    /// Who put it there.
    pub authors: Vec<Author>,
}

/// A message that the host found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The number of the event that posted it.
    pub seq: u64,
    /// Its content's digest, see `Posted::digest`.
    pub digest: [u8; 16],
}

/// Whether a run may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It may: what it may use at most is held for it.
    Granted,
    /// It may not: the organization's budget has no room for it.
    Refused,
    /// Nobody can say.
    Unknown,
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
        /// Whether the attempt may have begun: not so when the Agents Worker refused the call.
        may_have_begun: bool,
    },
}
