//! Reads a snapshot's lines back, member by member, from one request.
//!
//! Every member is checked against the manifest before anything of it is handed out; the manifest
//! is the caller's, read with [`crate::read_manifest`].

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use convene_model::archive::{
    IndexEntry, Line, LineKind, Manifest, Section, StateLine, line::split,
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, path::Path};

use crate::{blocking, error::ArchiveError, member};

/// A member as it is stored.
pub(crate) struct Stored {
    pub(crate) entry: IndexEntry,
    pub(crate) compressed: Bytes,
}

impl Stored {
    /// The member's lines, checked against its entry.
    pub(crate) fn open(&self, path: &str) -> Result<Bytes, ArchiveError> {
        member::decompress(&self.entry, &self.compressed)
            .map_err(|problem| ArchiveError::corrupt(path, problem))
    }
}

/// The event lines from the number `from` on, in bodies of whole lines of at most
/// `MAX_MEMBER_BYTES` (or one longer line).
pub fn events(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    from: u64,
) -> impl Stream<Item = Result<Bytes, ArchiveError>> + Send + 'static {
    let index = &manifest.index;
    let begin = index
        .iter()
        .position(|entry| entry.section == Section::Events && entry.last_seq >= from)
        .unwrap_or(index.len());
    let end = index.iter().rposition(|entry| entry.section == Section::Events);
    let end = end.map_or(begin, |last| last + 1).max(begin);
    opened(store, manifest, begin..end).map(move |lines| {
        let (entry, plain) = lines?;
        Ok(events_from(from, entry.first_seq, plain))
    })
}

/// Of event lines that begin with the number `first_seq` those from the number `from` on.
#[must_use]
pub fn events_from(from: u64, first_seq: u64, lines: Bytes) -> Bytes {
    // Numbers have no gaps, so that the lines before are as many as the numbers.
    let Some(before) = from.checked_sub(first_seq).filter(|before| *before > 0) else {
        return lines;
    };
    let skipped = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let at = skipped.map(|(at, _)| at + 1).nth(before as usize - 1).unwrap_or(lines.len());
    lines.slice(at..)
}

/// All lines of a snapshot, in bodies of whole lines.
pub fn lines(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
) -> impl Stream<Item = Result<Bytes, ArchiveError>> + Send + 'static {
    opened(store, manifest, 0..manifest.index.len()).map_ok(|(_, plain)| plain)
}

/// The state's line with its `\n`, and the state in it; `None` when the snapshot has none.
///
/// # Errors
/// [`ArchiveError::Corrupt`], [`ArchiveError::Store`].
pub async fn state(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
) -> Result<Option<(Bytes, StateLine)>, ArchiveError> {
    let at = manifest.index.iter().position(|entry| entry.section == Section::State);
    let Some(at) = at else { return Ok(None) };
    let opened: Vec<_> = opened(store, manifest, at..at + 1).try_collect().await?;
    let corrupt = |problem: String| ArchiveError::corrupt(manifest.content_path(), problem);
    let Some((_, line)) = opened.into_iter().next() else { return Ok(None) };
    match Line::parse(&line) {
        Ok(Line::State(state)) => Ok(Some((line, state))),
        Ok(_) => Err(corrupt("the state is another line".into())),
        Err(error) => Err(corrupt(format!("the state cannot be read: {error}"))),
    }
}

/// Members and their lines, checked against the manifest.
fn opened(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    range: Range<usize>,
) -> BoxStream<'static, Result<(IndexEntry, Bytes), ArchiveError>> {
    let path: Arc<str> = manifest.content_path().into();
    let entries = manifest.index.get(range).unwrap_or_default().to_vec();
    let stored = stored(store, manifest.content_path(), manifest.bytes, entries);
    stored
        .and_then(move |stored| {
            let path = Arc::clone(&path);
            async move {
                blocking::run_in_background(move || {
                    let plain = stored.open(&path)?;
                    Ok((stored.entry, plain))
                })
                .await?
            }
        })
        .boxed()
}

