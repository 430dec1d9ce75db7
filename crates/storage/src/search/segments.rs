//! The segments of a group's index: each has the postings of a run of its messages, in blocks.
//!
//! What is new becomes a segment of its own; when there are enough at the end, they become one.
//! Segments never overlap, so the newest messages are found by reading them from the last to the
//! first, and everything of a group lies together, so that it goes at once. What an edit or a deletion
//! changes is changed where it lies; `secure_delete` overwrites what was there.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::search::blocks::{Block, Blocks, Entries, Hits, List, Lists};

/// The tables. A block is found by the first word in it and that word's first message.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE search_segments (
        group_no INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (group_no, first_seq)
    ) WITHOUT ROWID;
    CREATE TABLE search_blocks (
        group_no INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        term TEXT NOT NULL,
        seq INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (group_no, segment, term, seq)
    ) WITHOUT ROWID;";

/// From how many segments on those at the end are joined.
const MERGED_AT_ONCE: usize = 8;
/// Bytes from which on a segment stays as it is, so that no merge takes long.
const FINAL_BYTES: u64 = 512 * 1024;
/// Bytes that one merge takes, about.
const MERGE_BYTES: u64 = MERGED_AT_ONCE as u64 * FINAL_BYTES;

/// Changes of postings by word and message: the positions, or `None` where the posting goes.
pub(super) type PostingChanges = BTreeMap<(String, u64), Option<Vec<u8>>>;

/// The last message that a group's segments have room for; 0 when there are none.
pub(super) fn last_seq(connection: &Connection, group: i64) -> Result<u64, rusqlite::Error> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT last_seq FROM search_segments WHERE group_no = ?1
             ORDER BY first_seq DESC LIMIT 1",
        )?
        .query_row([group], |row| row.get(0))
        .optional()?;
    Ok(last.map_or(0, |last| last as u64))
}

/// The segment that a message belongs to, if any reaches that far back.
pub(super) fn segment_of(
    connection: &Connection,
    group: i64,
    seq: u64,
) -> Result<Option<u64>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT first_seq FROM search_segments WHERE group_no = ?1 AND first_seq <= ?2
             ORDER BY first_seq DESC LIMIT 1",
        )?
        .query_row([group, seq as i64], |row| Ok(row.get::<_, i64>(0)? as u64))
        .optional()
}

/// The segments with messages before `before`, the newest first.
pub(super) fn newest_first(
    connection: &Connection,
    group: i64,
    before: u64,
) -> Result<Vec<u64>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT first_seq FROM search_segments WHERE group_no = ?1 AND first_seq < ?2
             ORDER BY first_seq DESC",
        )?
        .query_map([group, before as i64], |row| Ok(row.get::<_, i64>(0)? as u64))?
        .collect()
}

