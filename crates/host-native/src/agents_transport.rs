//! The Agents Worker's way to model providers and to the services that tools use, with one guard in
//! front of it.
//!
//! Addresses are chosen by people of a workspace, so they are not trusted: only public addresses
//! are connected to, unless the operator's configuration names the host. The guard stands where
//! names become addresses, so that what was checked is what is connected to. Redirects are never
//! followed, proxies of the environment are not used, and no connection outlives its request.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use convene_agents_worker::{BodyStream, NamedHost, Transport, TransportError, TransportErrorKind};
use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body_util::BodyExt;
use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use url::{Host, Url};

/// How long a connection may take to come about, name look-up and TLS included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP to model providers and tools, for one process.
#[derive(Debug)]
pub(crate) struct ReqwestTransport {
    /// Connects to public addresses only.
    guarded: Client,
    /// Connects anywhere: for hosts that the operator named.
    open: Client,
    allowed: Vec<NamedHost>,
}

/// The transport cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// An entry of `agents.allow_hosts` is not a host.
    #[error("agents.allow_hosts: {0:?} is not a host or host:port")]
    Host(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

impl ReqwestTransport {
    /// A transport that reaches public addresses and the hosts in `allow_hosts` (`host` for every
    /// port of it, or `host:port`).
    pub(crate) fn new(allow_hosts: &[String]) -> Result<Self, SetupError> {
        let allowed = allow_hosts
            .iter()
            .map(|text| NamedHost::parse(text).ok_or_else(|| SetupError::Host(text.clone())))
            .collect::<Result<_, _>>()?;
        let tls = tls()?;
        Ok(Self {
            guarded: client(tls.clone()).dns_resolver(PublicOnly).build()?,
            open: client(tls).build()?,
            allowed,
        })
    }

    /// The client for a URL, or why there is none.
    fn client_for(&self, url: &Url) -> Result<&Client, TransportError> {
        let not_allowed = |why: &str| TransportError::new(TransportErrorKind::NotAllowed, why);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(not_allowed("Only http and https addresses are allowed."));
        }
        let host = url.host().ok_or_else(|| not_allowed("The address has no host."))?;
        if self.allowed.iter().any(|allowed| allowed.matches(url)) {
            return Ok(&self.open);
        }
        // A literal address is connected to without a look-up, so it is checked here.
        let literal = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        match literal {
            Some(address) if !is_public(address) => Err(refusal(&host.to_string())),
            Some(_) | None => Ok(&self.guarded),
        }
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<BodyStream>, TransportError> {
        let request =
            reqwest::Request::try_from(request.map(reqwest::Body::from)).map_err(|_| {
                let why = "The address is not a complete http or https address.";
                TransportError::new(TransportErrorKind::NotAllowed, why)
            })?;
        let client = self.client_for(request.url())?;
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let response = client.execute(request).await.map_err(|error| failure(&error, &host))?;
        let response: Response<reqwest::Body> = response.into();
        Ok(response.map(|body| {
            let chunks = body.into_data_stream();
            chunks.map_err(move |error| failure(&error, &host)).boxed()
        }))
    }
}

fn client(tls: ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("convene/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        // Agents' requests are request-scoped: nothing stays open for a next one.
        .pool_max_idle_per_host(0)
}

/// Trusts Mozilla's roots, which a container without certificates has too, and the system's, among
/// which an organization's own may be.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "some of the system's certificates cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn refusal(host: &str) -> TransportError {
    TransportError::new(
        TransportErrorKind::NotAllowed,
        format!(
            "The address \"{host}\" is not public; the operator can allow it in \
             agents.allow_hosts."
        ),
    )
}

fn failure(error: &reqwest::Error, host: &str) -> TransportError {
    tracing::debug!(error = error as &dyn Error, host, "a request of an agent failed");
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return refusal(host);
        }
        cause = error.source();
    }
    if error.is_connect() || error.is_builder() {
        let why = format!("The service at \"{host}\" cannot be reached.");
        return TransportError::new(TransportErrorKind::Unreachable, why);
    }
    let why = format!("The connection to \"{host}\" broke.");
    TransportError::new(TransportErrorKind::Cut, why)
}

/// Looks names up and hands out only names all of whose addresses are public.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            if addresses.iter().any(|address| !is_public(address.ip())) {
                return Err(NotPublic.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A name leads to an address that is not public.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name leads to an address that is not public")
    }
}

impl Error for NotPublic {}

