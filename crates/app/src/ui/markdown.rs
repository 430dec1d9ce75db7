//! Message text to a sanitised HTML fragment, once per message.
//!
//! Raw HTML in a message is shown as text and remote images become links, so that reading a
//! message never makes a request. The result is sanitised by an allow list all the same. Never
//! fails and never keeps anything between calls.

use std::{collections::HashSet, sync::LazyLock};

use ammonia::Builder;
use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// Elements within elements at most; what is nested deeper keeps its text and loses its markup.
///
/// Sanitising takes time that grows with the square of the depth, and 32 KiB of `>` are 32,768
/// quotations within each other.
pub const MAX_DEPTH: usize = 32;

/// Renders Markdown as a fragment that is safe to put into a page.
///
/// Line breaks are kept, bare `http(s)` addresses become links, links open in a new tab without a
/// referrer, headings begin at `h3` (a page has its own above them). Mentions are marked by the
/// script, which knows who is in the group.
#[must_use]
pub fn render(text: &str) -> String {
    let mut rendering = Rendering::default();
    let options =
        Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    for event in Parser::new_ext(text, options) {
        rendering.event(event);
    }
    rendering.flush();
    let mut out = String::with_capacity(text.len() * 2);
    html::push_html(&mut out, rendering.events.into_iter());
    SANITISER.clean(&aligned(out)).to_string()
}

/// The cells' alignment as an attribute, since styles are not let through. In what people wrote `<` is
/// escaped, so only tags are found.
fn aligned(mut html: String) -> String {
    for cell in ["th", "td"] {
        for side in ["center", "right"] {
            let style = format!("<{cell} style=\"text-align: {side}\">");
            if html.contains(&style) {
                html = html.replace(&style, &format!("<{cell} align=\"{side}\">"));
            }
        }
    }
    html
}

/// Everything that a fragment may hold.
static SANITISER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let tags = [
        "p",
        "br",
        "strong",
        "em",
        "del",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "a",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
    ];
    let mut builder = Builder::empty();
    builder
        .tags(HashSet::from(tags))
        .generic_attributes(HashSet::new())
        .add_tag_attributes("a", ["href"])
        .add_tag_attributes("ol", ["start"])
        .add_tag_attribute_values("th", "align", ["center", "right"])
        .add_tag_attribute_values("td", "align", ["center", "right"])
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(ammonia::UrlRelative::Deny)
        .clean_content_tags(HashSet::from(["script", "style"]))
        .link_rel(Some("noopener noreferrer nofollow"))
        .set_tag_attribute_value("a", "target", "_blank")
        .strip_comments(true);
    builder
});

/// The events of one message on their way to HTML.
#[derive(Default)]
struct Rendering<'a> {
    events: Vec<Event<'a>>,
    /// Adjoining text, which the parser hands out in pieces: `a_b` may arrive as three.
    text: String,
    /// How many links and code blocks are open: their text is left as it is.
    opaque: usize,
    /// How many elements are open, those beyond [`MAX_DEPTH`] included.
    depth: usize,
}

