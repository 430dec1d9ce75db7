//! Where a browser's request comes from, and whether that is this site.

use std::fmt;

use http::{HeaderMap, header};
use url::Url;

/// Scheme, host and port of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(url::Origin);

impl Origin {
    /// The origin of an http(s) URL; `None` for any other.
    #[must_use]
    pub fn of_url(url: &Url) -> Option<Self> {
        let http = matches!(url.scheme(), "http" | "https") && url.has_host();
        http.then(|| Self(url.origin()))
    }

    fn parse(text: &str) -> Option<Self> {
        Self::of_url(&Url::parse(text).ok()?)
    }

    /// Whether the site is reached over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        matches!(&self.0, url::Origin::Tuple(scheme, _, _) if scheme == "https")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.ascii_serialization())
    }
}

/// Whether the headers say that the request comes from this site.
///
/// Browsers send `Sec-Fetch-Site`, `Origin` or both with every request that changes something and
/// with every WebSocket; what they say must be this site. A request with neither is no browser's:
/// it passes unless `required`.
#[must_use]
pub fn is_own(headers: &HeaderMap, configured: Option<&Origin>, required: bool) -> bool {
    let mut said = false;
    for value in headers.get_all("sec-fetch-site") {
        if value != "same-origin" && value != "none" {
            return false;
        }
    }
    for value in headers.get_all(header::ORIGIN) {
        said = true;
        let origin = value.to_str().ok().and_then(Origin::parse);
        let Some(origin) = origin else { return false };
        let own = match configured {
            Some(own) => Some(own.clone()),
            // Without a configured address the site is whatever the client called it by.
            None => of_host(headers, origin.is_https()),
        };
        if own.as_ref() != Some(&origin) {
            return false;
        }
    }
    said || !required
}

/// The origin that the `Host` header names.
#[must_use]
pub fn of_host(headers: &HeaderMap, https: bool) -> Option<Origin> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    if hosts.next().is_some() || host.contains(['/', '@', '?', '#', '\\']) {
        return None;
    }
    Origin::parse(&format!("{}://{host}", if https { "https" } else { "http" }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn without_a_configured_address_the_origin_must_be_the_host() {
        let own = |pairs: &[_]| is_own(&headers(pairs), None, false);
        assert!(own(&[("host", "a.org"), ("origin", "http://a.org")]));
        assert!(own(&[("host", "a.org"), ("origin", "https://a.org")]));
        assert!(own(&[("host", "a.org:8080"), ("origin", "http://a.org:8080")]));
        assert!(own(&[("host", "a.org:80"), ("origin", "http://a.org")]));
        assert!(own(&[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")]));
        for bad in
            ["http://b.org", "http://a.org:81", "http://a.org.b.org", "null", "", "ftp://a.org"]
        {
            assert!(!own(&[("host", "a.org"), ("origin", bad)]), "{bad}");
        }
        assert!(!own(&[("origin", "http://a.org")]));
        assert!(!own(&[("host", "a.org"), ("origin", "http://a.org"), ("origin", "http://b.org")]));
    }

    #[test]
    fn a_configured_address_decides_whatever_the_host_says() {
        let site = Origin::parse("https://chat.example").unwrap();
        let own = |pairs: &[_]| is_own(&headers(pairs), Some(&site), false);
        assert!(own(&[("host", "10.0.0.1"), ("origin", "https://chat.example")]));
        assert!(!own(&[("host", "chat.example"), ("origin", "http://chat.example")]));
        assert!(!own(&[("host", "evil.example"), ("origin", "https://evil.example")]));
    }

    #[test]
    fn what_the_browser_says_of_the_site_counts() {
        let own =
            |site| is_own(&headers(&[("host", "a.org"), ("sec-fetch-site", site)]), None, false);
        assert!(own("same-origin") && own("none"));
        assert!(!own("cross-site") && !own("same-site") && !own("anything"));
    }

    #[test]
    fn where_an_origin_is_required_none_is_not_enough() {
        let bare = headers(&[("host", "a.org")]);
        assert!(is_own(&bare, None, false));
        assert!(!is_own(&bare, None, true));
        let fetch = headers(&[("host", "a.org"), ("sec-fetch-site", "same-origin")]);
        assert!(!is_own(&fetch, None, true));
    }
}
