//! How a text falls into words: the same for what is indexed, what is asked for and what is
//! highlighted.
//!
//! A word is a run of letters and digits, compared without case and without the accents of Latin,
//! Greek and Cyrillic, the points of Hebrew and the vowel signs of Arabic. In scripts that put no
//! spaces between words each character is a word of its own, so that a run of them is found as a
//! phrase.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Characters of a word that count: two longer ones that begin alike are the same to a search.
const MAX_WORD_CHARS: usize = 64;

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Where it stands, in bytes.
    pub(crate) range: Range<usize>,
    /// As it is compared: letters, digits and marks only, never empty.
    pub(crate) folded: String,
}

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Word> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, first) = chars.find(|(_, c)| c.is_alphanumeric())?;
            let mut end = start + first.len_utf8();
            let alone = stands_alone(first);
            while let Some((at, c)) = chars.next_if(|(_, c)| {
                is_combining_mark(*c) || (!alone && c.is_alphanumeric() && !stands_alone(*c))
            }) {
                end = at + c.len_utf8();
            }
            let folded = fold(&text[start..end]);
            if !folded.is_empty() {
                return Some(Word { range: start..end, folded });
            }
        }
    })
}

fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.chars().take(MAX_WORD_CHARS).map(|c| c.to_ascii_lowercase()).collect();
    }
    word.nfkd()
        .flat_map(char::to_lowercase)
        .nfkd()
        .filter(|c| (c.is_alphanumeric() || is_combining_mark(*c)) && !is_accent(*c))
        .map(|c| if c == 'ς' { 'σ' } else { c })
        .take(MAX_WORD_CHARS)
        .collect()
}

/// Marks without which people write a word, too.
fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036F}' | '\u{0591}'..='\u{05C7}' | '\u{064B}'..='\u{065F}'
        | '\u{0670}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}'
        | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// Whether the character is of a script that puts no spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}'
        | '\u{3040}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FF9F}'
        | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> Vec<String> {
        words(text).map(|word| word.folded).collect()
    }

    #[test]
    fn words_are_compared_without_case_and_accents() {
        for (text, expected) in [
            ("Hello, World!", &["hello", "world"][..]),
            ("don't foo_bar a-b", &["don", "t", "foo", "bar", "a", "b"]),
            ("Über CAFÉ cafe\u{301} naïve", &["uber", "cafe", "cafe", "naive"]),
            ("ΣΟΦΟΣ σοφός", &["σοφοσ", "σοφοσ"]),
            ("ёлка ЕЛКА", &["елка", "елка"]),
            ("ﬁne Ångström ½", &["fine", "angstrom", "12"]),
            ("⑴", &["1"]),
            ("v1.2.3", &["v1", "2", "3"]),
            ("https://example.com/a", &["https", "example", "com", "a"]),
            ("你好 world", &["你", "好", "world"]),
            ("abc漢字def", &["abc", "漢", "字", "def"]),
            ("مُحَمَّد", &["محمد"]),
            ("🎉 !!! \u{301}", &[]),
            ("", &[]),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn a_word_counts_up_to_its_limit() {
        let long = "x".repeat(MAX_WORD_CHARS + 1);
        assert_eq!(folded(&long), ["x".repeat(MAX_WORD_CHARS)]);
        assert_eq!(words(&long).next().unwrap().range, 0..MAX_WORD_CHARS + 1);
        let long = "ä".repeat(MAX_WORD_CHARS + 1);
        assert_eq!(folded(&long), ["a".repeat(MAX_WORD_CHARS)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn words_stand_in_the_text_in_order_and_hold_no_separator(text in "\\PC{0,60}") {
            let mut end = 0;
            for word in words(&text) {
                prop_assert!(word.range.start >= end && word.range.end > word.range.start);
                prop_assert!(text.get(word.range.clone()).is_some());
                end = word.range.end;
                prop_assert!(!word.folded.is_empty());
                prop_assert!(!word.folded.chars().any(|c| c.is_ascii() && !c.is_ascii_alphanumeric()));
                prop_assert!(!word.folded.chars().any(|c| c.is_ascii_uppercase()));
            }
        }

        #[test]
        fn a_word_by_itself_is_the_same_word(text in "\\PC{0,40}") {
            for word in words(&text) {
                let alone: Vec<_> = words(&text[word.range]).map(|word| word.folded).collect();
                prop_assert_eq!(alone, [word.folded]);
            }
        }
    }
}
