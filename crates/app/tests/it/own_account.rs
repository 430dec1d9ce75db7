//! What people change about their own account, and where they are signed in.

use std::time::Instant;

use convene_app::{
    identity::limiter::{SIGN_IN_WINDOW, SIGN_INS_PER_EMAIL},
    validate::{MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    events::Events,
    support::{Client, PASSWORD, World},
};

const NEW: &str = "another horse battery";

async fn signed_in<'w>(world: &'w World, name: &str, password: &str) -> Client<'w> {
    let mut browser = world.browser();
    let email = format!("{name}@example.org");
    let body = json!({"email": email, "password": password});
    let reply = browser.post("/api/auth/sign-in", &body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    browser.learn_csrf().await;
    browser
}

async fn program<'w>(world: &'w World, name: &str) -> Client<'w> {
    let mut program = world.browser();
    let body =
        json!({"email": format!("{name}@example.org"), "password": PASSWORD, "bearer": true});
    let reply = program.post("/api/auth/sign-in", &body).await;
    assert!(program.cookies.is_empty(), "a program that has a token is given no session");
    program.bearer = Some(reply.json["token"].as_str().unwrap().to_owned());
    program
}

fn change(current: &str, new: &str) -> Value {
    json!({"current_password": current, "new_password": new})
}

async fn is_in(client: &mut Client<'_>) -> bool {
    client.get("/api/me").await.status == StatusCode::OK
}

#[tokio::test]
async fn another_name_is_told_to_whoever_shares_a_workspace_and_to_nobody_else() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let eve = world.person("Eve").await;
    let org = ada.org("Works").await;
    ada.bring(&org, &mut bob).await;
    let mut streams = Vec::new();
    for client in [&ada, &bob, &eve] {
        let mut events = Events::open(client).await;
        events.expect("groups").await;
        streams.push(events);
    }
    let second = world.second_app().await;
    let mut elsewhere = Events::open_on(&bob, second).await.unwrap();
    elsewhere.expect("groups").await;

    let reply = ada.patch("/api/me", &json!({"name": "  Ada Lovelace "})).await;
    assert_eq!((reply.status, &reply.json["name"]), (StatusCode::OK, &json!("Ada Lovelace")));
    let expected = json!({"user_id": ada.id, "name": "Ada Lovelace"});
    let mut eves = streams.pop().unwrap();
    for events in streams.iter_mut().chain([&mut elsewhere]) {
        assert_eq!(events.expect("person").await, expected);
    }
    let mut eve = eve;
    let org_of_eve = eve.org("Elsewhere").await;
    eve.group(&org_of_eve, "Hers", None).await;
    assert_eq!(eves.expect("group").await["title"], "Hers", "nothing was told before");

    let members = bob.get(&format!("/api/orgs/{org}/members")).await;
    assert_eq!(members.json[0]["name"], "Ada Lovelace");
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    assert_eq!(audit.json[0]["action"], "member.renamed");
    assert_eq!(audit.json[0]["subject"], *ada.id);
    assert_eq!(audit.json[0]["detail"], json!({"from": "Ada", "to": "Ada Lovelace"}));

    // The same name again is no change.
    let entries = audit.json.as_array().unwrap().len();
    ada.patch("/api/me", &json!({"name": "Ada Lovelace"})).await;
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    assert_eq!(audit.json.as_array().unwrap().len(), entries);
    for wrong in ["", "  ", "a\nb", &"x".repeat(61)] {
        let reply = ada.patch("/api/me", &json!({"name": wrong})).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"), "{wrong:?}");
        assert_eq!(reply.json["field"], "name");
    }
    let reply = ada.patch("/api/me", &json!({"name": "Eve", "email": "eve@example.org"})).await;
    assert_eq!(reply.refusal(), (400, "invalid_request"));
    assert_eq!(ada.get("/api/me").await.json["user"]["name"], "Ada Lovelace");
}

#[tokio::test]
async fn another_name_makes_what_runs_were_given_stale() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let version = async || -> i64 {
        let sql = "SELECT configuration FROM orgs WHERE org_id = $1";
        let statement = convene_db::Statement::new(sql, convene_db::params![&org]);
        world.db.query(statement).await.unwrap()[0].get("configuration").unwrap()
    };
    let before = version().await;
    ada.patch("/api/me", &json!({"name": "Ada Lovelace"})).await;
    assert_eq!(version().await, before + 1);
}

