//! The databases of the App and the Orchestrator: backends of the port in `convene-db`.
//!
//! Their tables and SQL belong to those crates; nothing here knows them.

pub(crate) mod postgres;
pub(crate) mod sqlite;

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
