//! From exported lines to gzip members, their index and the manifest; checks on the way that the
//! lines are the frozen group's.
//!
//! Pure: takes bodies and gives back the bytes that go into the file. [`crate::writer`] does the IO.

use bytes::{Bytes, BytesMut};
use convene_model::{
    archive::{
        Digest, ExportSection, Header, IndexEntry, Line, LineKind, Manifest, Section, Trailer,
        line::{parse_event, split},
    },
    record::{CHAIN_START, Chain},
};
use sha2::{Digest as _, Sha256};

use crate::{error::ArchiveError, member, writer::WriteOptions};

/// Makes the file of one snapshot.
pub(crate) struct Encoder {
    header: Header,
    options: WriteOptions,
    /// Whether the file is made, or only its checksum.
    with_file: bool,
    section: Section,
    open: OpenMember,
    index: Vec<IndexEntry>,
    checksum: Sha256,
    file_checksum: Sha256,
    plain_bytes: u64,
    bytes: u64,
    messages: u64,
    runs: u64,
    events: u64,
    chain: Chain,
    /// The number of the last line of the section.
    last_seq: u64,
    /// What goes into the file next.
    out: Vec<Bytes>,
}

/// The lines that are not compressed yet.
#[derive(Default)]
struct OpenMember {
    plain: BytesMut,
    first_seq: u64,
    last_seq: u64,
    lines: u64,
    messages: u64,
}

impl Encoder {
    /// Begins with the header; `with_file` says whether the file is wanted beside the checksum.
    pub(crate) fn begin(
        header: Header,
        options: WriteOptions,
        with_file: bool,
    ) -> Result<Self, ArchiveError> {
        let line = Line::Header(header.clone()).encode();
        let mut encoder = Self {
            header,
            options,
            with_file,
            section: Section::Header,
            open: OpenMember::default(),
            index: Vec::new(),
            checksum: Sha256::new(),
            file_checksum: Sha256::new(),
            plain_bytes: 0,
            bytes: 0,
            messages: 0,
            runs: 0,
            events: 0,
            chain: CHAIN_START,
            last_seq: 0,
            out: Vec::new(),
        };
        encoder.append(LineKind::Header, &line)?;
        Ok(encoder)
    }

    /// Takes a body of whole lines of one section and gives back how many there were, and what goes into the
    /// file.
    pub(crate) fn lines(
        &mut self,
        section: ExportSection,
        body: &Bytes,
    ) -> Result<(u64, Vec<Bytes>), ArchiveError> {
        let section = section.section();
        if section < self.section {
            return Err(wrong(format!("{} after {}", section.as_str(), self.section.as_str())));
        }
        if section > self.section {
            self.close_member();
            self.section = section;
            self.last_seq = 0;
        }
        let (mut lines, mut at) = (0, 0);
        for line in split(body).map_err(|error| wrong(error.to_string()))? {
            let end = at + line.len() + 1;
            self.line(&line, &body.slice(at..end))?;
            (lines, at) = (lines + 1, end);
        }
        Ok((lines, std::mem::take(&mut self.out)))
    }

    /// Ends with the trailer; the manifest is not signed yet.
    pub(crate) fn end(mut self) -> Result<(Manifest, Vec<Bytes>), ArchiveError> {
        let Header { last_seq, chain, .. } = self.header;
        if self.events != last_seq {
            return Err(wrong(format!("it ends at event {} of {last_seq}", self.events)));
        }
        if Digest(self.chain) != chain {
            return Err(wrong("its events lead to another chain".into()));
        }
        self.close_member();
        self.section = Section::Trailer;
        let trailer =
            Trailer { messages: self.messages, runs: self.runs, events: self.events, chain };
        self.append(LineKind::Trailer, &Line::Trailer(trailer).encode())?;
        self.close_member();
        let header = self.header;
        let manifest = Manifest {
            format: header.format,
            snapshot_id: header.snapshot_id(),
            group_id: header.group_id,
            org_id: header.org_id,
            archive_id: header.archive_id,
            epoch: header.epoch,
            history: header.history,
            history_mode: header.history_mode,
            first_seq: header.first_seq,
            last_seq: header.last_seq,
            chain: header.chain,
            messages: self.messages,
            runs: self.runs,
            events: self.events,
            checksum: Digest(self.checksum.finalize().into()),
            plain_bytes: self.plain_bytes,
            file_checksum: Digest(self.file_checksum.finalize().into()),
            bytes: self.bytes,
            index: self.index,
            issuer: String::new(),
            signed_by: String::new(),
            signature: String::new(),
        };
        Ok((manifest, self.out))
    }

    fn line(&mut self, line: &Bytes, with_end: &Bytes) -> Result<(), ArchiveError> {
        convene_threads::worked(line.len());
        let kind = LineKind::of(line).map_err(|error| wrong(error.to_string()))?;
        let seq = kind.seq();
        if kind.section() != self.section {
            return Err(wrong(format!("line {seq} does not belong to {}", self.section.as_str())));
        }
        match kind {
            LineKind::Event(_) | LineKind::Erased(_) => {
                if seq != self.events + 1 {
                    return Err(wrong(format!("event {seq} follows event {}", self.events)));
                }
                let record = parse_event(line).map_err(|error| wrong(error.to_string()))?;
                self.chain = record.chain(&self.chain);
                self.events += 1;
            }
            LineKind::Message(_) => self.messages += 1,
            LineKind::Run(_) => self.runs += 1,
            LineKind::State(_) => {}
            LineKind::Header | LineKind::Trailer => {
                return Err(wrong("header and trailer are not exported".into()));
            }
        }
        if seq <= self.last_seq || seq > self.header.last_seq {
            let (section, before) = (self.section.as_str(), self.last_seq);
            return Err(wrong(format!("{section} {seq} follows {before}")));
        }
        if self.section == Section::State && self.last_seq > 0 {
            return Err(wrong("there is more than one state".into()));
        }
        self.last_seq = seq;
        self.append(kind, with_end)
    }

    fn append(&mut self, kind: LineKind, line: &Bytes) -> Result<(), ArchiveError> {
        self.plain_bytes += line.len() as u64;
        if self.plain_bytes > self.options.max_plain_bytes {
            return Err(ArchiveError::TooLarge { limit: self.options.max_plain_bytes });
        }
        if self.open.lines > 0 && self.open.plain.len() + line.len() > self.options.member_bytes {
            self.close_member();
        }
        let open = &mut self.open;
        if open.lines == 0 {
            open.first_seq = kind.seq();
        }
        open.last_seq = kind.seq();
        open.lines += 1;
        open.messages += u64::from(matches!(kind, LineKind::Message(_)));
        open.plain.extend_from_slice(line);
        Ok(())
    }

    fn close_member(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.lines == 0 {
            return;
        }
        member::hash(&mut self.checksum, &open.plain);
        if !self.with_file {
            return;
        }
        let compressed = member::compress(&open.plain);
        member::hash(&mut self.file_checksum, &compressed);
        self.index.push(IndexEntry {
            section: self.section,
            first_seq: open.first_seq,
            last_seq: open.last_seq,
            lines: open.lines,
            messages: open.messages,
            offset: self.bytes,
            bytes: compressed.len() as u64,
            plain_bytes: open.plain.len() as u64,
            checksum: member::digest(&open.plain),
        });
        self.bytes += compressed.len() as u64;
        self.out.push(compressed);
    }
}

fn wrong(problem: String) -> ArchiveError {
    ArchiveError::Export(problem)
}
