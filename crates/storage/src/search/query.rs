//! What a search asks for, taken apart by our own rules; and whether a text answers it.
//!
//! `word`, `"a phrase"`, `begin*`: all of them must occur. Nothing that a person types reaches
//! SQLite but folded words.

use std::ops::Range;

use convene_model::limits::{MAX_QUERY_CHARS, MAX_QUERY_WORDS};

use crate::search::words::words;

/// A query that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// What must occur; never empty.
    pub(crate) parts: Vec<Part>,
}

/// Words that must follow each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    /// Folded; never empty.
    pub(crate) words: Vec<String>,
    /// Whether the last word need only begin like this.
    pub(crate) prefix: bool,
}

/// Why a query is none, as one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It holds nothing that could be found.
    #[error("the query has no word to search for")]
    NoWords,
    /// It is above [`MAX_QUERY_CHARS`].
    #[error("the query is longer than {MAX_QUERY_CHARS} characters")]
    TooLong,
    /// It is above [`MAX_QUERY_WORDS`].
    #[error("the query has more than {MAX_QUERY_WORDS} words")]
    TooManyWords,
}

impl Query {
    /// Takes a query apart. A quotation mark that is not closed quotes the rest.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        if text.chars().count() > MAX_QUERY_CHARS {
            return Err(QueryError::TooLong);
        }
        if text.split(['"', ' ', '\t', '\n']).filter(|word| !word.is_empty()).count()
            > MAX_QUERY_WORDS
        {
            return Err(QueryError::TooManyWords);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (phrase, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                let after_star = after.strip_prefix('*');
                parts.extend(Part::new(phrase, after_star.is_some()));
                rest = after_star.unwrap_or(after);
            } else {
                let end = rest.find(|c: char| c == '"' || c.is_whitespace());
                let word = &rest[..end.unwrap_or(rest.len())];
                parts.extend(Part::new(word, word.ends_with('*')));
                rest = rest[word.len()..].trim_start();
            }
        }
        parts.sort();
        parts.dedup();
        if parts.is_empty() { Err(QueryError::NoWords) } else { Ok(Self { parts }) }
    }

    /// Where a text answers the query, in order and without overlaps; `None` when it does not.
    pub(crate) fn find_in(&self, text: &str) -> Option<Vec<Range<usize>>> {
        let words: Vec<_> = words(text).collect();
        let mut found: Vec<Range<usize>> = Vec::new();
        for part in &self.parts {
            let before = found.len();
            for at in words.windows(part.words.len()) {
                let (last, first) = at.split_last()?;
                let (wanted, begin) = part.words.split_last()?;
                let ends = if part.prefix {
                    last.folded.starts_with(wanted.as_str())
                } else {
                    last.folded == *wanted
                };
                if ends && first.iter().zip(begin).all(|(word, wanted)| word.folded == *wanted) {
                    found.push(at[0].range.start..last.range.end);
                }
            }
            if found.len() == before {
                return None;
            }
        }
        found.sort_by_key(|range| range.start);
        found.dedup_by(|next, range| {
            let overlaps = next.start < range.end;
            if overlaps {
                range.end = range.end.max(next.end);
            }
            overlaps
        });
        Some(found)
    }
}

impl Part {
    fn new(text: &str, prefix: bool) -> Option<Self> {
        let words: Vec<_> = words(text).map(|word| word.folded).collect();
        (!words.is_empty()).then_some(Self { words, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(words: &[&str], prefix: bool) -> Part {
        Part { words: words.iter().map(|&word| word.to_owned()).collect(), prefix }
    }

    #[test]
    fn a_query_falls_into_words_phrases_and_beginnings() {
        for (text, expected) in [
            ("hello", vec![part(&["hello"], false)]),
            ("Zwei Wörter", vec![part(&["worter"], false), part(&["zwei"], false)]),
            ("\"a phrase\" b", vec![part(&["a", "phrase"], false), part(&["b"], false)]),
            ("beg*", vec![part(&["beg"], true)]),
            ("\"a beg\"*", vec![part(&["a", "beg"], true)]),
            ("\"open end", vec![part(&["open", "end"], false)]),
            ("a\"b\"c", vec![part(&["a"], false), part(&["b"], false), part(&["c"], false)]),
            ("foo-bar", vec![part(&["foo", "bar"], false)]),
            ("same same", vec![part(&["same"], false)]),
            (
                "OR NOT NEAR(a) col:b ^c",
                vec![
                    part(&["c"], false),
                    part(&["col", "b"], false),
                    part(&["near", "a"], false),
                    part(&["not"], false),
                    part(&["or"], false),
                ],
            ),
            ("你好", vec![part(&["你", "好"], false)]),
        ] {
            assert_eq!(Query::parse(text).unwrap().parts, expected, "{text}");
        }
    }

    #[test]
    fn what_has_no_word_or_too_much_is_no_query() {
        for text in ["", "  ", "\"\"", "!!! ***", "\"", "🎉"] {
            assert_eq!(Query::parse(text), Err(QueryError::NoWords), "{text:?}");
        }
        assert!(Query::parse(&"ä".repeat(MAX_QUERY_CHARS)).is_ok());
        assert_eq!(Query::parse(&"ä".repeat(MAX_QUERY_CHARS + 1)), Err(QueryError::TooLong));
        let words = |n: usize| (0..n).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
        assert!(Query::parse(&words(MAX_QUERY_WORDS)).is_ok());
        assert_eq!(Query::parse(&words(MAX_QUERY_WORDS + 1)), Err(QueryError::TooManyWords));
        let phrase = format!("\"{}\"", words(MAX_QUERY_WORDS + 1));
        assert_eq!(Query::parse(&phrase), Err(QueryError::TooManyWords));
    }

    #[test]
    fn a_text_answers_when_all_parts_occur() {
        let found = |query: &str, text: &str| {
            let found = Query::parse(query).unwrap().find_in(text)?;
            Some(found.into_iter().map(|range| text[range].to_owned()).collect::<Vec<_>>())
        };
        let text = "The Café is open; the cafeteria is not";
        assert_eq!(found("cafe", text).unwrap(), ["Café"]);
        assert_eq!(found("cafe*", text).unwrap(), ["Café", "cafeteria"]);
        assert_eq!(found("open cafe", text).unwrap(), ["Café", "open"]);
        assert_eq!(found("\"is open\"", text).unwrap(), ["is open"]);
        assert_eq!(found("\"is op\"*", text).unwrap(), ["is open"]);
        assert_eq!(found("\"open is\"", text), None);
        assert_eq!(found("caf", text), None);
        assert_eq!(found("cafe closed", text), None);
        assert_eq!(found("\"is open\" open", text).unwrap(), ["is open"]);
        assert_eq!(found("\"a b\" \"b a\"", "a b a").unwrap(), ["a b a"]);
        assert_eq!(found("the", ""), None);
    }
}
