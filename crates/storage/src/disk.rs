//! Room on the disk: posts are refused before SQLite runs out of it, and a start on a full disk finds
//! some.
//!
//! Two means. Below a reserve of free space nothing new is taken, so that what was taken can be
//! written to its end. And a file of ballast holds space that nothing else can take: it is let go
//! when even the reserve is used up, and made again when there is room. Owns both; never refuses
//! anything by itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The name of the ballast.
pub(crate) const BALLAST_FILE: &str = "ballast";
/// The ballast's share of the reserve, and its size at most.
const BALLAST: (u64, u64) = (4, 64 * 1024 * 1024);
/// How often free space is looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 200;

/// Says how many bytes are free.
pub(crate) type Probe = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// The disk under a store.
pub(crate) struct Disk {
    ballast: PathBuf,
    ballast_bytes: u64,
    reserve: u64,
    probe: Probe,
    began: Instant,
    looked_at: AtomicU64,
    full: AtomicBool,
}

impl Disk {
    /// Looks at the disk of a directory, and lets go of the ballast if there is no other room left.
    pub(crate) fn open(dir: &Path, reserve: u64, probe: Option<Probe>) -> Self {
        let path = dir.to_owned();
        let free = move || {
            let found = statvfs(&path)?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        };
        let (share, most) = BALLAST;
        let disk = Self {
            ballast: dir.join(BALLAST_FILE),
            ballast_bytes: (reserve / share).min(most),
            reserve,
            probe: probe.unwrap_or_else(|| Box::new(free)),
            began: Instant::now(),
            looked_at: AtomicU64::new(0),
            full: AtomicBool::new(false),
        };
        disk.look();
        disk.tend();
        disk
    }

    /// Whether more may be taken than what must be.
    pub(crate) fn has_room(&self) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked_at) >= LOOK_EVERY_MS;
        if due
            && self
                .looked_at
                .compare_exchange(looked_at, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.look();
        }
        !self.full.load(Ordering::Relaxed)
    }

    fn look(&self) -> Option<u64> {
        let free = match (self.probe)() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the free space of the disk cannot be read");
                return None;
            }
        };
        let was_full = self.full.load(Ordering::Relaxed);
        // A little more than the reserve must be free again, so that it does not go to and fro.
        let enough =
            if was_full { self.reserve.saturating_add(self.reserve / 4) } else { self.reserve };
        let full = free < enough;
        if full != was_full {
            self.full.store(full, Ordering::Relaxed);
            if full {
                tracing::error!(
                    free,
                    reserve = self.reserve,
                    "the disk is full: posts are refused"
                );
            } else {
                tracing::info!(free, "there is room on the disk again: posts are taken");
            }
        }
        Some(free)
    }

    /// Lets go of the ballast or makes it, as the disk allows. Blocks for a moment.
    pub(crate) fn tend(&self) {
        let Some(free) = self.look() else { return };
        let exists = self.ballast.exists();
        let enough =
            self.reserve.saturating_add(self.reserve / 4).saturating_add(self.ballast_bytes);
        if exists && free < self.ballast_bytes {
            match fs::remove_file(&self.ballast) {
                Ok(()) => tracing::warn!(free, "the ballast is let go to go on with a full disk"),
                Err(error) => tracing::error!(%error, "the ballast cannot be let go"),
            }
        } else if !exists
            && self.ballast_bytes > 0
            && free >= enough
            && let Err(error) = self.make()
        {
            tracing::warn!(%error, "there is no ballast for a full disk");
            // What there is of it would only be in the way.
            let _ = fs::remove_file(&self.ballast);
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&self.ballast)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.ballast_bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&mut file, self.ballast_bytes),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes zeros, where the file system cannot reserve space in another way.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const RESERVE: u64 = 4000;

    fn disk(dir: &Path, free: u64) -> (Disk, Arc<AtomicU64>) {
        let free = Arc::new(AtomicU64::new(free));
        let probe = Arc::clone(&free);
        let probe: Probe = Box::new(move || Ok(probe.load(Ordering::Relaxed)));
        (Disk::open(dir, RESERVE, Some(probe)), free)
    }

    fn is_full(disk: &Disk) -> bool {
        disk.look();
        !disk.has_room()
    }

    #[test]
    fn a_disk_is_full_below_the_reserve_until_there_is_clearly_more() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, free) = disk(dir.path(), RESERVE);
        assert!(!is_full(&disk));
        for (now_free, full) in [
            (RESERVE, false),
            (RESERVE - 1, true),
            (RESERVE, true),
            (RESERVE + RESERVE / 4 - 1, true),
            (RESERVE + RESERVE / 4, false),
            (RESERVE, false),
            (0, true),
        ] {
            free.store(now_free, Ordering::Relaxed);
            assert_eq!(is_full(&disk), full, "{now_free} bytes free");
        }
    }

    #[test]
    fn the_ballast_is_let_go_when_nothing_else_is_left_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = dir.path().join(BALLAST_FILE);
        let (disk, free) = disk(dir.path(), 100 * RESERVE);
        assert_eq!(fs::metadata(&ballast).unwrap().len(), RESERVE / 4);
        for (now_free, exists) in [
            (RESERVE / 4, true),
            (RESERVE / 4 - 1, false),
            (RESERVE + RESERVE / 2 - 1, false),
            (RESERVE + RESERVE / 2, true),
        ] {
            free.store(now_free, Ordering::Relaxed);
            disk.tend();
            assert_eq!(ballast.exists(), exists, "{now_free} bytes free");
        }
        drop(disk);
        let (_, _) = super::tests::disk(dir.path(), 0);
        assert!(!ballast.exists(), "a start on a full disk takes it");
    }

    #[test]
    fn the_free_space_of_a_real_disk_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Disk::open(dir.path(), 0, None).look().unwrap() > 0);
        assert!(is_full(&Disk::open(dir.path(), u64::MAX / 2, None)));
    }
}
