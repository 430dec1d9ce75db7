//! A snapshot's events while the whole of it is checked: all that a restore reads, read once.
//!
//! What is handed out has been checked against the manifest's index; that the snapshot is whole is known at
//! its end, and said then. Whoever takes the events in must not rely on them before.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::archive::{Manifest, Section};
use futures_util::{Stream, TryStreamExt, stream};
use object_store::ObjectStore;
use tokio::sync::mpsc;

use crate::{
    blocking,
    decode::{Check, Depth},
    error::ArchiveError,
    reader::stored,
};

/// Members that are read and checked before somebody asks for them.
const AHEAD: usize = 2;

/// What comes of a snapshot that is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Something else than events: so many bytes of the file.
    Passed {
        /// The bytes.
        bytes: u64,
    },
    /// The event lines from the number `first_seq` on.
    Events {
        /// The number of the first.
        first_seq: u64,
        /// Whole lines, at most `MAX_MEMBER_BYTES` (or one longer line).
        lines: Bytes,
    },
    /// The end: all of it is what the manifest says, byte for byte. Without it nothing is.
    Whole,
}

/// Reads a snapshot through and checks it against its manifest, which is the caller's
/// ([`crate::read_manifest`]): the file's size and checksum, each part's, what each line is and its place,
/// counts, header and trailer. Not checked is what events and messages say, nor the events' chain: whoever
/// takes the events in does that, and [`crate::verify`].
///
/// The stream ends with [`Checked::Whole`] or an error. It reads ahead, in a task that ends with it.
pub fn checked_events(
    store: Arc<dyn ObjectStore>,
    manifest: Manifest,
) -> impl Stream<Item = Result<Checked, ArchiveError>> + Send + Unpin + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let end = match check(store, &manifest, &sender).await {
            Ok(()) => Ok(Checked::Whole),
            Err(error) => Err(error),
        };
        // Whoever reads may have given up.
        let _ = sender.send(end).await;
    });
    let next = |mut receiver: mpsc::Receiver<_>| async move {
        receiver.recv().await.map(|item| (item, receiver))
    };
    Box::pin(stream::unfold(receiver, next))
}

async fn check(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    sender: &mpsc::Sender<Result<Checked, ArchiveError>>,
) -> Result<(), ArchiveError> {
    let content = manifest.content_path();
    let corrupt = |problem: String| ArchiveError::corrupt(&content, problem);
    let mut members = stored(store, content.clone(), manifest.bytes, manifest.index.clone());
    let mut check = Check::begin(Depth::Bytes);
    while let Some(member) = members.try_next().await? {
        let (section, first_seq) = (member.entry.section, member.entry.first_seq);
        let bytes = member.entry.bytes;
        let (after, lines) = blocking::run_in_background(move || {
            let lines = check.member(&member);
            (check, lines)
        })
        .await?;
        check = after;
        let lines = lines.map_err(corrupt)?;
        let part = match section {
            Section::Events => Checked::Events { first_seq, lines },
            Section::Header | Section::State | Section::Messages | Section::Trailer => {
                Checked::Passed { bytes }
            }
        };
        sender.send(Ok(part)).await.map_err(|_| ArchiveError::GivenUp)?;
    }
    check.end(manifest).map_err(corrupt)
}
