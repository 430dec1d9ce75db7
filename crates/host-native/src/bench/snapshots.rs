//! Writing a snapshot and checking it, in uncompressed bytes, against hashing, compressing and
//! writing (or reading, decompressing and hashing) the same bytes with nothing around it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use convene_archive::{COMPRESSION_LEVEL, SnapshotWriter, WriteOptions, verify};
use convene_model::{
    ArchiveId, GroupId, HistoryId, MessageId, OrgId, Timestamp, UserId,
    archive::{Digest, ExportSection, Frozen, Header, Line, MessageLine, line::encode_event},
    event::{Author, Event, EventKind, Posted},
    history::Message,
    infra::HistoryMode,
    keys::{SigningKey, TrustedKeys},
    limits::{MAX_EXPORT_BYTES, MAX_MEMBER_BYTES},
    record::{CHAIN_START, Record},
};
use convene_storage::objects::{Leftovers, Store, open_folder};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{Figure, TEXT_BYTES};
use crate::cli::CliError;

/// Messages of the group for each second of a slice; each is a line of its own and an event.
const MESSAGES_PER_SECOND: f64 = 25_000.0;
pub(super) const MEGABYTE: f64 = 1_000_000.0;
/// What the texts are made of, so that they compress as talk does.
const WORDS: [&str; 24] = [
    "the",
    "deploy",
    "went",
    "through",
    "at",
    "noon",
    "but",
    "one",
    "of",
    "our",
    "workers",
    "keeps",
    "restarting",
    "can",
    "somebody",
    "look",
    "into",
    "logs",
    "before",
    "we",
    "ship",
    "tomorrow",
    "please",
    "thanks",
];

/// A group's export.
struct Export {
    header: Header,
    bodies: Vec<(ExportSection, Bytes)>,
    bytes: f64,
}

/// Measures writing and checking: `snapshot_write` and `snapshot_verify`.
pub(super) fn measure(
    dir: &Path,
    slice: Duration,
    slices: usize,
) -> Result<[(&'static str, Figure); 2], CliError> {
    let folder = dir.join("snapshots");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let export = export((slice.as_secs_f64() * MESSAGES_PER_SECOND) as u64)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let key = SigningKey::from_seed("orchestrator", &[1; 32]);
    let keys = TrustedKeys::of("orchestrator", &key.jwks())?;
    let (mut writing, mut checking, mut packed) = (Vec::new(), Vec::new(), 0.0);
    for nth in 0..slices {
        let store = open_folder(&folder.join(nth.to_string()), Leftovers::Keep)?;
        let began = Instant::now();
        let path = runtime.block_on(write(&store, &export, &key))?;
        let written = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let manifest = runtime.block_on(verify(Arc::clone(&store), &path, Some(&keys), |_| ()))?;
        let checked = began.elapsed().as_secs_f64();
        packed = manifest.bytes as f64;

        let raw = folder.join("raw.gz");
        let began = Instant::now();
        write_raw(&raw, export.bodies.iter().map(|(_, body)| body))?;
        let raw_written = began.elapsed().as_secs_f64();
        let began = Instant::now();
        read_raw(&raw)?;
        let raw_read = began.elapsed().as_secs_f64();
        let rate = |seconds: f64| export.bytes / MEGABYTE / seconds;
        writing.push((rate(written), rate(raw_written)));
        checking.push((rate(checked), rate(raw_read)));
    }
    let _ = fs::remove_dir_all(dir);
    let mut write = Figure::from_slices("MB/s", &writing);
    write.extra.insert("plain_mb", export.bytes / MEGABYTE);
    write.extra.insert("packed_mb", packed / MEGABYTE);
    Ok([("snapshot_write", write), ("snapshot_verify", Figure::from_slices("MB/s", &checking))])
}

async fn write(store: &Store, export: &Export, key: &SigningKey) -> Result<String, CliError> {
    let header = export.header.clone();
    let options = WriteOptions::default();
    let mut writer = SnapshotWriter::begin(Arc::clone(store), header, options).await?;
    for (section, body) in &export.bodies {
        writer.lines(*section, body.clone()).await?;
    }
    Ok(writer.finish(key).await?.path())
}

/// The limit of writing: one thread hashes, compresses in equal members and writes durably.
pub(super) fn write_raw<'a>(
    path: &Path,
    bodies: impl IntoIterator<Item = &'a Bytes>,
) -> Result<(), CliError> {
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    let level = Compression::new(COMPRESSION_LEVEL);
    for body in bodies {
        for part in body.chunks(MAX_MEMBER_BYTES) {
            hash.update(part);
            let mut member = GzEncoder::new(Vec::new(), level);
            member.write_all(part)?;
            file.write_all(&member.finish()?)?;
        }
    }
    std::hint::black_box(hash.finalize());
    file.sync_all()?;
    Ok(())
}

