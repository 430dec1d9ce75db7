//! Archive, restore and delete while a part is at fault: the bucket, the controllers, the database.
//! Afterwards a group is either live or archived, and its content is the same byte for byte.

use std::{fs, path::PathBuf, time::Duration};

use convene_testing::{cluster::Member, fault_proxy::Line, s3_server::S3Fault};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    archive_content::{self, say, until_gone},
    archive_stage::{Call, GROUP, ORCHESTRATORS, ORG, PATIENCE, Stage, path},
};

/// How the names of a snapshot's two files end.
const CONTENT: &str = ".ndjson.gz";
const MANIFEST: &str = ".manifest.json";

/// How long the database is gone, and in the long form of the test.
const GONE: Duration = Duration::from_secs(2);
const LONG_GONE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_bucket_that_is_at_fault_leaves_the_group_live_and_nothing_behind() {
    let stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    let before = stage.messages().await;
    for fault in [
        S3Fault::Down,
        S3Fault::InternalError,
        S3Fault::CutUpload { after: 0 },
        S3Fault::CutUpload { after: 1 },
        S3Fault::StoresOtherBytes,
    ] {
        let failed = stage.store.failed();
        stage.store.set(Some(fault));
        let (status, problem) = stage.archive().await;
        assert_eq!(problem["code"], "archive_store_unavailable", "{fault:?}: {status} {problem}");
        assert_eq!(status, 503, "{fault:?}");
        assert!(stage.store.failed() > failed, "{fault:?} was met");
        assert_eq!(stage.status().await, "active", "{fault:?}");
        assert_eq!(stage.messages().await, before, "{fault:?}");
        stage.store.set(None);
        stage.until_tidy(0).await;
    }
    stage.store.set(Some(S3Fault::Slow(Duration::from_millis(300))));
    stage.archived().await;
    assert_eq!(stage.messages().await, before);
    // What cannot be read, or not to its end, brings nobody back.
    for (fault, code, of_code) in [
        (S3Fault::Down, 503, "archive_store_unavailable"),
        (S3Fault::InternalError, 503, "archive_store_unavailable"),
        (S3Fault::CutDownload { of: CONTENT }, 503, "archive_store_unavailable"),
        (S3Fault::ReadsOtherBytes { of: CONTENT }, 409, "snapshot_corrupt"),
        (S3Fault::ReadsOtherBytes { of: MANIFEST }, 409, "snapshot_corrupt"),
    ] {
        let failed = stage.store.failed();
        stage.store.set(Some(fault));
        let (status, problem) = stage.restore().await;
        assert_eq!((status, &problem["code"]), (code, &json!(of_code)), "{fault:?}: {problem}");
        assert!(stage.store.failed() > failed, "{fault:?} was met");
        stage.until("archived").await;
        stage.store.set(None);
        assert_eq!(stage.messages().await, before, "{fault:?}");
    }
    stage.store.set(Some(S3Fault::Slow(Duration::from_millis(300))));
    stage.restored().await;
    stage.store.set(None);
    stage.is_the_same_as(&kept, "after all of them").await;

    // A delete cannot fail, only wait.
    let portal = stage.portal().clone();
    stage.store.set(Some(S3Fault::Down));
    let deleted = tokio::spawn(async move { Call::Delete.make(&portal).await });
    stage.until("deleting").await;
    for fault in [S3Fault::Down, S3Fault::InternalError] {
        let failed = stage.store.failed();
        stage.store.set(Some(fault));
        stage.until_met(failed).await;
        assert_eq!(stage.status().await, "deleting", "{fault:?}");
        assert!(!stage.files().is_empty());
    }
    stage.store.set(Some(S3Fault::Slow(Duration::from_millis(300))));
    stage.until("deleted").await;
    assert!(deleted.await.unwrap().0 < 300);
    assert!(stage.files().is_empty(), "{:?}", stage.files());
}

