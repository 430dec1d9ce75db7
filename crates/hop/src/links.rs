//! The WebSockets of a process that carry upstreams, so that they end in order with it.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a closing upstream waits for the other side to acknowledge.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A register of upstreams over WebSockets. Cheap to clone; clones share the register.
#[derive(Debug, Clone, Default)]
pub struct Links {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Links {
    /// An empty register.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes all upstreams with 1001 and waits until they are closed, [`CLOSE_PATIENCE`] and a
    /// little at most.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let patience = CLOSE_PATIENCE + CLOSE_PATIENCE / 2;
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.tasks.len(), "some upstreams did not close in time");
        }
    }

    /// How many upstreams are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}
