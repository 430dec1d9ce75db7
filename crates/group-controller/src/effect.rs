//! What the controller asks of its host. Effects run in order, after the step's events are durable.

use convene_model::{OrgId, RunId, Timestamp, agents::InvokeRequest, frame::GroupFrame};

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
    /// Call the Agents Worker. Running it again is harmless: the worker takes each token once, and
    /// results of an attempt that is not the current one are refused.
    Invoke(Box<Invocation>),
    /// Stop waiting for an attempt; its request ends with the connection.
    Abort {
        /// Which run.
        run_id: RunId,
        /// Which attempt of it.
        attempt: u32,
    },
}

/// A call of the Agents Worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Whose group it is.
    pub org_id: OrgId,
    /// What to send.
    pub request: InvokeRequest,
    /// When the controller gives the run up.
    pub deadline: Timestamp,
}
