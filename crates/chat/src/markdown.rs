//! Markdown as lines of a terminal: emphasis, code, lists and quotations as far as cells can show
//! them, folded to a width.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::{text::clean, theme::Theme};

/// Quotations and lists are indented at most so often, so that there is room for what they say.
const MAX_DEPTH: usize = 5;

/// A message's text in lines of at most `width` columns.
pub(crate) fn render(text: &str, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let text = clean(text);
    let mut painter = Painter {
        theme,
        width: width.max(8),
        lines: Vec::new(),
        spans: Vec::new(),
        styles: Vec::new(),
        containers: Vec::new(),
        item: None,
        first: false,
        code: None,
        links: Vec::new(),
    };
    for event in Parser::new_ext(&text, Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS) {
        painter.event(event);
    }
    painter.flush();
    while painter.lines.last().is_some_and(|line| line.width() == 0) {
        painter.lines.pop();
    }
    painter.lines
}

struct Painter {
    theme: Theme,
    width: usize,
    lines: Vec<Line<'static>>,
    /// The paragraph under way.
    spans: Vec<(String, Style)>,
    styles: Vec<Modifier>,
    containers: Vec<Container>,
    /// The marker of the list item that begins.
    item: Option<String>,
    /// Whether nothing stands yet in the quotation that has begun.
    first: bool,
    /// The text of the code block under way.
    code: Option<String>,
    links: Vec<(String, usize)>,
}

enum Container {
    Quote,
    List(Option<u64>),
    /// An item, with the width of its marker.
    Item(usize),
}

