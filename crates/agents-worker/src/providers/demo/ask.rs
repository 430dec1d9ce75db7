//! What is asked of the demo model: who asks, in which words, after which earlier turns.

use crate::conversation::{Conversation, Line, Speaker};

/// Characters of a quoted message.
pub(super) const QUOTE_CHARS: usize = 120;

/// A person's message to the agent.
pub(super) struct Ask<'a> {
    pub(super) conversation: &'a Conversation,
    /// Who asks.
    pub(super) asker: &'a str,
    /// What, without the agent's mention.
    pub(super) text: String,
    /// The text in lower case.
    pub(super) lower: String,
    /// Its words in lower case, without punctuation.
    pub(super) words: Vec<String>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(conversation: &'a Conversation, asker: &'a str, text: &str) -> Self {
        let text = unaddressed(text, &conversation.me);
        let lower = text.to_lowercase();
        let words = lower
            .split(|c: char| !c.is_alphanumeric() && c != '\'')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        Self { conversation, asker, text, lower, words }
    }

    /// Whether one of `words` occurs.
    pub(super) fn has(&self, words: &[&str]) -> bool {
        self.words.iter().any(|word| words.contains(&word.as_str()))
    }

    /// Whether one of `phrases` occurs.
    pub(super) fn says(&self, phrases: &[&str]) -> bool {
        let sentence = format!(" {} ", self.words.join(" "));
        phrases.iter().any(|phrase| sentence.contains(&format!(" {phrase} ")))
    }

    /// The numbers that occur, in order.
    pub(super) fn numbers(&self) -> Vec<usize> {
        self.words.iter().filter_map(|word| word.parse().ok()).collect()
    }

    /// The messages before the one to be answered.
    pub(super) fn earlier(&self) -> &'a [Line] {
        let Conversation { lines, trigger, .. } = self.conversation;
        lines.get(..*trigger).unwrap_or_default()
    }

    /// How often the agent has spoken before.
    pub(super) fn own_turns(&self) -> usize {
        self.earlier().iter().filter(|line| line.speaker == Speaker::Me).count()
    }

    /// What the asker asked the agent before, latest first.
    pub(super) fn asked_before(&self) -> Vec<String> {
        let me = mention(&self.conversation.me);
        self.earlier()
            .iter()
            .rev()
            .filter(|line| line.speaker == Speaker::Person(self.asker.to_owned()))
            .filter(|line| line.text.to_lowercase().contains(&me))
            .map(|line| quote(&unaddressed(&line.text, &self.conversation.me)))
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// The name under which a line is shown.
    pub(super) fn speaker(&self, line: &'a Line) -> &'a str {
        line.speaker.name().unwrap_or(&self.conversation.me)
    }
}

fn mention(name: &str) -> String {
    format!("@{}", name.to_lowercase())
}

/// The text without mentions of the agent itself.
fn unaddressed(text: &str, me: &str) -> String {
    let mention = mention(me);
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find('@') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // Lower case may have another length; only the same length is taken for the same name.
        match rest.get(..mention.len()) {
            Some(head) if head.to_lowercase() == mention => rest = &rest[mention.len()..],
            Some(_) | None => {
                out.push('@');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out.trim().trim_start_matches([',', ':', ';']).trim().to_owned()
}

/// A text as it may be repeated inside an answer: short, on one line, waking nobody.
pub(super) fn quote(text: &str) -> String {
    let line = text.split_whitespace().map(quiet).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(QUOTE_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

/// A word without the `@` that would make it a mention.
pub(super) fn quiet(word: &str) -> String {
    match word.split_once('@') {
        Some((before, after)) if !before.ends_with(char::is_alphanumeric) => {
            format!("{before}{}", quiet(after))
        }
        Some(_) | None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_mention_is_taken_away_wherever_it_stands() {
        assert_eq!(unaddressed("@Aria, hello", "Aria"), "hello");
        assert_eq!(unaddressed("hello @ARIA", "Aria"), "hello");
        assert_eq!(unaddressed("@Demo agent: hi @Critic a@b.c", "Demo agent"), "hi @Critic a@b.c");
        assert_eq!(unaddressed("@ärger @É", "Aria"), "@ärger @É");
    }

    #[test]
    fn a_quote_is_one_short_line_that_mentions_nobody() {
        assert_eq!(quote("ask\n@Critic  or (@@Ben), a@b.c"), "ask Critic or (Ben), a@b.c");
        assert_eq!(quote(&"é".repeat(QUOTE_CHARS)), "é".repeat(QUOTE_CHARS));
        assert!(quote(&"é".repeat(QUOTE_CHARS + 1)).ends_with('…'));
    }
}
