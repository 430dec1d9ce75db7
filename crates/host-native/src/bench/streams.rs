//! An agent's answer on its way from the model to those who watch it: through the whole chain, against
//! a bare relay of two hops for the same stream. Model and watchers are in this process, so that one clock
//! measures all of it; Convene is a process of its own, and so is the relay.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::Response,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use http::header;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Figure, client::Client, relay::Relay, server::Server};
use crate::cli::CliError;

/// The pause between two tokens while one person watches: 200 a second, as quick models write.
const TOKEN_EVERY: Duration = Duration::from_millis(5);
/// The same while many do.
const TOKEN_EVERY_FOR_MANY: Duration = Duration::from_millis(20);
/// How long the model takes to its first token: quick ones that are hosted take several times that.
const FIRST_TOKEN_AFTER: Duration = Duration::from_millis(50);
/// Tokens of an answer for each second of a slice: a thousand with what a slice has by itself, since
/// an answer has commits of its own, however short it is.
const TOKENS_PER_SECOND: f64 = 500.0;
/// Bytes of a token; each is of the same length, so that an offset tells which one it is.
const TOKEN_BYTES: usize = 8;
/// How many watch in `stream_500_watchers`.
const WATCHERS: usize = 500;
/// How long a stream may take beyond its tokens' pauses.
const PATIENCE: Duration = Duration::from_secs(60);

/// The model: writes as many tokens as it is told, at a pace, and remembers when.
#[derive(Clone)]
pub(super) struct Model(Arc<Mutex<Script>>);

struct Script {
    tokens: usize,
    every: Duration,
    /// When it was asked last.
    asked: Option<Instant>,
    sent: Vec<Instant>,
}

/// What one stream came to for one watcher.
struct Watched {
    /// From asking to the first token.
    first: Duration,
    /// Of each token, from the model's hand to the watcher's.
    tokens: Histogram<u64>,
}

/// Measures `stream_first_token`, `stream_token_p99`, `stream_fsyncs` and `stream_500_watchers`.
pub(super) fn measure(
    dir: &Path,
    slice: Duration,
    slices: usize,
) -> Result<Vec<(&'static str, Figure)>, CliError> {
    let runtime = crate::serve::runtime()?;
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let env = vec![
        ("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1".to_owned()),
        ("CONVENE_METRICS__LISTEN", metrics.to_string()),
    ];
    let mut server = Server::start(dir, "streams", env)?;
    runtime.block_on(async {
        let (model, at_model, _serving) = Model::start().await?;
        let relay = Relay::start(at_model)?;
        let chain = Chain::open(&mut server, at_model, 1).await?;
        model.writes(10, TOKEN_EVERY);
        // What is looked up once is looked up.
        chain.stream(&model, &server, 1).await?;

        let tokens = (slice.as_secs_f64() * TOKENS_PER_SECOND) as usize;
        let (mut first, mut each, mut commits) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..slices {
            model.writes(tokens, TOKEN_EVERY);
            let bare = through_relay(&model, relay.address).await?;
            let before = commits_of(metrics).await?;
            let watched = chain.stream(&model, &server, 1).await?;
            let committed = commits_of(metrics).await? - before;
            let [watched] = &watched[..] else { return Err("one watcher was asked for".into()) };
            first.push((micros(watched.first), micros(bare.first)));
            each.push((p(&watched.tokens, 0.99), p(&bare.tokens, 0.99)));
            commits.push((committed / tokens as f64 * 1000.0, 5.0));
        }
        let tokens = (slice.as_secs_f64() / TOKEN_EVERY_FOR_MANY.as_secs_f64()) as usize;
        let mut many = Vec::new();
        for _ in 0..slices {
            model.writes(tokens, TOKEN_EVERY_FOR_MANY);
            let alone = chain.stream(&model, &server, 1).await?;
            let watched = chain.stream(&model, &server, WATCHERS).await?;
            let mut all = Histogram::<u64>::new(3)?;
            for one in &watched {
                all.add(&one.tokens)?;
            }
            let alone = alone.first().ok_or("nobody watched")?;
            many.push((p(&all, 0.99), p(&alone.tokens, 0.99)));
        }
        let mut first_token = Figure::from_slices("µs", &first);
        first_token.extra.insert("added_us", first_token.value - first_token.limit);
        Ok(vec![
            ("stream_first_token", first_token),
            ("stream_token_p99", Figure::from_slices("µs", &each)),
            ("stream_fsyncs", Figure::from_slices("commits/1000 tokens", &commits)),
            ("stream_500_watchers", Figure::from_slices("µs", &many)),
        ])
    })
}

