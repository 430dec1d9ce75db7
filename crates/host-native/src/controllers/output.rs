//! What leaves a group, and the gate that it waits at until the events before it are durable.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use convene_group_controller::{Address, Invocation};
use convene_hop::{GroupLink, trace::Span};
use convene_model::{Problem, RunId, UpstreamId};
use convene_storage::CommitFailed;
use tokio::sync::oneshot;

use super::{Head, figures::OpenLink};

/// Something that leaves a group.
pub(super) enum Output {
    /// A frame for every upstream.
    Broadcast(Bytes),
    /// A frame for one upstream.
    Send { upstream: UpstreamId, frame: Bytes },
    /// Stored events for one connection.
    Replay { to: Address, after: u64, upto: u64 },
    /// Call the Agents Worker.
    Invoke(Box<Invocation>),
    /// Stop waiting for an attempt.
    Abort { run_id: RunId, attempt: u32 },
    /// From here on the upstream gets broadcasts and is read.
    Opened {
        upstream: UpstreamId,
        link: GroupLink,
        figures: OpenLink,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    /// What was done is durable: its span ends.
    Traced(Span),
    /// From here on it does not.
    Closed { upstream: UpstreamId },
    /// The answer to a call that has more to say.
    Reply(Box<dyn FnOnce() + Send>),
    /// The answer to a call.
    Answer { result: Result<(), Problem>, reply: oneshot::Sender<Result<(), Problem>> },
    /// Where the group stands.
    Head { result: Result<Head, Problem>, reply: oneshot::Sender<Result<Head, Problem>> },
}

/// The outputs of a group in their order, each behind the commits that it must wait for.
#[derive(Default)]
pub(super) struct Gate {
    waiting: VecDeque<Held>,
}

struct Held {
    commit: Option<oneshot::Receiver<Result<(), CommitFailed>>>,
    outputs: Vec<Output>,
}

impl Gate {
    /// Holds outputs behind everything that is held already, and behind `commit`.
    pub(super) fn hold(
        &mut self,
        commit: Option<oneshot::Receiver<Result<(), CommitFailed>>>,
        outputs: Vec<Output>,
    ) {
        if commit.is_none()
            && let Some(last) = self.waiting.back_mut()
        {
            last.outputs.extend(outputs);
            return;
        }
        self.waiting.push_back(Held { commit, outputs });
    }

    /// How many commits are waited for.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The outputs in front, once they may leave. Asking in vain loses nothing.
    ///
    /// # Errors
    /// [`CommitFailed`] when the events before them did not become durable: nothing may leave then.
    pub(super) fn poll_opened(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Output>, CommitFailed>> {
        let Some(front) = self.waiting.front_mut() else { return Poll::Pending };
        if let Some(commit) = front.commit.as_mut() {
            let Poll::Ready(committed) = Pin::new(commit).poll(cx) else { return Poll::Pending };
            if let Err(failed) = committed.unwrap_or(Err(CommitFailed::OutcomeUnknown)) {
                return Poll::Ready(Err(failed));
            }
        }
        let outputs = self.waiting.pop_front().map(|held| held.outputs);
        Poll::Ready(Ok(outputs.unwrap_or_default()))
    }

    /// Waits until the outputs in front may leave; with nothing held it waits for ever.
    ///
    /// # Errors
    /// As [`Self::poll_opened`] has it.
    pub(super) async fn opened(&mut self) -> Result<Vec<Output>, CommitFailed> {
        std::future::poll_fn(|cx| self.poll_opened(cx)).await
    }
}