/// Adds a segment with the messages `first` to `last`, which no other reaches into.
pub(super) fn add(
    connection: &Connection,
    group: i64,
    (first, last): (u64, u64),
    lists: Lists,
) -> Result<(), rusqlite::Error> {
    let blocks = lists.into_blocks()?;
    let bytes: usize = blocks.iter().map(|block| block.body.len()).sum();
    connection
        .prepare_cached(
            "INSERT INTO search_segments (group_no, first_seq, last_seq, bytes)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![group, first as i64, last as i64, bytes as i64])?;
    insert(connection, group, first, &blocks)
}

fn insert(
    connection: &Connection,
    group: i64,
    segment: u64,
    blocks: &[Block],
) -> Result<(), rusqlite::Error> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO search_blocks (group_no, segment, term, seq, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for Block { term, seq, body } in blocks {
        insert.execute(params![group, segment as i64, term, *seq as i64, body])?;
    }
    Ok(())
}

struct Segment {
    first: u64,
    last: u64,
    bytes: u64,
}

/// Joins segments at the end of a group while there are enough of a kind.
pub(super) fn merge(connection: &Connection, group: i64) -> Result<(), rusqlite::Error> {
    while let Some(newest) = to_be_merged(connection, group)? {
        let (first, last) = (newest[0].first, newest[newest.len() - 1].last);
        let mut lists = Lists::default();
        for segment in &newest {
            let mut blocks = connection.prepare_cached(
                "SELECT body FROM search_blocks WHERE group_no = ?1 AND segment = ?2
                 ORDER BY term, seq",
            )?;
            let mut rows = blocks.query([group, segment.first as i64])?;
            while let Some(row) = rows.next()? {
                lists.append(row.get_ref(0)?.as_blob()?)?;
            }
        }
        for segment in &newest {
            remove(connection, group, segment.first)?;
        }
        add(connection, group, (first, last), lists)?;
    }
    Ok(())
}

/// The segments at the end that are to become one, the oldest of them first.
///
/// Each is at most twice as large as those after it together, so a posting is written anew only when
/// what it lies in grows by half.
fn to_be_merged(
    connection: &Connection,
    group: i64,
) -> Result<Option<Vec<Segment>>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT first_seq, last_seq, bytes FROM search_segments WHERE group_no = ?1
         ORDER BY first_seq DESC",
    )?;
    let mut rows = statement.query([group])?;
    let (mut found, mut total) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let segment = Segment {
            first: row.get::<_, i64>(0)? as u64,
            last: row.get::<_, i64>(1)? as u64,
            bytes: row.get::<_, i64>(2)? as u64,
        };
        let is_larger = !found.is_empty() && segment.bytes > total * 2;
        if segment.bytes >= FINAL_BYTES || is_larger || total >= MERGE_BYTES {
            break;
        }
        total += segment.bytes;
        found.push(segment);
    }
    found.reverse();
    Ok((found.len() >= MERGED_AT_ONCE).then_some(found))
}

/// Takes a segment out.
fn remove(connection: &Connection, group: i64, segment: u64) -> Result<u64, rusqlite::Error> {
    let bytes: Option<i64> = connection
        .prepare_cached(
            "DELETE FROM search_segments WHERE group_no = ?1 AND first_seq = ?2 RETURNING bytes",
        )?
        .query_row([group, segment as i64], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached("DELETE FROM search_blocks WHERE group_no = ?1 AND segment = ?2")?
        .execute([group, segment as i64])?;
    Ok(bytes.map_or(0, |bytes| bytes as u64))
}

/// Takes a segment of a group out, with its bytes; `None` when there is none.
pub(crate) fn wipe_one(
    connection: &Connection,
    group: i64,
) -> Result<Option<u64>, rusqlite::Error> {
    newest_first(connection, group, i64::MAX as u64)?
        .first()
        .map(|segment| remove(connection, group, *segment))
        .transpose()
}

/// Changes postings of a segment.
pub(super) fn change(
    connection: &Connection,
    group: i64,
    segment: u64,
    mut changes: PostingChanges,
) -> Result<(), rusqlite::Error> {
    while let Some(((term, seq), _)) = changes.first_key_value() {
        let block = block_before(connection, group, segment, (term, *seq))?;
        let (later, former) = match &block {
            None => (None, None),
            Some(Block { term, seq, .. }) => {
                (block_after(connection, group, segment, (term, *seq))?, Some((term, *seq)))
            }
        };
        let rest = later.map_or_else(PostingChanges::new, |key| changes.split_off(&key));
        let body = block.as_ref().map_or(&[][..], |block| &block.body);
        let changed = changed(body, std::mem::replace(&mut changes, rest))?;
        if let [only] = &changed[..]
            && Some((&only.term, only.seq)) == former
        {
            connection
                .prepare_cached(
                    "UPDATE search_blocks SET body = ?5
                     WHERE group_no = ?1 AND segment = ?2 AND term = ?3 AND seq = ?4",
                )?
                .execute(params![group, segment as i64, only.term, only.seq as i64, only.body])?;
            continue;
        }
        if let Some((term, seq)) = former {
            connection
                .prepare_cached(
                    "DELETE FROM search_blocks
                     WHERE group_no = ?1 AND segment = ?2 AND term = ?3 AND seq = ?4",
                )?
                .execute(params![group, segment as i64, term, seq as i64])?;
        }
        insert(connection, group, segment, &changed)?;
    }
    Ok(())
}

/// The block that a posting belongs to: the last that begins at it or before it, or else the first.
fn block_before(
    connection: &Connection,
    group: i64,
    segment: u64,
    (term, seq): (&str, u64),
) -> Result<Option<Block>, rusqlite::Error> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Block { term: row.get(0)?, seq: row.get::<_, i64>(1)? as u64, body: row.get(2)? })
    };
    let before = connection
        .prepare_cached(
            "SELECT term, seq, body FROM search_blocks
             WHERE group_no = ?1 AND segment = ?2 AND (term, seq) <= (?3, ?4)
             ORDER BY term DESC, seq DESC LIMIT 1",
        )?
        .query_row(params![group, segment as i64, term, seq as i64], read)
        .optional()?;
    if before.is_some() {
        return Ok(before);
    }
    connection
        .prepare_cached(
            "SELECT term, seq, body FROM search_blocks WHERE group_no = ?1 AND segment = ?2
             ORDER BY term, seq LIMIT 1",
        )?
        .query_row([group, segment as i64], read)
        .optional()
}

