//! The upstreams of one group: their frames are read here, in order, and what leaves is sent here.
//!
//! A group's own task reads its upstreams, since passing each frame on from a task beside it costs
//! more than reading it. Only what takes long, the check of a token, is done beside the task; the
//! upstream's next frames wait for it, the other upstreams' do not.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use convene_hop::{Close, GroupLink, LinkClose};
use convene_model::{UpstreamId, frame::CLOSE_TOO_SLOW};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};

use super::{
    Shared,
    figures::OpenLink,
    inbound::{self, Inbound, Read},
};

/// Frames of one upstream that are taken at a time: few enough that a commit begins with the first
/// ones while the next are read.
pub(super) const AT_A_TIME: usize = 16;

/// What has come from an upstream.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Frames, in order.
    Frames(Vec<Inbound>),
    /// It has ended.
    Ended,
}

/// The upstreams of one group.
#[derive(Default)]
pub(super) struct Upstreams {
    open: Vec<Upstream>,
}

struct Upstream {
    id: UpstreamId,
    tx: mpsc::Sender<Bytes>,
    close: LinkClose,
    /// `None` once it has ended.
    rx: Option<mpsc::Receiver<Bytes>>,
    /// Frames that are checked beside the group's task.
    checked: Option<JoinHandle<Vec<Inbound>>>,
    figures: OpenLink,
}

impl Upstreams {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// From here on the upstream gets broadcasts and is read.
    pub(super) fn add(&mut self, id: UpstreamId, link: GroupLink, figures: OpenLink) {
        let GroupLink { tx, rx, close } = link;
        // Most groups have one, and a node keeps thousands of groups.
        self.open.reserve_exact(1);
        self.open.push(Upstream { id, tx, rx: Some(rx), checked: None, close, figures });
    }

    /// Takes no further frames. Those that have come already still arrive, then each upstream ends.
    pub(super) fn close_all(&mut self, why: &Close) {
        for upstream in &mut self.open {
            upstream.close.say(why.clone());
            if let Some(rx) = &mut upstream.rx {
                rx.close();
            }
        }
    }

    /// From here on it does not. Whether it was there.
    pub(super) fn remove(&mut self, id: UpstreamId) -> bool {
        let before = self.open.len();
        self.open.retain(|upstream| upstream.id != id);
        self.open.len() < before
    }

    /// Sends a frame to one upstream, if it is there. `false` when it ended or cannot keep up.
    pub(super) fn send(&self, id: UpstreamId, frame: Bytes) -> bool {
        let upstream = self.open.iter().find(|upstream| upstream.id == id);
        upstream.is_none_or(|upstream| upstream.send(frame))
    }

    /// Sends a frame to all; returns those that ended or cannot keep up.
    pub(super) fn broadcast(&self, frame: &Bytes) -> Vec<UpstreamId> {
        let late = self.open.iter().filter(|upstream| !upstream.send(frame.clone()));
        late.map(|upstream| upstream.id).collect()
    }

    /// Takes what has come from each upstream, at most [`AT_A_TIME`] frames. Loses nothing when it
    /// is not asked again.
    pub(super) fn poll(
        &mut self,
        shared: &Arc<Shared>,
        cx: &mut Context<'_>,
        into: &mut Vec<(UpstreamId, Arrival)>,
    ) {
        for upstream in &mut self.open {
            if let Poll::Ready(arrival) = upstream.poll(shared, cx) {
                if into.capacity() == 0 {
                    into.reserve_exact(1);
                }
                into.push((upstream.id, arrival));
            }
        }
    }
}

impl Upstream {
    /// `false` when it ended or cannot keep up; in the latter case it is told so.
    fn send(&self, frame: Bytes) -> bool {
        match self.tx.try_send(frame) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.figures.too_slow();
                self.close.say(Close::new(CLOSE_TOO_SLOW, "the upstream cannot keep up"));
                false
            }
        }
    }

    fn poll(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<Arrival> {
        if let Some(checked) = &mut self.checked {
            let Poll::Ready(frames) = Pin::new(checked).poll(cx) else { return Poll::Pending };
            self.checked = None;
            return Poll::Ready(match frames {
                Ok(frames) => Arrival::Frames(frames),
                Err(error) => {
                    tracing::error!(%error, "the check of an upstream's frames failed");
                    self.rx = None;
                    Arrival::Ended
                }
            });
        }
        let Some(rx) = &mut self.rx else { return Poll::Pending };
        let mut waiting = Vec::with_capacity(rx.len().min(AT_A_TIME));
        let Poll::Ready(count) = rx.poll_recv_many(cx, &mut waiting, AT_A_TIME) else {
            return Poll::Pending;
        };
        if count == 0 {
            self.rx = None;
            return Poll::Ready(Arrival::Ended);
        }
        let mut read = Vec::with_capacity(count);
        let mut waiting = waiting.into_iter();
        while let Some(frame) = waiting.next() {
            match inbound::read(&frame) {
                Read::Ready(inbound) => read.push(inbound),
                Read::Attach(attach) => {
                    let (rest, shared) = (waiting.as_slice().to_vec(), Arc::clone(shared));
                    let tasks = shared.tasks.clone();
                    self.checked = Some(tasks.spawn(async move {
                        let first = attach.verify(&shared);
                        let rest = rest.iter().map(|frame| inbound::inspect(&shared, frame));
                        std::iter::once(first).chain(rest).collect()
                    }));
                    break;
                }
            }
        }
        if read.is_empty() {
            // Only to be woken when the check is done.
            return self.poll(shared, cx);
        }
        Poll::Ready(Arrival::Frames(read))
    }
}
