//! The place of a request in a trace, as it passes from hop to hop (W3C Trace Context, version 00).
//!
//! It says only which trace something belongs to; no hop decides anything by it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The HTTP header that carries it.
pub const TRACEPARENT: &str = "traceparent";

/// A trace, and the span in it that something follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    /// Which trace; never 0.
    pub trace_id: u128,
    /// Which span; never 0.
    pub span_id: u64,
    /// Whether its spans are recorded.
    pub sampled: bool,
}

/// A text is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(hex));
            part.ok_or(InvalidTraceParent)
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version != "00" || parts.next().is_some() {
            return Err(InvalidTraceParent);
        }
        let trace_id = u128::from_str_radix(trace_id, 16).map_err(|_| InvalidTraceParent)?;
        let span_id = u64::from_str_radix(span_id, 16).map_err(|_| InvalidTraceParent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceParent)?;
        if trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, sampled } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled))
    }
}

impl TryFrom<String> for TraceParent {
    type Error = InvalidTraceParent;

    fn try_from(text: String) -> Result<Self, InvalidTraceParent> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let parent: TraceParent = TEXT.parse().unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(parent.to_string(), TEXT);
        let off: TraceParent = TEXT.replace("-01", "-00").parse().unwrap();
        assert!(!off.sampled);
    }

    #[test]
    fn whatever_is_no_traceparent_is_refused() {
        for bad in [
            "",
            "00",
            &TEXT.to_uppercase(),
            &TEXT.replace("00-4b", "01-4b"),
            &TEXT.replace("00-4b", "ff-4b"),
            &TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &TEXT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &TEXT.replace("4736", "473"),
            &TEXT.replace("4736", "473+"),
            &format!("{TEXT}-00"),
            &TEXT.replace("-01", ""),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }
}
