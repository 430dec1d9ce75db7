//! Writing what rooms heard: heads, mentions, marks. All that waits goes out in one transaction,
//! so the cost of a write falls as more groups are busy.

use std::collections::{BTreeSet, HashMap, VecDeque};

use convene_db::{Db, DbError, Row, Statement, params};
use convene_hop::Clock;
use convene_model::{
    Code, GroupId, ParticipantId, Problem, Timestamp, UserId, event::Author, mention,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    changes::{self, Bell, Change},
    rooms::{Head, Mark, Records, Said},
    web::{failure::of_database, rows},
};

const MENTION: &str = "INSERT INTO mentions (user_id, group_id, seq) VALUES ($1, $2, $3)
    ON CONFLICT (user_id, group_id, seq) DO NOTHING";
/// Groups that are written in one transaction.
const GROUPS_AT_ONCE: usize = 128;

/// The way of records into the database.
pub(crate) struct Recording {
    db: Db,
    clock: Clock,
    bell: Bell,
    queue: Mutex<VecDeque<Job>>,
    /// Whose turn it is to write what waits.
    turn: tokio::sync::Mutex<()>,
}

struct Job {
    group: GroupId,
    records: Records,
    /// Whom each message mentions, by its number.
    mentions: Vec<(UserId, u64)>,
    reply: oneshot::Sender<Result<Option<Head>, Problem>>,
}

impl Recording {
    pub(crate) fn new(db: Db, clock: Clock, bell: Bell) -> Self {
        let (queue, turn) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self { db, clock, bell, queue, turn }
    }

    /// Up to where a group is recorded.
    pub(crate) async fn head(&self, group: &GroupId) -> Result<Option<Head>, DbError> {
        let found = self.db.query(select_head(group)).await?;
        found.first().map(head).transpose()
    }

    /// Records, together with whatever others want recorded at the moment.
    pub(crate) async fn record(
        &self,
        group: &GroupId,
        records: Records,
    ) -> Result<Option<Head>, Problem> {
        let mentions = self.mentions(group, &records.said).await.map_err(|e| of_database(&e))?;
        let (reply, mut answer) = oneshot::channel();
        let group = group.clone();
        self.queue.lock().push_back(Job { group, records, mentions, reply });
        loop {
            let _turn = self.turn.lock().await;
            // Whoever had the turn before may have written this too.
            match answer.try_recv() {
                Ok(result) => return result,
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(Problem::new(Code::Unavailable).detail("the write was given up"));
                }
            }
            let jobs: Vec<Job> = {
                let mut queue = self.queue.lock();
                let count = queue.len().min(GROUPS_AT_ONCE);
                queue.drain(..count).collect()
            };
            self.write(jobs).await;
        }
    }

    async fn write(&self, jobs: Vec<Job>) {
        let now = (self.clock)();
        let mut batch = Vec::new();
        let mut ends = Vec::with_capacity(jobs.len());
        for job in &jobs {
            statements(job, now, &mut batch);
            ends.push(batch.len() - 1);
        }
        let written = self.db.batch(batch).await;
        self.bell.ring();
        match written {
            Ok(answers) => {
                for (job, end) in jobs.into_iter().zip(ends) {
                    let head = answers[end].first().map(head).transpose();
                    let _ = job.reply.send(head.map_err(|error| of_database(&error)));
                }
            }
            Err(error) => {
                let problem = of_database(&error);
                for job in jobs {
                    let _ = job.reply.send(Err(problem.clone()));
                }
            }
        }
    }

    /// Whom messages mention, of the people who may see the group: by id, or by `@name` where no
    /// person is named by id.
    async fn mentions(
        &self,
        group: &GroupId,
        said: &[Said],
    ) -> Result<Vec<(UserId, u64)>, DbError> {
        const SQL: &str = "SELECT u.user_id, u.name FROM chat_groups g
            JOIN org_members m ON m.org_id = g.org_id JOIN users u ON u.user_id = m.user_id
            WHERE g.group_id = $1 AND (g.is_private = 0 OR EXISTS (SELECT 1 FROM group_members p
                WHERE p.group_id = g.group_id AND p.user_id = m.user_id))";
        if said.iter().all(|said| said.mentions.is_empty() && said.text.is_empty()) {
            return Ok(Vec::new());
        }
        let found = self.db.query(Statement::new(SQL, params![group.as_str()])).await?;
        let mut people = Vec::with_capacity(found.len());
        for row in &found {
            people.push((rows::id::<UserId>(row, "user_id")?, row.get::<String>("name")?));
        }
        let ids: HashMap<&str, &UserId> = people.iter().map(|(id, _)| (id.as_str(), id)).collect();
        let names: Vec<&str> = people.iter().map(|(_, name)| name.as_str()).collect();
        let mut mentions = Vec::new();
        for said in said {
            let by_id = |id: &ParticipantId| ids.get(id.as_str()).copied();
            let mut meant: BTreeSet<&UserId> = said.mentions.iter().filter_map(by_id).collect();
            if meant.is_empty() {
                meant = mention::named(&said.text, &names)
                    .into_iter()
                    .map(|index| &people[index].0)
                    .collect();
            }
            for user in meant {
                if said.author != Author::User(user.clone()) {
                    mentions.push((user.clone(), said.seq));
                }
            }
        }
        Ok(mentions)
    }
}

