//! Work in the background, for tasks of the runtime that wait for it.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Builder, available_parallelism},
};

use tokio::sync::oneshot;

use crate::turns;

/// Threads of the pool at most. Where the machine has fewer cores than twice as many, they are half of its
/// cores: even work of the lowest priority slows down what runs beside it, as it takes cache and memory.
const MAX_THREADS: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

/// The pool. What waits for it is bounded by its callers: each has one piece of work under way and waits.
static POOL: LazyLock<Mutex<Sender<Work>>> = LazyLock::new(|| Mutex::new(begin()));

/// The work was not done: the process has no thread for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no background thread took the work")
    }
}

impl std::error::Error for Abandoned {}

/// Does `work` on a background thread, and waits for it without holding up the runtime. A panic in it goes
/// on in the caller. The work is done even when nobody waits any more.
///
/// # Errors
/// [`Abandoned`] when the system gave the process no thread.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Abandoned> {
    let (done, result) = oneshot::channel();
    let work: Work = Box::new(move || {
        // Nobody may wait any more.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    let sent = POOL.lock().unwrap_or_else(PoisonError::into_inner).send(work);
    sent.map_err(|_| Abandoned)?;
    match result.await.map_err(|_| Abandoned)? {
        Ok(made) => Ok(made),
        Err(panic) => resume_unwind(panic),
    }
}

fn begin() -> Sender<Work> {
    let (sender, waiting) = channel::<Work>();
    let waiting = Arc::new(Mutex::new(waiting));
    let threads = (available_parallelism().map_or(1, NonZeroUsize::get) / 2).clamp(1, MAX_THREADS);
    for _ in 0..threads {
        let waiting = Arc::clone(&waiting);
        let begun = Builder::new().name("background".into()).spawn(move || serve(&waiting));
        if let Err(error) = begun {
            tracing::warn!(%error, "a background thread could not be begun");
        }
    }
    sender
}

fn serve(waiting: &Mutex<Receiver<Work>>) {
    turns::become_background();
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_in_the_background_and_its_caller_gets_what_it_made() {
        let (answer, background) = run(|| (6 * 7, turns::is_background())).await.unwrap();
        assert_eq!((answer, background), (42, true));
        assert!(!turns::is_background());
    }

    #[tokio::test]
    async fn a_panic_goes_on_in_the_caller_and_the_thread_goes_on_too() {
        for _ in 0..2 * MAX_THREADS {
            let panicked = tokio::spawn(run(|| panic!("no")));
            assert!(panicked.await.unwrap_err().is_panic());
        }
        assert_eq!(run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn work_whose_caller_has_gone_is_done() {
        let (sender, receiver) = channel();
        let (go, wait) = channel::<()>();
        let mut task = Box::pin(run(move || {
            let _ = wait.recv();
            sender.send("done")
        }));
        // Polled once, so that the work is handed over.
        let waker = std::task::Waker::noop();
        let polled = task.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
        drop(task);
        go.send(()).unwrap();
        assert_eq!(receiver.recv(), Ok("done"));
    }
}
