//! What people are told over the App's API when their group is too large for a snapshot, and when what is
//! archived cannot be read.

use std::{fs, path::PathBuf};

use convene_testing::{
    client::Person,
    s3_server::{S3Fault, S3Server},
};
use serde_json::{Value, json};

use crate::{archive_stage::bucket, convene};

/// The least limit that can be configured.
const LIMIT: u64 = 1024 * 1024;

#[tokio::test]
async fn a_group_above_the_configured_limit_is_not_archived_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let launch = convene(dir.path());
    let node = launch.env("CONVENE_ARCHIVES__MAX_SNAPSHOT_BYTES", LIMIT.to_string()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Ship").await;
    let group = ana.create_group(&org, "Log").await;
    let posts = format!("/api/groups/{group}/messages");
    let (text, mut written) = ("x".repeat(30_000), 0);
    while written <= LIMIT as usize {
        ana.post(&posts, json!({"text": text})).await;
        written += text.len();
    }
    let before = ana.all_messages(&group).await;
    let archive = format!("/api/groups/{group}/archive");
    let (status, refused) = ana.send("POST", &archive, Some(&json!({}))).await;
    assert_eq!((status, &refused["code"]), (413, &json!("snapshot_too_large")), "{refused}");
    assert_eq!(refused["limit_bytes"], LIMIT, "{refused}");
    ana.post(&posts, json!({"text": "we go on"})).await;
    let after = ana.all_messages(&group).await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.last().unwrap()["text"], "we go on");
    assert!(!dir.path().join("data/archives/groups").join(&group).exists(), "nothing is left");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn readers_of_an_archived_group_learn_that_its_store_is_away_or_its_snapshot_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = S3Server::start().await.unwrap();
    let mut launch = convene(dir.path());
    for (name, value) in bucket(&store) {
        launch = launch.env(name, value);
    }
    let node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Ship").await;
    let group = ana.create_group(&org, "Log").await;
    let posts = format!("/api/groups/{group}/messages");
    ana.post(&posts, json!({"message_id": "m1", "text": "@Guide hello"})).await;
    let (status, archived) =
        ana.send("POST", &format!("/api/groups/{group}/archive"), Some(&json!({}))).await;
    assert_eq!(status, 200, "{archived}");
    let reads = [posts.clone(), format!("{posts}/m1/why")];
    let refused = async |status: u16, code: &str| {
        for path in &reads {
            let (answered, problem) = ana.get(path).await;
            assert_eq!((answered, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
        }
    };
    for fault in [S3Fault::Down, S3Fault::InternalError] {
        store.set(Some(fault));
        refused(503, "archive_store_unavailable").await;
    }
    store.set(None);
    let mut good: Vec<Value> = Vec::new();
    for path in &reads {
        let (status, body) = ana.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        good.push(body);
    }
    assert_eq!(good[0]["messages"][0]["message_id"], "m1");

    let content = content_of(&store, &group);
    let whole = fs::read(&content).unwrap();
    let flipped: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
    for damaged in [flipped, whole[..whole.len() / 2].to_vec()] {
        fs::write(&content, damaged).unwrap();
        refused(409, "snapshot_corrupt").await;
    }
    fs::write(&content, whole).unwrap();
    for (path, good) in reads.iter().zip(good) {
        assert_eq!(ana.get(path).await, (200, good), "{path}");
    }
    assert_eq!(node.stop().await, Some(0));
}

/// Where the lines of the group's only snapshot are in the bucket.
fn content_of(store: &S3Server, group: &str) -> PathBuf {
    let folder = store.bucket_dir().join("groups").join(group).join("archives");
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_str().unwrap().ends_with(".ndjson.gz")).unwrap()
}
