//! The life of a group as people see it: archived in front of everybody, read, restored within the
//! workspace's limit, and deleted.

use convene_testing::browser::{Page, Screen};
use serde_json::{Value, json};

use crate::story_stage::{LIVE, Stage, fits, save, say, sees, show_panel};

/// What stands below the conversation of a group that nothing can be written in.
const BAR: &str = "document.querySelector('convene-life')";

/// Waits until the bar says something, instead of the field to write in.
async fn bar(page: &Page, words: &str) {
    let shown = format!("{BAR}.checkVisibility() && {BAR}.innerText.includes({})", json!(words));
    page.until(&shown).await;
    page.until("!document.querySelector('convene-composer').checkVisibility()").await;
    page.until("document.querySelector('[data-open=search]').disabled").await;
}

#[tokio::test]
async fn browser_a_group_is_archived_read_restored_and_deleted_in_front_of_both() {
    let limit = [("CONVENE_ORCHESTRATOR__MAX_ACTIVE_GROUPS", "1")];
    let stage = Stage::set_with(&limit, Screen::Desk, Screen::Phone).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    say(ana, "Husum is settled").await;
    sees(ben, "Husum is settled").await;
    for page in [ana, ben] {
        page.run("window.sameDocument = true").await;
    }

    // Both are in the middle of it, and find themselves reading.
    show_panel(ana).await;
    ana.press("Change the group").await;
    ana.press("Archive…").await;
    ana.read("What was said stays readable.").await;
    ana.press("Archive").await;
    for page in [ana, ben] {
        bar(page, "This group was archived today.").await;
        sees(page, "Husum is settled").await;
        assert!(page.say::<bool>("window.sameDocument === true").await);
    }
    bar(ben, "an owner or admin of the workspace can restore it").await;
    assert!(!ben.say::<bool>(&format!("!!{BAR}.querySelector('button')")).await);
    fits(ben).await;
    let folded =
        "document.querySelector('.put-away summary').innerText.replace(/\\s+/g, ' ').trim()";
    ana.until(&format!("{folded} === 'Archived 1'")).await;
    save(ana, "archived.png").await;

    // Whoever comes to it only now sees the same, without an error.
    open_archived(ben, url, &stage.group).await;
    sees(ben, "Husum is settled").await;
    fits(ben).await;

    // The workspace has room for one group, and another one has taken it.
    let other = stage.as_ana.create_group(&stage.org, "Tides").await;
    let post = format!("/api/groups/{other}/messages");
    stage.as_ana.post(&post, json!({"text": "High water at noon"})).await;
    ana.press("Restore").await;
    bar(ana, "The workspace has 1 of 1 groups in use.").await;
    let archive = format!("/api/groups/{other}/archive");
    let (status, _) = stage.as_ana.send("POST", &archive, Some(&json!({}))).await;
    assert_eq!(status, 200);
    ana.press("Restore").await;
    for page in [ana, ben] {
        page.until(LIVE).await;
        page.until("document.querySelector('convene-composer').checkVisibility()").await;
    }
    assert!(ana.say::<bool>("window.sameDocument === true").await);
    say(ben, "And we go on").await;
    sees(ana, "And we go on").await;

    // Its title is written before it is gone for good.
    show_panel(ana).await;
    ana.press("Change the group").await;
    ana.press("Delete…").await;
    ana.write("Write Launch week to confirm", "Launch").await;
    assert!(ana.say::<bool>("document.querySelector('dialog[open] .danger').disabled").await);
    ana.write("Write Launch week to confirm", " week").await;
    ana.press("Delete for good").await;
    ana.until(&format!("location.pathname === '/o/{}'", stage.org)).await;
    ben.read("This group was deleted.").await;
    ben.go(&format!("{url}/g/{}", stage.group)).await;
    ben.read("An owner or an admin of its workspace removed it for good").await;
    let (status, answer) =
        stage.as_ben.send("GET", &format!("/api/groups/{}", stage.group), None).await;
    assert_eq!((status, &answer["code"]), (410, &Value::from("group_deleted")));
    // The refusals that were met are in the log, and nothing else.
    for page in [ana, ben] {
        let errors = page.errors().await;
        let met = ["429", "410"];
        assert!(errors.iter().all(|e| met.iter().any(|status| e.contains(status))), "{errors:?}");
    }
    stage.close().await;
}

#[tokio::test]
async fn browser_a_group_that_was_archived_by_itself_is_read_and_restored_like_any_other() {
    let soon = [
        ("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1"),
        ("CONVENE_ORCHESTRATOR__AUTO_ARCHIVE_AFTER_SECS", "1"),
        ("CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS", "100"),
    ];
    let stage = Stage::set_with(&soon, Screen::Phone, Screen::Desk).await;
    let (ana, url) = (&stage.ana, &stage.node.url);
    let tides = stage.as_ana.create_group(&stage.org, "Tides").await;
    let path = format!("/api/groups/{tides}");
    stage.as_ana.post(&format!("{path}/messages"), json!({"text": "High water at noon"})).await;
    ana.until(&format!("fetch('{path}').then((answer) => answer.json()).then(({{status}}) => window.status_ = status), window.status_ === 'archived'")).await;
    open_archived(ana, url, &tides).await;
    sees(ana, "High water at noon").await;
    fits(ana).await;
    ana.press("Restore").await;
    ana.until(LIVE).await;
    say(ana, "And low water at six").await;
    stage.close().await;
}

async fn open_archived(page: &Page, url: &str, group: &str) {
    page.go(&format!("{url}/g/{group}")).await;
    bar(page, "This group was archived").await;
    page.until("document.querySelector('convene-connection').getAttribute('state') === 'archived'")
        .await;
}
