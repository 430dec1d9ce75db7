//! What is written, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use convene_archive::{
    ArchiveError, Checked, SnapshotWriter, WriteOptions, checked_events, copy, events, lines, list,
    purge, state, verify,
};
use convene_model::{
    Code,
    archive::{ExportSection, Line, LineKind, Manifest, Section, line::split},
    limits::MAX_MEMBER_BYTES,
};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use proptest::prelude::*;

use crate::sample::{Happens, Sample, block_on, group, happens, key, keys, small_members, store};

async fn all(store: &Arc<dyn ObjectStore>, manifest: &Manifest) -> Bytes {
    let bodies: Vec<Bytes> = lines(Arc::clone(store), manifest).try_collect().await.unwrap();
    bodies.concat().into()
}

async fn verified(store: &Arc<dyn ObjectStore>, manifest: &Manifest) -> Manifest {
    verify(Arc::clone(store), &manifest.path(), Some(&keys()), |_| ()).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_group_comes_back_line_by_line(
        story in proptest::collection::vec(happens(), 1..60),
        member_bytes in 1_usize..4096,
    ) {
        let sample = Sample::of(&story);
        block_on(async {
            let store = store();
            let options = WriteOptions { member_bytes, ..WriteOptions::default() };
            let manifest = sample.write(&store, options).await.unwrap();
            assert_eq!(verified(&store, &manifest).await, manifest);
            assert_eq!(manifest.messages, sample.frozen.messages);

            let expected = sample.export(usize::MAX);
            let expected: Vec<u8> = expected.iter().flat_map(|(_, body)| body.to_vec()).collect();
            let back = all(&store, &manifest).await;
            let inner: Vec<u8> = split(&back)
                .unwrap()
                .filter(|line| !matches!(
                    LineKind::of(line).unwrap(), LineKind::Header | LineKind::Trailer
                ))
                .flat_map(|line| [&line[..], b"\n"].concat())
                .collect();
            assert_eq!(inner, expected);

            let read: Vec<Checked> = checked_events(Arc::clone(&store), manifest.clone())
                .try_collect()
                .await
                .unwrap();
            assert_eq!(read.last(), Some(&Checked::Whole));
            let (mut file_bytes, mut lines) = (0, Vec::<Vec<u8>>::new());
            for part in read {
                match part {
                    Checked::Passed { bytes } => file_bytes += bytes,
                    Checked::Events { first_seq, lines: part } => {
                        let before = split(&Bytes::from(lines.concat())).unwrap().count() as u64;
                        assert_eq!(first_seq, before + 1);
                        lines.push(part.to_vec());
                    }
                    Checked::Whole => {}
                }
            }
            let events_bytes: u64 = manifest
                .index
                .iter()
                .filter(|entry| entry.section == Section::Events)
                .map(|entry| entry.bytes)
                .sum();
            assert_eq!(file_bytes + events_bytes, manifest.bytes);
            let all_events: Vec<Bytes> =
                events(Arc::clone(&store), &manifest, 1).try_collect().await.unwrap();
            assert_eq!(lines.concat(), all_events.concat());

            for from in 1..=manifest.last_seq + 1 {
                let bodies: Vec<Bytes> =
                    events(Arc::clone(&store), &manifest, from).try_collect().await.unwrap();
                let body: Bytes = bodies.concat().into();
                let records: Vec<_> = split(&body)
                    .unwrap()
                    .map(|line| match Line::parse(&line).unwrap() {
                        Line::Event(record) => record,
                        other => panic!("{other:?} among the events"),
                    })
                    .collect();
                assert_eq!(records, sample.events[from as usize - 1..]);
            }
            let state = state(Arc::clone(&store), &manifest).await.unwrap();
            assert_eq!(state.map(|(_, state)| state), sample.state);
        });
    }
}

