//! The App from its doors: what clients, browsers and the Agents Worker see of it.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod agents_worker;
mod audit_page;
mod configuration;
mod csrf;
mod events;
mod groups;
mod identity;
mod lives;
mod orchestrator;
mod own_account;
mod pages;
mod place;
mod providers;
mod reading;
mod recovery;
mod resolve;
mod resolve_known;
mod runs;
mod secrets;
mod support;
mod workspaces;
