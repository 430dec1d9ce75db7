//! What becomes of what an agent asks leave for, as two people see it: a tool of a real MCP server that
//! is allowed, a question that nobody answers in time, and a run that fails and is tried again by keys.

use std::{net::SocketAddr, path::Path, time::Duration};

use convene_testing::{
    browser::{Page, free_port},
    client::PATIENCE,
    model_server::Script,
    process::clock_in_hand,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    story_agents::{CARDS, NEWEST, Play, reads, stands},
    story_stage::{ENTER, LIVE, fits, say, sees},
};

/// A day and a little: longer than anybody is waited for.
const MORE_THAN_A_DAY: u32 = 24 * 60 * 60 + 60;

/// What the fold below the newest run says, spaces as one; it is opened.
async fn unfold(page: &Page) -> String {
    let fold = format!("{NEWEST}.querySelector('.calls')");
    page.until(&fold).await;
    page.run(&format!("{fold}.open = true")).await;
    page.say(&format!("{fold}.innerText.replace(/\\s+/g, ' ').trim()")).await
}

/// The server of the examples, on the official SDK, and where it is.
async fn notes() -> (Child, String) {
    let python = std::env::var("CONVENE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mcp_server.py");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(python);
    command.arg(script).arg(address.port().to_string()).kill_on_drop(true);
    let mut process = command.spawn().expect("python runs: use `cargo xtask test`");
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            assert!(process.try_wait().unwrap().is_none(), "it ended: use `cargo xtask test`");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, listening).await.expect("the server listens");
    (process, format!("http://{address}/mcp"))
}

#[tokio::test]
async fn browser_a_tool_of_an_mcp_server_is_allowed_and_what_came_of_it_is_shown_to_both() {
    let (_server, url) = notes().await;
    let play = Play::set_with(&[], async |play| {
        let server = json!({"name": "notes", "config": {"url": url}});
        let server = play.make("mcp-servers", "server_id", server).await;
        json!({"mcp_servers": [{"server_id": server}]})
    })
    .await;
    let [ana, ben] = play.people();
    let note = json!({"text": "high water at noon"});
    play.models.next("m", Script::call("notes__write", &note));
    play.models.next("m", Script::call("notes__count", &json!({})));
    play.models.next("m", Script::Say("It is noted.".to_owned()));
    say(ana, "@Aria note that, please").await;
    for page in [ana, ben] {
        stands(page, "waiting", "waiting for approval").await;
        page.read("Aria asks to use notes__write").await;
        page.read("\"text\":\"high water at noon\"").await;
    }
    fits(ben).await;
    ana.press("Allow").await;
    for page in [ana, ben] {
        stands(page, "done", "done").await;
        reads(page, "It is noted.").await;
        page.until(&format!("{CARDS} === 0")).await;
    }
    // What the server said is there for both, also after a reload, and it was asked once.
    for page in [ana, ben] {
        for reloaded in [false, true] {
            if reloaded {
                page.go(&page.say::<String>("location.href").await).await;
                page.until(LIVE).await;
            }
            let used = unfold(page).await;
            for words in [
                "Used notes__write, notes__count",
                "allowed by Ana, done",
                "noted: high water at noon",
                "1 notes",
            ] {
                assert!(used.contains(words), "{words} is not in: {used}");
            }
        }
        let wide = "document.documentElement.scrollWidth > innerWidth";
        assert!(!page.say::<bool>(wide).await);
    }
    play.stage.close().await;
}