impl Painter {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.push(&text),
            },
            Event::Code(code) => {
                let style = self.style().patch(self.theme.code());
                // With its signs, so that it is told apart without a colour as well.
                self.spans.push((format!("`{code}`"), style));
            }
            // Shown as it was written: a terminal has no HTML.
            Event::Html(html) | Event::InlineHtml(html) => self.push(&html),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.push(&text),
            Event::FootnoteReference(name) => self.push(&format!("[^{name}]")),
            Event::SoftBreak | Event::HardBreak => self.push("\n"),
            Event::Rule => {
                self.flush();
                let rule = "─".repeat(self.room().min(24));
                self.spans.push((rule, self.theme.dim()));
                self.flush();
            }
            Event::TaskListMarker(done) => self.push(if done { "[x] " } else { "[ ] " }),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.separate(),
            Tag::Heading { level, .. } => {
                self.separate();
                self.styles.push(match level {
                    HeadingLevel::H1 | HeadingLevel::H2 => Modifier::BOLD | Modifier::UNDERLINED,
                    HeadingLevel::H3 | HeadingLevel::H4 | HeadingLevel::H5 | HeadingLevel::H6 => {
                        Modifier::BOLD
                    }
                });
            }
            Tag::BlockQuote(_) => {
                self.separate();
                self.containers.push(Container::Quote);
                self.first = true;
            }
            Tag::CodeBlock(kind) => {
                self.separate();
                if let CodeBlockKind::Fenced(language) = kind
                    && !language.is_empty()
                {
                    self.spans.push((language.into_string(), self.theme.dim()));
                    self.flush();
                }
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                // A list within an item follows its text; one of its own is set apart.
                if self.containers.iter().any(|c| matches!(c, Container::Item(_))) {
                    self.flush();
                } else {
                    self.separate();
                }
                self.containers.push(Container::List(first));
            }
            Tag::Item => {
                self.flush();
                let marker = match self.containers.last_mut() {
                    Some(Container::List(Some(number))) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    Some(Container::List(None) | Container::Quote | Container::Item(_)) | None => {
                        "• ".to_owned()
                    }
                };
                self.containers.push(Container::Item(marker.width()));
                self.item = Some(marker);
            }
            Tag::Emphasis => self.styles.push(Modifier::ITALIC),
            Tag::Strong => self.styles.push(Modifier::BOLD),
            Tag::Strikethrough => self.styles.push(Modifier::CROSSED_OUT),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.links.push((dest_url.into_string(), self.spans.len()));
                self.styles.push(Modifier::UNDERLINED);
            }
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Table(_)
            | Tag::TableHead
            | Tag::TableRow
            | Tag::TableCell
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => self.flush(),
            TagEnd::Heading(_) => {
                self.flush();
                self.styles.pop();
            }
            TagEnd::BlockQuote(_) | TagEnd::List(_) => {
                self.flush();
                self.containers.pop();
            }
            TagEnd::Item => {
                // An item without a text still shows its marker.
                if self.item.is_some() {
                    self.push("");
                }
                self.flush();
                self.containers.pop();
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                for line in code.lines() {
                    self.code_line(line);
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link | TagEnd::Image => {
                self.styles.pop();
                if let Some((url, from)) = self.links.pop() {
                    let shown: String =
                        self.spans.iter().skip(from).map(|(text, _)| text.as_str()).collect();
                    // A link says where it leads: a terminal cannot show it otherwise.
                    if shown != url && format!("mailto:{shown}") != url {
                        self.spans.push((format!(" <{url}>"), self.theme.dim()));
                    }
                }
            }
            TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Table
            | TagEnd::TableHead
            | TagEnd::TableRow
            | TagEnd::TableCell
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    fn style(&self) -> Style {
        let all = self.styles.iter().fold(Modifier::empty(), |all, one| all | *one);
        Style::new().add_modifier(all)
    }

    fn push(&mut self, text: &str) {
        self.spans.push((text.to_owned(), self.style()));
    }

    /// An empty line between two blocks, except at the beginning and right behind a marker.
    fn separate(&mut self) {
        self.flush();
        if !self.lines.is_empty() && self.item.is_none() && !self.first {
            let (prefix, _) = self.prefix();
            self.lines.push(Line::from(prefix));
        }
    }

    /// The columns that are left beside the prefix.
    fn room(&self) -> usize {
        let taken: usize = self.containers.iter().take(MAX_DEPTH).map(Container::width).sum();
        self.width.saturating_sub(taken).max(8)
    }

    /// What stands before the first line of a paragraph, or before the others.
    fn prefix(&self) -> (Vec<Span<'static>>, usize) {
        let mut spans = Vec::new();
        for container in self.containers.iter().take(MAX_DEPTH) {
            match container {
                Container::Quote => spans.push(Span::styled("│ ", self.theme.dim())),
                Container::List(_) => {}
                Container::Item(width) => spans.push(Span::raw(" ".repeat(*width))),
            }
        }
        let width = spans.iter().map(Span::width).sum();
        (spans, width)
    }

    fn code_line(&mut self, code: &str) {
        let mut rest = code;
        loop {
            let end = fit(rest, self.room().saturating_sub(2));
            let (mut spans, _) = self.prefix();
            spans.push(Span::styled("▏ ", self.theme.dim()));
            spans.push(Span::styled(rest[..end].to_owned(), self.theme.code()));
            self.lines.push(Line::from(spans));
            rest = &rest[end..];
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Folds the paragraph under way.
    fn flush(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        if spans.is_empty() {
            return;
        }
        self.first = false;
        let marker = self.item.take();
        for (number, line) in fold(&spans, self.room()).into_iter().enumerate() {
            let (mut prefix, _) = self.prefix();
            if number == 0
                && let Some(marker) = &marker
            {
                prefix.pop();
                prefix.push(Span::raw(marker.clone()));
            }
            prefix.extend(line);
            self.lines.push(Line::from(prefix));
        }
    }
}

impl Container {
    fn width(&self) -> usize {
        match self {
            Self::Quote => 2,
            Self::List(_) => 0,
            Self::Item(width) => *width,
        }
    }
}

/// Folds styled text at spaces; a word that is longer than a line is cut.
pub(crate) fn fold(spans: &[(String, Style)], width: usize) -> Vec<Vec<Span<'static>>> {
    let mut lines = vec![Vec::new()];
    let mut column = 0;
    // Written only when a word follows on the same line.
    let mut space: Option<(String, Style)> = None;
    for word in words(spans) {
        match word {
            Piece::Break => {
                lines.push(Vec::new());
                (column, space) = (0, None);
            }
            Piece::Space(text, style) => {
                // A space at a fold is the fold.
                space = (column > 0).then_some((text, style));
            }
            Piece::Text(pieces) => {
                let wide: usize = pieces.iter().map(|(text, _)| text.width()).sum();
                let gap = space.as_ref().map_or(0, |(text, _)| text.width());
                if column > 0 && column + gap + wide > width {
                    lines.push(Vec::new());
                    column = 0;
                } else if let Some((text, style)) = space.take() {
                    column += gap;
                    push(&mut lines, text, style);
                }
                space = None;
                for (text, style) in pieces {
                    let mut rest = text.as_str();
                    while !rest.is_empty() {
                        let mut end = fit(rest, width.saturating_sub(column));
                        if column + rest[..end].width() > width && column > 0 {
                            lines.push(Vec::new());
                            column = 0;
                            end = fit(rest, width);
                        }
                        column += rest[..end].width();
                        push(&mut lines, rest[..end].to_owned(), style);
                        rest = &rest[end..];
                    }
                }
            }
        }
    }
    lines
}

fn push(lines: &mut [Vec<Span<'static>>], text: String, style: Style) {
    if let Some(line) = lines.last_mut() {
        line.push(Span::styled(text, style));
    }
}

/// The bytes of `text` that fit into `width` columns; at least one grapheme.
fn fit(text: &str, width: usize) -> usize {
    let mut column = 0;
    for (at, grapheme) in text.grapheme_indices(true) {
        column += grapheme.width();
        if column > width && at > 0 {
            return at;
        }
    }
    text.len()
}

enum Piece {
    Text(Vec<(String, Style)>),
    Space(String, Style),
    Break,
}

fn words(spans: &[(String, Style)]) -> Vec<Piece> {
    let mut words = Vec::new();
    for (text, style) in spans {
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let is_kind = |c: char| c != '\n' && c.is_whitespace() == first.is_whitespace();
            let end = match first {
                '\n' => 1,
                _ => rest.find(|c| !is_kind(c)).unwrap_or(rest.len()),
            };
            let piece = rest[..end].to_owned();
            match (words.last_mut(), first) {
                (_, '\n') => words.push(Piece::Break),
                (_, c) if c.is_whitespace() => words.push(Piece::Space(piece, *style)),
                (Some(Piece::Text(pieces)), _) => pieces.push((piece, *style)),
                (Some(Piece::Space(..) | Piece::Break) | None, _) => {
                    words.push(Piece::Text(vec![(piece, *style)]));
                }
            }
            rest = &rest[end..];
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, width: usize) -> Vec<String> {
        render(text, width, Theme::plain()).iter().map(|line| line.to_string()).collect()
    }

    #[test]
    fn paragraphs_are_folded_at_spaces_and_keep_their_line_breaks() {
        assert_eq!(shown("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(shown("one\ntwo\n\nthree", 20), ["one", "two", "", "three"]);
        assert_eq!(shown("abcdefghijkl", 8), ["abcdefgh", "ijkl"]);
        assert_eq!(shown("日本語のテキスト", 8), ["日本語の", "テキスト"]);
    }

    #[test]
    fn emphasis_is_a_style_and_code_keeps_its_signs() {
        let lines = render("a **bold** `x` [here](https://example.org)", 60, Theme::plain());
        assert_eq!(lines[0].to_string(), "a bold `x` here <https://example.org>");
        let bold = lines[0].spans.iter().find(|span| span.content == "bold").unwrap();
        assert!(bold.style.add_modifier.contains(Modifier::BOLD));
        assert_eq!(shown("<https://example.org>", 60), ["https://example.org"]);
    }

    #[test]
    fn lists_quotations_and_code_blocks_stand_under_each_other() {
        let text =
            "Steps:\n\n1. one two three\n2. next\n   - inner\n\n> said\n\n```rust\nfn a() {}\n```";
        assert_eq!(
            shown(text, 12),
            [
                "Steps:",
                "",
                "1. one two",
                "   three",
                "2. next",
                "   • inner",
                "",
                "│ said",
                "",
                "rust",
                "▏ fn a() {}",
            ]
        );
    }

    #[test]
    fn html_and_escapes_are_only_text() {
        assert_eq!(shown("<b>x</b> \x1b[31mred", 40), ["<b>x</b> [31mred"]);
    }
}
