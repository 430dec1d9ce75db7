//! What the demo model says: a table of rules, the first that fits answers.
//!
//! Pure and deterministic. It never pretends to know anything beyond the conversation, and never
//! repeats a mention, so that it wakes nobody unless it is asked to.

use std::collections::BTreeMap;

use super::{
    ask::{Ask, quiet, quote},
    samples,
};
use crate::{
    arithmetic,
    conversation::{Conversation, Speaker},
};

/// The furthest it counts.
const MAX_COUNT: usize = 100;
/// Messages in a summary when no number is given, and at most.
const SUMMARY: usize = 10;
const MAX_SUMMARY: usize = 30;
/// Characters of a text that it repeats.
const MAX_ECHO_CHARS: usize = 2_000;

const HONESTY: &str = "*(I am the built-in demo model: I follow simple rules and know nothing \
                       beyond this conversation. An owner can give me a real model in the \
                       settings.)*";

const ABILITIES: &str = "\
- **summarise** the last messages, or **repeat** one
- tell **who is here** and **how many** messages there are
- do small sums: `12 * (3 + 4)`, `17% of 300`
- **count** to a number
- show **code**, a **table** or other **Markdown**
- tell a **story**, long enough to try the stop button
- **ask** another agent for you
- remember **what you asked** before";