impl Model {
    pub(super) async fn start() -> Result<(Self, SocketAddr, AbortOnDropHandle<()>), CliError> {
        let script = Script { tokens: 0, every: TOKEN_EVERY, asked: None, sent: Vec::new() };
        let model = Self(Arc::new(Mutex::new(script)));
        let models = r#"{"object":"list","data":[{"id":"bench","object":"model"}]}"#;
        let router = Router::new()
            .route("/v1/models", get(move || std::future::ready(models)))
            .route("/v1/chat/completions", post(write))
            .with_state(model.clone());
        let (address, serving) = serve(router).await?;
        Ok((model, address, serving))
    }

    pub(super) fn writes(&self, tokens: usize, every: Duration) {
        *self.0.lock() = Script { tokens, every, asked: None, sent: Vec::with_capacity(tokens) };
    }

    /// When it was asked last, since [`Self::writes`].
    pub(super) fn asked(&self) -> Option<Instant> {
        self.0.lock().asked
    }

    fn tokens(&self) -> usize {
        self.0.lock().tokens
    }

    /// How long the tokens from `from` to `to` have been under way.
    fn under_way(
        &self,
        from: usize,
        to: usize,
        tokens: &mut Histogram<u64>,
    ) -> Result<(), CliError> {
        let script = self.0.lock();
        let sent = script.sent.get(from..to).ok_or("a token came before it was sent")?;
        for at in sent {
            tokens.record(at.elapsed().as_nanos() as u64)?;
        }
        Ok(())
    }
}