impl<'a> Rendering<'a> {
    fn event(&mut self, event: Event<'a>) {
        match event {
            Event::Text(text) => self.text.push_str(&text),
            Event::InlineHtml(text) => self.text.push_str(&text),
            Event::Html(text) => self.raw(&text),
            Event::SoftBreak => self.push(Event::HardBreak),
            // A sign instead of a box, since nobody can tick it.
            Event::TaskListMarker(done) => self.text.push_str(if done { "☑ " } else { "☐ " }),
            Event::Start(tag) => self.start(tag),
            Event::End(end) => self.end(end),
            Event::Code(_)
            | Event::HardBreak
            | Event::Rule
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_) => self.push(event),
        }
    }

    fn start(&mut self, tag: Tag<'a>) {
        let tag = match tag {
            // Raw HTML on lines of its own: its text becomes a paragraph.
            Tag::HtmlBlock => Tag::Paragraph,
            Tag::Heading { level, .. } => Tag::Heading {
                level: heading(level),
                id: None,
                classes: Vec::new(),
                attrs: Vec::new(),
            },
            Tag::Image { dest_url, title, id, .. } => {
                Tag::Link { link_type: LinkType::Inline, dest_url, title, id }
            }
            // The language is not used, and a class of the author's choice is not wanted.
            Tag::CodeBlock(_) => Tag::CodeBlock(CodeBlockKind::Indented),
            tag => tag,
        };
        self.flush();
        if matches!(tag, Tag::Link { .. } | Tag::CodeBlock(_)) {
            self.opaque += 1;
        }
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.events.push(Event::Start(tag));
        }
    }

    fn end(&mut self, end: TagEnd) {
        let end = match end {
            TagEnd::HtmlBlock => TagEnd::Paragraph,
            TagEnd::Heading(level) => TagEnd::Heading(heading(level)),
            TagEnd::Image => TagEnd::Link,
            end => end,
        };
        self.flush();
        if matches!(end, TagEnd::Link | TagEnd::CodeBlock) {
            self.opaque = self.opaque.saturating_sub(1);
        }
        if self.depth <= MAX_DEPTH {
            self.events.push(Event::End(end));
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// Raw HTML as text, with its line breaks; the parser hands it out line by line.
    fn raw(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            if self.text.ends_with('\n') {
                self.text.pop();
                self.push(Event::HardBreak);
            }
            self.text.push_str(line);
        }
    }

    fn push(&mut self, event: Event<'a>) {
        self.flush();
        self.events.push(event);
    }

    /// Hands on the text gathered so far, with its addresses as links.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        if self.opaque > 0 {
            self.events.push(Event::Text(text.into()));
            return;
        }
        let mut plain = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find("http") {
            at += found;
            let Some(len) = starts_word(&text, at).then(|| address(&text[at..])).flatten() else {
                at += "http".len();
                continue;
            };
            self.plain(&text[plain..at]);
            let piece = CowStr::from(text[at..at + len].to_owned());
            self.events.push(Event::Start(Tag::Link {
                link_type: LinkType::Autolink,
                dest_url: piece.clone(),
                title: CowStr::Borrowed(""),
                id: CowStr::Borrowed(""),
            }));
            self.events.push(Event::Text(piece));
            self.events.push(Event::End(TagEnd::Link));
            at += len;
            plain = at;
        }
        self.plain(&text[plain..]);
    }

    fn plain(&mut self, text: &str) {
        if !text.is_empty() {
            self.events.push(Event::Text(text.to_owned().into()));
        }
    }
}

/// Whether nothing that belongs to a word stands before `at`.
fn starts_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric())
}

/// The length of the `http(s)` address that `text` begins with, without the punctuation that
/// closes the sentence around it.
fn address(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    if !rest.starts_with(|first: char| first.is_alphanumeric() || first == '[') {
        return None;
    }
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '`' | '|' | '\\'))
        .unwrap_or(text.len());
    let mut address = &text[..end];
    let count = |bracket: char| address.matches(bracket).count();
    // How many closing brackets have no partner; those at the end belong to the sentence.
    let mut round = count(')').saturating_sub(count('('));
    let mut square = count(']').saturating_sub(count('['));
    while let Some(last) = address.chars().next_back() {
        match last {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '_' => {}
            ')' if round > 0 => round -= 1,
            ']' if square > 0 => square -= 1,
            _ => break,
        }
        address = &address[..address.len() - last.len_utf8()];
    }
    Some(address.len())
}