#[tokio::test]
async fn a_damaged_snapshot_in_the_bucket_is_refused_by_its_name_and_left_as_it_is() {
    let stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    stage.archived().await;
    let before = stage.messages().await;
    type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;
    let damages: [(&str, &str, Damage); 6] = [
        ("one bit is another", ".ndjson.gz", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        }),
        ("it is cut short", ".ndjson.gz", |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            Some(bytes)
        }),
        ("it is empty", ".ndjson.gz", |_| Some(Vec::new())),
        ("it is gone", ".ndjson.gz", |_| None),
        ("the manifest is cut short", ".manifest.json", |mut bytes| {
            bytes.truncate(bytes.len() / 2);
            Some(bytes)
        }),
        ("the manifest says another number", ".manifest.json", |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            let changed = text.replacen("\"messages\":6", "\"messages\":7", 1);
            assert_ne!(text, changed);
            Some(changed.into_bytes())
        }),
    ];
    for (what, suffix, damage) in damages {
        let file = file_of(&stage, suffix);
        let good = fs::read(&file).unwrap();
        let bad = damage(good.clone());
        match &bad {
            Some(bad) => fs::write(&file, bad).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let (status, problem) = stage.restore().await;
        assert_eq!(problem["code"], "snapshot_corrupt", "{what}: {status} {problem}");
        assert_eq!(status, 409, "{what}");
        stage.until("archived").await;
        assert_eq!(fs::read(&file).ok(), bad, "{what}: it is left as it is");
        fs::write(&file, &good).unwrap();
        assert_eq!(stage.messages().await, before, "{what}");
    }
    stage.is_the_same_as(&kept, "after all of them").await;
}

fn file_of(stage: &Stage, suffix: &str) -> PathBuf {
    let mut files = stage.files().into_iter();
    files.find(|file| file.to_str().unwrap().ends_with(suffix)).unwrap()
}

#[tokio::test]
async fn a_large_snapshot_goes_up_in_parts_and_whatever_breaks_off_in_the_middle_is_taken_back() {
    let mut stage = Stage::start().await;
    let mut upstream = stage.enter().await;
    archive_content::lively(&mut upstream, "").await;
    archive_content::asks(stage.portal(), GROUP, &mut upstream).await;
    // More than a part, however well it is compressed.
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..200 {
        let text: String = (0..30_000).map(|_| random.alphanumeric()).collect();
        say(&mut upstream, &format!("message-{number}-{text}")).await;
    }
    drop(upstream);
    let kept = stage.keep().await;
    let before = stage.messages().await;

    stage.store.set(Some(S3Fault::CutUpload { after: 1 }));
    let (status, problem) = stage.archive().await;
    assert_eq!((status, &problem["code"]), (503, &json!("archive_store_unavailable")), "{problem}");
    assert!(stage.store.parts() > 1, "it was the upload of a part that was cut");
    stage.store.set(None);
    lives_on(&stage, &before).await;

    // The controllers break off in each piece of the export, however often it is asked for.
    stage.to_controllers.set(Line::CutAfter(500_000));
    let (status, problem) = stage.archive().await;
    assert_eq!(
        (status, &problem["code"]),
        (502, &json!("group_controller_unavailable")),
        "{problem}"
    );
    stage.to_controllers.set(Line::Open);
    lives_on(&stage, &before).await;

    // They are gone before the export, and come back only after it was given up.
    let call = stage.stall("archive.noted", &Call::Archive).await;
    stage.cluster.kill(Member::Controllers).await;
    stage.wake().await;
    let (status, problem) = timeout(PATIENCE, call).await.unwrap().unwrap();
    assert_eq!(
        (status, &problem["code"]),
        (502, &json!("group_controller_unavailable")),
        "{problem}"
    );
    assert_eq!(stage.status().await, "active");
    stage.cluster.start(Member::Controllers).await;
    stage.until_usable().await;
    lives_on(&stage, &before).await;

    // They break off in every second piece or so: the export goes on where it was, and so does the import.
    let parts = stage.store.parts();
    stage.to_controllers.set(Line::CutAfter(6_000_000));
    stage.archived().await;
    assert!(stage.store.parts() > parts + 1, "the snapshot has more than one part");
    stage.to_controllers.set(Line::Open);
    archive_content::same_content(&kept, &stage.lines().await, "in pieces");
    stage.restored().await;
    assert_eq!(stage.messages().await, before);
}

/// The group is live, with everything in it, and nothing of the attempt is in the bucket.
async fn lives_on(stage: &Stage, before: &Value) {
    assert_eq!(stage.rest().await, "active");
    assert_eq!(stage.messages().await, *before);
    stage.talk(&[]).await;
    stage.until_tidy(0).await;
}

#[tokio::test]
async fn while_the_database_is_gone_an_archive_and_a_restore_wait_or_are_given_up_whole() {
    survives_without_database(Line::Refused, GONE, &[]).await;
}

#[tokio::test]
async fn soak_half_a_minute_without_the_database_leaves_a_group_live_or_archived_and_whole() {
    let patient = [("CONVENE_ORCHESTRATOR__TASK_LEASE_MS", "60000")];
    survives_without_database(Line::Silent, LONG_GONE, &patient).await;
    survives_without_database(Line::Refused, LONG_GONE, &[]).await;
}

