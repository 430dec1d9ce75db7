//! Which snapshots a store has, and removing everything of one group.

use convene_model::{
    GroupId, Timestamp,
    archive::{Digest, group_prefix},
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::{ObjectStore, path::Path};

use crate::error::ArchiveError;

/// A snapshot as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The group.
    pub group_id: GroupId,
    /// The snapshot's id.
    pub snapshot_id: Digest,
    /// Its manifest.
    pub path: String,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// The snapshots of one group, or of all; by their manifests, in no particular order. A content
/// without a manifest is no snapshot.
pub fn list<'a>(
    store: &'a dyn ObjectStore,
    group_id: Option<&GroupId>,
) -> impl Stream<Item = Result<Listed, ArchiveError>> + Send + 'a {
    let prefix = group_id.map_or_else(|| "groups".to_owned(), group_prefix);
    let found = store.list(Some(&Path::from(prefix.as_str())));
    found.filter_map(move |meta| {
        let listed = match meta {
            Ok(meta) => {
                let stored_at = meta.last_modified.timestamp_millis();
                let stored_at = Timestamp::from_millis(u64::try_from(stored_at).unwrap_or(0));
                listed(meta.location.as_ref(), stored_at).map(Ok)
            }
            Err(error) => Some(Err(ArchiveError::store(prefix.as_str())(error))),
        };
        std::future::ready(listed)
    })
}

fn listed(path: &str, stored_at: Timestamp) -> Option<Listed> {
    let (group_id, file) = path.strip_prefix("groups/")?.split_once("/archives/")?;
    let snapshot_id = file.strip_suffix(".manifest.json")?.parse().ok()?;
    let group_id = GroupId::new(group_id).ok()?;
    Some(Listed { group_id, snapshot_id, path: path.to_owned(), stored_at })
}

/// Removes everything that the store has of a group; how many files it was. Repeating it is
/// harmless.
///
/// # Errors
/// [`ArchiveError::Store`]; some of the files may be gone then.
pub async fn purge(store: &dyn ObjectStore, group_id: &GroupId) -> Result<u64, ArchiveError> {
    let prefix = group_prefix(group_id);
    let failed = |error| ArchiveError::store(prefix.as_str())(error);
    let found = store.list(Some(&Path::from(prefix.as_str())));
    let paths = found.map_ok(|meta| meta.location).boxed();
    // The listing goes on while files are removed; what it missed is found by the next round.
    let mut removed = store.delete_stream(paths);
    let mut count = 0;
    while let Some(gone) = removed.next().await {
        match gone {
            Ok(_) => count += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(count)
}