type Rule = fn(&Ask<'_>) -> Option<String>;

const RULES: [Rule; 14] = [
    help,
    summary,
    repeat,
    remember,
    how_many,
    count,
    roster,
    delegate,
    sum,
    table,
    code,
    markdown,
    story,
    pleasantries,
];

/// The whole answer to the conversation's trigger.
pub(super) fn answer(conversation: &Conversation) -> String {
    let Some(question) = conversation.question() else {
        return HONESTY.to_owned();
    };
    let asker = match &question.speaker {
        Speaker::Person(name) => name,
        Speaker::Agent(name) => return to_agent(name, &question.text),
        Speaker::Me => return "I have nothing to add.".to_owned(),
    };
    let ask = Ask::new(conversation, asker, &question.text);
    let answer = RULES.iter().find_map(|rule| rule(&ask)).unwrap_or_else(|| fallback(&ask));
    if ask.own_turns() == 0 && !answer.contains("demo model") {
        format!("{answer}\n\n{HONESTY}")
    } else {
        answer
    }
}

/// An agent is answered without being mentioned, so that two of them do not go on for ever.
fn to_agent(name: &str, text: &str) -> String {
    format!(
        "Thank you, {name}. I read: “{}”. As a demo model I cannot judge it; I leave that to the \
         people here.",
        quote(text)
    )
}

fn help(ask: &Ask<'_>) -> Option<String> {
    let asked = ask.has(&["help", "abilities", "commands"])
        || ask.says(&["what can you", "who are you", "what are you", "are you a", "are you an"]);
    asked.then(|| {
        format!(
            "I am {}, running on the built-in demo model, {}: no language model is behind me and \
             no key is needed. From this conversation alone I can\n\n{ABILITIES}\n\nWhat shall \
             it be?",
            ask.conversation.me, ask.asker
        )
    })
}

fn summary(ask: &Ask<'_>) -> Option<String> {
    let asked = ask.has(&["summarise", "summarize", "summary", "recap", "tldr"])
        || ask.says(&["tl dr", "what happened", "what did i miss", "catch me up"]);
    if !asked {
        return None;
    }
    let wanted = ask.numbers().first().copied().unwrap_or(SUMMARY).clamp(1, MAX_SUMMARY);
    let earlier = ask.earlier();
    let shown = &earlier[earlier.len().saturating_sub(wanted)..];
    if shown.is_empty() {
        return Some("Nothing was said before that I can see.".to_owned());
    }
    let mut speakers: Vec<&str> = Vec::new();
    for line in shown {
        let name = ask.speaker(line);
        if !speakers.contains(&name) {
            speakers.push(name);
        }
    }
    let items: Vec<_> = shown
        .iter()
        .map(|line| format!("- **{}**: {}", ask.speaker(line), quote(&line.text)))
        .collect();
    Some(format!(
        "The last {} by {}, in their own words:\n\n{}",
        plural(shown.len(), "message"),
        join(&speakers),
        items.join("\n")
    ))
}

fn repeat(ask: &Ask<'_>) -> Option<String> {
    for start in ["repeat after me", "say", "echo"] {
        if let Some(rest) = ask.lower.strip_prefix(start)
            && rest.starts_with([' ', ':', ',', '\n'])
        {
            // Lower case may be longer or shorter than the text; then there is nothing to cut at.
            let text = ask.text.get(start.len()..)?;
            let text = text.trim_start_matches([' ', ':', ',', '\n']).trim();
            if !text.is_empty() {
                return Some(echo(text));
            }
        }
    }
    if !ask.has(&["repeat"]) {
        return None;
    }
    Some(match ask.earlier().iter().rev().find(|line| line.speaker != Speaker::Me) {
        Some(line) => format!("{} said:\n\n> {}", ask.speaker(line), quote(&line.text)),
        None => "There is nothing yet that I could repeat.".to_owned(),
    })
}

fn echo(text: &str) -> String {
    let text: String = text.chars().take(MAX_ECHO_CHARS).collect();
    text.split(' ').map(quiet).collect::<Vec<_>>().join(" ")
}

fn remember(ask: &Ask<'_>) -> Option<String> {
    let asked = ask.has(&["remember"])
        || ask.says(&["did i ask", "i asked", "did i say", "asked before", "asked you"]);
    if !asked {
        return None;
    }
    let before = ask.asked_before();
    if before.is_empty() {
        return Some(format!(
            "As far as I can see this is the first thing that you ask me, {}.",
            ask.asker
        ));
    }
    let items: Vec<_> = before.iter().take(SUMMARY).map(|text| format!("- “{text}”")).collect();
    Some(format!("Yes, {}. You asked me before, latest first:\n\n{}", ask.asker, items.join("\n")))
}

fn how_many(ask: &Ask<'_>) -> Option<String> {
    if !ask.says(&["how many", "count the", "number of"]) {
        return None;
    }
    let lines = ask.earlier();
    if ask.has(&["people", "persons", "members", "agents", "participants"]) {
        return Some(roster_text(ask.conversation));
    }
    if ask.has(&["words"]) {
        let words: usize = lines.iter().map(|line| line.text.split_whitespace().count()).sum();
        return Some(format!("I count {} in what I can see.", plural(words, "word")));
    }
    ask.has(&["messages", "message"]).then(|| {
        format!(
            "I can see {} before yours, {} of them mine.",
            plural(lines.len(), "message"),
            ask.own_turns()
        )
    })
}

fn count(ask: &Ask<'_>) -> Option<String> {
    if !ask.has(&["count"]) {
        return None;
    }
    let (from, to) = match ask.numbers()[..] {
        [] => return None,
        [to] => (1, to),
        [from, to, ..] => (from, to),
    };
    let far = to.abs_diff(from) >= MAX_COUNT;
    let up = from <= to;
    let last = match (far, up) {
        (false, _) => to,
        (true, true) => from.saturating_add(MAX_COUNT - 1),
        (true, false) => from - (MAX_COUNT - 1),
    };
    let numbers: Vec<String> = if up {
        (from..=last).map(|n| n.to_string()).collect()
    } else {
        (last..=from).rev().map(|n| n.to_string()).collect()
    };
    let end = if far {
        format!(" … and so on to {to}; that is far enough for me.")
    } else {
        ".".into()
    };
    Some(format!("{}{end}", numbers.join(", ")))
}

fn roster(ask: &Ask<'_>) -> Option<String> {
    let asked = ask.has(&["roster", "members", "participants"])
        || ask.says(&["who is here", "who's here", "who is in", "who's in", "who is there"])
        || ask.says(&["which agents", "what agents", "list the people", "list the agents"]);
    asked.then(|| roster_text(ask.conversation))
}

fn roster_text(conversation: &Conversation) -> String {
    let Conversation { me, people, agents, .. } = conversation;
    let people: Vec<_> = people.iter().map(|name| format!("- {name}")).collect();
    let mut all = vec![format!("- {me} (that is me)")];
    all.extend(agents.iter().map(|name| format!("- {name}")));
    format!(
        "{} here:\n\n{}\n\nand {}:\n\n{}",
        if people.len() == 1 {
            "1 person is".to_owned()
        } else {
            format!("{} people are", people.len())
        },
        people.join("\n"),
        plural(all.len(), "agent"),
        all.join("\n")
    )
}

fn delegate(ask: &Ask<'_>) -> Option<String> {
    if !ask.has(&["ask", "tell", "ping", "call"]) {
        return None;
    }
    let agent = ask.conversation.agents.iter().find(|name| {
        let name = name.to_lowercase();
        ["ask", "tell", "ping", "call"].iter().any(|verb| {
            ask.lower.contains(&format!("{verb} {name}"))
                || ask.lower.contains(&format!("{verb} @{name}"))
        })
    })?;
    Some(format!("@{agent}, {} would like to hear from you: “{}”", ask.asker, quote(&ask.text)))
}

fn sum(ask: &Ask<'_>) -> Option<String> {
    let (expression, value) = arithmetic::find(&ask.text)?;
    // "We meet 2-4 pm" is no question about two less four.
    let asked = ask.has(&["what", "what's", "much", "calculate", "compute", "solve", "sum"])
        || expression.chars().count() * 2 >= ask.text.chars().count();
    if !asked {
        return None;
    }
    Some(match value {
        Some(value) => format!("`{expression}` = **{}**", arithmetic::show(value)),
        None => format!("`{expression}` has no value that I could write down."),
    })
}

fn table(ask: &Ask<'_>) -> Option<String> {
    if !ask.has(&["table", "statistics", "stats"]) {
        return None;
    }
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for line in ask.earlier() {
        let row = rows.entry(ask.speaker(line)).or_default();
        row.0 += 1;
        row.1 += line.text.split_whitespace().count();
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, (messages, words))| {
            format!("| {} | {messages} | {words} |", name.replace('|', "/"))
        })
        .collect();
    Some(format!(
        "Who said how much, as far as I can see:\n\n| who | messages | words |\n|---|--:|--:|\n{}",
        rows.join("\n")
    ))
}

