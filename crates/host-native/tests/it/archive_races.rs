//! An Orchestrator that stands still at some step of an archive, a restore or a delete, and goes on
//! after another has done what was due: whatever it does then changes nothing. And one that dies
//! there while another is beside it.

use serde_json::json;
use tokio::time::timeout;

use crate::{
    archive_content::until_gone,
    archive_stage::{Call, GROUP, ORG, PATIENCE, Stage},
};

#[tokio::test]
async fn a_stalled_orchestrator_that_wakes_up_after_the_thaw_neither_marks_nor_wipes() {
    let mut stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    // Before anything is written, in the middle of it, and when only the mark is left.
    for failpoint in ["archive.noted", "archive.content", "archive.verified"] {
        too_late_to_mark(&mut stage, failpoint).await;
    }
    stage.goes_on_from(&kept, "after three that came too late").await;
}

#[tokio::test]
async fn a_stalled_orchestrator_that_wakes_up_after_the_restore_wipes_nothing() {
    let mut stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    too_late_to_wipe(&mut stage, "archive.marked").await;
    stage.goes_on_from(&kept, "archive.marked").await;
}

#[tokio::test]
async fn a_stalled_orchestrator_that_wakes_up_after_another_has_restored_imports_nothing() {
    let mut stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    stage.archived().await;
    too_late_to_restore(&mut stage, "restore.imported").await;
    stage.goes_on_from(&kept, "restore.imported").await;
}

/// Every step of an archive, a restore and a delete at which an Orchestrator may stand still.
#[tokio::test]
async fn soak_an_orchestrator_may_stand_still_at_any_step_and_changes_nothing_when_it_wakes_up() {
    let mut stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    for failpoint in convene_orchestrator::FAILPOINTS {
        match *failpoint {
            "archive.marked" | "archive.wiped" => too_late_to_wipe(&mut stage, failpoint).await,
            name if name.starts_with("archive.") => too_late_to_mark(&mut stage, name).await,
            name if name.starts_with("restore.") => {
                stage.archived().await;
                too_late_to_restore(&mut stage, name).await;
            }
            _ => {}
        }
    }
    stage.goes_on_from(&kept, "after every step").await;
    for failpoint in convene_orchestrator::FAILPOINTS {
        if failpoint.starts_with("delete.") {
            let mut stage = Stage::start().await;
            stage.lively().await;
            stage.archived().await;
            too_late_to_delete(&mut stage, failpoint).await;
        }
    }
}

/// Every step at which an Orchestrator may die while another is there.
#[tokio::test]
async fn soak_when_an_orchestrator_dies_at_any_step_the_other_leaves_the_group_live_or_archived() {
    let mut stage = Stage::start().await;
    let kept = stage.lively_and_kept().await;
    let before = stage.messages().await;
    // Those of a delete come last.
    let of_calls = |name: &&&str| {
        ["archive.", "restore.", "delete."].iter().any(|call| name.starts_with(call))
    };
    for failpoint in convene_orchestrator::FAILPOINTS.iter().filter(of_calls) {
        let call = Call::of(failpoint);
        match (call, stage.status().await.as_str()) {
            (Call::Archive, "archived") => stage.restored().await,
            (Call::Restore | Call::Delete, "active" | "idle") => stage.archived().await,
            (Call::Archive | Call::Restore | Call::Delete, _) => {}
        }
        stage.first_with(failpoint).await;
        let portal = stage.portals[0].clone();
        // There is no answer.
        let called = tokio::spawn(async move { call.make(&portal).await });
        let ended = timeout(PATIENCE, stage.cluster.ended(crate::archive_stage::ORCHESTRATORS[0]));
        ended.await.unwrap_or_else(|_| panic!("the process ends at {failpoint}"));
        drop(called);
        let status = stage.rest().await;
        stage.cluster.set_env(crate::archive_stage::ORCHESTRATORS[0], "CONVENE_FAILPOINT", "");
        stage.cluster.start(crate::archive_stage::ORCHESTRATORS[0]).await;
        if matches!(call, Call::Delete) {
            assert_eq!(status, "deleted", "{failpoint}");
            assert!(stage.files().is_empty(), "{failpoint}: {:?}", stage.files());
            until_gone(stage.portal(), ORG, &stage.data_dir(), failpoint).await;
            return;
        }
        assert_eq!(stage.messages().await, before, "{failpoint}: {status}");
        stage.is_the_same_as(&kept, failpoint).await;
    }
}