#[test]
fn a_second_export_has_the_same_path_and_checksum_and_writes_nothing() {
    block_on(async {
        let store = store();
        let sample = Sample::with_messages(50);
        let first = sample.write(&store, small_members()).await.unwrap();
        let before = store.head(&Path::from(first.path())).await.unwrap();
        let content = store.head(&Path::from(first.content_path())).await.unwrap();
        // Other bodies and other members make the same lines.
        let second = sample.write(&store, WriteOptions::default()).await.unwrap();
        assert_eq!(second, first);
        assert_eq!(store.head(&Path::from(first.path())).await.unwrap(), before);
        assert_eq!(store.head(&Path::from(first.content_path())).await.unwrap(), content);

        let fresh = crate::sample::store();
        let third = sample.write(&fresh, small_members()).await.unwrap();
        assert_eq!(third, first, "the same group makes the same files anywhere");
    });
}

#[test]
fn a_snapshot_that_is_there_is_not_replaced_by_other_lines() {
    block_on(async {
        let store = store();
        let sample = Sample::with_messages(5);
        sample.write(&store, small_members()).await.unwrap();
        let mut other = sample.clone();
        other.messages.pop();
        let refused = other.write(&store, small_members()).await;
        assert!(matches!(refused, Err(ArchiveError::Conflict { .. })), "{refused:?}");
        let missing = sample.header();
        let content = convene_model::archive::content_path(&group(), &missing.snapshot_id());
        store.delete(&Path::from(content)).await.unwrap();
        let refused = sample.write(&store, small_members()).await;
        assert!(matches!(refused, Err(ArchiveError::Corrupt { .. })), "{refused:?}");
    });
}

#[test]
fn members_hold_one_section_and_not_more_than_their_limit() {
    block_on(async {
        let store = store();
        let long = Happens::Post { text: "y".repeat(5000), answers: None, deleted: false };
        let mut story = vec![Happens::RunEnds; 30];
        story.insert(10, long);
        let manifest = Sample::of(&story).write(&store, small_members()).await.unwrap();
        let sections: Vec<_> = manifest.index.iter().map(|entry| entry.section).collect();
        assert!(sections.is_sorted());
        assert_eq!(sections.first(), Some(&Section::Header));
        assert_eq!(sections.last(), Some(&Section::Trailer));
        assert!(manifest.index.len() > 6, "{} members", manifest.index.len());
        for entry in &manifest.index {
            assert!(entry.plain_bytes <= 2048 || entry.lines == 1, "{entry:?}");
        }
        assert_eq!(WriteOptions::default().member_bytes, MAX_MEMBER_BYTES);
    });
}

#[test]
fn a_large_snapshot_goes_up_in_parts_and_comes_back() {
    block_on(async {
        let store = store();
        // Texts that do not compress, beyond the size of one part.
        let mut seed = 1_u64;
        let mut noise = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{seed:016x}")
        };
        let story: Vec<_> = (0..420)
            .map(|_| Happens::Post {
                text: (0..1900).map(|_| noise()).collect(),
                answers: None,
                deleted: false,
            })
            .collect();
        let sample = Sample::of(&story);
        let manifest = sample.write(&store, WriteOptions::default()).await.unwrap();
        assert!(manifest.bytes > 9 * 1024 * 1024, "{} bytes", manifest.bytes);
        assert_eq!(verified(&store, &manifest).await, manifest);
    });
}

#[test]
fn a_group_above_the_limit_is_refused_and_leaves_nothing() {
    block_on(async {
        let store = store();
        let sample = Sample::with_messages(50);
        let options = WriteOptions { max_plain_bytes: 5000, ..small_members() };
        let refused = sample.write(&store, options).await.unwrap_err();
        let problem = refused.problem();
        assert_eq!(problem.code, Code::SnapshotTooLarge);
        assert_eq!(problem.extra["limit_bytes"], 5000);
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap(), []);

        let whole = sample.write(&store, small_members()).await.unwrap().plain_bytes;
        let exact = WriteOptions { max_plain_bytes: whole, ..small_members() };
        assert!(sample.write(&crate::sample::store(), exact).await.is_ok());
    });
}