#[tokio::test]
async fn another_password_ends_every_other_session_and_no_token_that_was_made_by_hand() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let made = ada.post("/api/tokens", &json!({"name": "nightly"})).await;
    let mut nightly = world.browser();
    nightly.bearer = Some(made.json["token"].as_str().unwrap().to_owned());
    let mut elsewhere = signed_in(&world, "ada", PASSWORD).await;
    let mut chat = program(&world, "ada").await;
    let mut bob = world.person("Bob").await;
    let mut theirs = Events::open(&elsewhere).await;
    theirs.expect("groups").await;

    let reply = ada.put("/api/me/password", &change(PASSWORD, NEW)).await;
    assert_eq!((reply.status, &reply.json), (StatusCode::OK, &json!({"ended": 2})));
    theirs.ended().await;
    assert!(!is_in(&mut elsewhere).await && !is_in(&mut chat).await);
    assert!(is_in(&mut ada).await && is_in(&mut nightly).await && is_in(&mut bob).await);
    let mut browser = world.browser();
    let old = json!({"email": "ada@example.org", "password": PASSWORD});
    assert_eq!(browser.post("/api/auth/sign-in", &old).await.refusal(), (401, "unauthorized"));
    signed_in(&world, "ada", NEW).await;
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    assert_eq!(audit.json[0]["action"], "member.password_changed");
    assert_eq!(
        (&audit.json[0]["actor_id"], &audit.json[0]["subject"]),
        (&json!(ada.id), &json!(ada.id))
    );
    let files = world.stored().await;
    for secret in [PASSWORD, NEW] {
        assert!(!files.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
    }
}

#[tokio::test]
async fn whoever_signs_in_with_the_former_password_while_it_is_changed_is_not_let_in_for_good() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let sign_in = async |password: &str, bearer: bool| {
        let mut client = world.browser();
        let body = json!({"email": "ada@example.org", "password": password, "bearer": bearer});
        let reply = client.post("/api/auth/sign-in", &body).await;
        if bearer && reply.status == StatusCode::OK {
            client.bearer = Some(reply.json["token"].as_str().unwrap().to_owned());
        } else if reply.status != StatusCode::OK {
            assert_eq!(reply.refusal(), (401, "unauthorized"));
        }
        client
    };
    let began = Instant::now();
    sign_in(PASSWORD, false).await;
    let hashing = began.elapsed();
    for (former, next) in [(PASSWORD, NEW), (NEW, PASSWORD), (PASSWORD, NEW)] {
        // The change takes two hashes. Some of these are checked before it and are let in after it, others
        // the other way round.
        let body = change(former, next);
        let late = async |quarters: u32, bearer: bool| {
            tokio::time::sleep(hashing * quarters / 4).await;
            sign_in(former, bearer).await
        };
        let (changed, a, b, c, d, e) = tokio::join!(
            ada.put("/api/me/password", &body),
            late(2, false),
            late(4, true),
            late(5, false),
            late(6, true),
            late(7, false),
        );
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
        for mut client in [a, b, c, d, e] {
            assert!(!is_in(&mut client).await);
        }
        assert!(is_in(&mut ada).await);
    }
}

#[tokio::test]
async fn a_password_is_changed_only_by_whoever_knows_it_and_within_its_rule() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut elsewhere = signed_in(&world, "ada", PASSWORD).await;
    let org = ada.org("Works").await;
    let path = "/api/me/password";
    for (current, new, field) in [
        ("not the password", NEW, "current_password"),
        ("", NEW, "current_password"),
        (PASSWORD, PASSWORD, "new_password"),
        (PASSWORD, &"x".repeat(MIN_PASSWORD_CHARS - 1), "new_password"),
        (PASSWORD, &"x".repeat(MAX_PASSWORD_CHARS + 1), "new_password"),
    ] {
        let reply = ada.put(path, &change(current, new)).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"), "{current:?} {new:?}");
        assert_eq!(reply.json["field"], field, "{current:?} {new:?}");
    }
    // Nobody is led to change one, and nobody without a session is asked.
    let csrf = ada.csrf.take();
    assert_eq!(ada.put(path, &change(PASSWORD, NEW)).await.refusal(), (403, "bad_origin"));
    assert_eq!(ada.patch("/api/me", &json!({"name": "F"})).await.refusal(), (403, "bad_origin"));
    assert_eq!(ada.delete("/api/me/sessions").await.refusal(), (403, "bad_origin"));
    ada.csrf = csrf;
    let mut nobody = world.browser();
    assert_eq!(nobody.put(path, &change(PASSWORD, NEW)).await.refusal(), (401, "unauthorized"));
    assert!(is_in(&mut elsewhere).await, "what was refused ended nothing");
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    assert!(!audit.text.contains("password_changed"), "{}", audit.text);
    for (from, to) in [(PASSWORD, MIN_PASSWORD_CHARS), ("", MAX_PASSWORD_CHARS)] {
        let from = if from.is_empty() { "x".repeat(MIN_PASSWORD_CHARS) } else { from.to_owned() };
        let reply = ada.put(path, &change(&from, &"x".repeat(to))).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
}

#[tokio::test]
async fn a_wrong_current_password_counts_as_a_failed_sign_in() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    for n in 0..SIGN_INS_PER_EMAIL {
        ada.address = [198, 51, 100, n as u8];
        let reply = ada.put("/api/me/password", &change("a guess", NEW)).await;
        assert_eq!(reply.refusal(), (422, "validation_failed"));
    }
    let reply = ada.put("/api/me/password", &change(PASSWORD, NEW)).await;
    assert_eq!(reply.refusal(), (429, "rate_limited"), "also with the right one");
    let mut browser = world.browser();
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    assert_eq!(browser.post("/api/auth/sign-in", &body).await.refusal(), (429, "rate_limited"));
    world.pass(SIGN_IN_WINDOW);
    // A right one forgives the wrong ones before it.
    for _ in 0..2 {
        for _ in 0..SIGN_INS_PER_EMAIL - 1 {
            ada.put("/api/me/password", &change("a guess", NEW)).await;
        }
        let reply = ada.put("/api/me/password", &change(PASSWORD, PASSWORD)).await;
        assert_eq!(reply.json["field"], "new_password", "{}", reply.text);
    }
}

