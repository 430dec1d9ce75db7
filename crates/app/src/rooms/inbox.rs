//! What a client sends, message by message, at no cost while it sends nothing.
//!
//! The library's reader holds a buffer of eight kilobytes. Most clients are silent most of the time,
//! so it is made when something comes and given back when the client falls silent between two
//! messages.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use convene_model::limits::MAX_FRAME_BYTES;
use futures_util::StreamExt;
use tokio_websockets::{Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::reader::Reader;

/// A client's messages.
pub(crate) struct Inbox(State);

enum State {
    /// The client is silent between two messages.
    Silent(Reader),
    /// Something came. In a box, so that a silent client's task has no room for it.
    Reading(Box<WebSocketStream<Reader>>),
    /// Only while one of the others becomes the next.
    Between,
}

impl Inbox {
    pub(crate) fn new(reader: Reader) -> Self {
        Self(open(reader))
    }

    /// The next message; `None` when the socket ended. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        loop {
            self.0 = match std::mem::replace(&mut self.0, State::Between) {
                State::Silent(reader) => match reader.poll_ready(cx) {
                    Poll::Ready(()) => open(reader),
                    Poll::Pending => {
                        self.0 = State::Silent(reader);
                        return Poll::Pending;
                    }
                },
                State::Reading(mut stream) => match stream.poll_next_unpin(cx) {
                    // Asked for more, the library has handed out every message that was whole.
                    Poll::Pending if stream.get_ref().is_between_messages() => {
                        State::Silent(stream.into_inner())
                    }
                    other => {
                        self.0 = State::Reading(stream);
                        return other;
                    }
                },
                State::Between => return Poll::Ready(None),
            };
        }
    }

    #[cfg(test)]
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.0, State::Silent(_))
    }
}

fn open(reader: Reader) -> State {
    let limits = Limits::default().max_payload_len(Some(MAX_FRAME_BYTES));
    State::Reading(Box::new(ServerBuilder::new().limits(limits).serve(reader)))
}

/// Where a stream of frames (RFC 6455, section 5.2) stands: whether all that came were whole
/// messages. Checks nothing: that is the library's.
#[derive(Debug, Default)]
pub(crate) struct Boundary {
    /// The beginning of a frame whose header is not whole.
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// Bytes of the frame's payload that are still to come.
    payload_left: u64,
    /// Whether the last data frame was not the end of its message.
    in_message: bool,
}

/// Bytes of a frame's header at most: two, a length of eight, a mask of four.
const MAX_HEADER: usize = 14;

impl Boundary {
    /// Goes over what came.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skipped =
                    bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.header_len] = *first;
            self.header_len += 1;
            bytes = rest;
            if self.header_len >= 2 && self.header_len == self.whole_header() {
                self.begin_payload();
            }
        }
    }

    /// Whether nothing of a message is still to come.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.in_message
    }

    /// How long the header is, by its first two bytes.
    fn whole_header(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, b| (all << 8) | u64::from(*b));
        self.payload_left = match self.header[1] & 0x7f {
            126 => number(&self.header[2..4]),
            127 => number(&self.header[2..10]),
            short => u64::from(short),
        };
        let is_control = self.header[0] & 0x08 != 0;
        if !is_control {
            self.in_message = self.header[0] & 0x80 == 0;
        }
        self.header_len = 0;
    }
}

#[cfg(test)]
#[path = "tests/inbox.rs"]
mod tests;