#[test]
fn an_export_that_is_not_the_frozen_group_s_is_refused() {
    block_on(async {
        let sample = Sample::with_messages(12);
        let bodies = sample.export(1);
        let events = bodies.iter().position(|(section, _)| *section == ExportSection::Events);
        let first = events.unwrap();
        let mut wrong = Vec::new();
        let mut without = bodies.clone();
        without.remove(first + 3);
        wrong.push(("a gap", without));
        let mut short = bodies.clone();
        short.pop();
        wrong.push(("an early end", short));
        let mut swapped = bodies.clone();
        swapped.swap(first + 3, first + 4);
        wrong.push(("another order", swapped));
        let mut other = bodies.clone();
        let text = String::from_utf8(other[first + 3].1.to_vec()).unwrap();
        other[first + 3].1 = text.replace("message 3", "message 4").into();
        wrong.push(("another text", other));
        let mut moved = bodies.clone();
        moved.swap(first - 1, first);
        wrong.push(("messages after events", moved));
        let mut twice = bodies.clone();
        twice.insert(0, twice[0].clone());
        wrong.push(("two states", twice));
        let mut cut = bodies.clone();
        let whole = cut[first].1.clone();
        cut[first].1 = whole.slice(..whole.len() - 1);
        wrong.push(("half a line", cut));

        for (what, bodies) in wrong {
            let store = store();
            let options = WriteOptions::default();
            let header = sample.header();
            let mut writer =
                SnapshotWriter::begin(Arc::clone(&store), header, options).await.unwrap();
            let mut failed = None;
            for (section, body) in bodies {
                if let Err(error) = writer.lines(section, body).await {
                    failed = Some(error);
                    break;
                }
            }
            let failed = match failed {
                Some(error) => {
                    assert!(matches!(writer.finish(&key()).await, Err(ArchiveError::GivenUp)));
                    error
                }
                None => writer.finish(&key()).await.unwrap_err(),
            };
            assert!(matches!(failed, ArchiveError::Export(_)), "{what}: {failed:?}");
            assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap(), [], "{what}");
        }
    });
}

#[test]
fn snapshots_are_listed_by_group_and_purged_by_group() {
    block_on(async {
        let store = store();
        let sample = Sample::with_messages(3);
        let manifest = sample.write(&store, small_members()).await.unwrap();
        store.put(&Path::from("groups/g1/archives/half.ndjson.gz"), "x".into()).await.unwrap();
        store.put(&Path::from("groups/g10/archives/other"), "x".into()).await.unwrap();
        let listed: Vec<_> = list(store.as_ref(), None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].path, manifest.path());
        assert_eq!(listed[0].snapshot_id, manifest.snapshot_id);
        assert!(listed[0].stored_at.millis() > 0);
        assert_eq!(
            list(store.as_ref(), Some(&group())).try_collect::<Vec<_>>().await.unwrap(),
            listed
        );
        assert_eq!(purge(store.as_ref(), &group()).await.unwrap(), 3);
        assert_eq!(purge(store.as_ref(), &group()).await.unwrap(), 0);
        let left: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(left.len(), 1, "another group's files stay");
    });
}

#[test]
fn a_snapshot_is_copied_whole_or_not_at_all() {
    block_on(async {
        let (from, to) = (store(), store());
        let manifest = Sample::with_messages(30).write(&from, small_members()).await.unwrap();
        let copied = |to| copy(Arc::clone(&from), to, &manifest, |_| ());
        assert!(copied(Arc::clone(&to)).await.unwrap());
        assert_eq!(verified(&to, &manifest).await, manifest);
        assert!(!copied(Arc::clone(&to)).await.unwrap(), "it is there already");

        let other = Manifest { messages: 7, ..manifest.clone() };
        let mut bytes = other.sign(&key());
        bytes.checksum = convene_model::archive::Digest([9; 32]);
        let path = Path::from(manifest.path());
        to.put(&path, bytes.to_bytes().into()).await.unwrap();
        assert!(copied(Arc::clone(&to)).await.is_err(), "what is there is not replaced");

        let content = Path::from(manifest.content_path());
        let mut damaged = from.get(&content).await.unwrap().bytes().await.unwrap().to_vec();
        damaged[100] ^= 1;
        from.put(&content, damaged.into()).await.unwrap();
        let fresh = store();
        let error = copied(Arc::clone(&fresh)).await.unwrap_err();
        assert!(matches!(error, ArchiveError::Corrupt { .. }), "{error:?}");
        assert_eq!(fresh.list(None).try_collect::<Vec<_>>().await.unwrap(), []);
    });
}
