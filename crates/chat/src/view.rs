//! What stands on the screen: title, conversation, state line, composer, and what lies over them.

use std::{cell::RefCell, collections::HashMap};

use convene_model::{
    Timestamp,
    event::Author,
    history::{Hit, Message},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph},
};
use unicode_width::UnicodeWidthStr;

use crate::{
    command::COMMANDS, editor::Editor, markdown, picker::Picker, room::Room, runs_view,
    text::excerpt, theme::Theme,
};

/// Messages of one author within this time stand under one heading.
const SAME_HEADING: std::time::Duration = std::time::Duration::from_secs(5 * 60);
/// Lines of the composer at most.
const MAX_COMPOSER_LINES: usize = 8;
/// Columns of the conversation at most: longer lines are hard to read.
const MAX_TEXT_WIDTH: usize = 110;

/// What is shown, beside the room itself.
pub(crate) struct Shown<'a> {
    pub(crate) title: &'a str,
    pub(crate) org: &'a str,
    /// The connection in words, and whether it is well.
    pub(crate) connection: (String, bool),
    pub(crate) room: &'a Room,
    pub(crate) chosen: Option<u64>,
    pub(crate) editor: &'a Editor,
    /// What the composer is for, where it is not for a new message.
    pub(crate) purpose: Option<String>,
    /// The lowest line that is shown: at the bottom, or a message and a line of it.
    pub(crate) scroll: Scroll,
    pub(crate) state: Line<'static>,
    pub(crate) loading: bool,
    pub(crate) theme: Theme,
    pub(crate) cache: &'a Cache,
}

/// Which part of the conversation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scroll {
    /// The newest, and what comes.
    Bottom,
    /// The lowest line: a line of a message.
    At { seq: u64, line: usize },
}

/// Messages as lines, kept as long as neither they nor the width change.
#[derive(Debug, Default)]
pub(crate) struct Cache(RefCell<HashMap<(u64, usize), Folded>>);

/// A text and what became of it.
type Folded = (String, Vec<Line<'static>>);

impl Cache {
    fn body(&self, message: &Message, width: usize, theme: Theme) -> Vec<Line<'static>> {
        let mut kept = self.0.borrow_mut();
        if kept.len() > 5000 {
            kept.clear();
        }
        let text = &message.posted.text;
        let entry = kept.entry((message.seq, width)).or_default();
        if entry.0 != *text || entry.1.is_empty() {
            *entry = (text.clone(), markdown::render(text, width, theme));
        }
        entry.1.clone()
    }
}

/// What was drawn, as the keys need it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drawn {
    /// Columns of the conversation's texts.
    pub(crate) width: usize,
    /// Lines of the conversation that fit.
    pub(crate) height: usize,
    /// Whether the first line there is can be seen.
    pub(crate) at_top: bool,
    /// Whether the last one can be seen.
    pub(crate) at_bottom: bool,
}

/// The lines of the conversation, each with the message that it belongs to.
type Lines = Vec<(u64, Line<'static>)>;

/// Draws the conversation.
pub(crate) fn conversation(frame: &mut Frame<'_>, shown: &Shown<'_>) -> Drawn {
    let area = frame.area();
    let inner = usize::from(area.width.saturating_sub(2));
    let (lines, (column, row)) = shown.editor.layout(inner);
    let rows = lines.len().clamp(1, MAX_COMPOSER_LINES);
    let [top, middle, state, composer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(rows as u16 + 1),
    ])
    .areas(area);

    title(frame, top, shown);
    let drawn = messages(frame, middle, shown);
    frame.render_widget(Paragraph::new(shown.state.clone()), state);

    let first = (row + 1).saturating_sub(rows);
    let label = shown.purpose.clone().unwrap_or_else(|| "message".to_owned());
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(shown.theme.dim())
        .title(Span::styled(format!(" {label} "), shown.theme.dim()));
    let text: Vec<Line<'_>> =
        lines.iter().skip(first).take(rows).map(|line| Line::raw(line.as_str())).collect();
    let within = block.inner(composer);
    frame.render_widget(block, composer);
    let [sign, field] =
        Layout::horizontal([Constraint::Length(2), Constraint::Min(1)]).areas(within);
    frame.render_widget(Paragraph::new(Span::styled(">", shown.theme.dim())), sign);
    frame.render_widget(Paragraph::new(text), field);
    frame.set_cursor_position(Position::new(
        field.x + column as u16,
        field.y + (row - first) as u16,
    ));
    drawn
}

