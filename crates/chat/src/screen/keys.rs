//! What each key does.

use std::time::Duration;

use convene_model::frame::ClientFrame;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::text::Line;
use tokio::time::Instant;

use super::{Completion, Over, Purpose, Report, Session, Wanted};
use crate::{
    ChatError,
    command::COMMANDS,
    picker::Picker,
    terminal::Screen,
    view::{self, Drawn, Scroll},
};

/// How often others are told that the person is writing.
const TYPING_EVERY: Duration = Duration::from_secs(3);

impl Session {
    pub(super) fn key(
        &mut self,
        key: KeyEvent,
        drawn: Drawn,
        screen: &mut Screen,
    ) -> Result<(), ChatError> {
        if key.kind == KeyEventKind::Release {
            return Ok(());
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.interrupt(),
            KeyCode::Char('l') if control => screen.terminal().clear()?,
            _ if self.picker.is_some() => self.picker_key(key),
            _ => self.conversation_key(key, drawn),
        }
        Ok(())
    }

    /// Empties the composer first, so that one wrong key loses no text and ends nothing.
    fn interrupt(&mut self) {
        match &mut self.open {
            Some(open) if self.picker.is_none() && !open.editor.is_empty() => {
                open.editor.take();
                open.purpose = Purpose::New;
                self.say("Ctrl+C once more leaves.");
            }
            Some(_) | None => self.ended = Some(None),
        }
    }

    pub(super) fn paste(&mut self, text: &str) {
        if let Some(picker) = &mut self.picker {
            text.chars().filter(|c| !c.is_control()).for_each(|c| picker.type_char(c));
        } else if let Some(open) = &mut self.open {
            open.editor.insert(text);
        }
    }

