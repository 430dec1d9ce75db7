//! The reading side of a client's socket, as the WebSocket library wants it.
//!
//! Reads from the shared stream. What the library writes on its own (pongs) goes to the client's
//! [`Outbound`] in whole frames, so that it never interleaves with what the room writes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    inbox::Boundary,
    outbound::{Outbound, Sent},
};

/// The reading side of a client's socket.
pub(crate) struct Reader {
    /// What was read with the request already.
    first: Bytes,
    stream: Arc<TcpStream>,
    outbound: Arc<Outbound>,
    /// What the library wrote since the last flush, which is at the end of a frame.
    written: Vec<u8>,
    /// Where what was read so far ends.
    boundary: Boundary,
}

impl Reader {
    pub(crate) fn new(first: &[u8], stream: Arc<TcpStream>, outbound: Arc<Outbound>) -> Self {
        // Copied, for the buffer that the request was read into is many times as large as what is
        // mostly in it: nothing.
        let first = Bytes::copy_from_slice(first);
        Self { first, stream, outbound, written: Vec::new(), boundary: Boundary::default() }
    }

    /// Whether everything that was read were whole messages.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.first.is_empty() && self.boundary.is_between_messages()
    }

    /// Waits until there is something to read, the end included.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let len = self.first.len().min(buffer.remaining());
            let read = self.first.split_to(len);
            buffer.put_slice(&read);
            self.boundary.pass(&read);
            if self.first.is_empty() {
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            // Into memory that nobody has touched: an idle client's buffer costs no more than the
            // few bytes that were ever read.
            match self.stream.try_read_buf(buffer) {
                Ok(_) => {
                    self.boundary.pass(&buffer.filled()[before..]);
                    self.outbound.hear();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Reader {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let bytes = Bytes::from(std::mem::take(&mut self.written));
        match self.outbound.send(&bytes, 0, 1) {
            Sent::Written | Sent::Waiting => Poll::Ready(Ok(())),
            Sent::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
