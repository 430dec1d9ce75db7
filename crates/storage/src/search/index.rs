//! The index in `rooms.db`: which words the current text of every message up to a chunk has, and where.
//!
//! Each group has segments of its own ([`crate::search::segments`]), so a search reads what the
//! group's own messages brought in and nothing else, however many other groups there are, and a wiped
//! group's part goes at once.

use std::collections::BTreeMap;

use convene_model::{GroupKey, event::Author};
use rusqlite::{Connection, OptionalExtension};

use crate::search::{
    blocks::{Lists, positions},
    query::{Part, Query},
    segments::{self, PostingChanges},
    words::words,
};

/// The groups that have anything in the index.
///
/// `position.indexed` is the chunk up to which messages are in it, whichever group they belong to: a
/// chunk's number grows with the order in which the projector wrote them.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE search_groups (
        no INTEGER PRIMARY KEY,
        group_key BLOB NOT NULL UNIQUE
    );";

/// Rows of the index of formats 2 to 5 that go in one transaction.
const FORMER_ROWS: usize = 4096;

/// What the transaction that makes the tables of format 6 does to a file of formats 2 to 5.
pub(crate) const FROM_FORMER: &str =
    "DROP TABLE search; DELETE FROM search_groups; UPDATE position SET indexed = 0;";