async fn write(State(model): State<Model>) -> Response {
    let (tokens, every) = {
        let mut script = model.0.lock();
        script.asked = Some(Instant::now());
        script.sent.clear();
        (script.tokens, script.every)
    };
    let pace = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_TOKEN_AFTER, every);
    let lines = stream::unfold((0, pace, model), move |(nth, mut pace, model)| async move {
        let line = match nth {
            nth if nth < tokens => {
                pace.tick().await;
                model.0.lock().sent.push(Instant::now());
                let text = format!("t{nth:06} ");
                format!(
                    "data: {}\n\n",
                    json!({"choices": [{"index": 0, "delta": {"content": text}}]})
                )
            }
            nth if nth == tokens => {
                let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
                format!("data: {end}\n\ndata: [DONE]\n\n")
            }
            _ => return None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(line)), (nth + 1, pace, model)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let kind = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A workspace with an agent on the model, and a group that it is in.
pub(super) struct Chain {
    pub(super) group: String,
    /// A bearer token of each person; the first is the owner.
    pub(super) tokens: Vec<String>,
    posts: Mutex<usize>,
    client: reqwest::Client,
}

impl Chain {
    /// With so many people.
    pub(super) async fn open(
        server: &mut Server,
        at_model: SocketAddr,
        people: usize,
    ) -> Result<Self, CliError> {
        let world = server.populate(people).await?;
        let (org, owner) = (&world.org, Some(world.tokens[0].as_str()));
        let provider = json!({"name": "Models", "base_url": format!("http://{at_model}/v1"),
            "api_key": "only-for-this-measurement"});
        let provider = server.post(&format!("/api/orgs/{org}/providers"), owner, &provider).await?;
        let agent =
            json!({"name": "Writer", "provider_id": provider["provider_id"], "model": "bench"});
        let agent = server.post(&format!("/api/orgs/{org}/agents"), owner, &agent).await?;
        let group = json!({"org_id": org, "title": "Streams", "is_private": false,
            "agent_ids": [agent["agent_id"]]});
        let group = server.post("/api/groups", owner, &group).await?;
        let group = group["group_id"].as_str().ok_or("a group without an id")?.to_owned();
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        Ok(Self { group, tokens: world.tokens, posts: Mutex::default(), client })
    }

    /// Asks the agent while so many watch, and returns what each saw when it has answered.
    async fn stream(
        &self,
        model: &Model,
        server: &Server,
        watchers: usize,
    ) -> Result<Vec<Watched>, CliError> {
        let ready = Arc::new(Barrier::new(watchers + 1));
        let mut watching = JoinSet::new();
        for _ in 0..watchers {
            let client = self.watcher(server).await?;
            let (model, ready) = (model.clone(), Arc::clone(&ready));
            watching.spawn(async move {
                ready.wait().await;
                watch(client, &model).await
            });
        }
        ready.wait().await;
        self.ask(server, &self.tokens[0]).await?;
        let mut seen = Vec::with_capacity(watchers);
        let all = async {
            while let Some(watched) = watching.join_next().await {
                seen.push(watched??);
            }
            Ok::<_, CliError>(())
        };
        timeout(PATIENCE, all).await.map_err(|_| "an answer did not end")??;
        Ok(seen)
    }
}

impl Chain {
    /// A socket of the owner that gets what happens in the group.
    pub(super) async fn watcher(&self, server: &Server) -> Result<Client, CliError> {
        let path = format!("/api/groups/{}/ws", self.group);
        let mut client = Client::open(server.address, &path, &self.tokens[0]).await?;
        client.send(r#"{"type":"attach","ref":"a"}"#).await?;
        client.until(|frame| frame.starts_with(br#"{"type":"attached""#)).await?;
        Ok(client)
    }

    /// Somebody asks the agent.
    pub(super) async fn ask(&self, server: &Server, token: &str) -> Result<(), CliError> {
        let nth = {
            let mut posts = self.posts.lock();
            *posts += 1;
            *posts
        };
        let body = json!({"message_id": format!("ask-{nth}"), "text": "@Writer please write"});
        let path = format!("/api/groups/{}/messages", self.group);
        server.post_by(&self.client, &path, Some(token), &body).await?;
        Ok(())
    }
}

/// Whether a frame says that a run has ended.
pub(super) fn ends_a_run(frame: &[u8]) -> bool {
    frame.starts_with(br#"{"type":"event""#) && has(frame, b"\"run.finished\"")
}

/// Reads deltas until the run has ended.
async fn watch(mut client: Client, model: &Model) -> Result<Watched, CliError> {
    let asked = Instant::now();
    let mut first = None;
    let mut tokens = Histogram::<u64>::new(3)?;
    let (mut seen, wanted, mut failed) = (0, model.tokens(), None);
    client
        .until(|frame| {
            if frame.starts_with(br#"{"type":"delta""#) && failed.is_none() {
                first.get_or_insert_with(|| asked.elapsed());
                let to = seen + text_bytes(frame) / TOKEN_BYTES;
                failed = model.under_way(seen, to.min(wanted), &mut tokens).err();
                seen = to;
            }
            ends_a_run(frame)
        })
        .await?;
    match failed {
        Some(failed) => Err(failed),
        None if seen == wanted => Ok(Watched { first: first.ok_or("there was no token")?, tokens }),
        None => Err(format!("{seen} of {wanted} tokens came").into()),
    }
}

fn has(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

/// Bytes of a delta's text; the tokens need no escapes.
fn text_bytes(frame: &[u8]) -> usize {
    const START: &[u8] = b"\"text\":\"";
    let at = frame.windows(START.len()).position(|window| window == START);
    let Some(at) = at.map(|at| at + START.len()) else { return 0 };
    frame[at..].iter().position(|byte| *byte == b'"').unwrap_or(0)
}

pub(super) async fn serve(router: Router) -> Result<(SocketAddr, AbortOnDropHandle<()>), CliError> {
    use axum::serve::ListenerExt;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok((address, AbortOnDropHandle::new(serving)))
}

async fn through_relay(model: &Model, relay: SocketAddr) -> Result<Watched, CliError> {
    const START: &[u8] = b"\"content\":\"";
    let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let asked = Instant::now();
    let answer =
        client.post(format!("http://{relay}/v1/chat/completions")).body("{}").send().await?;
    let mut body = answer.error_for_status()?.bytes_stream();
    let (mut first, mut seen) = (None, 0);
    let mut tokens = Histogram::<u64>::new(3)?;
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        // A line is never cut: each is written at once, and is short.
        let more = bytes.windows(START.len()).filter(|window| *window == START).count();
        if more > 0 {
            first.get_or_insert_with(|| asked.elapsed());
            model.under_way(seen, seen + more, &mut tokens)?;
            seen += more;
        }
    }
    if seen != model.tokens() {
        return Err(format!("{seen} of {} tokens came through the relay", model.tokens()).into());
    }
    Ok(Watched { first: first.ok_or("there was no token")?, tokens })
}

/// Transactions of the journal so far, each of which is one fsync.
async fn commits_of(metrics: SocketAddr) -> Result<f64, CliError> {
    let text = reqwest::get(format!("http://{metrics}/metrics")).await?.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("convene_commits_total "));
    Ok(line.ok_or("no commits in the metrics")?.trim().parse()?)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In microseconds.
fn p(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1000.0
}
