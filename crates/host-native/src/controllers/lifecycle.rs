//! Tells the Orchestrator which groups are awake and which sleep.
//!
//! A group only leaves a word here and goes on. The word is noted down before it is sent, so that a
//! process that starts anew tells of the groups that were awake when the last one ended; it is sent
//! until it is delivered, and only the newest word of a group counts. Never decides anything: when
//! the Orchestrator refuses a word, it knows better. A group that sleeps while none of its runs waits
//! for anything releases what the Orchestrator may still hold for it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use convene_db::{Db, DbError, Migration, Statement, params};
use convene_hop::Hop;
use convene_model::{
    Code, GroupId, Problem,
    claims::{ControllerClaims, service},
    infra::{CleanupRequest, GroupStatus},
    limits::MAX_BODY_BYTES,
    token::body_hash,
};
use futures_util::{StreamExt, stream};
use http::{Method, Request, header};
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Shared, usage};

/// Words that are sent at the same time.
const AT_ONCE: usize = 8;
/// Words that are noted down in one transaction.
const NOTED_AT_ONCE: usize = 256;
/// How long the Orchestrator may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after words that did not arrive: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "lifecycle",
        sql: "CREATE TABLE reported (
                  group_id TEXT PRIMARY KEY,
                  epoch BIGINT NOT NULL,
                  asleep BIGINT NOT NULL
              );",
    },
    usage::MARKS_AND_OUTBOX,
];

/// What is to be said of groups.
#[derive(Default)]
pub(super) struct Lifecycle {
    /// Whether anybody listens; without that nothing is kept.
    listens: std::sync::atomic::AtomicBool,
    words: Mutex<HashMap<GroupId, Word>>,
    left: Notify,
}

/// The newest that is to be said of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    epoch: u64,
    asleep: bool,
    /// Whether it sleeps with no run that waits: nothing is to be held for it.
    releases: bool,
    /// The group's last event when it woke.
    head: u64,
    /// Its idempotency key: a word that is sent again is the same one.
    key: Uuid,
}

impl Word {
    fn awake(epoch: u64, head: u64) -> Self {
        Self { epoch, asleep: false, releases: false, head, key: Uuid::new_v4() }
    }

    fn asleep(epoch: u64, releases: bool) -> Self {
        Self { epoch, asleep: true, releases, head: 0, key: Uuid::new_v4() }
    }
}

impl Lifecycle {
    /// The group is awake; `head` is its last event.
    pub(super) fn awake(&self, group_id: &GroupId, epoch: u64, head: u64) {
        self.say(group_id, Word::awake(epoch, head));
    }

    /// The group sleeps; `releases` where none of its runs waits for anything.
    pub(super) fn asleep(&self, group_id: &GroupId, epoch: u64, releases: bool) {
        self.say(group_id, Word::asleep(epoch, releases));
    }

    /// Words that are not delivered yet.
    pub(super) fn waiting(&self) -> usize {
        self.words.lock().len()
    }

    fn say(&self, group_id: &GroupId, word: Word) {
        if self.listens.load(std::sync::atomic::Ordering::Acquire) {
            self.words.lock().insert(group_id.clone(), word);
            self.left.notify_one();
        }
    }

    fn take(&self) -> Vec<(GroupId, Word)> {
        let mut words = self.words.lock();
        let taken = std::mem::take(&mut *words);
        taken.into_iter().collect()
    }

    /// Puts a word back unless a newer one was said meanwhile.
    fn put_back(&self, group_id: GroupId, word: Word) {
        self.words.lock().entry(group_id).or_insert(word);
    }
}

/// Begins to tell the Orchestrator, first of the groups that were awake when the last process ended
/// and sleep now.
///
/// # Errors
/// [`DbError`] when what was noted cannot be read.
pub(super) async fn begin(shared: &Arc<Shared>, orchestrator: Hop, db: Db) -> Result<(), DbError> {
    db.migrate(MIGRATIONS).await?;
    let noted = db.query(Statement::new("SELECT group_id, epoch FROM reported", params![])).await?;
    shared.lifecycle.listens.store(true, std::sync::atomic::Ordering::Release);
    let mut were_awake = Vec::new();
    for row in noted {
        let group_id: String = row.get("group_id")?;
        let group_id =
            GroupId::new(group_id).map_err(|error| DbError::decode("group_id", error))?;
        were_awake.push((group_id.clone(), row.get("epoch")?));
        // A group that is awake already has said so, or will.
        if !shared.is_awake(&group_id) {
            let word = Word::asleep(row.get("epoch")?, false);
            shared.lifecycle.put_back(group_id, word);
        }
    }
    shared.budgets.ask_from_now_on(orchestrator.clone());
    usage::begin(shared, orchestrator.clone(), Db::clone(&db), were_awake).await?;
    shared.lifecycle.left.notify_one();
    let teller = Teller { shared: Arc::clone(shared), orchestrator, db };
    shared.tasks.spawn(teller.run());
    Ok(())
}

struct Teller {
    shared: Arc<Shared>,
    orchestrator: Hop,
    db: Db,
}

