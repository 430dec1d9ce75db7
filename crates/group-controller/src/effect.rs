//! What the controller asks of its host. Effects run in order, after the step's events are durable.

use convene_model::{
    OrgId, RunId, Timestamp, UserId,
    agents::{InvokeRequest, SummarizeRequest, Usage},
    frame::GroupFrame,
};

use crate::Address;

/// What the controller asks of its host.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A frame for one connection.
    Send {
        /// Which.
        to: Address,
        /// The frame.
        frame: GroupFrame,
    },
    /// The events `after + 1 ..= upto`, each as it was broadcast, for one connection.
    Replay {
        /// Which.
        to: Address,
        /// The last event that it has.
        after: u64,
        /// The last event to send.
        upto: u64,
    },
    /// A frame for every upstream.
    Broadcast(GroupFrame),
    /// End every upstream: they were opened under a former epoch, and so is nobody attached through
    /// one any more. What was sent before still goes out.
    EndUpstreams,
    /// Ask whether a run or a summary may start, and hold what it may use at most. Running it again is
    /// harmless: each holds it once. The answer is `Input::Reserved`.
    Reserve {
        /// Which run, or the name of the summary.
        run_id: RunId,
        /// Tokens.
        tokens: u64,
    },
    /// A run or a summary does not start that holds something: it has used nothing.
    Unused {
        /// Which run, or the name of the summary.
        run_id: RunId,
    },
    /// A summary that nobody wants any more was written, or failed: no event says what it used.
    Spent {
        /// The name of the summary.
        run_id: RunId,
        /// What it used; `None` when nobody knows.
        usage: Option<Usage>,
    },
    /// Call the Agents Worker. Running it again is harmless: the worker takes each token once, and
    /// results of an attempt that is not the current one are refused.
    Invoke(Box<Invocation>),
    /// Have the Agents Worker write a summary, and answer with `Input::Summarized`, whatever comes of
    /// it, within `SUMMARY_TIMEOUT`.
    Summarize(Box<Summarization>),
    /// Look the newest messages of a range up as they are now, deleted ones left out, at most
    /// `MAX_PAGE` of them, and answer with `Input::Recollected`.
    Recollect {
        /// Which summary they are for.
        id: u64,
        /// The number of the event that posted the first message of the range.
        from_seq: u64,
        /// The number of the event that posted the last message of the range.
        to_seq: u64,
    },
    /// Tell the organization's own history service of the events `after + 1 ..= upto`, in order, as
    /// often as it takes, and answer with `Input::Exported`.
    Export {
        /// What it has acknowledged.
        after: u64,
        /// The last event that it is to be told of.
        upto: u64,
    },
    /// Stop waiting for an attempt; its request ends with the connection.
    Abort {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
    },
}

/// A summary that the Agents Worker is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summarization {
    /// Which summary.
    pub id: u64,
    /// Whose group it is.
    pub org_id: OrgId,
    /// What to send.
    pub request: SummarizeRequest,
}

/// A call of the Agents Worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Whose group it is.
    pub org_id: OrgId,
    /// Who answers for the run: who began the chain of messages, let it go on, or wanted it again.
    pub initiator: Option<UserId>,
    /// What to send.
    pub request: InvokeRequest,
    /// When the controller gives the run up.
    pub deadline: Timestamp,
}
