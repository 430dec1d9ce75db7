//! The checksum that a stored row carries over all of its fields.

use convene_model::{Timestamp, record::Chain};

/// A row's checksum: BLAKE3, cut to 16 bytes.
pub(crate) type Checksum = [u8; 16];

/// Collects a row's fields. Each goes in with its length, so that no two rows read alike.
pub(crate) struct RowHash(blake3::Hasher);

impl RowHash {
    /// Begins a row of the table `table`.
    pub(crate) fn new(table: &str) -> Self {
        let mut hash = Self(blake3::Hasher::new());
        hash.bytes(table.as_bytes());
        hash
    }

    pub(crate) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    pub(crate) fn int(&mut self, field: u64) -> &mut Self {
        self.0.update(&field.to_le_bytes());
        self
    }

    pub(crate) fn chain(&mut self, field: &Chain) -> &mut Self {
        self.0.update(field);
        self
    }

    pub(crate) fn time(&mut self, field: Option<Timestamp>) -> &mut Self {
        match field {
            None => self.int(0),
            Some(time) => self.int(1).int(time.millis()),
        }
    }

    pub(crate) fn finish(&self) -> Checksum {
        let mut out = [0; 16];
        out.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_from_one_field_to_the_next_changes_the_checksum() {
        let of = |a: &[u8], b: &[u8]| RowHash::new("t").bytes(a).bytes(b).finish();
        assert_ne!(of(b"ab", b"c"), of(b"a", b"bc"));
        assert_ne!(of(b"", b"c"), of(b"c", b""));
        assert_eq!(of(b"a", b"b"), of(b"a", b"b"));
    }

    #[test]
    fn a_time_that_is_absent_is_not_the_epoch() {
        let of = |time| RowHash::new("t").time(time).finish();
        assert_ne!(of(None), of(Some(Timestamp::ZERO)));
    }
}
