//! `GET /metrics`: the queues of this process, how full they are, how much they hold and how often
//! they refused, and what the doors answered, in the OpenMetrics text format.
//!
//! Figures are read when they are asked for. Only what a door answers is counted here; everything
//! else is counted where it happens. Never served at the door for people.

use std::{
    fmt::{self, Debug},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use convene_app::{
    App,
    events::MAX_STREAMS,
    identity::passwords::MAX_HASHES_WAITING,
    rooms::tuning::{MAX_BACKLOG_BYTES, MAX_BACKLOG_FRAMES, ROOM_QUEUE},
};
use convene_hop::{ApiError, LINK_QUEUE_FRAMES};
use convene_model::{
    Code,
    token::{bearer, same_secret},
};
use convene_storage::{GroupStore, options::MAX_LEARNING_GROUPS};
use http::{HeaderMap, header};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    controllers::{Controllers, MAILBOX, MAX_WAKING},
    log,
};

/// The format of the answer.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The classes of answers, by the first digit of their status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What of this process has figures. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Sources>);

#[derive(Default)]
struct Sources {
    controllers: OnceLock<(Controllers, GroupStore)>,
    app: OnceLock<App>,
    log: OnceLock<Arc<log::Queue>>,
    doors: Mutex<Vec<Arc<Door>>>,
}

/// What a door answered.
struct Door {
    name: &'static str,
    unanswered: AtomicUsize,
    answered: [AtomicU64; CLASSES.len()],
}

/// One queue at one moment.
struct Queue {
    name: &'static str,
    depth: u64,
    /// `None` for one whose bound is not that of this depth.
    capacity: Option<u64>,
    /// `None` where whoever comes waits in turn, or where another queue's count includes it.
    refused: Option<u64>,
}

impl Metrics {
    /// The figures of these groups are served from now on.
    pub(crate) fn has_controllers(&self, controllers: &Controllers, store: &GroupStore) {
        // A process opens each service once; the first one holds.
        let _ = self.0.controllers.set((controllers.clone(), store.clone()));
    }

    /// The figures of this App are served from now on.
    pub(crate) fn has_app(&self, app: &App) {
        let _ = self.0.app.set(app.clone());
    }

    /// The figures of these lines are served from now on.
    pub(crate) fn has_log(&self, queue: &Arc<log::Queue>) {
        let _ = self.0.log.set(Arc::clone(queue));
    }

    /// The same router, whose requests are counted under a door's name.
    pub(crate) fn counted(&self, name: &'static str, router: Router) -> Router {
        let door =
            Arc::new(Door { name, unanswered: AtomicUsize::new(0), answered: Default::default() });
        self.0.doors.lock().push(Arc::clone(&door));
        router.layer(middleware::from_fn_with_state(door, count))
    }

    /// The route, for a door that people do not reach; with a token only for those who bring it.
    pub(crate) fn router(&self, token: Option<String>) -> Router {
        let answer = |State((metrics, token)): State<(Self, Option<Arc<str>>)>,
                      headers: HeaderMap| async move {
            if let Some(token) = token {
                let value = headers.get(header::AUTHORIZATION);
                let brought = bearer(value.and_then(|value| value.to_str().ok()));
                if !brought.is_ok_and(|it| same_secret(it.as_bytes(), token.as_bytes())) {
                    return Err(ApiError::from(Code::Unauthorized));
                }
            }
            metrics.answer()
        };
        Router::new()
            .route("/metrics", get(answer))
            .with_state((self.clone(), token.map(Arc::from)))
    }

