//! How two people keep up with each other: what is unread, muted and begun, who is here and who
//! writes, links to messages, search, and a history longer than any page.

use convene_testing::{
    browser::{Page, Screen},
    client::Person,
};

use crate::story_stage::{
    ENTER, ESCAPE, LIVE, Stage, TEXTS, choose, open, say, sees, show_panel, sign_in,
};

#[tokio::test]
async fn browser_unread_counts_follow_the_reader_at_a_desk() {
    unread(Screen::Desk).await;
}

#[tokio::test]
async fn browser_unread_counts_follow_the_reader_on_a_phone() {
    unread(Screen::Phone).await;
}

/// The link to a group in the list, as an expression.
fn link(group: &str) -> String {
    format!("document.querySelector('nav [data-group=\"{group}\"]')")
}

/// Waits until the list says so much of a group: unread, mentions.
async fn counts(page: &Page, group: &str, unread: u32, mentions: u32) {
    let figure = |kind: &str| {
        format!(
            "(parseInt({}.querySelector('.{kind} .sr-only')?.textContent.slice(2)) || 0)",
            link(group)
        )
    };
    page.until(&format!(
        "{} === {unread} && {} === {mentions}",
        figure("count"),
        figure("mention")
    ))
    .await;
}

async fn unread(screen: Screen) {
    let stage = Stage::set(screen, Screen::Desk).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let tides = stage.as_ana.create_group(&stage.org, "Tides").await;
    say(ben, "Good morning").await;
    sees(ana, "Good morning").await;

    // Elsewhere, Ana is told how much she has missed; a group that was made meanwhile is in the list.
    open(ana, url, &tides).await;
    ben.until(&format!("{}?.innerText.includes('Tides')", link(&tides))).await;
    counts(ana, &stage.group, 0, 0).await;
    for text in ["the first of three", "@Ana the second", "the third"] {
        say(ben, text).await;
    }
    counts(ana, &stage.group, 3, 1).await;
    ana.until("document.title.startsWith('(3) Tides')").await;
    assert!(ana.say::<bool>("document.querySelector('[popovertarget=nav]').getAttribute('aria-label') === 'Workspace and groups, 3 unread'").await);

    // The line stands before the first of them, until the end was seen.
    open(ana, url, &stage.group).await;
    let after_line = "document.querySelector('.unread').nextElementSibling.querySelector('.msg-body').innerText.trim()";
    ana.until(&format!("{after_line} === 'the first of three'")).await;
    counts(ana, &stage.group, 0, 0).await;
    ana.until("document.title.startsWith('Launch week')").await;
    open(ana, url, &tides).await;
    counts(ana, &stage.group, 0, 0).await;
    open(ana, url, &stage.group).await;
    assert!(!ana.say::<bool>("!!document.querySelector('.unread')").await);

    // What was put aside is unread again, also elsewhere.
    choose(ana, "@Ana the second", "Mark unread from here").await;
    ana.until(&format!("{after_line} === '@Ana the second'")).await;
    open(ana, url, &tides).await;
    counts(ana, &stage.group, 2, 1).await;

    // A muted group says only who is mentioned.
    open(ana, url, &stage.group).await;
    show_panel(ana).await;
    ana.run("document.querySelector('#mute').click()").await;
    ana.until(&format!("{}.matches('.muted')", link(&stage.group))).await;
    open(ana, url, &stage.group).await;
    assert!(ana.say::<bool>("document.querySelector('#mute').checked").await, "it was kept");
    open(ana, url, &tides).await;
    ana.until(&format!("{}.matches('.muted')", link(&stage.group))).await;
    say(ben, "quietly").await;
    say(ben, "@Ana still loud").await;
    counts(ana, &stage.group, 0, 1).await;
    ana.until("document.title.startsWith('(1) Tides')").await;
    stage.close().await;
}

