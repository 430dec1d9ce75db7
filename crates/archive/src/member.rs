//! One gzip member: whole lines of one section.

use std::io::{Read, Write};

use bytes::Bytes;
use convene_model::archive::{Digest, IndexEntry};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// How hard members are compressed. Beyond it files become a thirtieth smaller at best, and it takes
/// half as long again for talk and four times as long for text that repeats itself.
pub const COMPRESSION_LEVEL: u32 = 3;

/// Compresses lines. The same lines give the same bytes: the member has no name and no time.
pub(crate) fn compress(plain: &[u8]) -> Bytes {
    let out = Vec::with_capacity(plain.len() / 4 + 64);
    let mut encoder = GzEncoder::new(out, Compression::new(COMPRESSION_LEVEL));
    encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .expect("writing to memory does not fail")
        .into()
}

/// The lines of the member that `entry` describes, checked against it.
pub(crate) fn decompress(entry: &IndexEntry, compressed: &[u8]) -> Result<Bytes, String> {
    let mut decoder = GzDecoder::new(compressed);
    let mut plain = Vec::with_capacity(entry.plain_bytes as usize);
    // One byte more than there should be: a member never unfolds into more than was said.
    let read = (&mut decoder).take(entry.plain_bytes + 1).read_to_end(&mut plain);
    if let Err(error) = read {
        return Err(format!("{} cannot be decompressed: {error}", name(entry)));
    }
    if plain.len() as u64 != entry.plain_bytes || !decoder.into_inner().is_empty() {
        return Err(format!("{} has another length than the manifest says", name(entry)));
    }
    if Digest(Sha256::digest(&plain).into()) != entry.checksum {
        return Err(format!("{} has another checksum than the manifest says", name(entry)));
    }
    Ok(plain.into())
}

/// A member as an error names it.
pub(crate) fn name(entry: &IndexEntry) -> String {
    let IndexEntry { section, first_seq, last_seq, offset, .. } = entry;
    format!("the part at byte {offset} ({} {first_seq} to {last_seq})", section.as_str())
}
