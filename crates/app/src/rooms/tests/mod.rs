//! Rooms between a scripted group and real clients over real TCP.

mod attach;
mod client;
mod commands;
mod fan;
mod faults;
mod group;
mod life;
mod orchestrator;
mod posts;
mod recording;
mod resume;
mod revoke;
mod slow;
mod world;
