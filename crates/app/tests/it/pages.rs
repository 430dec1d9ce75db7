//! Pages: forms without script, what they lead to, and what every answer carries.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{PASSWORD, World};

#[tokio::test]
async fn the_first_visitor_is_led_to_make_an_account_and_later_ones_to_sign_in() {
    let world = World::new().await;
    assert_eq!(world.browser().get("/").await.header("location"), "/sign-up");
    world.person("Ada").await;
    assert_eq!(world.browser().get("/").await.header("location"), "/sign-in");
}

#[tokio::test]
async fn a_person_comes_from_the_form_to_a_workspace_and_a_group() {
    let world = World::new().await;
    let mut browser = world.browser();
    let form = browser.get("/sign-up").await;
    assert_eq!(form.status, StatusCode::OK);
    let csrf = form.hidden("csrf").to_owned();
    let fields =
        [("csrf", &*csrf), ("email", "ada@example.org"), ("name", "Ada"), ("password", PASSWORD)];
    let reply = browser.form("/sign-up", &fields).await;
    assert_eq!((reply.status, reply.header("location")), (StatusCode::SEE_OTHER, "/"));
    assert!(!browser.cookies.contains_key("convene_form"));

    let start = browser.get("/").await;
    let csrf = start.hidden("csrf").to_owned();
    let reply = browser.form("/orgs", &[("csrf", &csrf), ("name", "Harbour Lab")]).await;
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    let workspace = reply.header("location").to_owned();
    let page = browser.get(&workspace).await;
    assert!(page.text.contains("Harbour Lab"));
    for tab in ["members", "agents", "providers", "tokens", "audit"] {
        let page = browser.get(&format!("{workspace}/settings/{tab}")).await;
        assert_eq!(page.status, StatusCode::OK, "{tab}");
    }

    browser.learn_csrf().await;
    let group = browser.group(workspace.strip_prefix("/o/").unwrap(), "Plans", None).await;
    let page = browser.get(&format!("/g/{group}")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Plans") && page.text.contains("Guide"));
    assert!(page.text.contains("\"page\":{\"messages\":[]"), "an empty page of history");

    let reply = browser.form("/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!((reply.status, reply.header("location")), (StatusCode::SEE_OTHER, "/sign-in"));
    let reply = browser.get(&format!("/g/{group}")).await;
    assert_eq!(reply.header("location"), format!("/sign-in?next=%2Fg%2F{group}"));
}

#[tokio::test]
async fn a_refused_form_comes_back_with_what_was_entered() {
    let world = World::new().await;
    let mut browser = world.browser();
    let csrf = browser.get("/sign-up").await.hidden("csrf").to_owned();
    let fields =
        [("csrf", &*csrf), ("email", "ada@example.org"), ("name", "A\"da"), ("password", "short")];
    let reply = browser.form("/sign-up", &fields).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(reply.text.contains("A password has 10 to 1000 characters."));
    assert!(reply.text.contains("ada@example.org") && !reply.text.contains("A\"da"));
    assert_eq!(reply.hidden("csrf"), csrf, "the form can be sent again");
    let fields = [("csrf", &*csrf), ("email", "eve@example.org"), ("password", "wrong")];
    let reply = browser.form("/sign-in", &fields).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(reply.text.contains("The mail address or the password is wrong."));
}

#[tokio::test]
async fn a_form_without_its_token_changes_nothing() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    ada.csrf = None;
    for token in [None, Some(""), Some("guessed")] {
        let mut fields = vec![("name", "Forged")];
        fields.extend(token.map(|token| ("csrf", token)));
        let reply = ada.form("/orgs", &fields).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN);
        assert!(reply.header("content-type").starts_with("text/html"));
    }
    assert_eq!(world.rows("orgs").await, 0);
    let reply = ada.form("/sign-out", &[]).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(ada.get("/api/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn signing_in_leads_on_to_where_one_was_going_on_this_site_only() {
    let world = World::new().await;
    world.person("Ada").await;
    for (next, expected) in
        [("/g/abc", "/g/abc"), ("//evil.test", "/"), ("https://evil.test", "/"), ("", "/")]
    {
        let mut browser = world.browser();
        let form = browser.get("/sign-in").await;
        let csrf = form.hidden("csrf").to_owned();
        let fields = [
            ("csrf", &*csrf),
            ("next", next),
            ("email", "ada@example.org"),
            ("password", PASSWORD),
        ];
        let reply = browser.form("/sign-in", &fields).await;
        assert_eq!(reply.header("location"), expected, "{next}");
    }
    let form = world.browser().get("/sign-in?next=/g/abc").await;
    assert_eq!(form.hidden("next"), "/g/abc");
}

#[tokio::test]
async fn somebody_new_follows_an_invite_through_the_sign_up_form() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Harbour Lab").await;
    let made = ada.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    let url = made.json["url"].as_str().unwrap();
    let path = url.strip_prefix("http://convene.test").unwrap().to_owned();
    let token = made.json["token"].as_str().unwrap().to_owned();

    let mut bob = world.browser();
    let page = bob.get(&path).await;
    assert!(page.text.contains("Join Harbour Lab") && page.text.contains("Ada"));
    let form = bob.get(&format!("/sign-up?next={path}&invite={token}")).await;
    assert_eq!(form.hidden("invite"), token);
    let csrf = form.hidden("csrf").to_owned();
    let fields = [
        ("csrf", &*csrf),
        ("invite", &*token),
        ("next", &*path),
        ("email", "bob@example.org"),
        ("name", "Bob"),
        ("password", PASSWORD),
    ];
    let reply = bob.form("/sign-up", &fields).await;
    assert_eq!(reply.header("location"), format!("/o/{org}"));
    assert_eq!(bob.get(&format!("/o/{org}")).await.status, StatusCode::OK);

    let gone = world.browser().get(&path).await;
    assert_eq!(gone.status, StatusCode::GONE);
    assert!(!gone.text.contains("Harbour Lab"), "a link that is used up tells nothing");
}

#[tokio::test]
async fn somebody_signed_in_accepts_an_invite_with_one_button() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let org = ada.org("Harbour Lab").await;
    let made = ada.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
    let path = format!("/invite/{}", made.json["token"].as_str().unwrap());
    let already = ada.get(&path).await;
    assert!(already.text.contains("You belong to Harbour Lab already"));
    let csrf = bob.get(&path).await.hidden("csrf").to_owned();
    let reply = bob.form(&path, &[("csrf", &csrf)]).await;
    assert_eq!(reply.header("location"), format!("/o/{org}"));
    assert_eq!(bob.get(&format!("/o/{org}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_does_not_exist_is_a_page_for_people_and_a_problem_for_programs() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for path in ["/nowhere", "/g/nowhere", "/o/nowhere", "/g/not%20an%20id"] {
        let page = ada.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(page.text.contains("There is nothing here"), "{path}");
    }
    for path in ["/api", "/api/nowhere", "/api/orgs/nowhere/members"] {
        let reply = ada.get(path).await;
        assert_eq!(reply.refusal(), (404, "not_found"), "{path}");
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
    let reply = ada.delete("/api/me").await;
    assert_eq!(reply.refusal(), (405, "method_not_allowed"));
    assert!(reply.header("allow").contains("GET"));
    let page = ada.get("/orgs").await;
    assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(world.browser().get("/internal/resolve").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_answer_is_guarded_by_its_headers() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for path in ["/", "/sign-in", "/nowhere", "/api/me", "/api/nowhere", "/healthz"] {
        let reply = ada.get(path).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
    assert!(ada.get("/").await.header("content-security-policy").contains("script-src 'self'"));
}

#[tokio::test]
async fn health_and_keys_are_open_to_everybody() {
    let world = World::new().await;
    let mut anybody = world.browser();
    assert_eq!(anybody.get("/healthz").await.text, "ok\n");
    let keys = anybody.get("/.well-known/jwks.json").await;
    assert_eq!(keys.json["keys"][0]["kid"], crate::support::key("app").kid());
    assert!(keys.json["keys"][0].get("d").is_none());
}

#[tokio::test]
async fn a_body_above_its_limit_is_refused() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let name = "x".repeat(convene_model::limits::MAX_BODY_BYTES);
    let reply = ada.post("/api/orgs", &json!({"name": name})).await;
    assert_eq!(reply.refusal(), (413, "too_large"));
    let body = vec![b'x'; convene_app::web::guard::MAX_FORM_BYTES + 1];
    let kind = Some("application/x-www-form-urlencoded");
    let reply = ada.send(Method::POST, "/orgs", kind, body).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.rows("orgs").await, 0);
}

#[tokio::test]
async fn the_page_of_an_outside_agent_says_whether_its_process_may_be_there() {
    let world = World::new().await;
    let mut ann = world.person("Ann").await;
    let org = ann.org("Works").await;
    let agents = format!("/api/orgs/{org}/agents");
    let body = json!({"name": "Lookout", "outside": true});
    let agent = ann.post(&agents, &body).await.json["agent_id"].as_str().unwrap().to_owned();
    let made = ann.post(&format!("{agents}/{agent}/tokens"), &json!({"name": "desk"})).await;
    let page = format!("/o/{org}/settings/agents/{agent}");
    assert!(ann.get(&page).await.text.contains("Not connected."));

    // Its socket may be at another App process, which notes that the token is in use.
    let mut process = world.browser();
    process.bearer = made.json["token"].as_str().map(str::to_owned);
    assert_eq!(process.get("/api/me").await.status, StatusCode::FORBIDDEN);
    while !ann.get(&page).await.text.contains("Here a moment ago.") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.pass(Duration::from_secs(121));
    assert!(ann.get(&page).await.text.contains("Not connected."));
}