#[tokio::test]
async fn while_the_database_is_gone_a_delete_waits_and_leaves_nothing_of_the_group() {
    for failpoint in ["delete.begun", "delete.purged"] {
        is_deleted_without_database(failpoint, Line::Refused, GONE).await;
    }
}

#[tokio::test]
async fn soak_half_a_minute_without_the_database_holds_a_delete_up_and_no_more() {
    for failpoint in ["delete.begun", "delete.removed", "delete.purged"] {
        is_deleted_without_database(failpoint, Line::Silent, LONG_GONE).await;
        is_deleted_without_database(failpoint, Line::Refused, LONG_GONE).await;
    }
}

async fn survives_without_database(fault: Line, gone: Duration, settings: &[(&str, &str)]) {
    let mut stage = Stage::with(settings).await;
    let kept = stage.lively_and_kept().await;
    let before = stage.messages().await;
    for failpoint in [
        "archive.begun",
        // From here on the lines are read.
        "archive.noted",
        "archive.exported",
        "archive.verified",
        "restore.verified",
        "restore.finished",
    ] {
        let call = Call::of(failpoint);
        match (call, stage.status().await.as_str()) {
            (Call::Archive, "archived") => stage.restored().await,
            (Call::Restore, "active" | "idle") => stage.archived().await,
            (Call::Archive | Call::Restore | Call::Delete, _) => {}
        }
        // The database is gone from this very step on.
        let called = stage.stall(failpoint, &call).await;
        stage.to_database.set(fault);
        stage.wake().await;
        sleep(gone).await;
        stage.to_database.set(Line::Open);
        let _ = timeout(PATIENCE, called).await.unwrap().unwrap();
        let status = stage.rest().await;
        assert!(["active", "idle", "archived"].contains(&status.as_str()), "{failpoint}: {status}");
        assert_eq!(stage.messages().await, before, "{failpoint}: {status}");
        stage.is_the_same_as(&kept, failpoint).await;
    }
}

async fn is_deleted_without_database(failpoint: &str, fault: Line, gone: Duration) {
    let mut stage = Stage::start().await;
    stage.lively().await;
    stage.archived().await;
    stage.restored().await;
    assert!(!stage.files().is_empty(), "there is something in the bucket as well");
    let called = stage.stall(failpoint, &Call::Delete).await;
    stage.to_database.set(fault);
    stage.wake().await;
    sleep(gone).await;
    stage.to_database.set(Line::Open);
    let _ = timeout(PATIENCE, called).await.unwrap().unwrap();
    assert_eq!(stage.rest().await, "deleted", "{failpoint}, {fault:?}");
    assert!(stage.files().is_empty(), "{failpoint}, {fault:?}: {:?}", stage.files());
    until_gone(stage.portal(), ORG, &stage.data_dir(), failpoint).await;
}

#[tokio::test]
async fn a_group_in_use_writes_nothing_into_the_bucket_whatever_happens_to_it() {
    in_use(Duration::ZERO).await;
}

#[tokio::test]
async fn soak_two_minutes_of_use_write_nothing_into_the_bucket() {
    in_use(Duration::from_secs(120)).await;
}

/// Posts, changes, sleep and waking, crashes of everything, higher epochs: again and again for so
/// long, and once at least.
async fn in_use(long: Duration) {
    let mut stage = Stage::with(&[("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1")]).await;
    let until = Instant::now() + long;
    let mut round = 0;
    loop {
        stage.lively_in(&round.to_string()).await;
        stage.until("idle").await;
        stage.talk(&[&format!("awake-{round}")]).await;
        let revoke = json!({"user_id": "u9"});
        stage.portal().done("POST", &path("/revoke"), revoke).await;
        let from = stage.record().await["epoch"].clone();
        let raise = json!({"from": from, "reason": "a test"});
        stage.portal().done("POST", &path("/epoch"), raise).await;
        for member in [Member::Controllers, ORCHESTRATORS[0], ORCHESTRATORS[1]] {
            stage.cluster.kill(member).await;
            stage.cluster.start(member).await;
        }
        stage.until_usable().await;
        stage.talk(&[&format!("after-{round}")]).await;
        round += 1;
        if Instant::now() >= until {
            break;
        }
    }
    assert_eq!(stage.store.writes(), 0, "nothing is written for a group in use");
    let other = json!({"group_id": "g2", "org_id": ORG});
    stage.portal().done("POST", "/infra/groups", other).await;
    stage.archived().await;
    assert!(stage.store.writes() > 0, "it is the archive that writes");
    let bucket = stage.store.bucket_dir().join("groups");
    let groups: Vec<_> = fs::read_dir(bucket).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(groups, [GROUP]);
}
