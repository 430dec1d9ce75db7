//! Object stores: a folder, or a bucket of anything that speaks S3 (S3, R2 and others).
//!
//! Opens them; what is kept in them and when is their users' matter. A store that is down is no
//! reason not to start: each call fails for itself.

mod folder;
mod s3;
mod unhurried;

use std::sync::Arc;

use object_store::ObjectStore;

pub use folder::{FolderError, Leftovers, open_folder};
pub use s3::{S3Error, S3Settings, open_s3};

/// A store, opened.
pub type Store = Arc<dyn ObjectStore>;
