//! One's own account, as two people meet it: another name that holds on every open page at once, another
//! password that signs everybody else out, and the places where somebody is signed in.

use convene_testing::{
    browser::{Browsers, Page, Screen},
    client::PASSWORD,
};
use serde_json::json;

use crate::story_stage::{ENTER, Stage, fits, open, picture, say, sees, show_panel, sign_in};

const NEW: &str = "another horse battery";

#[tokio::test]
async fn browser_a_person_changes_name_and_password_and_signs_out_elsewhere_at_a_desk() {
    changes(Screen::Desk, Screen::Phone).await;
}

#[tokio::test]
async fn browser_a_person_changes_name_and_password_and_signs_out_elsewhere_on_a_phone() {
    changes(Screen::Phone, Screen::Desk).await;
}

async fn changes(ana: Screen, ben: Screen) {
    let stage = Stage::set(ana, ben).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    say(ana, "High water at noon").await;
    sees(ben, "High water at noon").await;
    let path = format!("/api/groups/{}/messages", stage.group);
    let (_, page) = stage.as_ben.get(&path).await;
    let message = page["messages"][0]["message_id"].as_str().unwrap().to_owned();
    let reaction = format!("{path}/{message}/reactions/%F0%9F%91%8D");
    stage.as_ana.send("PUT", &reaction, None).await;
    stage.as_ben.post(&path, json!({"text": "So be it", "reply_to": message})).await;
    sees(ben, "So be it").await;
    show_panel(ben).await;
    ben.run("window.sameDocument = true").await;

    // From one's own name in the list to one's own account, by keyboard alone.
    if ana.is_phone() {
        ana.run("document.querySelector('#nav').showPopover()").await;
    }
    ana.until("document.querySelector('.nav-me a').checkVisibility()").await;
    ana.run("document.querySelector('.nav-me a').focus()").await;
    ana.keys(ENTER).await;
    ana.until("location.pathname.endsWith('/account')").await;
    settled(ana).await;
    picture(ana, "account").await;
    fits_if_phone(ana).await;

    // Another name is there at once, wherever Ben sees the old one.
    rewrite(ana, "What others call you", "Ana Ferreira").await;
    ana.press("Save the name").await;
    ana.read("Saved.").await;
    let shell = "document.querySelector('.nav-me [data-person]:not(.avatar)').textContent";
    ana.until(&format!("{shell} === 'Ana Ferreira'")).await;
    ana.until("document.querySelector('.nav-me .avatar').textContent === 'AF'").await;
    for place in [
        "[aria-label=Conversation] .msg-name",
        "[aria-label=Conversation] .quote b",
        "[data-list=people] .grow",
    ] {
        ben.until(&format!("[...document.querySelectorAll({})].some((place) => place.textContent.startsWith('Ana Ferreira'))", json!(place))).await;
    }
    ben.until("document.querySelector('.reaction').dataset.names === 'Ana Ferreira'").await;
    assert!(ben.say::<bool>("window.sameDocument === true").await, "the page was not reloaded");
    assert!(
        !ben.say::<bool>(
            "[...document.querySelectorAll('.msg-name')].some((name) => name.textContent === 'Ana')"
        )
        .await
    );

    mentions_are_noticed(ana, &stage).await;

    // A password is changed by whoever knows it, and written twice.
    let dir = tempfile::tempdir().unwrap();
    let browsers = Browsers::start().await;
    let elsewhere = browsers.open(dir.path(), Screen::Desk).await;
    sign_in(&elsewhere, url, "Ana").await;
    open(&elsewhere, url, &stage.group).await;
    ana.go(&ana.say::<String>("location.href").await).await;
    settled(ana).await;
    let rows = "document.querySelectorAll('.rows .row').length";
    ana.until(&format!("{rows} >= 3")).await;
    for (current, new, again, said) in [
        (PASSWORD, NEW, "another horse", "New password once more: this is not the same."),
        ("not the password", NEW, NEW, "This is not your password."),
        (PASSWORD, PASSWORD, PASSWORD, "This is the password that you have already."),
        (PASSWORD, NEW, NEW, "Your password is changed, and you are signed out everywhere else."),
    ] {
        rewrite(ana, "Current password", current).await;
        rewrite(ana, "New password", new).await;
        rewrite(ana, "New password once more", again).await;
        ana.press("Change the password").await;
        ana.read(said).await;
    }
    picture(ana, "account-changed").await;
    ana.until(&format!("{rows} === 1")).await;
    elsewhere.read("You are signed out.").await;
    elsewhere.close().await;
    let (status, _) = stage.as_ana.get("/api/me").await;
    assert_eq!(status, 401, "a program that had signed in is out too");
    ana.go(&format!("{url}/g/{}", stage.group)).await;
    say(ana, "And I am still here").await;
    sees(ben, "And I am still here").await;

    // Who signs in with it is seen, and signed out in that one place.
    let again = browsers.open(&dir.path().join("again"), Screen::Desk).await;
    again.go(&format!("{url}/sign-in")).await;
    again.write("Mail address", "ana@example.org").await;
    again.write("Password", NEW).await;
    again.press("Sign in").await;
    again.until("!location.pathname.startsWith('/sign-in')").await;
    open(&again, url, &stage.group).await;
    ana.go(&format!("{url}/o/{}/account", stage.org)).await;
    settled(ana).await;
    ana.run("window.before = true").await;
    ana.press("Sign out Chrome on Linux").await;
    ana.until(&format!("window.before === undefined && {rows} === 1")).await;
    again.read("You are signed out.").await;
    again.close().await;

    // Who belongs to no workspace has the page too.
    ana.go(&format!("{url}/account")).await;
    settled(ana).await;
    ana.read("Your workspaces").await;
    picture(ana, "account-alone").await;
    fits_if_phone(ana).await;
    // The refusals that were met are in the log, and nothing else.
    let errors = ana.errors().await;
    assert!(errors.iter().all(|error| error.contains("422")), "{errors:?}");
    stage.close().await;
}

