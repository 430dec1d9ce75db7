//! Groups to make snapshots of: small ones by hand, any by property.

use std::sync::Arc;

use bytes::Bytes;
use convene_archive::{ArchiveError, SnapshotWriter, WriteOptions};
use convene_model::{
    AgentId, ArchiveId, GroupId, HistoryId, MessageId, OrgId, RunId, Timestamp, UserId,
    archive::{
        Digest, ExportSection, Frozen, Header, Line, Manifest, MessageLine, RunLine, StateLine,
    },
    event::{Author, Edited, Event, EventKind, Posted, RunFinished, RunStatus},
    history::{Excerpt, FinishedRun, Message},
    infra::HistoryMode,
    keys::{SigningKey, TrustedKeys},
    record::{CHAIN_START, Record},
};
use object_store::{ObjectStore, memory::InMemory};
use proptest::prelude::*;

/// What happens next in a group.
#[derive(Debug, Clone)]
pub(crate) enum Happens {
    /// A message; it may answer the one that so many messages back, and may be deleted later.
    Post { text: String, answers: Option<usize>, deleted: bool },
    /// An edit of the last message.
    Edit { text: String },
    /// A run ends.
    RunEnds,
    /// The epoch is raised: an event that history does not list.
    Nothing,
}

pub(crate) fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        5 => (any::<String>(), proptest::option::of(1_usize..20), proptest::bool::weighted(0.2))
            .prop_map(|(text, answers, deleted)| Happens::Post { text, answers, deleted }),
        1 => any::<String>().prop_map(|text| Happens::Edit { text }),
        2 => Just(Happens::RunEnds),
        1 => Just(Happens::Nothing),
    ]
}

/// A frozen group, as its controller would export it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) frozen: Frozen,
    pub(crate) state: Option<StateLine>,
    pub(crate) messages: Vec<Line>,
    pub(crate) events: Vec<Record>,
}

impl Sample {
    pub(crate) fn of(story: &[Happens]) -> Self {
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        let mut posted: Vec<(Message, Option<Excerpt>)> = Vec::new();
        let mut runs = Vec::new();
        for (at, happens) in story.iter().enumerate() {
            let seq = at as u64 + 1;
            let kind = match happens {
                Happens::Post { text, answers, .. } => {
                    let answers = answers
                        .and_then(|back| posted.len().checked_sub(back))
                        .map(|at| &posted[at].0);
                    let answers = answers.map(excerpt);
                    let message = message(seq, text, answers.as_ref());
                    posted.push((message.clone(), answers));
                    EventKind::MessagePosted(message.posted)
                }
                Happens::Edit { text } => match posted.last_mut() {
                    Some((message, _)) => {
                        message.posted.text.clone_from(text);
                        EventKind::MessageEdited(Edited {
                            message_id: message.posted.message_id.clone(),
                            message_seq: message.seq,
                            author: message.posted.author.clone(),
                            text: text.clone(),
                        })
                    }
                    None => EventKind::EpochRaised { epoch: seq },
                },
                Happens::RunEnds => {
                    let finished = run(seq);
                    runs.push(finished.clone());
                    EventKind::RunFinished(finished.finished)
                }
                Happens::Nothing => EventKind::EpochRaised { epoch: seq },
            };
            let record = Record::encode(&Event { seq, at: at_of(seq), kind });
            let deleted = matches!(happens, Happens::Post { deleted: true, .. });
            events.push(if deleted { record.erase() } else { record });
            if deleted && let Some((message, _)) = posted.last_mut() {
                message.posted.text.clear();
                message.deleted = true;
            }
        }
        let count = posted.len() as u64;
        messages.extend(posted.into_iter().map(|(message, answers)| {
            Line::Message(MessageLine { seq: message.seq, message, answers })
        }));
        messages.extend(runs.into_iter().map(|run| Line::Run(RunLine { seq: run.seq, run })));
        messages.sort_by_key(|line| match line {
            Line::Message(line) => line.seq,
            Line::Run(line) => line.seq,
            _ => 0,
        });
        Self::frozen(messages, events, count)
    }

