//! A hop over HTTP and WebSocket against a real server, as callers see it.
#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is a failed test")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use bytes::Bytes;
use convene_hop::{
    ApiError, Close, ConnectError, GroupLink, Hop, LinkUpgrade, Links, RawRequest, SET_ASIDE_FOR,
};
use convene_model::{Code, Problem};
use futures_util::{StreamExt, stream};
use http::{Method, Request};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use url::Url;

/// What the server's routes share.
#[derive(Clone, Default)]
struct Served {
    asked: Arc<AtomicUsize>,
    links: Option<mpsc::UnboundedSender<GroupLink>>,
}

struct Server {
    address: SocketAddr,
    served: Served,
    opened: mpsc::UnboundedReceiver<GroupLink>,
    links: Links,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let (sender, opened) = mpsc::unbounded_channel();
        let served = Served { asked: Arc::default(), links: Some(sender) };
        let links = Links::new();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/echo", post(echo))
            .route("/slow", get(|| async { Body::from_stream(slow()) }))
            .route("/away", get(|| async { Redirect::temporary("/echo") }))
            .route("/break", get(break_off))
            .route("/ws", get(connect))
            .route("/refused", get(|| async { refusal().into_response() }))
            .route("/nothing", get(|| async { (http::StatusCode::BAD_GATEWAY, "?") }))
            .layer(Extension(links.clone()))
            .with_state(served.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, served, opened, links, task }
    }

    fn url(&self) -> Url {
        url(self.address)
    }

    fn asked(&self) -> usize {
        self.served.asked.load(Ordering::Relaxed)
    }
}

fn url(address: SocketAddr) -> Url {
    Url::parse(&format!("http://{address}")).unwrap()
}

fn hop(urls: &[Url]) -> Hop {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Hop::http(urls, Links::new()).unwrap()
}

async fn echo(State(served): State<Served>, request: RawRequest) -> impl IntoResponse {
    served.asked.fetch_add(1, Ordering::Relaxed);
    let said = request.header("x-said").unwrap_or_default().to_owned();
    ([("x-said", said)], request.body)
}

/// Two chunks, the second after the first was seen by whoever waits for it.
fn slow() -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    let first = stream::once(async { Ok(Bytes::from_static(b"first")) });
    let rest = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Bytes::from_static(b"second"))
    });
    first.chain(rest)
}

async fn break_off(State(served): State<Served>) -> Body {
    served.asked.fetch_add(1, Ordering::Relaxed);
    let chunks = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    Body::from_stream(stream::iter(chunks))
}

async fn connect(State(served): State<Served>, upgrade: LinkUpgrade) -> impl IntoResponse {
    let (theirs, ours) = GroupLink::pair();
    served.links.unwrap().send(ours).unwrap();
    upgrade.accept(theirs)
}

fn refusal() -> ApiError {
    Problem::new(Code::StaleEpoch).with("epoch", 3).into()
}

fn request(method: Method, path: &str) -> Request<Bytes> {
    Request::builder().method(method).uri(path).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_and_so_does_its_answer() {
    let server = Server::start().await;
    let mut request = request(Method::POST, "/echo?a=b").map(|_| Bytes::from_static(b"body"));
    request.headers_mut().insert("x-said", "hello".parse().unwrap());
    let response = hop(&[server.url()]).send(request).await.unwrap();
    assert_eq!(response.headers()["x-said"], "hello");
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(&body[..], b"body");
}

#[tokio::test]
async fn a_body_is_streamed_as_it_comes() {
    let server = Server::start().await;
    let response = hop(&[server.url()]).send(request(Method::GET, "/slow")).await.unwrap();
    let mut chunks = response.into_body().into_data_stream();
    assert_eq!(&chunks.next().await.unwrap().unwrap()[..], b"first");
    assert_eq!(&chunks.next().await.unwrap().unwrap()[..], b"second");
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let server = Server::start().await;
    let response = hop(&[server.url()]).send(request(Method::GET, "/away")).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unavailable_and_one_that_is_too_large_says_so() {
    let server = Server::start().await;
    let hop = hop(&[server.url()]);
    let problem = hop.call(request(Method::GET, "/break"), 100).await.unwrap_err();
    assert_eq!(problem.code, Code::Unavailable);
    assert_eq!(server.asked(), 1, "what may have arrived is not repeated here");
    let problem = hop.call(request(Method::GET, "/slow"), 3).await.unwrap_err();
    assert_eq!(problem.code, Code::TooLarge);
}

#[tokio::test]
async fn requests_go_to_equal_processes_in_turn_and_past_those_that_are_away() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (one, two) = (Server::start().await, Server::start().await);
    let hop = hop(&[url(away), one.url(), two.url()]);
    for _ in 0..30 {
        assert!(hop.send(request(Method::POST, "/echo")).await.is_ok());
    }
    assert_eq!(one.asked() + two.asked(), 30);
    assert!(one.asked() >= 10 && two.asked() >= 10, "{} and {}", one.asked(), two.asked());

    // Who comes back is asked again once its time aside is over.
    let back = Server::on(TcpListener::bind(away).await.unwrap());
    tokio::time::sleep(SET_ASIDE_FOR).await;
    for _ in 0..3 {
        assert!(hop.send(request(Method::POST, "/echo")).await.is_ok());
    }
    assert_eq!(back.asked(), 1);
}

#[tokio::test]
async fn with_nobody_there_a_call_fails_and_says_where() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hop = hop(&[url(away)]);
    let error = hop.send(request(Method::GET, "/echo")).await.unwrap_err();
    assert!(error.to_string().contains(&away.to_string()), "{error}");
    let refused = hop.connect(request(Method::GET, "/ws")).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unavailable(_)), "{refused}");
}

