//! Writes a snapshot: lines in, content first, manifest last.

use std::sync::Arc;

use bytes::Bytes;
use convene_model::{
    archive::{ExportSection, Header, Manifest, content_path, manifest_path},
    keys::SigningKey,
    limits::MAX_MEMBER_BYTES,
};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use crate::{
    blocking, encode::Encoder, error::ArchiveError, manifest::read_unverified, upload::Upload,
};

/// How a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Bytes of uncompressed lines at most.
    pub max_plain_bytes: u64,
    /// Uncompressed bytes of one gzip member; [`MAX_MEMBER_BYTES`] unless a test wants several.
    pub member_bytes: usize,
}

impl Default for WriteOptions {
    /// No limit to the whole.
    fn default() -> Self {
        Self { max_plain_bytes: u64::MAX, member_bytes: MAX_MEMBER_BYTES }
    }
}

/// A snapshot on its way into the store.
///
/// Dropping it takes back what was uploaded. Nothing is a snapshot before its manifest is there,
/// and that is written last.
pub struct SnapshotWriter {
    store: Arc<dyn ObjectStore>,
    content: String,
    path: String,
    /// `None` after a step that failed or was cancelled.
    encoder: Option<Encoder>,
    target: Target,
}

/// Where the file goes.
enum Target {
    Store(Upload),
    /// The snapshot is there already: nothing is written, and what comes must be the same.
    There(Box<Manifest>),
}

/// Content that the store has whole.
pub struct StoredContent {
    manifest: Manifest,
    /// Where the manifest is to be written; `None` when it is there.
    place: Option<(Arc<dyn ObjectStore>, String)>,
}

impl StoredContent {
    /// Makes it a snapshot: the signed manifest is written, unless it is there.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub async fn sign(self, key: &SigningKey) -> Result<Manifest, ArchiveError> {
        let Some((store, path)) = self.place else { return Ok(self.manifest) };
        let manifest = self.manifest.sign(key);
        let payload = PutPayload::from(manifest.to_bytes());
        let put = store.put(&Path::from(path.as_str()), payload).await;
        put.map_err(ArchiveError::store(&path))?;
        Ok(manifest)
    }
}

impl SnapshotWriter {
    /// Begins the snapshot that `header` describes. When it is in the store already, nothing will
    /// be written: [`SnapshotWriter::finish`] then compares.
    ///
    /// # Errors
    /// [`ArchiveError::Store`]; [`ArchiveError::Corrupt`] when a manifest is there that cannot be
    /// read.
    pub async fn begin(
        store: Arc<dyn ObjectStore>,
        header: Header,
        options: WriteOptions,
    ) -> Result<Self, ArchiveError> {
        let (group_id, snapshot_id) = (header.group_id.clone(), header.snapshot_id());
        let content = content_path(&group_id, &snapshot_id);
        let path = manifest_path(&group_id, &snapshot_id);
        let target = match read_unverified(store.as_ref(), &path).await? {
            Some(there) => Target::There(Box::new(there)),
            None => Target::Store(Upload::begin(Arc::clone(&store), Path::from(content.as_str()))),
        };
        let with_file = matches!(target, Target::Store(_));
        let encoder = Some(Encoder::begin(header, options, with_file)?);
        Ok(Self { store, content, path, encoder, target })
    }

    /// Takes a body of whole lines, and says how many they were. Sections come in the order of
    /// [`ExportSection::ALL`], lines in ascending order, events without gaps.
    ///
    /// # Errors
    /// [`ArchiveError::Export`] when the lines are not those of the frozen group,
    /// [`ArchiveError::TooLarge`], [`ArchiveError::Store`]. The writer is of no use afterwards.
    pub async fn lines(
        &mut self,
        section: ExportSection,
        body: Bytes,
    ) -> Result<u64, ArchiveError> {
        if body.is_empty() {
            return Ok(0);
        }
        let mut encoder = self.encoder.take().ok_or(ArchiveError::GivenUp)?;
        let (encoder, made) = blocking::run_in_background(move || {
            let made = encoder.lines(section, &body);
            (encoder, made)
        })
        .await?;
        let (lines, made) = made?;
        self.write(made).await?;
        self.encoder = Some(encoder);
        Ok(lines)
    }

    /// Ends the snapshot: the content is stored whole, then the signed manifest. When the snapshot
    /// was in the store before and has the same checksum, its manifest is given back and nothing is
    /// written.
    ///
    /// # Errors
    /// [`ArchiveError::Export`] when lines are missing, [`ArchiveError::Conflict`] when the
    /// snapshot that is there has another checksum, [`ArchiveError::Corrupt`] when its content is
    /// missing, [`ArchiveError::Store`].
    pub async fn finish(self, key: &SigningKey) -> Result<Manifest, ArchiveError> {
        self.store_content().await?.sign(key).await
    }

    /// The first half of [`SnapshotWriter::finish`]: the content is stored whole, and is no snapshot yet.
    ///
    /// # Errors
    /// Those of [`SnapshotWriter::finish`].
    pub async fn store_content(mut self) -> Result<StoredContent, ArchiveError> {
        let encoder = self.encoder.take().ok_or(ArchiveError::GivenUp)?;
        let (manifest, made) = blocking::run_in_background(move || encoder.end()).await??;
        self.write(made).await?;
        match self.target {
            Target::There(there) => {
                let same = there.checksum == manifest.checksum
                    && there.plain_bytes == manifest.plain_bytes;
                if !same {
                    return Err(ArchiveError::Conflict { path: self.path });
                }
                let content = self.store.head(&Path::from(self.content.as_str())).await;
                match content {
                    Ok(meta) if meta.size == there.bytes => {
                        Ok(StoredContent { manifest: *there, place: None })
                    }
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {
                        Err(ArchiveError::corrupt(self.content, "it is missing or cut short"))
                    }
                    Err(error) => Err(ArchiveError::store(&self.content)(error)),
                }
            }
            Target::Store(upload) => {
                upload.finish().await.map_err(ArchiveError::store(&self.content))?;
                Ok(StoredContent { manifest, place: Some((self.store, self.path)) })
            }
        }
    }

    /// Gives the snapshot up and takes back what was uploaded.
    pub async fn abort(self) {
        match self.target {
            Target::Store(upload) => upload.abort().await,
            Target::There(_) => {}
        }
    }

    async fn write(&mut self, made: Vec<Bytes>) -> Result<(), ArchiveError> {
        match &mut self.target {
            Target::Store(upload) => {
                for bytes in made {
                    upload.write(bytes).await.map_err(ArchiveError::store(&self.content))?;
                }
                Ok(())
            }
            Target::There(_) => Ok(()),
        }
    }
}