    /// A group of which only the events matter.
    pub(crate) fn of_events(kinds: Vec<EventKind>) -> Self {
        let events = kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, seq)| Record::encode(&Event { seq, at: at_of(seq), kind }));
        Self::frozen(Vec::new(), events.collect(), 0)
    }

    fn frozen(messages: Vec<Line>, events: Vec<Record>, count: u64) -> Self {
        let chain = events.iter().fold(CHAIN_START, |chain, record| record.chain(&chain));
        let last_seq = events.len() as u64;
        let state = (last_seq > 0)
            .then(|| StateLine { seq: last_seq, bytes: Bytes::from_static(b"{\"format\":1}") });
        let frozen = Frozen {
            archive_id: ArchiveId::new("a1").unwrap(),
            epoch: 3,
            history: HistoryId::new("h1").unwrap(),
            history_mode: HistoryMode::Internal,
            last_seq,
            chain: Digest(chain),
            messages: count,
            events: last_seq,
            bytes_estimate: 0,
        };
        Self { frozen, state, messages, events }
    }

    /// A group with so many messages, each long enough that a few fill a small member.
    pub(crate) fn with_messages(count: usize) -> Self {
        let story: Vec<_> = (0..count)
            .map(|nth| Happens::Post {
                text: format!("message {nth} {}", "x".repeat(nth % 97)),
                answers: None,
                deleted: nth % 11 == 10,
            })
            .collect();
        Self::of(&story)
    }

    pub(crate) fn header(&self) -> Header {
        Header::of(group(), OrgId::new("o1").unwrap(), &self.frozen)
    }

    /// The bodies of an export, each of at most `size` lines.
    pub(crate) fn export(&self, size: usize) -> Vec<(ExportSection, Bytes)> {
        let join = |lines: &[Bytes]| Bytes::from(lines.concat());
        let state: Vec<_> = self.state.iter().cloned().map(|s| Line::State(s).encode()).collect();
        let messages: Vec<_> = self.messages.iter().map(Line::encode).collect();
        let events: Vec<_> = self.events.iter().cloned().map(|r| Line::Event(r).encode()).collect();
        [
            (ExportSection::State, state),
            (ExportSection::Messages, messages),
            (ExportSection::Events, events),
        ]
        .into_iter()
        .flat_map(|(section, lines)| {
            lines.chunks(size).map(|lines| (section, join(lines))).collect::<Vec<_>>()
        })
        .collect()
    }

    pub(crate) async fn write(
        &self,
        store: &Arc<dyn ObjectStore>,
        options: WriteOptions,
    ) -> Result<Manifest, ArchiveError> {
        let mut writer = SnapshotWriter::begin(Arc::clone(store), self.header(), options).await?;
        for (section, body) in self.export(7) {
            writer.lines(section, body).await?;
        }
        writer.finish(&key()).await
    }
}

pub(crate) fn group() -> GroupId {
    GroupId::new("g1").unwrap()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed("orchestrator", &[7; 32])
}

pub(crate) fn keys() -> TrustedKeys {
    TrustedKeys::of("orchestrator", &key().jwks()).unwrap()
}

pub(crate) fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// Members so small that a short story fills several.
pub(crate) fn small_members() -> WriteOptions {
    WriteOptions { member_bytes: 2048, ..WriteOptions::default() }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn at_of(seq: u64) -> Timestamp {
    Timestamp::from_millis(1_732_100_000_000 + seq)
}

pub(crate) fn message(seq: u64, text: &str, answers: Option<&Excerpt>) -> Message {
    let message_id = MessageId::new(format!("m{seq}")).unwrap();
    Message {
        seq,
        at: at_of(seq),
        posted: Posted {
            root: message_id.clone(),
            message_id,
            author: Author::User(UserId::new("u1").unwrap()),
            hop: 0,
            nth: seq,
            reply_to: answers.map(|excerpt| excerpt.message_id.clone()),
            run_id: None,
            mentions: vec![],
            text: text.into(),
        },
        edited_at: None,
        deleted: false,
        reactions: vec![],
    }
}

fn excerpt(message: &Message) -> Excerpt {
    Excerpt {
        message_id: message.posted.message_id.clone(),
        seq: message.seq,
        author: message.posted.author.clone(),
        text: message.posted.text.chars().take(20).collect(),
        deleted: message.deleted,
    }
}

fn run(seq: u64) -> FinishedRun {
    let finished = RunFinished {
        run_id: RunId::new(format!("r{seq}")).unwrap(),
        attempt: 1,
        agent_id: AgentId::new("ag1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        status: RunStatus::Completed,
        message_id: None,
        code: None,
        detail: None,
        usage: None,
        reservation: None,
    };
    FinishedRun::new(seq, at_of(seq), finished)
}
