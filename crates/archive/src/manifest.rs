//! Reads a manifest and checks it in itself: form, place, index, signature.

use convene_model::{
    archive::{FORMAT, IndexEntry, Manifest, Section, snapshot_id},
    keys::TrustedKeys,
    limits::{MAX_ARCHIVE_LINE_BYTES, MAX_MANIFEST_BYTES},
};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use crate::error::ArchiveError;

/// Reads the manifest at `path` and checks everything that can be checked without the content.
/// Without `keys` the signature is not checked.
///
/// # Errors
/// [`ArchiveError::Corrupt`], which says what is wrong; [`ArchiveError::Store`].
pub async fn read_manifest(
    store: &dyn ObjectStore,
    path: &str,
    keys: Option<&TrustedKeys>,
) -> Result<Manifest, ArchiveError> {
    let manifest = read_unverified(store, path).await?;
    let manifest = manifest.ok_or_else(|| ArchiveError::corrupt(path, "there is no manifest"))?;
    if let Some(keys) = keys {
        manifest.verify_signature(keys).map_err(|error| {
            let by = &manifest.signed_by;
            ArchiveError::corrupt(path, format!("the signature by key {by:?} fails: {error}"))
        })?;
    }
    Ok(manifest)
}

/// Puts a manifest that was signed anew in the place of the one that is there; the content stays.
///
/// # Errors
/// [`ArchiveError::Store`].
pub async fn replace_manifest(
    store: &dyn ObjectStore,
    manifest: &Manifest,
) -> Result<(), ArchiveError> {
    let path = manifest.path();
    let put = store.put(&Path::from(path.as_str()), manifest.to_bytes().into()).await;
    put.map(|_| ()).map_err(ArchiveError::store(path))
}

/// [`read_manifest`] without the signature; `None` when there is no manifest.
pub(crate) async fn read_unverified(
    store: &dyn ObjectStore,
    path: &str,
) -> Result<Option<Manifest>, ArchiveError> {
    let location = Path::from(path);
    let got = match store.get(&location).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(ArchiveError::store(path)(error)),
    };
    let corrupt = |problem: String| ArchiveError::corrupt(path, problem);
    if got.meta.size > MAX_MANIFEST_BYTES as u64 {
        return Err(corrupt(format!("the manifest has {} bytes", got.meta.size)));
    }
    let bytes = got.bytes().await.map_err(ArchiveError::store(path))?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| corrupt(format!("the manifest cannot be read: {error}")))?;
    if manifest.to_bytes() != bytes {
        return Err(corrupt("the manifest is not in its canonical form".into()));
    }
    if manifest.path() != path {
        return Err(corrupt(format!("the manifest belongs to {}", manifest.path())));
    }
    check(&manifest).map_err(corrupt)?;
    Ok(Some(manifest))
}

/// Whether a manifest agrees with itself.
fn check(manifest: &Manifest) -> Result<(), String> {
    let Manifest { group_id, epoch, first_seq, last_seq, chain, .. } = manifest;
    if manifest.format != FORMAT {
        return Err(format!("format {} is not known here", manifest.format));
    }
    if snapshot_id(group_id, *epoch, *last_seq, &chain.0) != manifest.snapshot_id {
        return Err("the snapshot's id does not follow from group, epoch and chain".into());
    }
    if *first_seq != 1 || manifest.events != *last_seq {
        return Err("the manifest's range is not the whole group".into());
    }
    let mut section = Section::Header;
    let (mut bytes, mut plain_bytes) = (0_u64, 0_u64);
    let (mut lines_of_messages, mut messages, mut events) = (0_u64, 0_u64, 0_u64);
    let mut last: Option<&IndexEntry> = None;
    for entry in &manifest.index {
        let begins = last.is_none_or(|last| last.section != entry.section);
        let follows = begins || last.is_some_and(|last| last.last_seq < entry.first_seq);
        // A member holds at most one line beyond its own limit, and gzip adds little to it.
        let fits = entry.plain_bytes <= MAX_ARCHIVE_LINE_BYTES as u64 + 1
            && entry.bytes <= entry.plain_bytes + entry.plain_bytes / 64 + 1024;
        if entry.section < section
            || entry.offset != bytes
            || entry.first_seq > entry.last_seq
            || entry.last_seq > *last_seq
            || entry.lines == 0
            || entry.messages > entry.lines
            || !follows
            || !fits
        {
            let name = crate::member::name(entry);
            return Err(format!("the index has an impossible entry: {name}"));
        }
        let sum = |a: u64, b: u64| a.checked_add(b).ok_or("the index adds up to too much");
        section = entry.section;
        bytes = sum(bytes, entry.bytes)?;
        plain_bytes = sum(plain_bytes, entry.plain_bytes)?;
        messages = sum(messages, entry.messages)?;
        match entry.section {
            Section::Messages => lines_of_messages = sum(lines_of_messages, entry.lines)?,
            Section::Events => events = sum(events, entry.lines)?,
            Section::Header | Section::State | Section::Trailer => {}
        }
        last = Some(entry);
    }
    let adds_up = bytes == manifest.bytes
        && plain_bytes == manifest.plain_bytes
        && messages == manifest.messages
        && Some(lines_of_messages) == messages.checked_add(manifest.runs)
        && events == manifest.events;
    if adds_up { Ok(()) } else { Err("the index does not add up to the manifest's figures".into()) }
}
