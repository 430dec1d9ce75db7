//! What the threads of a node ask of the kernel's scheduler.

use std::cell::Cell;

/// The niceness of a thread whose CPU time must not be taken from posts.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 19;

/// How long a thread's turns on the CPU are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// The least that Linux gives: for the committer, which everybody waits for, and for those who give
    /// way anyway.
    Shortest,
    /// For threads that work for some microseconds at a time and wait in between.
    Short,
}

impl Turns {
    #[cfg(target_os = "linux")]
    fn nanoseconds(self) -> u64 {
        match self {
            Self::Shortest => 100_000,
            Self::Short => 500_000,
        }
    }
}

/// Bytes of data that a background thread works through before it gives way: at most two tenths of a
/// millisecond of compressing, which is the slowest of what they do.
const BYTES_IN_A_ROW: usize = 16 * 1024;

thread_local! {
    static BACKGROUND: Cell<bool> = const { Cell::new(false) };
    /// Bytes since this thread last gave way.
    static WORKED: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread one that nobody waits for: it has the lowest priority (where that is refused, the
/// normal one) and the shortest turns, and gives way as it works.
pub fn become_background() {
    BACKGROUND.set(true);
    lower_priority();
    prefer_turns(Turns::Shortest);
}

/// Whether this thread is one of the background.
#[must_use]
pub fn is_background() -> bool {
    BACKGROUND.get()
}

/// Lets those go first that wait for this thread's CPU, if this is a background thread. Left alone, a
/// thread has a core until the next tick of the clock, up to four milliseconds, however low its priority
/// is: that is about shares, not about when.
pub fn give_way() {
    if is_background() {
        WORKED.set(0);
        std::thread::yield_now();
    }
}

/// Says that this thread has worked through so many bytes: now and then it gives way.
pub fn worked(bytes: usize) {
    let worked = WORKED.get().saturating_add(bytes);
    if worked < BYTES_IN_A_ROW {
        WORKED.set(worked);
    } else {
        WORKED.set(0);
        give_way();
    }
}

/// Gives this thread the lowest priority; where that is refused it keeps the normal one.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: both calls take numbers only and touch no memory of ours. On Linux a thread's id
        // names that thread alone, so no other thread's priority changes.
        #[expect(unsafe_code, reason = "the standard library cannot set a thread's priority")]
        let result = unsafe {
            let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
            libc::setpriority(libc::PRIO_PROCESS as _, thread, NICENESS)
        };
        if result != 0 {
            tracing::warn!("a background thread keeps its normal priority");
        }
    }
}

/// Asks for turns of another length. Whoever asks for shorter ones also gets them earlier: without that
/// a thread which wakes waits for up to four milliseconds until the turn of another one is over, however
/// nice that one is. The thread's share stays the same. Kernels before Linux 6.12 know no such wish, and
/// others than Linux have none to take.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "there is nobody to ask"))]
pub fn prefer_turns(turns: Turns) {
    #[cfg(target_os = "linux")]
    {
        /// `struct sched_attr` as sched_setattr(2) has it, in its first version.
        #[repr(C)]
        struct SchedAttr {
            size: u32,
            policy: u32,
            flags: u64,
            nice: i32,
            priority: u32,
            runtime: u64,
            deadline: u64,
            period: u64,
        }
        let mut wanted = SchedAttr {
            size: size_of::<SchedAttr>() as u32,
            policy: libc::SCHED_OTHER as u32,
            flags: 0,
            nice: 0,
            priority: 0,
            runtime: turns.nanoseconds(),
            deadline: 0,
            period: 0,
        };
        // SAFETY: the kernel reads one structure of the size that it states, which outlives the call, and
        // writes none but its size. 0 names the calling thread, so no other thread changes. `getpriority`
        // takes numbers only.
        #[expect(unsafe_code, reason = "the standard library cannot set a thread's slice")]
        let result = unsafe {
            wanted.nice = libc::getpriority(libc::PRIO_PROCESS as _, 0);
            libc::syscall(libc::SYS_sched_setattr, 0, &raw mut wanted, 0)
        };
        if result != 0 {
            tracing::debug!("a thread keeps the usual slice");
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// The slice and the niceness of this thread, as the kernel tells them.
    fn told() -> (Option<u64>, i64) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let nice = after_name.split(' ').nth(16).unwrap().parse().unwrap();
        let sched = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
        let slice = sched.lines().find_map(|line| line.strip_prefix("se.slice")?.split(':').nth(1));
        (slice.and_then(|slice| slice.trim().parse().ok()), nice)
    }

    #[test]
    fn a_background_thread_is_nice_and_one_with_short_turns_keeps_its_share() {
        let (_, before) = told();
        for turns in [Turns::Shortest, Turns::Short] {
            let thread = std::thread::spawn(move || {
                prefer_turns(turns);
                told()
            });
            let (slice, nice) = thread.join().unwrap();
            assert_eq!(nice, before);
            // Kernels that do not tell it do not know it either.
            assert!(slice.is_none_or(|slice| slice == turns.nanoseconds()), "{slice:?}");
        }
        let low = std::thread::spawn(|| {
            become_background();
            assert!(is_background());
            told()
        });
        let (slice, nice) = low.join().unwrap();
        assert_eq!(nice, i64::from(NICENESS));
        assert!(slice.is_none_or(|slice| slice == Turns::Shortest.nanoseconds()), "{slice:?}");
        assert!(!is_background());
    }

    #[test]
    fn only_a_background_thread_gives_way_and_only_after_its_bytes() {
        let counted = |background: bool, bytes: usize| {
            std::thread::spawn(move || {
                if background {
                    become_background();
                }
                worked(bytes);
                WORKED.get()
            })
            .join()
            .unwrap()
        };
        for background in [false, true] {
            assert_eq!(counted(background, BYTES_IN_A_ROW - 1), BYTES_IN_A_ROW - 1);
            assert_eq!(counted(background, BYTES_IN_A_ROW), 0);
        }
    }
}
