//! The native host: the binary `convene`, with all services in one process or one in each.
//!
//! Owns configuration, keys, the data directory, the tasks of awake groups and the wiring of the
//! hops. What a group does is decided by the controller, what people may do by the App.

mod agents_transport;
pub mod bench;
pub mod cli;
pub mod clock;
mod commands;
pub mod config;
pub mod controllers;
mod databases;
mod doors;
mod jwks;
pub mod keys;
pub mod lock;
mod log;
mod master_keys;
mod metrics;
mod open_files;
mod operator;
mod resolver;
pub mod serve;
mod services;
mod stores;
mod telemetry;
