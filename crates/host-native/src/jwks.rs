//! Public keys of others that are published under a URL: read at the start, then every few minutes,
//! and at once when a token names a key that is not known yet.
//!
//! A start never waits for them, but a request does: until a service's keys were read once, one that
//! names them waits for a while and is answered with 503 then. One reading is for all who wait for it,
//! and made-up names of keys cause only so many. Keys that were read stay trusted while their URL
//! cannot be reached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use convene_hop::ApiError;
use convene_model::{
    Code, Problem,
    keys::{Jwks, TrustedKeys},
    token::{self, Named},
};
use http::{HeaderMap, header};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use url::Url;

/// How often published keys are read again.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// The pause after a first failure; it doubles with each further one.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(250);
/// The longest pause after a failure.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(10);
/// A token that names an unknown key makes the keys be read again at once, so often in a row at most
/// when they turn out not to have it.
pub(crate) const VAIN_LOOKS: u32 = 3;
/// One more such reading is allowed each time this has passed.
pub(crate) const VAIN_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a request waits while no key of the issuer is known at all.
pub(crate) const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// The pause between two readings then.
pub(crate) const FIRST_LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long one reading may take.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a key set at most.
pub(crate) const MAX_JWKS_BYTES: usize = 64 * 1024;

/// Issuers whose keys are published. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyRing {
    sources: Arc<Vec<Arc<Source>>>,
}

/// One issuer's published keys.
#[derive(Debug)]
pub(crate) struct Source {
    issuer: String,
    /// The same keys at each; one that answers is enough.
    urls: Vec<Url>,
    keys: TrustedKeys,
    known: AtomicBool,
    next: AtomicUsize,
    first_patience: Duration,
    /// Held while the keys are read.
    looks: Mutex<Looks>,
}

/// When the keys may be read again.
#[derive(Debug)]
struct Looks {
    last_read: Option<Instant>,
    /// Readings in vain that are left.
    left: u32,
    /// Since when the next of them is awaited; set while there are fewer than [`VAIN_LOOKS`].
    earning_since: Instant,
}

