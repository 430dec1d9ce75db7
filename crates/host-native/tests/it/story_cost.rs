//! What agents cost, from the price that somebody writes into the settings to the run, the group and the
//! workspace that tell it; what is not known is told as that.

use convene_testing::{browser::Page, model_server::Script};
use serde_json::json;

use crate::{
    story_agents::{NEWEST, Play, reads, stands},
    story_stage::{ESCAPE, LIVE, choose, fits, open, picture, say},
};

/// Runs whose model has no price yet, at most: that is known within seconds.
const MOST_UNKNOWN: u32 = 50;

/// A run that reads so many tokens in two calls of the model, one of which uses a tool.
fn reads_tokens(play: &Play, tokens: [u64; 2], says: &str) {
    let call = Script::call("calculator", &json!({"expression": "6*7"}));
    for (tokens, answer) in tokens.into_iter().zip([call, Script::Say(says.to_owned())]) {
        let answer = Box::new(answer);
        play.models.next("m", Script::Metered { input_tokens: Some(tokens), answer });
    }
}

/// Waits until the newest reply is there, and says what its fold tells of tokens and cost.
async fn spent(page: &Page, says: &str) -> String {
    stands(page, "done", "done").await;
    reads(page, says).await;
    page.say(&format!("{NEWEST}.querySelector('.calls > summary').lastElementChild.innerText"))
        .await
}

#[tokio::test]
async fn browser_a_price_is_given_and_runs_groups_and_the_workspace_tell_their_cost() {
    let play = Play::set_with(&[], async |_| json!({"builtin_tools": ["calculator"]})).await;
    let [ana, ben] = play.people();
    let (url, org) = (&play.stage.node.url, &play.stage.org);

    // Without a price nobody knows what it costs, which is not nothing.
    reads_tokens(&play, [300, 100], "It is 42.");
    say(ana, "@Aria 6*7?").await;
    for page in [ana, ben] {
        let spent = spent(page, "It is 42.").await;
        assert!(spent.ends_with(" tokens, cost unknown"), "{spent}");
    }
    ana.until("document.querySelector('#used').innerText.endsWith(' tokens, cost unknown')").await;

    // What is no price is said at once, and nothing is saved of it.
    let settings = format!("{url}/o/{org}/settings");
    ana.go(&format!("{settings}/providers")).await;
    ana.until("customElements.get('convene-prices')").await;
    ana.run("document.querySelector('details.fold').open = true").await;
    ana.press("Add a price").await;
    ana.keys("m").await;
    ana.write("Tokens read", "3,5 dollars").await;
    ana.write("Tokens written", "0").await;
    ana.read("A price is a number of dollars from 0 to 10,000").await;
    ana.press("Save").await;
    ana.until("document.activeElement.dataset.part === 'input'").await;
    let provider = format!("/api/orgs/{org}/providers");
    let (_, providers) = play.stage.as_ana.get(&provider).await;
    assert_eq!(providers[0]["prices"], json!({}));
    ana.run("document.activeElement.select()").await;
    ana.keys("3,5").await;
    ana.until("!document.querySelector('.price [aria-invalid]')").await;
    ana.press("Save").await;
    ana.until("document.readyState === 'complete' && !document.querySelector('.price [aria-invalid]') && document.querySelector('.price [data-part=input]')?.defaultValue === '3.5'").await;
    let (_, providers) = play.stage.as_ana.get(&provider).await;
    assert_eq!(providers[0]["prices"], json!({"m": {"input": 3_500_000, "output": 0}}));

    // From then on each run tells it: 1,200 tokens at 3.50 dollars a million. The Agents Worker may
    // hold the model without its price for some seconds: such a run's cost is not known either.
    open(ana, url, &play.group).await;
    let mut unknown = 1;
    let says = loop {
        let says = format!("It is still 42, {unknown}.");
        reads_tokens(&play, [1_000, 200], &says);
        say(ana, &format!("@Aria and {unknown} * 42?")).await;
        let told = spent(ana, &says).await;
        if told.ends_with(" tokens, $0.0042") {
            break says;
        }
        assert!(told.ends_with(" tokens, cost unknown") && unknown < MOST_UNKNOWN, "{told}");
        unknown += 1;
    };
    for page in [ana, ben] {
        for reloaded in [false, true] {
            if reloaded {
                page.go(&page.say::<String>("location.href").await).await;
                page.until(LIVE).await;
            }
            let told = spent(page, &says).await;
            assert!(told.ends_with(" tokens, $0.0042"), "{told}");
        }
        choose(page, &says, "How it came about").await;
        page.read(" tokens, $0.0042.").await;
        page.keys(ESCAPE).await;
        page.until("!document.querySelector('dialog[open]')").await;
        // The first run's cost is not known, so the group's is more than that.
        let runs = format!("This month: {} runs, ", unknown + 1);
        page.until(&format!("document.querySelector('#used').textContent.startsWith('{runs}')"))
            .await;
        page.until(
            "document.querySelector('#used').textContent.endsWith(' tokens, at least $0.0042')",
        )
        .await;
    }
    fits(ben).await;

    ana.go(&format!("{settings}/usage")).await;
    let counted = match unknown {
        1 => "1 run or summary".to_owned(),
        more => format!("{more} runs or summaries"),
    };
    ana.read(&format!("at least $0.0042 ({counted} of unknown cost)")).await;
    let row = "[...document.querySelectorAll('.rows .row')].find((row) => row.innerText.startsWith('Gauges'))";
    ana.until(&format!("{row}.querySelector('.figures').innerText.includes('at least $0.0042')"))
        .await;
    play.stage.close().await;
}