fn title(frame: &mut Frame<'_>, area: Rect, shown: &Shown<'_>) {
    let (connection, well) = &shown.connection;
    let here = shown.room.present.len();
    let mut right = match (well, here) {
        (true, 2..) => format!("{here} here  ● {connection} "),
        (true, _) => format!("● {connection} "),
        (false, _) => format!("○ {connection} "),
    };
    if shown.room.paused {
        right = format!("agents are paused  {right}");
    }
    let width = usize::from(area.width);
    let room = width.saturating_sub(right.width() + 2);
    let left = excerpt(&format!("{} · {}", shown.title, shown.org), room.saturating_sub(2));
    let gap = width.saturating_sub(left.width() + right.width() + 1);
    let style = if *well { shown.theme.bar() } else { shown.theme.bar().patch(shown.theme.bad()) };
    let text = format!(" {left}{}{right}", " ".repeat(gap));
    frame.render_widget(Paragraph::new(Span::styled(text, style)), area);
}

/// Where the conversation is scrolled to from `shown` by so many lines, down when positive.
pub(crate) fn scrolled(shown: &Shown<'_>, drawn: Drawn, by: isize) -> Scroll {
    let lines = lines(shown, drawn.width);
    let bottom = bottom(&lines, shown.scroll, drawn.height);
    let moved = bottom.saturating_add_signed(by).clamp(drawn.height.min(lines.len()), lines.len());
    if moved == lines.len() {
        return Scroll::Bottom;
    }
    let seq = lines[moved.saturating_sub(1)].0;
    let first = lines.partition_point(|(of, _)| *of < seq);
    Scroll::At { seq, line: moved.saturating_sub(1) - first }
}

/// The end of the lines that are shown.
fn bottom(lines: &Lines, scroll: Scroll, height: usize) -> usize {
    match scroll {
        Scroll::Bottom => lines.len(),
        Scroll::At { seq, line } => {
            let first = lines.partition_point(|(of, _)| *of < seq);
            let count = lines[first..].iter().take_while(|(of, _)| *of == seq).count();
            (first + line.min(count.saturating_sub(1)) + 1).max(height).min(lines.len())
        }
    }
}

fn messages(frame: &mut Frame<'_>, area: Rect, shown: &Shown<'_>) -> Drawn {
    let width = usize::from(area.width.saturating_sub(3)).min(MAX_TEXT_WIDTH);
    let lines = lines(shown, width);
    let height = usize::from(area.height);
    let bottom = bottom(&lines, shown.scroll, height);
    let top = bottom.saturating_sub(height);
    let visible: Vec<Line<'_>> = lines[top..bottom]
        .iter()
        .map(|(seq, line)| {
            let line = line.clone();
            if shown.chosen == Some(*seq) { line.style(shown.theme.selected()) } else { line }
        })
        .collect();
    // What there is stands at the bottom, beside the composer.
    let unused = (height - visible.len()) as u16;
    let area = Rect { y: area.y + unused, height: area.height - unused, ..area };
    frame.render_widget(Paragraph::new(visible), area);
    Drawn { width, height, at_top: top == 0, at_bottom: bottom == lines.len() }
}

/// The whole conversation as lines. Numbers of what has none yet are above all others.
fn lines(shown: &Shown<'_>, width: usize) -> Lines {
    let (room, theme) = (shown.room, shown.theme);
    let mut lines: Lines = Vec::new();
    let first = match (shown.loading, room.more_before) {
        (true, _) => "…",
        (false, true) => "PageUp for what came before",
        (false, false) => "This is where the conversation begins.",
    };
    lines.push((0, centred(first, width, theme.dim())));
    let mut former: Option<&Message> = None;
    let mut marked = false;
    for message in room.messages.values() {
        let seq = message.seq;
        let new_day = former.is_none_or(|former| day(former.at) != day(message.at));
        if new_day {
            lines.push((seq, rule(&day_in_words(message.at), width, theme.dim())));
        }
        let is_new = room.marker.is_some_and(|marker| seq > marker);
        if is_new && !marked && !room.is_me(&message.posted.author) {
            marked = true;
            lines.push((seq, rule("new", width, theme.new_line())));
        }
        let same = former.is_some_and(|former| {
            former.posted.author == message.posted.author
                && message.at.since(former.at) < SAME_HEADING
                && message.posted.reply_to.is_none()
        });
        if !same || new_day {
            if !new_day {
                lines.push((seq, Line::default()));
            }
            lines.push((seq, heading(room, &message.posted.author, Some(message.at), theme)));
        }
        of_message(&mut lines, shown, message, width);
        former = Some(message);
    }
    if !room.reaches_now {
        lines.push((u64::MAX - 3, rule("older messages · End for the newest", width, theme.dim())));
    }
    for run in room.runs.iter().filter(|run| runs_view::is_shown(run)) {
        let key = u64::MAX - 2;
        lines.push((key, Line::default()));
        lines.push((key, heading(room, &Author::Agent(run.agent_id.clone()), None, theme)));
        let body = runs_view::run(room, run, width, theme);
        lines.extend(body.into_iter().map(|line| (key, indented(line))));
    }
    for outgoing in &room.outgoing {
        if let convene_model::frame::ClientFrame::Post { text, .. } = &outgoing.frame {
            let key = u64::MAX - 1;
            lines.push((key, Line::default()));
            let waits = Span::styled("sending…", theme.dim());
            lines.push((key, Line::from(vec![Span::raw(" "), waits])));
            let body = markdown::render(text, width, theme);
            lines.extend(
                body.into_iter().map(|line| (key, indented(line).patch_style(theme.dim()))),
            );
        }
    }
    lines
}

