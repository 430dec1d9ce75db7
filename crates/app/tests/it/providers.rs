//! Providers and their keys: a key goes in and never comes out.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, Reply, World};

const KEY: &str = "sk-live-0123456789abcdef-do-not-show";

async fn provider(ada: &mut Client<'_>, org: &str) -> String {
    let body = json!({"name": "Hub", "base_url": "https://models.example/v1/", "api_key": KEY});
    let made = ada.post(&format!("/api/orgs/{org}/providers"), &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.json["has_key"], true);
    assert_eq!(made.json["base_url"], "https://models.example/v1");
    format!("/api/orgs/{org}/providers/{}", made.json["provider_id"].as_str().unwrap())
}

#[tokio::test]
async fn a_key_is_in_no_answer_and_in_no_file() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = provider(&mut ada, &org).await;
    let mut replies: Vec<Reply> = Vec::new();
    for path in [
        format!("/api/orgs/{org}/providers"),
        format!("/api/orgs/{org}/agents"),
        format!("/api/orgs/{org}/audit"),
        format!("/o/{org}/settings/providers"),
        format!("/o/{org}/settings/agents"),
        "/api/me".to_owned(),
    ] {
        replies.push(ada.get(&path).await);
    }
    replies.push(ada.patch(&one, &json!({"name": "Other"})).await);
    replies.push(ada.patch(&one, &json!({"api_key": format!("{KEY}2")})).await);
    let wrong = json!({"name": "X", "base_url": "nonsense", "api_key": KEY});
    replies.push(ada.post(&format!("/api/orgs/{org}/providers"), &wrong).await);
    for reply in &replies {
        assert!(!reply.text.contains(KEY), "{}", reply.text);
        assert!(!reply.text.contains("sealed") && !reply.text.contains("secret_id"));
    }
    let files = world.stored().await;
    for form in [KEY.as_bytes(), &*hex(KEY).into_bytes(), &*base64(KEY).into_bytes()] {
        assert!(!files.windows(form.len()).any(|bytes| bytes == form), "a key lies on disk");
    }
    assert!(files.windows(3).any(|bytes| bytes == b"v2."), "the sealed one does");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
    STANDARD_NO_PAD.encode(text)
}

#[tokio::test]
async fn a_key_is_replaced_kept_or_taken_away() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = provider(&mut ada, &org).await;
    let kept = ada.patch(&one, &json!({"name": "Other"})).await;
    assert_eq!((&kept.json["name"], &kept.json["has_key"]), (&json!("Other"), &json!(true)));
    ada.patch(&one, &json!({"api_key": "another"})).await;
    assert_eq!(world.rows("secrets").await, 1, "the former one is erased");
    let gone = ada.patch(&one, &json!({"api_key": null})).await;
    assert_eq!(gone.json["has_key"], false);
    assert_eq!(world.rows("secrets").await, 0);
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    let actions: Vec<_> =
        audit.json.as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "provider.changed",
            "provider.secret_removed",
            "provider.changed",
            "provider.secret_set",
            "provider.changed",
            "provider.made",
            "provider.secret_set"
        ]
    );
}

#[tokio::test]
async fn a_key_does_not_follow_to_another_site() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = provider(&mut ada, &org).await;
    for url in
        ["https://evil.example/v1", "http://models.example/v1", "https://models.example:8443/v1"]
    {
        let reply = ada.patch(&one, &json!({"base_url": url})).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"), "{url}");
        assert_eq!(reply.json["field"], "api_key");
    }
    let reply = ada.patch(&one, &json!({"base_url": "https://models.example/v2"})).await;
    assert_eq!((reply.status, &reply.json["has_key"]), (StatusCode::OK, &json!(true)));
    let moved = json!({"base_url": "https://evil.example/v1", "api_key": "theirs"});
    assert_eq!(ada.patch(&one, &moved).await.status, StatusCode::OK);
    let moved = json!({"base_url": "http://localhost/v1", "api_key": null});
    assert_eq!(ada.patch(&one, &moved).await.json["has_key"], false);
}

