//! Whether everybody can use the pages: each view is checked by axe-core (labels, roles, contrast by
//! computed styles, ids, landmarks) in light and dark, on a desk and on a phone, and every target on
//! a phone is large enough for a finger.

use std::path::{Path, PathBuf};

use convene_testing::{
    browser::{Page, Screen},
    client::Person,
};
use serde_json::{Value, json};

use crate::story_stage::{ENTER, ESCAPE, Stage, choose, fits, open, say, sees, show_panel, tool};

#[tokio::test]
async fn browser_every_view_is_for_everybody_at_a_desk() {
    every_view(Screen::Desk).await;
}

#[tokio::test]
async fn browser_every_view_is_for_everybody_on_a_phone() {
    every_view(Screen::Phone).await;
}

/// axe-core's script: where `cargo xtask test` says, or where it has put it before.
pub(crate) fn axe() -> String {
    let installed = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
        let tools = std::fs::read_dir(target.join("tools")).ok()?;
        let found = tools.flatten().find(|f| f.file_name().to_string_lossy().starts_with("axe-"));
        Some(found?.path().join("node_modules/axe-core/axe.min.js"))
    };
    let file = std::env::var_os("CONVENE_TEST_AXE").map(PathBuf::from).or_else(installed);
    let script = file.and_then(|file| std::fs::read_to_string(file).ok());
    script.expect("axe-core is there: run the tests with `cargo xtask test`, which installs it")
}

/// What axe-core finds, as `rule: element`.
const CHECK: &str = "
    window.found = null;
    axe.run(document, {resultTypes: ['violations']}).then(
        ({violations}) => window.found = violations.flatMap(({id, nodes}) => nodes.map(({html, any}) => `${id}: ${html.slice(0, 200)} ${any[0]?.message ?? ''}`)),
        (error) => window.found = [String(error)]);
";

/// Ends what moves, where it would come to rest.
pub(crate) const STILL: &str = "
    for (const animation of document.getAnimations()) {
        if (animation.effect.getComputedTiming().endTime === Infinity) animation.cancel();
        else animation.finish();
    }
";

/// Checks what is in view, in light and in dark.
pub(crate) async fn check(page: &Page, axe: &str, view: &str) {
    for dark in [false, true] {
        page.prefer_dark(dark).await;
        // Colours that fade into each other would be measured halfway.
        page.run(STILL).await;
        if !page.say::<bool>("'axe' in window").await {
            page.run(axe).await;
        }
        page.run(CHECK).await;
        page.until("window.found").await;
        let found: Vec<String> = page.say("window.found").await;
        assert_eq!(found, Vec::<String>::new(), "{view}, dark: {dark}");
    }
    if page.is_phone() {
        fits(page).await;
    }
}

async fn every_view(screen: Screen) {
    let axe = axe();
    let stage = Stage::set(screen, Screen::Desk).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let check = async |view: &str| check(ana, &axe, view).await;
    check("an empty group").await;
    conversation(&stage).await;
    sees(ana, "It is settled").await;
    check("a conversation").await;

    // Whoever wants no motion sees none, and still finds the message that was asked for.
    ana.prefer("prefers-reduced-motion", "reduce").await;
    ana.run("document.querySelector('a.quote').click()").await;
    ana.until("document.activeElement.id === 'm-plain'").await;
    assert_eq!(ana.say::<u64>("document.getAnimations().length").await, 0);
    let marked = "getComputedStyle(document.activeElement).backgroundColor";
    assert_ne!(ana.say::<String>(marked).await, "rgba(0, 0, 0, 0)");

    // What opens at a message.
    tool(ana, "Plain words", "React").await;
    check("the choice of an emoji").await;
    ana.keys(ESCAPE).await;
    tool(ana, "Plain words", "Reply").await;
    check("an answer begun").await;
    tool(ana, "Plain words", "More").await;
    check("the menu of a message").await;
    ana.keys(ESCAPE).await;
    choose(ana, "Mine to change", "Edit").await;
    check("a message being edited").await;
    ana.press("Cancel").await;
    choose(ana, "Mine to change", "Delete…").await;
    check("the question before a deletion").await;
    ana.press("Cancel").await;
    ana.press("edited").await;
    ana.until("document.querySelector('.versions time')").await;
    check("former versions").await;
    ana.press("Close").await;
    tool(ana, "Plain words", "React").await;
    ana.write("Another emoji", &format!("🦀🦀{ENTER}")).await;
    ana.until("document.querySelector('.complaint')").await;
    check("a refusal").await;
    ana.press("Dismiss").await;

    // What opens beside it.
    ana.press("Search").await;
    check("the search").await;
    ana.write("Words to search for in this group", "words").await;
    ana.until("document.querySelector('.hit')").await;
    check("what a search found").await;
    ana.keys(ESCAPE).await;
    show_panel(ana).await;
    check("the panel").await;
    ana.press("Change the group").await;
    ana.until("document.querySelector('dialog[open] [name=keep]')").await;
    check("the settings of a group").await;
    ana.press("Cancel").await;
    ana.run("document.querySelector('convene-keys').open()").await;
    check("the keys").await;
    ana.press("Close").await;
    ana.run("document.querySelector('convene-switcher').open()").await;
    check("the way to a group").await;
    ana.keys(ESCAPE).await;

    // What others left unread, and the other pages.
    let tides = stage.as_ana.create_group(&stage.org, "Tides").await;
    open(ana, url, &tides).await;
    ana.write("Message", "a draft").await;
    say(ben, "@Ana a mention").await;
    let mentioned =
        format!("document.querySelector('nav [data-group=\"{}\"] .mention')", stage.group);
    ana.until(&mentioned).await;
    if ana.is_phone() {
        ana.run("document.querySelector('#nav').showPopover()").await;
    }
    check("unread groups").await;
    let org = &stage.org;
    archived_group(&stage, &tides, &check).await;
    for path in [
        format!("/o/{org}"),
        format!("/o/{org}/settings/members"),
        format!("/o/{org}/settings/agents"),
        format!("/o/{org}/settings/providers"),
        format!("/o/{org}/settings/tokens"),
        format!("/o/{org}/settings/audit"),
        "/".to_owned(),
        "/nowhere".to_owned(),
    ] {
        ana.go(&format!("{url}{path}")).await;
        check(&path).await;
        if path == format!("/o/{org}") {
            ana.press("New group").await;
            check("a new group").await;
        }
    }
    let (_, invite) =
        stage.as_ana.send("POST", &format!("/api/orgs/{org}/invites"), Some(&json!({}))).await;
    ana.go(invite["url"].as_str().unwrap()).await;
    check("an invitation").await;
    ana.forget_cookies().await;
    for path in ["/sign-in", "/sign-up"] {
        ana.go(&format!("{url}{path}")).await;
        check(path).await;
    }
    // The page that was not there is in the log, and nothing else.
    let errors = ana.errors().await;
    assert!(errors.iter().all(|error| error.contains("/nowhere")), "{errors:?}");
    stage.close().await;
}

