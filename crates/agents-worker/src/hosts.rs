//! Hosts that an operator or a workspace names: `host` for every port of it, or `host:port`.
//!
//! Pure. Says whether a URL leads to a named host, and nothing of what that host's addresses are.

use std::net::Ipv6Addr;

use url::{Host, Url};

/// A host that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedHost {
    host: Host<String>,
    /// `None` means every port.
    port: Option<u16>,
}

impl NamedHost {
    /// Reads `host` or `host:port`; `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // A bare IPv6 address has colons of its own.
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self { host: Host::Ipv6(address), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            Some(_) | None => (text, None),
        };
        Some(Self { host: without_dot(Host::parse(host).ok()?), port })
    }

    /// Whether a URL leads there.
    #[must_use]
    pub fn matches(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let port = url.port_or_known_default();
        self.host == without_dot(host.to_owned()) && (self.port.is_none() || self.port == port)
    }
}

/// `host.` and `host` are the same name.
fn without_dot(host: Host<String>) -> Host<String> {
    match host {
        Host::Domain(name) => Host::Domain(name.trim_end_matches('.').to_owned()),
        Host::Ipv4(_) | Host::Ipv6(_) => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(host: &str, url: &str) -> bool {
        NamedHost::parse(host).unwrap().matches(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_host_is_named_with_its_port_or_with_all() {
        for (host, url) in [
            ("localhost:11434", "http://LOCALHOST.:11434/v1"),
            ("Models.Internal", "https://models.internal/"),
            ("models.internal", "http://models.internal:8000/"),
            ("[::1]:8080", "http://[::1]:8080/"),
            ("fd00::1", "http://[fd00::1]:1/"),
            ("10.0.0.1", "http://10.0.0.1:9/"),
            ("api.example.com:443", "https://api.example.com/"),
        ] {
            assert!(matches(host, url), "{host} {url}");
        }
        for (host, url) in [
            ("localhost:11434", "http://localhost/"),
            ("models.internal", "http://sub.models.internal/"),
            ("[::1]:8080", "http://[::1]/"),
            ("10.0.0.1", "http://10.0.0.2/"),
            ("localhost:11434", "http://127.0.0.1:11434/"),
        ] {
            assert!(!matches(host, url), "{host} {url}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "http://x", "x:y", "x:99999", "a b", "[::1"] {
            assert_eq!(NamedHost::parse(text), None, "{text:?}");
        }
    }
}