/// Who asked for it is told of a mention while they are elsewhere, once; nobody else is.
async fn mentions_are_noticed(ana: &Page, stage: &Stage) {
    // The browser's own notices cannot be seen from here: what is asked of it is.
    ana.run("window.told = []; window.Notification = class { static permission = 'granted'; static requestPermission = async () => 'granted'; constructor(title, more) { told.push(`${title}: ${more.body}`); } }; document.hasFocus = () => false")
        .await;
    let path = format!("/api/groups/{}/messages", stage.group);
    let mention = json!({"text": "Are you there?", "mentions": [stage.as_ana.user_id]});
    let unread = format!("document.querySelector('[data-group=\"{}\"] .mention')", stage.group);
    stage.as_ben.post(&path, mention.clone()).await;
    ana.until(&unread).await;
    let switch = "document.querySelector('convene-notices input')";
    ana.run(&format!("{switch}.click()")).await;
    ana.until(&format!("{switch}.checked && localStorage.getItem('convene.notices')")).await;
    stage.as_ben.post(&path, mention).await;
    ana.until("told.length").await;
    let told: Vec<String> = ana.say("told").await;
    assert_eq!(told, ["Launch week: You were mentioned."]);
}

async fn settled(page: &Page) {
    page.until("document.readyState === 'complete' && customElements.get('convene-form')").await;
}

async fn fits_if_phone(page: &Page) {
    if page.is_phone() {
        fits(page).await;
    }
}

/// Writes something else into a field.
async fn rewrite(page: &Page, label: &str, text: &str) {
    let empty = format!(
        "[...document.querySelectorAll('label')].find((label) => label.textContent.trim() === {}).control.value = ''",
        json!(label)
    );
    page.run(&empty).await;
    page.write(label, text).await;
}