/// Whether an address is one of the public Internet, by IANA's registries of special-purpose
/// addresses; addresses that carry an IPv4 address are judged by that.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = matches!(
        address.octets(),
        [0 | 10 | 127, ..] // this network, private, loopback
            | [100, 64..=127, ..] // shared by carriers; also 100.100.100.200, Alibaba's metadata
            | [168, 63, 129, 16] // Azure's metadata and agents
            | [169, 254, ..] // link-local; also 169.254.169.254, metadata of most clouds
            | [172, 16..=31, ..] // private
            | [192, 0, 0 | 2, _] // protocol assignments, documentation
            | [192, 88, 99, _] // 6to4 relays
            | [192, 168, ..] // private
            | [198, 18 | 19, ..] // benchmarks
            | [198, 51, 100, _] | [203, 0, 113, _] // documentation
            | [224..=255, ..] // multicast, reserved, broadcast
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped, and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments with Teredo and ORCHID, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is all of 2000::/3; loopback, unique local, link-local, multicast and
        // everything unassigned lies outside.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn public_addresses_are_public() {
        for address in "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 \
             126.255.255.255 128.0.0.0 168.63.129.15 169.253.255.255 172.15.255.255 \
             172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 \
             223.255.255.255 2606:4700::1111 2a00:1450::1 2001:200::1 ::ffff:8.8.8.8 \
             64:ff9b::8.8.8.8 2002:808:808::1"
            .split(' ')
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for address in "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.0 100.100.100.200 \
             100.127.255.255 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.1 \
             169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 \
             192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 \
             239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 \
             ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 64:ff9b:1::8.8.8.8 \
             100::1 2001::1 2001:db8::1 2002:a00:1::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 \
             fd00:ec2::254 fe80::1 febf::1 fec0::1 ff02::1"
            .split(' ')
        {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    fn transport(allow: &[&str]) -> ReqwestTransport {
        let allow: Vec<_> = allow.iter().map(|host| (*host).to_owned()).collect();
        ReqwestTransport::new(&allow).unwrap()
    }

    /// Whether the guard of literal addresses lets a URL pass, and whether as an allowed host.
    fn passes(transport: &ReqwestTransport, url: &str) -> Option<bool> {
        let client = transport.client_for(&Url::parse(url).unwrap()).ok()?;
        Some(std::ptr::eq(client, &raw const transport.open))
    }

    #[test]
    fn only_http_and_https_pass() {
        let transport = transport(&[]);
        assert_eq!(passes(&transport, "https://api.example.com/v1"), Some(false));
        for url in ["ftp://example.com/", "file:///etc/passwd", "unix:/run/x", "data:,x"] {
            assert_eq!(passes(&transport, url), None, "{url}");
        }
    }

    #[test]
    fn a_literal_address_is_refused_however_it_is_written() {
        let transport = transport(&[]);
        assert_eq!(passes(&transport, "http://8.8.8.8/"), Some(false));
        for url in "http://127.0.0.1/ http://127.1/ http://2130706433/ http://0x7f000001/ \
             http://0177.0.0.1/ http://127.0.0.1./ http://[::1]/ http://[::ffff:7f00:1]/ \
             http://0/ http://169.254.169.254/latest/meta-data http://user@10.0.0.1/"
            .split(' ')
        {
            assert_eq!(passes(&transport, url), None, "{url}");
        }
    }

    #[test]
    fn a_host_that_the_operator_names_is_allowed_with_its_port_or_with_all() {
        let transport =
            transport(&["localhost:11434", "Models.Internal", "[::1]:8080", "fd00::1", "10.0.0.1"]);
        for url in "http://localhost:11434/v1 http://LOCALHOST.:11434/v1 https://models.internal/ \
             http://models.internal:8000/ http://[::1]:8080/ http://[fd00::1]:1/ \
             http://10.0.0.1:9/"
            .split(' ')
        {
            assert_eq!(passes(&transport, url), Some(true), "{url}");
        }
        for url in ["http://localhost/", "http://sub.models.internal/"] {
            assert_eq!(passes(&transport, url), Some(false), "{url}");
        }
        for url in ["http://[::1]/", "http://10.0.0.2/", "http://127.0.0.1:11434/"] {
            assert_eq!(passes(&transport, url), None, "{url}");
        }
    }

    #[test]
    fn an_entry_that_is_no_host_is_refused() {
        for text in ["", "http://x", "x:y", "x:99999", "a b", "[::1"] {
            assert!(ReqwestTransport::new(&[text.to_owned()]).is_err(), "{text:?}");
        }
    }

    /// Answers one connection with `answer` and returns the port.
    async fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    async fn get(
        transport: &ReqwestTransport,
        url: String,
    ) -> Result<Response<BodyStream>, TransportError> {
        transport.send(Request::get(url).body(Bytes::new()).unwrap()).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_loopback_is_refused_unless_it_is_named() {
        let port = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let url = format!("http://localhost:{port}/v1");
        let error = get(&transport(&[]), url.clone()).await.err().unwrap();
        assert_eq!(error.kind, TransportErrorKind::NotAllowed);
        assert!(error.detail.contains("\"localhost\"") && !error.detail.contains("/v1"));
        let response = get(&transport(&["localhost"]), url).await.unwrap();
        let body: Vec<Bytes> = response.into_body().try_collect().await.unwrap();
        assert_eq!(body.concat(), b"ok");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let port = answering(
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        let url = format!("http://127.0.0.1:{port}/");
        let response = get(&transport(&["127.0.0.1"]), url).await.unwrap();
        assert_eq!(response.status(), 302);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_cut() {
        let port = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await;
        let url = format!("http://127.0.0.1:{port}/");
        let response = get(&transport(&["127.0.0.1"]), url).await.unwrap();
        let error = response.into_body().try_collect::<Vec<Bytes>>().await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Cut);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_cannot_be_reached() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = format!("http://127.0.0.1:{port}/");
        let error = get(&transport(&["127.0.0.1"]), url).await.err().unwrap();
        assert_eq!(error.kind, TransportErrorKind::Unreachable);
        assert!(!error.detail.contains(&port.to_string()));
    }
}
