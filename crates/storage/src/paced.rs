//! What a background thread takes of the CPU and of the disk it takes in small pieces.
//!
//! The kernel's page cache hides how much a thread writes until somebody syncs it: a checkpoint that
//! syncs thirty megabytes keeps the disk busy for as many milliseconds, and every commit of the journal
//! waits behind it. So what background threads write is handed to the disk piece by piece as it comes,
//! and a thread that is ahead of the disk waits. SQLite's own way to replace a system call is used for
//! that; the other threads' writes pass through unchanged.

use rusqlite::Connection;

/// Steps of SQLite's machine after which a background thread gives way: some tens of microseconds.
const STEPS_IN_A_ROW: i32 = 500;

/// Makes this thread's statements on a connection give way.
pub(crate) fn give_way(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    connection.progress_handler(
        STEPS_IN_A_ROW,
        Some(|| {
            convene_threads::give_way();
            false
        }),
    )
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{hand_over_part, install};

/// Elsewhere the disk is not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn install() {}

/// Elsewhere the disk is not asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn hand_over_part(_file: &std::fs::File, _part: &std::ops::Range<u64>) {}

#[cfg(target_os = "linux")]
mod linux {
    use std::{cell::Cell, ffi::CStr, fs::File, ops::Range, os::fd::AsRawFd, sync::Once};

    use rusqlite::ffi;

    /// Bytes that are handed to the disk at once. A commit that comes meanwhile waits for them, at each of
    /// its three steps at worst: a tenth of a millisecond of the disk's time.
    const PIECE_BYTES: i64 = 64 * 1024;

    /// What a paced thread has written since the last piece.
    #[derive(Clone, Copy)]
    struct Piece {
        file: libc::c_int,
        from: i64,
        to: i64,
        bytes: i64,
    }

    thread_local! {
        static PIECE: Cell<Option<Piece>> = const { Cell::new(None) };
    }

    /// Puts the pacing between SQLite and the system; once for the process, before the first paced write.
    pub(crate) fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the default VFS lives as long as the process. On Unix its two functions take the
            // name of a call that SQLite documents, and the replacement has the signature of pwrite(2)
            // (pwrite64 where offsets have 64 bits either way), as SQLite calls it.
            #[expect(unsafe_code, reason = "SQLite's calls are replaced through its C interface")]
            unsafe {
                let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
                let Some(vfs) = vfs.as_mut() else { return };
                let (Some(get), Some(set)) = (vfs.xGetSystemCall, vfs.xSetSystemCall) else {
                    return;
                };
                let replacement: unsafe extern "C" fn() = std::mem::transmute(
                    paced_pwrite
                        as unsafe extern "C" fn(
                            libc::c_int,
                            *const libc::c_void,
                            libc::size_t,
                            libc::off64_t,
                        ) -> libc::ssize_t,
                );
                let names: [&CStr; 2] = [c"pwrite", c"pwrite64"];
                for name in names {
                    if get(vfs, name.as_ptr()).is_some() {
                        set(vfs, name.as_ptr(), Some(replacement));
                    }
                }
            }
        });
    }

    /// pwrite(2), and for paced threads the handing over of a full piece.
    #[expect(unsafe_code, reason = "the signature is SQLite's")]
    unsafe extern "C" fn paced_pwrite(
        file: libc::c_int,
        bytes: *const libc::c_void,
        count: libc::size_t,
        offset: libc::off64_t,
    ) -> libc::ssize_t {
        // SAFETY: the arguments are the caller's, who keeps pwrite's contract.
        let written = unsafe { libc::pwrite64(file, bytes, count, offset) };
        if written > 0 && convene_threads::is_background() {
            note(file, offset, written as i64);
        }
        written
    }

    fn note(file: libc::c_int, offset: i64, count: i64) {
        let mut piece = match PIECE.get() {
            Some(piece) if piece.file == file => piece,
            // Less than a piece of another file waits for its sync.
            Some(_) | None => Piece { file, from: offset, to: offset, bytes: 0 },
        };
        piece.from = piece.from.min(offset);
        piece.to = piece.to.max(offset + count);
        piece.bytes += count;
        if piece.bytes < PIECE_BYTES {
            PIECE.set(Some(piece));
            return;
        }
        PIECE.set(None);
        hand_over(&piece);
        convene_threads::give_way();
    }

    /// Hands a part of a file to the disk that somebody else has written, a little at a time.
    pub(crate) fn hand_over_part(file: &File, part: &Range<u64>) {
        let (mut from, end) = (part.start.cast_signed(), part.end.cast_signed());
        while from < end {
            let to = (from + PIECE_BYTES).min(end);
            hand_over(&Piece { file: file.as_raw_fd(), from, to, bytes: to - from });
            from = to;
        }
    }

    #[cfg(test)]
    thread_local! {
        /// Bytes that this thread has handed over.
        pub(super) static HANDED_OVER: Cell<i64> = const { Cell::new(0) };
    }

    /// Waits until the disk has taken a piece. Whether it is durable is for a sync to say, which follows
    /// as ever; so an error here is no error.
    fn hand_over(piece: &Piece) {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: it takes numbers only; a descriptor that is closed meanwhile gives an error, and one
        // that is another file by now has some of its pages written early.
        #[expect(unsafe_code, reason = "the standard library has no such call")]
        unsafe {
            libc::sync_file_range(piece.file, piece.from, piece.to - piece.from, flags);
        }
        #[cfg(test)]
        HANDED_OVER.set(HANDED_OVER.get() + piece.bytes);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::linux::HANDED_OVER;
    use crate::sqlite::{Durability, open_writer};

    /// Bytes of a blob: a good part of a piece.
    const BLOB: i64 = 16 * 1024;

    /// Writes so many blobs, each in a transaction, on a thread; what it handed over.
    fn written(path: &std::path::Path, background: bool, blobs: usize) -> i64 {
        let path = path.to_owned();
        std::thread::spawn(move || {
            if background {
                convene_threads::become_background();
            }
            let mut connection = open_writer(&path, Durability::Normal, "").unwrap();
            super::give_way(&mut connection).unwrap();
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x BLOB)").unwrap();
            for _ in 0..blobs {
                connection.execute("INSERT INTO t VALUES (randomblob(?1))", [BLOB]).unwrap();
            }
            HANDED_OVER.get()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn what_a_background_thread_writes_goes_to_the_disk_as_it_comes_and_nobody_elses_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        assert_eq!(written(&path, false, 128), 0);
        let handed_over = written(&path, true, 128);
        let all = 128 * BLOB;
        // All of it but the piece that is not full, once more for the checkpoint at the end.
        assert!((all - 64 * 1024..3 * all).contains(&handed_over), "{handed_over}");
        assert_eq!(written(&path, true, 1), 0, "less than a piece waits for the sync");
        let connection = open_writer(&path, Durability::Normal, "").unwrap();
        let found: (i64, i64, String) = connection
            .query_row(
                "SELECT count(*), sum(length(x)), (SELECT * FROM pragma_integrity_check) FROM t",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!(found, (257, 257 * BLOB, "ok".into()));
    }
}
