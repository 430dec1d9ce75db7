//! One gzip member: whole lines of one section.

use std::io::{Read, Write};

use bytes::Bytes;
use convene_model::archive::{Digest, IndexEntry};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// How hard members are compressed. Beyond it files become a thirtieth smaller at best, and it takes
/// half as long again for talk and four times as long for text that repeats itself.
pub const COMPRESSION_LEVEL: u32 = 3;

/// Bytes that are compressed or decompressed before somebody else may have the CPU.
const PIECE_BYTES: usize = 16 * 1024;

/// Compresses lines. The same lines give the same bytes: the member has no name and no time.
pub(crate) fn compress(plain: &[u8]) -> Bytes {
    let out = Vec::with_capacity(plain.len() / 4 + 64);
    let mut encoder = GzEncoder::new(out, Compression::new(COMPRESSION_LEVEL));
    let written = plain.chunks(PIECE_BYTES).try_for_each(|piece| {
        convene_threads::worked(piece.len());
        encoder.write_all(piece)
    });
    written.and_then(|()| encoder.finish()).expect("writing to memory does not fail").into()
}

/// The lines of the member that `entry` describes, checked against it.
pub(crate) fn decompress(entry: &IndexEntry, compressed: &[u8]) -> Result<Bytes, String> {
    let mut decoder = GzDecoder::new(compressed);
    let mut plain = Vec::with_capacity(entry.plain_bytes as usize);
    // One byte more than there should be: a member never unfolds into more than was said.
    let mut bounded = (&mut decoder).take(entry.plain_bytes + 1);
    let read = loop {
        match (&mut bounded).take(PIECE_BYTES as u64).read_to_end(&mut plain) {
            Ok(0) => break Ok(()),
            Ok(read) => convene_threads::worked(read),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = read {
        return Err(format!("{} cannot be decompressed: {error}", name(entry)));
    }
    if plain.len() as u64 != entry.plain_bytes || !decoder.into_inner().is_empty() {
        return Err(format!("{} has another length than the manifest says", name(entry)));
    }
    if digest(&plain) != entry.checksum {
        return Err(format!("{} has another checksum than the manifest says", name(entry)));
    }
    Ok(plain.into())
}

/// Adds bytes to a checksum.
pub(crate) fn hash(checksum: &mut Sha256, bytes: &[u8]) {
    for piece in bytes.chunks(PIECE_BYTES) {
        convene_threads::worked(piece.len());
        checksum.update(piece);
    }
}

/// The checksum of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let mut checksum = Sha256::new();
    hash(&mut checksum, bytes);
    Digest(checksum.finalize().into())
}

/// A member as an error names it.
pub(crate) fn name(entry: &IndexEntry) -> String {
    let IndexEntry { section, first_seq, last_seq, offset, .. } = entry;
    format!("the part at byte {offset} ({} {first_seq} to {last_seq})", section.as_str())
}
