//! How a page of messages is set: which message carries a header, and where a day begins.
//!
//! The script sets messages by the same rules (`assets/js/items.js`), in the reader's time zone
//! where this module only knows UTC.

use convene_model::{
    Timestamp,
    event::{Author, RunStatus},
    history::{FinishedRun, Reactions},
    limits::EXCERPT_CHARS,
};

use super::{
    runs::{self, Calls},
    view::{MessageView, Names, PageView},
};

/// How long a message goes on under the header of the one before it, in milliseconds.
pub const GROUP_MILLIS: u64 = 5 * 60 * 1000;

/// One line of a conversation as the template prints it.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// The day that begins with this item, as people read it.
    pub day: Option<String>,
    /// The day that begins with this item, as `YYYY-MM-DD`.
    pub day_iso: String,
    /// `m-` and the message's id, or `r-` and the run's.
    pub anchor: String,
    /// The event's number.
    pub seq: u64,
    /// When, in epoch milliseconds.
    pub millis: u64,
    /// When, for the `datetime` attribute.
    pub iso: String,
    /// When, as `14:05` in UTC.
    pub clock: String,
    /// Whether it stands under the header of the one before.
    pub continued: bool,
    /// Whether an agent wrote it.
    pub agent: bool,
    /// The author's id.
    pub author_id: String,
    /// The author's name.
    pub name: String,
    /// The author's initials.
    pub initials: String,
    /// One of eight shades of the avatar.
    pub shade: u32,
    /// The sanitised fragment; empty when there is none.
    pub html: String,
    /// Whether the message was taken back.
    pub deleted: bool,
    /// Whether the message was changed.
    pub edited: bool,
    /// The message that it answers.
    pub quote: Option<Quote>,
    /// The reactions to it.
    pub reactions: Vec<Reactions>,
    /// The run's id, for what an agent wrote.
    pub run_id: Option<String>,
    /// How the run ended: a CSS class and a sentence.
    pub state: Option<(&'static str, String)>,
    /// What its run took, if nothing else says so; empty where nobody has said anything.
    pub spent: String,
    /// The tools that the run used.
    pub calls: Option<Calls>,
}

/// An answered message, as it is quoted above the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Quote {
    /// Which message.
    pub message_id: String,
    /// The name of its author; empty where the page does not have the message.
    pub name: String,
    /// What it says, in one line.
    pub text: String,
}

/// The items of a page, oldest first: its messages, and the runs that ended without one.
#[must_use]
pub fn items(page: &PageView, names: &Names) -> Vec<Item> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for message in &page.messages {
        let run = page.runs.iter().find(|run| {
            run.finished.message_id.as_ref() == Some(&message.message.posted.message_id)
        });
        entries.push(Entry {
            at: message.message.at,
            seq: message.message.seq,
            message: Some(message),
            run,
        });
    }
    for run in &page.runs {
        let shown =
            run.finished.message_id.is_some() || run.finished.status == RunStatus::Completed;
        if !shown {
            entries.push(Entry { at: run.at, seq: run.seq, message: None, run: Some(run) });
        }
    }
    entries.sort_by_key(|entry| entry.seq);
    let mut set = Setting::default();
    let mut items: Vec<Item> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let Some(mut item) = set.item(entry, names) else { continue };
        item.quote = entry.message.and_then(|message| quote(page, message, names));
        items.push(item);
    }
    items
}

/// What a message of a page answers.
fn quote(page: &PageView, answer: &MessageView, names: &Names) -> Option<Quote> {
    let id = answer.message.posted.reply_to.as_ref().filter(|_| !answer.message.deleted)?;
    let near = page.messages.iter().map(|message| &message.message);
    let near = near.map(|m| (&m.posted.message_id, &m.posted.author, &m.posted.text, m.deleted));
    let far = page.answered.iter().map(|m| (&m.message_id, &m.author, &m.text, m.deleted));
    let found = near.chain(far).find(|(found, ..)| *found == id);
    let (name, text) = match found {
        Some((_, author, _, true)) => (names.of(author).2, "This message was deleted.".to_owned()),
        Some((_, author, text, false)) => (names.of(author).2, plain(text)),
        None => (String::new(), "…".to_owned()),
    };
    Some(Quote { message_id: id.to_string(), name, text })
}

