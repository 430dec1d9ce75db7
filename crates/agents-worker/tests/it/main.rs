//! The Agents Worker as its caller sees it: the router in memory, stand-ins for the App and
//! the Orchestrator, and providers, services and MCP servers on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apis;
mod cache;
mod demo;
mod faults;
mod http_tools;
mod mcp;
mod prefix;
mod probe;
mod providers;
mod real_servers;
mod summarize;
mod tokens;
mod tools;
mod world;
