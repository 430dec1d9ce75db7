//! The storage crate as its users see it.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

mod database;