#[tokio::test]
async fn an_address_with_a_path_is_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for wrong in ["http://host/path", "ftp://host", "http://user@host", "http://host/?q"] {
        assert!(Hop::http(&[Url::parse(wrong).unwrap()], Links::new()).is_err(), "{wrong}");
    }
    assert!(Hop::http(&[], Links::new()).is_err());
}

#[tokio::test]
async fn frames_pass_both_ways_and_a_close_keeps_its_code_and_reason() {
    let mut server = Server::start().await;
    let hop = hop(&[server.url()]);
    let mut near = hop.connect(request(Method::GET, "/ws")).await.unwrap();
    let mut far = server.opened.recv().await.unwrap();
    for number in 0..1000 {
        let frame = Bytes::from(format!("{{\"n\":{number}}}"));
        near.tx.send(frame.clone()).await.unwrap();
        assert_eq!(far.rx.recv().await.unwrap(), frame);
        far.tx.send(frame.clone()).await.unwrap();
        assert_eq!(near.rx.recv().await.unwrap(), frame);
    }
    far.close.say(Close::new(4008, "slow"));
    drop(far);
    assert_eq!(near.rx.recv().await, None);
    assert_eq!(near.close.heard(), Some(Close::new(4008, "slow")));

    let near = hop.connect(request(Method::GET, "/ws")).await.unwrap();
    let mut far = server.opened.recv().await.unwrap();
    near.close.say(Close::new(1000, "nobody is left"));
    drop(near);
    assert_eq!(far.rx.recv().await, None);
    assert_eq!(far.close.heard(), Some(Close::new(1000, "nobody is left")));
}

#[tokio::test]
async fn a_hop_in_the_middle_passes_frames_and_the_close_of_either_side_on() {
    let mut server = Server::start().await;
    let next = hop(&[server.url()]);
    let middle = Router::new().route(
        "/ws",
        get(move |upgrade: LinkUpgrade| {
            let next = next.clone();
            async move { upgrade.accept(next.connect(request(Method::GET, "/ws")).await.unwrap()) }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, middle).await.unwrap() });
    let hop = hop(&[url(address)]);

    let mut near = hop.connect(request(Method::GET, "/ws")).await.unwrap();
    let mut far = server.opened.recv().await.unwrap();
    near.tx.send(Bytes::from_static(b"{}")).await.unwrap();
    assert!(far.rx.recv().await.is_some());
    far.tx.send(Bytes::from_static(b"{\"last\":1}")).await.unwrap();
    far.close.say(Close::new(4008, "slow"));
    drop(far);
    assert_eq!(near.rx.recv().await.unwrap(), "{\"last\":1}");
    assert_eq!(near.rx.recv().await, None);
    assert_eq!(near.close.heard(), Some(Close::new(4008, "slow")));
    serving.abort();
}

#[tokio::test]
async fn a_refused_upgrade_brings_the_problem() {
    let server = Server::start().await;
    let hop = hop(&[server.url()]);
    match hop.connect(request(Method::GET, "/refused")).await.unwrap_err() {
        ConnectError::Refused(problem) => {
            assert_eq!(problem.code, Code::StaleEpoch);
            assert_eq!(problem.extra["epoch"], 3);
        }
        ConnectError::Unavailable(error) => panic!("{error}"),
    }
    let other = hop.connect(request(Method::GET, "/nothing")).await.unwrap_err();
    assert!(matches!(other, ConnectError::Unavailable(_)), "{other}");
}

#[tokio::test]
async fn a_server_that_stops_closes_its_upstreams_in_order() {
    let mut server = Server::start().await;
    let hop = hop(&[server.url()]);
    let mut near = hop.connect(request(Method::GET, "/ws")).await.unwrap();
    let mut far = server.opened.recv().await.unwrap();
    assert_eq!(server.links.open(), 1);
    server.links.close().await;
    assert_eq!(server.links.open(), 0);
    assert_eq!(near.rx.recv().await, None);
    assert_eq!(near.close.heard().unwrap().code, 1001);
    assert_eq!(far.rx.recv().await, None);
    server.task.abort();
}
