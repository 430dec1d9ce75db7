//! Reads a whole snapshot back and checks everything.

use std::sync::Arc;

use convene_model::{archive::Manifest, keys::TrustedKeys};
use futures_util::TryStreamExt;
use object_store::ObjectStore;

use crate::{
    blocking,
    decode::{Check, Depth},
    error::ArchiveError,
    manifest::read_manifest,
    reader::stored,
};

/// Reads back the snapshot whose manifest is at `path`: signature, index, every line, the chain of
/// the events, counts and checksums. Without `keys` the signature is not checked. `progress` is told
/// how many bytes of the file have been checked.
///
/// # Errors
/// [`ArchiveError::Corrupt`], which says what is wrong and where; [`ArchiveError::Store`].
pub async fn verify(
    store: Arc<dyn ObjectStore>,
    path: &str,
    keys: Option<&TrustedKeys>,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Manifest, ArchiveError> {
    let manifest = read_manifest(store.as_ref(), path, keys).await?;
    let content = manifest.content_path();
    let corrupt = |problem: String| ArchiveError::corrupt(&content, problem);
    let mut members = stored(store, content.clone(), manifest.bytes, manifest.index.clone());
    let mut check = Check::begin(Depth::Lines);
    while let Some(member) = members.try_next().await? {
        let end = member.entry.offset + member.entry.bytes;
        let (after, checked) = blocking::run_in_background(move || {
            let checked = check.member(&member);
            (check, checked)
        })
        .await?;
        checked.map_err(corrupt)?;
        check = after;
        progress(end);
    }
    check.end(&manifest).map_err(corrupt)?;
    Ok(manifest)
}
