//! How one hop of the chain calls the next: the same routers, tokens and frames, in memory or over
//! HTTP and WebSocket.
//!
//! Owns the way requests, upstreams, errors and tokens pass between services. Knows no service and
//! never decides who may do what.

pub mod api;
mod call;
mod error;
mod handshake;
mod http_hop;
mod lifecycle;
mod link;
mod links;
mod pump;
mod request;
mod signer;
pub mod trace;

pub use call::{ConnectError, Hop, HopError};
pub use error::{ApiError, method_not_allowed, not_found};
pub use handshake::Handshake;
pub use http_hop::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, KEPT_IDLE, PAUSE_TIMEOUT, SET_ASIDE_FOR};
pub use lifecycle::LIFECYCLE;
pub use link::{Close, GroupLink, LINK_QUEUE_FRAMES, LinkClose, LinkUpgrade};
pub use links::{CLOSE_PATIENCE, Links};
pub use pump::{LINK_PING_EVERY, LINK_SILENT_FOR, MAX_FRAME_FROM_GROUP, MAX_FRAME_TO_GROUP};
pub use request::{ApiJson, RawRequest, json, query, read_body};
pub use signer::{Clock, Signer};
