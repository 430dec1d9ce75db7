//! How one hop of the chain calls the next: the same routers, tokens and frames, in memory.
//!
//! Owns the way requests, upstreams, errors and tokens pass between services. Knows no service and
//! never decides who may do what.

mod call;
mod error;
mod handshake;
mod link;
mod request;
mod signer;

pub use call::{ConnectError, Hop, HopError};
pub use error::{ApiError, method_not_allowed, not_found};
pub use handshake::Handshake;
pub use link::{GroupLink, LINK_QUEUE_FRAMES, LinkUpgrade};
pub use request::{ApiJson, RawRequest, json, read_body};
pub use signer::{Clock, Signer};
