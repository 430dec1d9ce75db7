//! Groups of the controllers for tests: what they freeze, export, thaw, wipe and import, by the same
//! rules as the real ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use convene_hop::ApiError;
use convene_model::{
    ArchiveId, Code, GroupId, HistoryId, ImportId, MessageId, Problem, Timestamp, UserId,
    archive::{
        BeginImport, Digest, ExportQuery, ExportSection, FreezeRequest, Frozen, ImportProgress,
        Line, MessageLine, ThawRequest, WipeRequest, line,
    },
    event::{Author, Event, EventKind, Posted, Unfrozen},
    history::Message,
    infra::{HistoryMode, Initialized},
    record::{CHAIN_START, Chain, Record},
};

/// Lines that one answer of an export has at most: few, so that an export takes several.
const LINES_AT_ONCE: usize = 4;

#[derive(Default)]
pub(crate) struct Groups {
    groups: BTreeMap<GroupId, Group>,
}

#[derive(Clone)]
struct Group {
    epoch: u64,
    frozen: Option<ArchiveId>,
    events: Vec<Record>,
    messages: Vec<Message>,
    /// A half import: the group does not exist yet.
    import: Option<BeginImport>,
}

type Answer<T> = Result<T, ApiError>;

fn refuse<T>(code: Code) -> Answer<T> {
    Err(Problem::new(code).into())
}

impl Group {
    fn emit(&mut self, kind: EventKind) {
        let seq = self.events.len() as u64 + 1;
        let event = Event { seq, at: Timestamp::from_millis(1_800_000_000_000 + seq), kind };
        self.events.push(Record::encode(&event));
    }

    fn chain(&self) -> Chain {
        self.events.iter().fold(CHAIN_START, |chain, record| record.chain(&chain))
    }

    fn thaw(&mut self, epoch: u64) {
        if let Some(archive_id) = self.frozen.take() {
            self.emit(EventKind::GroupThawed(Unfrozen { archive_id, epoch }));
        } else if epoch > self.epoch {
            self.emit(EventKind::EpochRaised { epoch });
        }
        self.epoch = epoch;
    }
}

impl Groups {
    pub(crate) fn init(&mut self, group_id: &GroupId, epoch: u64) -> Answer<Initialized> {
        let group = self.groups.entry(group_id.clone()).or_insert_with(|| {
            let mut group =
                Group { epoch, frozen: None, events: vec![], messages: vec![], import: None };
            group.emit(EventKind::EpochRaised { epoch });
            group
        });
        if group.import.is_some() {
            return refuse(Code::IllegalTransition);
        }
        if epoch < group.epoch {
            return refuse(Code::StaleEpoch);
        }
        if group.frozen.is_some() && epoch == group.epoch {
            return refuse(Code::GroupArchived);
        }
        group.thaw(epoch);
        Ok(initialized(group))
    }

    /// Lets somebody write so many messages.
    pub(crate) fn post(&mut self, group_id: &GroupId, count: usize) {
        let group = self.groups.get_mut(group_id).expect("the group lives");
        assert!(group.frozen.is_none() && group.import.is_none(), "the group takes posts");
        for _ in 0..count {
            let seq = group.events.len() as u64 + 1;
            let message_id = MessageId::new(format!("m{seq}")).unwrap();
            let posted = Posted {
                root: message_id.clone(),
                message_id,
                author: Author::User(UserId::new("u1").unwrap()),
                hop: 0,
                nth: 1,
                reply_to: None,
                run_id: None,
                mentions: vec![],
                text: format!("message {seq}"),
            };
            let at = Timestamp::from_millis(1_800_000_000_000 + seq);
            let reactions = vec![];
            let message = Message {
                seq,
                at,
                posted: posted.clone(),
                edited_at: None,
                deleted: false,
                reactions,
            };
            group.messages.push(message);
            group.emit(EventKind::MessagePosted(posted));
        }
    }