/// Contiguous members as they are stored, from one request; `size` is that of the whole file.
pub(crate) fn stored(
    store: Arc<dyn ObjectStore>,
    path: String,
    size: u64,
    entries: Vec<IndexEntry>,
) -> BoxStream<'static, Result<Stored, ArchiveError>> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return stream::empty().boxed();
    };
    let range = first.offset..last.offset + last.bytes;
    let cut = Cut { path, size, range, body: None, waiting: BytesMut::new() };
    stream::try_unfold((store, cut, entries.into_iter()), |(store, mut cut, mut entries)| async {
        let Some(entry) = entries.next() else { return Ok(None) };
        let compressed = cut.next(store.as_ref(), &entry).await?;
        Ok(Some((Stored { entry, compressed }, (store, cut, entries))))
    })
    .boxed()
}

/// A body that is cut into members.
struct Cut {
    path: String,
    size: u64,
    range: Range<u64>,
    /// `None` before the request was made.
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    waiting: BytesMut,
}

impl Cut {
    async fn next(
        &mut self,
        store: &dyn ObjectStore,
        entry: &IndexEntry,
    ) -> Result<Bytes, ArchiveError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open(store).await?,
        };
        let wanted = entry.bytes as usize;
        while self.waiting.len() < wanted {
            match body.next().await {
                Some(Ok(bytes)) => self.waiting.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(self.failed(store, error).await),
                None => {
                    let problem = format!("it is cut short in {}", member::name(entry));
                    return Err(ArchiveError::corrupt(&self.path, problem));
                }
            }
        }
        self.body = Some(body);
        Ok(self.waiting.split_to(wanted).freeze())
    }

    async fn open(
        &mut self,
        store: &dyn ObjectStore,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, ArchiveError> {
        let whole = self.range == (0..self.size);
        let range = (!whole).then(|| GetRange::Bounded(self.range.clone()));
        let options = GetOptions { range, ..GetOptions::default() };
        match store.get_opts(&Path::from(self.path.as_str()), options).await {
            Ok(got) => {
                self.check_size(got.meta.size)?;
                Ok(got.into_stream())
            }
            Err(error) => Err(self.failed(store, error).await),
        }
    }

    /// A request for bytes that are not there fails in as many ways as there are stores: the file's
    /// size tells whether the snapshot is at fault.
    async fn failed(
        &mut self,
        store: &dyn ObjectStore,
        error: object_store::Error,
    ) -> ArchiveError {
        if let object_store::Error::NotFound { .. } = error {
            return ArchiveError::corrupt(&self.path, "there is no such file");
        }
        if let Ok(meta) = store.head(&Path::from(self.path.as_str())).await
            && let Err(corrupt) = self.check_size(meta.size)
        {
            return corrupt;
        }
        ArchiveError::store(&self.path)(error)
    }

    fn check_size(&self, size: u64) -> Result<(), ArchiveError> {
        if size == self.size {
            return Ok(());
        }
        let problem = format!("it has {size} bytes, and the manifest says {}", self.size);
        Err(ArchiveError::corrupt(&self.path, problem))
    }
}

/// The lines of a member with what they are; each must belong to the member's section and range.
pub(crate) fn kinds(entry: &IndexEntry, plain: &Bytes) -> Result<Vec<(LineKind, Bytes)>, String> {
    let name = || member::name(entry);
    let mut out = Vec::with_capacity(entry.lines as usize);
    for line in split(plain).map_err(|error| format!("{}: {error}", name()))? {
        convene_threads::worked(line.len());
        let kind = LineKind::of(&line).map_err(|error| format!("{}: {error}", name()))?;
        let in_range = (entry.first_seq..=entry.last_seq).contains(&kind.seq());
        if kind.section() != entry.section || !in_range {
            return Err(format!("{} has a line of another part", name()));
        }
        out.push((kind, line));
    }
    if out.len() as u64 != entry.lines {
        return Err(format!("{} has another number of lines than the manifest says", name()));
    }
    Ok(out)
}
