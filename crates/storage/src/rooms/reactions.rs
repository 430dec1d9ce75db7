//! The reactions to messages: one row for each author and emoji on a message.

use std::collections::BTreeMap;

use convene_model::{
    AgentId, GroupKey, UserId, event::Author, history::Reactions, limits::MAX_REACTORS_LISTED,
};
use rusqlite::{Connection, params};

use crate::{
    pending::ReactionChange,
    rooms::{chunks::ChunkError, view::View},
    store::{error::StoreError, types::StoredReaction},
};

/// Keeps what a reaction's event says.
///
/// A row that was taken off stays until the same author puts the same emoji there again or the
/// message is deleted, so that a read which does not see the removal yet still finds it.
pub(crate) fn apply(
    connection: &Connection,
    key: &GroupKey,
    change: &ReactionChange,
) -> Result<(), rusqlite::Error> {
    let sql = if change.on {
        "INSERT INTO reactions (group_key, message_seq, emoji, author, seq)
         SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (SELECT 1 FROM message_changes
            WHERE group_key = ?1 AND message_seq = ?2 AND deleted)
         ON CONFLICT DO UPDATE SET seq = excluded.seq, removed = NULL WHERE removed IS NOT NULL"
    } else {
        "UPDATE reactions SET removed = ?5
         WHERE group_key = ?1 AND message_seq = ?2 AND emoji = ?3 AND author = ?4
            AND removed IS NULL"
    };
    connection.prepare_cached(sql)?.execute(params![
        &key.0[..],
        change.message_seq as i64,
        change.emoji,
        author_text(&change.author),
        change.seq as i64,
    ])?;
    Ok(())
}

/// Takes all reactions off a message that was deleted.
pub(crate) fn remove_all(
    connection: &Connection,
    key: &GroupKey,
    message_seq: u64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM reactions WHERE group_key = ?1 AND message_seq = ?2")?
        .execute(params![&key.0[..], message_seq as i64])?;
    Ok(())
}

/// The reactions to the messages from `first` to `last`, by message, each message's in the order in
/// which its emojis came.
pub(crate) fn of_messages(
    view: &View<'_>,
    first: u64,
    last: u64,
) -> Result<BTreeMap<u64, Vec<StoredReaction>>, StoreError> {
    let rows =
        view.reader.checked(view.key, |connection, key| read(connection, key, first, last))?;
    let mut by_place: BTreeMap<(u64, String, String), Row> = BTreeMap::new();
    for (place, row) in rows {
        by_place.insert(place, row);
    }
    for change in view.waiting.iter().flat_map(|batch| &batch.reactions) {
        if change.seq > view.upto || !(first..=last).contains(&change.message_seq) {
            continue;
        }
        let place = (change.message_seq, change.emoji.clone(), author_text(&change.author));
        let known = by_place.get_mut(&place);
        // What was carried over while this read began is known already.
        if known.as_ref().is_some_and(|row| change.seq <= row.removed.unwrap_or(row.seq)) {
            continue;
        }
        match (known, change.on) {
            (Some(row), false) if row.removed.is_none() => row.removed = Some(change.seq),
            (Some(row), true) if row.removed.is_some() => {
                *row = Row { seq: change.seq, removed: None, author: change.author.clone() };
            }
            (None, true) => {
                let author = change.author.clone();
                by_place.insert(place, Row { seq: change.seq, removed: None, author });
            }
            (Some(_) | None, _) => {}
        }
    }
    let mut standing: Vec<(u64, String, Row)> = by_place
        .into_iter()
        .map(|((message_seq, emoji, _), row)| (message_seq, emoji, row))
        .filter(|(_, _, row)| {
            row.seq <= view.upto && row.removed.is_none_or(|removed| removed > view.upto)
        })
        .collect();
    standing.sort_by_key(|(message_seq, _, row)| (*message_seq, row.seq));
    let mut found: BTreeMap<u64, Vec<StoredReaction>> = BTreeMap::new();
    for (message_seq, emoji, row) in standing {
        let reactions = found.entry(message_seq).or_default();
        match reactions.iter_mut().find(|reaction| reaction.emoji == emoji) {
            Some(reaction) => reaction.authors.push(row.author),
            None => reactions.push(StoredReaction { emoji, authors: vec![row.author] }),
        }
    }
    Ok(found)
}

/// Reactions as a page of history lists them.
pub(crate) fn listed(reactions: Vec<StoredReaction>) -> Vec<Reactions> {
    let listed = reactions.into_iter().map(|StoredReaction { emoji, mut authors }| {
        let count = authors.len() as u64;
        authors.truncate(MAX_REACTORS_LISTED);
        Reactions { emoji, count, authors }
    });
    listed.collect()
}

struct Row {
    seq: u64,
    removed: Option<u64>,
    author: Author,
}

type Place = (u64, String, String);

fn read(
    connection: &Connection,
    key: &GroupKey,
    first: u64,
    last: u64,
) -> Result<Vec<(Place, Row)>, ChunkError> {
    let mut statement = connection.prepare_cached(
        "SELECT message_seq, emoji, author, seq, removed FROM reactions
         WHERE group_key = ?1 AND message_seq BETWEEN ?2 AND ?3",
    )?;
    let last = i64::try_from(last).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![&key.0[..], first as i64, last])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let message_seq = row.get::<_, i64>(0)? as u64;
        let (emoji, text): (String, String) = (row.get(1)?, row.get(2)?);
        let author = parse_author(&text).ok_or_else(|| {
            ChunkError::Damaged(format!(
                "table reactions, message {message_seq}: {text:?} is no author"
            ))
        })?;
        let removed = row.get::<_, Option<i64>>(4)?.map(|seq| seq as u64);
        let seq = row.get::<_, i64>(3)? as u64;
        found.push(((message_seq, emoji, text), Row { seq, removed, author }));
    }
    Ok(found)
}

fn author_text(author: &Author) -> String {
    match author {
        Author::User(id) => format!("u:{}", id.as_str()),
        Author::Agent(id) => format!("a:{}", id.as_str()),
    }
}

fn parse_author(text: &str) -> Option<Author> {
    match text.split_once(':')? {
        ("u", id) => UserId::new(id).ok().map(Author::User),
        ("a", id) => AgentId::new(id).ok().map(Author::Agent),
        _ => None,
    }
}