/// The beginning of a text in one line, without the marks that only matter when it is set.
fn plain(text: &str) -> String {
    let beginning: String = text.chars().take(EXCERPT_CHARS).collect();
    let mut words: Vec<String> = Vec::new();
    for line in beginning.lines() {
        let line = line.trim_start_matches(|c: char| c == '#' || c == '>' || c.is_whitespace());
        let line = if line.starts_with("```") { "" } else { line };
        words.extend(line.split_whitespace().map(|word| word.replace("**", "").replace('`', "")));
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

struct Entry<'a> {
    at: Timestamp,
    seq: u64,
    message: Option<&'a MessageView>,
    run: Option<&'a FinishedRun>,
}

/// What the item before decides for the next one.
#[derive(Default)]
struct Setting {
    day: u64,
    header: Option<(Author, Timestamp)>,
}

impl Setting {
    fn item(&mut self, entry: &Entry<'_>, names: &Names) -> Option<Item> {
        let author = match (entry.message, entry.run) {
            (Some(message), _) => message.message.posted.author.clone(),
            (None, Some(run)) => Author::Agent(run.finished.agent_id.clone()),
            (None, None) => return None,
        };
        let day = entry.at.millis() / DAY_MILLIS;
        let new_day = self.header.is_none() || day != self.day;
        let continued = !new_day
            && self.header.as_ref().is_some_and(|(who, since)| {
                *who == author && entry.at.millis().saturating_sub(since.millis()) <= GROUP_MILLIS
            });
        if !continued {
            self.header = Some((author.clone(), entry.at));
        }
        self.day = day;
        let (agent, author_id, name) = names.of(&author);
        let text = Civil::of(entry.at);
        Some(Item {
            day: new_day.then(|| text.day()),
            day_iso: text.iso_day(),
            anchor: match (entry.message, entry.run) {
                (Some(message), _) => format!("m-{}", message.message.posted.message_id),
                (None, Some(run)) => format!("r-{}", run.finished.run_id),
                (None, None) => String::new(),
            },
            seq: entry.seq,
            millis: entry.at.millis(),
            iso: text.iso(),
            clock: text.clock(),
            continued,
            agent,
            initials: initials(&name),
            shade: shade(&author_id),
            author_id,
            name,
            html: entry.message.map(|message| message.html.clone()).unwrap_or_default(),
            deleted: entry.message.is_some_and(|message| message.message.deleted),
            edited: entry.message.is_some_and(|message| message.message.edited_at.is_some()),
            quote: None,
            reactions: entry.message.map(|m| m.message.reactions.clone()).unwrap_or_default(),
            run_id: entry.run.map(|run| run.finished.run_id.to_string()),
            state: entry.run.map(runs::state),
            spent: entry.run.map(runs::spent).unwrap_or_default(),
            calls: entry.run.and_then(|run| runs::calls(run, names)),
        })
    }
}

/// Up to two letters that stand for a name.
#[must_use]
pub fn initials(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    let letters = match words.as_slice() {
        [] => return "?".to_owned(),
        [only] => only.chars().next().into_iter().collect::<String>(),
        [first, .., last] => first.chars().next().into_iter().chain(last.chars().next()).collect(),
    };
    letters.to_uppercase()
}

/// One of eight shades, from the id alone: the same person looks the same everywhere.
#[must_use]
pub fn shade(id: &str) -> u32 {
    id.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 8
}

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The name of the nth month of a year, from 1.
pub(crate) fn month_name(nth: usize) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    NAMES.get(nth.saturating_sub(1)).copied().unwrap_or_default()
}

/// A moment in the proleptic Gregorian calendar, UTC.
pub(super) struct Civil {
    year: u64,
    month: usize,
    day: u64,
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// The calendar's view of `at` (Howard Hinnant's `civil_from_days`).
    pub(super) fn of(at: Timestamp) -> Self {
        let days = at.millis() / DAY_MILLIS;
        let seconds = at.secs() % 86_400;
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let of_era = shifted % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month: month as usize,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            weekday: ((days + 4) % 7) as usize,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    fn iso_day(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// For a `datetime` attribute.
    pub(super) fn iso(&self) -> String {
        format!("{}T{:02}:{:02}:{:02}Z", self.iso_day(), self.hour, self.minute, self.second)
    }

    pub(super) fn clock(&self) -> String {
        format!("{:02}:{:02}", self.hour, self.minute)
    }

    /// `Friday, 20 November 2026`.
    pub(super) fn day(&self) -> String {
        const WEEKDAYS: [&str; 7] =
            ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        let month = month_name(self.month);
        let weekday = WEEKDAYS.get(self.weekday).copied().unwrap_or_default();
        format!("{weekday}, {} {month} {}", self.day, self.year)
    }

    /// `20 November 2026`.
    pub(super) fn date(&self) -> String {
        self.day().split_once(", ").map(|(_, date)| date.to_owned()).unwrap_or_default()
    }
}
