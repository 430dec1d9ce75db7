//! The offline check of a store's files: checksums, chains, and whether `rooms.db` says what the
//! journal says. Reads everything and changes nothing.

use std::{collections::HashMap, path::Path};

use convene_model::{
    GroupId, GroupKey,
    event::EventKind,
    record::{CHAIN_START, Record},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    control::Control,
    journal::{
        files::{self, JournalId},
        recovery::{self, Contents, Head},
        row::{self, JournalRow},
    },
    pending::derive,
    rooms::{
        chunks::{self, Chunk, ChunkError},
        schema, trim,
        write::read_snapshot,
    },
    sqlite::open_onlooker,
    store::{ROOMS_FILE, error::StoreError},
};

/// Problems that a report spells out; the rest is counted.
pub const MAX_PROBLEMS_LISTED: usize = 100;

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Journal files.
    pub journal_files: u64,
    /// Rows in them.
    pub journal_rows: u64,
    /// Rows that are not carried over to `rooms.db` yet.
    pub unprojected_rows: u64,
    /// Groups in `rooms.db`.
    pub groups: u64,
    /// Groups that were put in quarantine before.
    pub quarantined: u64,
    /// Chunks of events.
    pub chunks: u64,
    /// Events in them.
    pub events: u64,
    /// Messages among them.
    pub messages: u64,
    /// Snapshots of groups.
    pub snapshots: u64,
    /// What is wrong, one sentence each, at most [`MAX_PROBLEMS_LISTED`].
    pub problems: Vec<String>,
    /// How much is wrong.
    pub problem_count: u64,
}

/// Checks the store in `dir`, which no process may use meanwhile. `progress` is told each chunk and
/// row that was checked.
///
/// # Errors
/// [`StoreError`] when the files cannot be read at all; what is wrong in them is in the report.
pub fn check(dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<Report, StoreError> {
    let mut check = Check { report: Report::default(), progress };
    let path = dir.join(ROOMS_FILE);
    if !path.is_file() {
        return Err(StoreError::Refused(format!("there is no {}", path.display())));
    }
    let rooms = open_onlooker(&path)?;
    rooms.execute_batch("BEGIN")?;
    check.file(&rooms, &path)?;
    let format: i64 = rooms.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format != schema::FORMAT {
        return Err(StoreError::Refused(format!(
            "{} has format {format}, this version checks {}",
            path.display(),
            schema::FORMAT
        )));
    }
    check.groups(&rooms)?;
    check.chunks(&rooms)?;
    check.journal(dir, &rooms)?;
    Ok(check.report)
}

struct Check<'a> {
    report: Report,
    progress: &'a mut dyn FnMut(u64),
}