fn code(ask: &Ask<'_>) -> Option<String> {
    const LANGUAGES: [&str; 7] =
        ["rust", "javascript", "js", "typescript", "bash", "shell", "python"];
    let language = ask.words.iter().find(|word| LANGUAGES.contains(&word.as_str()));
    if language.is_none() && !ask.has(&["code", "function", "script", "snippet", "program"]) {
        return None;
    }
    let language = language.map_or("python", String::as_str);
    Some(format!(
        "I cannot write programs, but I know one by heart:\n\n{}",
        samples::code(language, ask.asker)
    ))
}

fn markdown(ask: &Ask<'_>) -> Option<String> {
    ask.has(&["markdown", "formatting", "list", "lists", "bullets"])
        .then(|| samples::MARKDOWN.to_owned())
}

fn story(ask: &Ask<'_>) -> Option<String> {
    (ask.has(&["story", "tale", "essay", "poem"])
        || ask.says(&["something long", "long text", "long answer", "long reply"]))
    .then(|| samples::story(ask.asker, &ask.conversation.me))
}

fn pleasantries(ask: &Ask<'_>) -> Option<String> {
    let short = ask.words.len() <= 5;
    let asker = ask.asker;
    if ask.words.is_empty()
        || short && ask.has(&["hello", "hi", "hey", "hallo", "greetings", "morning", "evening"])
    {
        let before = ask.asked_before();
        return Some(match before.first() {
            None => format!(
                "Hello {asker}! I am {}. Ask me for **help** to see what I can do.",
                ask.conversation.me
            ),
            Some(last) => {
                format!("Hello again, {asker}! Last time you asked me “{last}”. What next?")
            }
        });
    }
    if short && ask.has(&["thanks", "thank", "thx", "danke"]) {
        return Some(format!("You are welcome, {asker}."));
    }
    if short && ask.has(&["bye", "goodbye", "night", "ciao"]) {
        return Some(format!("Goodbye, {asker}. I will be here."));
    }
    None
}

/// Nothing fits: say so, refer to what came before, ask back.
fn fallback(ask: &Ask<'_>) -> String {
    let asker = ask.asker;
    let opening = if ask.text.ends_with('?') {
        format!("I cannot answer that, {asker}: I am a demo model and know only this conversation.")
    } else {
        format!("I have read “{}”, {asker}.", quote(&ask.text))
    };
    let before = match ask.asked_before().first() {
        Some(last) => format!(" You asked me before about “{last}”."),
        None => String::new(),
    };
    const NEXT: [&str; 3] = [
        "Shall I **summarise** the last messages?",
        "Would a **story** help, or a sum like `6 * 7`?",
        "Shall I tell **who is here**, or show what I can do (**help**)?",
    ];
    format!("{opening}{before} {}", NEXT[ask.own_turns() % NEXT.len()])
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// "Ana", "Ana and Ben", "Ana, Ben and Cid".
fn join(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
