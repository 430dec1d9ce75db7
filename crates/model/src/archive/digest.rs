//! Thirty-two bytes as JSON and paths have them: 64 lower-case hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::record::Chain;

/// A digest: a chain head, a checksum or a snapshot's id. As text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub Chain);

impl schemars::JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hexadecimal digits")]
pub struct InvalidDigest;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| InvalidDigest)?;
        let mut out = [0; 32];
        for (byte, digits) in out.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(digits[0]).ok_or(InvalidDigest)? << 4
                | nibble(digits[1]).ok_or(InvalidDigest)?;
        }
        Ok(Self(out))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl From<Chain> for Digest {
    fn from(chain: Chain) -> Self {
        Self(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_and_has_one_way_of_writing() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        bytes[31] = 0x09;
        let digest = Digest(bytes);
        let text = digest.to_string();
        assert_eq!(text.len(), 64);
        assert!(text.starts_with("ab00") && text.ends_with("09"));
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().parse::<Digest>(), Err(InvalidDigest));
        assert_eq!(text[1..].parse::<Digest>(), Err(InvalidDigest));
        assert_eq!(text.replace('b', "g").parse::<Digest>(), Err(InvalidDigest));
    }
}
