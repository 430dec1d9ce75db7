//! What people see of a run: its states, the tools that it uses, what it asks leave for, how it ends and
//! what can be done about that. The events are told to the page as the group would tell them, so that
//! each state stays for as long as it is looked at.

use convene_testing::browser::{Page, Screen};
use serde_json::{Value, json};

use crate::story_stage::{ENTER, ESCAPE, Stage, fits, say};

/// Lets the test tell the page of events and see what the page asks of the group.
const PREPARE: &str = "
    window.asked = [];
    import(document.querySelector('script[src*=\"js/group.js\"]').src.replace('group.js', 'room.js')).then(({ room }) => {
        let seq = room.seq + 1000;
        room.ask = (frame) => (asked.push(frame), window.refusal ? Promise.reject(new Error(window.refusal)) : Promise.resolve({}));
        window.happens = (kind, event) => room.tell('event', { type: 'event', kind, seq: seq++, at: Date.now(), ...event });
        window.grows = (delta) => room.tell('delta', { type: 'delta', ...delta });
        window.room = room;
    });
";
/// The element of the run that is looked at.
const RUN: &str =
    "[...document.querySelectorAll('[aria-label=Conversation] article.agent')].at(-1)";

/// A page that has a group open, and the group's one agent.
struct Looking<'a> {
    page: &'a Page,
    agent: String,
    me: String,
}

impl<'a> Looking<'a> {
    async fn at(page: &'a Page) -> Self {
        page.run(PREPARE).await;
        page.until("window.room").await;
        let agent = page.say("room.agents[0].agent_id").await;
        let me = page.say("room.me.id").await;
        Self { page, agent, me }
    }

    async fn happens(&self, kind: &str, mut event: Value) {
        if ["run.started", "run.finished", "approval.requested"].contains(&kind) {
            event["agent_id"] = self.agent.clone().into();
        }
        self.page.run(&format!("happens({}, {event})", json!(kind))).await;
    }

    /// A run that was woken and has begun.
    async fn begins(&self, run: &str) {
        let candidate = json!({"agent_id": self.agent, "outcome": "accepted", "reason": "mention", "run_id": run});
        self.happens("trigger.decided", json!({"message_id": "t", "candidates": [candidate]}))
            .await;
        self.stands("queued", "queued").await;
        self.happens("run.started", json!({"run_id": run, "attempt": 1, "trigger": "t"})).await;
        self.stands("thinking", "thinking…").await;
    }

    /// Waits for the state line to say so.
    async fn stands(&self, state: &str, words: &str) {
        let line = format!("{RUN}?.querySelector('convene-run')");
        let shown = format!(
            "{line}?.getAttribute('state') === {} && {line}.querySelector('.run-text').innerText.trim() === {}",
            json!(state),
            json!(words)
        );
        self.page.until(&shown).await;
    }

    async fn asked(&self) -> Vec<Value> {
        let asked = self.page.say("asked").await;
        self.page.run("asked.length = 0").await;
        asked
    }

    /// What the fold below the run says.
    async fn folded(&self) -> String {
        let fold = format!("{RUN}.querySelector('.calls summary')");
        self.page.say(&format!("{fold}?.innerText.replace(/\\s+/g, ' ').trim() ?? ''")).await
    }
}

fn asks(id: &str, run: &str, call: &str, who: Value, initiator: &str) -> Value {
    // More digits than a number of the script has: they are shown as they are.
    let arguments = r#"{"url":"https://gauges.example.org/v1/stations/husum/restart","ids":[12345678901234567890]}"#;
    json!({
        "approval_id": id, "run_id": run, "call_id": call, "tool": "http_request", "arguments": arguments,
        "hash": "h", "who": who, "initiator": initiator, "expires_at": 32_503_680_000_000_u64,
    })
}

#[tokio::test]
async fn browser_a_run_says_what_it_does_asks_and_is_stopped_or_tried_again() {
    let stage = Stage::set(Screen::Desk, Screen::Phone).await;
    say(&stage.ana, "The gauge in Husum is silent").await;
    for page in [&stage.ana, &stage.ben] {
        let run = Looking::at(page).await;
        uses_tools(&run).await;
        asks_for_leave(&run).await;
        several_have_to_agree(&run).await;
        fails_and_is_tried_again(&run).await;
        is_suppressed(&run).await;
        if page.is_phone() {
            fits(page).await;
        }
    }
    stage.close().await;
}

