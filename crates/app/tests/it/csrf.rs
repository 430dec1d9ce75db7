//! Requests that a browser was led to make: refused, and nothing changed.

use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::support::{Client, PASSWORD, Setup, World};

async fn refused(client: &mut Client<'_>, why: &str) {
    let reply = client.post("/api/orgs", &json!({"name": "Forged"})).await;
    assert_eq!(reply.refusal(), (403, "bad_origin"), "{why}");
    assert_eq!(client.world.rows("orgs").await, 0, "{why}");
}

#[tokio::test]
async fn a_session_needs_its_own_csrf_token_to_change_anything() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let eve = world.person("Eve").await;
    let own = ada.csrf.take();
    refused(&mut ada, "no token").await;
    for wrong in [String::new(), "nonsense".to_owned(), eve.csrf.clone().unwrap()] {
        ada.csrf = Some(wrong.clone());
        refused(&mut ada, &wrong).await;
    }
    ada.csrf = own;
    ada.org("Real").await;
}

#[tokio::test]
async fn every_changing_call_of_the_api_wants_the_token() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let group = ada.group(&org, "Room", None).await;
    let me = ada.id.clone();
    ada.csrf = None;
    for (method, path) in [
        (Method::POST, "/api/auth/sign-out".to_owned()),
        (Method::PATCH, "/api/me".to_owned()),
        (Method::PUT, "/api/me/password".to_owned()),
        (Method::DELETE, "/api/me/sessions".to_owned()),
        (Method::DELETE, "/api/me/sessions/x".to_owned()),
        (Method::POST, "/api/tokens".to_owned()),
        (Method::DELETE, "/api/tokens/x".to_owned()),
        (Method::POST, "/api/orgs".to_owned()),
        (Method::PATCH, format!("/api/orgs/{org}/members/{me}")),
        (Method::DELETE, format!("/api/orgs/{org}/members/{me}")),
        (Method::POST, format!("/api/orgs/{org}/invites")),
        (Method::POST, "/api/invites/x".to_owned()),
        (Method::POST, format!("/api/orgs/{org}/agents")),
        (Method::PATCH, format!("/api/orgs/{org}/agents/x")),
        (Method::DELETE, format!("/api/orgs/{org}/agents/x")),
        (Method::POST, format!("/api/orgs/{org}/providers")),
        (Method::PATCH, format!("/api/orgs/{org}/providers/x")),
        (Method::DELETE, format!("/api/orgs/{org}/providers/x")),
        (Method::POST, "/api/groups".to_owned()),
        (Method::PATCH, format!("/api/groups/{group}")),
        (Method::PUT, format!("/api/groups/{group}/members/{me}")),
        (Method::DELETE, format!("/api/groups/{group}/members/{me}")),
        (Method::PUT, format!("/api/groups/{group}/agents")),
        (Method::POST, format!("/api/groups/{group}/messages")),
        (Method::POST, format!("/api/groups/{group}/clone")),
    ] {
        let reply = ada.json(method.clone(), &path, &json!({})).await;
        assert_eq!(reply.refusal(), (403, "bad_origin"), "{method} {path}");
    }
}

#[tokio::test]
async fn another_site_is_refused_even_with_a_token() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for origin in ["http://evil.test", "http://convene.test:81", "null", "nonsense"] {
        ada.origin = Some(origin);
        refused(&mut ada, origin).await;
    }
    ada.origin = None;
    for site in ["cross-site", "same-site"] {
        ada.extra = vec![("sec-fetch-site".parse().unwrap(), HeaderValue::from_static(site))];
        refused(&mut ada, site).await;
    }
    ada.extra.clear();
    ada.origin = Some("http://convene.test");
    ada.org("Real").await;
}

#[tokio::test]
async fn the_configured_address_decides_and_not_the_host() {
    let url = Some("https://chat.example");
    let world = World::with(Setup { public_url: url, ..Setup::default() }).await;
    let mut browser = world.browser();
    let body = json!({"email": "a@b.c", "name": "A", "password": PASSWORD});
    let reply = browser.post("/api/auth/sign-up", &body).await;
    assert_eq!(reply.refusal(), (403, "bad_origin"), "host and origin agree, but are another site");
    assert_eq!(world.rows("users").await, 0);
    browser.origin = url;
    assert_eq!(browser.post("/api/auth/sign-up", &body).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_foreign_page_cannot_sign_somebody_in() {
    let world = World::new().await;
    world.person("Ada").await;
    let mut browser = world.browser();
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    browser.origin = Some("http://evil.test");
    let reply = browser.post("/api/auth/sign-in", &body).await;
    assert_eq!(reply.refusal(), (403, "bad_origin"));
    browser.origin = None;
    // What a form of another page could send, from a browser that says nothing of its origin.
    let raw = serde_json::to_vec(&body).unwrap();
    let reply = browser.send(Method::POST, "/api/auth/sign-in", Some("text/plain"), raw).await;
    assert_eq!(reply.refusal(), (400, "invalid_request"));
    assert!(browser.cookies.is_empty());
    let form = [("email", "ada@example.org"), ("password", PASSWORD), ("csrf", "guessed")];
    assert_eq!(browser.form("/sign-in", &form).await.status, StatusCode::FORBIDDEN);
    assert!(!browser.cookies.contains_key("convene_session"));
}

#[tokio::test]
async fn a_socket_is_opened_from_this_site_only() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/groups/{}/ws", ada.group(&org, "Room", None).await);
    ada.extra = vec![
        ("connection".parse().unwrap(), HeaderValue::from_static("Upgrade")),
        ("upgrade".parse().unwrap(), HeaderValue::from_static("websocket")),
    ];
    for origin in [Some("http://evil.test"), Some("null"), None] {
        ada.origin = origin;
        assert_eq!(ada.get(&path).await.refusal(), (403, "bad_origin"), "{origin:?}");
    }
    ada.origin = Some("http://convene.test");
    let reply = ada.get(&path).await;
    assert_eq!(reply.refusal(), (426, "upgrade_required"), "past the guard, but no handshake");
    ada.cookies.clear();
    assert_eq!(ada.get(&path).await.refusal(), (401, "unauthorized"));
}
