//! `rooms.db`: the tables that are read, filled from the journal by the projector.
//!
//! Owns the overlay of what is not there yet, the projector and its bounds, and every read. What
//! is lost here in a crash comes back from the journal; nothing here is ever waited for by an
//! acknowledgement.

pub(crate) mod agent_events;
pub(crate) mod chunks;
pub(crate) mod detail;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod ids;
pub(crate) mod inbox;
pub(crate) mod keeper;
pub(crate) mod lookup;
pub(crate) mod marks;
pub(crate) mod overlay;
pub(crate) mod projector;
pub(crate) mod quarantine;
pub(crate) mod reactions;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod trim;
pub(crate) mod view;
pub(crate) mod why;
pub(crate) mod wipe;
pub(crate) mod write;
