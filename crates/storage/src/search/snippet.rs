//! The passage of a text that a search found, in pieces.

use std::ops::Range;

use convene_model::history::SnippetPiece;

/// Characters of a snippet, about.
const SNIPPET_CHARS: usize = 200;
/// Characters of it that stand before the first hit, about.
const BEFORE_CHARS: usize = 40;

/// The passage around the first of `found`, which are in order, do not overlap and are not empty.
/// White space is shown as one space, what is left out as an ellipsis.
pub(crate) fn snippet(text: &str, found: &[Range<usize>]) -> Vec<SnippetPiece> {
    let first = found.first().map_or(0, |range| range.start);
    let start = place(text[..first].char_indices().rev().map(|(at, _)| at), BEFORE_CHARS, 0);
    let start = after_a_space(text, start, first);
    let ends = text[start..].char_indices().skip(1).map(|(at, _)| start + at);
    let end = place(ends, SNIPPET_CHARS, text.len());
    let mut pieces: Vec<SnippetPiece> = Vec::new();
    let mut push = |text: &str, hit: bool| {
        let text = one_spaced(text);
        match pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.hit == hit => last.text.push_str(&text),
            _ => pieces.push(SnippetPiece { text, hit }),
        }
    };
    if start > 0 {
        push("…", false);
    }
    let mut at = start;
    for range in found {
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from >= to {
            break;
        }
        push(&text[at..from], false);
        push(&text[from..to], true);
        at = to;
    }
    push(&text[at..end], false);
    if end < text.len() {
        push("…", false);
    }
    pieces
}

/// The place of the `n`-th of `places`, or `last` when there are fewer.
fn place(places: impl Iterator<Item = usize>, n: usize, last: usize) -> usize {
    let mut places = places.skip(n - 1);
    places.next().unwrap_or(last)
}

/// Where the first whole word after `start` begins, before `limit`; `start` when there is none.
fn after_a_space(text: &str, start: usize, limit: usize) -> usize {
    if start == 0 {
        return 0;
    }
    let space = text[start..limit].find(char::is_whitespace);
    space.map_or(start, |at| limit - text[start + at..limit].trim_start().len())
}

fn one_spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_whitespace() { ' ' } else { c };
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::query::Query;

    fn of(query: &str, text: &str) -> Vec<SnippetPiece> {
        snippet(text, &Query::parse(query).unwrap().find_in(text).unwrap())
    }

    fn piece(text: &str, hit: bool) -> SnippetPiece {
        SnippetPiece { text: text.to_owned(), hit }
    }

    #[test]
    fn a_short_text_is_its_own_snippet() {
        assert_eq!(of("hello", "hello"), [piece("hello", true)]);
        assert_eq!(
            of("hello", "oh,\n\n hello   there, Hello"),
            [
                piece("oh, ", false),
                piece("hello", true),
                piece(" there, ", false),
                piece("Hello", true)
            ]
        );
    }

    #[test]
    fn a_long_text_is_cut_at_both_ends() {
        let text = format!("{} needle {}", "hay ".repeat(100), "straw ".repeat(100));
        let pieces = of("needle", &text);
        let [before, hit, after] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(*hit, piece("needle", true));
        assert!(before.text.starts_with("…hay ") && before.text.ends_with("hay "), "{before:?}");
        assert!(after.text.starts_with(" straw ") && after.text.ends_with('…'), "{after:?}");
        let length: usize = pieces.iter().map(|piece| piece.text.chars().count()).sum();
        assert!((100..=SNIPPET_CHARS + 2).contains(&length), "{length}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_snippet_holds_the_first_hit(text in "(\\PC|[a-c ä\n]){0,400}", at in 0..400_usize) {
            let at = text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
            let text = format!("{} needle {}", &text[..at], &text[at..]);
            let pieces = of("needle", &text);
            prop_assert!(pieces.iter().any(|piece| piece.hit && piece.text == "needle"));
            let length: usize = pieces.iter().map(|piece| piece.text.chars().count()).sum();
            prop_assert!(length <= SNIPPET_CHARS + 2);
        }
    }
}
