//! A folder whose large files reach the disk piece by piece.
//!
//! An upload of parts ends with a sync of the whole file. Until then its bytes wait in the kernel's page
//! cache, and the sync of a large snapshot would keep the disk from the journal's commits for as long as
//! the disk takes for all of it. So each part goes to the disk before the next ones are waited for, in
//! the background, and the sync at the end finds little left to do.

use std::{
    fmt,
    fs::{self, File},
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
    local::LocalFileSystem, path::Path,
};

use crate::paced;

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
        self.0.put_opts(location, payload, opts).await
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
        let begin = self.end;
        self.end += data.content_length() as u64;
        let (part, goal) = (begin..self.end, Arc::clone(&self.goal));
        let written = self.upload.put_part(data);
        Box::pin(async move {
            written.await?;
            hand_over(goal, part).await;
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

/// Waits until the disk has taken a part of the file that is on its way to `goal`. Durable it becomes at the
/// end, whatever happens here.
async fn hand_over(goal: Arc<FsPath>, part: Range<u64>) {
    let work = move || {
        for path in under_way(&goal) {
            if let Ok(file) = File::open(path) {
                paced::hand_over_part(&file, &part);
            }
        }
    };
    if let Err(error) = convene_threads::run(work).await {
        tracing::debug!(%error, "a part waits for the sync of its file");
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