async fn uses_tools(run: &Looking<'_>) {
    run.begins("r1").await;
    let call = json!({"run_id": "r1", "attempt": 1, "call_id": "c1", "tool": "search_history", "arguments": "{\"query\":\"husum\"}"});
    run.happens("tool.started", call).await;
    run.stands("using", "using search_history…").await;
    assert_eq!(run.folded().await, "1 call of a tool");
    run.happens("tool.finished", json!({"run_id": "r1", "attempt": 1, "call_id": "c1", "status": "ok", "summary": "3 messages"})).await;
    run.stands("thinking", "thinking…").await;
    let call = json!({"run_id": "r1", "attempt": 1, "call_id": "c2", "tool": "http_request", "arguments": "{}"});
    run.happens("tool.started", call).await;
    run.happens("tool.finished", json!({"run_id": "r1", "attempt": 1, "call_id": "c2", "status": "timeout", "summary": "No answer within 10 s."})).await;
    run.page.run("grows({run_id: 'r1', attempt: 1, offset: 0, text: 'It answers nothing.'})").await;
    run.stands("writing", "writing…").await;
    run.page.press("Stop").await;
    assert_eq!(run.asked().await, [json!({"type": "cancel", "run_id": "r1"})]);
    let author = json!({"kind": "agent", "id": run.agent});
    run.happens("message.posted", json!({"message_id": "m1", "author": author, "run_id": "r1", "root": "t", "hop": 1, "nth": 9, "text": "It answers nothing."})).await;
    let usage = json!({"input_tokens": 1100, "output_tokens": 104});
    run.happens("run.finished", json!({"run_id": "r1", "attempt": 1, "trigger": "t", "status": "completed", "message_id": "m1", "usage": usage})).await;
    run.stands("done", "done").await;
    assert_eq!(
        run.folded().await,
        "Used search_history, http_request: 1 of 2 without success 1,204 tokens, cost unknown"
    );
    run.page.run(&format!("{RUN}.querySelector('.calls summary').click()")).await;
    run.page.read("{\"query\":\"husum\"}").await;
    run.page.read("No answer within 10 s.").await;
    run.page.read("took too long").await;
}

async fn asks_for_leave(run: &Looking<'_>) {
    run.begins("r2").await;
    let calls = json!([{"call_id": "c3", "tool": "http_request", "arguments": "{}", "hash": "h"}]);
    run.happens(
        "tool.requested",
        json!({"run_id": "r2", "attempt": 1, "said": "I restart it.", "calls": calls}),
    )
    .await;
    run.happens(
        "approval.requested",
        asks("a1", "r2", "c3", json!({"kind": "initiator"}), &run.me),
    )
    .await;
    run.stands("waiting", "waiting for approval").await;
    run.page.until("document.querySelector('#announce').textContent.includes('Guide asks to use http_request')").await;
    run.page.read("  12345678901234567890").await;
    run.page.read("For you to decide.").await;
    // The keyboard is enough.
    run.page.run("[...document.querySelectorAll('convene-approval button')].find((button) => button.innerText === 'Allow').focus()").await;
    run.page.keys(ENTER).await;
    let decided = json!({"type": "approve", "approval_id": "a1", "decision": "approve"});
    assert_eq!(run.asked().await, [decided]);
    run.happens(
        "approval.resolved",
        json!({"approval_id": "a1", "run_id": "r2", "decision": "approve", "user_id": run.me}),
    )
    .await;
    run.page.until("!document.querySelector('convene-approval')").await;
    assert!(
        run.page.say::<bool>(&format!("{RUN}.contains(document.activeElement)")).await,
        "the focus is not lost"
    );
    run.stands("queued", "queued").await;
    run.happens("run.started", json!({"run_id": "r2", "attempt": 2, "trigger": "t"})).await;
    run.happens("tool.started", json!({"run_id": "r2", "attempt": 2, "call_id": "c3", "tool": "http_request", "arguments": "{}"})).await;
    run.stands("using", "using http_request…").await;
    run.page
        .until(&format!("{RUN}.querySelector('.msg-body').innerText.trim() === 'I restart it.'"))
        .await;
    run.page.run(&format!("{RUN}.querySelector('.calls summary').click()")).await;
    let name: String = run.page.say("room.me.name").await;
    run.page.read(&format!("allowed by {name}, under way")).await;
    run.happens(
        "run.finished",
        json!({"run_id": "r2", "attempt": 2, "trigger": "t", "status": "cancelled"}),
    )
    .await;
    run.stands("stopped", "stopped").await;
}