#[tokio::test]
async fn a_person_sees_where_they_are_signed_in_and_signs_out_in_one_place_or_all_others() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Safari/604.1";
    let mut phone = world.browser();
    phone.extra = vec![("user-agent".parse().unwrap(), agent.parse().unwrap())];
    let began = world.now().millis();
    world.pass(std::time::Duration::from_secs(60));
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    phone.post("/api/auth/sign-in", &body).await;
    let mut chat = program(&world, "ada").await;
    ada.post("/api/tokens", &json!({"name": "nightly"})).await;
    let mut bob = world.person("Bob").await;

    let list = ada.get("/api/me/sessions").await.json;
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 3, "{list:?}");
    assert_eq!(list[0]["is_current"], true);
    assert_eq!(list[0]["created_at"], began);
    let one = |what: &str, value: Value| {
        list.iter().find(|session| session[what] == value).unwrap()["session_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (of_phone, of_chat) =
        (one("device", json!("Safari on iPhone")), one("is_program", json!(true)));
    let seen = chat.get("/api/me/sessions").await.json;
    assert_eq!((&seen[0]["is_current"], &seen[0]["is_program"]), (&json!(true), &json!(true)));
    let page = ada.get("/account").await;
    assert!(page.text.contains("Safari on iPhone") && page.text.contains("A program"));

    let path = |id: &str| format!("/api/me/sessions/{id}");
    assert_eq!(bob.delete(&path(&of_phone)).await.refusal(), (404, "not_found"));
    assert_eq!(bob.delete(&path(&of_chat)).await.refusal(), (404, "not_found"));
    assert!(is_in(&mut phone).await && is_in(&mut chat).await);
    assert_eq!(ada.delete(&path(&of_phone)).await.status, StatusCode::NO_CONTENT);
    assert!(!is_in(&mut phone).await && is_in(&mut chat).await);
    assert_eq!(ada.delete(&path(&of_chat)).await.status, StatusCode::NO_CONTENT);
    assert!(!is_in(&mut chat).await);
    assert_eq!(ada.delete(&path(&of_chat)).await.refusal(), (404, "not_found"));

    let mut chat = program(&world, "ada").await;
    let mut laptop = signed_in(&world, "ada", PASSWORD).await;
    assert_eq!(laptop.delete("/api/me/sessions").await.json, json!({"ended": 2}));
    assert!(is_in(&mut laptop).await);
    assert!(!is_in(&mut ada).await && !is_in(&mut chat).await);
    let tokens = laptop.get("/api/tokens").await.json;
    assert_eq!((&tokens[0]["name"], tokens.as_array().unwrap().len()), (&json!("nightly"), 1));
}

#[tokio::test]
async fn the_last_use_of_a_session_is_known_to_ten_minutes() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let began = world.now().millis();
    world.pass(std::time::Duration::from_secs(599));
    ada.get("/api/me").await;
    assert_eq!(ada.get("/api/me/sessions").await.json[0]["last_used_at"], began);
    world.pass(std::time::Duration::from_secs(1));
    let now = world.now().millis();
    ada.get("/api/me").await;
    // It is written beside the request, a moment later.
    while ada.get("/api/me/sessions").await.json[0]["last_used_at"] != now {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // A page that stays open uses it all the time.
    let request = ada.request(Method::GET, "/api/events", None, Vec::new());
    let open = tower::ServiceExt::oneshot(world.router.clone(), request).await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    world.pass(std::time::Duration::from_secs(601));
    let later = world.now().millis();
    let sql = "SELECT last_used_at FROM sessions";
    loop {
        let rows = world.db.query(convene_db::Statement::new(sql, vec![])).await.unwrap();
        if rows[0].get::<i64>("last_used_at").unwrap() == later as i64 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_page_of_ones_own_account_is_there_with_and_without_a_workspace() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let page = ada.get("/account").await;
    assert!(page.text.contains("At least 10 characters") && page.text.contains("ada@example.org"));
    let org = ada.org("Works").await;
    let page = ada.get(&format!("/o/{org}/account")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Works") && page.text.contains("Change the password"));
    let shell = ada.get(&format!("/o/{org}")).await;
    assert!(shell.text.contains(&format!("href=\"/o/{org}/account\"")));
    let mut eve = world.person("Eve").await;
    assert_eq!(eve.get(&format!("/o/{org}/account")).await.status, StatusCode::NOT_FOUND);
    let mut nobody = world.browser();
    assert_eq!(nobody.get("/account").await.header("location"), "/sign-in?next=%2Faccount");
}
