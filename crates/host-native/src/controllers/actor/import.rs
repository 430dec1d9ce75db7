//! How a group comes back from its snapshot: its events are taken in order, checked as they come,
//! and the group exists when the last one is there.
//!
//! What has come is in the journal, so an import goes on after a crash where it stood. A snapshot
//! that does not hold what it says leaves the group as far as it was; whoever restores it wipes that.

use bytes::Bytes;
use convene_group_controller::{Controller, Input};
use convene_model::{
    Code, GroupId, ImportId, Problem,
    archive::{BeginImport, ImportProgress},
    event::{Event, EventKind},
    record::{CHAIN_START, Chain, Record},
};
use convene_storage::{Batch, Import, LoadedGroup, PostIndex, Snapshot};
use tokio::sync::oneshot;

use super::{
    Actor, WakeError,
    archive::{Reply, being_wiped},
};
use crate::controllers::{Head, output::Output};

/// Events after which the state goes along as a snapshot: an import that is gone on with folds at most so many
/// again. Whoever finishes it stores the state once more.
const SNAPSHOT_EVERY: u64 = 16_384;

/// What comes into a mailbox of an import.
pub(in crate::controllers) enum Mail {
    Begin { request: BeginImport, reply: Reply<ImportProgress> },
    Events { to: Target, from: u64, events: Vec<(Record, Event)>, reply: Reply<ImportProgress> },
    Finish { to: Target, state: Option<(u64, Bytes)>, reply: Reply<Head> },
}

/// Which import is meant.
pub(in crate::controllers) struct Target {
    pub(in crate::controllers) import_id: ImportId,
    pub(in crate::controllers) epoch: u64,
}

/// An import under way.
pub(in crate::controllers) struct Importing {
    import: Import,
    /// What the events so far have come to.
    fold: Controller,
    chain: Chain,
    next_seq: u64,
    last_snapshot: u64,
}

impl Importing {
    fn begin(import: Import) -> Self {
        let (fold, chain) = (Controller::new(), CHAIN_START);
        Self { import, fold, chain, next_seq: 1, last_snapshot: 0 }
    }

    /// Goes on where the store has come to.
    pub(super) fn resume(
        import: Import,
        loaded: Option<LoadedGroup>,
    ) -> Result<Box<Self>, WakeError> {
        let mut importing = Box::new(Self::begin(import));
        let Some(loaded) = loaded else { return Ok(importing) };
        let events = loaded.records.iter().map(Record::decode).collect::<Result<Vec<_>, _>>()?;
        let snapshot = loaded.snapshot.as_ref();
        importing.fold =
            Controller::rebuild(snapshot.map(|snapshot| snapshot.bytes.as_ref()), events)?;
        importing.last_snapshot = snapshot.map_or(0, |snapshot| snapshot.seq);
        importing.chain = loaded.chain;
        importing.next_seq = loaded.last_seq + 1;
        Ok(importing)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.import.epoch
    }

    /// The last event that has come, and the chain after it.
    pub(super) fn head(&self) -> (u64, Chain) {
        (self.next_seq - 1, self.chain)
    }

    /// A refusal with where the import stands.
    pub(super) fn problem(&self, detail: &str) -> Problem {
        Problem::new(Code::IllegalTransition)
            .detail(detail)
            .with("import_id", self.import.import_id.as_str())
            .with("epoch", self.import.epoch)
            .with("next_seq", self.next_seq)
    }

    fn progress(&self) -> ImportProgress {
        ImportProgress { next_seq: self.next_seq }
    }

    /// Takes the next event in.
    fn take(&mut self, record: &Record, event: &Event) -> Result<(), String> {
        if record.seq != self.next_seq || record.seq > self.import.last_seq {
            return Err(format!("event {} comes where {} is next", record.seq, self.next_seq));
        }
        self.fold.replay(event).map_err(|error| error.to_string())?;
        self.chain = record.chain(&self.chain);
        self.next_seq += 1;
        Ok(())
    }

    /// What is stored of events that were taken.
    fn batch(&mut self, group_id: &GroupId, first_seq: u64, events: &[(Record, Event)]) -> Batch {
        let posts = events.iter().filter_map(|(record, event)| {
            let EventKind::MessagePosted(posted) = &event.kind else { return None };
            let (message_id, digest) = (posted.message_id.clone(), posted.digest());
            Some(PostIndex { seq: record.seq, message_id, digest })
        });
        let seq = self.next_seq - 1;
        let snapshot = (seq >= self.last_snapshot + SNAPSHOT_EVERY).then(|| {
            self.last_snapshot = seq;
            self.fold.snapshot().map(|bytes| Snapshot { seq, bytes: bytes.into() })
        });
        Batch {
            group_id: group_id.clone(),
            key: group_id.key(),
            first_seq,
            records: events.iter().map(|(record, _)| record.clone()).collect(),
            posts: posts.collect(),
            chain: self.chain,
            wake_at: None,
            snapshot: snapshot.flatten(),
        }
    }

