//! What waits to be shipped: lifecycle lines, warnings and errors of our own, each one JSON object.
//!
//! Bounded: whoever logs is never held up, so what does not fit is dropped and counted. Lines of
//! libraries are not among it, since nobody knows what they repeat.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use convene_hop::LIFECYCLE;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::{sync::Notify, time::Instant};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope},
};

use crate::clock;

/// Lines that wait at most.
pub(crate) const MAX_LINES: usize = 10_000;
/// Bytes of them at most.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of lines that make a batch without waiting for its age.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;
/// Bytes of one member of a line; the rest is cut.
const MAX_MEMBER: usize = 2048;

/// Whether a line is shipped, or a span whose members its lines have.
pub(super) fn is_shipped(line: &Metadata<'_>) -> bool {
    if line.is_span() {
        return *line.level() <= Level::INFO && is_ours(line.target());
    }
    line.target() == LIFECYCLE || (*line.level() <= Level::WARN && is_ours(line.target()))
}

fn is_ours(target: &str) -> bool {
    target.starts_with("convene")
}

/// Lines that wait, and what became of others.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to do: the first line, or enough for a batch.
    changed: Notify,
    dropped: AtomicU64,
    shipped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    bytes: usize,
    since: Option<Instant>,
    /// Dropped since the last batch, which the next one says.
    dropped: u64,
}

/// The figures of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) waiting: u64,
    pub(crate) dropped: u64,
    pub(crate) shipped: u64,
}

