//! Compressing and hashing beside the tasks of the runtime, so that nobody waits for them.

use crate::error::ArchiveError;

/// Runs `work` for somebody who waits for its outcome: on a thread of normal priority.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(ArchiveError::GivenUp),
        },
    }
}

/// Runs `work` that goes through a whole snapshot and may take its time: in the background, so that posts
/// in other groups do not wait behind it.
pub(crate) async fn run_in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ArchiveError> {
    convene_threads::run(work).await.map_err(|_| ArchiveError::GivenUp)
}
