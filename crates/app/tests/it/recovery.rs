//! An operator gives somebody who is locked out a new password.

use convene_app::identity::recovery::{self, RecoveryError};
use http::StatusCode;
use serde_json::json;

use crate::support::{PASSWORD, World};

#[tokio::test]
async fn a_reset_changes_the_password_ends_everything_and_stands_in_the_audit() {
    let world = World::new().await;
    let mut ana = world.person("Ana").await;
    let org = ana.post("/api/orgs", &json!({"name": "Lighthouse"})).await;
    let org = org.json["org_id"].as_str().unwrap().to_owned();
    ana.post("/api/tokens", &json!({"name": "laptop"})).await;
    let mut ben = world.person("Ben").await;

    let reset =
        recovery::reset_password(&*world.db, " ANA@example.org", "a new password", world.now())
            .await
            .unwrap();
    assert_eq!((reset.user_id.as_str(), reset.sessions, reset.tokens), (&*ana.id, 1, 1));
    assert_eq!(ana.get("/api/me").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ben.get("/api/me").await.status, StatusCode::OK, "others stay signed in");

    let mut browser = world.browser();
    let mut sign_in = async |password: &str| {
        let body = json!({"email": "ana@example.org", "password": password});
        browser.post("/api/auth/sign-in", &body).await.status
    };
    assert_eq!(sign_in(PASSWORD).await, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in("a new password").await, StatusCode::OK);
    browser.learn_csrf().await;
    let audit = browser.get(&format!("/api/orgs/{org}/audit")).await;
    assert_eq!(audit.json[0]["action"], "member.password_reset", "{}", audit.text);
    assert_eq!(audit.json[0]["actor_id"], recovery::OPERATOR);
    assert_eq!(audit.json[0]["subject"], *ana.id);
    assert!(!audit.text.contains("a new password"));
}

#[tokio::test]
async fn a_reset_that_is_refused_changes_nothing() {
    let world = World::new().await;
    let mut ana = world.person("Ana").await;
    let reset = async |email: &str, password: &str| {
        recovery::reset_password(&*world.db, email, password, world.now()).await.unwrap_err()
    };
    let unknown = reset("nobody@example.org", "a new password").await;
    assert!(matches!(unknown, RecoveryError::NoAccount(_)), "{unknown}");
    let short = reset("ana@example.org", "short").await;
    assert!(matches!(short, RecoveryError::Password(_)), "{short}");
    assert_eq!(ana.get("/api/me").await.status, StatusCode::OK);
    let body = json!({"email": "ana@example.org", "password": PASSWORD});
    assert_eq!(world.browser().post("/api/auth/sign-in", &body).await.status, StatusCode::OK);
}

#[tokio::test]
async fn accounts_are_listed_with_their_workspaces() {
    let world = World::new().await;
    world.person("Ben").await;
    let mut ana = world.person("Ana").await;
    ana.post("/api/orgs", &json!({"name": "Lighthouse"})).await;
    let accounts = recovery::accounts(&*world.db).await.unwrap();
    let shown: Vec<_> = accounts.iter().map(|a| (&*a.email, &*a.name, a.orgs.len())).collect();
    assert_eq!(shown, [("ana@example.org", "Ana", 1), ("ben@example.org", "Ben", 0)]);
    assert_eq!(accounts[0].orgs[0], ("Lighthouse".to_owned(), "owner".to_owned()));
}
