//! Rooms between a scripted group and real clients over real TCP.

mod attach;
mod client;
mod fan;
mod faults;
mod group;
mod life;
mod posts;
mod resume;
mod revoke;
mod slow;
mod world;
