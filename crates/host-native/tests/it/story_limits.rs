//! What people read while their group or their workspace may do no more, and that it goes on by itself.

use std::time::Duration;

use convene_testing::browser::{Page, Screen};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::story_stage::{LIVE, Stage, fits, picture, say, sees};

/// What stands where the page says that it is not up to date.
async fn said(page: &Page, words: &str) {
    let shown = format!(
        "document.querySelector('convene-connection').checkVisibility() \
         && document.querySelector('convene-connection').innerText.includes({})",
        json!(words)
    );
    page.until(&shown).await;
}

#[tokio::test]
async fn browser_a_group_that_has_sent_as_much_as_it_may_says_until_when_and_goes_on() {
    let settings = [
        ("CONVENE_CONTROLLERS__IDLE_AFTER_SECS", "1"),
        ("CONVENE_ORCHESTRATOR__RECONCILE_EVERY_MS", "100"),
    ];
    let stage = Stage::set_with(&settings, Screen::Desk, Screen::Phone).await;
    let (ana, ben) = (&stage.ana, &stage.ben);
    say(ana, "Half the fleet is in").await;
    sees(ben, "Half the fleet is in").await;
    // Another group of the workspace sends more than the month may have, and says so when it sleeps.
    let tides = stage.as_ana.create_group(&stage.org, "Tides").await;
    let post = format!("/api/groups/{tides}/messages");
    stage.as_ana.post(&post, json!({"text": "x".repeat(20_000)})).await;
    let usage = format!("/api/orgs/{}/usage", stage.org);
    let reported = async {
        while stage.as_ana.get(&usage).await.1["egress_bytes"].as_u64() < Some(20_000) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), reported).await.expect("the bytes are reported");

    stage.limit(&["monthly_egress_bytes=20000"]).await;
    for page in [ana, ben] {
        said(page, "This group has sent as much as it may until").await;
        said(page, "Try now").await;
        picture(page, "sent-as-much-as-it-may").await;
    }
    fits(ben).await;
    // What is written meanwhile waits, and what was read stays in view.
    ana.write("Message", "The other half comes tomorrow").await;
    ana.press("Send").await;
    ana.read("Not sent yet.").await;
    sees_still(ana, "Half the fleet is in").await;
    // Whoever comes only now is told the same, though nothing of the group can be read.
    ben.go(&format!("{}/g/{}", stage.node.url, stage.group)).await;
    said(ben, "This group has sent as much as it may until").await;
    picture(ben, "closed-from-the-beginning").await;

    stage.limit(&["monthly_egress_bytes=default"]).await;
    for page in [ana, ben] {
        page.press("Try now").await;
        page.until(LIVE).await;
    }
    for text in ["Half the fleet is in", "The other half comes tomorrow"] {
        sees(ben, text).await;
    }

    stage.block(true).await;
    for page in [ana, ben] {
        said(page, "This workspace is blocked by its operator.").await;
        picture(page, "blocked").await;
    }
    fits(ben).await;
    stage.block(false).await;
    for page in [ana, ben] {
        page.press("Try now").await;
        page.until(LIVE).await;
    }
    say(ben, "And we go on").await;
    sees(ana, "And we go on").await;
    // A browser itself counts what was refused as a failure.
    let errors = ben.errors().await;
    assert!(errors.iter().all(|error| error.contains("status of 402")), "{errors:?}");
    stage.close().await;
}

/// Whether a message stands in the conversation, whatever waits beside it.
async fn sees_still(page: &Page, text: &str) {
    let texts = crate::story_stage::TEXTS;
    assert!(page.say::<bool>(&format!("{texts}.includes({})", json!(text))).await);
}