    /// The group's event lines, if it exists in whole.
    pub(crate) fn lines(&self, group_id: &GroupId) -> Option<Vec<Bytes>> {
        let group = self.groups.get(group_id).filter(|group| group.import.is_none())?;
        Some(group.events.iter().map(line::encode_event).collect())
    }

    pub(crate) fn has_anything_of(&self, group_id: &GroupId) -> bool {
        self.groups.contains_key(group_id)
    }

    pub(crate) fn is_frozen(&self, group_id: &GroupId) -> bool {
        self.groups.get(group_id).is_some_and(|group| group.frozen.is_some())
    }

    pub(crate) fn freeze(&mut self, group_id: &GroupId, body: &FreezeRequest) -> Answer<Frozen> {
        let Some(group) = self.groups.get_mut(group_id) else {
            return refuse(Code::GroupNotFound);
        };
        if body.epoch < group.epoch {
            return refuse(Code::StaleEpoch);
        }
        match &group.frozen {
            Some(frozen) if *frozen != body.archive_id && body.epoch == group.epoch => {
                return refuse(Code::IllegalTransition);
            }
            Some(frozen) if *frozen == body.archive_id => {}
            Some(_) | None => {
                if group.frozen.is_some() || body.epoch > group.epoch {
                    group.thaw(body.epoch);
                }
                group.frozen = Some(body.archive_id.clone());
                group.emit(EventKind::GroupFrozen { archive_id: body.archive_id.clone() });
            }
        }
        Ok(Frozen {
            archive_id: body.archive_id.clone(),
            epoch: group.epoch,
            history: HistoryId::new("h1").unwrap(),
            history_mode: HistoryMode::Internal,
            last_seq: group.events.len() as u64,
            chain: Digest(group.chain()),
            messages: group.messages.len() as u64,
            events: group.events.len() as u64,
            bytes_estimate: 1_000,
        })
    }

    pub(crate) fn export(
        &self,
        group_id: &GroupId,
        query: &ExportQuery,
    ) -> Answer<(Bytes, Option<u64>)> {
        let group = self.frozen(group_id, &query.archive_id, query.epoch)?;
        let lines: Vec<(u64, Bytes)> = match query.section {
            ExportSection::State => vec![],
            ExportSection::Messages => group.messages.iter().map(message_line).collect(),
            ExportSection::Events => {
                group.events.iter().map(|record| (record.seq, line::encode_event(record))).collect()
            }
        };
        let mut rest = lines.into_iter().filter(|(seq, _)| *seq > query.after);
        let page: Vec<_> = rest.by_ref().take(LINES_AT_ONCE).collect();
        let next = rest.next().and(page.last()).map(|(seq, _)| *seq);
        let body: Vec<u8> = page.into_iter().flat_map(|(_, line)| line).collect();
        Ok((body.into(), next))
    }

    fn frozen(&self, group_id: &GroupId, archive_id: &ArchiveId, epoch: u64) -> Answer<&Group> {
        let group = self.groups.get(group_id);
        match group
            .filter(|group| group.frozen.as_ref() == Some(archive_id) && group.epoch == epoch)
        {
            Some(group) => Ok(group),
            None => refuse(Code::IllegalTransition),
        }
    }

    pub(crate) fn thaw(&mut self, group_id: &GroupId, body: &ThawRequest) -> Answer<()> {
        let Some(group) = self.groups.get_mut(group_id) else {
            return refuse(Code::GroupNotFound);
        };
        if body.epoch < group.epoch {
            return refuse(Code::StaleEpoch);
        }
        let other = group.frozen.as_ref().is_some_and(|frozen| *frozen != body.archive_id);
        if group.frozen.is_some() && (other || body.epoch == group.epoch) {
            return refuse(Code::IllegalTransition);
        }
        group.thaw(body.epoch);
        Ok(())
    }

