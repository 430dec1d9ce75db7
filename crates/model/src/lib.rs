//! What travels between Convene's hops: ids, events, frames, token claims, problems, limits.
//!
//! Owns the shapes and their validation, and the signing and checking of tokens. Never does IO,
//! never reads a clock and never draws randomness: time and `jti` values are passed in.

pub mod agents;
pub mod archive;
pub mod claims;
pub mod event;
pub mod external;
pub mod frame;
pub mod history;
pub mod ids;
pub mod infra;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod mention;
pub mod price;
pub mod probe;
pub mod problem;
pub mod rate;
pub mod record;
pub mod replay;
pub mod role;
pub mod signing_keys;
pub mod tasks;
pub mod time;
pub mod token;
pub mod tools;
pub mod trace;
pub mod usage;
pub mod why;

pub use ids::{
    AgentId, ApprovalId, ArchiveId, CallId, ConnId, GroupId, GroupKey, HistoryId, ImportId,
    LifeEventId, MessageId, OrgId, ParticipantId, Ref, RunId, TaskId, UpstreamId, UserId,
};
pub use problem::{Code, Problem};
pub use role::Role;
pub use time::Timestamp;
