//! What two people do to messages in front of each other: editing, answering, reacting, pinning and
//! deleting, through a kill of the server and a time without network.

use convene_testing::browser::{Page, Screen};
use serde_json::json;

use crate::story_stage::{
    ENTER, LIVE, Stage, TEXTS, UP, choices, choose, message, say, sees, show_panel, tool,
};

#[tokio::test]
async fn browser_messages_change_before_both_at_a_desk_and_on_a_phone() {
    messages_change(Screen::Desk, Screen::Phone).await;
}

#[tokio::test]
async fn browser_messages_change_before_both_on_a_phone_and_at_a_desk() {
    messages_change(Screen::Phone, Screen::Desk).await;
}

async fn messages_change(ana: Screen, ben: Screen) {
    let stage = Stage::set(ana, ben).await;
    let (ana, ben) = (&stage.ana, &stage.ben);
    edits(ana, ben).await;
    forgets(ana, ben).await;
    answers(ana, ben).await;
    reactions(ana, ben).await;
    pins(ana, ben).await;
    deletions(ana, ben).await;
    stage.close().await;
}

/// The form in which a message is edited in its place.
async fn rewrite(page: &Page, text: &str, save: &str) {
    page.until("document.activeElement.matches('convene-editor textarea')").await;
    page.run("document.activeElement.select()").await;
    page.write("Edit the message", text).await;
    page.press(save).await;
}

async fn edits(ana: &Page, ben: &Page) {
    say(ben, "Tides at nine").await;
    sees(ana, "Tides at nine").await;

    // The arrow in the empty field takes up one's own last message.
    ben.write("Message", UP).await;
    assert_eq!(ben.value("Edit the message").await, "Tides at nine");
    rewrite(ben, "Tides at ten", "Save").await;
    for page in [ana, ben] {
        sees(page, "Tides at ten").await;
        page.until(&format!("{}.querySelector('button.edited')", message("Tides at ten"))).await;
    }
    ben.until("!document.querySelector('convene-editor')").await;
    // Escape leaves everything as it was, and the focus at the message.
    choose(ben, "Tides at ten", "Edit").await;
    ben.write("Edit the message", "Never mind\u{e00c}").await;
    ben.until(&format!("document.activeElement === {}", message("Tides at ten"))).await;

    // What was begun is there after a reload.
    choose(ben, "Tides at ten", "Edit").await;
    ben.write("Edit the message", " or so").await;
    ben.go(&ben.say::<String>("location.href").await).await;
    ben.until(LIVE).await;
    assert_eq!(ben.value("Edit the message").await, "Tides at ten or so");
    ben.press("Cancel").await;
    ben.until("!document.querySelector('convene-editor')").await;

    // Everybody can read what stood there before.
    ana.press("edited").await;
    ana.until(
        "document.querySelector('dialog[open] .versions')?.innerText.includes('Tides at nine')",
    )
    .await;
    ana.press("Close").await;
    let offered = choices(ana, "Tides at ten").await;
    assert!(!offered.contains(&"Edit".to_owned()), "another's words are not edited: {offered:?}");
}

/// Whoever may decides that former versions are not kept; what an edit replaces is gone then.
async fn forgets(ana: &Page, ben: &Page) {
    show_panel(ana).await;
    ana.press("Change the group").await;
    ana.until("document.querySelector('[name=keep]')?.checked").await;
    ana.run("document.querySelector('[name=keep]').click(); window.before = true").await;
    ana.press("Save").await;
    ana.until("window.before === undefined").await;
    ana.until(LIVE).await;
    choose(ben, "Tides at ten", "Edit").await;
    rewrite(ben, "Tides at noon", "Save").await;
    sees(ana, "Tides at noon").await;
    ana.press("edited").await;
    ana.read("This group does not keep former versions.").await;
    ana.press("Close").await;
    choose(ben, "Tides at noon", "Edit").await;
    rewrite(ben, "Tides at ten", "Save").await;
    sees(ana, "Tides at ten").await;
}

