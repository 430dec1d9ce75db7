//! How runs are shown: the tools that an agent uses, what it asks leave for, and why it answers or not.

use convene_model::{agents::Usage, event::Author, tools::Approvers, tools::ToolStatus};
use ratatui::{
    Frame,
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};
use unicode_width::UnicodeWidthChar;

use crate::{
    api::{Why, WhyAgent, WhyRun},
    markdown,
    room::{Ask, Call, Room, Run},
    text,
    theme::Theme,
    view,
};

/// Whether there is anything to be seen of a run beside its state.
pub(crate) fn is_shown(run: &Run) -> bool {
    !run.text.is_empty() || !run.calls.is_empty() || !run.asks.is_empty()
}

/// A run that has not ended: its text so far, its tools, what it asks for.
pub(crate) fn run(room: &Room, run: &Run, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if !run.text.is_empty() {
        lines = markdown::render(&run.text, width, theme);
        if let Some(line) = lines.last_mut() {
            line.push_span(Span::styled("▌", theme.dim()));
        }
    }
    lines.extend(used(&run.calls, theme));
    for ask in &run.asks {
        lines.extend(asks(room, ask, width, theme));
    }
    lines
}

/// The tools that were used, in one line.
pub(crate) fn used(calls: &[Call], theme: Theme) -> Option<Line<'static>> {
    if calls.is_empty() {
        return None;
    }
    let names = calls.iter().map(|call| match call.status {
        Some(ToolStatus::Ok) => call.tool.clone(),
        None => format!("{}…", call.tool),
        Some(ToolStatus::Failed) => format!("{} (failed)", call.tool),
        Some(ToolStatus::Timeout) => format!("{} (took too long)", call.tool),
        Some(ToolStatus::Denied) => format!("{} (not allowed)", call.tool),
        Some(ToolStatus::Unknown) => format!("{} (cut off)", call.tool),
    });
    let names: Vec<String> = names.collect();
    Some(Line::styled(format!("tools: {}", names.join(", ")), theme.dim()))
}

/// What an agent asks leave for, with the exact arguments.
fn asks(room: &Room, ask: &Ask, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let requested = &ask.requested;
    let bold = theme.new_line().add_modifier(Modifier::BOLD);
    let mut lines =
        vec![Line::styled(format!("asks to use {}:", text::line(&requested.tool)), bold)];
    for line in wrapped(&text::clean(&requested.arguments), width.saturating_sub(2)) {
        lines.push(Line::from(vec![Span::raw("  "), Span::raw(line)]));
    }
    let who = match &requested.who {
        Approvers::Initiator => match &requested.initiator {
            Some(user) if *user == room.me => "for you to decide".to_owned(),
            Some(user) => format!("for {} to decide", room.name(&Author::User(user.clone()))),
            None => "nobody is left to decide".to_owned(),
        },
        Approvers::Role { role } => format!("for every {role} or higher to decide"),
        Approvers::NOfM { n, users } => {
            let names: Vec<_> =
                users.iter().map(|user| room.name(&Author::User(user.clone()))).collect();
            format!("{} of {n} have allowed it, of {}", ask.votes.len(), names.join(", "))
        }
    };
    let how = if room.may_decide(requested) { " · /approve or /deny" } else { "" };
    let until = view::clock(requested.expires_at);
    lines.push(Line::styled(format!("{who}, until {until}{how}"), theme.dim()));
    lines
}

/// A text in lines of so many columns, nothing left out.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let (mut part, mut columns) = (String::new(), 0);
        for letter in line.chars() {
            let wide = letter.width().unwrap_or(0);
            if columns + wide > width.max(1) {
                lines.push(std::mem::take(&mut part));
                columns = 0;
            }
            part.push(letter);
            columns += wide;
        }
        lines.push(part);
    }
    lines
}

/// Draws why agents answered a message or did not, over the conversation.
pub(crate) fn why(frame: &mut Frame<'_>, why: &Why, theme: Theme) {
    let inside = view::overlay(frame, " who answers, and why ", theme);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = Vec::new();
    for agent in &why.agents {
        let name = Span::styled(format!("{}: ", text::line(&agent.name)), bold);
        lines.push(Line::from(vec![name, Span::raw(reason(agent))]));
        if let Some(run) = &agent.run {
            lines.push(Line::styled(format!("  {}", outcome(run)), theme.dim()));
        }
    }
    if lines.is_empty() {
        lines.push(Line::styled("There were no agents in the group.", theme.dim()));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

fn reason(agent: &WhyAgent) -> String {
    let reason = agent.reason.as_deref().unwrap_or_default();
    let known = match (agent.outcome.as_str(), reason) {
        ("not_mentioned", _) => "it was not mentioned",
        ("accepted", "mention") => "it was mentioned",
        ("accepted", "reply") => "the message answers one of its own",
        ("accepted", "auto") => "it answers every message of a person",
        ("accepted", "discussion") => "an agent mentioned it, or it takes part in discussions",
        ("accepted", "continue") => "somebody let it answer",
        ("accepted", "retry") => "somebody let it try again",
        ("suppressed", "cooldown") => {
            "it answered a moment ago and rests (/continue lets it answer)"
        }
        ("suppressed", "max_rounds") => {
            "agents have answered each other as often as they may (/continue lets it answer)"
        }
        ("suppressed", "budget") => "the budget is used up",
        ("suppressed", "policy") => "it is switched off in this group",
        ("suppressed", "paused") => "all agents are paused",
        ("suppressed", "queue_full") => "too many runs wait already",
        ("suppressed", "already_queued") => "a run of it waits already and will see this too",
        // One of a later version.
        (outcome, reason) => return text::line(&format!("{outcome} {reason}")),
    };
    known.to_owned()
}

fn outcome(run: &WhyRun) -> String {
    let mut parts = vec![match (run.status.as_str(), &run.detail) {
        ("failed", Some(detail)) => format!("failed: {}", text::line(detail)),
        ("interrupted", _) => "interrupted by a restart".to_owned(),
        (status, _) => text::line(status),
    }];
    if !run.tools.is_empty() {
        let names: Vec<_> = run.tools.iter().map(|call| text::line(&call.tool)).collect();
        parts.push(format!("tools: {}", names.join(", ")));
    }
    if let Some(tokens) = run.usage.and_then(Usage::tokens) {
        parts.push(format!("{tokens} tokens"));
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_shown_whole_however_narrow_the_terminal() {
        let arguments = r#"{"url":"https://example.org/ä","ids":[12345678901234567890]}"#;
        let lines = wrapped(arguments, 10);
        assert!(lines.iter().all(|line| line.chars().count() <= 10));
        assert_eq!(lines.concat(), arguments);
        assert_eq!(wrapped("ab", 0), ["a", "b"]);
    }
}
