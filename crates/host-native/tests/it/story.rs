//! What people see, in a real browser: from the first sign-up to a reply that streams, through a
//! kill of the server, on a desk and on a phone.

use std::time::Duration;

use convene_testing::{
    browser::{Browsers, Page, Screen, free_port},
    client::{PASSWORD, Person},
    model_server::{ModelServer, Script},
};
use serde_json::{Value, json};

use crate::{
    convene,
    story_stage::{ENTER, LIVE, TEXTS, fits, save, sees, sign_in},
};

/// The words of the agent's message that is in view last.
const REPLY: &str =
    "[...document.querySelectorAll('[aria-label=Conversation] article.agent')].at(-1)";

async fn sign_up(page: &Page, name: &str) {
    page.write("Your name", name).await;
    page.write("Mail address", &format!("{}@example.org", name.to_lowercase())).await;
    page.write("Password", PASSWORD).await;
    page.press("Make the account").await;
}

#[tokio::test]
async fn browser_two_people_meet_talk_to_an_agent_and_go_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let launch = convene(dir.path())
        .listen(format!("127.0.0.1:{}", free_port()))
        .env("CONVENE_AGENTS__DEMO_WORD_PAUSE_MS", "50");
    let node = launch.start().await;
    let browsers = Browsers::start().await;
    let ana = browsers.open(&dir.path().join("ana"), Screen::Desk).await;
    let ben = browsers.open(&dir.path().join("ben"), Screen::Desk).await;

    // Whoever opens the one URL of a new installation is led to an account, a workspace, a group.
    ana.go(&node.url).await;
    sign_up(&ana, "Ana").await;
    ana.write("Name of the workspace", "Harbour Lab").await;
    ana.press("Make the workspace").await;
    ana.press("Settings").await;
    ana.press("Make a link").await;
    let invite = ana.value("Result").await;
    ana.press("New group").await;
    ana.write("Title", "Launch week").await;
    ana.until("document.querySelector('dialog[open] input[name=agent]:checked')").await;
    ana.press("Make the group").await;
    ana.until(LIVE).await;

    // The link leads into the workspace.
    assert!(invite.starts_with(&node.url), "{invite}");
    ben.go(&invite).await;
    ben.read("Join Harbour Lab").await;
    ben.press("Make an account").await;
    sign_up(&ben, "Ben").await;
    ben.until("!location.pathname.startsWith('/sign-up')").await;
    if ben.say::<bool>("location.pathname.startsWith('/invite')").await {
        ben.press("Join as Ben").await;
    }
    ben.press("Launch week").await;
    ben.until(LIVE).await;
    assert_eq!(
        ben.say::<String>("document.querySelector('h1').innerText.trim()").await,
        "Launch week"
    );

    // Each sees the other's words without a reload.
    for page in [&ana, &ben] {
        page.run("window.sameDocument = true").await;
    }
    ana.write("Message", &format!("Good morning, Ben{ENTER}")).await;
    sees(&ben, "Good morning, Ben").await;
    ben.write("Message", &format!("Hello, Ana{ENTER}")).await;
    sees(&ana, "Hello, Ana").await;
    // Whoever joined after the page was opened is asked for by name.
    ana.until("[...document.querySelectorAll('article .msg-name')].map((name) => name.innerText).join() === 'Ana,Ben'").await;

    // A name is completed after @, and the reply grows word by word in front of both.
    for page in [&ana, &ben] {
        page.run(WATCH_REPLIES).await;
    }
    ana.write("Message", "@Gu").await;
    ana.until("document.querySelector('[role=listbox] [role=option][aria-selected=true]')?.innerText.startsWith('Guide')").await;
    ana.write("Message", ENTER).await;
    assert_eq!(ana.value("Message").await, "@Guide ");
    ana.write("Message", &format!("what can you do?{ENTER}")).await;
    for page in [&ana, &ben] {
        page.until(&format!("{REPLY}?.querySelector('convene-run[state=done]')")).await;
        let watched: Value = page.say("window.watched").await;
        let lengths: Vec<u64> = serde_json::from_value(watched["lengths"].clone()).unwrap();
        // The finished Markdown, which comes last, may be shorter than its source.
        let grew = &lengths[..lengths.len() - 1];
        assert!(grew.len() > 5 && grew.is_sorted(), "the text grew by and by: {lengths:?}");
        let states = watched["states"].as_array().unwrap();
        assert!(
            states.contains(&json!("writing")) && states.contains(&json!("done")),
            "{states:?}"
        );
        assert_eq!(watched["stop"], true, "a run in progress can be stopped");
        let stop = format!("!!{REPLY}.querySelector('convene-run button')");
        assert!(!page.say::<bool>(&stop).await, "there is nothing left to stop");
    }
    let before: Vec<String> = ana.say(TEXTS).await;
    assert_eq!((before.len(), &before[2]), (4, &"@Guide what can you do?".to_owned()));
    assert_eq!(ben.say::<Vec<String>>(TEXTS).await, before);
    for page in [&ana, &ben] {
        assert_eq!(page.errors().await, Vec::<String>::new());
    }

    // While the server is away, both pages say so, and what is written waits in sight.
    node.kill().await;
    for page in [&ana, &ben] {
        page.until(&format!("!({LIVE})")).await;
        page.until("document.querySelector('convene-connection').innerText.trim() !== ''").await;
    }
    ana.write("Message", &format!("Is anybody there?{ENTER}")).await;
    ana.until("[...document.querySelectorAll('article')].at(-1).innerText.includes('Waiting for the connection')").await;
    assert_eq!(ana.say::<Vec<String>>(TEXTS).await.len(), 5);
    assert_eq!(ben.say::<Vec<String>>(TEXTS).await, before, "what was read stays readable");

    // Both come back by themselves; nothing is lost, and what waited arrives once.
    let node = launch.start().await;
    for page in [&ana, &ben] {
        page.until(LIVE).await;
        sees(page, "Is anybody there?").await;
        let after: Vec<String> = page.say(TEXTS).await;
        assert_eq!((&after[..4], after.len()), (&before[..], 5));
        assert!(
            page.say::<bool>("window.sameDocument === true").await,
            "the page was not reloaded"
        );
    }
    ben.write("Message", &format!("Yes, I am{ENTER}")).await;
    sees(&ana, "Yes, I am").await;
    let shown: Vec<String> = ana.say(TEXTS).await;
    ana.go(&ana.say::<String>("location.href").await).await;
    ana.until(LIVE).await;
    assert_eq!(ana.say::<Vec<String>>(TEXTS).await, shown, "a reload shows the same");

    // The whole of it once more, as a program sees it.
    let person = Person::sign_in(&node.url, "Ben").await;
    let group: String = ana.say("location.pathname.split('/')[2]").await;
    let texts = person.all_messages(&group).await;
    let waited = texts.iter().filter(|message| message["text"] == "Is anybody there?");
    assert_eq!((waited.count(), texts.len()), (1, 6));
    ana.close().await;
    ben.close().await;
    assert_eq!(node.stop().await, Some(0));
}

