//! Finding `@name` in a text.

use convene_model::{ParticipantId, event::GroupAgent, limits::MAX_MENTIONS};

/// Whom a message mentions that does not say so itself; at most [`MAX_MENTIONS`].
pub(crate) fn participants(text: &str, agents: &[GroupAgent]) -> Vec<ParticipantId> {
    mentioned(text, agents)
        .into_iter()
        .filter_map(|agent| ParticipantId::new(&agent.agent_id).ok())
        .take(MAX_MENTIONS)
        .collect()
}

/// The agents that `text` mentions as `@name`, in the order of `agents`: in any case, not inside a
/// word or an address, and not as the beginning of a longer word. Where the names of several agents
/// fit at one place, the longest is meant.
fn mentioned<'a>(text: &str, agents: &'a [GroupAgent]) -> Vec<&'a GroupAgent> {
    let mut meant = vec![false; agents.len()];
    for (at, _) in text.match_indices('@') {
        if text[..at].chars().next_back().is_some_and(is_name_char) {
            continue;
        }
        let after = &text[at + 1..];
        let fits =
            agents.iter().enumerate().filter(|(_, agent)| starts_with_name(after, &agent.name));
        if let Some((index, _)) = fits.max_by_key(|(_, agent)| agent.name.len()) {
            meant[index] = true;
        }
    }
    agents.iter().zip(meant).filter(|(_, meant)| *meant).map(|(agent, _)| agent).collect()
}

fn starts_with_name(text: &str, name: &str) -> bool {
    let mut rest = text.chars();
    let matches = !name.is_empty()
        && name
            .chars()
            .all(|want| rest.next().is_some_and(|got| want.to_lowercase().eq(got.to_lowercase())));
    matches && !continues(rest.as_str())
}

/// Whether what follows a name belongs to a longer one. A dot or dash that ends a sentence or is
/// followed by no letter does not.
fn continues(rest: &str) -> bool {
    let mut chars = rest.chars();
    match chars.next() {
        None => false,
        Some('-' | '.') => chars.next().is_some_and(char::is_alphanumeric),
        Some(c) => is_name_char(c),
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use convene_model::{AgentId, event::TriggerPolicy};

    use super::*;

    fn agents(names: &[&str]) -> Vec<GroupAgent> {
        let agent = |(index, name): (usize, &&str)| GroupAgent {
            agent_id: AgentId::new(format!("a{index}")).expect("an id"),
            name: (*name).to_owned(),
            trigger: TriggerPolicy::Mention,
        };
        names.iter().enumerate().map(agent).collect()
    }

    fn mentions(text: &str, name: &str) -> bool {
        !mentioned(text, &agents(&[name])).is_empty()
    }

    #[test]
    fn a_name_is_found_after_an_at_sign() {
        for text in [
            "@Guide hi",
            "hi @guide",
            "hi, @GUIDE!",
            "(@Guide)",
            "@Guide.",
            "a@b @Guide",
            "@@Guide",
            "what do you say, @Guide?",
            "@Guide-",
            "@guide's idea",
        ] {
            assert!(mentions(text, "Guide"), "{text}");
        }
    }

    #[test]
    fn a_name_is_not_found_in_words_addresses_and_longer_names() {
        for text in [
            "Guide hi",
            "me@guide",
            "@guidebook",
            "@guide_2",
            "@guide-dog",
            "@ Guide",
            "@",
            "",
            "@gui",
            "x@guide.example",
        ] {
            assert!(!mentions(text, "Guide"), "{text}");
        }
        assert!(!mentions("@", ""));
    }

    #[test]
    fn names_of_any_script_are_matched_in_any_case() {
        assert!(mentions("привет @АННА", "Анна"));
        assert!(mentions("@Zoë bitte", "zoë"));
    }

    #[test]
    fn of_several_names_that_fit_the_longest_is_meant() {
        let agents = agents(&["Guide", "Guide Two", "Two"]);
        let names = |text| -> Vec<&str> {
            mentioned(text, &agents).iter().map(|agent| agent.name.as_str()).collect()
        };
        assert_eq!(names("@guide two, please"), ["Guide Two"]);
        assert_eq!(names("@Guide Twofold"), ["Guide"]);
        assert_eq!(names("@Two and @guide two and @guide"), ["Guide", "Guide Two", "Two"]);
    }
}
