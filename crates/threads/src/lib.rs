//! Threads that nobody waits for, and what they leave to those that somebody does wait for.
//!
//! A node carries posts over, fills its search index, packs and checks snapshots while people write.
//! All of that may take its time: it runs on background threads, which have the lowest priority and
//! give way every few kilobytes. Knows nothing of groups, files or the network.

mod background;
mod turns;

pub use background::{Abandoned, run};
pub use turns::{Turns, become_background, give_way, is_background, prefer_turns, worked};