#[tokio::test]
async fn a_deleted_provider_takes_its_key_along() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = provider(&mut ada, &org).await;
    assert_eq!(ada.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.rows("secrets").await, 0);
    assert_eq!(ada.delete(&one).await.refusal(), (404, "not_found"));
    assert_eq!(ada.patch(&one, &json!({"name": "X"})).await.refusal(), (404, "not_found"));
}

#[tokio::test]
async fn a_provider_of_another_workspace_does_not_exist() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut eve = world.person("Eve").await;
    let org = ada.org("Works").await;
    let theirs = eve.org("Evil").await;
    let one = provider(&mut ada, &org).await;
    let id = one.rsplit('/').next().unwrap();
    let path = format!("/api/orgs/{theirs}/providers/{id}");
    assert_eq!(eve.patch(&path, &json!({"name": "Mine"})).await.refusal(), (404, "not_found"));
    assert_eq!(eve.delete(&path).await.refusal(), (404, "not_found"));
    let agent = json!({"name": "Thief", "provider_id": id, "model": "m"});
    let reply = eve.post(&format!("/api/orgs/{theirs}/agents"), &agent).await;
    assert_eq!(reply.json["field"], "provider_id");
}

#[tokio::test]
async fn names_are_told_apart_and_values_are_checked_by_field() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    provider(&mut ada, &org).await;
    let path = format!("/api/orgs/{org}/providers");
    let url = "http://localhost/v1";
    for (body, status, field) in [
        (json!({"name": "HUB", "base_url": url}), 409, "name"),
        (json!({"name": " ", "base_url": url}), 422, "name"),
        (json!({"name": "A", "base_url": "ftp://x"}), 422, "base_url"),
        (json!({"name": "A", "base_url": url, "api_key": ""}), 422, "api_key"),
        (json!({"name": "A", "base_url": url, "api_key": "a b"}), 422, "api_key"),
    ] {
        let reply = ada.post(&path, &body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json["field"]),
            (status, &json!(field)),
            "{body}"
        );
    }
    let plain = ada.post(&path, &json!({"name": "Desk", "base_url": url, "api_key": null})).await;
    assert_eq!(plain.json["has_key"], false);
    let second = ada.post(&path, &json!({"name": "Second", "base_url": url})).await;
    let one = format!("{path}/{}", second.json["provider_id"].as_str().unwrap());
    assert_eq!(ada.patch(&one, &json!({"name": "desk"})).await.refusal(), (409, "already_exists"));
}