/// The limit of checking: one thread reads, decompresses and hashes.
pub(super) fn read_raw(path: &Path) -> Result<(), CliError> {
    let mut reader = MultiGzDecoder::new(File::open(path)?);
    let mut hash = Sha256::new();
    let mut part = vec![0; MAX_MEMBER_BYTES];
    loop {
        let read = reader.read(&mut part)?;
        if read == 0 {
            break;
        }
        hash.update(&part[..read]);
    }
    std::hint::black_box(hash.finalize());
    Ok(())
}

fn export(count: u64) -> Result<Export, CliError> {
    let (mut messages, mut events) = (Vec::new(), Vec::new());
    let mut chain = CHAIN_START;
    for seq in 1..=count {
        let message_id =
            MessageId::new(format!("{:032x}", seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)))?;
        let posted = Posted {
            root: message_id.clone(),
            message_id,
            author: Author::User(UserId::new(format!("user-{}", seq % 7))?),
            hop: 0,
            nth: seq,
            reply_to: None,
            run_id: None,
            mentions: Vec::new(),
            text: text(seq),
        };
        let at = Timestamp::from_millis(1_700_000_000_000 + seq * 1700);
        let record =
            Record::encode(&Event { seq, at, kind: EventKind::MessagePosted(posted.clone()) });
        chain = record.chain(&chain);
        events.push(encode_event(&record));
        let (edited_at, deleted, reactions) = (None, false, Vec::new());
        let message = Message { seq, at, posted, edited_at, deleted, reactions };
        messages.push(Line::Message(MessageLine { seq, message, answers: None }).encode());
    }
    let frozen = Frozen {
        archive_id: ArchiveId::new("bench")?,
        epoch: 1,
        history: HistoryId::new("bench")?,
        history_mode: HistoryMode::Internal,
        last_seq: count,
        chain: Digest(chain),
        messages: count,
        events: count,
        bytes_estimate: 0,
    };
    let mut all = bodies(ExportSection::Messages, &messages);
    all.extend(bodies(ExportSection::Events, &events));
    let bytes = all.iter().map(|(_, body)| body.len() as f64).sum();
    let header = Header::of(GroupId::new("bench")?, OrgId::new("bench")?, &frozen);
    Ok(Export { header, bodies: all, bytes })
}

/// Lines in bodies as a controller exports them.
fn bodies(section: ExportSection, lines: &[Bytes]) -> Vec<(ExportSection, Bytes)> {
    let (mut bodies, mut body) = (Vec::new(), Vec::new());
    for line in lines {
        if body.len() + line.len() > MAX_EXPORT_BYTES {
            bodies.push((section, Bytes::from(std::mem::take(&mut body))));
        }
        body.extend_from_slice(line);
    }
    bodies.push((section, body.into()));
    bodies
}

/// A text of [`TEXT_BYTES`] that compresses as talk does.
pub(super) fn text(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let mut text = String::with_capacity(TEXT_BYTES + 16);
    while text.len() < TEXT_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state % WORDS.len() as u64) as usize]);
        text.push(' ');
    }
    text
}