fn of_message(lines: &mut Lines, shown: &Shown<'_>, message: &Message, width: usize) {
    let (room, theme, seq) = (shown.room, shown.theme, message.seq);
    if let Some(answered) = &message.posted.reply_to {
        let quoted = match room.message(answered) {
            Some(original) => {
                let name = room.name(&original.posted.author);
                let said = if original.deleted { "(taken back)" } else { &original.posted.text };
                format!("↪ {name}: {}", excerpt(said, width.saturating_sub(name.width() + 6)))
            }
            None => "↪ an earlier message".to_owned(),
        };
        lines.push((seq, Line::from(vec![Span::raw(" "), Span::styled(quoted, theme.dim())])));
    }
    if message.deleted {
        let gone = Span::styled("(taken back)", theme.dim().add_modifier(Modifier::ITALIC));
        lines.push((seq, Line::from(vec![Span::raw(" "), gone])));
        return;
    }
    let mut body = shown.cache.body(message, width, theme);
    if message.edited_at.is_some()
        && let Some(last) = body.last_mut()
    {
        last.push_span(Span::styled(" (edited)", theme.dim()));
    }
    lines.extend(body.into_iter().map(|line| (seq, indented(line))));
    if let Some(line) = runs_view::used(room.used(&message.posted.message_id), theme) {
        lines.push((seq, indented(line)));
    }
    if !message.reactions.is_empty() {
        let mut spans = vec![Span::raw(" ")];
        for reaction in &message.reactions {
            let mine = reaction.authors.iter().any(|author| room.is_me(author));
            let style = if mine { theme.mention() } else { theme.dim() };
            let mark = if mine { "*" } else { "" };
            let emoji = excerpt(&reaction.emoji, 8);
            spans.push(Span::styled(format!("{emoji} {}{mark}  ", reaction.count), style));
        }
        lines.push((seq, Line::from(spans)));
    }
}

fn heading(room: &Room, author: &Author, at: Option<Timestamp>, theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::styled(room.name(author), theme.author(author))];
    if let Author::Agent(_) = author {
        spans.push(Span::styled(" [agent]", theme.dim()));
    }
    if let Some(at) = at {
        spans.push(Span::styled(format!("  {}", clock(at)), theme.dim()));
    }
    Line::from(spans)
}

fn indented(mut line: Line<'static>) -> Line<'static> {
    line.spans.insert(0, Span::raw(" "));
    line
}

fn centred(text: &str, width: usize, style: Style) -> Line<'static> {
    let gap = width.saturating_sub(text.width()) / 2;
    Line::styled(format!("{}{text}", " ".repeat(gap)), style)
}

fn rule(text: &str, width: usize, style: Style) -> Line<'static> {
    let side = "─".repeat(width.saturating_sub(text.width() + 2) / 2);
    Line::styled(format!("{side} {text} {side}"), style)
}

/// Draws the list of groups.
pub(crate) fn picker(frame: &mut Frame<'_>, picker: &Picker, said: Option<&str>, theme: Theme) {
    let [top, list, bottom, field] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let width = usize::from(top.width);
    let bar = format!("{:<width$}", " Convene · choose a group");
    frame.render_widget(Paragraph::new(Span::styled(bar, theme.bar())), top);
    let groups = picker.shown();
    let height = usize::from(list.height);
    let from = (picker.chosen + 1).saturating_sub(height);
    let lines: Vec<Line<'_>> = groups
        .iter()
        .enumerate()
        .skip(from)
        .take(height)
        .map(|(place, group)| {
            let sign = if place == picker.chosen { "> " } else { "  " };
            let mut spans = vec![Span::raw(sign), Span::raw(group.title.clone())];
            if group.unread > 0 && !group.muted {
                spans[1].style = Style::new().add_modifier(Modifier::BOLD);
                let mentions = match group.mentions {
                    0 => String::new(),
                    count => format!(", {count} for you"),
                };
                let text = format!("  {} new{mentions}", group.unread);
                spans.push(Span::styled(text, theme.mention()));
            }
            if group.muted {
                spans.push(Span::styled("  muted", theme.dim()));
            }
            spans.push(Span::styled(format!("  {}", group.org), theme.dim()));
            let line = Line::from(spans);
            if place == picker.chosen { line.style(theme.selected()) } else { line }
        })
        .collect();
    let empty = groups.is_empty();
    frame.render_widget(Paragraph::new(lines), list);
    if empty {
        let text = Line::styled("  No group is called like that.", theme.dim());
        frame.render_widget(Paragraph::new(text), list);
    }
    let hint = said.unwrap_or("Type to find, ↑ ↓ to move, Enter to open, Esc to go back");
    frame.render_widget(Paragraph::new(Span::styled(format!(" {hint}"), theme.dim())), bottom);
    let text = format!("> {}", picker.filter);
    let column = text.width() as u16;
    frame.render_widget(Paragraph::new(text), field);
    frame.set_cursor_position(Position::new(field.x + column, field.y));
}

