//! The WebSocket opening handshake (RFC 6455, section 4), as its server and as its client.

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use convene_model::{Code, Problem, frame::SUBPROTOCOL};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha1::{Digest, Sha1};
use uuid::Uuid;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that asks for [`SUBPROTOCOL`] and was found to be well-formed.
#[derive(Debug, Clone)]
pub struct Handshake {
    accept: HeaderValue,
}

impl Handshake {
    /// Reads the headers of a handshake.
    ///
    /// # Errors
    /// [`Code::UpgradeRequired`] when they do not ask for a WebSocket of version 13 with our
    /// subprotocol.
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let refused = |why: &str| Problem::new(Code::UpgradeRequired).detail(why.to_owned());
        if !lists(headers, &header::UPGRADE, "websocket") {
            return Err(refused("the header `upgrade: websocket` is missing"));
        }
        if !lists(headers, &header::CONNECTION, "upgrade") {
            return Err(refused("the header `connection: upgrade` is missing"));
        }
        if !lists(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(refused("the WebSocket version is not 13"));
        }
        if !lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
            return Err(refused("the subprotocol `convene.v1` is not offered"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
        let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|raw| raw.len() == 16));
        let key = key.ok_or_else(|| refused("the WebSocket key is missing or malformed"))?;
        let accept = HeaderValue::from_str(&accept(key)).map_err(|_| Code::Internal)?;
        Ok(Self { accept })
    }

    /// The answer 101.
    #[must_use]
    pub fn response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        response
    }
}

/// The client's side: what it asks for, and what it expects in the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    accept: String,
}

impl Asked {
    /// Adds the headers that ask for a WebSocket with [`SUBPROTOCOL`].
    pub(crate) fn put(headers: &mut HeaderMap) -> Self {
        let key = STANDARD.encode(Uuid::new_v4().as_bytes());
        for (name, value) in [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let value = HeaderValue::from_str(&key).expect("base64 makes a header value");
        headers.insert(header::SEC_WEBSOCKET_KEY, value);
        Self { accept: accept(key.as_bytes()) }
    }

    /// Whether the headers of a 101 are the answer to what was asked.
    pub(crate) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        lists(headers, &header::UPGRADE, "websocket")
            && lists(headers, &header::CONNECTION, "upgrade")
            && lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
            && headers
                .get(header::SEC_WEBSOCKET_ACCEPT)
                .is_some_and(|accept| accept.as_bytes() == self.accept.as_bytes())
    }
}

/// What a server answers to a client's key.
fn accept(key: &[u8]) -> String {
    let mut sha = Sha1::new();
    sha.update(key);
    sha.update(GUID);
    STANDARD.encode(sha.finalize())
}

/// Whether a comma-separated header lists `item`, in any case.
fn lists(headers: &HeaderMap, name: &header::HeaderName, item: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_PROTOCOL, "other, convene.v1"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_example_of_the_standard_is_answered_as_the_standard_says() {
        let response = Handshake::read(&headers()).unwrap().response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()[header::SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_client_takes_the_answer_to_its_own_key_only() {
        let mut request = HeaderMap::new();
        let asked = Asked::put(&mut request);
        let response = Handshake::read(&request).unwrap().response();
        assert!(asked.is_answered_by(response.headers()));
        for name in response.headers().keys() {
            let mut headers = response.headers().clone();
            headers.remove(name);
            assert!(!asked.is_answered_by(&headers), "{name}");
        }
        assert!(!Asked::put(&mut HeaderMap::new()).is_answered_by(response.headers()));
    }

    #[test]
    fn each_part_of_the_handshake_is_required() {
        for name in headers().keys() {
            let mut headers = headers();
            headers.remove(name);
            assert_eq!(
                Handshake::read(&headers).unwrap_err().code,
                Code::UpgradeRequired,
                "{name}"
            );
        }
    }
}
