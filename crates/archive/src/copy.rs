//! Brings a snapshot from one store to another, unchanged.

use std::sync::Arc;

use convene_model::archive::{Digest, Manifest};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use sha2::{Digest as _, Sha256};

use crate::{error::ArchiveError, manifest::read_unverified, upload::Upload};

/// Copies a snapshot: the content, whose checksum is compared on the way, then the manifest. Whether
/// something was copied: `false` when `to` has it already. `progress` is told how many bytes were
/// copied.
///
/// # Errors
/// [`ArchiveError::Corrupt`] when the content is not what the manifest says, and then nothing is left
/// in `to`; [`ArchiveError::Conflict`] when `to` has another snapshot under this id;
/// [`ArchiveError::Store`].
pub async fn copy(
    from: Arc<dyn ObjectStore>,
    to: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    mut progress: impl FnMut(u64) + Send,
) -> Result<bool, ArchiveError> {
    let (path, content) = (manifest.path(), manifest.content_path());
    match read_unverified(to.as_ref(), &path).await? {
        Some(there) if there.checksum == manifest.checksum => return Ok(false),
        Some(_) => return Err(ArchiveError::Conflict { path }),
        None => {}
    }
    let location = Path::from(content.as_str());
    let got = match from.get(&location).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(ArchiveError::corrupt(content, "there is no such file"));
        }
        Err(error) => return Err(ArchiveError::store(content)(error)),
    };
    let failed = |error| ArchiveError::store(&content)(error);
    let mut body = got.into_stream();
    let mut upload = Upload::begin(Arc::clone(&to), location);
    let mut hash = Sha256::new();
    let mut copied = 0;
    while let Some(bytes) = body.try_next().await.map_err(failed)? {
        hash.update(&bytes);
        copied += bytes.len() as u64;
        progress(copied);
        upload.write(bytes).await.map_err(failed)?;
    }
    if Digest(hash.finalize().into()) != manifest.file_checksum {
        upload.abort().await;
        let problem = "the file has another checksum than the manifest says";
        return Err(ArchiveError::corrupt(content, problem));
    }
    upload.finish().await.map_err(failed)?;
    let put = to.put(&Path::from(path.as_str()), PutPayload::from(manifest.to_bytes())).await;
    put.map_err(ArchiveError::store(path))?;
    Ok(true)
}
