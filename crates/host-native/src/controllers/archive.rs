//! Archiving and restoring a group, as the Orchestrator asks for it: the group's own task decides,
//! and what is read or parsed in bulk is done beside it.

use std::time::Duration;

use bytes::Bytes;
use convene_model::{
    Code, GroupId, ImportId, Problem,
    archive::{
        BeginImport, ExportQuery, ExportSection, FreezeRequest, Frozen, ImportProgress, Line,
        StateLine, ThawRequest, WipeRequest,
        line::{parse_event, split},
    },
    event::Event,
    limits::MAX_EXPORT_BYTES,
    record::Record,
};
use convene_storage::ExportPart;
use tokio::sync::oneshot;

use super::{
    Controllers, Head,
    actor::{
        self,
        archive::{Exportable, Mail, being_wiped},
        import::{self, Target},
    },
    gone, internal, store_problem,
};

/// How long a call waits until the former rows of its group are taken out.
const WIPE_PATIENCE: Duration = Duration::from_secs(20);
/// How long an export waits until what its group did last is carried over.
const PROJECTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long an import waits for room in the journal before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of events that are handed to an importing group at a time; each part is one commit.
const IMPORT_PART_BYTES: usize = 256 * 1024;

impl Controllers {
    /// Makes a group stand still and says where.
    ///
    /// # Errors
    /// The controller's refusal, or [`Code::GroupNotFound`].
    pub async fn freeze(
        &self,
        group_id: &GroupId,
        FreezeRequest { archive_id, epoch }: FreezeRequest,
    ) -> Result<Frozen, Problem> {
        let frozen =
            self.archive(group_id, |reply| Mail::Freeze { archive_id, epoch, reply }).await?;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        let bytes = tokio::task::spawn_blocking(move || store.size_of(key))
            .await
            .map_err(|error| internal("measuring a group", &error))?
            .map_err(|error| store_problem(group_id, &error))?;
        // The events, and about as much for the messages among them.
        Ok(Frozen { bytes_estimate: bytes * 2, ..frozen })
    }

