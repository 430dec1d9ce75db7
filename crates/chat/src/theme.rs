//! Colours, or none where the person said so (`NO_COLOR`).

use std::hash::{DefaultHasher, Hash, Hasher};

use convene_model::event::Author;
use ratatui::style::{Color, Modifier, Style};

/// Colours of authors: those that read well on dark and on light.
const AUTHORS: [Color; 5] = [Color::Cyan, Color::Green, Color::Magenta, Color::Yellow, Color::Blue];

/// How things look. Meaning never hangs on a colour alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    colour: bool,
}

impl Theme {
    /// By the environment: <https://no-color.org>.
    pub(crate) fn from_environment() -> Self {
        Self { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self { colour: false }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(crate) fn author(self, author: &Author) -> Style {
        let mut hash = DefaultHasher::new();
        author.hash(&mut hash);
        let place = hash.finish() % AUTHORS.len() as u64;
        self.coloured(AUTHORS[place as usize]).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn dim(self) -> Style {
        self.coloured(Color::DarkGray).add_modifier(Modifier::DIM)
    }

    pub(crate) fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(crate) fn code(self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub(crate) fn new_line(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub(crate) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn mention(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
