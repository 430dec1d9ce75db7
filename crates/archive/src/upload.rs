//! The upload of a file as it grows: in one request while it is small, in parts beyond that.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, Result, WriteMultipart, path::Path};

/// Bytes of a part. All but the last are of this size, which R2 demands; with 10,000 parts at most
/// a file may have 80 GB.
pub(crate) const PART_BYTES: usize = 8 * 1024 * 1024;

/// Parts under way at a time.
const PARTS_AT_ONCE: usize = 2;

/// A file on its way into the store.
pub(crate) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    parts: Option<WriteMultipart>,
}

impl Upload {
    pub(crate) fn begin(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, waiting: Vec::new(), waiting_bytes: 0, parts: None }
    }

    /// Takes the next bytes; waits while enough parts are under way.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if self.parts.is_none() {
            self.waiting_bytes += bytes.len();
            self.waiting.push(bytes);
            if self.waiting_bytes <= PART_BYTES {
                return Ok(());
            }
            let upload = self.store.put_multipart(&self.path).await?;
            let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            self.waiting.drain(..).for_each(|bytes| parts.put(bytes));
            self.parts = Some(parts);
        } else if let Some(parts) = &mut self.parts {
            parts.put(bytes);
        }
        match &mut self.parts {
            Some(parts) => parts.wait_for_capacity(PARTS_AT_ONCE).await,
            None => Ok(()),
        }
    }

    /// Returns when the whole file is stored.
    pub(crate) async fn finish(mut self) -> Result<()> {
        match self.parts.take() {
            Some(parts) => parts.finish().await.map(|_| ()),
            None => {
                let payload = PutPayload::from_iter(std::mem::take(&mut self.waiting));
                self.store.put(&self.path, payload).await.map(|_| ())
            }
        }
    }

    /// Takes back what was stored of it.
    pub(crate) async fn abort(mut self) {
        if let Some(parts) = self.parts.take() {
            abort(parts, &self.path).await;
        }
    }
}

async fn abort(parts: WriteMultipart, path: &Path) {
    if let Err(error) = parts.abort().await {
        tracing::warn!(%path, %error, "parts of an upload that was given up are left in the store");
    }
}

impl Drop for Upload {
    /// An upload that is dropped under way (its task was cancelled) is taken back, too.
    fn drop(&mut self) {
        let (Some(parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let path = self.path.clone();
        drop(runtime.spawn(async move { abort(parts, &path).await }));
    }
}