/// Notes how long the agent's text is whenever it changes, and how its run stands.
const WATCH_REPLIES: &str = "
    const watched = window.watched = {lengths: [], states: [], stop: false};
    new MutationObserver(() => {
        const reply = [...document.querySelectorAll('[aria-label=Conversation] article.agent')].at(-1);
        const run = reply?.querySelector('convene-run');
        if (!run) return;
        const state = run.getAttribute('state');
        if (watched.states.at(-1) !== state) watched.states.push(state);
        if (state === 'writing') {
            const length = reply.querySelector('.msg-body').innerText.length;
            if (watched.lengths.at(-1) !== length) watched.lengths.push(length);
            watched.stop ||= [...run.querySelectorAll('button')].some((button) => button.innerText === 'Stop');
        }
    }).observe(document.querySelector('[aria-label=Conversation]'), {subtree: true, childList: true, characterData: true, attributes: true});
";

#[tokio::test]
async fn browser_a_phone_has_a_drawer_and_a_composer_and_never_scrolls_sideways() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Harbour Lab").await;
    let group =
        ana.create_group(&org, "A group with a title that no phone has room for in one line").await;
    ana.create_group(&org, "Tides").await;
    let name = json!({"name": "Anastasia Maria von Hohenzollern-Sigmaringen"});
    assert_eq!(ana.send("PATCH", "/api/me", Some(&name)).await.0, 200);
    let (mut socket, _) = ana.attach(&group, None).await;
    let long = "a".repeat(200);
    for (index, text) in [
        format!("A word without an end: {long}"),
        format!("```\nlet line = \"{long}\";\n```"),
        format!(
            "| One | Two | Three | Four |\n| --- | --- | --- | --- |\n| {} | b | c | {} |",
            "wide ".repeat(20),
            "x".repeat(60)
        ),
        format!("https://example.org/{long}"),
    ]
    .iter()
    .enumerate()
    {
        socket.post(&format!("m{index}"), text).await;
        socket.until(|frame| frame["type"] == "ok").await;
    }

    let browsers = Browsers::start().await;
    let page = browsers.open(&dir.path().join("phone"), Screen::Phone).await;
    page.go(&format!("{}/sign-up", node.url)).await;
    fits(&page).await;
    sign_in(&page, &node.url, "Ana").await;
    fits(&page).await;
    for path in [
        "",
        "/settings/members",
        "/settings/agents",
        "/settings/providers",
        "/settings/tokens",
        "/settings/audit",
    ] {
        page.go(&format!("{}/o/{org}{path}", node.url)).await;
        fits(&page).await;
    }

    // The groups are in a drawer, which goes away when one is chosen.
    page.go(&format!("{}/o/{org}", node.url)).await;
    let drawer =
        "document.querySelector('nav[aria-label=\"Workspace and groups\"]').checkVisibility()";
    assert!(!page.say::<bool>(drawer).await);
    page.press("Workspace and groups").await;
    page.until(drawer).await;
    fits(&page).await;
    let edge = |of: &str| format!("document.querySelector('{of}').getBoundingClientRect().right");
    let (out, nav) = (edge("[aria-label=\"Sign out\"]"), edge("#nav"));
    assert!(page.say::<bool>(&format!("{out} <= {nav}")).await, "a long name hides no button");
    page.press("Tides").await;
    page.until(LIVE).await;
    assert!(!page.say::<bool>(drawer).await);
    page.go(&format!("{}/g/{group}", node.url)).await;
    page.until(LIVE).await;
    page.until(&format!("{TEXTS}.length === 4")).await;
    fits(&page).await;
    let line = "document.querySelector('textarea').getBoundingClientRect().height";
    assert!(page.say::<f64>(line).await < 60.0, "a long title takes one line of the field");

    // Enter breaks the line there; the button sends.
    page.write("Message", &format!("@Guide{ENTER}")).await;
    page.write("Message", &format!("what{ENTER}can you do?")).await;
    assert_eq!(page.value("Message").await, "@Guide what\ncan you do?");
    page.press("Send").await;
    page.until(&format!("{REPLY}?.querySelector('convene-run[state=done]')")).await;
    fits(&page).await;
    let field = "document.querySelector('textarea').getBoundingClientRect()";
    assert!(
        page.say::<bool>(&format!(
            "{field}.bottom <= innerHeight && {field}.top > innerHeight / 2"
        ))
        .await
    );

    // Who is here is in another drawer.
    page.press("People and agents").await;
    page.until("document.querySelector('aside').checkVisibility()").await;
    fits(&page).await;
    assert_eq!(page.errors().await, Vec::<String>::new());

    // Without a network the group's name keeps its room, and the field its place.
    page.run("document.querySelector('#panel').hidePopover()").await;
    page.offline(true).await;
    page.until("document.querySelector('convene-connection').getAttribute('state') === 'offline'")
        .await;
    let title = "document.querySelector('.room-head h1').getBoundingClientRect().width";
    assert!(page.say::<f64>(title).await > 200.0);
    page.offline(false).await;
    page.until(LIVE).await;
    page.close().await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn browser_a_conversation_reads_well_in_light_and_dark() {
    let dir = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await.unwrap();
    let node = convene(dir.path()).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1").start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Harbour Lab").await;
    ana.invite(&org, &ben).await;
    let new = json!({"name": "Models", "base_url": models.base_url()});
    let provider = ana.post(&format!("/api/orgs/{org}/providers"), new).await;
    let new = json!({"name": "Scout", "provider_id": provider["provider_id"], "model": "scout", "is_default": true});
    ana.post(&format!("/api/orgs/{org}/agents"), new).await;
    let mut others = Vec::new();
    for title in ["Ideas", "Support rota", "Website"] {
        others.push(ana.create_group(&org, title).await);
    }
    let group = ana.create_group(&org, "Launch week").await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    to_ana
        .post("m1", "Morning! The **tide tables** page goes live on Thursday. What is still open?")
        .await;
    to_ana.until(|frame| frame["type"] == "ok").await;
    to_ben.post("m2", "Only the export. Somebody wants the times as JSON, and I am not sure about the time zone.").await;
    to_ben.until(|frame| frame["type"] == "ok").await;
    models.next("scout", Script::Say(ADVICE.to_owned()));
    to_ben
        .post("m3", "@Scout how would you shape that, and what should we check before Thursday?")
        .await;
    to_ben.event("run.finished").await;
    let messages = format!("/api/groups/{group}/messages");
    let answer = "Then UTC it is. I take the clock change, Ben takes the cache.";
    ana.post(&messages, json!({"message_id": "m4", "text": answer, "reply_to": "m2"})).await;
    for (person, rest) in [
        (&ben, "m4/reactions/%F0%9F%91%8D"),
        (&ana, "m1/pin"),
        (&ben, "m1/reactions/%F0%9F%8C%8A"),
        (&ana, "m1/reactions/%F0%9F%8C%8A"),
    ] {
        let (status, refusal) = person.send("PUT", &format!("{messages}/{rest}"), None).await;
        assert!(status < 300, "{rest}: {refusal}");
    }
    for (group, text) in [(&others[0], "A tide clock?"), (&others[1], "@Ana can you take Friday?")]
    {
        let path = format!("/api/groups/{group}/messages");
        ben.post(
            &path,
            json!({"text": text, "mentions": text.contains("@Ana").then_some([&ana.user_id])}),
        )
        .await;
    }

    let browsers = Browsers::start().await;
    let page = browsers.open(&dir.path().join("desk"), Screen::Desk).await;
    sign_in(&page, &node.url, "Ana").await;
    page.go(&format!("{}/g/{group}", node.url)).await;
    page.until(LIVE).await;
    page.until(&format!("{TEXTS}.length === 5")).await;
    page.until("document.querySelectorAll('nav .count').length === 2").await;
    let kinds = format!(
        "['ol', 'code', 'pre', 'strong', 'table'].filter((kind) => {REPLY}.querySelector(`.msg-body ${{kind}}`))"
    );
    assert_eq!(page.say::<Vec<String>>(&kinds).await, ["ol", "code", "pre", "strong"]);
    assert_eq!(page.say::<u64>("document.querySelectorAll('.msg .mention').length").await, 1);

    page.prefer_dark(false).await;
    let light = colours(&page).await;
    save(&page, "group.png").await;
    page.prefer_dark(true).await;
    let dark = colours(&page).await;
    save(&page, "group-dark.png").await;
    assert!(light.0 > 200 && light.1 < 90, "dark on light: {light:?}");
    assert!(dark.0 < 60 && dark.1 > 180, "light on dark: {dark:?}");

    // Whoever chooses by the switch has it so, whatever the system prefers, also after a reload.
    page.press("Theme: as the system has it").await;
    assert_eq!(colours(&page).await, light);
    page.go(&page.say::<String>("location.href").await).await;
    page.until(LIVE).await;
    assert_eq!(colours(&page).await, light);
    assert_eq!(page.errors().await, Vec::<String>::new());
    page.close().await;
    assert_eq!(node.stop().await, Some(0));
}

const ADVICE: &str = "I would keep one shape for every place:

```json
{ \"place\": \"Husum\", \"at\": \"2026-05-14T09:12Z\", \"metres\": 3.4 }
```

Times in **UTC**, and the place's zone only where a person reads them. Before Thursday:

1. The night of the clock change: there are two times 02:30.
2. Places without a gauge, which should answer `404` rather than an empty list.
3. How long the CDN keeps an old table.";

/// How bright the page and its text are, from 0 to 255.
async fn colours(page: &Page) -> (u64, u64) {
    // Colours may fade into each other for a moment.
    tokio::time::sleep(Duration::from_millis(200)).await;
    page.say(
        "['backgroundColor', 'color'].map((key) => Math.round(getComputedStyle(document.documentElement)[key].match(/\\d+(\\.\\d+)?/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3))",
    )
    .await
}
