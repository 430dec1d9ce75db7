//! Folder and S3 as homes of snapshots: the same suite on each, and what happens when they fail.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use convene_archive::{
    ArchiveError, SnapshotWriter, WriteOptions, events, list, page, purge, verify,
};
use convene_model::{
    ArchiveId, Code, GroupId, HistoryId, MessageId, OrgId, Timestamp, UserId,
    archive::{
        Digest, ExportSection, Frozen, Header, Line, Manifest, MessageLine, line::encode_event,
    },
    event::{Author, Event, EventKind, Posted},
    history::{HistoryQuery, Message},
    infra::HistoryMode,
    keys::{SigningKey, TrustedKeys},
    record::{CHAIN_START, Record},
};
use convene_storage::objects::{Leftovers, S3Settings, Store, open_folder, open_s3};
use convene_testing::{
    s3_server::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY},
    stores::{FaultyStore, StoreFault},
};
use futures_util::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};
use zeroize::Zeroizing;

/// Texts that do not compress, so that few of them fill several parts.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut out = String::with_capacity(bytes + 16);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push_str(&format!("{state:016x}"));
    }
    out
}

struct Group {
    header: Header,
    bodies: Vec<(ExportSection, Bytes)>,
}

fn group(messages: u64, text_bytes: usize) -> Group {
    let (mut lines, mut frames, mut chain) = (Vec::new(), Vec::new(), CHAIN_START);
    for seq in 1..=messages {
        let message_id = MessageId::new(format!("m{seq}")).unwrap();
        let posted = Posted {
            root: message_id.clone(),
            message_id,
            author: Author::User(UserId::new("u1").unwrap()),
            hop: 0,
            nth: seq,
            reply_to: None,
            run_id: None,
            mentions: vec![],
            text: noise(seq, text_bytes),
        };
        let at = Timestamp::from_millis(seq);
        let kind = EventKind::MessagePosted(posted.clone());
        let record = Record::encode(&Event { seq, at, kind });
        chain = record.chain(&chain);
        frames.push(encode_event(&record));
        let (edited_at, deleted, reactions) = (None, false, vec![]);
        let message = Message { seq, at, posted, edited_at, deleted, reactions };
        lines.push(Line::Message(MessageLine { seq, message, answers: None }).encode());
    }
    let frozen = Frozen {
        archive_id: ArchiveId::new("a1").unwrap(),
        epoch: 1,
        history: HistoryId::new("h1").unwrap(),
        history_mode: HistoryMode::Internal,
        last_seq: messages,
        chain: Digest(chain),
        messages,
        events: messages,
        bytes_estimate: 0,
    };
    let bodies = |section, lines: Vec<Bytes>| {
        let chunks = lines.chunks(20).map(|chunk| (section, chunk.concat().into()));
        chunks.collect::<Vec<_>>()
    };
    let mut all = bodies(ExportSection::Messages, lines);
    all.extend(bodies(ExportSection::Events, frames));
    let header = Header::of(GroupId::new("g1").unwrap(), OrgId::new("o1").unwrap(), &frozen);
    Group { header, bodies: all }
}

fn key() -> SigningKey {
    SigningKey::from_seed("orchestrator", &[3; 32])
}

fn keys() -> TrustedKeys {
    TrustedKeys::of("orchestrator", &key().jwks()).unwrap()
}

async fn write(store: &Store, group: &Group) -> Result<Manifest, ArchiveError> {
    let header = group.header.clone();
    let options = WriteOptions::default();
    let mut writer = SnapshotWriter::begin(Arc::clone(store), header, options).await?;
    for (section, body) in &group.bodies {
        writer.lines(*section, body.clone()).await?;
    }
    writer.finish(&key()).await
}

async fn verified(store: &Store, manifest: &Manifest) -> Result<Manifest, ArchiveError> {
    verify(Arc::clone(store), &manifest.path(), Some(&keys()), |_| ()).await
}

