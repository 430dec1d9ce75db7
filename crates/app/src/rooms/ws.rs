//! Server frames of a WebSocket (RFC 6455, section 5.2) as bytes. Reading is the library's.

use bytes::{BufMut, Bytes, BytesMut};
use convene_model::frame::CLOSE_TOO_SLOW;

const FIN: u8 = 0x80;
const TEXT: u8 = FIN | 1;
const CLOSE: u8 = FIN | 8;
const PING: u8 = FIN | 9;

/// Why we close a socket, as its close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The client closed.
    Normal = 1000,
    /// This process stops.
    GoingAway = 1001,
    /// The client broke the WebSocket protocol.
    Protocol = 1002,
    /// A binary message.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    NotUtf8 = 1007,
    /// The group refuses us for good.
    Refused = 1008,
    /// A message above the limit.
    TooBig = 1009,
    /// The stream cannot be continued; the client attaches anew with what it has.
    Restart = 1012,
    /// The group cannot take the connection now.
    Overloaded = 1013,
    /// The user's access was withdrawn.
    Revoked = 4003,
    /// The client cannot keep up; it reconnects and resumes.
    TooSlow = CLOSE_TOO_SLOW as isize,
}

/// Appends a text frame.
pub(crate) fn put_text(out: &mut BytesMut, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    put_header(out, TEXT, payload.len());
    out.put_slice(payload);
}

/// A text frame.
pub(crate) fn text(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_text(&mut out, payload);
    out.freeze()
}

/// A close frame.
pub(crate) fn close(code: CloseCode) -> Bytes {
    let mut out = BytesMut::with_capacity(4);
    put_header(&mut out, CLOSE, 2);
    out.put_u16(code as u16);
    out.freeze()
}

/// A ping without a payload.
pub(crate) const fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// The first frame boundary of `frames` at or after `at`; `frames` are whole frames of ours.
pub(crate) fn boundary(frames: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at.min(frames.len()) {
        end += frame_len(&frames[end..]);
    }
    end.min(frames.len())
}

fn frame_len(frame: &[u8]) -> usize {
    match frame {
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            usize::try_from(len).unwrap_or(usize::MAX).saturating_add(10)
        }
        [_, 126, a, b, ..] => usize::from(u16::from_be_bytes([*a, *b])) + 4,
        [_, len, ..] => usize::from(*len) + 2,
        rest => rest.len().max(1),
    }
}

fn put_header(out: &mut BytesMut, opcode: u8, len: usize) {
    out.put_u8(opcode);
    if len < 126 {
        out.put_u8(len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.put_u8(126);
        out.put_u16(len);
    } else {
        out.put_u8(127);
        out.put_u64(len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_standard_at_each_size() {
        assert_eq!(&text(b"Hello")[..], b"\x81\x05Hello");
        assert_eq!(text(&[b'x'; 125])[1], 125);
        assert_eq!(text(&[b'x'; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(text(&vec![b'x'; 65_535])[..4], [0x81, 126, 255, 255]);
        assert_eq!(text(&vec![b'x'; 65_536])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(&close(CloseCode::TooSlow)[..], [0x88, 2, 0x0f, 0xa8]);
    }

    #[test]
    fn the_boundary_after_a_cut_is_the_end_of_the_cut_frame() {
        let mut frames = BytesMut::new();
        for len in [3, 200, 70_000, 0] {
            put_text(&mut frames, &vec![b'x'; len]);
        }
        let ends = [0, 5, 209, 70_219, 70_221];
        for at in 0..=frames.len() {
            let expected = ends.iter().copied().find(|end| *end >= at).unwrap();
            assert_eq!(boundary(&frames, at), expected, "at {at}");
        }
    }
}
