//! Snapshots of groups in an object store: written, verified, read by the page and read back whole.
//!
//! Owns the files: gzip members of at most `MAX_MEMBER_BYTES` uncompressed bytes that never mix
//! sections, an index of them in the signed manifest, the content first and the manifest last. The
//! lines are those of `convene_model::archive`; they pass through as bytes. Memory stays flat
//! whatever a group's size: one member, and the parts of an upload under way.
//!
//! Never changes a snapshot that is there, never decides when a group is archived or restored, and
//! does IO only through [`object_store::ObjectStore`].

mod blocking;
mod catalog;
mod checked;
mod copy;
mod decode;
mod encode;
mod error;
mod manifest;
mod member;
mod page;
mod reader;
mod upload;
mod verify;
mod why;
mod writer;

pub use catalog::{Listed, list, purge};
pub use checked::{Checked, checked_events};
pub use copy::copy;
pub use error::ArchiveError;
pub use manifest::{read_manifest, replace_manifest};
pub use member::COMPRESSION_LEVEL;
pub use page::page;
pub use reader::{events, events_from, lines, state};
pub use verify::verify;
pub use why::why;
pub use writer::{SnapshotWriter, StoredContent, WriteOptions};