#[tokio::test]
async fn browser_people_learn_that_a_budget_is_used_up_and_what_can_be_done() {
    let play = Play::set_with(&[], async |_| json!({})).await;
    let [ana, ben] = play.people();
    play.stage.limit(&["monthly_tokens=1"]).await;
    let used_up = "the workspace's budget for this month is used up. It begins anew with the next month, and an operator can raise it.";
    say(ana, "@Aria when is high water?").await;
    for page in [ana, ben] {
        stands(page, "failed", &format!("not made: {used_up}")).await;
    }
    // For a moment nothing is even begun, and each message says so quietly.
    say(ben, "@Aria and tomorrow?").await;
    for page in [ana, ben] {
        page.read("Aria does not answer. Why?").await;
        page.run("document.querySelector('.why').open = true").await;
        page.read(used_up.split_once(". ").unwrap().1).await;
        picture(page, "budget").await;
    }
    fits(ben).await;
    // People go on among themselves, and the history has the same words.
    say(ana, "Then we look it up").await;
    for page in [ana, ben] {
        page.go(&page.say::<String>("location.href").await).await;
        page.until(LIVE).await;
        stands(page, "failed", &format!("not made: {used_up}")).await;
        choose(page, "@Aria and tomorrow?", "Who answers, and why").await;
        page.read(used_up.split_once(". ").unwrap().1).await;
        page.keys(ESCAPE).await;
    }
    assert_eq!(play.models.requests().len(), 0, "no model was asked");
    play.stage.close().await;
}

#[tokio::test]
async fn browser_a_reply_without_tools_tells_what_it_took() {
    let play = Play::set_with(&[], async |_| json!({})).await;
    let [ana, ben] = play.people();
    let answer = Box::new(Script::Say("At noon.".to_owned()));
    play.models.next("m", Script::Metered { input_tokens: Some(1_000), answer });
    say(ana, "@Aria when is high water?").await;
    let told = format!("{NEWEST}.querySelector('convene-run.told .run-spent')");
    for page in [ana, ben] {
        stands(page, "done", "done").await;
        reads(page, "At noon.").await;
        for reloaded in [false, true] {
            if reloaded {
                page.go(&page.say::<String>("location.href").await).await;
                page.until(LIVE).await;
            }
            page.until(&format!("{told}?.checkVisibility({{ opacityProperty: true }})")).await;
            let spent: String = page.say(&format!("{told}.innerText")).await;
            assert!(spent.ends_with(" tokens, cost unknown"), "{spent}");
        }
        picture(page, "spent").await;
    }
    fits(ben).await;
    play.stage.close().await;
}
