//! The life of a group as people see it: archived in front of everybody, read, restored within the
//! workspace's limit, and deleted.

use convene_testing::browser::{Page, Screen, free_port};
use serde_json::{Value, json};

use crate::{
    external_history::{Service, configure},
    story_stage::{LIVE, Stage, fits, open, picture, save, say, sees, show_panel},
};

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
    ana.press("Archive the group").await;
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
    ana.read("Archive or delete another one first, or ask your operator for a higher limit.").await;
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
async fn browser_whoever_finds_no_room_for_a_restore_learns_what_to_do_at_a_desk() {
    no_room(Screen::Desk, Screen::Phone).await;
}

#[tokio::test]
async fn browser_whoever_finds_no_room_for_a_restore_learns_what_to_do_on_a_phone() {
    no_room(Screen::Phone, Screen::Desk).await;
}

async fn no_room(ana: Screen, ben: Screen) {
    let limit = [("CONVENE_ORCHESTRATOR__MAX_ACTIVE_GROUPS", "1")];
    let stage = Stage::set_with(&limit, ana, ben).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    say(ana, "Husum is settled").await;
    let archive = format!("/api/groups/{}/archive", stage.group);
    stage.as_ana.send("POST", &archive, Some(&json!({}))).await;
    let other = stage.as_ana.create_group(&stage.org, "Tides").await;
    let post = format!("/api/groups/{other}/messages");
    stage.as_ana.post(&post, json!({"text": "High water at noon"})).await;
    open_archived(ana, url, &stage.group).await;
    ana.press("Restore").await;
    bar(ana, "The workspace has 1 of 1 groups in use.").await;
    picture(ana, "no-room").await;
    for page in [ana, ben].into_iter().filter(|page| page.is_phone()) {
        open_archived_or_there(page, url, &stage.group).await;
        fits(page).await;
    }
    // The way to what takes the room, and back to a group that has found some.
    ana.press("Restore").await;
    ana.press("Show the groups in use").await;
    ana.until("location.search === '?status=active'").await;
    ana.until("[...document.querySelectorAll('main .rows .group-title')].map((title) => title.textContent).join() === 'Tides'").await;
    stage.as_ana.send("POST", &format!("/api/groups/{other}/archive"), Some(&json!({}))).await;
    open_archived(ana, url, &stage.group).await;
    ana.press("Restore").await;
    ana.until(LIVE).await;
    say(ana, "And we go on").await;
    let errors = ana.errors().await;
    assert!(errors.iter().all(|error| error.contains("429")), "{errors:?}");
    stage.close().await;
}

/// The page of an archived group, which is left as it is where it is in sight already.
async fn open_archived_or_there(page: &Page, url: &str, group: &str) {
    if !page.say::<bool>(&format!("{BAR}?.checkVisibility() ?? false")).await {
        open_archived(page, url, group).await;
    }
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

#[tokio::test]
async fn browser_whoever_looks_learns_that_history_is_kept_elsewhere_and_that_the_group_is_not_archived()
 {
    let mut stage = Stage::set(Screen::Desk, Screen::Phone).await;
    for page in [&stage.ana, &stage.ben] {
        page.go("about:blank").await;
    }
    // The operator connects the service of the workspace; a group that was there stays as it was.
    stage.node.kill().await;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = configure(dir.path(), &stage.org, port);
    let _service = Service::start(dir.path(), port, &[]);
    stage.node = stage.launch.clone().arg("--config").arg(config.to_str().unwrap()).start().await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let kept = stage.as_ana.create_group(&stage.org, "Tides").await;

    let said = "Harbour Lab keeps the history of this group in a service of its own";
    let ways = "[...document.querySelectorAll('dialog[open] .put-away button')].map((way) => way.innerText).join()";
    for page in [ana, ben] {
        open(page, url, &kept).await;
        say(page, if page.is_phone() { "High water" } else { "Low water" }).await;
        show_panel(page).await;
        page.read(said).await;
    }
    fits(ben).await;
    ana.press("Change the group").await;
    ana.until(&format!("{ways} === 'Delete…'")).await;
    ana.read("so the group is not archived.").await;
    ana.press("Cancel").await;
    for page in [ana, ben] {
        open(page, url, &stage.group).await;
        show_panel(page).await;
        assert!(!page.say::<bool>("document.body.innerText.includes('keeps the history')").await);
    }
    ana.press("Change the group").await;
    ana.until(&format!("{ways} === 'Archive…,Delete…'")).await;
    ana.press("Cancel").await;
    for page in [ana, ben] {
        page.go(&format!("{url}/o/{}/settings/members", stage.org)).await;
        page.read("Where history is kept").await;
        page.read("these groups are not archived").await;
    }
    fits(ben).await;
    stage.close().await;
}

async fn open_archived(page: &Page, url: &str, group: &str) {
    page.go(&format!("{url}/g/{group}")).await;
    bar(page, "This group was archived").await;
    page.until("document.querySelector('convene-connection').getAttribute('state') === 'archived'")
        .await;
}