/// Where the block after this one begins.
fn block_after(
    connection: &Connection,
    group: i64,
    segment: u64,
    (term, seq): (&str, u64),
) -> Result<Option<(String, u64)>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT term, seq FROM search_blocks
             WHERE group_no = ?1 AND segment = ?2 AND (term, seq) > (?3, ?4)
             ORDER BY term, seq LIMIT 1",
        )?
        .query_row(params![group, segment as i64, term, seq as i64], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
        })
        .optional()
}

/// What becomes of a block.
fn changed(body: &[u8], changes: PostingChanges) -> Result<Vec<Block>, rusqlite::Error> {
    let mut terms: BTreeMap<String, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    let mut entries = Entries::new(body);
    while let Some((term, hits)) = entries.next()? {
        let of_term = terms.entry(term.to_owned()).or_default();
        for hit in Hits::new(hits) {
            let (seq, positions) = hit?;
            of_term.insert(seq, positions.to_vec());
        }
    }
    for ((term, seq), positions) in changes {
        let of_term = terms.entry(term).or_default();
        match positions {
            Some(positions) => of_term.insert(seq, positions),
            None => of_term.remove(&seq),
        };
    }
    let mut blocks = Blocks::default();
    for (term, hits) in terms {
        let mut list = List::default();
        for (seq, positions) in hits {
            list.push(seq, &positions);
        }
        blocks.add(&term, list.hits())?;
    }
    Ok(blocks.finish())
}

/// Reads the hits of a word, or of all words that begin like it, in a segment.
pub(super) fn read(
    connection: &Connection,
    group: i64,
    segment: u64,
    (word, is_beginning): (&str, bool),
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(), rusqlite::Error> {
    // No message has the number 0, so this is the block before the word's first hit.
    let Some(first) = block_before(connection, group, segment, (word, 0))? else { return Ok(()) };
    let mut statement = connection.prepare_cached(
        "SELECT body FROM search_blocks
         WHERE group_no = ?1 AND segment = ?2 AND (term, seq) >= (?3, ?4) ORDER BY term, seq",
    )?;
    let mut rows = statement.query(params![group, segment as i64, first.term, first.seq as i64])?;
    while let Some(row) = rows.next()? {
        let mut entries = Entries::new(row.get_ref(0)?.as_blob()?);
        while let Some((term, hits)) = entries.next()? {
            if term == word || (is_beginning && term.starts_with(word)) {
                for hit in Hits::new(hits) {
                    let (seq, positions) = hit?;
                    each(seq, positions);
                }
            } else if term > word {
                return Ok(());
            }
        }
    }
    Ok(())
}
