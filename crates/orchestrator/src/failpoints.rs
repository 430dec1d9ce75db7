//! Places at which a test lets the process die, `CONVENE_FAILPOINT=name`, or stand still,
//! `CONVENE_FAILPOINT=stall:name`, in debug builds.
//!
//! Owns their names. A release build has none of them.

/// Every place, in the order in which an archive, a restore and a delete come by, then what follows on those
/// that are given up, and the last look after a delete.
pub const FAILPOINTS: &[&str] = &[
    ARCHIVE_BEGUN,
    ARCHIVE_FROZEN,
    ARCHIVE_NOTED,
    ARCHIVE_EXPORTED,
    ARCHIVE_CONTENT,
    ARCHIVE_STORED,
    ARCHIVE_VERIFIED,
    ARCHIVE_MARKED,
    ARCHIVE_WIPED,
    RESTORE_BEGUN,
    RESTORE_IMPORTING,
    RESTORE_IMPORTED,
    RESTORE_VERIFIED,
    RESTORE_FINISHED,
    RESTORE_MARKED,
    DELETE_BEGUN,
    DELETE_REMOVED,
    DELETE_PURGED,
    DELETE_MARKED,
    THAW_MARKED,
    THAW_TOLD,
    THAW_REMOVED,
    THAW_TIDIED,
    ABANDON_MARKED,
    ABANDON_REMOVED,
    PURGE_PURGED,
];

/// The directory says that the group is being archived; the controller knows nothing.
pub(crate) const ARCHIVE_BEGUN: &str = "archive.begun";
/// The controller has frozen the group.
pub(crate) const ARCHIVE_FROZEN: &str = "archive.frozen";
/// The directory knows which snapshot is about to be written.
pub(crate) const ARCHIVE_NOTED: &str = "archive.noted";
/// All lines are read and on their way to the store.
pub(crate) const ARCHIVE_EXPORTED: &str = "archive.exported";
/// The store has the content of the snapshot, and no manifest that makes it one.
pub(crate) const ARCHIVE_CONTENT: &str = "archive.content";
/// The store has said that it has the snapshot.
pub(crate) const ARCHIVE_STORED: &str = "archive.stored";
/// The snapshot was read back and is sound.
pub(crate) const ARCHIVE_VERIFIED: &str = "archive.verified";
/// The directory says that the group is archived; the controller still has it.
pub(crate) const ARCHIVE_MARKED: &str = "archive.marked";
/// The controller has nothing more of it; the directory does not know that yet.
pub(crate) const ARCHIVE_WIPED: &str = "archive.wiped";
/// The directory says that the group is being restored.
pub(crate) const RESTORE_BEGUN: &str = "restore.begun";
/// The controller has the first events.
pub(crate) const RESTORE_IMPORTING: &str = "restore.importing";
/// The controller has all events; the group does not live yet.
pub(crate) const RESTORE_IMPORTED: &str = "restore.imported";
/// All of the snapshot was read and is sound; the group does not live yet.
pub(crate) const RESTORE_VERIFIED: &str = "restore.verified";
/// The group lives; the directory does not know that yet.
pub(crate) const RESTORE_FINISHED: &str = "restore.finished";
/// The directory says that the group is active.
pub(crate) const RESTORE_MARKED: &str = "restore.marked";
/// The directory says that the group is being removed.
pub(crate) const DELETE_BEGUN: &str = "delete.begun";
/// The controller has nothing more of it.
pub(crate) const DELETE_REMOVED: &str = "delete.removed";
/// The store has nothing more of it.
pub(crate) const DELETE_PURGED: &str = "delete.purged";
/// The tombstone stands.
pub(crate) const DELETE_MARKED: &str = "delete.marked";
/// The directory says that a group goes on whose archive was given up; the controller has it frozen.
pub(crate) const THAW_MARKED: &str = "thaw.marked";
/// The controller knows that, too; what was written is in the store.
pub(crate) const THAW_TOLD: &str = "thaw.told";
/// The store has nothing more of it; the directory has noted what was written.
pub(crate) const THAW_REMOVED: &str = "thaw.removed";
/// The directory has forgotten what was written; the task has not ended.
pub(crate) const THAW_TIDIED: &str = "thaw.tidied";
/// The directory says that a group stays archived whose restore was given up; the controller has some of it.
pub(crate) const ABANDON_MARKED: &str = "abandon.marked";
/// The controller has nothing more of it; the task has not ended.
pub(crate) const ABANDON_REMOVED: &str = "abandon.removed";
/// It was looked again that the store has nothing of a deleted group; the task has not ended.
pub(crate) const PURGE_PURGED: &str = "purge.purged";

/// Ends the process at once, as `kill -9` would, if this is the place that was asked for; as
/// `stall:name` the process stands still there, once, until somebody lets it go on.
pub(crate) fn reached(name: &str) {
    #[cfg(debug_assertions)]
    if let Ok(asked) = std::env::var("CONVENE_FAILPOINT") {
        if asked == name {
            eprintln!("convene: the process ends at {name}, as CONVENE_FAILPOINT asks");
            std::process::abort();
        }
        if asked.strip_prefix("stall:") == Some(name) {
            stall(name);
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Has the system stop the whole process, as a machine does whose processor is taken away: its
/// connections stay open, and when it goes on it knows nothing of the time between.
#[cfg(debug_assertions)]
fn stall(name: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};

    static STALLED: AtomicBool = AtomicBool::new(false);
    if STALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    eprintln!("convene: the process stands still at {name}, as CONVENE_FAILPOINT asks");
    let itself = std::process::id().to_string();
    if let Err(error) = std::process::Command::new("kill").args(["-STOP", &itself]).status() {
        eprintln!("convene: it cannot: {error}");
    }
}
