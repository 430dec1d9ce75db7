//! Foreign text on its way to a terminal.

/// The text without control characters, which could move the cursor or speak to the terminal; line
/// breaks stay, a tab becomes spaces.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            c if c.is_control() || is_direction(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// The text on one line.
pub(crate) fn line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first `chars` characters of a text on one line, with an ellipsis when there is more.
pub(crate) fn excerpt(text: &str, chars: usize) -> String {
    let line = line(text);
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether a character turns the direction of what follows, by which a text can pose as another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_foreign_text_speaks_to_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}31m\r\n\tc\u{202e}d"), "a[2Jb31m\n    cd");
        assert_eq!(line(" a\n\n b\x07 "), "a b");
        assert_eq!(excerpt("four words are here", 10), "four words…");
        assert_eq!(excerpt("short", 10), "short");
    }
}