async fn answers(ana: &Page, ben: &Page) {
    tool(ana, "Tides at ten", "Reply").await;
    ana.read("Answering Ben").await;
    ana.press("Cancel the reply").await;
    ana.until("document.querySelector('.answering').hidden").await;
    tool(ana, "Tides at ten", "Reply").await;
    ana.until("document.activeElement.matches('#composer-text')").await;
    say(ana, "That is better").await;
    assert!(ana.say::<bool>("document.querySelector('.answering').hidden").await);
    for page in [ana, ben] {
        sees(page, "That is better").await;
        let quote = format!("{}.querySelector('a.quote').innerText", message("That is better"));
        page.until(&format!("/Ben\\s+Tides at ten$/.test({quote})")).await;
    }
    // The quotation leads to what is quoted, without a new page.
    ben.run("window.sameDocument = true; document.querySelector('a.quote').click()").await;
    ben.until(&format!("document.activeElement === {}", message("Tides at ten"))).await;
    assert!(
        ben.say::<bool>("window.sameDocument && document.activeElement.matches('.found')").await
    );
}

/// The pill of an emoji at a message: count, whether it is one's own, who.
async fn shows_pill(page: &Page, text: &str, emoji: &str, count: u32, mine: bool, who: &str) {
    let pill = format!("{}?.querySelector('.reaction[data-emoji=\"{emoji}\"]')", message(text));
    let label = format!("{emoji} {count}: {who}");
    page.until(&format!("{pill}?.getAttribute('aria-label') === {}", json!(label))).await;
    page.until(&format!("{pill}.getAttribute('aria-pressed') === '{mine}'")).await;
}

async fn reactions(ana: &Page, ben: &Page) {
    tool(ben, "That is better", "React").await;
    ben.press("thumbs up").await;
    shows_pill(ana, "That is better", "👍", 1, false, "Ben").await;
    shows_pill(ben, "That is better", "👍", 1, true, "you").await;
    ana.press("👍 1: Ben").await;
    shows_pill(ana, "That is better", "👍", 2, true, "Ben and you").await;
    shows_pill(ben, "That is better", "👍", 2, true, "you and Ana").await;
    ben.press("👍 2: you and Ana").await;
    shows_pill(ben, "That is better", "👍", 1, false, "Ana").await;

    // Any emoji will do, and nothing else; the refusal stands at the message.
    tool(ana, "Tides at ten", "React").await;
    ana.write("Another emoji", &format!("🦀{ENTER}")).await;
    shows_pill(ben, "Tides at ten", "🦀", 1, false, "Ana").await;
    tool(ben, "Tides at ten", "React").await;
    ben.write("Another emoji", &format!("🦀🦀{ENTER}")).await;
    let complaint = format!("{}.querySelector('.complaint[role=alert]')", message("Tides at ten"));
    ben.until(&format!("{complaint}?.innerText.startsWith('A reaction is one emoji')")).await;
    ben.press("Dismiss").await;

    // Who has no keys for them writes what they are called.
    tool(ben, "Tides at ten", "React").await;
    ben.write("Another emoji", &format!("fine print{ENTER}")).await;
    ben.read("No emoji is called that here.").await;
    ben.write("Another emoji", &"\u{e003}".repeat(10)).await;
    ben.write("Another emoji", ":tad").await;
    let offered = "[...document.querySelectorAll('.emoji')].map((one) => one.title).join()";
    ben.until(&format!("{offered} === 'party'")).await;
    ben.write("Another emoji", &format!("a:{ENTER}")).await;
    shows_pill(ana, "Tides at ten", "🎉", 1, false, "Ben").await;
    ben.press("🎉 1: you").await;
    ben.until(&format!("!{}.innerText.includes('🎉')", message("Tides at ten"))).await;
    ben.until("!document.querySelector('.complaint')").await;
}

async fn pins(ana: &Page, ben: &Page) {
    choose(ben, "Tides at ten", "Pin to the group").await;
    for page in [ana, ben] {
        page.until(&format!("{}.querySelector('.pinned')", message("Tides at ten"))).await;
        page.until("document.querySelectorAll('.pins li').length === 1").await;
    }
    show_panel(ana).await;
    ana.run("window.sameDocument = true").await;
    ana.press("BenTides at ten").await;
    ana.until(&format!("document.activeElement === {}", message("Tides at ten"))).await;
    assert!(ana.say::<bool>("window.sameDocument === true").await);
    show_panel(ana).await;
    ana.press("Take off the pins").await;
    for page in [ana, ben] {
        page.until("!document.querySelector('.pinned')").await;
        page.until("document.querySelector('convene-pins').hidden").await;
    }
    if ana.is_phone() {
        ana.run("document.querySelector('#panel').hidePopover()").await;
    }
}

