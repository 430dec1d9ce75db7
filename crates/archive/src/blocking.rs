//! Compressing and hashing beside the tasks of the runtime, so that nobody waits for them.

use crate::error::ArchiveError;

/// Runs `work` on a thread that may take its time.
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