impl Teller {
    async fn run(self) {
        let mut pause = PAUSE.0;
        loop {
            tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => return,
                () = self.shared.lifecycle.left.notified() => {}
            }
            let words = self.shared.lifecycle.take();
            let delivered = self.tell(words).await;
            if delivered {
                pause = PAUSE.0;
                continue;
            }
            tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
            self.shared.lifecycle.left.notify_one();
        }
    }

    /// Sends words; puts back those that did not arrive. Whether all did.
    async fn tell(&self, words: Vec<(GroupId, Word)>) -> bool {
        if let Err(error) = self.note(&words).await {
            // Told all the same: only a restart would miss the note.
            tracing::warn!(%error, "what the Orchestrator is told cannot be noted");
        }
        let sent: Vec<_> = stream::iter(words)
            .map(|(group_id, word)| async move {
                let sent = self.send(&group_id, word).await;
                (group_id, word, sent)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut all, mut done) = (true, Vec::new());
        for (group_id, word, sent) in sent {
            match sent {
                Ok(()) => {}
                Err(problem) if !passes(&problem) => {
                    tracing::debug!(
                        group = %group_id, code = problem.code.as_str(),
                        "the Orchestrator does not want to know"
                    );
                }
                Err(problem) => {
                    tracing::debug!(
                        group = %group_id, code = problem.code.as_str(), detail = problem.detail,
                        "the Orchestrator was not told"
                    );
                    self.shared.lifecycle.put_back(group_id, word);
                    all = false;
                    continue;
                }
            }
            if word.asleep {
                done.push((group_id, word));
            }
        }
        if let Err(error) = self.forget(&done).await {
            tracing::warn!(%error, "a note of what the Orchestrator was told stays");
        }
        all
    }

    async fn note(&self, words: &[(GroupId, Word)]) -> Result<(), DbError> {
        for words in words.chunks(NOTED_AT_ONCE) {
            let note = words.iter().map(|(group_id, word)| {
                Statement::new(
                    "INSERT INTO reported (group_id, epoch, asleep) VALUES ($1, $2, $3)
                     ON CONFLICT (group_id) DO UPDATE SET epoch = excluded.epoch,
                        asleep = excluded.asleep",
                    params![group_id.as_str(), word.epoch, word.asleep],
                )
            });
            // Whoever is noted as awake has a mark beyond which a new process looks for ends of runs.
            let awake = words.iter().filter(|(_, word)| !word.asleep);
            let marks = awake.map(|(group_id, word)| usage::begin_mark(group_id, word.head));
            self.db.batch(note.chain(marks).collect()).await?;
        }
        Ok(())
    }

    /// A group that sleeps, and was said to, needs no note: a new process finds it asleep.
    async fn forget(&self, words: &[(GroupId, Word)]) -> Result<(), DbError> {
        if !words.is_empty() {
            // What these groups have used is not looked for any more.
            self.shared.usage.note().await?;
        }
        for words in words.chunks(NOTED_AT_ONCE) {
            let forget = words.iter().map(|(group_id, word)| {
                Statement::new(
                    "DELETE FROM reported WHERE group_id = $1 AND epoch = $2 AND asleep = 1",
                    params![group_id.as_str(), word.epoch],
                )
            });
            self.db.batch(forget.collect()).await?;
        }
        Ok(())
    }

    async fn send(&self, group_id: &GroupId, word: Word) -> Result<(), Problem> {
        let internal = |error: &dyn std::fmt::Display| super::internal("telling of a group", error);
        let (path, body) = if word.releases {
            (format!("/infra/groups/{group_id}/release-resources"), Vec::new())
        } else {
            let (status, reason) = if word.asleep {
                (GroupStatus::Idle, "nobody uses it")
            } else {
                (GroupStatus::Active, "it woke")
            };
            let reason = reason.to_owned();
            let body = CleanupRequest { group_id: group_id.clone(), status, reason };
            let body = serde_json::to_vec(&body).map_err(|error| internal(&error))?;
            ("/infra/cleanup".to_owned(), body)
        };
        let token = self.shared.config.signer.mint(
            service::ORCHESTRATOR,
            ControllerClaims {
                group_id: group_id.clone(),
                epoch: word.epoch,
                htm: Method::POST.as_str().to_owned(),
                htu: path.clone(),
                bh: body_hash(&body),
            },
        );
        let request = Request::post(&path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", word.key.simple().to_string())
            .body(Bytes::from(body))
            .map_err(|error| internal(&error))?;
        let called = self.orchestrator.call(request, MAX_BODY_BYTES);
        match tokio::time::timeout(ANSWER_TIMEOUT, called).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(Problem::new(Code::Unavailable)),
        }
    }
}

/// Whether what the Orchestrator refused so is to be sent again: a token can be refused while keys are
/// exchanged, and the same may still be under way.
pub(super) fn passes(problem: &Problem) -> bool {
    problem.status >= 500 || matches!(problem.status, 401 | 429) || problem.code == Code::Conflict
}
