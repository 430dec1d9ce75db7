//! What leaves a group, and the gate that it waits at until the events before it are durable.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use convene_group_controller::{Address, Invocation, Summarization};
use convene_hop::{GroupLink, trace::Span};
use convene_model::{Problem, RunId, UpstreamId, agents::Usage, frame::GroupFrame};
use convene_storage::CommitFailed;
use tokio::sync::oneshot;

use super::{Head, figures::OpenLink, usage::EndedRun};

/// Something that leaves a group.
pub(super) enum Output {
    /// A frame for every upstream.
    Broadcast(Bytes),
    /// More text of a reply, for every upstream; put into a frame when it leaves.
    Delta(Delta),
    /// A frame for one upstream.
    Send { upstream: UpstreamId, frame: Bytes },
    /// Stored events for one connection.
    Replay { to: Address, after: u64, upto: u64 },
    /// Call the Agents Worker.
    Invoke(Box<Invocation>),
    /// Have a summary written.
    Summarize(Box<Summarization>),
    /// Look messages up of which a summary is to be written anew.
    Recollect { id: u64, from_seq: u64, to_seq: u64 },
    /// Tell the organization's own history service of events.
    Export { after: u64, upto: u64 },
    /// Stop waiting for an attempt.
    Abort { run_id: RunId, attempt: u32 },
    /// Ask whether a run may start.
    Reserve { run_id: RunId, tokens: u64 },
    /// A run does not start that holds something.
    Unused(RunId),
    /// A summary that no event tells of has used something: that is reported.
    Spent(RunId, Option<Usage>),
    /// A run has ended: what it used is reported.
    RunEnded(EndedRun),
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
    /// They were opened under a former epoch.
    EndUpstreams,
    /// The answer to a call that has more to say.
    Reply(Box<dyn FnOnce() + Send>),
    /// The answer to a call.
    Answer { result: Result<(), Problem>, reply: oneshot::Sender<Result<(), Problem>> },
    /// Where the group stands.
    Head { result: Result<Head, Problem>, reply: oneshot::Sender<Result<Head, Problem>> },
}

/// More text of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) run_id: RunId,
    pub(super) attempt: u32,
    pub(super) offset: u64,
    pub(super) text: String,
}

/// Bytes of text that are joined into one delta at most.
const MAX_JOINED_DELTA: usize = 8 * 1024;

impl Delta {
    /// Takes the text that follows right behind this one, so that both leave in one frame; hands it
    /// back where it does not.
    fn join(&mut self, next: Self) -> Result<(), Self> {
        let follows = self.run_id == next.run_id
            && self.attempt == next.attempt
            && self.offset + self.text.len() as u64 == next.offset
            && self.text.len() + next.text.len() <= MAX_JOINED_DELTA;
        if !follows {
            return Err(next);
        }
        self.text.push_str(&next.text);
        Ok(())
    }

    /// The frame.
    pub(super) fn encode(self) -> Bytes {
        let Self { run_id, attempt, offset, text } = self;
        GroupFrame::Delta { run_id, attempt, offset, text }.encode()
    }
}

/// Adds a frame for every upstream; text that goes on where the last output ended joins it.
pub(super) fn broadcast(outputs: &mut Vec<Output>, frame: GroupFrame) {
    let GroupFrame::Delta { run_id, attempt, offset, text } = frame else {
        outputs.push(Output::Broadcast(frame.encode()));
        return;
    };
    let delta = Delta { run_id, attempt, offset, text };
    let alone = match outputs.last_mut() {
        Some(Output::Delta(last)) => last.join(delta),
        Some(_) | None => Err(delta),
    };
    if let Err(delta) = alone {
        outputs.push(Output::Delta(delta));
    }
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
        if self.waiting.capacity() == 0 {
            // At rest a group keeps the room of one commit, not of four.
            self.waiting.reserve_exact(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(run: &str, attempt: u32, offset: u64, text: &str) -> GroupFrame {
        let (run_id, text) = (RunId::new(run).unwrap(), text.to_owned());
        GroupFrame::Delta { run_id, attempt, offset, text }
    }

    fn after(frames: Vec<GroupFrame>) -> Vec<String> {
        let mut outputs = Vec::new();
        for frame in frames {
            broadcast(&mut outputs, frame);
        }
        let text = |output| match output {
            Output::Delta(delta) => format!("{} {}", delta.offset, delta.text),
            _ => "other".to_owned(),
        };
        outputs.into_iter().map(text).collect()
    }

    #[test]
    fn text_that_goes_on_where_the_last_ended_leaves_in_one_frame() {
        let joined = after(vec![delta("r1", 1, 0, "ab"), delta("r1", 1, 2, "cd")]);
        assert_eq!(joined, ["0 abcd"]);
    }

    #[test]
    fn text_of_another_run_or_attempt_or_place_stands_alone() {
        let first = || delta("r1", 1, 0, "ab");
        for other in [delta("r2", 1, 2, "cd"), delta("r1", 2, 2, "cd"), delta("r1", 1, 3, "cd")] {
            assert_eq!(after(vec![first(), other]).len(), 2);
        }
        let between = GroupFrame::Typing { user_id: convene_model::UserId::new("u").unwrap() };
        assert_eq!(after(vec![first(), between, delta("r1", 1, 2, "cd")]).len(), 3);
    }

    #[test]
    fn a_frame_of_text_is_bounded() {
        let long = "x".repeat(MAX_JOINED_DELTA - 2);
        let fits = after(vec![delta("r1", 1, 0, "ab"), delta("r1", 1, 2, &long)]);
        assert_eq!(fits.len(), 1);
        let beyond = after(vec![delta("r1", 1, 0, "abc"), delta("r1", 1, 3, &long)]);
        assert_eq!(beyond.len(), 2);
    }
}
