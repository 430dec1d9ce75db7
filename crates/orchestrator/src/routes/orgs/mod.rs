//! Organizations, as far as the Orchestrator knows them.

pub(crate) mod list;
