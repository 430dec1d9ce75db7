//! What archiving asks of a group: to stand still, to say where it stands exactly, to go on after
//! all, and to be wiped.
//!
//! A wipe is refused unless the group still stands exactly where whoever asks saw it: what was not
//! archived is never lost.

use bytes::Bytes;
use convene_group_controller::{Controller, Input, State};
use convene_hop::Close;
use convene_model::{
    ArchiveId, Code, Problem,
    archive::{ExportSection, Frozen, ThawRequest, WipeRequest},
    frame::CLOSE_ASLEEP,
    record::{CHAIN_START, Chain},
};
use tokio::sync::oneshot;

use super::{Actor, import};
use crate::controllers::output::Output;

/// What comes into a mailbox of archiving and restoring.
pub(in crate::controllers) enum Mail {
    Freeze { archive_id: ArchiveId, epoch: u64, reply: Reply<Frozen> },
    Thaw { request: ThawRequest, reply: Reply<()> },
    Export { archive_id: ArchiveId, epoch: u64, section: ExportSection, reply: Reply<Exportable> },
    Wipe { request: WipeRequest, reply: Reply<()> },
    Delete { epoch: u64, reply: Reply<()> },
    Import(import::Mail),
}

/// Whoever waits for an answer.
pub(in crate::controllers) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// A frozen group as an export reads it.
pub(in crate::controllers) struct Exportable {
    /// The number of its last event.
    pub(in crate::controllers) last_seq: u64,
    /// Its state where that is what is exported, else nothing: writing it out takes a moment.
    pub(in crate::controllers) state: Bytes,
}

impl Actor {
    pub(super) fn take_archive(&mut self, mail: Mail) {
        match mail {
            Mail::Freeze { archive_id, epoch, reply } => {
                let frozen = self.step(Input::Freeze { archive_id, epoch });
                let result = match frozen {
                    Ok(()) => self.frozen(),
                    Err(problem) => Err(self.with_figures(problem)),
                };
                self.answer_later(reply, result);
            }
            Mail::Thaw { request: ThawRequest { archive_id, epoch }, reply } => {
                let thawed = self.step(Input::Thaw { archive_id, epoch });
                let result = thawed.map_err(|problem| self.with_figures(problem));
                self.answer_later(reply, result);
            }
            Mail::Export { archive_id, epoch, section, reply } => {
                let result = self.exportable(&archive_id, epoch, section);
                self.answer_later(reply, result);
            }
            Mail::Wipe { request, reply } => match self.may_wipe(&request) {
                Ok(Some((seq, chain))) => {
                    tracing::info!(
                        group = %self.group_id, archive = %request.archive_id, epoch = request.epoch,
                        last_seq = seq, checksum = %request.checksum, "an archived group is wiped"
                    );
                    self.wipe(seq, chain, reply);
                }
                Ok(None) => self.answer_later(reply, Ok(())),
                Err(problem) => self.answer_later(reply, Err(problem)),
            },
            Mail::Delete { epoch, reply } => match self.may_delete(epoch) {
                Ok(Some((seq, chain))) => {
                    tracing::info!(
                        group = %self.group_id, epoch, last_seq = seq, "a deleted group is wiped"
                    );
                    self.wipe(seq, chain, reply);
                }
                Ok(None) => self.answer_later(reply, Ok(())),
                Err(problem) => self.answer_later(reply, Err(problem)),
            },
            Mail::Import(mail) => self.take_import(mail),
        }
    }