/// Draws what a search found, over the conversation.
pub(crate) fn hits(
    frame: &mut Frame<'_>,
    room: &Room,
    query: &str,
    hits: &[Hit],
    chosen: usize,
    theme: Theme,
) {
    let inside = overlay(frame, &format!(" search: {query} "), theme);
    if hits.is_empty() {
        let text = Line::styled("Nothing was found. Esc goes back.", theme.dim());
        return frame.render_widget(Paragraph::new(text), inside);
    }
    let height = usize::from(inside.height) / 2;
    let from = (chosen + 1).saturating_sub(height.max(1));
    let mut lines = Vec::new();
    for (place, hit) in hits.iter().enumerate().skip(from).take(height.max(1)) {
        let style = if place == chosen { theme.selected() } else { Style::new() };
        let message = &hit.message;
        let at = format!("{} {}", day(message.at), clock(message.at));
        let mut head = heading(room, &message.posted.author, None, theme);
        head.push_span(Span::styled(format!("  {at}"), theme.dim()));
        lines.push(head.style(style));
        let mut spans = vec![Span::raw("  ")];
        for piece in &hit.snippet {
            let style = if piece.hit { theme.mention() } else { Style::new() };
            spans.push(Span::styled(piece.text.replace('\n', " "), style));
        }
        lines.push(Line::from(spans).style(style));
    }
    frame.render_widget(Paragraph::new(lines), inside);
}

/// Draws the help, over the conversation.
pub(crate) fn help(frame: &mut Frame<'_>, theme: Theme) {
    const KEYS: &[(&str, &str)] = &[
        ("Enter", "send (Alt+Enter: another line)"),
        ("Tab", "complete @name or /command"),
        ("PageUp, PageDown", "scroll (Home: the first there is, End: the newest)"),
        ("Alt+↑, Alt+↓", "choose a message for a command"),
        ("↑ in an empty field", "reword your last message"),
        ("Ctrl+X", "stop the agents that are writing"),
        ("Ctrl+G", "go to another group"),
        ("Esc", "back"),
        ("Ctrl+C", "leave"),
    ];
    let inside = overlay(frame, " help ", theme);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (keys, does) in KEYS {
        lines.push(Line::from(vec![Span::styled(format!("{keys:<22}"), bold), (*does).into()]));
    }
    lines.push(Line::default());
    for (name, takes, does) in COMMANDS {
        let call = format!("{name} {takes}");
        lines.push(Line::from(vec![Span::styled(format!("{call:<22}"), bold), (*does).into()]));
    }
    frame.render_widget(Paragraph::new(lines), inside);
}

pub(crate) fn overlay(frame: &mut Frame<'_>, title: &str, theme: Theme) -> Rect {
    let area = frame.area();
    let across = area.width.saturating_sub(4).min(96);
    let down = area.height.saturating_sub(2).min(28);
    let area = Rect {
        x: (area.width - across) / 2,
        y: (area.height - down) / 2,
        width: across,
        height: down,
    };
    let block = Block::bordered().border_style(theme.dim()).title(title.to_owned());
    let inside = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    inside
}

/// The local day as `2026-11-20`.
pub(crate) fn day(at: Timestamp) -> String {
    local(at).map_or_else(String::new, |at| at.strftime("%Y-%m-%d").to_string())
}

/// The local time as `16:05`.
pub(crate) fn clock(at: Timestamp) -> String {
    local(at).map_or_else(String::new, |at| at.strftime("%H:%M").to_string())
}

fn day_in_words(at: Timestamp) -> String {
    local(at).map_or_else(String::new, |at| at.strftime("%A, %-d %B %Y").to_string())
}

fn local(at: Timestamp) -> Option<jiff::Zoned> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.millis()).ok()?).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::system()))
}
