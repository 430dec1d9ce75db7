//! Nothing jumps: while a reply is written and posts arrive, what stands on the page moves only as the
//! conversation grows, and whoever reads further up stays exactly where they are.

use std::time::Duration;

use convene_testing::{browser::Page, model_server::Script};
use serde_json::{Value, json};

use crate::{
    story_agents::{Play, stands},
    story_stage::{LIVE, open, sees},
};

/// Begins to watch where things are, frame by frame: how far a message in sight strays from its place, and
/// each thing that the browser saw moving.
const WATCH: &str = "
    const timeline = document.querySelector('convene-timeline');
    const edge = timeline.getBoundingClientRect();
    const anchor = [...timeline.querySelectorAll('article')].find((one) => one.getBoundingClientRect().top > edge.top + 60);
    const from = anchor.getBoundingClientRect().top;
    const seen = window.seen = { drift: 0, moved: [], frames: 0 };
    const name = (node) => { const el = node?.nodeType === 1 ? node : node?.parentElement; return el ? `${el.tagName}.${el.className} in ${el.closest('article')?.id ?? el.parentElement?.tagName}` : 'gone'; };
    seen.watcher = new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) for (const { node, previousRect: a, currentRect: b } of entry.sources) {
            const inside = Boolean((node?.nodeType === 1 ? node : node?.parentElement)?.closest('.timeline-inner'));
            seen.moved.push({ what: name(node), inside, x: b.x - a.x, y: b.y - a.y, value: entry.value });
        }
    });
    seen.watcher.observe({ type: 'layout-shift' });
    const look = () => {
        seen.frames += 1;
        const away = anchor.getBoundingClientRect().top - from;
        if (Math.abs(away) > Math.abs(seen.drift)) seen.drift = away;
        if (window.seen === seen) requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
";

/// What was seen since the watch began, which ends.
async fn seen(page: &Page) -> (f64, Vec<Value>) {
    // Two frames later the browser has told of the last one.
    page.run("const end = window.seen.frames + 3; window.over = () => window.seen.frames >= end")
        .await;
    page.until("window.over()").await;
    let (drift, moved, frames): (f64, Vec<Value>, u64) = page
        .say("((seen) => (window.seen = null, seen.watcher.disconnect(), [seen.drift, seen.moved, seen.frames]))(window.seen)")
        .await;
    assert!(frames > 3, "there was something to see: {frames}");
    (drift, moved)
}

/// A reply that takes its time: headings, a list, code, words that wrap.
fn slow_reply() -> Script {
    let text = "The tides of the week, as the gauge in Husum has them, with what I would do about each of them if it were mine to decide.\n\n1. Monday: high water at nine, which leaves time to *load* before noon\n2. Tuesday: high water at ten\n\n```\nhusum 09:12 3.4\nhusum 21:40 3.2\n```\n\nAnd a `last` word, which is **long** enough to be broken into lines on a phone as well as at a desk.";
    let chunks = text.split_inclusive(' ').map(str::to_owned).collect();
    Script::Slow { chunks, pause: Duration::from_millis(25) }
}

#[tokio::test]
async fn browser_nothing_jumps_while_a_reply_is_written_and_posts_arrive() {
    let play = Play::set_with(&[], async |_| json!({})).await;
    let url = &play.stage.node.url;
    let (mut socket, _) = play.stage.as_ben.attach(&play.group, None).await;
    for index in 0..150 {
        let text =
            format!("line {index}, {}", "which says a little more than that ".repeat(index % 4));
        socket.post(&format!("h{index}"), &text).await;
        socket.until(|frame| frame["type"] == "ok").await;
    }
    let path = format!("/api/groups/{}/messages", play.group);
    let post = async |text: &str| {
        play.stage.as_ana.post(&path, json!({"text": text})).await;
    };
    for page in play.people() {
        open(page, url, &play.group).await;
    }
    // Whoever is at the end follows: what stands above moves up as the conversation grows, never back
    // and never to a side, and nothing around it moves at all.
    for page in play.people() {
        // A group opens where the reader has stopped reading.
        page.until("!document.querySelector('convene-timeline').loading").await;
        page.run("document.querySelector('convene-timeline').scrollTop = 0").await;
        page.until("document.querySelector('convene-timeline').atEnd").await;
        page.run(WATCH).await;
    }
    play.models.next("m", slow_reply());
    post("@Aria what of the tides?").await;
    for page in play.people() {
        stands(page, "done", "done").await;
    }
    post("Thank you").await;
    for page in play.people() {
        sees(page, "Thank you").await;
        let (_, moved) = seen(page).await;
        let wrong = |one: &&Value| {
            one["inside"] != true || one["x"] != 0.0 || one["y"].as_f64().is_none_or(|y| y > 0.5)
        };
        let wrong: Vec<_> = moved.iter().filter(wrong).collect();
        assert!(wrong.is_empty(), "phone: {}: {wrong:#?}", page.is_phone());
    }

    // Whoever reads further up stays where they are.
    for page in play.people() {
        page.run("document.querySelector('convene-timeline').scrollTop = -900").await;
        page.until("!document.querySelector('#pill').hidden && !document.querySelector('convene-timeline').loading").await;
        page.run(WATCH).await;
    }
    play.models.next("m", slow_reply());
    post("@Aria once more?").await;
    for text in ["One", "Two, which is longer", "Three"] {
        post(text).await;
    }
    for page in play.people() {
        stands(page, "done", "done").await;
    }
    post("That is all").await;
    for page in play.people() {
        page.until("document.querySelector('#pill').textContent.includes('new message')").await;
        sees(page, "That is all").await;
        let (drift, moved) = seen(page).await;
        assert!(drift.abs() < 1.0, "phone: {}: away by {drift}", page.is_phone());
        assert_eq!(moved, Vec::<Value>::new(), "phone: {}", page.is_phone());
    }

    // And what is loaded above moves nothing.
    for page in play.people() {
        page.go(&format!("{url}/g/{}", play.group)).await;
        page.until(LIVE).await;
        let loaded = "document.querySelectorAll('[aria-label=Conversation] article').length";
        let before: u64 = page.say(loaded).await;
        let up = "{ const timeline = document.querySelector('convene-timeline'); timeline.scrollTop = -(timeline.scrollHeight - timeline.clientHeight - 300); }";
        page.run(&format!("{up} {WATCH}")).await;
        page.until(&format!("{loaded} > {before}")).await;
        page.until("!document.querySelector('convene-timeline').loading").await;
        let (drift, moved) = seen(page).await;
        assert!(drift.abs() < 1.0, "phone: {}: away by {drift}", page.is_phone());
        assert_eq!(moved, Vec::<Value>::new(), "phone: {}", page.is_phone());
    }
    play.stage.close().await;
}