async fn several_have_to_agree(run: &Looking<'_>) {
    run.begins("r3").await;
    let who = json!({"kind": "n_of_m", "n": 2, "users": ["u1", "u2"]});
    run.happens("approval.requested", asks("a2", "r3", "c4", who, "u1")).await;
    run.page.read("0 of 2 have allowed it").await;
    let buttons = "document.querySelectorAll('convene-approval button').length";
    assert_eq!(run.page.say::<u64>(buttons).await, 0, "it is for others to decide");
    run.happens(
        "approval.voted",
        json!({"approval_id": "a2", "run_id": "r3", "user_id": "u1", "missing": 1}),
    )
    .await;
    run.page.read("1 of 2 have allowed it").await;
    run.happens("approval.expired", json!({"approval_id": "a2", "run_id": "r3"})).await;
    run.page.until("!document.querySelector('convene-approval')").await;
    // A refusal is said where it was met.
    let admins = json!({"kind": "role", "role": "member"});
    run.happens("approval.requested", asks("a3", "r3", "c5", admins, "u1")).await;
    run.page.run("window.refusal = 'Somebody else has decided already.'").await;
    run.page.press("Refuse").await;
    run.page.read("Somebody else has decided already.").await;
    run.page.run("window.refusal = ''").await;
    let denied = json!({"type": "approve", "approval_id": "a3", "decision": "deny"});
    assert_eq!(run.asked().await, [denied]);
    run.happens(
        "run.finished",
        json!({"run_id": "r3", "attempt": 1, "trigger": "t", "status": "interrupted"}),
    )
    .await;
    run.stands("interrupted", "interrupted by a restart").await;
    run.page.until("!document.querySelector('convene-approval')").await;
}

async fn fails_and_is_tried_again(run: &Looking<'_>) {
    run.begins("r4").await;
    let failed = json!({"run_id": "r4", "attempt": 1, "trigger": "t", "status": "failed", "detail": "The provider did not answer in time."});
    run.happens("run.finished", failed).await;
    run.stands("failed", "failed because the provider did not answer in time.").await;
    run.page.run(&format!("{RUN}.querySelector('.again').click()")).await;
    run.page.until("asked.length").await;
    assert_eq!(run.asked().await, [json!({"type": "retry", "run_id": "r4"})]);
    run.page.until(&format!("!{RUN}.querySelector('.again')")).await;
}

async fn is_suppressed(run: &Looking<'_>) {
    let message: String = run
        .page
        .say("document.querySelector('[aria-label=Conversation] article').id.slice(2)")
        .await;
    let candidate = json!({"agent_id": run.agent, "outcome": "suppressed", "reason": "max_rounds"});
    run.happens("trigger.decided", json!({"message_id": message, "candidates": [candidate]})).await;
    run.page.press("Guide does not answer. Why?").await;
    run.page.read("as often as they may without a person").await;
    run.page.press("Let it answer").await;
    let allowed = json!({"type": "continue", "message_id": message, "agent_id": run.agent});
    assert_eq!(run.asked().await, [allowed]);
    // The whole account comes from the group.
    let ran = json!({"run_id": "r4", "status": "failed", "attempt": 2, "detail": "The provider did not answer in time.",
        "usage": {"input_tokens": 1000, "output_tokens": 1}, "started_at": 1_800_000_000_000_u64, "finished_at": 1_800_000_003_000_u64});
    let agents = json!([
        {"agent_id": run.agent, "name": "Guide", "outcome": "suppressed", "reason": "max_rounds"},
        {"agent_id": "a9", "name": "Scout", "outcome": "accepted", "reason": "mention", "run": ran},
        {"agent_id": "a8", "name": "Clerk", "outcome": "not_mentioned"},
    ]);
    let answer = json!({"message_id": message, "agents": agents}).to_string();
    let stub = format!(
        "window.fetch = (path) => Promise.resolve(new Response({}, {{status: path.endsWith('/why') ? 200 : 500}}))",
        json!(answer)
    );
    run.page.run(&format!("window.before = window.fetch; {stub}")).await;
    run.page.press("More about it").await;
    for words in [
        "It was mentioned.",
        "Failed because the provider did not answer in time",
        "after 3.0 s in attempt 2; 1,001 tokens, cost unknown.",
        "It was not mentioned.",
    ] {
        run.page.read(words).await;
    }
    run.page.keys(ESCAPE).await;
    run.page.until("!document.querySelector('dialog[open]')").await;
    run.page.run("window.fetch = window.before").await;
    run.happens(
        "trigger.decided",
        json!({"message_id": message, "by": "u1", "candidates": [
        {"agent_id": run.agent, "outcome": "accepted", "reason": "continue", "run_id": "r5"}]}),
    )
    .await;
    run.page.until("!document.querySelector('.why')").await;
    run.happens(
        "run.finished",
        json!({"run_id": "r5", "attempt": 1, "trigger": message, "status": "completed"}),
    )
    .await;
}