    /// A part of what a frozen group consists of.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] unless it is frozen for exactly this, [`Code::Overloaded`] while
    /// the node is too far behind.
    pub async fn export(
        &self,
        group_id: &GroupId,
        query: ExportQuery,
    ) -> Result<ExportPart, Problem> {
        let ExportQuery { archive_id, epoch, section, after } = query;
        let Exportable { last_seq, state } = self
            .archive(group_id, |reply| Mail::Export { archive_id, epoch, section, reply })
            .await?;
        let (store, key) = (self.shared.store.clone(), group_id.key());
        // What was erased is in no snapshot, and each export of a group is the same.
        let waited = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || {
                store.wait_until_projected(key, PROJECTION_PATIENCE)
            })
        };
        if !waited.await.map_err(|error| internal("exporting a group", &error))? {
            return Err(Problem::new(Code::Overloaded)
                .detail("what the group did last is still being carried over")
                .with("retry_after_ms", 1000));
        }
        let read = move || match section {
            ExportSection::State => {
                let line = Line::State(StateLine { seq: last_seq, bytes: state }).encode();
                let lines = if after < last_seq { line } else { Bytes::new() };
                Ok(ExportPart { lines, next: None })
            }
            ExportSection::Messages => {
                store.export_messages(key, after, last_seq, MAX_EXPORT_BYTES)
            }
            ExportSection::Events => store.export_events(key, after, last_seq, MAX_EXPORT_BYTES),
        };
        convene_threads::run(read)
            .await
            .map_err(|error| internal("exporting a group", &error))?
            .map_err(|error| store_problem(group_id, &error))
    }

    /// Lets a group go on that was to be archived.
    ///
    /// # Errors
    /// The controller's refusal, or [`Code::GroupNotFound`].
    pub async fn thaw(&self, group_id: &GroupId, request: ThawRequest) -> Result<(), Problem> {
        self.archive(group_id, |reply| Mail::Thaw { request, reply }).await
    }

    /// Wipes a group that is frozen at exactly what the request names, or is gone already.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] for a group that stands anywhere else.
    pub async fn wipe(&self, group_id: &GroupId, request: WipeRequest) -> Result<(), Problem> {
        self.archive(group_id, |reply| Mail::Wipe { request, reply }).await
    }

    /// Wipes a group whose epoch its directory has raised to `epoch`, or what there is of it while
    /// it is being restored; nothing of a group that does not exist. One in quarantine goes with what
    /// is wrong with it.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] for a group whose own epoch is not lower,
    /// [`Code::HistoryServiceUnavailable`] until its organization's own service has erased it too.
    pub async fn delete(&self, group_id: &GroupId, epoch: u64) -> Result<(), Problem> {
        // First, since a group that is gone knows nothing of its organization's own service.
        if let Ok(Head { epoch: own, kept_by: Some(org_id), .. }) = self.head(group_id).await
            && own < epoch
        {
            let services = self.shared.history.get().ok_or(Code::HistoryServiceUnavailable)?;
            services.erase(&org_id, group_id).await?;
        }
        match self.archive(group_id, |reply| Mail::Delete { epoch, reply }).await {
            Err(problem) if problem.code == Code::GroupQuarantined => {
                self.purge(group_id, epoch).await
            }
            answer => answer,
        }
    }

    async fn purge(&self, group_id: &GroupId, epoch: u64) -> Result<(), Problem> {
        tracing::warn!(group = %group_id, epoch, "a deleted group is wiped that was in quarantine");
        let (done, committed) = oneshot::channel();
        let submitted = self.shared.store.purge(group_id, move |result| {
            // Whoever asked may have given up.
            let _ = done.send(result);
        });
        let unavailable = || Problem::new(Code::Unavailable).with("retry_after_ms", 1000);
        submitted.map_err(|_| unavailable())?;
        match committed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(unavailable()),
        }
    }

    /// Begins to restore a group, or goes on with it.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] for a group that exists or that another import brings back,
    /// [`Code::Unavailable`] while its former rows are taken out.
    pub async fn begin_import(
        &self,
        group_id: &GroupId,
        request: BeginImport,
    ) -> Result<ImportProgress, Problem> {
        self.wiped(group_id).await?;
        let first = request.clone();
        let begin = |request| {
            self.archive(group_id, move |reply| {
                Mail::Import(import::Mail::Begin { request, reply })
            })
        };
        match begin(first).await {
            // It has had to wipe what another import left.
            Err(problem) if problem.code == Code::Unavailable => {
                self.wiped(group_id).await?;
                begin(request).await
            }
            answer => answer,
        }
    }

    /// Takes events of a group that is being restored, as lines of its snapshot.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] with the figure `next_seq` when other events are next,
    /// [`Code::SnapshotCorrupt`] when lines are no events that can follow, [`Code::Overloaded`].
    pub async fn import(
        &self,
        group_id: &GroupId,
        import_id: ImportId,
        epoch: u64,
        from: u64,
        lines: Bytes,
    ) -> Result<ImportProgress, Problem> {
        self.wait_for_room().await?;
        let mailbox = self.mailbox(group_id).await?;
        let corrupt = |detail| Problem::new(Code::SnapshotCorrupt).detail(detail);
        let (mut next, mut answers) = (from, Vec::new());
        // What is parsed goes to the group while the next part is parsed.
        for part in parts(&lines) {
            let events = convene_threads::run(move || parse(&part))
                .await
                .map_err(|error| internal("reading events", &error))?
                .map_err(corrupt)?;
            let (to, from) = (Target { import_id: import_id.clone(), epoch }, next);
            next += events.len() as u64;
            let (reply, answer) = oneshot::channel();
            let mail = Mail::Import(import::Mail::Events { to, from, events, reply });
            self.send(&mailbox, actor::Mail::Archive(mail))?;
            answers.push(answer);
        }
        let mut progress = ImportProgress { next_seq: from };
        for answer in answers {
            progress = answer.await.map_err(|_| gone())??;
        }
        Ok(progress)
    }

    /// Ends the restoration of a group: from here on it exists.
    ///
    /// # Errors
    /// [`Code::IllegalTransition`] when events are missing, [`Code::SnapshotCorrupt`] when what came
    /// is not what the import was to bring.
    pub async fn finish_import(
        &self,
        group_id: &GroupId,
        import_id: ImportId,
        epoch: u64,
        state: &Bytes,
    ) -> Result<Head, Problem> {
        let state = if state.is_empty() {
            None
        } else {
            match Line::parse(state) {
                Ok(Line::State(state)) => Some((state.seq, state.bytes)),
                Ok(_) | Err(_) => {
                    let detail = "the body is no line with a state";
                    return Err(Problem::new(Code::SnapshotCorrupt).detail(detail));
                }
            }
        };
        let to = Target { import_id, epoch };
        self.archive(group_id, |reply| Mail::Import(import::Mail::Finish { to, state, reply }))
            .await
    }

    /// Waits until nothing is left of what a group was before.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when that takes too long.
    pub(super) async fn wiped(&self, group_id: &GroupId) -> Result<(), Problem> {
        let (store, key) = (self.shared.store.clone(), group_id.key());
        if !store.is_being_wiped(key) {
            return Ok(());
        }
        let wait = move || store.wait_until_wiped(key, WIPE_PATIENCE);
        let done = tokio::task::spawn_blocking(wait)
            .await
            .map_err(|error| internal("waiting for a wipe", &error))?;
        if done { Ok(()) } else { Err(being_wiped()) }
    }

    async fn wait_for_room(&self) -> Result<(), Problem> {
        let until = tokio::time::Instant::now() + ROOM_PATIENCE;
        loop {
            let Err(no_room) = self.shared.store.has_room() else { return Ok(()) };
            let retry_after_ms = no_room.retry_after_ms();
            let pause = Duration::from_millis(retry_after_ms);
            if tokio::time::Instant::now() + pause > until {
                let code = match no_room {
                    convene_storage::NoRoom::Overloaded(_) => Code::Overloaded,
                    convene_storage::NoRoom::DiskFull { .. } => Code::StorageFull,
                };
                return Err(Problem::new(code).with("retry_after_ms", retry_after_ms));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn archive<T>(
        &self,
        group_id: &GroupId,
        mail: impl FnOnce(oneshot::Sender<Result<T, Problem>>) -> Mail,
    ) -> Result<T, Problem> {
        self.ask(group_id, |reply| actor::Mail::Archive(mail(reply))).await?
    }
}

/// Whole lines in parts; at least one.
fn parts(lines: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = Some(lines.clone());
    std::iter::from_fn(move || {
        let mut part = rest.take()?;
        let end = part.get(IMPORT_PART_BYTES..).and_then(|after| {
            let at = after.iter().position(|byte| *byte == b'\n')?;
            Some(IMPORT_PART_BYTES + at + 1)
        });
        if let Some(end) = end.filter(|end| *end < part.len()) {
            rest = Some(part.split_off(end));
        }
        Some(part)
    })
}

/// The events in lines of a snapshot.
fn parse(lines: &Bytes) -> Result<Vec<(Record, Event)>, String> {
    let lines = split(lines).map_err(|error| error.to_string())?;
    lines
        .map(|line| {
            convene_threads::worked(line.len());
            // Shared bytes would keep the whole body for as long as one of its events.
            let line = Bytes::copy_from_slice(&line);
            let record = parse_event(&line).map_err(|error| error.to_string())?;
            let event = record.decode().map_err(|error| error.to_string())?;
            Ok((record, event))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_into_parts_of_whole_lines() {
        let line = |len: usize| [vec![b'x'; len - 1], vec![b'\n']].concat();
        let lens = |lines: &[usize]| {
            let body: Bytes = lines.iter().flat_map(|len| line(*len)).collect();
            let cut: Vec<Bytes> = parts(&body).collect();
            assert_eq!(cut.concat(), body);
            assert!(cut.iter().all(|part| part.is_empty() || part.ends_with(b"\n")));
            cut.iter().map(Bytes::len).collect::<Vec<_>>()
        };
        let most = IMPORT_PART_BYTES;
        assert_eq!(lens(&[]), [0]);
        assert_eq!(lens(&[most]), [most]);
        assert_eq!(lens(&[most, 7]), [most + 7]);
        assert_eq!(lens(&[most - 1, 9, 7]), [most + 8, 7]);
        assert_eq!(lens(&[3 * most, 5, most, 1]), [3 * most, most + 5, 1]);
    }
}
