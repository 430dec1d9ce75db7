//! Traces, recorded with OpenTelemetry and sent to a collector over OTLP (HTTP, protobuf).
//!
//! Each service has its own resource, also where all share a process, so that a trace shows every hop.
//! Spans wait in a bounded queue and are sent in batches; a collector that is away costs spans, never
//! a request. What a span says is the sender's shape: methods, paths, ids, statuses; no texts.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use convene_hop::trace::{Origin, Recorder, Recording, record_with};
use convene_model::trace::TraceParent;
use http::{Request, Response};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
        TraceState, Tracer, TracerProvider as _,
    },
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span},
};
use tokio::runtime::Handle;

use crate::{
    cli::CliError,
    config::{Role, TelemetryConfig},
};

/// How long a collector may take to accept a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take to leave when the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// The recorders of a process's services. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Telemetry {
    providers: Vec<SdkTracerProvider>,
}

impl Telemetry {
    /// Begins to record where a collector is configured.
    ///
    /// # Errors
    /// When the way to the collector cannot be set up. That it answers is not needed.
    pub(crate) fn start(config: &TelemetryConfig, role: Option<Role>) -> Result<Self, CliError> {
        let Some(url) = config.traces_url() else { return Ok(Self::default()) };
        let client = Client {
            client: reqwest::Client::builder().timeout(EXPORT_TIMEOUT).build()?,
            runtime: Handle::current(),
        };
        let roles = role.map_or_else(|| Role::ALL.to_vec(), |role| vec![role]);
        let mut telemetry = Self::default();
        let mut tracers = Vec::new();
        for role in roles {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(client.clone())
                .with_endpoint(&url)
                .with_timeout(EXPORT_TIMEOUT)
                .build()?;
            let resource = Resource::builder_empty().with_attributes([
                KeyValue::new("service.namespace", "convene"),
                KeyValue::new("service.name", role.name()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ]);
            let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.build())
                .with_sampler(Sampler::ParentBased(Box::new(sampler)))
                .build();
            tracers.push((role.name(), provider.tracer("convene")));
            telemetry.providers.push(provider);
        }
        record_with(Box::new(Spans { tracers, sample_ratio: config.sample_ratio }));
        Ok(telemetry)
    }

    /// Lets the last spans leave.
    pub(crate) async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || {
            for provider in self.providers {
                if let Err(error) = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
                    tracing::warn!(%error, "the last spans of traces did not reach the collector");
                }
            }
        });
        // A panic there would lose spans and nothing else.
        let _ = stopped.await;
    }
}

/// Records spans with OpenTelemetry.
struct Spans {
    tracers: Vec<(&'static str, SdkTracer)>,
    sample_ratio: f64,
}

impl Recorder for Spans {
    fn begin(
        &self,
        service: &'static str,
        name: &str,
        origin: Origin,
    ) -> Option<Box<dyn Recording>> {
        let (_, tracer) = self.tracers.iter().find(|(known, _)| *known == service)?;
        let parent = match origin {
            Origin::Hop(parent) if !parent.sampled => return None,
            Origin::Hop(parent) => Some(parent),
            Origin::Outside(parent) => parent
                .map(|parent| TraceParent { sampled: self.samples(parent.trace_id), ..parent }),
        };
        let context = parent.map_or_else(Context::new, |parent| {
            let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
            let trace_id = TraceId::from(parent.trace_id);
            let span_id = SpanId::from(parent.span_id);
            Context::new().with_remote_span_context(SpanContext::new(
                trace_id,
                span_id,
                flags,
                true,
                TraceState::default(),
            ))
        });
        let builder = tracer.span_builder(name.to_owned()).with_kind(SpanKind::Server);
        let span = builder.start_with_context(tracer, &context);
        span.is_recording().then(|| Box::new(Recorded(span)) as Box<dyn Recording>)
    }
}

impl Spans {
    /// Whether a trace that somebody outside has begun is recorded: that share of them which their
    /// ids fall into, as the sampler has it for those that begin here.
    fn samples(&self, trace_id: u128) -> bool {
        let low = (trace_id as u64) >> 1;
        (low as f64) < self.sample_ratio * (1_u64 << 63) as f64
    }
}

struct Recorded(Span);

impl Recording for Recorded {
    fn context(&self) -> TraceParent {
        let context = self.0.span_context();
        TraceParent {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        }
    }

    fn note(&mut self, key: &'static str, value: String) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    fn fail(&mut self, why: &str) {
        self.0.set_status(Status::error(why.to_owned()));
    }
}

/// Our HTTP client, called from the threads that send batches, which have no runtime of their own.
#[derive(Clone)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.clone_from(answer.headers());
            }
            Ok(response.body(answer.bytes().await?)?)
        });
        sent.await?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_traces_from_outside_that_are_recorded_is_ours() {
        let spans = |sample_ratio| Spans { tracers: Vec::new(), sample_ratio };
        let mut random = 1_u128;
        let mut sampled = |ratio: f64| {
            let ids = (0..10_000).filter(|_| {
                random = random.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645) ^ 0x9e37;
                spans(ratio).samples(random ^ (random >> 64))
            });
            ids.count()
        };
        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 10_000);
        assert!((2_000..3_000).contains(&sampled(0.25)));
    }
}
