//! `convene archive` on the files of a store: a folder, and a bucket on loopback.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use convene_archive::{SnapshotWriter, WriteOptions};
use convene_model::{
    ArchiveId, GroupId, HistoryId, MessageId, OrgId, Timestamp, UserId,
    archive::{
        Digest, ExportSection, Frozen, Header, Line, Manifest, MessageLine, line::encode_event,
    },
    event::{Author, Event, EventKind, Posted},
    history::Message,
    infra::HistoryMode,
    keys::SigningKey,
    record::{CHAIN_START, Record},
};
use convene_storage::objects::{Leftovers, open_folder};
use convene_testing::s3_server::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY};
use serde_json::Value;
use tokio::process::Command;

const SEED: [u8; 32] = [21; 32];

/// A data directory with the Orchestrator's key, and what the commands are told by the environment.
struct Place {
    dir: tempfile::TempDir,
    env: HashMap<&'static str, String>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("data/keys");
        fs::create_dir_all(&keys).unwrap();
        let file = keys.join("orchestrator.key");
        fs::write(&file, SEED).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir, env: HashMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Exit code, what was printed, and what was said of failures.
    async fn run(&self, args: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
        command.arg("archive").args(args).arg("--data-dir").arg(self.path("data"));
        let output = command.envs(&self.env).current_dir(self.dir.path()).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

/// Puts a snapshot with two messages of `group` into a folder.
async fn write(folder: &Path, group: &str) -> Manifest {
    let (mut lines, mut frames, mut chain) = (Vec::new(), Vec::new(), CHAIN_START);
    for seq in 1..=2 {
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
            text: format!("text {seq} of {group}"),
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
        last_seq: 2,
        chain: Digest(chain),
        messages: 2,
        events: 2,
        bytes_estimate: 0,
    };
    let header = Header::of(GroupId::new(group).unwrap(), OrgId::new("o1").unwrap(), &frozen);
    let store = open_folder(folder, Leftovers::Keep).unwrap();
    let options = WriteOptions::default();
    let mut writer = SnapshotWriter::begin(Arc::clone(&store), header, options).await.unwrap();
    writer.lines(ExportSection::Messages, Bytes::from(lines.concat())).await.unwrap();
    writer.lines(ExportSection::Events, Bytes::from(frames.concat())).await.unwrap();
    writer.finish(&SigningKey::from_seed("orchestrator", &SEED)).await.unwrap()
}

fn objects(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn snapshots_are_listed_verified_and_printed_without_a_service() {
    let place = Place::new();
    let folder = place.path("data/archives");
    let manifest = write(&folder, "g1").await;
    write(&folder, "g2").await;

    let (ok, printed, _) = place.run(&["list", "--json"]).await;
    assert!(ok);
    let listed = objects(&printed);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["path"], manifest.path());
    assert_eq!(listed[0]["messages"], 2);
    let (ok, printed, _) = place.run(&["list", "g2"]).await;
    assert!(ok && printed.starts_with("groups/g2/") && printed.lines().count() == 1, "{printed}");

    let (ok, printed, said) = place.run(&["verify"]).await;
    assert!(ok, "{said}");
    assert_eq!(printed.matches("sound").count(), 2);

    let (ok, printed, _) = place.run(&["cat", "g1"]).await;
    assert!(ok);
    let kinds: Vec<_> = objects(&printed).iter().map(|line| line["type"].clone()).collect();
    assert_eq!(kinds, ["header", "message", "message", "event", "event", "trailer"]);
    let (_, printed, _) = place.run(&["cat", &manifest.path(), "--section", "messages"]).await;
    assert_eq!(objects(&printed)[1]["message"]["text"], "text 2 of g1");

    let (ok, _, said) = place.run(&["cat", "nobody"]).await;
    assert!(!ok && said.contains("no snapshot of nobody"), "{said}");
}

#[tokio::test]
async fn a_backup_brings_the_snapshots_of_the_data_directory_along() {
    let place = Place::new();
    let folder = place.path("data/archives");
    let manifest = write(&folder, "g1").await;
    fs::write(folder.join("groups/g1/archives/x.ndjson.gz#1"), "half").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    command.args(["backup", "--to", "copy", "--data-dir", "data"]);
    let output = command.current_dir(place.dir.path()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copy = place.path("copy/archives");
    for file in [manifest.path(), manifest.content_path()] {
        assert_eq!(fs::read(copy.join(&file)).unwrap(), fs::read(folder.join(&file)).unwrap());
    }
    assert!(!copy.join("groups/g1/archives/x.ndjson.gz#1").exists());
    let (ok, printed, _) = place.run(&["verify", "--folder", copy.to_str().unwrap()]).await;
    assert!(ok && printed.contains("sound"), "{printed}");
}

#[tokio::test]
async fn a_damaged_snapshot_or_a_foreign_signature_fails_the_check_by_name() {
    let place = Place::new();
    let folder = place.path("elsewhere");
    let manifest = write(&folder, "g1").await;
    write(&folder, "g2").await;
    let file = folder.join(manifest.content_path());
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..good.len() - 3]).unwrap();
    let here = ["verify", "--folder", folder.to_str().unwrap()];
    let (ok, printed, said) = place.run(&here).await;
    assert!(!ok);
    assert!(said.contains(&manifest.path()) && said.contains("bytes"), "{said}");
    assert_eq!(printed.matches("sound").count(), 1, "{printed}");
    let (_, printed, _) = place.run(&[&here[..], &["--json", "g1"]].concat()).await;
    assert_eq!(objects(&printed)[0]["code"], "snapshot_corrupt");
    assert_eq!(fs::read(&file).unwrap(), good[..good.len() - 3], "it is left as it is");
    fs::write(&file, &good).unwrap();
    assert!(place.run(&here).await.0);

    let other = SigningKey::from_seed("orchestrator", &[22; 32]);
    let jwks = place.path("keys.json");
    fs::write(&jwks, serde_json::to_vec(&other.jwks()).unwrap()).unwrap();
    let foreign = [&here[..], &["--jwks", jwks.to_str().unwrap()]].concat();
    let (ok, _, said) = place.run(&foreign).await;
    assert!(!ok && said.contains("signature"), "{said}");
    assert!(place.run(&[&here[..], &["--unsigned"]].concat()).await.0);
}

#[tokio::test]
async fn snapshots_go_from_a_folder_into_a_bucket_and_back() {
    let server = S3Server::start().await.unwrap();
    let mut place = Place::new();
    let secret = place.path("secret");
    fs::write(&secret, SECRET_ACCESS_KEY).unwrap();
    place.env = HashMap::from([
        ("CONVENE_ARCHIVES__STORE", "s3".to_owned()),
        ("CONVENE_ARCHIVES__BUCKET", BUCKET.to_owned()),
        ("CONVENE_ARCHIVES__PREFIX", "rooms".to_owned()),
        ("CONVENE_ARCHIVES__ENDPOINT", server.path_style_endpoint()),
        ("CONVENE_ARCHIVES__ALLOW_HTTP", "true".to_owned()),
        ("CONVENE_ARCHIVES__ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("CONVENE_ARCHIVES__SECRET_ACCESS_KEY_FILE", secret.to_str().unwrap().to_owned()),
        ("RUST_LOG", "trace".to_owned()),
    ]);
    let from = place.path("from");
    let manifest = write(&from, "g1").await;
    write(&from, "g2").await;

    let import = ["import", "--from", from.to_str().unwrap()];
    let (ok, printed, said) = place.run(&import).await;
    assert!(ok, "{said}");
    assert_eq!(printed.matches("copied").count(), 2);
    assert!(!format!("{printed}{said}").contains(SECRET_ACCESS_KEY));
    assert!(server.bucket_dir().join("rooms").join(manifest.path()).is_file());
    let (_, printed, _) = place.run(&import).await;
    assert_eq!(printed.matches("there already").count(), 2);
    assert!(place.run(&["verify"]).await.0);

    let to = place.path("to");
    let (ok, printed, _) =
        place.run(&["export", "g1", "--to", to.to_str().unwrap(), "--json"]).await;
    assert!(ok);
    assert_eq!(objects(&printed)[0]["copied"], true);
    for file in [manifest.path(), manifest.content_path()] {
        assert_eq!(fs::read(to.join(&file)).unwrap(), fs::read(from.join(&file)).unwrap());
    }
    assert!(!to.join("groups/g2").exists());
}
