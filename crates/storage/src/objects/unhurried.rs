//! A folder whose large files reach the disk piece by piece.
//!
//! An object ends with a sync of its whole file. Until then its bytes wait in the kernel's page cache, and
//! the sync of a large snapshot would keep the disk from the journal's commits for as long as the disk takes
//! for all of it. So what is large is written in pieces, each of which goes to the disk in the background
//! before the next one is written, and the sync at the end finds little left to do.

use std::{
    fmt,
    fs::{self, File},
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart, local::LocalFileSystem, path::Path,
};

use crate::paced;

/// Bytes that are written before they go to the disk. What is not larger is written at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The folder.
#[derive(Debug)]
pub(super) struct Unhurried(pub(super) LocalFileSystem);

impl fmt::Display for Unhurried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Unhurried {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if payload.content_length() <= PIECE_BYTES || opts.mode != PutMode::Overwrite {
            return self.0.put_opts(location, payload, opts).await;
        }
        let PutOptions { tags, attributes, extensions, .. } = opts;
        let opts = PutMultipartOptions { tags, attributes, extensions };
        let mut upload = self.put_multipart_opts(location, opts).await?;
        let stored = match upload.put_part(payload).await {
            Ok(()) => upload.complete().await,
            Err(error) => Err(error),
        };
        if stored.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%location, %error, "what was written of an object is left behind");
        }
        stored
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let goal: Arc<FsPath> = self.0.path_to_filesystem(location)?.into();
        let upload = self.0.put_multipart_opts(location, opts).await?;
        Ok(Box::new(Upload { upload, goal, end: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

/// An upload of parts into a file beside its goal.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    goal: Arc<FsPath>,
    /// Where the parts so far end in the file.
    end: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        // All of them have their places from here on: parts are written in any order.
        let mut pieces = Vec::new();
        for piece in in_pieces(&data) {
            let begin = self.end;
            self.end += piece.content_length() as u64;
            pieces.push((self.upload.put_part(piece), begin..self.end));
        }
        let goal = Arc::clone(&self.goal);
        Box::pin(async move {
            for (written, piece) in pieces {
                written.await?;
                hand_over(Arc::clone(&goal), piece).await;
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// What is to be written, a piece at a time.
fn in_pieces(data: &PutPayload) -> Vec<PutPayload> {
    let (mut pieces, mut piece, mut free) = (Vec::new(), Vec::<Bytes>::new(), PIECE_BYTES);
    for mut bytes in data.iter().cloned() {
        while !bytes.is_empty() {
            let taken = bytes.split_to(bytes.len().min(free));
            free -= taken.len();
            piece.push(taken);
            if free == 0 {
                pieces.push(piece.drain(..).collect());
                free = PIECE_BYTES;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece.into_iter().collect());
    }
    pieces
}

/// Waits until the disk has taken a piece of the file that is on its way to `goal`. Durable it becomes at the
/// end, whatever happens here.
async fn hand_over(goal: Arc<FsPath>, piece: Range<u64>) {
    let work = move || {
        for path in under_way(&goal) {
            if let Ok(file) = File::open(path) {
                paced::hand_over_part(&file, &piece);
            }
        }
    };
    if let Err(error) = convene_threads::run(work).await {
        tracing::debug!(%error, "a piece waits for the sync of its file");
    }
}

/// The files beside `goal` whose content is to become its.
fn under_way(goal: &FsPath) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (goal.parent(), goal.file_name()) else { return Vec::new() };
    let name = name.to_string_lossy();
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let of_it = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let is_of_it = found.strip_prefix(name.as_ref()).is_some_and(|rest| rest.starts_with('#'));
        is_of_it.then(|| entry.path())
    });
    of_it.collect()
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn payload(lengths: &[usize]) -> PutPayload {
        let bytes = lengths.iter().enumerate();
        bytes.map(|(nth, length)| Bytes::from(vec![nth as u8; *length])).collect()
    }

    fn whole(payload: &PutPayload) -> Vec<u8> {
        payload.iter().flatten().copied().collect()
    }

    #[test]
    fn pieces_are_full_but_the_last_and_keep_the_order() {
        const FULL: usize = PIECE_BYTES;
        let cases: [(&[usize], &[usize]); 6] = [
            (&[], &[]),
            (&[0, 1, 0], &[1]),
            (&[FULL], &[FULL]),
            (&[FULL + 1], &[FULL, 1]),
            (&[3, FULL - 4, 2, 3 * FULL], &[FULL, FULL, FULL, FULL, 1]),
            (&[FULL / 2, FULL / 2, FULL / 2], &[FULL, FULL / 2]),
        ];
        for (lengths, expected) in cases {
            let data = payload(lengths);
            let pieces = in_pieces(&data);
            let found: Vec<usize> = pieces.iter().map(PutPayload::content_length).collect();
            assert_eq!(found, expected, "{lengths:?}");
            assert_eq!(pieces.iter().flat_map(whole).collect::<Vec<_>>(), whole(&data));
        }
    }

    #[tokio::test]
    async fn what_is_put_at_once_is_whole_whatever_its_size_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Unhurried(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let path = Path::from("a/b");
        let goal = dir.path().join("a/b");
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 7, 2] {
            let data = payload(&[length / 3, length - length / 3]);
            store.put(&path, data.clone()).await.unwrap();
            assert_eq!(fs::read(&goal).unwrap(), whole(&data));
            assert_eq!(under_way(&goal), Vec::<PathBuf>::new());
        }
        // Only where nothing is: that is one step for the folder, and so for what is large, too.
        let large = payload(&[2 * PIECE_BYTES]);
        let refused = store.put_opts(&path, large.clone(), PutMode::Create.into()).await;
        assert!(matches!(refused, Err(object_store::Error::AlreadyExists { .. })));
        assert_eq!(fs::read(&goal).unwrap().len(), 2, "what is there stays");
        let elsewhere = Path::from("a/c");
        store.put_opts(&elsewhere, large.clone(), PutMode::Create.into()).await.unwrap();
        assert_eq!(fs::read(dir.path().join("a/c")).unwrap(), whole(&large));
    }

    #[tokio::test]
    async fn a_file_of_many_parts_is_whole_and_found_beside_its_goal_while_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Unhurried(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let path = Path::from("a/b.gz");
        let goal = dir.path().join("a/b.gz");
        let mut upload = store.put_multipart(&path).await.unwrap();
        for part in 0..5_u8 {
            upload.put_part(vec![part; 700_000].into()).await.unwrap();
            assert_eq!(under_way(&goal).len(), 1);
            assert!(!goal.exists(), "it is there when it is whole");
        }
        upload.complete().await.unwrap();
        assert_eq!(under_way(&goal), Vec::<PathBuf>::new());
        let got: Vec<_> =
            store.get(&path).await.unwrap().into_stream().try_collect().await.unwrap();
        let expected: Vec<u8> = (0..5_u8).flat_map(|part| vec![part; 700_000]).collect();
        assert_eq!(got.concat(), expected);
        assert_eq!(under_way(&dir.path().join("no/such")), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn an_upload_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Unhurried(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        let mut upload = store.put_multipart(&Path::from("b.gz")).await.unwrap();
        upload.put_part(vec![1; 10].into()).await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
