//! Traces as a collector gets them: one message over all hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Bytes, routing::post};
use convene_testing::{
    client::{Person, http_client},
    cluster::Plan,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use crate::convene;

/// A text that no span may contain.
const SECRET: &str = "between-the-two-of-us";
/// How long spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    service: String,
    name: String,
    id: String,
    parent: String,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Clone, Default)]
struct Collector {
    /// The spans of each trace.
    traces: Arc<Mutex<BTreeMap<String, Vec<Span>>>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let taking = collector.clone();
        let take = post(move |body: Bytes| async move {
            taking.take(&body);
            // An empty message is an answer without complaints.
            ([("content-type", "application/x-protobuf")], Bytes::new())
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", take);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (collector, url)
    }

    fn take(&self, body: &[u8]) {
        self.raw.lock().extend_from_slice(body);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let named = attributes.iter().find(|found| found.key == "service.name").unwrap();
            let service = format!("{:?}", named.value);
            let service = service.split('"').nth(1).unwrap().to_owned();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
                self.traces.lock().entry(hex(&span.trace_id)).or_default().push(Span {
                    service: service.clone(),
                    name: span.name,
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                });
            }
        }
    }

    /// The spans of the first trace that is as wanted.
    async fn trace(&self, wanted: impl Fn(&str, &[Span]) -> bool) -> Vec<Span> {
        let found = async {
            loop {
                let found = self
                    .traces
                    .lock()
                    .iter()
                    .find_map(|(id, spans)| wanted(id, spans).then(|| spans.clone()));
                if let Some(found) = found {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("no such trace among {:#?}", self.traces.lock()),
        }
    }
}

fn services(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.service.as_str()).collect()
}

fn one<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.service == service && span.name == name);
    found.unwrap_or_else(|| panic!("{service} has no span {name}: {spans:#?}"))
}

/// Posts a mention over HTTP as part of a trace, and what the collector saw of it.
async fn follow_a_mention(url: &str, collector: &Collector) -> Vec<Span> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ana = Person::sign_up(url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (_, agents) = ana.get(&format!("/api/orgs/{org}/agents")).await;
    let agent = agents
        .as_array()
        .unwrap_or(agents["agents"].as_array().unwrap_or(&vec![]))
        .first()
        .map(|agent| agent["name"].as_str().unwrap().to_owned())
        .unwrap_or_else(|| panic!("{agents}"));
    let body = json!({"message_id": "m1", "text": format!("@{agent} {SECRET}")});
    let path = format!("{}/api/groups/{group}/messages", url.trim_end_matches('/'));
    let answer = http_client()
        .post(path)
        .bearer_auth(&ana.token)
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    collector
        .trace(|id, spans| {
            let has = |service: &str, name: &str| {
                spans.iter().any(|span| span.service == service && span.name == name)
            };
            id == TRACE
                && services(spans).len() == 4
                && has("agents", "POST /invoke")
                && has("controllers", "run")
                && has("app", "POST /api/groups/{id}/messages")
        })
        .await
}

/// That each span of a mention follows from the one that asked for it.
fn check(spans: &[Span]) {
    let posted = one(spans, "app", "POST /api/groups/{id}/messages");
    assert_eq!(posted.parent, "00f067aa0ba902b7", "it goes on from where the client was");
    assert_eq!(one(spans, "orchestrator", "POST /infra/groups").parent, posted.id);
    let in_group = one(spans, "controllers", "post");
    assert_eq!(in_group.parent, posted.id);
    let run = one(spans, "controllers", "run");
    assert_eq!(run.parent, in_group.id);
    let invoked = one(spans, "agents", "POST /invoke");
    assert_eq!(invoked.parent, run.id);
    assert_eq!(one(spans, "app", "POST /internal/resolve").parent, invoked.id);
}

#[tokio::test]
async fn one_mention_is_one_trace_over_four_processes() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, url) = Collector::start().await;
    let cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path())
        .env("CONVENE_TELEMETRY__OTLP_ENDPOINT", url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    check(&follow_a_mention(&cluster.url(), &collector).await);
}

#[tokio::test]
async fn one_mention_is_one_trace_within_one_process_and_so_is_one_from_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, url) = Collector::start().await;
    let node = convene(dir.path())
        .env("CONVENE_TELEMETRY__OTLP_ENDPOINT", url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    check(&follow_a_mention(&node.url, &collector).await);

    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ben.create_org("Harbour").await;
    let group = ben.create_group(&org, "Boats").await;
    let (mut socket, attached) = ben.attach(&group, None).await;
    let agent = attached["state"]["agents"][0]["name"].as_str().unwrap().to_owned();
    socket.post("m1", &format!("@{agent} {SECRET}")).await;
    let spans = collector
        .trace(|_, spans| {
            spans.iter().any(|span| span.name == "post" && span.service == "app")
                && services(spans).contains("agents")
                && spans.iter().any(|span| span.name == "run")
        })
        .await;
    let sent = one(&spans, "app", "post");
    assert_eq!(sent.parent, "", "it begins here");
    assert!(spans.iter().any(|span| span.service == "controllers" && span.parent == sent.id));
    node.stop().await;

    let raw = collector.raw.lock();
    let holds = raw.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(!holds, "no span says what somebody wrote");
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_leaves_no_span_and_a_dead_collector_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, url) = Collector::start().await;
    let node = convene(dir.path())
        .env("CONVENE_TELEMETRY__OTLP_ENDPOINT", url)
        .env("CONVENE_TELEMETRY__SAMPLE_RATIO", "0")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    ana.create_org("Lighthouse").await;
    node.stop().await;
    assert!(collector.traces.lock().is_empty());

    let node = convene(dir.path())
        .env("CONVENE_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:9")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    ana.at(&node.url).create_org("Harbour").await;
    node.stop().await;
}
