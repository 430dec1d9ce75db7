//! The App: the first hop, and the only one that a client ever talks to.

pub mod ui;