    /// The controller that goes on, when everything is there and is what it says: rebuilt from the
    /// state that came with the events, or from the events alone.
    fn whole(&self, state: Option<(u64, Bytes)>) -> Result<Option<Controller>, String> {
        if self.chain != self.import.chain.0 {
            return Err("its events do not have the chain that they should".into());
        }
        let folded = self.fold.state().ok_or("it has no events")?;
        if folded.frozen() != Some(&self.import.archive_id) {
            return Err("its last event does not freeze it for this attempt".into());
        }
        let Some((seq, bytes)) = state else { return Ok(None) };
        let controller =
            Controller::rebuild(Some(&bytes), []).map_err(|error| error.to_string())?;
        let same = controller.state().is_some_and(|state| {
            seq == folded.seq()
                && state.seq() == folded.seq()
                && state.identity() == folded.identity()
                && state.frozen() == folded.frozen()
                && state.messages() == folded.messages()
                && state.config() == folded.config()
        });
        if same { Ok(Some(controller)) } else { Err("its state is not that of its events".into()) }
    }
}

impl Actor {
    pub(super) fn take_import(&mut self, mail: Mail) {
        match mail {
            Mail::Begin { request, reply } => self.begin_import(request, reply),
            Mail::Events { to, from, events, reply } => {
                let result = self.import_events(&to, from, &events);
                self.answer_later(reply, result);
            }
            Mail::Finish { to, state, reply } => {
                let result = self.finish_import(&to, state);
                let exists = result.is_ok();
                self.answer_later(reply, result);
                if exists {
                    // The state that came with the snapshot is what the group goes on from.
                    self.commit_snapshot();
                }
            }
        }
    }

    fn begin_import(&mut self, request: BeginImport, reply: Reply<ImportProgress>) {
        let BeginImport { import_id, archive_id, epoch, last_seq, chain } = request;
        let import = Import { import_id, archive_id, epoch, last_seq, chain };
        let refused = match &self.import {
            Some(former) if former.import == import => {
                let progress = former.progress();
                return self.answer_later(reply, Ok(progress));
            }
            Some(former) if epoch > former.epoch() => {
                // What the former one has brought goes first.
                let (seq, chain) = former.head();
                let (wiped, _) = oneshot::channel();
                self.wipe(seq, chain, wiped);
                Some(being_wiped())
            }
            Some(former) => Some(former.problem("another import is under way")),
            None if self.controller.state().is_some() => {
                Some(Problem::new(Code::IllegalTransition).detail("the group exists"))
            }
            None => self.may_begin().err(),
        };
        if let Some(problem) = refused {
            return self.answer_later(reply, Err(problem));
        }
        let (done, committed) = oneshot::channel();
        let begun = self.shared.store.begin_import(&self.group_id, import.clone(), move |result| {
            // The group may be gone; then nobody waits for it.
            let _ = done.send(result);
        });
        if begun.is_err() {
            tracing::warn!(group = %self.group_id, "the journal takes no import any more");
        }
        let importing = Box::new(Importing::begin(import));
        let progress = importing.progress();
        self.import = Some(importing);
        let answer = Output::Reply(Box::new(move || drop(reply.send(Ok(progress)))));
        self.gate.hold(Some(committed), vec![answer]);
    }

    fn import_events(
        &mut self,
        to: &Target,
        from: u64,
        events: &[(Record, Event)],
    ) -> Result<ImportProgress, Problem> {
        let group_id = self.group_id.clone();
        let importing = self.importing(to)?;
        if from != importing.next_seq {
            return Err(importing.problem("another event is next"));
        }
        let mut taken = Ok(());
        let done = events.iter().position(|(record, event)| {
            taken = importing.take(record, event);
            taken.is_err()
        });
        let events = &events[..done.unwrap_or(events.len())];
        let batch = (!events.is_empty()).then(|| importing.batch(&group_id, from, events));
        let foreign = importing.fold.state().is_some_and(|state| *state.group_id() != group_id);
        let progress = importing.progress();
        if foreign {
            // Nothing of it was kept.
            let import = importing.import.clone();
            *importing = Importing::begin(import);
            let detail = "the events are of another group";
            return Err(Problem::new(Code::SnapshotCorrupt).detail(detail));
        }
        if let Some(batch) = batch {
            self.submit(batch, Vec::new());
        }
        taken.map_err(|detail| {
            Problem::new(Code::SnapshotCorrupt).detail(detail).with("next_seq", progress.next_seq)
        })?;
        Ok(progress)
    }

    fn finish_import(&mut self, to: &Target, state: Option<(u64, Bytes)>) -> Result<Head, Problem> {
        if self.import.is_none()
            && let Some(state) = self.controller.state()
            && state.frozen().is_none()
            && state.identity().epoch == to.epoch
        {
            // It was finished before.
            return self.head();
        }
        let importing = self.importing(to)?;
        if importing.next_seq <= importing.import.last_seq {
            return Err(importing.problem("events are missing"));
        }
        let controller = importing
            .whole(state)
            .map_err(|detail| Problem::new(Code::SnapshotCorrupt).detail(detail))?;
        let Some(importing) = self.import.take() else { return self.head() };
        self.chain = importing.chain;
        self.last_snapshot = importing.last_snapshot;
        self.controller = controller.unwrap_or(importing.fold);
        self.step(Input::Restore { epoch: to.epoch })?;
        tracing::info!(group = %self.group_id, epoch = to.epoch, "a group is restored");
        self.head()
    }

    /// The import that is meant, if it is under way.
    fn importing(&mut self, to: &Target) -> Result<&mut Importing, Problem> {
        let none = || Problem::new(Code::IllegalTransition).detail("no such import is under way");
        let importing = self.import.as_mut().ok_or_else(none)?;
        if importing.import.import_id != to.import_id || importing.import.epoch != to.epoch {
            return Err(importing.problem("another import is under way"));
        }
        Ok(importing)
    }
}
