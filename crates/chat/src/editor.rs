//! The composer's text and cursor: a small editor of several lines.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// A text under a cursor, which always stands between two graphemes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Editor {
    text: String,
    cursor: usize,
}

impl Editor {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Replaces everything; the cursor stands at the end.
    pub(crate) fn set(&mut self, text: &str) {
        self.text = text.to_owned();
        self.cursor = self.text.len();
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    pub(crate) fn insert(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
    }

    pub(crate) fn backspace(&mut self) {
        self.cut(self.before());
    }

    pub(crate) fn delete(&mut self) {
        let after = self.after();
        self.text.replace_range(self.cursor..after, "");
    }

    pub(crate) fn delete_word(&mut self) {
        self.cut(self.word_before());
    }

    pub(crate) fn delete_line(&mut self) {
        self.cut(self.line_start());
    }

    fn cut(&mut self, from: usize) {
        self.text.replace_range(from..self.cursor, "");
        self.cursor = from;
    }

    pub(crate) fn left(&mut self) {
        self.cursor = self.before();
    }

    pub(crate) fn right(&mut self) {
        self.cursor = self.after();
    }

    pub(crate) fn word_left(&mut self) {
        self.cursor = self.word_before();
    }

    pub(crate) fn word_right(&mut self) {
        let rest = &self.text[self.cursor..];
        let mut words = rest.split_word_bound_indices().skip_while(|(_, w)| w.trim().is_empty());
        let end = words.next().map_or(rest.len(), |(at, word)| at + word.len());
        self.cursor += end;
    }

    pub(crate) fn home(&mut self) {
        self.cursor = self.line_start();
    }

    pub(crate) fn end(&mut self) {
        self.cursor += self.text[self.cursor..].find('\n').unwrap_or(self.text.len() - self.cursor);
    }

    /// One line up; `false` in the first line, where nothing moves.
    pub(crate) fn up(&mut self) -> bool {
        let start = self.line_start();
        if start == 0 {
            return false;
        }
        let column = self.text[start..self.cursor].graphemes(true).count();
        let above = self.text[..start - 1].rfind('\n').map_or(0, |at| at + 1);
        self.cursor = column_in(&self.text, above, start - 1, column);
        true
    }

    /// One line down; `false` in the last line, where nothing moves.
    pub(crate) fn down(&mut self) -> bool {
        let start = self.line_start();
        let Some(end) = self.text[self.cursor..].find('\n').map(|at| self.cursor + at) else {
            return false;
        };
        let column = self.text[start..self.cursor].graphemes(true).count();
        let below = self.text[end + 1..].find('\n').map_or(self.text.len(), |at| end + 1 + at);
        self.cursor = column_in(&self.text, end + 1, below, column);
        true
    }

    /// The word right before the cursor that begins with one of `signs` (`@`, `/`), as its place
    /// and what stands behind the sign.
    pub(crate) fn tagged_word(&self, sign: char) -> Option<(usize, &str)> {
        let before = &self.text[..self.cursor];
        let at = before.rfind(sign)?;
        let word = &before[at + sign.len_utf8()..];
        let begins = before[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        (begins && !word.contains(['\n', '\t']) && word.len() <= 64).then_some((at, word))
    }

    /// Replaces what stands between a place and the cursor.
    pub(crate) fn replace_from(&mut self, from: usize, with: &str) {
        self.text.replace_range(from..self.cursor, with);
        self.cursor = from + with.len();
    }

    /// The text in lines of at most `width` columns, and the cursor's column and line among them.
    pub(crate) fn layout(&self, width: usize) -> (Vec<String>, (usize, usize)) {
        let width = width.max(2);
        let mut lines = vec![String::new()];
        let (mut column, mut cursor) = (0, (0, 0));
        for (at, grapheme) in self.text.grapheme_indices(true) {
            if at == self.cursor {
                cursor = (column, lines.len() - 1);
            }
            if grapheme == "\n" {
                lines.push(String::new());
                column = 0;
                continue;
            }
            let shown = if grapheme == "\t" { "  " } else { grapheme };
            let wide = shown.width();
            if column + wide > width {
                lines.push(String::new());
                column = 0;
                if at == self.cursor {
                    cursor = (0, lines.len() - 1);
                }
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(shown);
            }
            column += wide;
        }
        if self.cursor == self.text.len() {
            if column >= width {
                lines.push(String::new());
                column = 0;
            }
            cursor = (column, lines.len() - 1);
        }
        (lines, cursor)
    }

    fn before(&self) -> usize {
        let before = self.text[..self.cursor].grapheme_indices(true).next_back();
        before.map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        let after = self.text[self.cursor..].graphemes(true).next();
        self.cursor + after.map_or(0, str::len)
    }

    fn word_before(&self) -> usize {
        let words = self.text[..self.cursor].split_word_bound_indices().rev();
        let mut words = words.skip_while(|(_, word)| word.trim().is_empty());
        words.next().map_or(0, |(at, _)| at)
    }

    fn line_start(&self) -> usize {
        self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1)
    }
}

/// The place of a column in the line between two places; its end where it is shorter.
fn column_in(text: &str, start: usize, end: usize, column: usize) -> usize {
    let place = text[start..end].grapheme_indices(true).nth(column);
    place.map_or(end, |(at, _)| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.set(text);
        editor
    }

    #[test]
    fn the_cursor_moves_over_what_a_person_sees_as_one_character() {
        let mut editor = editor("a👩‍🚀é");
        editor.left();
        editor.backspace();
        assert_eq!(editor.text(), "aé");
        editor.insert("\r\n");
        assert_eq!(editor.text(), "a\né");
        editor.delete();
        assert_eq!(editor.text(), "a\n");
    }

    #[test]
    fn lines_are_walked_up_and_down_by_column() {
        let mut editor = editor("first line\nsec\nthird");
        assert!(editor.up() && editor.up());
        editor.insert("|");
        assert_eq!(editor.text(), "fir|st line\nsec\nthird");
        assert!(!editor.up());
        assert!(editor.down() && editor.down() && !editor.down());
        editor.home();
        editor.insert(">");
        assert_eq!(editor.text(), "fir|st line\nsec\n>third");
    }

    #[test]
    fn words_are_walked_and_deleted() {
        let mut editor = editor("two words  ");
        editor.delete_word();
        assert_eq!(editor.text(), "two ");
        editor.word_left();
        editor.word_right();
        editor.insert("!");
        assert_eq!(editor.text(), "two! ");
        editor.end();
        editor.delete_line();
        assert!(editor.is_empty());
    }

    #[test]
    fn long_lines_are_folded_with_the_cursor_in_its_place() {
        let mut editor = editor("abcdef");
        assert_eq!(editor.layout(4), (vec!["abcd".to_owned(), "ef".to_owned()], (2, 1)));
        editor.home();
        assert_eq!(editor.layout(4).1, (0, 0));
        editor.set("abcd");
        assert_eq!(editor.layout(4).1, (0, 1));
        editor.set("日本語");
        assert_eq!(editor.layout(4).0, ["日本", "語"]);
    }

    #[test]
    fn a_mention_is_the_word_behind_its_sign() {
        let with = |text: &str| editor(text).tagged_word('@').map(|(at, w)| (at, w.to_owned()));
        assert_eq!(with("ask @Gui").unwrap(), (4, "Gui".to_owned()));
        assert_eq!(with("@Ben N").unwrap(), (0, "Ben N".to_owned()));
        assert_eq!(with("ana@example"), None);
        assert_eq!(with("none"), None);
    }
}