/// What every store must do.
async fn suite(store: &Store) {
    // Small: in one request. Large: in parts, the last of them shorter.
    for group in [group(30, 100), group(500, 30_000)] {
        let manifest = write(store, &group).await.unwrap();
        assert_eq!(verified(store, &manifest).await.unwrap(), manifest);
        assert_eq!(write(store, &group).await.unwrap(), manifest, "the same again");

        let query = HistoryQuery { before: Some(25), limit: Some(5), ..HistoryQuery::default() };
        let page = page(Arc::clone(store), &manifest, query).await.unwrap();
        let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, [20, 21, 22, 23, 24]);

        let bodies: Vec<Bytes> =
            events(Arc::clone(store), &manifest, 1).try_collect().await.unwrap();
        let exported: Vec<Bytes> = group
            .bodies
            .iter()
            .filter(|(section, _)| *section == ExportSection::Events)
            .map(|(_, body)| body.clone())
            .collect();
        assert_eq!(bodies.concat(), exported.concat());

        let listed: Vec<_> = list(store.as_ref(), None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].path, manifest.path());

        let path = Path::from(manifest.content_path());
        let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
        let half = whole.slice(..whole.len() / 2);
        store.put(&path, half.into()).await.unwrap();
        let corrupt = verified(store, &manifest).await.unwrap_err();
        assert_eq!(corrupt.problem().code, Code::SnapshotCorrupt, "{corrupt}");
        store.put(&path, Bytes::new().into()).await.unwrap();
        let corrupt = verified(store, &manifest).await.unwrap_err();
        assert_eq!(corrupt.problem().code, Code::SnapshotCorrupt, "{corrupt}");

        let group_id = &group.header.group_id;
        assert_eq!(purge(store.as_ref(), group_id).await.unwrap(), 2);
        assert_eq!(purge(store.as_ref(), group_id).await.unwrap(), 0);
        let gone = verified(store, &manifest).await.unwrap_err();
        assert_eq!(gone.problem().code, Code::SnapshotCorrupt, "{gone}");
    }
}

fn settings(server: &S3Server, virtual_hosted_style: bool, prefix: &str) -> S3Settings {
    let endpoint = if virtual_hosted_style {
        server.virtual_hosted_endpoint()
    } else {
        server.path_style_endpoint()
    };
    S3Settings {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        endpoint: Some(endpoint.parse().unwrap()),
        region: "us-east-1".into(),
        access_key_id: ACCESS_KEY_ID.into(),
        secret_access_key: Zeroizing::new(SECRET_ACCESS_KEY.into()),
        virtual_hosted_style,
    }
}

#[tokio::test]
async fn a_folder_keeps_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    suite(&open_folder(&dir.path().join("archives"), Leftovers::Remove).unwrap()).await;
}

#[tokio::test]
async fn a_bucket_in_the_path_keeps_snapshots_under_its_prefix() {
    let server = S3Server::start().await.unwrap();
    let store = open_s3(&settings(&server, false, "all/rooms"), server.client()).unwrap();
    suite(&store).await;
    write(&store, &group(3, 10)).await.unwrap();
    assert!(server.bucket_dir().join("all/rooms/groups/g1/archives").is_dir());
}

#[tokio::test]
async fn a_bucket_in_the_host_keeps_snapshots() {
    let server = S3Server::start().await.unwrap();
    let store = open_s3(&settings(&server, true, ""), server.client()).unwrap();
    suite(&store).await;
    write(&store, &group(3, 10)).await.unwrap();
    assert!(server.bucket_dir().join("groups/g1/archives").is_dir());
}

#[tokio::test]
async fn wrong_credentials_are_a_failing_store_and_no_output_has_the_secret() {
    let server = S3Server::start().await.unwrap();
    let wrong = Zeroizing::new("another-secret".to_owned());
    let settings = S3Settings { secret_access_key: wrong, ..settings(&server, false, "") };
    let store = open_s3(&settings, server.client()).unwrap();
    let error = write(&store, &group(3, 10)).await.unwrap_err();
    assert_eq!(error.problem().code, Code::ArchiveStoreUnavailable);
    let shown = format!("{store:?} {store} {settings:?} {error} {error:?}");
    assert!(!shown.contains("another-secret"), "{shown}");
}

#[tokio::test]
async fn a_server_that_is_down_is_said_to_be_within_seconds() {
    let server = S3Server::start().await.unwrap();
    let store = open_s3(&settings(&server, false, ""), server.client()).unwrap();
    let manifest = write(&store, &group(3, 10)).await.unwrap();
    server.stop();
    let failed = tokio::time::timeout(Duration::from_secs(60), verified(&store, &manifest)).await;
    let error = failed.expect("a store that is down is noticed").unwrap_err();
    assert!(matches!(error, ArchiveError::Store { .. }), "{error:?}");
    assert_eq!(error.problem().code, Code::ArchiveStoreUnavailable);
}

