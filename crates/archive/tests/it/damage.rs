//! What is damaged is refused, with its name.

use std::sync::Arc;

use bytes::Bytes;
use convene_archive::{ArchiveError, Checked, checked_events, read_manifest, verify};
use convene_model::{
    Code,
    archive::Manifest,
    keys::{SigningKey, TrustedKeys},
};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use proptest::prelude::*;

use crate::sample::{Sample, block_on, keys, small_members, store};

async fn bytes(store: &Arc<dyn ObjectStore>, path: &str) -> Bytes {
    store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap()
}

/// What verifying says after the file at `path` was replaced.
async fn after(sample: &Sample, manifest: &Manifest, path: &str, with: Vec<u8>) -> ArchiveError {
    let store = store();
    sample.write(&store, small_members()).await.unwrap();
    store.put(&Path::from(path), with.into()).await.unwrap();
    verify(store, &manifest.path(), Some(&keys()), |_| ()).await.unwrap_err()
}

fn check(error: &ArchiveError, path: &str) {
    let ArchiveError::Corrupt { path: named, problem } = error else {
        panic!("{error:?} is no damage");
    };
    assert_eq!(named, path);
    assert!(!problem.is_empty());
    assert_eq!(error.problem().code, Code::SnapshotCorrupt);
    assert_eq!(error.problem().extra["path"], path);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_flipped_bit_or_cut_is_found_and_its_file_is_named(
        of_manifest in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        cut in any::<bool>(),
    ) {
        block_on(async {
            let sample = Sample::with_messages(30);
            let store = store();
            let manifest = sample.write(&store, small_members()).await.unwrap();
            let path = if of_manifest { manifest.path() } else { manifest.content_path() };
            let mut damaged = bytes(&store, &path).await.to_vec();
            let at = at.index(damaged.len());
            if cut { damaged.truncate(at) } else { damaged[at] ^= 1 << bit }
            check(&after(&sample, &manifest, &path, damaged.clone()).await, &path);
            if !of_manifest {
                // Who restores it has perhaps taken something of it in, and is told before it counts.
                store.put(&Path::from(path.as_str()), damaged.into()).await.unwrap();
                let read: Result<Vec<Checked>, _> =
                    checked_events(store, manifest).try_collect().await;
                check(&read.unwrap_err(), &path);
            }
        });
    }
}

#[test]
fn bytes_that_were_added_are_found() {
    block_on(async {
        let sample = Sample::with_messages(30);
        let store = store();
        let manifest = sample.write(&store, small_members()).await.unwrap();
        for path in [manifest.path(), manifest.content_path()] {
            let mut longer = bytes(&store, &path).await.to_vec();
            longer.push(b'\n');
            check(&after(&sample, &manifest, &path, longer).await, &path);
        }
    });
}

#[test]
fn a_missing_file_is_named() {
    block_on(async {
        let sample = Sample::with_messages(3);
        for of_manifest in [true, false] {
            let store = store();
            let manifest = sample.write(&store, small_members()).await.unwrap();
            let path = if of_manifest { manifest.path() } else { manifest.content_path() };
            store.delete(&Path::from(path.as_str())).await.unwrap();
            let error = verify(store, &manifest.path(), Some(&keys()), |_| ()).await.unwrap_err();
            check(&error, &path);
        }
    });
}

#[test]
fn a_signature_holds_for_a_retired_key_and_for_no_other() {
    block_on(async {
        let store = store();
        let manifest = Sample::with_messages(3).write(&store, small_members()).await.unwrap();
        let new = SigningKey::from_seed("orchestrator", &[9; 32]);
        let mut both = new.jwks();
        both.keys.extend(crate::sample::key().jwks().keys);
        let both = TrustedKeys::of("orchestrator", &both).unwrap();
        assert!(read_manifest(store.as_ref(), &manifest.path(), Some(&both)).await.is_ok());
        let other = TrustedKeys::of("orchestrator", &new.jwks()).unwrap();
        let error = read_manifest(store.as_ref(), &manifest.path(), Some(&other)).await;
        check(&error.unwrap_err(), &manifest.path());
        assert!(read_manifest(store.as_ref(), &manifest.path(), None).await.is_ok());
    });
}

#[test]
fn a_manifest_signed_anew_over_other_content_does_not_help() {
    block_on(async {
        let sample = Sample::with_messages(30);
        let store = store();
        let good = sample.write(&store, small_members()).await.unwrap();
        let mut others = Vec::new();
        let mut fewer = good.clone();
        fewer.messages -= 1;
        others.push(fewer);
        let mut moved = good.clone();
        moved.index[2].offset += 1;
        others.push(moved);
        let mut huge = good.clone();
        huge.index[2].plain_bytes = u64::MAX;
        others.push(huge);
        let mut format = good.clone();
        format.format = 2;
        others.push(format);
        let mut epoch = good.clone();
        epoch.epoch += 1;
        others.push(epoch);
        let mut org = good.clone();
        org.org_id = convene_model::OrgId::new("o2").unwrap();
        others.push(org);
        for other in others {
            let other = other.sign(&crate::sample::key()).to_bytes();
            let error = after(&sample, &good, &good.path(), other).await;
            assert!(matches!(error, ArchiveError::Corrupt { .. }), "{error:?}");
        }
    });
}