impl Queue {
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            waiting: self.waiting.lock().lines.len() as u64,
            dropped: self.dropped.load(Ordering::Relaxed),
            shipped: self.shipped.load(Ordering::Relaxed),
        }
    }

    /// Adds a line, or drops it.
    pub(super) fn push(&self, line: String) {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() >= MAX_LINES || waiting.bytes + line.len() > MAX_BYTES {
            waiting.dropped += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was = waiting.bytes;
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        let is_first = waiting.since.is_none();
        if is_first {
            waiting.since = Some(Instant::now());
        }
        let is_batch = was < BATCH_BYTES && waiting.bytes >= BATCH_BYTES;
        drop(waiting);
        if is_first || is_batch {
            self.changed.notify_one();
        }
    }

    /// Waits until the oldest line is of that age, or there is enough for a batch.
    pub(super) async fn due(&self, age: Duration) {
        loop {
            let due = {
                let waiting = self.waiting.lock();
                if waiting.bytes >= BATCH_BYTES {
                    return;
                }
                waiting.since.map(|since| since + age)
            };
            match due {
                None => self.changed.notified().await,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => return,
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// The next batch, and how many lines it has; `None` when nothing waits.
    pub(super) fn take(&self) -> Option<(String, u64)> {
        let mut waiting = self.waiting.lock();
        if waiting.lines.is_empty() {
            return None;
        }
        let (mut batch, mut count) = (String::new(), 0);
        if std::mem::take(&mut waiting.dropped) > 0 {
            let lost = self.dropped.load(Ordering::Relaxed);
            let line = json!({
                "at": clock::now(), "level": "WARN", "kind": "dropped",
                "message": "lines were dropped since too many waited", "dropped_so_far": lost,
            });
            batch.push_str(&line.to_string());
            batch.push('\n');
        }
        while batch.len() < BATCH_BYTES {
            let Some(line) = waiting.lines.pop_front() else { break };
            waiting.bytes -= line.len();
            batch.push_str(&line);
            batch.push('\n');
            count += 1;
        }
        waiting.since = (!waiting.lines.is_empty()).then(Instant::now);
        Some((batch, count))
    }

    /// Notes what became of a batch.
    pub(super) fn settle(&self, lines: u64, arrived: bool) {
        let count = if arrived { &self.shipped } else { &self.dropped };
        count.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The layer that fills the queue; its filter is [`is_shipped`].
pub(super) struct Shipped(pub(super) Arc<Queue>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Shipped {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut members = Members(Map::new());
        attributes.record(&mut members);
        span.extensions_mut().insert(members);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(members) = span.extensions_mut().get_mut::<Members>() {
            values.record(members);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let about = event.metadata();
        let kind = match *about.level() {
            _ if about.target() == LIFECYCLE => "lifecycle",
            Level::ERROR => "error",
            _ => "warning",
        };
        let mut members = Members(Map::new());
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(of_span) = span.extensions().get::<Members>() {
                members.0.extend(of_span.0.clone());
            }
        }
        members.0.insert("at".into(), json!(clock::now()));
        members.0.insert("level".into(), about.level().as_str().into());
        members.0.insert("kind".into(), kind.into());
        members.0.insert("target".into(), about.target().into());
        event.record(&mut members);
        self.0.push(Value::Object(members.0).to_string());
    }
}

/// The members of a line as they come.
struct Members(Map<String, Value>);

impl Members {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn add_text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_MEMBER {
            text.truncate(text.floor_char_boundary(MAX_MEMBER));
        }
        self.add(field, text);
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing into a string does not fail; a `Debug` that does has nothing to say.
        let _ = write!(text, "{value:?}");
        self.add_text(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{filter::filter_fn, layer::SubscriberExt};

    use super::*;

    fn lines(batch: Option<(String, u64)>) -> Vec<Value> {
        let batch = batch.map(|(batch, _)| batch).unwrap_or_default();
        batch.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lifecycle_lines_and_our_own_warnings_and_errors_wait_and_nothing_else() {
        let queue = Arc::new(Queue::default());
        let layer = Shipped(Arc::clone(&queue)).with_filter(filter_fn(is_shipped));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: LIFECYCLE, group_id = %"g1", epoch = 3_u64, "group");
            tracing::warn!(target: "convene_app::rooms", "slow");
            tracing::error!(target: "convene_storage", long = "ä".repeat(MAX_MEMBER), "broken");
            tracing::info!(target: "convene_app", "chat");
            let span = tracing::info_span!(target: "convene_orchestrator", "task", task_id = %"t1");
            span.in_scope(|| tracing::warn!(target: "convene_orchestrator", "put off"));
            tracing::error!(target: "some_library", prompt = "what was said", "failed");
        });
        let lines = lines(queue.take());
        let of = |member: &str| lines.iter().map(|line| line[member].clone()).collect::<Vec<_>>();
        assert_eq!(of("kind"), ["lifecycle", "warning", "error", "warning"].map(Value::from));
        assert_eq!(of("message"), ["group", "slow", "broken", "put off"].map(Value::from));
        assert_eq!(lines[3]["task_id"], "t1", "what its span says is part of a line");
        assert_eq!((&lines[0]["group_id"], &lines[0]["epoch"]), (&json!("g1"), &json!(3)));
        assert_eq!(lines[2]["long"].as_str().unwrap().len(), MAX_MEMBER);
        assert!(lines[0]["at"].as_u64().is_some_and(|at| at > 0));
    }

    #[test]
    fn what_does_not_fit_is_dropped_counted_and_said() {
        let queue = Queue::default();
        for _ in 0..MAX_LINES {
            queue.push("{}".into());
        }
        assert_eq!(queue.figures().dropped, 0);
        queue.push("{}".into());
        assert_eq!(queue.figures(), Figures { waiting: 10_000, dropped: 1, shipped: 0 });
        let batch = lines(queue.take());
        assert_eq!(
            (&batch[0]["kind"], &batch[0]["dropped_so_far"]),
            (&json!("dropped"), &json!(1))
        );
        assert!(queue.take().is_none());

        let large = "x".repeat(MAX_BYTES / 4);
        for _ in 0..4 {
            queue.push(large.clone());
        }
        queue.push("{}".into());
        assert_eq!(queue.figures().dropped, 2, "bytes are bounded too");
        queue.settle(4, true);
        queue.settle(2, false);
        assert_eq!((queue.figures().shipped, queue.figures().dropped), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_due_by_its_age_or_its_size() {
        let queue = Arc::new(Queue::default());
        let age = Duration::from_secs(30);
        let begun = Instant::now();
        queue.push("{}".into());
        queue.due(age).await;
        assert_eq!(begun.elapsed(), age);
        queue.take();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.due(age).await }
        });
        let begun = Instant::now();
        tokio::task::yield_now().await;
        queue.push("x".repeat(BATCH_BYTES));
        waiting.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
