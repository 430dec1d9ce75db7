//! Accounts, sessions, bearer tokens and how often one may try.

use std::time::Duration;

use convene_app::{
    identity::{
        limiter::{SIGN_IN_WINDOW, SIGN_INS_PER_ADDRESS, SIGN_INS_PER_EMAIL, SIGN_UPS_PER_ADDRESS},
        sessions::SESSION_TTL,
    },
    validate::{MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS},
};
use http::{Method, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{PASSWORD, Setup, World};

fn sign_in(email: &str, password: &str) -> serde_json::Value {
    json!({"email": email, "password": password})
}

#[tokio::test]
async fn somebody_signs_up_out_and_in_again() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let me = ada.get("/api/me").await;
    assert_eq!(me.json["user"]["email"], "ada@example.org");
    assert_eq!(me.json["orgs"], json!([]), "signing up joins nothing");

    assert_eq!(ada.post("/api/auth/sign-out", &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.get("/api/me").await.refusal(), (401, "unauthorized"));

    ada.csrf = None;
    let reply = ada.post("/api/auth/sign-in", &sign_in("ADA@example.org ", PASSWORD)).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(reply.json.get("token").is_none());
    assert_eq!(ada.get("/api/me").await.json["user"]["name"], "Ada");
}

#[tokio::test]
async fn signing_out_ends_the_session_itself_and_no_other() {
    let world = World::new().await;
    let mut here = world.person("Ada").await;
    let stolen = here.cookies.clone();
    let mut there = world.browser();
    there.post("/api/auth/sign-in", &sign_in("ada@example.org", PASSWORD)).await;
    here.post("/api/auth/sign-out", &json!({})).await;
    here.cookies = stolen;
    assert_eq!(here.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(there.get("/api/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_lasts_thirty_days() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    world.pass(SESSION_TTL - Duration::from_secs(1));
    assert_eq!(ada.get("/api/me").await.status, StatusCode::OK);
    world.pass(Duration::from_secs(1));
    assert_eq!(ada.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_sessions_cookie_is_kept_from_scripts_and_secure_where_the_site_is() {
    let world = World::new().await;
    let body = json!({"email": "a@b.c", "name": "A", "password": PASSWORD});
    let reply = world.browser().post("/api/auth/sign-up", &body).await;
    let cookie = reply.header("set-cookie");
    assert!(cookie.starts_with("convene_session="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"), "{cookie}");

    let url = Some("https://chat.example");
    let world = World::with(Setup { public_url: url, ..Setup::default() }).await;
    let mut browser = world.browser();
    browser.origin = url;
    let reply = browser.post("/api/auth/sign-up", &body).await;
    assert!(reply.header("set-cookie").ends_with("; Secure"), "{}", reply.header("set-cookie"));
}

#[tokio::test]
async fn tokens_and_passwords_are_in_no_file() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let token = ada.post("/api/tokens", &json!({"name": "x"})).await.json["token"].clone();
    let session = ada.cookies["convene_session"].clone();
    let files = world.stored().await;
    for secret in [PASSWORD, &session, token.as_str().unwrap()] {
        let found = files.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "{secret} is in the database");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_the_same() {
    let world = World::new().await;
    world.person("Ada").await;
    let mut browser = world.browser();
    let wrong = browser.post("/api/auth/sign-in", &sign_in("ada@example.org", "wrong one!")).await;
    let unknown = browser.post("/api/auth/sign-in", &sign_in("eve@example.org", PASSWORD)).await;
    assert_eq!(wrong.refusal(), (401, "unauthorized"));
    assert_eq!(wrong.json, unknown.json);
    assert!(browser.cookies.is_empty());
}

#[tokio::test]
async fn what_somebody_signs_up_with_is_checked_by_field() {
    let world = World::new().await;
    let mut browser = world.browser();
    for (email, name, password, field) in [
        ("nonsense", "Ada", PASSWORD, "email"),
        ("a@b.c", "  ", PASSWORD, "name"),
        ("a@b.c", "Ada", "short", "password"),
    ] {
        let body = json!({"email": email, "name": name, "password": password});
        let reply = browser.post("/api/auth/sign-up", &body).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"));
        assert_eq!(reply.json["field"], field);
    }
    for (count, status) in [
        (MIN_PASSWORD_CHARS - 1, 422),
        (MIN_PASSWORD_CHARS, 201),
        (MAX_PASSWORD_CHARS, 201),
        (MAX_PASSWORD_CHARS + 1, 422),
    ] {
        let email = format!("p{count}@example.org");
        let body = json!({"email": email, "name": "P", "password": "x".repeat(count)});
        let reply = world.browser().post("/api/auth/sign-up", &body).await;
        assert_eq!(reply.status.as_u16(), status, "{count} characters");
    }
    let body = json!({"email": "a@b.c", "name": "Ada", "password": PASSWORD, "admin": true});
    assert_eq!(browser.post("/api/auth/sign-up", &body).await.refusal(), (400, "invalid_request"));
}

#[tokio::test]
async fn a_mail_address_has_one_account() {
    let world = World::new().await;
    world.person("Ada").await;
    let body = json!({"email": "Ada@Example.org", "name": "Other", "password": PASSWORD});
    let reply = world.browser().post("/api/auth/sign-up", &body).await;
    assert_eq!(reply.refusal(), (409, "already_exists"));
    assert_eq!(reply.json["field"], "email");
    assert_eq!(world.rows("users").await, 1);
}

#[tokio::test]
async fn wrong_passwords_for_one_address_are_counted_wherever_they_come_from() {
    let world = World::new().await;
    world.person("Ada").await;
    let mut browser = world.browser();
    for n in 0..SIGN_INS_PER_EMAIL {
        browser.address = [198, 51, 100, n as u8];
        let reply = browser.post("/api/auth/sign-in", &sign_in("ada@example.org", "wrong!")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    browser.address = [203, 0, 113, 1];
    let reply = browser.post("/api/auth/sign-in", &sign_in("Ada@example.org", PASSWORD)).await;
    assert_eq!(reply.refusal(), (429, "rate_limited"), "also with the right password");
    assert_eq!(reply.header("retry-after"), SIGN_IN_WINDOW.as_secs().to_string());
    world.pass(SIGN_IN_WINDOW);
    let reply = browser.post("/api/auth/sign-in", &sign_in("ada@example.org", PASSWORD)).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn a_right_password_forgives_the_wrong_ones_before_it() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for _ in 0..2 {
        for _ in 0..SIGN_INS_PER_EMAIL - 1 {
            ada.post("/api/auth/sign-in", &sign_in("ada@example.org", "wrong!")).await;
        }
        let reply = ada.post("/api/auth/sign-in", &sign_in("ada@example.org", PASSWORD)).await;
        assert_eq!(reply.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn attempts_from_one_client_are_counted_whatever_the_address() {
    let world = World::new().await;
    let mut browser = world.browser();
    for n in 0..SIGN_INS_PER_ADDRESS {
        let reply = browser.post("/api/auth/sign-in", &sign_in(&format!("u{n}@x"), "wrong!")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    let reply = browser.post("/api/auth/sign-in", &sign_in("another@x", "wrong!")).await;
    assert_eq!(reply.refusal(), (429, "rate_limited"));
    browser.address = [203, 0, 113, 1];
    let reply = browser.post("/api/auth/sign-in", &sign_in("another@x", "wrong!")).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn accounts_made_from_one_client_are_counted() {
    let world = World::new().await;
    let body = |n| json!({"email": format!("u{n}@x"), "name": "U", "password": PASSWORD});
    for n in 0..SIGN_UPS_PER_ADDRESS {
        let reply = world.browser().post("/api/auth/sign-up", &body(n)).await;
        assert_eq!(reply.status, StatusCode::CREATED);
    }
    let reply = world.browser().post("/api/auth/sign-up", &body(999)).await;
    assert_eq!(reply.refusal(), (429, "rate_limited"));
    assert_eq!(world.rows("users").await, u64::from(SIGN_UPS_PER_ADDRESS));
}

#[tokio::test]
async fn a_forwarded_address_counts_only_behind_a_trusted_proxy() {
    let setup = Setup { trusted_proxies: vec!["10.0.0.0/8"], ..Setup::default() };
    let world = World::with(setup).await;
    let mut browser = world.browser();
    for (peer, refused_at_last) in [([192, 0, 2, 9], true), ([10, 0, 0, 1], false)] {
        browser.address = peer;
        let mut last = StatusCode::OK;
        for n in 0..=SIGN_INS_PER_ADDRESS {
            let forwarded = format!("198.51.100.{n}");
            browser.extra = vec![("x-forwarded-for".parse().unwrap(), forwarded.parse().unwrap())];
            let body = sign_in(&format!("f{n}-{}@x", peer[0]), "wrong!");
            last = browser.post("/api/auth/sign-in", &body).await.status;
        }
        assert_eq!(last == StatusCode::TOO_MANY_REQUESTS, refused_at_last, "{peer:?}");
    }
}

#[tokio::test]
async fn a_program_signs_in_for_a_bearer_token_and_needs_no_cookie_or_csrf() {
    let world = World::new().await;
    world.person("Ada").await;
    let mut program = world.browser();
    program.origin = None;
    let body = json!({"email": "ada@example.org", "password": PASSWORD, "bearer": true});
    let reply = program.post("/api/auth/sign-in", &body).await;
    let token = reply.json["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("cvt_"));
    program.cookies.clear();
    program.bearer = Some(token);
    let org = program.org("Works").await;
    assert_eq!(program.get(&format!("/api/orgs/{org}/members")).await.status, StatusCode::OK);
    let out = program.post("/api/auth/sign-out", &json!({})).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(program.get("/api/me").await.refusal(), (401, "unauthorized"));
}

#[tokio::test]
async fn tokens_are_made_listed_used_and_deleted_by_their_owner() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut eve = world.person("Eve").await;
    let made = ada.post("/api/tokens", &json!({"name": "nightly"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let id = made.json["token_id"].as_str().unwrap().to_owned();
    let secret = made.json["token"].as_str().unwrap().to_owned();

    let list = ada.get("/api/tokens").await;
    assert_eq!(list.json[0]["name"], "nightly");
    assert!(list.json[0]["last_used_at"].is_null());
    assert!(!list.text.contains(&secret));
    assert_eq!(eve.get("/api/tokens").await.json, json!([]));

    let mut program = world.browser();
    program.bearer = Some(secret);
    assert_eq!(program.get("/api/me").await.json["user"]["name"], "Ada");
    // It is written beside the request, a moment later.
    let mut list = ada.get("/api/tokens").await;
    while list.json[0]["last_used_at"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        list = ada.get("/api/tokens").await;
    }
    assert_eq!(list.json[0]["last_used_at"], world.now().millis());

    // What stays open with it uses it all the time.
    let request = program.request(Method::GET, "/api/events", None, Vec::new());
    let open = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    world.pass(Duration::from_secs(61));
    let later = world.now().millis();
    while ada.get("/api/tokens").await.json[0]["last_used_at"] != later {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(open);

    assert_eq!(eve.delete(&format!("/api/tokens/{id}")).await.refusal(), (404, "not_found"));
    let gone = ada.delete(&format!("/api/tokens/{id}")).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(program.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_wrong_bearer_is_refused_even_beside_a_good_cookie() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for bearer in ["", "cvt_", "cvt_nonsense", "nonsense"] {
        ada.bearer = Some(bearer.to_owned());
        assert_eq!(ada.get("/api/me").await.refusal(), (401, "unauthorized"), "{bearer:?}");
    }
}

#[tokio::test]
async fn a_person_makes_so_many_requests_a_minute_and_another_has_their_own() {
    let setup = Setup { requests_per_minute: Some(6), ..Setup::default() };
    let world = World::with(setup).await;
    // Signing up makes nobody's request; learning the CSRF token is the first one.
    let mut ada = world.person("Ada").await;
    let mut made = 1;
    let refused = loop {
        let reply = ada.get("/api/me").await;
        if reply.status.as_u16() != 200 {
            break reply;
        }
        made += 1;
    };
    assert_eq!((made, refused.refusal()), (6, (429, "rate_limited")));
    assert_eq!(refused.json["retry_after_ms"], 10_000);
    assert_eq!(refused.header("retry-after"), "10");
    let mut ben = world.person("Ben").await;
    assert_eq!(ben.get("/api/me").await.status.as_u16(), 200);
    world.pass(Duration::from_secs(10));
    assert_eq!(ada.get("/api/me").await.status.as_u16(), 200);
    assert_eq!(ada.get("/api/me").await.refusal(), (429, "rate_limited"));
}
