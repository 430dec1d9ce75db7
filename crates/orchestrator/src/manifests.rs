//! The manifests of snapshots that are being read, so that a page of an archived group's history
//! costs one range read.
//!
//! A snapshot never changes, so nothing here is ever stale. A manifest is taken from the store only
//! with a signature that holds.

use std::{num::NonZeroUsize, sync::Arc};

use convene_archive::{ArchiveError, read_manifest};
use convene_model::{
    GroupId,
    archive::{Digest, Manifest, manifest_path},
    keys::TrustedKeys,
};
use moka::future::Cache;
use object_store::ObjectStore;

/// Entries of all manifests' indexes that are kept in memory: about 200 bytes each.
const MAX_ENTRIES: u64 = 50_000;

/// Manifests by the ids of their snapshots.
pub(crate) struct Manifests {
    kept: Cache<Digest, Arc<Manifest>>,
}

impl Manifests {
    pub(crate) fn new() -> Self {
        let weigh = |_: &Digest, manifest: &Arc<Manifest>| {
            let entries = NonZeroUsize::new(manifest.index.len()).map_or(1, NonZeroUsize::get);
            u32::try_from(entries).unwrap_or(u32::MAX)
        };
        Self { kept: Cache::builder().max_capacity(MAX_ENTRIES).weigher(weigh).build() }
    }

    /// The manifest of a snapshot.
    pub(crate) async fn of(
        &self,
        store: &dyn ObjectStore,
        keys: &TrustedKeys,
        group_id: &GroupId,
        snapshot_id: &Digest,
    ) -> Result<Arc<Manifest>, ArchiveError> {
        if let Some(manifest) = self.kept.get(snapshot_id).await {
            return Ok(manifest);
        }
        let path = manifest_path(group_id, snapshot_id);
        let manifest = Arc::new(read_manifest(store, &path, Some(keys)).await?);
        self.kept.insert(*snapshot_id, Arc::clone(&manifest)).await;
        Ok(manifest)
    }
}
