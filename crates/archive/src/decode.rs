//! Checks a snapshot's members one after the other against its manifest: the counterpart of
//! [`crate::encode`]. Pure.

use bytes::Bytes;
use convene_model::{
    archive::{Digest, Header, Line, LineKind, Manifest, Section, Trailer, line::parse_event},
    record::{CHAIN_START, Chain},
};
use sha2::{Digest as _, Sha256};

use crate::{
    member,
    reader::{Stored, kinds},
};

/// How deep a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything: each line is read.
    Lines,
    /// The bytes, and what kind each line is and where it stands. What messages, runs and events say, and
    /// the events' chain, is left to whoever takes them in.
    Bytes,
}

/// What the members so far have come to.
pub(crate) struct Check {
    depth: Depth,
    checksum: Sha256,
    file_checksum: Sha256,
    messages: u64,
    runs: u64,
    events: u64,
    chain: Chain,
    header: Option<Header>,
    trailer: Option<Trailer>,
    last: (Section, u64),
}

impl Check {
    pub(crate) fn begin(depth: Depth) -> Self {
        Self {
            depth,
            checksum: Sha256::new(),
            file_checksum: Sha256::new(),
            messages: 0,
            runs: 0,
            events: 0,
            chain: CHAIN_START,
            header: None,
            trailer: None,
            last: (Section::Header, 0),
        }
    }

    /// Checks the next member: its checksum, its lines, the order, the chain. Returns its lines.
    pub(crate) fn member(&mut self, stored: &Stored) -> Result<Bytes, String> {
        member::hash(&mut self.file_checksum, &stored.compressed);
        let entry = &stored.entry;
        let plain = member::decompress(entry, &stored.compressed)?;
        member::hash(&mut self.checksum, &plain);
        let before = self.messages;
        for (kind, line) in kinds(entry, &plain)? {
            self.line(kind, &line)?;
        }
        if self.messages - before != entry.messages {
            let name = member::name(entry);
            return Err(format!("{name} has another number of messages than the manifest says"));
        }
        Ok(plain)
    }

    fn line(&mut self, kind: LineKind, line: &Bytes) -> Result<(), String> {
        convene_threads::worked(line.len());
        let at = || format!("{} {}", kind.section().as_str(), kind.seq());
        let next = (kind.section(), kind.seq());
        // Header and trailer have no number, so that each of them can come only once.
        if self.header.is_some() && next <= self.last {
            return Err(format!("{} is out of order", at()));
        }
        self.last = next;
        match kind {
            LineKind::Event(seq) | LineKind::Erased(seq) => {
                if seq != self.events + 1 {
                    return Err(format!("event {seq} follows event {}", self.events));
                }
                self.events = seq;
                if self.depth == Depth::Bytes {
                    return Ok(());
                }
                let record = parse_event(line).map_err(|error| format!("{}: {error}", at()))?;
                self.chain = record.chain(&self.chain);
                return Ok(());
            }
            LineKind::Message(_) => self.messages += 1,
            LineKind::Run(_) => self.runs += 1,
            LineKind::Header | LineKind::State(_) | LineKind::Trailer => {}
        }
        if self.depth == Depth::Bytes && matches!(kind, LineKind::Message(_) | LineKind::Run(_)) {
            return Ok(());
        }
        match Line::parse(line).map_err(|error| format!("{}: {error}", at()))? {
            Line::Header(header) => self.header = Some(header),
            Line::Trailer(trailer) => self.trailer = Some(trailer),
            Line::Message(message) if message.message.seq != kind.seq() => {
                return Err(format!("{} holds another message", at()));
            }
            Line::Run(run) if run.run.seq != kind.seq() => {
                return Err(format!("{} holds another run", at()));
            }
            Line::Message(_) | Line::Run(_) | Line::State(_) | Line::Event(_) => {}
        }
        Ok(())
    }

    /// Checks the whole against the manifest.
    pub(crate) fn end(self, manifest: &Manifest) -> Result<(), String> {
        let header = self.header.ok_or("the header is missing")?;
        let trailer = self.trailer.ok_or("the trailer is missing")?;
        let same_header = header
            == Header {
                format: manifest.format,
                group_id: manifest.group_id.clone(),
                org_id: manifest.org_id.clone(),
                archive_id: manifest.archive_id.clone(),
                epoch: manifest.epoch,
                history: manifest.history.clone(),
                history_mode: manifest.history_mode,
                first_seq: manifest.first_seq,
                last_seq: manifest.last_seq,
                chain: manifest.chain,
            };
        if !same_header {
            return Err("the header says something else than the manifest".into());
        }
        let counted = (self.messages, self.runs, self.events);
        if counted != (manifest.messages, manifest.runs, manifest.events)
            || counted != (trailer.messages, trailer.runs, trailer.events)
        {
            return Err(format!(
                "there are {} messages, {} runs and {} events, and manifest and trailer say \
                 otherwise",
                self.messages, self.runs, self.events
            ));
        }
        let same_chain = match self.depth {
            Depth::Lines => Digest(self.chain) == manifest.chain,
            Depth::Bytes => true,
        };
        if !same_chain || trailer.chain != manifest.chain {
            return Err("the events lead to another chain than the manifest's".into());
        }
        if Digest(self.checksum.finalize().into()) != manifest.checksum {
            return Err("the lines have another checksum than the manifest says".into());
        }
        if Digest(self.file_checksum.finalize().into()) != manifest.file_checksum {
            return Err("the file has another checksum than the manifest says".into());
        }
        Ok(())
    }
}
