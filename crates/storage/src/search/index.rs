//! The index in `rooms.db`: an FTS5 table without content, which holds the current text of every
//! message up to a chunk.
//!
//! Each term begins with the code of its group, so a search, a beginning of a word included, reads
//! what the group's own messages brought in and nothing else, however many other groups there are.
//! A row's number is made of the group's number and the event's, so newest first is the table's own
//! order. Deleted terms are removed at once (`secure-delete`); those of a whole group are marked, which
//! is a hundred times faster, and merged away afterwards in slices.

use std::{collections::BTreeMap, fmt::Write as _};

use convene_model::{GroupKey, event::Author};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::search::{query::Query, words::words};

/// The tables, and what FTS5 is told once.
///
/// `position.indexed` is the chunk up to which messages are in the index, whichever group they
/// belong to: a chunk's number grows with the order in which the projector wrote them.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE search_groups (
        no INTEGER PRIMARY KEY,
        group_key BLOB NOT NULL UNIQUE
    );
    CREATE VIRTUAL TABLE search USING fts5(
        words, content = '', columnsize = 0, tokenize = \"ascii tokenchars '-_'\"
    );
    INSERT INTO search (search, rank) VALUES ('secure-delete', 1);
    INSERT INTO search (search, rank) VALUES ('hashsize', 8388608);";

/// The table of format 6: whether deleted terms wait to be merged away, and whether that has begun.
pub(crate) const PURGE_SCHEMA: &str = "
    CREATE TABLE search_purge (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        begun INTEGER NOT NULL
    );";

/// Pages of the index that one slice of a purge writes, about.
const PURGE_PAGES: i64 = 256;
/// Their bytes.
pub(crate) const PURGE_BYTES: u64 = PURGE_PAGES as u64 * 4096;

/// Bits of a row's number that are the event's.
const SEQ_BITS: u32 = 32;

/// A group as the index knows it.
#[derive(Debug, Clone)]
pub(crate) struct IndexedGroup {
    no: i64,
    code: String,
}

impl IndexedGroup {
    /// The group, if any of its messages was ever indexed.
    pub(crate) fn find(
        connection: &Connection,
        key: &GroupKey,
    ) -> Result<Option<Self>, rusqlite::Error> {
        let no = connection
            .prepare_cached("SELECT no FROM search_groups WHERE group_key = ?1")?
            .query_row([&key.0[..]], |row| row.get(0))
            .optional()?;
        Ok(no.map(Self::new))
    }

    /// The group, made known to the index where it is not.
    pub(crate) fn make(connection: &Connection, key: &GroupKey) -> Result<Self, rusqlite::Error> {
        if let Some(found) = Self::find(connection, key)? {
            return Ok(found);
        }
        connection
            .prepare_cached("INSERT INTO search_groups (group_key) VALUES (?1)")?
            .execute([&key.0[..]])?;
        Ok(Self::new(connection.last_insert_rowid()))
    }

    fn new(no: i64) -> Self {
        // The first character says how many digits follow, so no code is the beginning of another.
        let digits = base_36(no);
        Self { no, code: format!("{}{digits}", base_36(digits.len() as i64)) }
    }

    /// A message's row; `None` beyond the range of numbers.
    pub(crate) fn row(&self, seq: u64) -> Option<i64> {
        (seq < 1 << SEQ_BITS && self.no < 1 << 30).then_some(self.no << SEQ_BITS | seq as i64)
    }

    fn document(&self, author: &Author, text: &str) -> String {
        let mut out = String::with_capacity(text.len() * 2 + 32);
        out.push_str(&self.author(author));
        for word in words(text) {
            // Writing to a string cannot fail.
            let _ = write!(out, " {}{}", self.code, word.folded);
        }
        out
    }

    fn author(&self, author: &Author) -> String {
        // No word begins with a hyphen.
        match author {
            Author::User(id) => format!("{}-u{}", self.code, id.as_str()),
            Author::Agent(id) => format!("{}-a{}", self.code, id.as_str()),
        }
    }

    /// The query in the language of FTS5. Its strings hold letters, digits, marks, `-` and `_` only.
    fn expression(&self, query: &Query, author: Option<&Author>) -> String {
        let mut out = String::new();
        for part in &query.parts {
            if !out.is_empty() {
                out.push_str(" AND ");
            }
            let words: Vec<_> =
                part.words.iter().map(|word| format!("{}{word}", self.code)).collect();
            let _ = write!(out, "\"{}\"{}", words.join(" "), if part.prefix { " *" } else { "" });
        }
        if let Some(author) = author {
            let _ = write!(out, " AND \"{}\"", self.author(author));
        }
        out
    }

