//! What the journal holds beyond `rooms.db`, checked and made pending again.

use std::collections::{HashMap, HashSet};

use convene_model::{
    GroupKey,
    event::EventKind,
    record::{CHAIN_START, Chain, Record, read_chunk},
};

use crate::{
    control::Control,
    journal::{files::OpenedJournal, row::JournalRow},
    pending::{Committed, Fault, Pending, is_message},
    store::{
        error::StoreError,
        types::{Batch, PostIndex},
    },
};

/// Where a group stands: its last event and the chain after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) chain: Chain,
}

impl Head {
    /// Before the first event.
    pub(crate) const START: Self = Self { seq: 0, chain: CHAIN_START };
}

/// Reads the rows after `position`. A row whose checksum or chain is wrong comes with a fault, so
/// that its group alone is put in quarantine; a row that cannot be told to belong to any group
/// refuses the whole journal.
pub(crate) fn read_unprojected(
    journal: &OpenedJournal,
    position: u64,
    mut head_of: impl FnMut(&GroupKey) -> Result<Head, StoreError>,
) -> Result<Vec<Committed>, StoreError> {
    let mut heads: HashMap<GroupKey, Head> = HashMap::new();
    let mut pending = Vec::new();
    let mut next = position + 1;
    journal.rows_after(position, |row| {
        if row.pos != next {
            return Err(StoreError::Refused(format!("journal row {next} is missing")));
        }
        next += 1;
        let head = match heads.get(&row.key) {
            Some(head) => *head,
            None => head_of(&row.key)?,
        };
        let pos = row.pos;
        let (key, after) = (row.key, Head { seq: head.seq + row.n, chain: row.chain });
        let checked = check(row, head);
        let wiped = checked.ends_the_group();
        heads.insert(key, if wiped { Head::START } else { after });
        pending.push(Committed { pos, pending: checked.into() });
        Ok(())
    })?;
    if next != journal.last_pos() + 1 {
        return Err(StoreError::Refused(format!("journal row {next} is missing")));
    }
    Ok(pending)
}

/// Whether any group begins anew after it was wiped.
pub(crate) fn begins_anew(committed: &[Committed]) -> bool {
    let mut wiped = HashSet::new();
    committed.iter().map(|committed| &committed.pending).any(|pending| {
        if pending.ends_the_group() {
            wiped.insert(pending.key);
            return false;
        }
        wiped.contains(&pending.key)
    })
}

fn check(row: JournalRow, head: Head) -> Pending {
    let raw = row.body.clone();
    let (Contents { records, posts, control }, problem) = match contents(&row, head) {
        Ok(contents) => (contents, None),
        Err(problem) => (Contents::default(), Some(problem)),
    };
    let fault = problem.map(|problem| Fault {
        detail: format!("journal row {} of group {}: {problem}", row.pos, row.group_id),
        raw: Some(raw),
    });
    let mut pending = Pending::new(Batch {
        group_id: row.group_id,
        key: row.key,
        first_seq: row.first_seq,
        records,
        posts,
        chain: row.chain,
        wake_at: row.wake_at,
        snapshot: row.snapshot,
    });
    pending.control = control;
    pending.fault = fault.or(pending.fault);
    pending
}

/// What a row says.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) records: Vec<Record>,
    pub(crate) posts: Vec<PostIndex>,
    pub(crate) control: Option<Control>,
}

pub(crate) fn contents(row: &JournalRow, head: Head) -> Result<Contents, String> {
    if !row.intact {
        return Err("the checksum is wrong".into());
    }
    let control = (row.n == 0 && !row.body.is_empty()).then(|| Control::decode(&row.body));
    let control = control.transpose()?;
    if control == Some(Control::Purge) {
        // Where such a group stands is not known.
        return Ok(Contents { control, ..Contents::default() });
    }
    if row.first_seq != head.seq + 1 {
        return Err(format!("event {} follows event {}", row.first_seq, head.seq));
    }
    if control.is_some() {
        if row.chain != head.chain {
            return Err("a control changes the chain".into());
        }
        return Ok(Contents { control, ..Contents::default() });
    }
    let records = read_chunk(&row.body, row.first_seq).map_err(|error| error.to_string())?;
    if records.len() as u64 != row.n {
        return Err(format!("{} events where {} were expected", records.len(), row.n));
    }
    let chain = records.iter().fold(head.chain, |chain, record| record.chain(&chain));
    if chain != row.chain {
        return Err("the chain is broken".into());
    }
    let posts = posts_of(&records)?;
    Ok(Contents { records, posts, control: None })
}

fn posts_of(records: &[Record]) -> Result<Vec<PostIndex>, String> {
    let mut posts = Vec::new();
    for record in records.iter().filter(|record| is_message(record)) {
        let event = record.decode().map_err(|error| error.to_string())?;
        if let EventKind::MessagePosted(posted) = event.kind {
            let digest = posted.digest();
            posts.push(PostIndex { seq: record.seq, message_id: posted.message_id, digest });
        }
    }
    Ok(posts)
}