    fn answer(&self) -> Result<impl IntoResponse + use<>, ApiError> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut body = String::new();
        text::encode(&mut body, &registry).map_err(|error| {
            tracing::error!(%error, "the metrics cannot be encoded");
            Code::Internal
        })?;
        Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body))
    }

    fn queues(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        let mut add = |name, depth: u64, capacity: Option<u64>, refused| {
            queues.push(Queue { name, depth, capacity, refused });
        };
        if let Some((controllers, store)) = self.0.controllers.get() {
            let (figures, stats, options) = (controllers.figures(), store.stats(), store.options());
            let of_link = Some(LINK_QUEUE_FRAMES as u64);
            let events = Some(options.max_queued_events);
            add("commit_events", stats.queued_events, events, Some(stats.refused_queue));
            add("commit_bytes", stats.queued_bytes, Some(options.max_queued_bytes), None);
            let events = Some(options.max_lag_events);
            add("projector_events", stats.lag_events, events, Some(stats.refused_lag));
            add("projector_bytes", stats.lag_bytes, Some(options.max_lag_bytes), None);
            let groups = Some(MAX_LEARNING_GROUPS as u64);
            add("learning_groups", stats.learning_groups, groups, Some(stats.put_off_learning));
            let fullest = figures.fullest_mailbox as u64;
            let refused = Some(figures.refused_mailbox);
            add("fullest_mailbox", fullest, Some(MAILBOX as u64), refused);
            let refused = Some(figures.refused_waking);
            add("waking_groups", figures.waking as u64, Some(MAX_WAKING as u64), refused);
            add("fullest_upstream_to_group", figures.to_groups.1 as u64, of_link, None);
            let (fullest, refused) = (figures.from_groups.1 as u64, Some(figures.too_slow));
            add("fullest_upstream_from_group", fullest, of_link, refused);
            add("lifecycle_words", figures.unreported as u64, None, None);
        }
        if let Some(app) = self.0.app.get() {
            let figures = app.figures();
            let rooms = figures.rooms;
            add("fullest_room", rooms.fullest_queue as u64, Some(ROOM_QUEUE as u64), None);
            let refused = Some(rooms.refused_as_overloaded);
            add("waiting_commands", rooms.waiting_commands as u64, None, refused);
            let refused = Some(rooms.closed_as_too_slow);
            add("client_backlog_bytes", rooms.backlog_bytes as u64, None, refused);
            add("client_backlog_frames", rooms.backlog_frames as u64, None, None);
            let (bytes, frames) = (rooms.fullest_backlog_bytes, rooms.fullest_backlog_frames);
            add("fullest_client_bytes", bytes as u64, Some(MAX_BACKLOG_BYTES as u64), None);
            add("fullest_client_frames", frames as u64, Some(MAX_BACKLOG_FRAMES as u64), None);
            let (most, refused) = (Some(MAX_STREAMS as u64), Some(figures.refused_event_streams));
            add("event_streams", figures.event_streams as u64, most, refused);
            let most = Some(MAX_HASHES_WAITING as u64);
            let refused = Some(figures.refused_password_hashes);
            add("password_hashes", figures.password_hashes as u64, most, refused);
        }
        if let Some(figures) = self.0.log.get().map(|queue| queue.figures()) {
            let most = Some(log::MAX_LINES as u64);
            add("log_lines", figures.waiting, most, Some(figures.dropped));
        }
        queues
    }

    fn encode_queues(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let queues = self.queues();
        let named = |name| [("queue", name)];
        let depths = queues.iter().map(|queue| (named(queue.name), queue.depth));
        encoder.gauges("convene_queue_depth", "What waits in a queue", depths)?;
        let capacities =
            queues.iter().filter_map(|queue| Some((named(queue.name), queue.capacity?)));
        encoder.gauges("convene_queue_capacity", "What a queue holds at most", capacities)?;
        let refused = queues.iter().filter_map(|queue| Some((named(queue.name), queue.refused?)));
        encoder.counters(
            "convene_queue_refused",
            "What was refused since a queue was full",
            refused,
        )
    }

    fn encode_doors(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let doors = self.0.doors.lock().clone();
        let unanswered = doors.iter().map(|door| {
            let unanswered = door.unanswered.load(Ordering::Relaxed) as u64;
            ([("door", door.name)], unanswered)
        });
        encoder.gauges("convene_requests_unanswered", "Requests that wait", unanswered)?;
        let answered = doors.iter().flat_map(|door| {
            CLASSES.iter().zip(&door.answered).map(|(class, count)| {
                ([("door", door.name), ("status", *class)], count.load(Ordering::Relaxed))
            })
        });
        encoder.counters("convene_requests", "Requests by the class of their answer", answered)
    }

    fn encode_controllers(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let Some((controllers, store)) = self.0.controllers.get() else { return Ok(()) };
        let (figures, stats) = (controllers.figures(), store.stats());
        encoder.gauge("convene_groups_awake", "Groups in memory", figures.awake as u64)?;
        let usage = controllers.usage();
        encoder.counter("convene_runs", "Runs of agents that ended", usage.runs)?;
        let kinds = [("input", usage.input_tokens), ("output", usage.output_tokens)];
        let tokens = kinds.into_iter().map(|(kind, tokens)| ([("kind", kind)], tokens));
        encoder.counters("convene_tokens", "Tokens that models have read and written", tokens)?;
        encoder.counter(
            "convene_model_cost_micro_usd",
            "What models cost by their workspaces' prices, in millionths of a US dollar",
            usage.cost_micro_usd,
        )?;
        encoder.counter(
            "convene_model_cost_unknown",
            "Runs and summaries whose cost is not known",
            usage.cost_unknown,
        )?;
        encoder.counter(
            "convene_egress_bytes",
            "Bytes from groups to Apps, and between agents' tools and services",
            usage.egress_bytes,
        )?;
        encoder.gauge(
            "convene_usage_unsent",
            "Reports of usage that the Orchestrator has not acknowledged",
            usage.unsent,
        )?;
        encoder.gauge("convene_upstreams", "Upstreams of groups", figures.upstreams as u64)?;
        encoder.gauge("convene_mailboxes", "Inputs in all mailboxes", figures.mailboxes as u64)?;
        encoder.gauge("convene_journal_files", "Journal files on disk", stats.journal_files)?;
        encoder.gauge(
            "convene_quarantined_groups",
            "Groups whose stored rows fail their checks",
            stats.quarantined_groups,
        )?;
        encoder.gauge(
            "convene_id_filter_bytes",
            "Memory of the filters over message ids",
            stats.id_filter_bytes,
        )?;
        encoder.gauge(
            "convene_unindexed_events",
            "Events that search reads through until they are indexed",
            stats.unindexed_events,
        )?;
        encoder.counter("convene_commits", "Transactions of the journal", stats.commits)?;
        encoder.counter("convene_events", "Events in them", stats.events)?;
        encoder.counter(
            "convene_projected_events",
            "Events in the tables that are read",
            stats.projected_events,
        )?;
        encoder.counter(
            "convene_refused_disk_full",
            "Commands refused for want of disk space",
            stats.refused_disk,
        )
    }

    fn encode_app(&self, encoder: &mut Encoder<'_>) -> fmt::Result {
        let Some(app) = self.0.app.get() else { return Ok(()) };
        let figures = app.figures();
        encoder.gauge("convene_sockets", "Open client sockets", figures.rooms.sockets as u64)?;
        encoder.gauge("convene_rooms", "Groups with a room here", figures.rooms.rooms as u64)
    }
}

/// Writes families one after the other.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(family)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(family)
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut encoder = Encoder(encoder);
        self.encode_queues(&mut encoder)?;
        self.encode_doors(&mut encoder)?;
        self.encode_controllers(&mut encoder)?;
        self.encode_app(&mut encoder)?;
        match self.0.log.get().map(|queue| queue.figures()) {
            Some(figures) => encoder.counter(
                "convene_log_lines_shipped",
                "Lines that the store of logs has",
                figures.shipped,
            ),
            None => Ok(()),
        }
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Counts a request that comes to a door, and its answer. A stream is answered when it begins.
async fn count(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    struct Unanswered(Arc<Door>);
    impl Drop for Unanswered {
        fn drop(&mut self) {
            self.0.unanswered.fetch_sub(1, Ordering::Relaxed);
        }
    }
    door.unanswered.fetch_add(1, Ordering::Relaxed);
    let _unanswered = Unanswered(Arc::clone(&door));
    let response = next.run(request).await;
    let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
    if let Some(count) = door.answered.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    response
}