impl Looks {
    /// Takes a reading, if one is left; [`Self::give_back`] when it was not in vain.
    fn take(&mut self, now: Instant) -> bool {
        let earned =
            now.duration_since(self.earning_since).as_millis() / VAIN_LOOK_EVERY.as_millis();
        if earned > 0 {
            self.left = VAIN_LOOKS
                .min(self.left.saturating_add(u32::try_from(earned).unwrap_or(VAIN_LOOKS)));
            self.earning_since += VAIN_LOOK_EVERY * u32::try_from(earned).unwrap_or(0);
        }
        if self.left == VAIN_LOOKS {
            self.earning_since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    fn give_back(&mut self) {
        self.left = VAIN_LOOKS.min(self.left + 1);
    }
}

impl Source {
    /// Keys of `issuer` that are read into `keys`.
    pub(crate) fn new(issuer: &str, urls: Vec<Url>, keys: TrustedKeys) -> Arc<Self> {
        Arc::new(Self {
            issuer: issuer.to_owned(),
            urls,
            keys,
            known: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            first_patience: FIRST_PATIENCE,
            looks: Mutex::new(Looks {
                last_read: None,
                left: VAIN_LOOKS,
                earning_since: Instant::now(),
            }),
        })
    }

    /// Whose keys they are.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether they were read at all.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Reads the keys until the process stops.
    pub(crate) async fn keep_fresh(self: Arc<Self>, stopping: CancellationToken) {
        let mut pause = RETRY_FIRST;
        loop {
            let read = {
                let mut looks = self.looks.lock().await;
                looks.last_read = Some(Instant::now());
                self.read().await
            };
            let wait = match read {
                Ok(()) => {
                    pause = RETRY_FIRST;
                    REFRESH_EVERY
                }
                Err(error) => {
                    tracing::warn!(issuer = self.issuer, error, "public keys cannot be read");
                    let wait = pause;
                    pause = (pause * 2).min(RETRY_MAX);
                    wait
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads the keys again unless `kid` has turned up meanwhile or there were too many readings in
    /// vain. While no key is known, it goes on until one is or its patience is over.
    async fn look_again(&self, kid: &str) {
        let arrived = Instant::now();
        while !self.is_known() {
            let mut looks = self.looks.lock().await;
            if self.is_known() {
                break;
            }
            let was_read = looks.last_read.is_some_and(|last| last >= arrived);
            if was_read && arrived.elapsed() >= self.first_patience {
                return;
            }
            if let Some(last) = looks.last_read {
                tokio::time::sleep_until(last + FIRST_LOOK_AGAIN_AFTER).await;
            }
            looks.last_read = Some(Instant::now());
            self.read_or_tell().await;
        }
        let mut looks = self.looks.lock().await;
        if self.keys.has(&self.issuer, kid) || !looks.take(Instant::now()) {
            return;
        }
        looks.last_read = Some(Instant::now());
        self.read_or_tell().await;
        if self.keys.has(&self.issuer, kid) {
            looks.give_back();
        }
    }

    async fn read_or_tell(&self) {
        if let Err(error) = self.read().await {
            tracing::debug!(issuer = self.issuer, error, "public keys cannot be read");
        }
    }

    async fn read(&self) -> Result<(), String> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failed = "there is no URL".to_owned();
        for index in 0..self.urls.len() {
            let url = &self.urls[first.wrapping_add(index) % self.urls.len()];
            let read = read(url).await.and_then(|jwks| {
                self.keys.replace(&self.issuer, &jwks).map_err(|error| error.to_string())
            });
            match read {
                Ok(()) => {
                    self.known.store(true, Ordering::Release);
                    return Ok(());
                }
                Err(error) => failed = format!("{url}: {error}"),
            }
        }
        Err(failed)
    }
}

impl KeyRing {
    pub(crate) fn new(sources: Vec<Arc<Source>>) -> Self {
        Self { sources: Arc::new(sources) }
    }

    /// The same without an issuer.
    pub(crate) fn without(&self, issuer: &str) -> Self {
        let others = self.sources.iter().filter(|source| source.issuer() != issuer);
        Self::new(others.cloned().collect())
    }

    /// The issuers.
    pub(crate) fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Looks up the key of a token, and of the one that it carries along.
    async fn look_up(&self, token: &str) -> Result<(), Problem> {
        let mut next = token::named(token);
        while let Some(Named { issuer, kid, act }) = next {
            if let Some(source) = self.sources.iter().find(|source| source.issuer == issuer)
                && !source.keys.has(&issuer, &kid)
            {
                source.look_again(&kid).await;
                if !source.is_known() {
                    let detail = format!("the public keys of {issuer:?} are not known yet");
                    let problem = Problem::new(Code::Unavailable).detail(detail);
                    return Err(problem.with("retry_after_ms", 1000));
                }
            }
            next = act.as_deref().and_then(token::named);
        }
        Ok(())
    }
}

/// Before a request's tokens are verified: looks up the keys that they name. Verifies nothing.
pub(crate) async fn look_up_keys(
    State(ring): State<KeyRing>,
    request: Request,
    next: Next,
) -> Response {
    let tokens: Vec<String> = tokens(request.headers()).map(str::to_owned).collect();
    for token in tokens {
        if let Err(problem) = ring.look_up(&token).await {
            return ApiError(problem).into_response();
        }
    }
    next.run(request).await
}

/// The tokens that a request between services may have.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = authorization.and_then(|value| token::bearer(Some(value)).ok());
    let routing = headers.get("x-routing-token").and_then(|value| value.to_str().ok());
    bearer.into_iter().chain(routing)
}

async fn read(url: &Url) -> Result<Jwks, String> {
    let client = reqwest::Client::builder()
        .timeout(READ_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(with_causes)?;
    let mut response = client.get(url.clone()).send().await.map_err(with_causes)?;
    if !response.status().is_success() {
        return Err(format!("the answer is {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(with_causes)? {
        if body.len() + chunk.len() > MAX_JWKS_BYTES {
            return Err(format!("a key set has at most {MAX_JWKS_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// An error with what is behind it; the URL is said elsewhere.
fn with_causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::{Json, Router, body::Body, middleware, routing::get};
    use convene_hop::Hop;
    use convene_model::Timestamp;
    use convene_testing::forge::{Bound, Forged, Identity};
    use http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    /// Publishes what `jwks` holds, and counts how often that is read.
    #[derive(Clone, Default)]
    struct Publisher {
        jwks: Arc<std::sync::Mutex<Jwks>>,
        reads: Arc<AtomicUsize>,
    }

    impl Publisher {
        fn publish(&self, identities: &[&Identity]) {
            let keys = identities.iter().flat_map(|identity| identity.key.jwks().keys).collect();
            self.jwks.lock().unwrap().keys = keys;
        }

        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }

        fn serve(&self, listener: TcpListener) -> tokio::task::JoinHandle<()> {
            let publisher = self.clone();
            let router = Router::new().route(
                "/",
                get(move || async move {
                    publisher.reads.fetch_add(1, Ordering::Relaxed);
                    Json(publisher.jwks.lock().unwrap().clone())
                }),
            );
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
        }
    }

    async fn listener() -> (TcpListener, Url) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        (listener, url)
    }

    /// A service that says 200 to whoever gets to it.
    fn behind(source: &Arc<Source>) -> Hop {
        let ring = KeyRing::new(vec![Arc::clone(source)]);
        let router = Router::new()
            .fallback(|| async { "in" })
            .layer(middleware::from_fn_with_state(ring, look_up_keys));
        Hop::in_process(router)
    }

    async fn ask(hop: &Hop, token: &str) -> StatusCode {
        let request = http::Request::get("/")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(bytes::Bytes::new());
        let response = hop.send(request.unwrap()).await.unwrap();
        let status = response.status();
        let _: Body = response.into_body();
        status
    }

    fn token(by: &Identity) -> String {
        Forged::app(by, NOW, Bound { method: "GET", path: "/", body: "" }).encode()
    }

    /// A source of which requests expect little.
    fn impatient(url: Url) -> Arc<Source> {
        let mut source = Source::new("app", vec![url], TrustedKeys::new());
        Arc::get_mut(&mut source).unwrap().first_patience = Duration::ZERO;
        source
    }

    #[tokio::test]
    async fn requests_get_503_when_the_keys_cannot_be_read_within_their_patience() {
        let (socket, url) = listener().await;
        let address = socket.local_addr().unwrap();
        drop(socket);
        let app = Identity::new("app", 1);
        let source = impatient(url);
        let hop = behind(&source);
        assert_eq!(ask(&hop, &token(&app)).await, 503);
        assert_eq!(ask(&hop, "no token at all").await, 200, "that is for the service to refuse");
        assert_eq!(ask(&hop, &token(&Identity::new("other", 2))).await, 200);

        let publisher = Publisher::default();
        publisher.publish(&[&app]);
        let serving = publisher.serve(TcpListener::bind(address).await.unwrap());
        assert_eq!(ask(&hop, &token(&app)).await, 200);
        assert!(source.is_known() && source.keys.has("app", app.key.kid()));
        serving.abort();
    }

    #[tokio::test]
    async fn the_first_requests_wait_for_keys_that_are_published_a_little_later() {
        let (socket, url) = listener().await;
        let address = socket.local_addr().unwrap();
        drop(socket);
        let app = Identity::new("app", 1);
        let source = Source::new("app", vec![url], TrustedKeys::new());
        let hop = behind(&source);
        let asked = (0..20).map(|_| {
            let (hop, token) = (hop.clone(), token(&app));
            tokio::spawn(async move { ask(&hop, &token).await })
        });
        let asked: Vec<_> = asked.collect();
        // Nobody was there when the first of them looked.
        while source.next.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let publisher = Publisher::default();
        publisher.publish(&[&app]);
        let serving = publisher.serve(TcpListener::bind(address).await.unwrap());
        for asked in asked {
            assert_eq!(asked.await.unwrap(), 200);
        }
        assert_eq!(publisher.reads(), 1, "one reading is for all who wait for it");
        serving.abort();
    }

    #[tokio::test]
    async fn a_token_that_names_a_new_key_makes_the_keys_be_read_at_once() {
        let (socket, url) = listener().await;
        let (old, new) = (Identity::new("app", 1), Identity::new("app", 2));
        let publisher = Publisher::default();
        publisher.publish(&[&old]);
        let serving = publisher.serve(socket);
        let source = Source::new("app", vec![url], TrustedKeys::new());
        let hop = behind(&source);
        assert_eq!(ask(&hop, &token(&old)).await, 200);
        assert_eq!(publisher.reads(), 1);

        publisher.publish(&[&old, &new]);
        let asked = (0..50).map(|_| {
            let (hop, token) = (hop.clone(), token(&new));
            tokio::spawn(async move { ask(&hop, &token).await })
        });
        for asked in asked.collect::<Vec<_>>() {
            assert_eq!(asked.await.unwrap(), 200);
        }
        assert_eq!(publisher.reads(), 2, "one reading is for all who wait for it");
        assert!(source.keys.has("app", new.key.kid()));
        // However often keys are changed: a reading that found what it was for costs nothing.
        for seed in 3..20 {
            let newer = Identity::new("app", seed);
            publisher.publish(&[&newer]);
            ask(&hop, &token(&newer)).await;
            assert!(source.keys.has("app", newer.key.kid()), "{seed}");
        }

        // What is known stays trusted while nobody publishes it.
        serving.abort();
        assert_eq!(ask(&hop, &token(&Identity::new("app", 30))).await, 200);
        assert!(source.keys.has("app", Identity::new("app", 19).key.kid()));
    }

    #[tokio::test]
    async fn a_flood_of_made_up_keys_causes_only_so_many_readings() {
        let (socket, url) = listener().await;
        let app = Identity::new("app", 1);
        let publisher = Publisher::default();
        publisher.publish(&[&app]);
        let serving = publisher.serve(socket);
        let source = Source::new("app", vec![url], TrustedKeys::new());
        let hop = behind(&source);
        assert_eq!(ask(&hop, &token(&app)).await, 200);
        let began = Instant::now();
        for seed in 2..60 {
            ask(&hop, &token(&Identity::new("app", seed))).await;
        }
        let earned = began.elapsed().as_millis() / VAIN_LOOK_EVERY.as_millis();
        let reads = publisher.reads() - 1;
        assert!(reads >= VAIN_LOOKS as usize, "{reads}");
        assert!(reads <= VAIN_LOOKS as usize + earned as usize + 1, "{reads}");
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn readings_in_vain_are_allowed_again_one_by_one() {
        let now = Instant::now();
        let mut looks = Looks { last_read: None, left: VAIN_LOOKS, earning_since: now };
        let took = |looks: &mut Looks, at: Instant| (0..10).filter(|_| looks.take(at)).count();
        assert_eq!(took(&mut looks, now), VAIN_LOOKS as usize);
        let just = now + VAIN_LOOK_EVERY;
        assert_eq!(took(&mut looks, just - Duration::from_millis(1)), 0);
        assert_eq!(took(&mut looks, just), 1);
        assert_eq!(took(&mut looks, just + VAIN_LOOK_EVERY * 2), 2);
        assert_eq!(took(&mut looks, just + VAIN_LOOK_EVERY * 100), VAIN_LOOKS as usize);
        let late = just + VAIN_LOOK_EVERY * 200;
        assert!(looks.take(late));
        looks.give_back();
        assert_eq!(took(&mut looks, late), VAIN_LOOKS as usize);
    }

    #[tokio::test]
    async fn the_key_of_a_token_that_another_carries_is_looked_up_too() {
        let (socket, url) = listener().await;
        let controllers = Identity::new("controllers", 1);
        let publisher = Publisher::default();
        publisher.publish(&[&controllers]);
        let serving = publisher.serve(socket);
        let source = Source::new("controllers", vec![url], TrustedKeys::new());
        let worker = Forged::app(
            &Identity::new("agents", 2),
            NOW,
            Bound { method: "GET", path: "/", body: "" },
        );
        let carrying = worker.with("act", token(&controllers));
        assert_eq!(ask(&behind(&source), &carrying.encode()).await, 200);
        assert!(source.is_known());
        serving.abort();
    }

    #[tokio::test]
    async fn one_of_several_places_that_publish_the_keys_is_enough() {
        let (away, away_url) = listener().await;
        drop(away);
        let (socket, url) = listener().await;
        let app = Identity::new("app", 1);
        let publisher = Publisher::default();
        publisher.publish(&[&app]);
        let serving = publisher.serve(socket);
        let source = Source::new("app", vec![away_url, url], TrustedKeys::new());
        assert!(source.read().await.is_ok() && source.read().await.is_ok());
        assert_eq!(publisher.reads(), 2);
        serving.abort();
    }
}
