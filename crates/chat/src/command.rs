//! What can be written behind a `/` in the composer.

use convene_model::tools::ApprovalDecision;

/// A command of the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlashCommand {
    /// Edits the chosen message, or one's own last; with a text at once, else in the composer.
    Edit(String),
    /// Answers the chosen message, or the last one of somebody else.
    Reply(String),
    /// Puts an emoji on the chosen message or the last one; takes it off when it is one's own.
    React(String),
    /// Takes the chosen message back, or one's own last.
    Delete,
    /// Pins the chosen message, or the last one.
    Pin(bool),
    /// Looks for messages.
    Search(String),
    /// Stops the agents that are at work.
    Stop,
    /// Permits what an agent asks for, or refuses it.
    Decide(ApprovalDecision),
    /// Says why agents answer the chosen message, or the last one, or do not.
    Why,
    /// Lets the agent answer that a bound kept from it.
    Continue,
    /// Tries again what failed last.
    Retry,
    /// Who is here.
    Who,
    /// Goes to another group.
    Group(String),
    /// Says what there is.
    Help,
    /// Ends.
    Quit,
}

/// Every command with what it takes and does, in the order of the help.
pub(crate) const COMMANDS: &[(&str, &str, &str)] = &[
    ("/reply", "[text]", "answer the chosen message, or the last one"),
    ("/edit", "[text]", "reword the chosen message, or your last one"),
    ("/react", "emoji", "put an emoji on it, or take yours off: 👍, :tada:"),
    ("/delete", "", "take it back"),
    ("/pin", "", "pin it to the group (/unpin takes it off)"),
    ("/search", "words", "find messages; \"a phrase\", begin*"),
    ("/stop", "", "stop the agents that are writing"),
    ("/approve", "", "allow what an agent asks for (/deny refuses it)"),
    ("/why", "", "why agents answer it, or do not"),
    ("/continue", "", "let an agent answer that a bound stopped"),
    ("/retry", "", "try again what failed last"),
    ("/who", "", "who is here"),
    ("/group", "[title]", "go to another group"),
    ("/help", "", "this page"),
    ("/quit", "", "leave"),
];

/// Reads a line that begins with `/`; `None` for a text that is no command, a sentence for one that
/// is not understood. `//` writes a text that begins with a `/`.
pub(crate) fn parse(text: &str) -> Option<Result<SlashCommand, String>> {
    let rest = text.strip_prefix('/')?;
    let (name, argument) = match rest.split_once(char::is_whitespace) {
        Some((name, argument)) => (name, argument.trim()),
        None => (rest.trim_end(), ""),
    };
    // A path or a date is a text, not a command.
    if name.is_empty() || !name.chars().all(char::is_alphabetic) {
        return None;
    }
    let argument = argument.to_owned();
    Some(Ok(match name {
        "edit" | "e" => SlashCommand::Edit(argument),
        "reply" | "r" => SlashCommand::Reply(argument),
        "react" if argument.is_empty() => return Some(Err("Which emoji? /react 👍".to_owned())),
        "react" => match emoji(&argument) {
            Some(emoji) => SlashCommand::React(emoji),
            None => return Some(Err(format!("{argument} is not an emoji that I know."))),
        },
        "delete" => SlashCommand::Delete,
        "pin" => SlashCommand::Pin(true),
        "unpin" => SlashCommand::Pin(false),
        "search" | "s" if argument.is_empty() => {
            return Some(Err("What for? /search words".to_owned()));
        }
        "search" | "s" => SlashCommand::Search(argument),
        "stop" => SlashCommand::Stop,
        "approve" | "allow" => SlashCommand::Decide(ApprovalDecision::Approve),
        "deny" | "refuse" => SlashCommand::Decide(ApprovalDecision::Deny),
        "why" => SlashCommand::Why,
        "continue" => SlashCommand::Continue,
        "retry" => SlashCommand::Retry,
        "who" => SlashCommand::Who,
        "group" | "g" => SlashCommand::Group(argument),
        "help" => SlashCommand::Help,
        "quit" | "q" => SlashCommand::Quit,
        name => return Some(Err(format!("There is no /{name}; /help says what there is."))),
    }))
}

/// An emoji as it is, or by one of its usual names. What is no emoji in the end the group refuses.
fn emoji(text: &str) -> Option<String> {
    let name = text.trim_matches(':');
    let known = match name {
        "+1" | "thumbsup" | "yes" => "👍",
        "-1" | "thumbsdown" | "no" => "👎",
        "heart" => "❤️",
        "tada" => "🎉",
        "smile" => "😄",
        "joy" => "😂",
        "thinking" => "🤔",
        "eyes" => "👀",
        "rocket" => "🚀",
        "check" | "done" => "✅",
        "fire" => "🔥",
        "pray" | "thanks" => "🙏",
        _ => text,
    };
    (!known.is_ascii()).then(|| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_help_is_understood() {
        for (name, takes, _) in COMMANDS {
            let line = if takes.is_empty() { (*name).to_owned() } else { format!("{name} 👍") };
            assert!(parse(&line).unwrap().is_ok(), "{line}");
        }
    }

    #[test]
    fn commands_take_their_argument_and_texts_stay_texts() {
        let command = |text: &str| parse(text).unwrap().unwrap();
        assert_eq!(command("/edit  a new\ntext "), SlashCommand::Edit("a new\ntext".to_owned()));
        assert_eq!(command("/react :tada:"), SlashCommand::React("🎉".to_owned()));
        assert_eq!(command("/react 👍"), SlashCommand::React("👍".to_owned()));
        assert_eq!(command("/deny"), SlashCommand::Decide(ApprovalDecision::Deny));
        assert_eq!(parse("and/or"), None);
        assert_eq!(parse("/etc/hosts"), None);
        assert_eq!(parse("// a comment"), None);
        assert!(parse("/dance").unwrap().unwrap_err().contains("/dance"));
        assert!(parse("/react lol").unwrap().is_err());
        assert!(parse("/search ").unwrap().is_err());
    }
}