/// The first Orchestrator stands still before its mark; the other takes the task over, thaws the
/// group, and people go on in it.
async fn too_late_to_mark(stage: &mut Stage, failpoint: &str) {
    let epoch = stage.record().await["epoch"].as_u64().unwrap();
    let kept = stage.files().len();
    let call = stage.stall(failpoint, &Call::Archive).await;
    assert_eq!(stage.status().await, "archiving", "{failpoint}");
    stage.until("active").await;
    let said = format!("after {failpoint}");
    stage.talk(&[&said]).await;
    let before = stage.messages().await;
    assert_eq!(before.as_array().unwrap().last().unwrap()["text"], said);
    stage.until_tidy(kept).await;

    stage.wake().await;
    let (status, answer) = timeout(PATIENCE, call).await.unwrap().unwrap();
    assert!(status >= 400, "{failpoint}: {status} {answer}");
    assert_eq!(stage.status().await, "active", "{failpoint}");
    assert_eq!(stage.record().await["epoch"], epoch + 1, "{failpoint}");
    assert_eq!(stage.messages().await, before, "{failpoint}");
    stage.until_tidy(kept).await;
}

/// The first Orchestrator has marked the group and stands still before or after its wipe; the other
/// makes up for it, somebody restores the group, and people go on in it.
async fn too_late_to_wipe(stage: &mut Stage, failpoint: &str) {
    let call = stage.stall(failpoint, &Call::Archive).await;
    assert_eq!(stage.status().await, "archived", "{failpoint}");
    stage.restored().await;
    let said = format!("after {failpoint}");
    stage.talk(&[&said]).await;
    let before = stage.messages().await;

    stage.wake().await;
    let _ = timeout(PATIENCE, call).await.unwrap().unwrap();
    // What it was about to do is done or refused when its tasks have ended.
    stage.first_with("").await;
    assert_eq!(stage.status().await, "active", "{failpoint}");
    assert_eq!(stage.messages().await, before, "{failpoint}");
}

/// The first Orchestrator stands still in a restore; the other finishes it, and people go on.
async fn too_late_to_restore(stage: &mut Stage, failpoint: &str) {
    let call = stage.stall(failpoint, &Call::Restore).await;
    stage.until("active").await;
    let said = format!("after {failpoint}");
    stage.talk(&[&said]).await;
    let before = stage.messages().await;
    let epoch = stage.record().await["epoch"].clone();

    stage.wake().await;
    let _ = timeout(PATIENCE, call).await.unwrap().unwrap();
    stage.first_with("").await;
    assert_eq!(stage.status().await, "active", "{failpoint}");
    assert_eq!(stage.record().await["epoch"], epoch, "{failpoint}");
    assert_eq!(stage.messages().await, before, "{failpoint}");
}

/// The first Orchestrator stands still in a delete; the other finishes it.
async fn too_late_to_delete(stage: &mut Stage, failpoint: &str) {
    let call = stage.stall(failpoint, &Call::Delete).await;
    stage.until("deleted").await;
    stage.wake().await;
    let _ = timeout(PATIENCE, call).await.unwrap().unwrap();
    stage.first_with("").await;
    assert_eq!(stage.status().await, "deleted", "{failpoint}");
    assert!(stage.files().is_empty(), "{failpoint}: {:?}", stage.files());
    let again = json!({"group_id": GROUP, "org_id": ORG});
    let (_, answer) = stage.portal().call("POST", "/infra/groups", again).await;
    assert_eq!(answer["code"], "group_deleted", "{failpoint}");
    until_gone(stage.portal(), ORG, &stage.data_dir(), failpoint).await;
}
