//! Finding `@name` in a text.

use convene_model::event::GroupAgent;

/// Whether `text` mentions `name` as `@name`: in any case, not inside a word or an address, and not
/// as the beginning of a longer name.
pub(crate) fn mentions(text: &str, name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    let mut rest = text;
    let mut before = None;
    while let Some(at) = rest.find('@') {
        let previous = rest[..at].chars().next_back().or(before);
        let after = &rest[at + 1..];
        if previous.is_none_or(|c| !is_name_char(c)) && starts_with_name(after, name) {
            return true;
        }
        before = Some('@');
        rest = after;
    }
    false
}

/// The agents that `text` mentions, in the order of `agents`.
pub(crate) fn mentioned<'a>(
    text: &str,
    agents: &'a [GroupAgent],
) -> impl Iterator<Item = &'a GroupAgent> {
    let any = text.contains('@');
    agents.iter().filter(move |agent| any && mentions(text, &agent.name))
}

fn starts_with_name(text: &str, name: &str) -> bool {
    let mut rest = text.chars();
    let matches = name
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
    use super::mentions;

    #[test]
    fn a_name_is_found_after_an_at_sign() {
        for text in ["@Guide hi", "hi @guide", "hi, @GUIDE!", "(@Guide)", "@Guide.", "a@b @Guide", "@@Guide",
            "what do you say, @Guide?", "@Guide-", "@guide's idea"]
        {
            assert!(mentions(text, "Guide"), "{text}");
        }
    }

    #[test]
    fn a_name_is_not_found_in_words_addresses_and_longer_names() {
        for text in ["Guide hi", "me@guide", "@guidebook", "@guide_2", "@guide-dog", "@ Guide", "@", "", "@gui",
            "x@guide.example"]
        {
            assert!(!mentions(text, "Guide"), "{text}");
        }
        assert!(!mentions("@", ""));
    }

    #[test]
    fn names_of_any_script_are_matched_in_any_case() {
        assert!(mentions("привет @АННА", "Анна"));
        assert!(mentions("@Zoë bitte", "zoë"));
    }
}
