//! The Orchestrator as apps and controllers see it: through its router, on a real directory, with
//! controllers that verify what reaches them.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

mod activate;
mod adopt;
mod archive;
mod archive_again;
mod arrows;
mod block;
mod budget;
mod cleanup;
mod configure;
mod controllers;
mod delete;
mod events;
mod faults;
mod follow_ups;
mod groups;
mod idempotency;
mod lifecycle;
mod limits;
mod listing;
mod passing;
mod place;
mod policy;
mod raise_epoch;
mod reconcile;
mod restore;
mod revoke;
mod rivals;
mod routing_token;
mod search_for_runs;
mod service;
mod snapshots;
mod stores;
mod usage;
mod world;