    /// Answers in its turn: behind everything that was stepped before.
    pub(super) fn answer_later<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, Problem>,
    ) {
        // Whoever asked may have given up.
        self.batch.outputs.push(Output::Reply(Box::new(move || drop(reply.send(result)))));
    }

    /// The group's state, or why there is none that anybody may see.
    pub(super) fn existing(&self) -> Result<&State, Problem> {
        self.controller.state().ok_or_else(|| match &self.import {
            None => Code::GroupNotFound.into(),
            Some(import) => import.problem("the group is being restored"),
        })
    }

    /// Whether a group that does not exist may begin.
    pub(super) fn may_begin(&self) -> Result<(), Problem> {
        if self.controller.state().is_some() {
            return Ok(());
        }
        if let Some(import) = &self.import {
            return Err(import.problem("the group is being restored"));
        }
        if self.shared.store.is_being_wiped(self.key) { Err(being_wiped()) } else { Ok(()) }
    }

    fn frozen(&self) -> Result<Frozen, Problem> {
        let state = self.existing()?;
        let identity = state.identity();
        let archive_id = state.frozen().ok_or(Code::Internal)?.clone();
        Ok(Frozen {
            archive_id,
            epoch: identity.epoch,
            history: identity.history.clone(),
            history_mode: identity.history_mode,
            last_seq: state.seq(),
            chain: self.chain.into(),
            messages: state.messages(),
            events: state.seq(),
            bytes_estimate: 0,
        })
    }

    /// The figures of a group that does not stand where somebody thought.
    fn with_figures(&self, problem: Problem) -> Problem {
        let Some(state) = self.controller.state() else { return problem };
        let problem = problem.with("epoch", state.identity().epoch).with("last_seq", state.seq());
        match state.frozen() {
            Some(archive_id) => problem.with("archive_id", archive_id.as_str()),
            None => problem,
        }
    }

    fn not_so(&self, detail: &str) -> Problem {
        self.with_figures(Problem::new(Code::IllegalTransition).detail(detail))
    }

    fn stands_at(&self, archive_id: &ArchiveId, epoch: u64) -> Result<&State, Problem> {
        let state = self.existing()?;
        if state.frozen() == Some(archive_id) && state.identity().epoch == epoch {
            return Ok(state);
        }
        Err(self.not_so("the group is not frozen for this attempt under this epoch"))
    }

    fn exportable(
        &self,
        archive_id: &ArchiveId,
        epoch: u64,
        section: ExportSection,
    ) -> Result<Exportable, Problem> {
        let last_seq = self.stands_at(archive_id, epoch)?.seq();
        let state = match section {
            ExportSection::State => self.controller.snapshot().ok_or(Code::Internal)?.into(),
            ExportSection::Messages | ExportSection::Events => Bytes::new(),
        };
        Ok(Exportable { last_seq, state })
    }

    /// Where the group ends that is to be wiped; `None` when there is nothing of it.
    fn may_wipe(&self, request: &WipeRequest) -> Result<Option<(u64, Chain)>, Problem> {
        if self.controller.state().is_none() && self.import.is_none() {
            return Ok(None);
        }
        let seq = self.stands_at(&request.archive_id, request.epoch)?.seq();
        if seq != request.last_seq {
            return Err(self.not_so("the group does not end there"));
        }
        Ok(Some((seq, self.chain)))
    }

    fn may_delete(&self, epoch: u64) -> Result<Option<(u64, Chain)>, Problem> {
        if let Some(state) = self.controller.state() {
            if epoch <= state.identity().epoch {
                return Err(self.not_so("only a higher epoch than the group's may delete it"));
            }
            return Ok(Some((state.seq(), self.chain)));
        }
        let Some(import) = &self.import else { return Ok(None) };
        if epoch < import.epoch() {
            return Err(import.problem("the group is being restored under a higher epoch"));
        }
        Ok(Some(import.head()))
    }

    /// Wipes everything of the group behind what was stepped before. From here on the group does
    /// not exist.
    pub(super) fn wipe(&mut self, seq: u64, chain: Chain, reply: Reply<()>) {
        self.commit();
        for run in std::mem::take(&mut self.runs).into_values() {
            run.abort();
        }
        self.upstreams.close_all(&Close::new(CLOSE_ASLEEP, "the group is gone"));
        self.controller = Controller::new();
        self.import = None;
        self.chain = CHAIN_START;
        self.last_snapshot = 0;
        self.stored_wake_at = None;
        self.wake_at = None;
        self.reported = false;
        let (done, committed) = oneshot::channel();
        let submitted = self.shared.store.wipe(&self.group_id, seq, chain, move |result| {
            // The group may be gone; then nobody waits for it.
            let _ = done.send(result);
        });
        if submitted.is_err() {
            tracing::warn!(group = %self.group_id, "the journal takes no wipe any more");
        }
        let answer = Output::Reply(Box::new(move || drop(reply.send(Ok(())))));
        self.gate.hold(Some(committed), vec![answer]);
    }
}

/// A group cannot begin anew while its former rows are taken out.
pub(in crate::controllers) fn being_wiped() -> Problem {
    Problem::new(Code::Unavailable)
        .detail("what the group had is still being wiped")
        .with("retry_after_ms", 1000)
}