impl Check<'_> {
    fn problem(&mut self, problem: String) {
        self.report.problem_count += 1;
        if self.report.problems.len() < MAX_PROBLEMS_LISTED {
            self.report.problems.push(problem);
        }
    }

    /// SQLite's own check of a file, the search index included.
    fn file(&mut self, connection: &Connection, path: &Path) -> Result<(), StoreError> {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            self.problem(format!("{}: {found}", path.display()));
        }
        Ok(())
    }

    /// Each group's row, its snapshot and the numbers that both speak of.
    fn groups(&mut self, rooms: &Connection) -> Result<(), StoreError> {
        let mut statement = rooms.prepare(
            "SELECT group_key, group_id, head, chain, quarantined,
                (SELECT max(first_seq + n - 1) FROM chunks WHERE chunks.group_key = groups.group_key)
             FROM groups ORDER BY group_key",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.report.groups += 1;
            let key = GroupKey(row.get(0)?);
            let name: String = row.get(1)?;
            let head: i64 = row.get(2)?;
            if GroupId::new(&name).map(|id| id.key()).ok() != Some(key) {
                self.problem(format!("group {name}: its key is another group's"));
            }
            if let Some(why) = row.get::<_, Option<String>>(4)? {
                self.report.quarantined += 1;
                self.problem(format!("group {name} is in quarantine: {why}"));
            }
            let last: Option<i64> = row.get(5)?;
            if last.unwrap_or(0) != head {
                let last = last.unwrap_or(0);
                self.problem(format!("group {name}: head {head}, but its events end at {last}"));
            }
            match read_snapshot(rooms, &key) {
                Ok(None) => {}
                Ok(Some(snapshot)) => {
                    self.report.snapshots += 1;
                    if snapshot.seq > head as u64 {
                        self.problem(format!("group {name}: a snapshot of event {}", snapshot.seq));
                    }
                }
                Err(ChunkError::Damaged(detail)) => self.problem(format!("group {name}: {detail}")),
                Err(ChunkError::Sqlite(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Each chunk by itself, after the one before, and what the other tables say of its events.
    fn chunks(&mut self, rooms: &Connection) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT {}, group_key FROM chunks ORDER BY group_key, first_seq",
            chunks::COLUMNS
        );
        let mut statement = rooms.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut at: Option<(GroupKey, Head, u64)> = None;
        while let Some(row) = rows.next()? {
            let key = GroupKey(row.get(8)?);
            if at.is_none_or(|(group, _, _)| group != key) {
                self.end_of_group(rooms, at.take())?;
                at = Some((key, Head::START, 0));
            }
            let Some((_, head, messages)) = &mut at else { continue };
            self.report.chunks += 1;
            (self.progress)(1);
            let name = name_of(rooms, &key)?;
            let chunk = match Chunk::read(&key, row) {
                Ok(chunk) => chunk,
                Err(ChunkError::Damaged(detail)) => {
                    self.problem(format!("group {name}: {detail}"));
                    continue;
                }
                Err(ChunkError::Sqlite(error)) => return Err(error.into()),
            };
            if chunk.first_seq != head.seq + 1 || chunk.chain_before != head.chain {
                let (first, last) = (chunk.first_seq, head.seq);
                self.problem(format!("group {name}: event {first} does not continue event {last}"));
            }
            let chain =
                chunk.records.iter().fold(chunk.chain_before, |chain, record| record.chain(&chain));
            if chain != chunk.chain_after {
                let first = chunk.first_seq;
                self.problem(format!("group {name}: the chain breaks in the chunk at {first}"));
            }
            *head = Head { seq: chunk.last_seq(), chain: chunk.chain_after };
            self.report.events += chunk.records.len() as u64;
            *messages += self.records(rooms, &key, &name, &chunk.records)?;
        }
        self.end_of_group(rooms, at)
    }

    fn end_of_group(
        &mut self,
        rooms: &Connection,
        group: Option<(GroupKey, Head, u64)>,
    ) -> Result<(), StoreError> {
        let Some((key, head, messages)) = group else { return Ok(()) };
        let name = name_of(rooms, &key)?;
        if schema::head(rooms, &key)? != head {
            self.problem(format!("group {name}: its head is not where its events end"));
        }
        let ids: i64 = rooms.query_row(
            "SELECT count(*) FROM message_ids WHERE group_key = ?1",
            [&key.0[..]],
            |row| row.get(0),
        )?;
        if ids as u64 != messages {
            self.problem(format!("group {name}: {messages} messages, but {ids} message ids"));
        }
        self.report.messages += messages;
        Ok(())
    }

    /// What the tables beside say of events; returns how many of them are messages.
    fn records(
        &mut self,
        rooms: &Connection,
        key: &GroupKey,
        name: &str,
        records: &[Record],
    ) -> Result<u64, StoreError> {
        let mut messages = 0;
        for record in records {
            let event = match record.decode() {
                Ok(event) => event,
                Err(error) => {
                    self.problem(format!("group {name}: {error}"));
                    continue;
                }
            };
            let EventKind::MessagePosted(posted) = event.kind else { continue };
            messages += 1;
            let found: Option<(i64, Vec<u8>)> = rooms
                .prepare_cached(
                    "SELECT seq, digest FROM message_ids WHERE group_key = ?1 AND message_id = ?2",
                )?
                .query_row(params![&key.0[..], posted.message_id.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let right = found.is_some_and(|(seq, digest)| {
                // The digest of an erased text is all that is left of it.
                seq as u64 == record.seq && (record.erased.is_some() || digest == posted.digest())
            });
            if !right {
                let (seq, id) = (record.seq, &posted.message_id);
                self.problem(format!("group {name}: message {id} is not known as event {seq}"));
            }
            let with_service = record.seq <= trim::upto(rooms, key)?;
            if record.erased.is_some() && !with_service && !is_changed(rooms, key, record.seq)? {
                let seq = record.seq;
                self.problem(format!(
                    "group {name}: the text of event {seq} is gone for no reason"
                ));
            }
        }
        match derive(records) {
            Ok(derived) => {
                for change in derived.changes {
                    let known: bool = rooms
                        .prepare_cached(
                            "SELECT count(*) FROM message_changes
                             WHERE group_key = ?1 AND message_seq = ?2 AND seq = ?3",
                        )?
                        .query_row(
                            params![&key.0[..], change.message_seq as i64, change.seq as i64],
                            |row| row.get(0),
                        )?;
                    if !known {
                        let (seq, of) = (change.seq, change.message_seq);
                        self.problem(format!(
                            "group {name}: event {seq} did not change event {of}"
                        ));
                    }
                }
            }
            Err(error) => self.problem(format!("group {name}: {error}")),
        }
        Ok(messages)
    }

    /// The journal's rows, by themselves and against what was carried over of them.
    fn journal(&mut self, dir: &Path, rooms: &Connection) -> Result<(), StoreError> {
        let position = schema::position(rooms)?;
        let journal_id: JournalId =
            rooms.query_row("SELECT journal_id FROM position", [], |row| row.get(0))?;
        let mut heads: HashMap<GroupKey, Head> = HashMap::new();
        let mut next: Option<u64> = None;
        let mut number = None;
        for (file, path) in files::list(dir)? {
            if number.is_some_and(|number| number + 1 != file) {
                self.problem(format!("a journal file is missing before {}", path.display()));
                next = None;
            }
            number = Some(file);
            next = self.journal_file(&path, rooms, (position, journal_id), next, &mut heads)?;
        }
        match next {
            None => self.problem("the journal has no rows to begin with".into()),
            Some(next) if next <= position => {
                self.problem(format!("rooms.db has come to row {position} of {}", next - 1));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn journal_file(
        &mut self,
        path: &Path,
        rooms: &Connection,
        (position, journal_id): (u64, JournalId),
        expected: Option<u64>,
        heads: &mut HashMap<GroupKey, Head>,
    ) -> Result<Option<u64>, StoreError> {
        self.report.journal_files += 1;
        let journal = open_onlooker(path)?;
        self.file(&journal, path)?;
        let meta = journal
            .query_row("SELECT journal_id, first_pos FROM meta", [], |row| {
                Ok((row.get::<_, JournalId>(0)?, row.get::<_, i64>(1)? as u64))
            })
            .optional();
        // A crash came before the file's first transaction; it is empty.
        let Ok(Some((id, first_pos))) = meta else { return Ok(expected) };
        if id != journal_id {
            self.problem(format!("{} belongs to another journal", path.display()));
        }
        let mut next = expected.unwrap_or(first_pos);
        if first_pos != next || (expected.is_none() && first_pos > position + 1) {
            self.problem(format!("{} begins at row {first_pos}", path.display()));
            next = first_pos;
        }
        let mut statement =
            journal.prepare(&format!("SELECT {} FROM journal ORDER BY pos", row::COLUMNS))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.report.journal_rows += 1;
            (self.progress)(1);
            let row = match JournalRow::read(row)? {
                Ok(row) => row,
                Err(problem) => {
                    self.problem(problem);
                    next += 1;
                    continue;
                }
            };
            if row.pos != next {
                self.problem(format!("journal row {next} is missing"));
            }
            next = row.pos + 1;
            self.report.unprojected_rows += u64::from(row.pos > position);
            self.journal_row(rooms, &row, position, heads)?;
        }
        Ok(Some(next))
    }

    fn journal_row(
        &mut self,
        rooms: &Connection,
        row: &JournalRow,
        position: u64,
        heads: &mut HashMap<GroupKey, Head>,
    ) -> Result<(), StoreError> {
        let head = match heads.get(&row.key) {
            Some(head) => *head,
            None if row.pos > position => schema::head(rooms, &row.key)?,
            None => head_before(rooms, &row.key, row.first_seq)?,
        };
        heads.insert(row.key, Head { seq: row.first_seq + row.n - 1, chain: row.chain });
        let records = match recovery::contents(row, head) {
            Ok(Contents { control: Some(Control::Wipe | Control::Purge), .. }) => {
                heads.insert(row.key, Head::START);
                return Ok(());
            }
            Ok(contents) => contents.records,
            Err(problem) => {
                self.problem(format!(
                    "journal row {} of group {}: {problem}",
                    row.pos, row.group_id
                ));
                return Ok(());
            }
        };
        if row.pos > position {
            return Ok(());
        }
        let mut chunk: Option<Chunk> = None;
        for record in &records {
            if chunk.as_ref().is_none_or(|chunk| chunk.record(record.seq).is_none()) {
                chunk = chunk_at(rooms, &row.key, record.seq)?;
            }
            let stored = chunk.as_ref().and_then(|chunk| chunk.record(record.seq));
            if stored.is_none_or(|stored| stored != record && *stored != record.erase()) {
                let (seq, group) = (record.seq, &row.group_id);
                self.problem(format!("group {group}: event {seq} is not as the journal has it"));
            }
        }
        Ok(())
    }
}

/// Where a group stood before an event that is carried over.
fn head_before(rooms: &Connection, key: &GroupKey, seq: u64) -> Result<Head, StoreError> {
    let Some(before) = seq.checked_sub(1).filter(|before| *before > 0) else {
        return Ok(Head::START);
    };
    let chunk = chunk_at(rooms, key, before)?;
    let chain = chunk.map_or(CHAIN_START, |chunk| {
        let records = chunk.records.iter().take_while(|record| record.seq <= before);
        records.fold(chunk.chain_before, |chain, record| record.chain(&chain))
    });
    Ok(Head { seq: before, chain })
}

/// The chunk with an event; a damaged one is none, and was reported by itself.
fn chunk_at(rooms: &Connection, key: &GroupKey, seq: u64) -> Result<Option<Chunk>, StoreError> {
    match chunks::containing(rooms, key, seq) {
        Ok(chunk) => Ok(chunk),
        Err(ChunkError::Damaged(_)) => Ok(None),
        Err(ChunkError::Sqlite(error)) => Err(error.into()),
    }
}

fn is_changed(rooms: &Connection, key: &GroupKey, seq: u64) -> Result<bool, StoreError> {
    Ok(rooms
        .prepare_cached(
            "SELECT count(*) FROM message_changes WHERE group_key = ?1 AND message_seq = ?2",
        )?
        .query_row(params![&key.0[..], seq as i64], |row| row.get::<_, i64>(0))?
        > 0)
}

fn name_of(rooms: &Connection, key: &GroupKey) -> Result<String, StoreError> {
    let name = rooms
        .prepare_cached("SELECT group_id FROM groups WHERE group_key = ?1")?
        .query_row([&key.0[..]], |row| row.get(0))
        .optional()?;
    Ok(name.unwrap_or_else(|| crate::store::error::hex(key)))
}