#[tokio::test]
async fn browser_people_see_who_is_here_and_who_is_writing_and_drafts_wait() {
    let stage = Stage::set(Screen::Desk, Screen::Phone).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let tides = stage.as_ana.create_group(&stage.org, "Tides").await;
    for page in [ana, ben] {
        show_panel(page).await;
        let here = "[...document.querySelectorAll('[data-list=people] li .presence.here')].map((word) => word.innerText)";
        page.until(&format!("{here}.join() === 'here,here'")).await;
        page.until("document.querySelector('#people-count').innerText === '2 of 2 here'").await;
    }
    ben.run("document.querySelector('#panel').hidePopover()").await;

    ben.write("Message", "half a thou").await;
    ana.until("document.querySelector('convene-typing').innerText === 'Ben is writing…'").await;
    assert_eq!(ben.say::<String>("document.querySelector('convene-typing').innerText").await, "");
    ben.write("Message", "ght").await;
    ben.press("Send").await;
    sees(ana, "half a thought").await;
    ana.until("document.querySelector('convene-typing').innerText === ''").await;
    ana.write("Message", "and its other half").await;
    ben.until("document.querySelector('convene-typing').innerText === 'Ana is writing…'").await;
    ana.press("Send").await;
    sees(ben, "and its other half").await;

    // What was begun waits where it was begun, and the list says where.
    let mark = format!("document.querySelector('nav [data-group=\"{}\"] .draft')", stage.group);
    for page in [ana, ben] {
        page.write("Message", "to be continued").await;
        open(page, url, &tides).await;
        page.until(&mark).await;
        open(page, url, &stage.group).await;
        assert_eq!(page.value("Message").await, "to be continued");
        assert!(!page.say::<bool>(&format!("!!{mark}")).await, "it stands in the field");
        page.press("Send").await;
        page.until("!document.querySelector('#composer-text').value").await;
        open(page, url, &tides).await;
        page.until("document.title.includes('Tides')").await;
        assert!(!page.say::<bool>(&format!("!!{mark}")).await);
    }
    // Who leaves is away a little later.
    open(ana, url, &stage.group).await;
    ana.until("document.querySelector('#people-count').innerText === '1 of 2 here'").await;
    ana.until("[...document.querySelectorAll('[data-list=people] .presence')].map((word) => word.innerText).join() === 'here,away'").await;

    // Who joins the workspace meanwhile is in the list once they are here, and can be mentioned.
    let cleo = Person::sign_up(url, "Cleo").await;
    stage.as_ana.invite(&stage.org, &cleo).await;
    ben.forget_cookies().await;
    sign_in(ben, url, "Cleo").await;
    open(ben, url, &stage.group).await;
    ana.until("document.querySelector('[data-list=people]').innerText.includes('Cleo')").await;
    ana.write("Message", "@Cle").await;
    ana.until("document.querySelector('#completions')?.innerText.includes('Cleo')").await;
    ana.keys(ESCAPE).await;

    // Keys lead to another group and show themselves.
    ana.run("document.activeElement.blur()").await;
    ana.keys("?").await;
    ana.until("document.querySelector('convene-keys dialog').open").await;
    ana.keys(ESCAPE).await;
    ana.until("!document.querySelector('dialog[open]')").await;
    ana.keys("\u{e009}k\u{e000}").await;
    ana.until("document.activeElement.getAttribute('aria-label') === 'Go to a group'").await;
    ana.keys(&format!("tid{ENTER}")).await;
    ana.until(&format!("location.pathname === '/g/{tides}'")).await;
    stage.close().await;
}

