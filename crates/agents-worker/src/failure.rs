//! Why an attempt failed: a stable code and one sentence that people can act on.

use convene_model::agents::{Outcome, Usage};

/// A failure on its way to the group. The detail never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One of [`convene_model::agents::failure`].
    pub(crate) code: &'static str,
    /// One sentence.
    pub(crate) detail: String,
    /// After how many milliseconds the same may work, where that is known.
    pub(crate) retry_after_ms: Option<u64>,
    /// Whether the service refused the request as it was, before it did anything.
    pub(crate) refused: bool,
}

impl Failure {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after_ms: None, refused: false }
    }
}

impl Failure {
    /// The end of a run that had used `usage` until then, where that is known.
    pub(crate) fn outcome(self, usage: Option<Usage>) -> Outcome {
        let Self { code, detail, retry_after_ms, refused: _ } = self;
        Outcome::Failed { code: code.to_owned(), detail, retry_after_ms, usage }
    }
}
