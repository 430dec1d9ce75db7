//! Finding `@name` in a text: the same for agents, whom it wakes, and people, whose counts it moves.

/// The indexes of the names that `text` mentions as `@name`, in the order of `names`: in any case,
/// not inside a word or an address, and not as the beginning of a longer word. Where several names
/// fit at one place, the longest is meant, and everybody who has it.
#[must_use]
pub fn named(text: &str, names: &[&str]) -> Vec<usize> {
    let mut meant = vec![false; names.len()];
    for (at, _) in text.match_indices('@') {
        if text[..at].chars().next_back().is_some_and(is_name_char) {
            continue;
        }
        let after = &text[at + 1..];
        let fits: Vec<usize> =
            (0..names.len()).filter(|index| starts_with_name(after, names[*index])).collect();
        let longest = fits.iter().map(|index| names[*index].len()).max();
        for index in fits.into_iter().filter(|index| Some(names[*index].len()) == longest) {
            meant[index] = true;
        }
    }
    (0..names.len()).filter(|index| meant[*index]).collect()
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
    use super::*;

    fn mentions(text: &str, name: &str) -> bool {
        !named(text, &[name]).is_empty()
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
        let names = ["Guide", "Guide Two", "Two"];
        assert_eq!(named("@guide two, please", &names), [1]);
        assert_eq!(named("@Guide Twofold", &names), [0]);
        assert_eq!(named("@Two and @guide two and @guide", &names), [0, 1, 2]);
    }

    #[test]
    fn everybody_of_one_name_is_meant() {
        assert_eq!(named("@ann, look", &["Ann", "Bob", "ann"]), [0, 2]);
    }
}