#[tokio::test]
async fn browser_a_long_history_is_linked_searched_and_walked_at_a_desk_and_on_a_phone() {
    let stage = Stage::set(Screen::Desk, Screen::Phone).await;
    let (ana, ben, url) = (&stage.ana, &stage.ben, &stage.node.url);
    let (mut socket, _) = stage.as_ben.attach(&stage.group, None).await;
    for index in 0..900 {
        let text = match index {
            40 => "The **harbour** master called".to_owned(),
            860 => "The harbour is closed".to_owned(),
            _ => format!("line {index}"),
        };
        socket.post(&format!("h{index}"), &text).await;
        socket.until(|frame| frame["type"] == "ok").await;
    }
    for page in [ana, ben] {
        sees(page, "line 899").await;
        found_by_search(page).await;
        // The link to a message opens the group there.
        page.go(&format!("{url}/g/{}/m/h40", stage.group)).await;
        page.until(LIVE).await;
        page.until(
            "document.activeElement.id === 'm-h40' && document.activeElement.matches('.found')",
        )
        .await;
        let place = "document.activeElement.getBoundingClientRect()";
        assert!(
            page.say::<bool>(&format!("{place}.top > 0 && {place}.bottom < innerHeight")).await
        );
        assert!(!page.say::<bool>(&format!("{TEXTS}.includes('line 899')")).await);
        walk_down(page).await;
    }
    // A link can be copied, and one that leads nowhere says so.
    for page in [ana, ben] {
        page.run("navigator.clipboard.writeText = async (text) => { window.copied = text }").await;
        choose(page, "line 899", "Copy link").await;
        page.until(&format!("window.copied === '{url}/g/{}/m/h899'", stage.group)).await;
    }
    ana.go(&format!("{url}/g/{}/m/nowhere", stage.group)).await;
    ana.until(LIVE).await;
    ana.read("There is no such message.").await;
    sees(ana, "line 899").await;
    // The refusal is what was asked for.
    let errors = ana.errors().await;
    assert!(errors.iter().all(|error| error.contains("404")), "{errors:?}");
    stage.close().await;
}

async fn found_by_search(page: &Page) {
    page.run("window.sameDocument = true; document.activeElement.blur()").await;
    if page.is_phone() {
        page.press("Search").await;
    } else {
        page.keys("/").await;
    }
    let label = "Words to search for in this group";
    page.write(label, "harbour").await;
    let hits = "[...document.querySelectorAll('.hit')].map((hit) => hit.querySelector('.snippet').innerText)";
    page.until(&format!("{hits}.length === 2")).await;
    let marked: Vec<String> =
        page.say("[...document.querySelectorAll('.hit mark')].map((mark) => mark.innerText)").await;
    assert_eq!(marked, ["harbour", "harbour"]);
    page.until("document.querySelector('#search [role=status]').innerText === '2 messages'").await;
    page.write(label, " nonsense").await;
    page.read("No message has all of these words.").await;
    page.run("document.querySelector('#search-words').value = ''").await;
    page.write(label, "master").await;
    page.until(&format!("{hits}.length === 1")).await;
    page.run("document.querySelector('.hit').click()").await;
    page.until("document.activeElement.id === 'm-h40'").await;
    // In the same document, and without walking there: nothing of what lies between was loaded.
    assert!(page.say::<bool>("window.sameDocument").await);
    assert!(!page.say::<bool>(&format!("{TEXTS}.includes('line 600')")).await);
    if page.is_phone() {
        page.until("!document.querySelector('#search').checkVisibility()").await;
    } else {
        page.press("Close").await;
    }
    page.press("Jump to latest").await;
    sees(page, "line 899").await;
}

/// From a message far up to the newest, page by page, with never more nodes than there may be.
async fn walk_down(page: &Page) {
    page.run(
        "window.most = 0; window.walk = setInterval(() => {
        window.most = Math.max(window.most, document.querySelectorAll('.msg').length);
        document.querySelector('convene-timeline').scrollTop = 0;
    }, 30)",
    )
    .await;
    page.until(&format!("{TEXTS}.includes('line 899')")).await;
    page.run("clearInterval(window.walk)").await;
    let (most, there): (u64, Vec<String>) = page.say(&format!("[window.most, {TEXTS}]")).await;
    assert!((500..=600).contains(&most), "{most}");
    let expected: Vec<String> = (900 - there.len()..900)
        .map(|index| match index {
            860 => "The harbour is closed".to_owned(),
            _ => format!("line {index}"),
        })
        .collect();
    assert_eq!(there, expected, "without gaps and in order");
    page.until("document.querySelector('#pill').hidden").await;
}
