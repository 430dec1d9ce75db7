//! Convene from the outside: the binary as a process, driven by clients that know nothing of its
//! inside.
#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is a failed test")]

mod access;
mod agent_runs;
mod agent_tools;
mod alarms;
mod archive_content;
mod archive_faults;
mod archive_lifecycle;
mod archive_races;
mod archive_stage;
mod archived_reading;
mod archives;
mod archiving;
mod backup;
mod bench;
mod chain;
mod changes;
mod chat;
mod cluster;
mod commands;
mod conformance;
mod contract;
mod controllers;
mod crash;
mod examples;
mod external_history;
mod faults;
mod frames;
mod full_disk;
mod guides;
mod healing;
mod leaks;
mod master_keys;
mod metrics;
mod openapi;
mod operators;
mod outside_agents;
mod policy;
mod postgres;
mod providers;
mod proxy;
mod rivals;
mod rotation;
mod shipped_logs;
mod sleep;
mod storm;
mod story;
mod story_access;
mod story_account;
mod story_agents;
mod story_approvals;
mod story_cost;
mod story_life;
mod story_limits;
mod story_members;
mod story_messages;
mod story_reading;
mod story_runs;
mod story_settings;
mod story_stage;
mod story_still;
mod streams;
mod tool_faults;
mod tool_house;
mod traces;
mod two_workers;
mod usage;
mod users;
mod why;

use std::path::Path;

use convene_testing::process::Launch;

/// The binary that these tests were built with, on `dir`.
fn convene(dir: &Path) -> Launch {
    let binary = env!("CARGO_BIN_EXE_convene");
    Launch::new(binary, &dir.join("data"))
}