/// A message's headings start at the third level.
fn heading(level: pulldown_cmark::HeadingLevel) -> pulldown_cmark::HeadingLevel {
    use pulldown_cmark::HeadingLevel as H;
    match level {
        H::H1 => H::H3,
        H::H2 => H::H4,
        H::H3 => H::H5,
        H::H4 | H::H5 | H::H6 => H::H6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What must be in no fragment, whatever the message.
    const NEVER: &[&str] =
        &["<script", "<img", "<iframe", "<svg", "<style", "<form", "<input", "<object", "<base"];

    fn assert_harmless(text: &str) {
        let html = render(text);
        for bad in NEVER {
            assert!(!html.to_lowercase().contains(bad), "{text:?} became {html:?}");
        }
        // Attributes stand only inside tags; text that looks like one is escaped and harmless.
        for tag in html.split('<').skip(1).filter_map(|piece| piece.split('>').next()) {
            let tag = tag.to_lowercase();
            for (part, text) in tag.split('"').enumerate() {
                let names_or_value = if part % 2 == 0 { BAD_NAMES } else { BAD_VALUES };
                for bad in names_or_value {
                    assert!(!text.contains(bad), "{tag:?} of {html:?}");
                }
            }
        }
    }

    const BAD_NAMES: &[&str] = &[" on", "style", "src", "id", "srcdoc", "formaction"];
    const BAD_VALUES: &[&str] = &["javascript:", "data:", "vbscript:", "onerror", "onmouseover"];

    #[test]
    fn nothing_that_runs_survives() {
        for text in [
            "<script>alert(1)</script>",
            "a <script src=//x></script> b",
            "<scr<script>ipt>alert(1)</scr</script>ipt>",
            "<img src=x onerror=alert(1)>",
            "![x](javascript:alert(1))",
            "![x](x\" onerror=\"alert(1))",
            "[x](javascript:alert(1))",
            "[x](JaVaScRiPt:alert(1))",
            "[x](java\tscript:alert(1))",
            "[x](&#106;avascript:alert(1))",
            "[x](data:text/html;base64,PHNjcmlwdD4=)",
            "[x](vbscript:x)",
            "<javascript:alert(1)>",
            "[x](http://a \"t\\\" onmouseover=alert(1)\")",
            "<a href=javascript:alert(1) style=x onclick=y>x</a>",
            "<p style=\"background:url(x)\">x</p>",
            "<svg><script>alert(1)</script></svg>",
            "<math><mi//xlink:href=\"data:x,<script>alert(4)</script>\">",
            "<!-- --><iframe src=x></iframe>",
            "```html\"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```",
            "`<script>alert(1)</script>`",
            "> <base href=//evil>\n> <form action=//evil><input></form>",
            "| <style>*{}</style> |\n|---|\n| <object data=x> |",
            "# x {#id .class onclick=alert(1)}",
            "http://x/\"onmouseover=alert(1)",
            "http://x/?onerrox=<b onclick=x>",
            "[a]: javascript:alert(1)\n\n[a]",
            "- * > 1. [x](<javascript:alert(1)>)",
        ] {
            assert_harmless(text);
        }
    }

    #[test]
    fn raw_html_is_shown_as_text() {
        assert_eq!(render("a <b>c</b>"), "<p>a &lt;b&gt;c&lt;/b&gt;</p>\n");
        assert_eq!(render("<div>\nx\n</div>"), "<p>&lt;div&gt;<br>\nx<br>\n&lt;/div&gt;</p>\n");
    }

    #[test]
    fn links_open_apart_and_pass_nothing_on() {
        let html = render("[site](https://example.com/a?b=1&c=2 \"title\")");
        assert!(html.contains(r#"href="https://example.com/a?b=1&amp;c=2""#), "{html}");
        assert!(html.contains(r#"target="_blank""#), "{html}");
        assert!(html.contains(r#"rel="noopener noreferrer nofollow""#), "{html}");
        assert!(!html.contains("title"), "{html}");
        assert!(!render("[x](/sign-out)").contains("href"), "a relative link leads nowhere");
    }

    #[test]
    fn bare_addresses_become_links_without_the_sentence_around_them() {
        let html = render("see https://example.com/a_b_c, or (http://b.example/x(y)).");
        assert!(html.contains(r#"href="https://example.com/a_b_c""#), "{html}");
        assert!(html.contains(r#"href="http://b.example/x(y)""#), "{html}");
        assert!(html.ends_with(">http://b.example/x(y)</a>).</p>\n"), "{html}");
        assert!(!render("`https://example.com`").contains("<a "));
        assert!(!render("xhttps://example.com").contains("<a "));
        let html = render("[https://example.com](https://example.org)");
        assert_eq!(html.matches("<a ").count(), 1, "no link within a link: {html}");
    }

    #[test]
    fn an_image_becomes_a_link_so_that_reading_makes_no_request() {
        let html = render("![a cat](https://example.com/cat.png)");
        assert!(
            html.contains(r#"href="https://example.com/cat.png""#) && html.contains(">a cat</a>")
        );
        assert!(!html.contains("<img"));
    }

    #[test]
    fn code_keeps_its_text_and_lines_keep_their_breaks() {
        assert_eq!(
            render("```rust\nlet a = b < c && \"@Ada\";\n```"),
            "<pre><code>let a = b &lt; c &amp;&amp; \"@Ada\";\n</code></pre>\n"
        );
        assert_eq!(render("one\ntwo"), "<p>one<br>\ntwo</p>\n");
    }

    #[test]
    fn structure_comes_through() {
        let html =
            render("# T\n\n- a\n- b\n\n3. x\n\n> q\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n~~d~~");
        for part in [
            "<h3>T</h3>",
            "<li>a</li>",
            "<ol start=\"3\">",
            "<blockquote>",
            "<td>1</td>",
            "<del>d</del>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn tasks_have_a_sign_and_columns_keep_their_side() {
        let html = render("- [x] measured\n- [ ] ordered\n- [x](https://example.com)");
        assert!(
            html.contains("<li>☑ measured</li>") && html.contains("<li>☐ ordered</li>"),
            "{html}"
        );
        assert!(html.contains(">x</a>"), "a link is no task: {html}");
        let html =
            render("| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | `<td style=\"text-align: right\">` |");
        for part in ["<th align=\"center\">b</th>", "<th align=\"right\">c</th>", "<td>1</td>"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(html.contains("&lt;td style="), "what was written is left as it is: {html}");
        assert!(!html.contains(" style=\"text-align: left\">"), "{html}");
    }

    #[test]
    fn any_text_renders() {
        for text in
            ["", " ", "\u{0}", "[", "![", "**", "@", "https://", "|", "\u{202e}x", "&#0;", "@é"]
        {
            let _ = render(text);
        }
    }

    #[test]
    fn what_is_nested_deeper_than_the_limit_keeps_its_text() {
        let nested = |depth: usize| render(&format!("{}deep", "> ".repeat(depth)));
        // The paragraph is an element as well.
        assert_eq!(nested(MAX_DEPTH - 1).matches("<blockquote>").count(), MAX_DEPTH - 1);
        assert!(nested(MAX_DEPTH - 1).contains("<p>deep</p>"));
        assert_eq!(nested(MAX_DEPTH).matches("<blockquote>").count(), MAX_DEPTH);
        assert!(nested(MAX_DEPTH).contains("deep") && !nested(MAX_DEPTH).contains("<p>"));
        assert_eq!(nested(MAX_DEPTH + 1), nested(MAX_DEPTH));
        let html = render(&format!("{}x\n\nafter", "1. ".repeat(1_000)));
        assert!(html.matches('<').count() < 100 && html.ends_with("<p>after</p>\n"), "{html}");
    }

    #[test]
    fn the_largest_messages_of_the_worst_kinds_render() {
        let max = convene_model::limits::MAX_TEXT_BYTES;
        for piece in [">", "1. ", "- ", "*a ", "[a](", "![", "~~a", "**a", "|\n", "http://a)", ")"]
        {
            let text = format!("http://a{}", piece.repeat(max / piece.len()));
            assert!(!render(&text).is_empty());
            assert!(render(&text["http://a".len()..]).len() < 20 * max, "{piece}");
        }
    }
}