#[tokio::test]
async fn browser_a_question_that_nobody_answers_in_time_closes_before_those_who_look_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, env) = clock_in_hand(&dir.path().join("clock"));
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let play = Play::set_with(&env, async |play| {
        let tool = json!({"name": "restart", "config": {
            "description": "Restarts a gauge.", "base_url": format!("{}/echo", play.service.url()),
            "methods": ["POST"], "path": "/{station}",
            "parameters": {"type": "object", "properties": {"station": {"type": "string"}}},
        }});
        json!({"http_tools": [play.make("http-tools", "tool_id", tool).await]})
    })
    .await;
    play.wants_to_restart("").await;
    let [ana, ben] = play.people();
    for page in [ana, ben] {
        page.run("window.sameDocument = true").await;
    }
    // Ana has the button under her finger when the time is over.
    ana.run("[...document.querySelectorAll('convene-approval button')].find((button) => button.innerText === 'Allow').focus()").await;
    clock.put_forward(MORE_THAN_A_DAY);
    say(ben, "Is somebody looking after that?").await;
    let why = "failed because nobody decided in time about what the agent wanted to do.";
    for page in [ana, ben] {
        page.until(&format!("{CARDS} === 0")).await;
        ends(page, why).await;
        sees(page, "Is somebody looking after that?").await;
        assert!(page.say::<bool>("window.sameDocument === true").await);
    }
    let kept = "document.activeElement.closest('[aria-label=Conversation]') !== null";
    assert!(ana.say::<bool>(kept).await, "the focus stays in the conversation");

    // The same for whoever comes later, and nothing was done.
    for page in [ana, ben] {
        page.go(&page.say::<String>("location.href").await).await;
        page.until(LIVE).await;
        ends(page, why).await;
        assert_eq!(page.say::<u64>(CARDS).await, 0);
        let used = unfold(page).await;
        assert!(used.contains("nobody decided in time"), "{used}");
    }
    fits(ben).await;
    assert_eq!(play.service.requests().len(), 0);
    play.stage.close().await;
}

/// Waits until the only run has ended so, with the way to try it again.
async fn ends(page: &Page, sentence: &str) {
    let line = "document.querySelector('convene-run[state=failed]')";
    let says =
        format!("{line}?.querySelector('.run-text').innerText.trim() === {}", json!(sentence));
    page.until(&says).await;
    page.until(&format!("{line}.querySelector('.again')")).await;
}

#[tokio::test]
async fn browser_a_run_that_fails_says_why_and_is_tried_again_by_keys_alone() {
    let play = Play::set_with(&[], async |_| json!({})).await;
    let [ana, ben] = play.people();
    play.models.next("m", refused());
    say(ana, "@Aria when is high water?").await;
    for page in [ana, ben] {
        page.until("document.querySelector('convene-run[state=failed] .again')").await;
        let why: String = page.say(&format!("{NEWEST}.querySelector('.run-text').innerText")).await;
        assert!(why.starts_with("failed because ") && why.contains("key"), "{why}");
    }
    fits(ben).await;

    // From the field to write in, back to the button above it.
    play.models.next("m", Script::Say("At noon.".to_owned()));
    ana.until("document.activeElement.matches('#composer-text')").await;
    let presses = "window.presses = 0; addEventListener('keydown', () => window.presses++, true)";
    ana.run(presses).await;
    until_focused(ana, "document.activeElement.matches('.again')").await;
    assert!(ana.say::<u64>("window.presses").await <= 10, "it is near");
    let seen = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    assert!(ana.say::<bool>(seen).await, "the focus is visible");
    ana.keys(ENTER).await;
    for page in [ana, ben] {
        stands(page, "done", "done").await;
        reads(page, "At noon.").await;
        // What failed stays in sight, without a second chance.
        page.until("document.querySelector('convene-run[state=failed]')").await;
    }
    assert!(!ana.say::<bool>("!!document.querySelector('.again')").await);
    let kept = "document.activeElement.closest('[aria-label=Conversation]') !== null";
    assert!(ana.say::<bool>(kept).await, "the focus stays in the conversation");
    play.stage.close().await;
}

/// Goes back from control to control until the focus is where it should be.
async fn until_focused(page: &Page, there: &str) {
    const BACK: &str = "\u{e008}\u{e004}\u{e000}";
    for _ in 0..20 {
        page.keys(BACK).await;
        if page.say::<bool>(there).await {
            return;
        }
    }
    let focus: Value = page.say("document.activeElement.outerHTML").await;
    panic!("never there; the focus is on {focus}");
}

/// A service that does not take the key.
fn refused() -> Script {
    let body = json!({"error": {"message": "Incorrect API key", "type": "invalid_request_error"}});
    Script::Status { status: 401, headers: Vec::new(), body: body.to_string() }
}