    fn picker_key(&mut self, key: KeyEvent) {
        let Some(picker) = &mut self.picker else { return };
        match key.code {
            KeyCode::Up => picker.move_by(-1),
            KeyCode::Down => picker.move_by(1),
            KeyCode::PageUp => picker.move_by(-10),
            KeyCode::PageDown => picker.move_by(10),
            KeyCode::Backspace => picker.backspace(),
            KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
                picker.type_char(c);
            }
            KeyCode::Enter => {
                if let Some(group) = picker.choose() {
                    self.open(group);
                }
            }
            KeyCode::Esc if self.open.is_some() => self.picker = None,
            KeyCode::Esc => self.ended = Some(None),
            _ => {}
        }
    }

    /// Shows the list of groups, with what was unread a moment ago.
    pub(super) fn choose_group(&mut self, filter: &str) {
        let mut picker = Picker::new(Vec::new());
        picker.filter = filter.to_owned();
        self.picker = Some(picker);
        let (api, reports) = (self.api.clone(), self.reports.clone());
        tokio::spawn(async move {
            let _ = reports.send(Report::Groups(api.groups().await)).await;
        });
    }

    fn conversation_key(&mut self, key: KeyEvent, drawn: Drawn) {
        if self.overlay_key(key) {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let shift = key.modifiers.contains(KeyModifiers::SHIFT);
        let page = drawn.height.saturating_sub(2).max(1) as isize;
        let Some(open) = &mut self.open else { return };
        if key.code != KeyCode::Tab {
            open.completion = None;
        }
        let editor = &mut open.editor;
        match key.code {
            KeyCode::Enter if alt || shift => editor.insert("\n"),
            KeyCode::Char('j') if control => editor.insert("\n"),
            KeyCode::Enter => self.submit(),
            KeyCode::Tab => self.complete(),
            KeyCode::PageUp => self.scroll(drawn, -page),
            KeyCode::PageDown => self.scroll(drawn, page),
            KeyCode::Home if editor.is_empty() || control => self.scroll(drawn, isize::MIN / 2),
            KeyCode::End if editor.is_empty() || control => self.go_to_newest(),
            KeyCode::Up if alt => self.choose(-1),
            KeyCode::Down if alt => self.choose(1),
            KeyCode::Up if editor.is_empty() => self.edit_last(),
            KeyCode::Up => _ = editor.up(),
            KeyCode::Down => _ = editor.down(),
            KeyCode::Left if control || alt => editor.word_left(),
            KeyCode::Right if control || alt => editor.word_right(),
            KeyCode::Left => editor.left(),
            KeyCode::Right => editor.right(),
            KeyCode::Home => editor.home(),
            KeyCode::End => editor.end(),
            KeyCode::Backspace if control || alt => editor.delete_word(),
            KeyCode::Backspace => editor.backspace(),
            KeyCode::Delete => editor.delete(),
            KeyCode::Esc => self.back(),
            KeyCode::Char(c) if control => match c {
                'a' => editor.home(),
                'e' => editor.end(),
                'w' | 'h' => editor.delete_word(),
                'u' => editor.delete_line(),
                'x' => self.stop_agents(),
                'g' => self.choose_group(""),
                'd' if editor.is_empty() => self.ended = Some(None),
                _ => {}
            },
            KeyCode::Char(c) if !alt => {
                editor.insert(c.encode_utf8(&mut [0; 4]));
                self.typed();
            }
            _ => {}
        }
    }

    /// Keys of what lies over the conversation; `false` when nothing does.
    fn overlay_key(&mut self, key: KeyEvent) -> bool {
        let Some(open) = &mut self.open else { return true };
        match &mut open.over {
            Over::Nothing => return false,
            Over::Help | Over::Why(_) => open.over = Over::Nothing,
            Over::Delete(id) => {
                let id = id.clone();
                open.over = Over::Nothing;
                if matches!(key.code, KeyCode::Char('y' | 'Y')) {
                    self.delete(id);
                }
            }
            Over::Hits { hits, chosen, .. } => match key.code {
                KeyCode::Up => *chosen = chosen.saturating_sub(1),
                KeyCode::Down => *chosen = (*chosen + 1).min(hits.len().saturating_sub(1)),
                KeyCode::Enter => {
                    if let Some(hit) = hits.get(*chosen) {
                        let seq = hit.message.seq;
                        open.over = Over::Nothing;
                        self.jump(seq);
                    }
                }
                KeyCode::Esc => open.over = Over::Nothing,
                _ => {}
            },
        }
        true
    }

    /// One step back: out of a purpose, a choice, the past.
    fn back(&mut self) {
        let Some(open) = &mut self.open else { return };
        self.notice = None;
        match open.purpose {
            Purpose::Edit(_) => {
                open.editor.take();
                open.purpose = Purpose::New;
            }
            Purpose::Reply(_) => open.purpose = Purpose::New,
            Purpose::New if open.chosen.is_some() => open.chosen = None,
            Purpose::New => self.go_to_newest(),
        }
    }

    fn go_to_newest(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.chosen = None;
        if open.room.reaches_now {
            open.scroll = Scroll::Bottom;
        } else {
            self.load(Wanted::Newest);
        }
    }

    fn scroll(&mut self, drawn: Drawn, by: isize) {
        let theme = self.theme;
        let Some(open) = &mut self.open else { return };
        open.scroll = view::scrolled(&open.shown(theme, Line::default()), drawn, by);
        if by < 0 && drawn.at_top {
            self.load(Wanted::Older);
        }
    }

    /// Moves the choice of a message, and the view with it.
    fn choose(&mut self, by: isize) {
        let Some(open) = &mut self.open else { return };
        let messages = &open.room.messages;
        let next = match (open.chosen, by < 0) {
            (None, true) => messages.keys().next_back(),
            (None, false) => None,
            (Some(chosen), true) => messages.range(..chosen).next_back().map(|(seq, _)| seq),
            (Some(chosen), false) => messages.range(chosen + 1..).next().map(|(seq, _)| seq),
        };
        let at_top = next.is_none() && by < 0;
        if let Some(seq) = next.copied() {
            open.look_at(seq);
            if messages_after(open, seq) < 3 && open.room.reaches_now {
                open.scroll = Scroll::Bottom;
            }
        } else if by > 0 {
            open.chosen = None;
        }
        if at_top {
            self.load(Wanted::Older);
        }
    }

    /// Tells the others, not too often, that the person is writing.
    fn typed(&mut self) {
        let Some(open) = &mut self.open else { return };
        let due = open.typed_at.is_none_or(|at| at.elapsed() >= TYPING_EVERY);
        if due && open.room.attached && !open.editor.text().starts_with('/') {
            open.typed_at = Some(Instant::now());
            open.send(&[ClientFrame::Typing {}]);
        }
    }

    /// Completes the name or command before the cursor; again, the next that fits.
    fn complete(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.completion.is_none() {
            open.completion = candidates(open);
        }
        let Some(completion) = &mut open.completion else { return };
        let Some(text) = completion.candidates.get(completion.next) else { return };
        open.editor.replace_from(completion.from, text);
        completion.next = (completion.next + 1) % completion.candidates.len();
    }
}

fn messages_after(open: &super::Open, seq: u64) -> usize {
    open.room.messages.range(seq + 1..).take(3).count()
}

fn candidates(open: &super::Open) -> Option<Completion> {
    if let Some((0, word)) = open.editor.tagged_word('/') {
        let fits = COMMANDS.iter().filter(|(name, ..)| name[1..].starts_with(word));
        let candidates: Vec<_> = fits.map(|(name, ..)| format!("{name} ")).collect();
        return (!candidates.is_empty()).then_some(Completion { from: 0, candidates, next: 0 });
    }
    let (from, word) = open.editor.tagged_word('@')?;
    let lower = word.to_lowercase();
    let names = open.room.mentionable();
    let fits = names.iter().filter(|name| name.to_lowercase().starts_with(&lower));
    let candidates: Vec<_> = fits.map(|name| format!("@{name} ")).collect();
    (!candidates.is_empty()).then_some(Completion { from, candidates, next: 0 })
}