/// Empties the index of formats 2 to 5, an FTS5 table for all groups, before [`FROM_FORMER`]; it is
/// filled anew. In slices: what is overwritten goes through the WAL, which the checkpoints in between
/// keep short.
pub(crate) fn empty_former(connection: &Connection) -> Result<(), rusqlite::Error> {
    let sql = format!(
        "DELETE FROM search_data WHERE id IN (SELECT id FROM search_data LIMIT {FORMER_ROWS})"
    );
    while connection.execute(&sql, [])? > 0 {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    Ok(())
}

/// A group as the index knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexedGroup {
    no: i64,
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
        Ok(no.map(|no| Self { no }))
    }

    /// The group, made known to the index where it is not.
    pub(crate) fn make(connection: &Connection, key: &GroupKey) -> Result<Self, rusqlite::Error> {
        if let Some(found) = Self::find(connection, key)? {
            return Ok(found);
        }
        connection
            .prepare_cached("INSERT INTO search_groups (group_key) VALUES (?1)")?
            .execute([&key.0[..]])?;
        Ok(Self { no: connection.last_insert_rowid() })
    }

    /// Takes the next part of the group out of the index. Returns its bytes, `None` when nothing is
    /// left.
    pub(crate) fn wipe(self, connection: &Connection) -> Result<Option<u64>, rusqlite::Error> {
        segments::wipe_one(connection, self.no)
    }

    /// The newest messages before the event `before` that may answer a query, the newest first.
    pub(crate) fn candidates(
        self,
        connection: &Connection,
        query: &Query,
        author: Option<&Author>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<u64>, rusqlite::Error> {
        let author = author.map(|author| Part { words: vec![author_term(author)], prefix: false });
        let mut found = Vec::new();
        for segment in segments::newest_first(connection, self.no, before)? {
            let mut here: Option<Vec<u64>> = None;
            for part in query.parts.iter().chain(&author) {
                let mut of_part = self.hits_of(connection, segment, part)?;
                of_part.retain(|seq| {
                    *seq < before
                        && here.as_ref().is_none_or(|here| here.binary_search(seq).is_ok())
                });
                let is_empty = of_part.is_empty();
                here = Some(of_part);
                if is_empty {
                    break;
                }
            }
            found.extend(here.into_iter().flatten().rev().take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// The messages of a segment that a part of a query occurs in, in order.
    fn hits_of(
        self,
        connection: &Connection,
        segment: u64,
        part: &Part,
    ) -> Result<Vec<u64>, rusqlite::Error> {
        let last = part.words.len().saturating_sub(1);
        let mut found: Vec<u64> = Vec::new();
        // Where the words so far stand together: message, and position of the last of them.
        let mut ends: Vec<(u64, u64)> = Vec::new();
        for (at, word) in part.words.iter().enumerate() {
            let is_beginning = part.prefix && at == last;
            let mut next = Vec::new();
            segments::read(connection, self.no, segment, (word, is_beginning), |seq, places| {
                if last == 0 {
                    found.push(seq);
                } else {
                    next.extend(positions(places).map(|position| (seq, position)).filter(
                        |(seq, position)| {
                            at == 0
                                || position
                                    .checked_sub(1)
                                    .is_some_and(|end| ends.binary_search(&(*seq, end)).is_ok())
                        },
                    ));
                }
            })?;
            if is_beginning {
                next.sort_unstable();
            }
            ends = next;
            if last > 0 && ends.is_empty() {
                break;
            }
        }
        found.extend(ends.into_iter().map(|(seq, _)| seq));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// What stands for an author among the words; no word begins with a hyphen.
fn author_term(author: &Author) -> String {
    match author {
        Author::User(id) => format!("-u{}", id.as_str()),
        Author::Agent(id) => format!("-a{}", id.as_str()),
    }
}

/// A message as it is found: its author and what it says.
struct Document {
    author: String,
    text: String,
}

impl Document {
    fn add_to(self, lists: &mut Lists, seq: u64) {
        lists.add(self.author, seq, 0);
        for (position, word) in words(&self.text).enumerate() {
            lists.add(word.folded, seq, position as u64);
        }
    }

    fn lists(self, seq: u64) -> Lists {
        let mut lists = Lists::default();
        self.add_to(&mut lists, seq);
        lists
    }
}

/// Messages of the index that a transaction changes, put together so that they are written in order.
#[derive(Default)]
pub(crate) struct Changes {
    messages: BTreeMap<(i64, u64), (Option<Document>, Option<Document>)>,
}

impl Changes {
    /// Replaces the text of a message: `old` must be what the index has of it, `None` if nothing.
    pub(crate) fn replace(
        &mut self,
        group: IndexedGroup,
        seq: u64,
        author: &Author,
        old: Option<&str>,
        new: Option<&str>,
    ) {
        let document = |text: &str| Document { author: author_term(author), text: text.to_owned() };
        let former =
            self.messages.entry((group.no, seq)).or_insert_with(|| (old.map(document), None));
        former.1 = new.map(document);
    }

    /// Writes them.
    pub(crate) fn write(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let mut messages = self.messages.into_iter().peekable();
        while let Some(((group, _), _)) = messages.peek() {
            let group = *group;
            let of_group = std::iter::from_fn(|| messages.next_if(|((no, _), _)| *no == group));
            write(connection, group, of_group.map(|((_, seq), change)| (seq, change)))?;
        }
        Ok(())
    }
}

/// Writes changes of one group, in the order of its messages.
fn write(
    connection: &Connection,
    group: i64,
    messages: impl Iterator<Item = (u64, (Option<Document>, Option<Document>))>,
) -> Result<(), rusqlite::Error> {
    let last = segments::last_seq(connection, group)?;
    // What is newer than every segment, and what is older.
    let (mut newer, mut older) = (Fresh::default(), Fresh::default());
    let mut changes: BTreeMap<u64, PostingChanges> = BTreeMap::new();
    for (seq, (old, new)) in messages {
        let segment = match seq {
            seq if seq > last => None,
            seq => segments::segment_of(connection, group, seq)?,
        };
        let Some(segment) = segment else {
            if let Some(new) = new {
                if seq > last { &mut newer } else { &mut older }.add(seq, new);
            }
            continue;
        };
        let changes = changes.entry(segment).or_default();
        for (term, _) in old.into_iter().flat_map(|old| old.lists(seq).into_sorted()) {
            changes.insert((term, seq), None);
        }
        for (term, list) in new.into_iter().flat_map(|new| new.lists(seq).into_sorted()) {
            changes.insert((term, seq), Some(list.first_positions()?));
        }
    }
    for (segment, changes) in changes {
        segments::change(connection, group, segment, changes)?;
    }
    for Fresh { range, lists } in [older, newer] {
        if let Some(range) = range {
            segments::add(connection, group, range, lists)?;
            segments::merge(connection, group)?;
        }
    }
    Ok(())
}

/// Messages that become a segment of their own.
#[derive(Default)]
struct Fresh {
    range: Option<(u64, u64)>,
    lists: Lists,
}

impl Fresh {
    fn add(&mut self, seq: u64, document: Document) {
        self.range = Some((self.range.map_or(seq, |(first, _)| first), seq));
        document.add_to(&mut self.lists, seq);
    }
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 9] = ["a", "ab", "abc", "b", "ba", "c", "ca", "cab", "d"];

    #[derive(Debug, Clone)]
    enum Step {
        /// Messages that one transaction brings in, each with its author's number and its words.
        Post(Vec<(u8, Vec<usize>)>),
        Edit(prop::sample::Index, Vec<usize>),
        Delete(prop::sample::Index),
        /// Everything up to a message.
        Trim(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let said = || prop::collection::vec(0..WORDS.len(), 0..6);
        let step = prop_oneof![
            4 => prop::collection::vec((0_u8..3, said()), 1..30).prop_map(Step::Post),
            2 => (any::<prop::sample::Index>(), said()).prop_map(|(at, said)| Step::Edit(at, said)),
            2 => any::<prop::sample::Index>().prop_map(Step::Delete),
            1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        ];
        prop::collection::vec(step, 1..40)
    }

    fn author(no: u8) -> Author {
        Author::User(convene_model::UserId::new(format!("u{no}")).unwrap())
    }

    fn text(said: &[usize]) -> String {
        said.iter().map(|at| WORDS[*at]).collect::<Vec<_>>().join(" ")
    }

    fn open() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection.execute_batch(segments::SCHEMA).unwrap();
        connection
    }

    /// What is to be found: author and text by message.
    type Model = BTreeMap<u64, (u8, String)>;

    fn check(connection: &Connection, group: IndexedGroup, model: &Model, head: u64) {
        for query in ["a", "ab*", "\"a b\"", "\"c a\"*", "a c*", "\"a b\" d", "x", "\"d d\""] {
            let query = Query::parse(query).unwrap();
            for (by, before) in [(None, head + 1), (Some(1), head + 1), (None, head / 2)] {
                let expected = model.iter().rev().filter(|(seq, (author, text))| {
                    **seq < before
                        && by.is_none_or(|by| by == *author)
                        && query.find_in(text).is_some()
                });
                let expected: Vec<_> = expected.map(|(seq, _)| *seq).take(7).collect();
                let by = by.map(author);
                let found = group.candidates(connection, &query, by.as_ref(), before, 7).unwrap();
                assert_eq!(found, expected, "{query:?} by {by:?} before {before}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_index_finds_what_is_there_now_and_nothing_else(steps in steps()) {
            let connection = open();
            let key = convene_model::GroupId::new("g").unwrap().key();
            let (mut model, mut head) = (Model::new(), 0);
            let group = IndexedGroup::make(&connection, &key).unwrap();
            for step in steps {
                let mut changes = Changes::default();
                match step {
                    Step::Post(messages) => {
                        for (by, said) in messages {
                            head += 1;
                            let text = text(&said);
                            changes.replace(group, head, &author(by), None, Some(&text));
                            model.insert(head, (by, text));
                        }
                    }
                    Step::Edit(at, said) if !model.is_empty() => {
                        let seq = *at.get(&model.keys().collect::<Vec<_>>());
                        let (seq, new) = (*seq, text(&said));
                        let (by, old) = model[&seq].clone();
                        changes.replace(group, seq, &author(by), Some(&old), Some(&new));
                        model.insert(seq, (by, new));
                    }
                    Step::Delete(at) if !model.is_empty() => {
                        let seq = **at.get(&model.keys().collect::<Vec<_>>());
                        let (by, old) = model.remove(&seq).unwrap();
                        changes.replace(group, seq, &author(by), Some(&old), None);
                    }
                    Step::Trim(at) if head > 0 => {
                        let rest = model.split_off(&(at.index(head as usize) as u64));
                        for (seq, (by, old)) in std::mem::replace(&mut model, rest) {
                            changes.replace(group, seq, &author(by), Some(&old), None);
                        }
                    }
                    Step::Edit(..) | Step::Delete(_) | Step::Trim(_) => {}
                }
                changes.write(&connection).unwrap();
            }
            check(&connection, group, &model, head);
            while group.wipe(&connection).unwrap().is_some() {}
            check(&connection, group, &Model::new(), head);
            let left: i64 = connection
                .query_row("SELECT count(*) FROM search_blocks", [], |row| row.get(0))
                .unwrap();
            prop_assert_eq!(left, 0);
        }
    }

    #[test]
    fn many_small_additions_leave_few_segments() {
        let connection = open();
        let keys = ["g", "other"].map(|id| convene_model::GroupId::new(id).unwrap().key());
        let groups = keys.map(|key| IndexedGroup::make(&connection, &key).unwrap());
        let mut model = Model::new();
        for seq in 1..=1000 {
            for group in groups {
                let mut changes = Changes::default();
                let text = format!("a b{} c{seq}", seq % 10);
                changes.replace(group, seq, &author(1), None, Some(&text));
                changes.write(&connection).unwrap();
                model.insert(seq, (1, text));
            }
        }
        for group in groups {
            let segments = segments::newest_first(&connection, group.no, u64::MAX >> 1).unwrap();
            assert!(segments.len() < 60, "{}", segments.len());
            check(&connection, group, &model, 1000);
        }
        // One goes, the other is as it was.
        while groups[0].wipe(&connection).unwrap().is_some() {}
        check(&connection, groups[0], &Model::new(), 1000);
        check(&connection, groups[1], &model, 1000);
    }
}