#[tokio::test]
async fn a_write_that_fails_anywhere_leaves_no_snapshot_and_succeeds_when_repeated() {
    let large = group(400, 30_000);
    for fault in [
        StoreFault::Down,
        StoreFault::InternalError,
        StoreFault::CutUpload { after_parts: 0 },
        StoreFault::CutUpload { after_parts: 1 },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let faulty = FaultyStore::new(open_folder(dir.path(), Leftovers::Remove).unwrap());
        let store: Store = Arc::new(faulty.clone());
        // The snapshot is begun while all is well, so that the fault strikes the upload.
        let header = large.header.clone();
        let options = WriteOptions::default();
        let mut writer = SnapshotWriter::begin(Arc::clone(&store), header, options).await.unwrap();
        faulty.set(fault);
        let mut failed = None;
        for (section, body) in &large.bodies {
            if let Err(error) = writer.lines(*section, body.clone()).await {
                failed = Some(error);
                break;
            }
        }
        let error = match failed {
            Some(error) => {
                writer.abort().await;
                error
            }
            None => writer.finish(&key()).await.unwrap_err(),
        };
        assert!(matches!(error, ArchiveError::Store { .. }), "{fault:?}: {error:?}");

        faulty.set(StoreFault::None);
        let listed: Vec<_> = list(store.as_ref(), None).try_collect().await.unwrap();
        assert_eq!(listed, [], "{fault:?}");
        let manifest = write(&store, &large).await.unwrap();
        assert_eq!(verified(&store, &manifest).await.unwrap(), manifest, "{fault:?}");
    }
}

#[tokio::test]
async fn bytes_that_change_on_their_way_in_or_out_are_found() {
    let small = group(30, 100);
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(open_folder(dir.path(), Leftovers::Remove).unwrap());
    let store: Store = Arc::new(faulty.clone());
    let query = HistoryQuery::default();

    let manifest = write(&store, &small).await.unwrap();
    faulty.set(StoreFault::ReadsOtherBytes);
    let error = verified(&store, &manifest).await.unwrap_err();
    assert_eq!(error.problem().code, Code::SnapshotCorrupt, "{error}");
    let error = page(Arc::clone(&store), &manifest, query).await.unwrap_err();
    assert_eq!(error.problem().code, Code::SnapshotCorrupt, "{error}");
    let all: Result<Vec<_>, _> = events(Arc::clone(&store), &manifest, 1).try_collect().await;
    assert_eq!(all.unwrap_err().problem().code, Code::SnapshotCorrupt);

    // A connection that breaks says nothing about the snapshot.
    faulty.set(StoreFault::CutDownload);
    let error = page(Arc::clone(&store), &manifest, query).await.unwrap_err();
    assert_eq!(error.problem().code, Code::ArchiveStoreUnavailable, "{error}");

    faulty.set(StoreFault::None);
    assert!(verified(&store, &manifest).await.is_ok(), "the snapshot was left as it was");
    purge(store.as_ref(), &small.header.group_id).await.unwrap();
    faulty.set(StoreFault::StoresOtherBytes);
    let manifest = write(&store, &small).await.unwrap();
    faulty.set(StoreFault::None);
    let error = verified(&store, &manifest).await.unwrap_err();
    assert_eq!(error.problem().code, Code::SnapshotCorrupt, "{error}");
}

#[tokio::test]
async fn a_page_costs_one_read_of_a_small_part_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(open_folder(dir.path(), Leftovers::Remove).unwrap());
    let store: Store = Arc::new(faulty.clone());
    let manifest = write(&store, &group(400, 30_000)).await.unwrap();
    for query in [
        HistoryQuery::default(),
        HistoryQuery { before: Some(200), ..HistoryQuery::default() },
        HistoryQuery { after: Some(200), ..HistoryQuery::default() },
        HistoryQuery { around: Some(100), ..HistoryQuery::default() },
    ] {
        let (gets, bytes) = (faulty.counts().gets(), faulty.counts().bytes_read());
        let page = page(Arc::clone(&store), &manifest, query).await.unwrap();
        assert_eq!(page.messages.len(), 50);
        assert_eq!(faulty.counts().gets() - gets, 1, "{query:?}");
        let read = faulty.counts().bytes_read() - bytes;
        assert!(read < manifest.bytes / 3, "{read} of {} bytes for {query:?}", manifest.bytes);
    }
}

#[tokio::test]
async fn a_second_export_of_the_same_group_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(open_folder(dir.path(), Leftovers::Remove).unwrap());
    let store: Store = Arc::new(faulty.clone());
    let group = group(400, 30_000);
    let first = write(&store, &group).await.unwrap();
    assert!(faulty.counts().uploads() == 1, "it went up in parts");
    let writes = faulty.counts().writes();
    assert_eq!(write(&store, &group).await.unwrap(), first);
    assert_eq!(faulty.counts().writes(), writes);
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(open_folder(dir.path(), Leftovers::Remove).unwrap());
    let store: Store = Arc::new(faulty.clone());
    faulty.set(StoreFault::Slow(Duration::from_millis(50)));
    let manifest = write(&store, &group(400, 30_000)).await.unwrap();
    assert_eq!(verified(&store, &manifest).await.unwrap(), manifest);
}
