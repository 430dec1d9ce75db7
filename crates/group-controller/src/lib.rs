//! The Group Controller: the pure state machine of one group.
//!
//! It owns what happened in the group and what follows from it. It has no async, no IO, no clock
//! and no randomness: a host feeds it inputs with the time, writes the events of each [`Step`]
//! durably, then runs the step's effects in order, then sets its alarm.

mod approval;
mod budget;
mod checkpoints;
mod commands;
mod compaction;
mod context;
mod controller;
mod effect;
mod export;
mod few;
mod input;
mod live;
mod mention;
mod outside;
mod presence;
mod remembered;
mod run;
mod runs;
mod state;
mod triggers;

pub use controller::{Controller, Rejected, SnapshotError, Step};
pub use effect::{Effect, Invocation, Summarization};
pub use input::{Address, Found, Input, Leave, Post, React, RunAct, RunEnd, Standing, Target};
pub use run::{Phase, Run};
pub use state::{ImpossibleEvent, State};
