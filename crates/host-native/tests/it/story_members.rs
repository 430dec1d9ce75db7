//! What becomes of a page that is open while its reader is given another role, or removed: it says and
//! offers at once what holds, without a reload.

use convene_testing::browser::{Page, Screen};
use serde_json::json;

use crate::{
    story_settings,
    story_stage::{Stage, choices, choose, fits, message, say, sees},
};

#[tokio::test]
async fn browser_another_role_and_a_removal_hold_at_once_on_a_phone() {
    roles_change(Screen::Desk, Screen::Phone).await;
}

#[tokio::test]
async fn browser_another_role_and_a_removal_hold_at_once_at_a_desk() {
    roles_change(Screen::Phone, Screen::Desk).await;
}

async fn roles_change(ana: Screen, ben: Screen) {
    let stage = Stage::set(ana, ben).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    say(ana, "Tides at nine").await;
    say(ana, "Tides at ten").await;
    sees(ben, "Tides at ten").await;
    ben.run("window.sameDocument = true").await;
    assert!(!offers_deletion(ben, "Tides at nine").await, "a member deletes only their own");
    ana.go(&format!("{url}/o/{}/settings/members", stage.org)).await;
    ana.until("customElements.get('convene-form')").await;

    // An admin may delete what others wrote, and change the group.
    becomes(ana, "admin").await;
    may_manage(ben, true).await;
    choose(ben, "Tides at nine", "Delete…").await;
    ben.press("Delete the message").await;
    ben.until(&format!("!({})", message("Tides at nine"))).await;
    sees(ben, "This message was deleted.").await;

    // Who is a member again may not.
    becomes(ana, "member").await;
    may_manage(ben, false).await;
    assert!(!offers_deletion(ben, "Tides at ten").await);
    assert!(ben.say::<bool>("window.sameDocument === true").await, "the page was not reloaded");

    // Who is removed reads what was said until then, and nothing that is said later.
    ben.write("Message", "half a thought").await;
    ana.press("Remove Ben").await;
    ana.read("They are shut out of its groups at once.").await;
    ana.press("Remove Ben").await;
    ben.read("You no longer have access to this group.").await;
    ana.read("1 member").await;
    let path = format!("/api/groups/{}/messages", stage.group);
    stage.as_ana.post(&path, json!({"text": "Ben is gone"})).await;
    sees(ben, "Tides at ten").await;
    fits_if_phone(ben).await;
    let (status, _) = stage.as_ben.send("GET", &path, None).await;
    assert_eq!(status, 404);
    assert!(!ben.say::<bool>("document.body.innerText.includes('Ben is gone')").await);
    ben.press("Leave").await;
    ben.until("!location.pathname.startsWith('/g/')").await;
    assert!(!ben.say::<bool>("document.body.innerText.includes('Launch week')").await);
    // The refusals that were met are in the log, and nothing else.
    for page in [ana, ben] {
        let errors = page.errors().await;
        let met = |error: &String| ["403", "404"].iter().any(|status| error.contains(status));
        assert!(errors.iter().all(met), "{errors:?}");
    }
    stage.close().await;
}

#[tokio::test]
async fn browser_a_workspace_is_renamed_a_link_taken_back_and_a_member_leaves() {
    let stage = Stage::set(Screen::Desk, Screen::Phone).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let members = format!("{url}/o/{}/settings/members", stage.org);
    let loaded = "window.before === undefined && customElements.get('convene-form')";
    ana.go(&members).await;
    ana.until(loaded).await;
    ana.read("You are its only owner.").await;

    // A link that went to somebody else is taken back, and leads nowhere any more.
    ana.press("Make a link").await;
    let invite = ana.value("Result").await;
    ana.go(&members).await;
    ana.until(loaded).await;
    ana.read("Links that nobody has used yet").await;
    ana.run("window.before = true; document.querySelector('[aria-label^=\"Take back the link of\"]').click()")
        .await;
    ana.press("Take it back").await;
    ana.until(loaded).await;
    assert!(!ana.say::<bool>("document.body.innerText.includes('nobody has used yet')").await);
    let token = invite.rsplit('/').next().unwrap();
    let (status, _) = stage.as_ben.send("POST", &format!("/api/invites/{token}"), None).await;
    assert_eq!(status, 410);

    // Another name stands wherever the workspace is named.
    ana.run("window.before = true").await;
    ana.write("Name", " North").await;
    ana.press("Save the name").await;
    ana.until(&format!("{loaded} && document.querySelector('.workspace-menu summary').innerText.includes('Harbour Lab North')"))
        .await;

    // A member renames nothing and may leave; then there is nothing here for them any more.
    ben.go(&members).await;
    ben.until(loaded).await;
    assert!(!ben.say::<bool>("!!document.querySelector('[name=name]:not(dialog *)')").await);
    fits_if_phone(ben).await;
    ben.press("Leave the workspace").await;
    ben.read("Leave Harbour Lab North?").await;
    ben.press("Leave the workspace").await;
    ben.until("location.pathname === '/'").await;
    ben.read("Welcome, Ben").await;
    let (status, _) = stage.as_ben.get(&format!("/api/groups/{}/messages", stage.group)).await;
    assert_eq!(status, 404);
    stage.close().await;
}

/// Ana gives Ben another role.
async fn becomes(ana: &Page, role: &str) {
    story_settings::choose(ana, "Role of Ben", role).await;
    ana.read("Saved.").await;
    ana.run("for (const note of document.querySelectorAll('.outcome')) note.replaceChildren()")
        .await;
}

/// Waits until the page takes its reader for somebody who may change the group, or may not.
async fn may_manage(page: &Page, may: bool) {
    page.until(&format!("document.querySelector('#pause').disabled !== {may}")).await;
}

async fn offers_deletion(page: &Page, text: &str) -> bool {
    choices(page, text).await.contains(&"Delete…".to_owned())
}

async fn fits_if_phone(page: &Page) {
    if page.is_phone() {
        fits(page).await;
    }
}
