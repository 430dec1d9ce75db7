//! Lifecycle lines, warnings and errors in the store of `[logs]`: a folder, and a bucket of a real S3
//! server.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    client::Person,
    s3_server::{ACCESS_KEY_ID, BUCKET, S3Server, SECRET_ACCESS_KEY},
};
use flate2::read::GzDecoder;
use serde_json::Value;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::convene;

const PATIENCE: Duration = Duration::from_secs(60);
/// What somebody says, and no log may repeat.
const SAID: &str = "a-plan-that-stays-in-the-room";

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of all batches below a folder, in the order of their names.
fn lines(folder: &Path) -> Vec<Value> {
    let batches = files(folder)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().ends_with(".ndjson.gz"));
    let mut lines = Vec::new();
    for path in batches {
        let mut text = String::new();
        // One that is being written is read at the next look.
        if GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).is_ok() {
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    lines
}

async fn until(folder: &Path, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let found = async {
        loop {
            let lines = lines(folder);
            if wanted(&lines) {
                return lines;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("the lines are shipped")
}

/// Where a group went, by the lines about it.
fn life(lines: &[Value], group: &str) -> Vec<String> {
    let of_group = lines.iter().filter(|line| line["group_id"] == group);
    let steps = of_group.filter(|line| line["message"] == "group");
    steps.map(|line| format!("{}>{}", line["from"], line["to"]).replace('"', "")).collect()
}

async fn group_with_a_secret(url: &str) -> (Person, String) {
    let ana = Person::sign_up(url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    socket.post("m1", SAID).await;
    socket.answer("m1").await;
    (ana, group)
}

#[tokio::test]
async fn the_life_of_a_group_and_of_a_process_is_in_the_folder_and_nothing_that_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("data/logs");
    let node = convene(dir.path()).env("CONVENE_LOGS__EVERY_SECS", "1").start().await;
    let (ana, group) = group_with_a_secret(&node.url).await;
    let shipped = until(&logs, |lines| !life(lines, &group).is_empty()).await;
    assert!(shipped.iter().any(|line| line["message"] == "ready" && line["role"] == "all"));
    let archives = dir.path().join("data/archives");
    assert_eq!(files(&archives), Vec::<PathBuf>::new(), "logs are never in the store of archives");
    let archived = Command::new(env!("CARGO_BIN_EXE_convene"))
        .args(["groups", "archive", &group, "--data-dir"])
        .arg(dir.path().join("data"))
        .current_dir(dir.path())
        .output();
    let archived = archived.await.unwrap();
    assert!(archived.status.success(), "{}", String::from_utf8_lossy(&archived.stderr));
    assert_eq!(node.stop().await, Some(0));
    let shipped = lines(&logs);
    assert_eq!(
        life(&shipped, &group)[..3],
        ["inactive>active", "active>archiving", "archiving>archived"]
    );
    assert!(shipped.iter().any(|line| line["message"] == "stopping"), "the last lines come too");
    let text = serde_json::to_string(&shipped).unwrap();
    assert!(!text.contains(SAID) && !text.contains(&ana.token));
}

#[tokio::test]
async fn two_processes_ship_into_one_bucket_and_a_log_that_is_not_wanted_is_nowhere() {
    let server = S3Server::start().await.unwrap();
    let mut nodes = Vec::new();
    let dirs: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    for dir in &dirs {
        let node = convene(dir.path())
            .env("CONVENE_LOGS__STORE", "s3")
            .env("CONVENE_LOGS__BUCKET", BUCKET)
            .env("CONVENE_LOGS__PREFIX", "installation")
            .env("CONVENE_LOGS__ENDPOINT", server.path_style_endpoint())
            .env("CONVENE_LOGS__ALLOW_HTTP", "true")
            .env("CONVENE_LOGS__ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("CONVENE_LOGS__SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .start()
            .await;
        nodes.push(node);
    }
    let mut groups = Vec::new();
    for node in &nodes {
        groups.push(group_with_a_secret(&node.url).await.1);
    }
    for node in nodes {
        assert_eq!(node.stop().await, Some(0));
    }
    let bucket = server.bucket_dir().join("installation/logs");
    let shipped = lines(&bucket);
    for group in &groups {
        assert_eq!(life(&shipped, group)[0], "inactive>active");
    }
    let ready = shipped.iter().filter(|line| line["message"] == "ready").count();
    assert_eq!(ready, 2, "neither has written over the other's");
    let text = serde_json::to_string(&shipped).unwrap();
    assert!(!text.contains(SAID) && !text.contains(SECRET_ACCESS_KEY));
    for dir in &dirs {
        assert!(!dir.path().join("data/logs").exists());
    }

    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).env("CONVENE_LOGS__SHIP", "false").start().await;
    assert_eq!(node.stop().await, Some(0));
    assert!(!dir.path().join("data/logs").exists());
}