/// The statements of one group; the last reads the head as it stands then.
fn statements(job: &Job, now: Timestamp, batch: &mut Vec<Statement>) {
    const UNSAID: &str = "DELETE FROM mentions WHERE group_id = $1 AND seq = $2";
    let Job { group, records, mentions, .. } = job;
    let id = group.as_str();
    for (user, seq) in mentions {
        batch.push(Statement::new(MENTION, params![user.as_str(), id, *seq]));
    }
    for seq in &records.unsaid {
        batch.push(Statement::new(UNSAID, params![id, *seq]));
    }
    if let (Some(first), Some(last)) = (records.said.first(), records.said.last()) {
        move_head(group, records, first, last, batch);
        // Who writes has read what stands before.
        let mut own: HashMap<&UserId, &Said> = HashMap::new();
        for said in &records.said {
            match &said.author {
                Author::User(user) => drop(own.insert(user, said)),
                Author::Agent(_) => {}
            }
        }
        for (user, said) in own {
            let mark = Mark { user: user.clone(), up_to: said.seq, nth: said.nth };
            batch.extend(mark_statements(group, &mark, now));
        }
    } else if records.jump {
        start_anew(group, records, batch);
    }
    if !records.said.is_empty() || !records.unsaid.is_empty() {
        changes::note(batch, &Change::Head(group.clone()));
    }
    for mark in &records.read {
        batch.extend(mark_statements(group, mark, now));
        changes::note(batch, &Change::Reader(group.clone(), mark.user.clone()));
    }
    batch.push(select_head(group));
}

fn move_head(
    group: &GroupId,
    records: &Records,
    first: &Said,
    last: &Said,
    batch: &mut Vec<Statement>,
) {
    // Only what follows without a gap moves the head, whoever else moves it meanwhile.
    const FOLLOW: &str = "UPDATE group_heads SET seq = $3, nth = $4, at = $5
        WHERE group_id = $1 AND history = $2 AND nth < $4 AND nth >= $6";
    const BEGIN: &str = "INSERT INTO group_heads (group_id, history, seq, nth, at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (group_id) DO NOTHING";
    const JUMP: &str = "INSERT INTO group_heads (group_id, history, seq, nth, at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (group_id) DO UPDATE
        SET history = excluded.history, seq = excluded.seq, nth = excluded.nth, at = excluded.at
        WHERE group_heads.history <> excluded.history OR group_heads.nth < excluded.nth";
    let id = group.as_str();
    let begins = |sql| {
        let (history, at) = (records.history.as_str(), last.at.millis());
        Statement::new(sql, params![id, history, last.seq, last.nth, at])
    };
    if records.jump {
        start_anew(group, records, batch);
        batch.push(begins(JUMP));
        return;
    }
    if first.nth <= 1 {
        batch.push(begins(BEGIN));
    }
    let (history, at) = (records.history.as_str(), last.at.millis());
    let before = first.nth.saturating_sub(1);
    batch.push(Statement::new(FOLLOW, params![id, history, last.seq, last.nth, at, before]));
}

/// Where the numbering is another one, as after a backup was adopted, numbers beyond its end mean
/// nothing any more.
fn start_anew(group: &GroupId, records: &Records, batch: &mut Vec<Statement>) {
    const MARKS: &str = "UPDATE read_marks SET up_to = $3, nth = $4
        WHERE group_id = $1 AND up_to > $3 AND EXISTS (SELECT 1 FROM group_heads
            WHERE group_id = $1 AND history <> $2)";
    const MENTIONS: &str = "DELETE FROM mentions WHERE group_id = $1 AND seq > $3
        AND EXISTS (SELECT 1 FROM group_heads WHERE group_id = $1 AND history <> $2)";
    const HEAD: &str = "DELETE FROM group_heads WHERE group_id = $1 AND history <> $2";
    let last = records.said.last();
    let (seq, nth) = last.map_or((0, 0), |last| (last.seq, last.nth));
    let (id, history) = (group.as_str(), records.history.as_str());
    batch.push(Statement::new(MARKS, params![id, history, seq, nth]));
    batch.push(Statement::new(MENTIONS, params![id, history, seq]));
    batch.push(Statement::new(HEAD, params![id, history]));
}

/// A mark, which only ever moves forwards, and the mentions that it covers.
pub(super) fn mark_statements(group: &GroupId, mark: &Mark, now: Timestamp) -> [Statement; 2] {
    const MARK: &str = "INSERT INTO read_marks (user_id, group_id, up_to, nth, at)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, group_id) DO UPDATE
        SET up_to = excluded.up_to, nth = excluded.nth, at = excluded.at
        WHERE read_marks.up_to < excluded.up_to";
    const COVERED: &str = "DELETE FROM mentions WHERE user_id = $1 AND group_id = $2 AND seq <= $3";
    let (user, group) = (mark.user.as_str(), group.as_str());
    let params = params![user, group, mark.up_to, mark.nth, now.millis()];
    [Statement::new(MARK, params), Statement::new(COVERED, params![user, group, mark.up_to])]
}

/// A mark that moves back, and the mentions that it covers no longer.
pub(super) fn mark_back_statements(
    group: &GroupId,
    mark: &Mark,
    mentions: &[u64],
    now: Timestamp,
) -> Vec<Statement> {
    const MARK: &str = "UPDATE read_marks SET up_to = $3, nth = $4, at = $5
        WHERE user_id = $1 AND group_id = $2 AND up_to > $3";
    let (user, group) = (mark.user.as_str(), group.as_str());
    let params = params![user, group, mark.up_to, mark.nth, now.millis()];
    let mut batch = vec![Statement::new(MARK, params)];
    batch.extend(mentions.iter().map(|seq| Statement::new(MENTION, params![user, group, *seq])));
    batch
}

fn select_head(group: &GroupId) -> Statement {
    const SQL: &str = "SELECT history, seq, nth FROM group_heads WHERE group_id = $1";
    Statement::new(SQL, params![group.as_str()])
}

fn head(row: &Row) -> Result<Head, DbError> {
    Ok(Head { history: rows::id(row, "history")?, seq: row.get("seq")?, nth: row.get("nth")? })
}