async fn deletions(ana: &Page, ben: &Page) {
    let offered = choices(ben, "That is better").await;
    assert!(
        !offered.contains(&"Delete…".to_owned()),
        "a member deletes only their own: {offered:?}"
    );
    say(ben, "A slip").await;
    choose(ben, "A slip", "Delete…").await;
    ben.press("Cancel").await;
    ben.until("!document.querySelector('dialog[open]')").await;
    sees(ben, "A slip").await;
    choose(ben, "A slip", "Delete…").await;
    ben.press("Delete the message").await;
    for page in [ana, ben] {
        sees(page, "This message was deleted.").await;
        page.until(&format!("!{TEXTS}.includes('A slip')")).await;
    }
    ben.until("!document.querySelector('.msg.deleted convene-tools')").await;
    // Whoever owns the workspace may delete anybody's; its quotation and its reactions go with it.
    choose(ana, "Tides at ten", "Delete…").await;
    ana.press("Delete the message").await;
    for page in [ana, ben] {
        page.until(&format!(
            "{TEXTS}.filter((text) => text === 'This message was deleted.').length === 2"
        ))
        .await;
        page.until(
            "document.querySelector('a.quote').innerText.includes('This message was deleted.')",
        )
        .await;
        page.until("!document.querySelector('[data-emoji=\"🦀\"]')").await;
    }
}

#[tokio::test]
async fn browser_what_happened_while_one_was_away_is_there_afterwards() {
    let mut stage = Stage::set(Screen::Desk, Screen::Phone).await;
    let (ana, ben) = (&stage.ana, &stage.ben);
    for text in ["one", "two", "three"] {
        say(ana, text).await;
    }
    sees(ben, "three").await;
    for page in [ana, ben] {
        page.run("window.sameDocument = true").await;
    }

    // Ben is cut off: what he writes waits in sight, what the others do goes on.
    ben.offline(true).await;
    ben.until("document.querySelector('convene-connection').getAttribute('state') === 'offline'")
        .await;
    ben.write("Message", "from the train").await;
    ben.press("Send").await;
    ben.read("Waiting for the connection").await;
    choose(ana, "one", "Edit").await;
    rewrite(ana, "first", "Save").await;
    sees(ana, "first").await;
    tool(ana, "two", "React").await;
    ana.press("eyes").await;
    shows_pill(ana, "two", "👀", 1, true, "you").await;
    choose(ana, "two", "Pin to the group").await;
    choose(ana, "three", "Delete…").await;
    ana.press("Delete the message").await;
    sees(ana, "This message was deleted.").await;
    assert_eq!(
        ben.say::<Vec<String>>(&format!("{TEXTS}.slice(0, 3)")).await,
        ["one", "two", "three"]
    );
    // A command that cannot be given says so where it was given, and can be given again.
    tool(ben, "one", "React").await;
    ben.press("heart").await;
    ben.until(&format!("{}.querySelector('.complaint')", message("one"))).await;
    ben.offline(false).await;
    ben.until(LIVE).await;
    sees(ben, "first").await;
    sees(ben, "This message was deleted.").await;
    shows_pill(ben, "two", "👀", 1, false, "Ana").await;
    ben.until(&format!("{}.querySelector('.pinned')", message("two"))).await;
    ben.press("Try again").await;
    shows_pill(ana, "first", "❤️", 1, false, "Ben").await;
    for page in [ana, ben] {
        sees(page, "from the train").await;
    }

    // The server dies while Ana edits: her words stay, and go through once it is back.
    ana.write("Message", UP).await;
    stage.node.kill().await;
    for page in [ana, ben] {
        page.until(&format!("!({LIVE})")).await;
    }
    rewrite(ana, "second", "Save").await;
    ana.read("Not saved. The connection is gone.").await;
    stage.node = stage.launch.start().await;
    for page in [ana, ben] {
        page.until(LIVE).await;
    }
    assert_eq!(ana.value("Edit the message").await, "second");
    ana.press("Try again").await;
    for page in [ana, ben] {
        sees(page, "second").await;
        shows_pill(
            page,
            "second",
            "👀",
            1,
            page.is_phone() == ana.is_phone(),
            if page.is_phone() { "Ana" } else { "you" },
        )
        .await;
        assert!(
            page.say::<bool>("window.sameDocument === true").await,
            "the page was not reloaded"
        );
        // The network's own complaints about the time away.
        page.errors().await;
    }
    stage.close().await;
}