    /// The newest messages before the event `before` that may answer a query.
    pub(crate) fn candidates(
        &self,
        connection: &Connection,
        query: &Query,
        author: Option<&Author>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<u64>, rusqlite::Error> {
        let first = self.no << SEQ_BITS;
        let before = first | i64::try_from(before).unwrap_or(i64::MAX).min((1 << SEQ_BITS) - 1);
        connection
            .prepare_cached(
                "SELECT rowid FROM search WHERE search MATCH ?1 AND rowid < ?2 AND rowid > ?3
                 ORDER BY rowid DESC LIMIT ?4",
            )?
            .query_map(
                params![self.expression(query, author), before, first, limit as i64],
                |row| Ok((row.get::<_, i64>(0)? - first) as u64),
            )?
            .collect()
    }
}

fn base_36(mut number: i64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// Rows of the index that a transaction changes, put together so that they are written in order.
#[derive(Default)]
pub(crate) struct Changes {
    rows: BTreeMap<i64, (Option<String>, Option<String>)>,
}

impl Changes {
    /// Replaces the text of a message: `old` must be what the index has of it, `None` if nothing.
    pub(crate) fn replace(
        &mut self,
        group: &IndexedGroup,
        seq: u64,
        author: &Author,
        old: Option<&str>,
        new: Option<&str>,
    ) {
        let Some(row) = group.row(seq) else { return };
        let document = |text| group.document(author, text);
        let entry = self.rows.entry(row).or_insert_with(|| (old.map(document), None));
        entry.1 = new.map(document);
    }

    /// Writes them.
    pub(crate) fn write(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let mut delete = connection.prepare_cached(
            "INSERT INTO search (search, rowid, words) VALUES ('delete', ?1, ?2)",
        )?;
        let mut insert =
            connection.prepare_cached("INSERT INTO search (rowid, words) VALUES (?1, ?2)")?;
        for (row, (old, new)) in self.rows {
            if let Some(old) = old {
                delete.execute(params![row, old])?;
            }
            if let Some(new) = new {
                insert.execute(params![row, new])?;
            }
        }
        Ok(())
    }
}

impl Changes {
    /// Marks the rows as deleted, so that nothing finds them: their terms leave the file in a purge.
    pub(crate) fn mark_deleted(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        set_secure_delete(connection, false)?;
        self.write(connection)?;
        // This also writes what was marked.
        set_secure_delete(connection, true)?;
        connection
            .prepare_cached("INSERT OR REPLACE INTO search_purge (id, begun) VALUES (1, 0)")?
            .execute([])?;
        Ok(())
    }
}

fn set_secure_delete(connection: &Connection, on: bool) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT INTO search (search, rank) VALUES ('secure-delete', ?1)")?
        .execute([on])?;
    Ok(())
}

/// Whether deleted terms wait to be merged away.
pub(crate) fn is_purge_due(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM search_purge)")?
        .query_row([], |row| row.get(0))
}

/// Merges some more of the index, in a transaction of its own, until all of it that was there when
/// terms were marked has been written anew without them; whether that is so.
pub(crate) fn purge_slice(connection: &mut Connection) -> Result<bool, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let begun: Option<bool> = transaction
        .prepare_cached("SELECT begun FROM search_purge")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(begun) = begun else { return Ok(true) };
    let before = transaction.total_changes();
    // A negative number begins a merge of everything, a positive one goes on with it.
    transaction
        .prepare_cached("INSERT INTO search (search, rank) VALUES ('merge', ?1)")?
        .execute([if begun { PURGE_PAGES } else { -PURGE_PAGES }])?;
    // The command itself counts as one; see "The 'merge' command" in the documentation of FTS5.
    let is_done = transaction.total_changes() - before < 2;
    let sql = match is_done {
        true => "DELETE FROM search_purge",
        false => "UPDATE search_purge SET begun = 1",
    };
    transaction.prepare_cached(sql)?.execute([])?;
    transaction.commit()?;
    Ok(is_done)
}

/// The chunk up to which messages are in the index.
pub(crate) fn indexed_chunk(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("SELECT indexed FROM position")?.query_row([], |row| row.get(0))
}

/// The last event of a group whose message, if it is one, is in the index; 0 when there is none.
pub(crate) fn indexed_event(
    connection: &Connection,
    key: &GroupKey,
) -> Result<u64, rusqlite::Error> {
    let last = connection
        .prepare_cached(
            "SELECT first_seq + n - 1 FROM chunks
             WHERE group_key = ?1 AND id <= (SELECT indexed FROM position)
             ORDER BY first_seq DESC LIMIT 1",
        )?
        .query_row([&key.0[..]], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(last.map_or(0, |last| last as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_groups_code_is_the_beginning_of_anothers() {
        let codes: Vec<_> = [0, 1, 9, 10, 35, 36, 37, 1295, 1296, 99_999]
            .map(|no| IndexedGroup::new(no).code)
            .to_vec();
        for (i, a) in codes.iter().enumerate() {
            for (j, b) in codes.iter().enumerate() {
                assert!(i == j || !b.starts_with(a.as_str()), "{a} and {b}");
            }
        }
    }

    #[test]
    fn an_expression_is_made_of_quoted_folded_words_only() {
        let group = IndexedGroup::new(7);
        let query = Query::parse("Ü* \"a) OR search:b\" NEAR(x) -c").unwrap();
        let author = Author::User(convene_model::UserId::new("Bob_-1").unwrap());
        assert_eq!(
            group.expression(&query, Some(&author)),
            "\"17a 17or 17search 17b\" AND \"17c\" AND \"17near 17x\" AND \"17u\" * AND \"17-uBob_-1\""
        );
    }
}
