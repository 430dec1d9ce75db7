//! A page of an archived group's history, from one range read.
//!
//! The index says which members hold the page; they lie side by side. What comes out is what the
//! group's own storage would have answered.

use std::{collections::HashSet, ops::Range, sync::Arc};

use bytes::Bytes;
use convene_model::{
    archive::{IndexEntry, Line, LineKind, Manifest, MessageLine, RunLine, Section},
    history::{HistoryPage, HistoryQuery},
};
use futures_util::TryStreamExt;
use object_store::ObjectStore;

use crate::{
    blocking,
    error::ArchiveError,
    reader::{Stored, kinds, stored},
};

/// Answers `query` from the snapshot, like `GET /groups/{id}/history` of the group itself.
///
/// # Errors
/// [`ArchiveError::PageSize`], [`ArchiveError::Corrupt`], [`ArchiveError::Store`].
pub async fn page(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    query: HistoryQuery,
) -> Result<HistoryPage, ArchiveError> {
    let limit = query.page_size().map_err(ArchiveError::PageSize)?;
    let index: Vec<IndexEntry> =
        manifest.index.iter().filter(|entry| entry.section == Section::Messages).cloned().collect();
    let wanted = Wanted::of(query, limit, manifest.last_seq);
    let span = wanted.span(&index);
    let outside = Outside {
        before: index[..span.start].iter().any(|entry| entry.messages > 0),
        after: index[span.end..].iter().any(|entry| entry.messages > 0),
    };
    let path = manifest.content_path();
    let members: Vec<Stored> =
        stored(store, path.clone(), manifest.bytes, index[span].to_vec()).try_collect().await?;
    let (head, history) = (manifest.last_seq, manifest.history.clone());
    blocking::run(move || {
        let cut = wanted.cut(&members, outside, &path)?;
        Ok(HistoryPage {
            answered: answered(&cut.messages),
            messages: cut.messages.into_iter().map(|line| line.message).collect(),
            runs: cut.runs.into_iter().map(|line| line.run).collect(),
            more_before: cut.more_before,
            more_after: cut.more_after,
            head,
            history,
        })
    })
    .await?
}

/// What of the group is asked for: `back` messages up to `last`, the newest of those after `after`,
/// and `forth` messages that follow on `last`.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    after: u64,
    last: u64,
    back: Option<usize>,
    forth: Option<usize>,
}

/// Whether there are messages beyond the members that are read.
#[derive(Debug, Clone, Copy)]
struct Outside {
    before: bool,
    after: bool,
}

struct Page {
    messages: Vec<MessageLine>,
    runs: Vec<RunLine>,
    more_before: bool,
    more_after: bool,
}

impl Wanted {
    fn of(query: HistoryQuery, limit: usize, head: u64) -> Self {
        let after = query.after.unwrap_or(0);
        match (query.around, query.before) {
            (Some(around), _) => {
                let last = around.saturating_sub(1).min(head);
                let back = limit / 2;
                Self { after: 0, last, back: Some(back), forth: Some(limit - back) }
            }
            (None, None) if query.after.is_some() => {
                Self { after, last: after, back: None, forth: Some(limit) }
            }
            (None, before) => {
                let last = before.map_or(head, |before| before.saturating_sub(1).min(head));
                Self { after, last, back: Some(limit), forth: None }
            }
        }
    }

    /// The members that hold the page and what decides about its edges.
    fn span(&self, index: &[IndexEntry]) -> Range<usize> {
        // The first member that has a line after `last`; it may begin before it.
        let split = index.partition_point(|entry| entry.last_seq <= self.last);
        let mut end = split;
        if let Some(forth) = self.forth {
            // One message more: runs belong to the page up to the message that follows it.
            let mut missing = forth as u64 + 1;
            while let Some(entry) = index.get(end).filter(|_| missing > 0) {
                let whole = entry.first_seq > self.last;
                missing = missing.saturating_sub(if whole { entry.messages } else { 0 });
                end += 1;
            }
        }
        let mut start = split;
        if let Some(back) = self.back {
            let parted = index.get(split).filter(|entry| entry.first_seq <= self.last);
            end = end.max(split + usize::from(parted.is_some()));
            let mut missing = back.max(1) as u64;
            while let Some(entry) = start.checked_sub(1).and_then(|at| index.get(at)) {
                let beyond = missing == 0 || entry.last_seq <= self.after;
                // Where no message lies before the page, all runs from the beginning belong to it.
                if beyond && index[..start].iter().any(|entry| entry.messages > 0) {
                    break;
                }
                missing = missing.saturating_sub(entry.messages);
                start -= 1;
            }
        }
        start..end
    }

    fn cut(&self, members: &[Stored], outside: Outside, path: &str) -> Result<Page, ArchiveError> {
        let corrupt = |problem: String| ArchiveError::corrupt(path, problem);
        let mut lines = Vec::new();
        for member in members {
            let plain = member.open(path)?;
            lines.extend(kinds(&member.entry, &plain).map_err(corrupt)?);
        }
        let is_message = |(kind, _): &&(LineKind, Bytes)| matches!(kind, LineKind::Message(_));
        let middle = lines.partition_point(|(kind, _)| kind.seq() <= self.last);
        let (earlier, later) = lines.split_at(middle);

        let mut begin = middle;
        let mut taken = 0;
        // The nearest message before the page; `Some(0)` for one in a member before these.
        let mut before = None;
        if let Some(back) = self.back {
            for (at, line) in earlier.iter().enumerate().rev() {
                if is_message(&line) {
                    if taken == back || line.0.seq() <= self.after {
                        before = Some(line.0.seq());
                        break;
                    }
                    taken += 1;
                }
                begin = at;
            }
        } else {
            before = earlier.iter().rev().find(is_message).map(|line| line.0.seq());
        }
        let before = before.or(outside.before.then_some(0));

        let mut end = middle;
        let mut more_after = false;
        if let Some(forth) = self.forth {
            let mut taken = 0;
            for (at, line) in later.iter().enumerate() {
                if is_message(&line) {
                    if taken == forth {
                        more_after = true;
                        break;
                    }
                    taken += 1;
                }
                end = middle + at + 1;
            }
        } else {
            more_after = later.iter().any(|line| is_message(&line));
        }
        more_after |= outside.after;

        let mut page = Page {
            messages: Vec::new(),
            runs: Vec::new(),
            more_before: before.is_some(),
            more_after,
        };
        for (kind, line) in &lines[begin..end] {
            match Line::parse(line).map_err(|error| corrupt(format!("{kind:?}: {error}")))? {
                Line::Message(message) => page.messages.push(message),
                Line::Run(run) => page.runs.push(run),
                Line::Header(_) | Line::State(_) | Line::Event(_) | Line::Trailer(_) => {}
            }
        }
        if let Some(before) = before {
            let first = page.messages.first().map(|message| message.seq);
            let begin = first.unwrap_or(before.max(self.after));
            page.runs.retain(|run| run.seq > begin);
        }
        Ok(page)
    }
}

/// What messages of a page answer and is not in the page itself.
fn answered(page: &[MessageLine]) -> Vec<convene_model::history::Excerpt> {
    let mut known: HashSet<_> = page.iter().map(|line| &line.message.posted.message_id).collect();
    let mut answered = Vec::new();
    for line in page.iter().filter(|line| !line.message.deleted) {
        let Some(id) = &line.message.posted.reply_to else { continue };
        if known.insert(id) {
            answered.extend(line.answers.clone());
        }
    }
    answered
}