    pub(crate) fn wipe(&mut self, group_id: &GroupId, body: &WipeRequest) -> Answer<()> {
        if !self.groups.contains_key(group_id) {
            return Ok(());
        }
        let group = self.frozen(group_id, &body.archive_id, body.epoch)?;
        if group.events.len() as u64 != body.last_seq {
            return refuse(Code::IllegalTransition);
        }
        self.groups.remove(group_id);
        Ok(())
    }

    pub(crate) fn remove(&mut self, group_id: &GroupId, epoch: u64) -> Answer<()> {
        match self.groups.get(group_id) {
            Some(group) if epoch <= group.epoch => refuse(Code::IllegalTransition),
            Some(_) | None => {
                self.groups.remove(group_id);
                Ok(())
            }
        }
    }

    pub(crate) fn begin_import(
        &mut self,
        group_id: &GroupId,
        body: BeginImport,
    ) -> Answer<ImportProgress> {
        if let Some(group) = self.groups.get(group_id) {
            match &group.import {
                None => return refuse(Code::IllegalTransition),
                Some(import) if *import == body => return Ok(progress(group)),
                Some(import) if import.epoch >= body.epoch => {
                    return refuse(Code::IllegalTransition);
                }
                Some(_) => {}
            }
        }
        let group = Group {
            epoch: body.epoch,
            frozen: None,
            events: vec![],
            messages: vec![],
            import: Some(body),
        };
        let begun = progress(&group);
        self.groups.insert(group_id.clone(), group);
        Ok(begun)
    }

    pub(crate) fn import(
        &mut self,
        group_id: &GroupId,
        import_id: &ImportId,
        from: u64,
        body: &Bytes,
    ) -> Answer<ImportProgress> {
        let group = self.importing(group_id, import_id)?;
        let next_seq = group.events.len() as u64 + 1;
        if from != next_seq {
            return Err(Problem::new(Code::Conflict).with("next_seq", next_seq).into());
        }
        for event in line::split(body).unwrap() {
            let record = line::parse_event(&event).unwrap();
            assert_eq!(record.seq, group.events.len() as u64 + 1, "events come in order");
            if let EventKind::MessagePosted(posted) = record.decode().unwrap().kind {
                let (seq, at) =
                    (record.seq, Timestamp::from_millis(1_800_000_000_000 + record.seq));
                let reactions = vec![];
                group.messages.push(Message {
                    seq,
                    at,
                    posted,
                    edited_at: None,
                    deleted: false,
                    reactions,
                });
            }
            group.events.push(record);
        }
        Ok(progress(group))
    }

    pub(crate) fn finish_import(
        &mut self,
        group_id: &GroupId,
        import_id: &ImportId,
    ) -> Answer<Initialized> {
        let group = self.importing(group_id, import_id)?;
        let import = group.import.clone().expect("it is being imported");
        if group.events.len() as u64 != import.last_seq || Digest(group.chain()) != import.chain {
            return refuse(Code::IllegalTransition);
        }
        group.import = None;
        let BeginImport { archive_id, epoch, .. } = import;
        group.emit(EventKind::GroupRestored(Unfrozen { archive_id, epoch }));
        Ok(initialized(group))
    }

    fn importing(&mut self, group_id: &GroupId, import_id: &ImportId) -> Answer<&mut Group> {
        let group = self.groups.get_mut(group_id).filter(|group| {
            group.import.as_ref().is_some_and(|import| import.import_id == *import_id)
        });
        match group {
            Some(group) => Ok(group),
            None => refuse(Code::IllegalTransition),
        }
    }
}

fn progress(group: &Group) -> ImportProgress {
    ImportProgress { next_seq: group.events.len() as u64 + 1 }
}

fn initialized(group: &Group) -> Initialized {
    Initialized {
        epoch: group.epoch,
        head: group.events.len() as u64,
        history: HistoryId::new("h1").unwrap(),
    }
}

fn message_line(message: &Message) -> (u64, Bytes) {
    let line = MessageLine { seq: message.seq, message: message.clone(), answers: None };
    (message.seq, Line::Message(line).encode())
}
