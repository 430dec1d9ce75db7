//! The Agents Worker as its caller sees it: the router in memory, a stand-in for the App, and a
//! model provider on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cache;
mod demo;
mod faults;
mod providers;
mod summarize;
mod tokens;
mod world;