#[tokio::test]
async fn an_agent_with_a_provider_names_a_model_and_without_one_needs_none() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = provider(&mut ada, &org).await;
    let id = one.rsplit('/').next().unwrap();
    let path = format!("/api/orgs/{org}/agents");
    let reply = ada.post(&path, &json!({"name": "A", "provider_id": id})).await;
    assert_eq!(reply.json["field"], "model");
    let made = ada.post(&path, &json!({"name": "A", "provider_id": id, "model": "m-1"})).await;
    assert_eq!((&made.json["provider_id"], &made.json["model"]), (&json!(id), &json!("m-1")));
    let agent = format!("{path}/{}", made.json["agent_id"].as_str().unwrap());
    let demo = ada.patch(&agent, &json!({"provider_id": null})).await;
    assert_eq!((&demo.json["provider_id"], &demo.json["model"]), (&Value::Null, &json!("")));
    ada.patch(&agent, &json!({"provider_id": id, "model": "m-2"})).await;
    let refused = ada.delete(&one).await;
    assert_eq!(refused.refusal(), (409, "conflict"), "an agent uses it");
    assert_eq!(refused.json["users"], json!(["A"]));
    ada.delete(&agent).await;
    assert_eq!(ada.delete(&one).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_provider_is_of_one_of_three_kinds_and_knows_its_models() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/orgs/{org}/providers");
    let plain = ada.post(&path, &json!({"name": "P", "base_url": "http://localhost/v1"})).await;
    assert_eq!(plain.json["kind"], "openai_compatible");
    for (kind, home) in [
        ("anthropic", "https://api.anthropic.com"),
        ("gemini", "https://generativelanguage.googleapis.com"),
    ] {
        let keyless = ada.post(&path, &json!({"name": kind, "kind": kind})).await;
        assert_eq!(keyless.json["field"], "api_key", "{kind}");
        let body =
            json!({"name": kind, "kind": kind, "api_key": KEY, "models": ["m1", " m1 ", "m2"]});
        let made = ada.post(&path, &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        assert_eq!((&made.json["kind"], &made.json["base_url"]), (&json!(kind), &json!(home)));
        assert_eq!(made.json["models"], json!(["m1", "m2"]));
        let one = format!("{path}/{}", made.json["provider_id"].as_str().unwrap());
        let bare = ada.patch(&one, &json!({"api_key": null})).await;
        assert_eq!(bare.json["field"], "api_key", "{kind}");
        let changed = ada.patch(&one, &json!({"models": [], "version": 1})).await;
        assert_eq!((&changed.json["models"], &changed.json["version"]), (&json!([]), &json!(2)));
        let warm = ada.patch(&one, &json!({"options": {"temperature": 0.2}})).await;
        assert_eq!(warm.json["options"], json!({"temperature": 0.2}));
        let own = ada.patch(&one, &json!({"options": {"messages": []}})).await;
        assert_eq!(own.json["field"], "options");
        let stale = ada.patch(&one, &json!({"models": ["x"], "version": 1})).await;
        assert_eq!(stale.refusal(), (409, "conflict"));
    }
    let nowhere = ada.post(&path, &json!({"name": "N"})).await;
    assert_eq!(nowhere.json["field"], "base_url");
    let unknown = ada.post(&path, &json!({"name": "N", "kind": "other"})).await;
    assert_eq!(unknown.status.as_u16() / 100, 4, "{}", unknown.text);
}

#[tokio::test]
async fn a_provider_knows_what_its_models_cost_within_limits() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let path = format!("/api/orgs/{org}/providers");
    let prices = json!({
        "m1": {"input": 1_250_000, "cached_input": 125_000, "output": 10_000_000_000_u64},
        " m2 ": {"input": 0, "cache_write": 1, "output": 2},
    });
    let body = json!({"name": "P", "base_url": "http://localhost/v1", "prices": prices});
    let made = ada.post(&path, &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let kept = json!({"m1": prices["m1"], "m2": prices[" m2 "]});
    assert_eq!(made.json["prices"], kept);
    let one = format!("{path}/{}", made.json["provider_id"].as_str().unwrap());
    let renamed = ada.patch(&one, &json!({"name": "Q"})).await;
    assert_eq!((&renamed.json["prices"], &renamed.json["version"]), (&kept, &json!(2)));

    for wrong in [
        json!({"m": {"input": 10_000_000_001_u64, "output": 1}}),
        json!({"m": {"input": 1, "output": 1, "cached_input": 10_000_000_001_u64}}),
        json!({"": {"input": 1, "output": 1}}),
    ] {
        let refused = ada.patch(&one, &json!({"prices": wrong})).await;
        assert_eq!((refused.status.as_u16(), &refused.json["field"]), (422, &json!("prices")));
    }
    for wrong in [
        json!({"m": {"input": -1, "output": 1}}),
        json!({"m": {"input": 0.5, "output": 1}}),
        json!({"m": {"input": 1}}),
        json!({"m": {"input": 1, "output": 1, "currency": "EUR"}}),
    ] {
        let refused = ada.patch(&one, &json!({"prices": wrong})).await;
        assert_eq!(refused.status.as_u16() / 100, 4, "{}", refused.text);
    }
    let none = ada.patch(&one, &json!({"prices": {}})).await;
    assert_eq!((&none.json["prices"], &none.json["version"]), (&json!({}), &json!(3)));
}