/// A group that is put away, and the questions before that.
async fn archived_group(stage: &Stage, group: &str, check: &impl AsyncFn(&str)) {
    let (ana, url) = (&stage.ana, &stage.node.url);
    stage
        .as_ana
        .post(&format!("/api/groups/{group}/messages"), json!({"text": "High water"}))
        .await;
    open(ana, url, group).await;
    show_panel(ana).await;
    ana.press("Change the group").await;
    ana.press("Delete…").await;
    check("the question before a group is deleted").await;
    ana.press("Cancel").await;
    show_panel(ana).await;
    ana.press("Change the group").await;
    ana.press("Archive…").await;
    check("the question before a group is archived").await;
    ana.press("Archive the group").await;
    ana.until("document.querySelector('convene-life').innerText.includes('was archived')").await;
    ana.until("!document.querySelector('dialog[open]')").await;
    check("an archived group").await;
    ana.go(&format!("{url}/o/{}?status=archived", stage.org)).await;
    check("the archived groups").await;
}

/// One of everything: an answer, an edited and a deleted message, reactions, a pin, code and a list,
/// a reply of an agent.
async fn conversation(stage: &Stage) {
    let (ana, ben) = (&stage.as_ana, &stage.as_ben);
    let path = format!("/api/groups/{}/messages", stage.group);
    let post = async |person: &Person, id: &str, text: &str, reply_to: Option<&str>| {
        person.post(&path, json!({"message_id": id, "text": text, "reply_to": reply_to})).await;
    };
    let change = async |person: &Person, method: &str, rest: &str, body: Value| {
        let (status, answer) = person.send(method, &format!("{path}/{rest}"), Some(&body)).await;
        assert!(status < 300, "{method} {rest}: {status} {answer}");
    };
    post(ben, "plain", "Plain words", None).await;
    post(ana, "mine", "Mine", None).await;
    change(ana, "PATCH", "mine", json!({"text": "Mine to change"})).await;
    post(ben, "marks", "A `code`, **weight**, [a link](https://example.org)\n\n1. one\n2. two\n\n```\nlet x = 1;\n```\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n> said before", Some("plain")).await;
    post(ben, "gone", "Gone", None).await;
    change(ben, "DELETE", "gone", Value::Null).await;
    change(ana, "PUT", "plain/reactions/%F0%9F%91%8D", Value::Null).await;
    change(ben, "PUT", "plain/reactions/%F0%9F%8E%89", Value::Null).await;
    change(ben, "PUT", "plain/pin", Value::Null).await;
    let (mut socket, _) = ben.attach(&stage.group, None).await;
    socket.post("ask", "@Guide @Ana what now?").await;
    socket.event("run.finished").await;
    post(ben, "last", "It is settled", None).await;
}
