//! Secrets: masked, granted, versioned, revealed on record, and sealed under keys that change.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use convene_app::secrets::{MasterKeys, master_key_id};
use convene_db::{Statement, params};
use http::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::{Client, Reply, Setup, World, fixed_keys};

const VALUE: &str = "ghp-plain-0123456789-do-not-show";

fn secrets(org: &str) -> String {
    format!("/api/orgs/{org}/secrets")
}

async fn secret(client: &mut Client<'_>, org: &str, body: Value) -> Value {
    let made = client.post(&secrets(org), &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    made.json
}

async fn workspace_secret(ada: &mut Client<'_>, org: &str) -> String {
    let body = json!({"scope": "workspace", "name": "TOKEN", "value": VALUE});
    let made = secret(ada, org, body).await;
    format!("{}/{}", secrets(org), made["secret_id"].as_str().unwrap())
}

async fn reveal(client: &mut Client<'_>, one: &str) -> Reply {
    client.post(&format!("{one}/reveal"), &json!({})).await
}

#[tokio::test]
async fn a_secret_is_listed_masked_and_lies_nowhere_in_the_open() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = workspace_secret(&mut ada, &org).await;
    let mut replies = vec![ada.get(&secrets(&org)).await, ada.get(&one).await];
    let listed = &replies[0].json[0];
    assert_eq!((&listed["name"], &listed["mask"]), (&json!("TOKEN"), &json!("••••••••")));
    assert_eq!((&listed["scope"], &listed["groups"]), (&json!("workspace"), &json!("all")));
    replies.push(ada.patch(&one, &json!({"note": "for the builds"})).await);
    replies.push(ada.patch(&one, &json!({"value": format!("{VALUE}2")})).await);
    replies.push(ada.get(&format!("/api/orgs/{org}/audit")).await);
    for reply in &replies {
        assert!(reply.status.is_success() && !reply.text.contains(VALUE), "{}", reply.text);
    }
    let files = world.stored().await;
    assert!(!files.windows(VALUE.len()).any(|bytes| bytes == VALUE.as_bytes()));
    assert!(files.windows(3).any(|bytes| bytes == b"v2."), "the sealed one lies there");
}

#[tokio::test]
async fn a_value_is_revealed_to_owners_and_admins_and_each_time_on_record() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let mut eve = world.person("Eve").await;
    let org = ada.org("Works").await;
    ada.bring(&org, &mut bob).await;
    let one = workspace_secret(&mut ada, &org).await;
    assert_eq!(reveal(&mut bob, &one).await.refusal(), (404, "not_found"));
    assert_eq!(reveal(&mut eve, &one).await.refusal(), (404, "not_found"));
    assert_eq!(bob.get(&secrets(&org)).await.json, json!([]));
    let promote = json!({"role": "admin"});
    ada.patch(&format!("/api/orgs/{org}/members/{}", bob.id), &promote).await;
    let shown = reveal(&mut bob, &one).await;
    assert_eq!(shown.json, json!({"value": VALUE}));
    assert_eq!(shown.header("cache-control"), "no-store");
    let audit = ada.get(&format!("/api/orgs/{org}/audit")).await;
    let entry = &audit.json[0];
    assert_eq!(entry["action"], "secret.revealed");
    assert_eq!(entry["actor_id"], bob.id);
    assert_eq!(entry["detail"], json!({"name": "TOKEN", "version": 1}));
    let revealed = |audit: &Reply| audit.text.matches("secret.revealed").count();
    assert_eq!(revealed(&audit), 1, "what was refused is no reveal");
}

#[tokio::test]
async fn another_value_is_another_version_and_former_ones_come_back() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = workspace_secret(&mut ada, &org).await;
    for n in 2..=12 {
        let changed = ada.patch(&one, &json!({"value": format!("value {n}")})).await;
        assert_eq!(changed.json["version"], n, "{}", changed.text);
    }
    let versions = ada.get(&one).await;
    let versions: Vec<_> = versions.json["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_u64())
        .collect();
    assert_eq!(versions.len(), 10, "the oldest are gone");
    assert_eq!((versions[0], versions[9]), (Some(12), Some(3)));
    let former = ada.post(&format!("{one}/reveal"), &json!({"version": 3})).await;
    assert_eq!(former.json["value"], "value 3");
    let gone = ada.post(&format!("{one}/reveal"), &json!({"version": 2})).await;
    assert_eq!(gone.refusal(), (404, "not_found"));
    let back = ada.patch(&one, &json!({"restore_version": 3})).await;
    assert_eq!(back.json["version"], 13);
    assert_eq!(reveal(&mut ada, &one).await.json["value"], "value 3");
    let both = ada.patch(&one, &json!({"restore_version": 4, "value": "x"})).await;
    assert_eq!(both.json["field"], "restore_version");
    let noted = ada.patch(&one, &json!({"note": "n"})).await;
    assert_eq!(noted.json["version"], 13, "a note is no other value");
}

#[tokio::test]
async fn a_personal_secret_is_its_owners_alone_and_goes_with_them() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let org = ada.org("Works").await;
    ada.bring(&org, &mut bob).await;
    let body = json!({"scope": "personal", "name": "TOKEN", "value": VALUE});
    let made = secret(&mut bob, &org, body.clone()).await;
    assert_eq!(made["user_id"], bob.id);
    let one = format!("{}/{}", secrets(&org), made["secret_id"].as_str().unwrap());
    assert_eq!(reveal(&mut bob, &one).await.json["value"], VALUE);
    assert_eq!(ada.get(&secrets(&org)).await.json, json!([]), "not even its name");
    assert_eq!(reveal(&mut ada, &one).await.refusal(), (404, "not_found"));
    assert_eq!(ada.delete(&one).await.refusal(), (404, "not_found"));
    secret(&mut ada, &org, body).await;
    let of_workspace = json!({"scope": "workspace", "name": "X", "value": "x"});
    assert_eq!(bob.post(&secrets(&org), &of_workspace).await.refusal(), (403, "forbidden"));
    ada.delete(&format!("/api/orgs/{org}/members/{}", bob.id)).await;
    assert_eq!(world.rows("secrets").await, 1, "only Ada's is left");
    assert_eq!(world.rows("secret_versions").await, 1);
}

#[tokio::test]
async fn an_agents_secret_needs_the_agent_and_goes_with_it() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let agents = ada.get(&format!("/api/orgs/{org}/agents")).await;
    let agent = agents.json[0]["agent_id"].as_str().unwrap().to_owned();
    let body =
        |agent: &str| json!({"scope": "agent", "agent_id": agent, "name": "T", "value": "v"});
    assert_eq!(ada.post(&secrets(&org), &body("a-none")).await.json["field"], "agent_id");
    let without = json!({"scope": "agent", "name": "T", "value": "v"});
    assert_eq!(ada.post(&secrets(&org), &without).await.json["field"], "agent_id");
    let made = secret(&mut ada, &org, body(&agent)).await;
    assert_eq!(made["agent_id"], agent);
    assert_eq!(ada.post(&secrets(&org), &body(&agent)).await.refusal(), (409, "already_exists"));
    ada.delete(&format!("/api/orgs/{org}/agents/{agent}")).await;
    assert_eq!(world.rows("secrets").await, 0);
}

#[tokio::test]
async fn grants_name_groups_of_the_workspace() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let other = ada.org("Other").await;
    let (plans, theirs) =
        (ada.group(&org, "Plans", None).await, ada.group(&other, "Theirs", None).await);
    let one = workspace_secret(&mut ada, &org).await;
    let granted = ada.patch(&one, &json!({"groups": [plans, plans]})).await;
    assert_eq!(granted.json["groups"], json!([plans]));
    assert_eq!(ada.get(&one).await.json["groups"], json!([plans]));
    let foreign = ada.patch(&one, &json!({"groups": [theirs]})).await;
    assert_eq!((foreign.status.as_u16(), &foreign.json["field"]), (422, &json!("groups")));
    assert_eq!(ada.get(&one).await.json["groups"], json!([plans]), "nothing was changed");
    assert_eq!(ada.patch(&one, &json!({"groups": "all"})).await.json["groups"], "all");
    assert_eq!(world.rows("secret_grants").await, 0);
    let body = json!({"scope": "personal", "name": "P", "value": "v", "groups": [plans]});
    assert_eq!(ada.post(&secrets(&org), &body).await.json["field"], "groups");
}

#[tokio::test]
async fn a_secret_that_was_sealed_before_data_keys_is_carried_over() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let body = json!({"name": "Hub", "base_url": "https://models.example/v1", "api_key": "new"});
    let made = ada.post(&format!("/api/orgs/{org}/providers"), &body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    // The row as the first form left it.
    let row =
        world.db.query(Statement::new("SELECT secret_id FROM secrets", vec![])).await.unwrap();
    let id: String = row[0].get("secret_id").unwrap();
    let sealed = first_form(&[7; 32], &id, VALUE);
    let forget = Statement::new("DELETE FROM secret_versions", vec![]);
    let forget_keys = Statement::new("DELETE FROM data_keys", vec![]);
    let set = Statement::new("UPDATE secrets SET sealed = $1", params![&sealed]);
    world.db.batch(vec![forget, forget_keys, set]).await.unwrap();

    let lost = world.later_app(fixed_keys(&[9])).await;
    drop(lost);
    let kept = world.db.query(Statement::new("SELECT sealed FROM secrets", vec![])).await.unwrap();
    assert_eq!(kept[0].get::<String>("sealed").unwrap(), sealed, "another key changes nothing");

    world.later_app(fixed_keys(&[9, 7])).await;
    let kept = world.db.query(Statement::new("SELECT sealed FROM secrets", vec![])).await.unwrap();
    assert_eq!(kept[0].get::<String>("sealed").unwrap(), "");
    assert_eq!(world.rows("secret_versions").await, 1);
    world.later_app(fixed_keys(&[9, 7])).await;
    assert_eq!(world.rows("secret_versions").await, 1, "once");
}

/// A value as it was sealed when one key sealed everything.
fn first_form(master: &[u8; 32], id: &str, plain: &str) -> String {
    let key = blake3::derive_key("convene app secrets v1", master);
    let nonce = [5; 24];
    let payload = Payload { msg: plain.as_bytes(), aad: id.as_bytes() };
    let sealed =
        XChaCha20Poly1305::new(&key.into()).encrypt(&XNonce::from(nonce), payload).unwrap();
    format!("v1.{}", URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
}

/// A world whose master keys can be exchanged while it runs; they are `[7; 32]` at first.
async fn with_changing_keys() -> (World, Arc<Mutex<MasterKeys>>) {
    let keys = Arc::new(Mutex::new(MasterKeys::only(Zeroizing::new([7; 32]))));
    let source = Arc::clone(&keys);
    let reader = move || Ok(source.lock().unwrap().clone());
    let setup = Setup { master_keys: Some(Arc::new(reader)), ..Setup::default() };
    let world = World::with(setup).await;
    (world, keys)
}

#[tokio::test]
async fn a_running_app_follows_another_master_key_and_the_former_one_is_not_needed_for_long() {
    let (world, keys) = with_changing_keys().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = workspace_secret(&mut ada, &org).await;

    let changed = MasterKeys {
        retired: vec![Zeroizing::new([7; 32])],
        ..MasterKeys::only(Zeroizing::new([8; 32]))
    };
    *keys.lock().unwrap() = changed.clone();
    let settled = convene_app::secrets::settle(&world.db, &changed, world.now()).await.unwrap();
    assert_eq!((settled.rewrapped, settled.unreadable), (1, 0));
    assert_eq!(reveal(&mut ada, &one).await.json["value"], VALUE, "without a restart");

    *keys.lock().unwrap() = MasterKeys::only(Zeroizing::new([8; 32]));
    assert_eq!(reveal(&mut ada, &one).await.json["value"], VALUE);
    let row =
        world.db.query(Statement::new("SELECT master_id FROM data_keys", vec![])).await.unwrap();
    assert_eq!(row[0].get::<String>("master_id").unwrap(), master_key_id(&[8; 32]));
    let lost = MasterKeys::only(Zeroizing::new([6; 32]));
    let settled = convene_app::secrets::settle(&world.db, &lost, world.now()).await.unwrap();
    assert_eq!((settled.rewrapped, settled.unreadable), (0, 1), "and another one opens nothing");
}

#[tokio::test]
async fn an_organization_brings_a_key_of_its_own_changes_it_and_takes_it_away() {
    let (world, keys) = with_changing_keys().await;
    let mut ada = world.person("Ada").await;
    let (works, other) = (ada.org("Works").await, ada.org("Other").await);
    let (one, others) =
        (workspace_secret(&mut ada, &works).await, workspace_secret(&mut ada, &other).await);
    let wrapped_by = async |org: &str| {
        let select = "SELECT master_id FROM data_keys WHERE org_id = $1";
        let params = vec![org.to_owned().into()];
        let rows = world.db.query(Statement::new(select, params)).await.unwrap();
        rows[0].get::<String>("master_id").unwrap()
    };
    let settle = async || {
        let keys = keys.lock().unwrap().clone();
        convene_app::secrets::settle(&world.db, &keys, world.now()).await.unwrap()
    };
    let change = |own: Option<u8>, retired: &[u8]| {
        let own = own.map(|byte| (works.parse().unwrap(), Zeroizing::new([byte; 32])));
        let retired = retired.iter().map(|byte| Zeroizing::new([*byte; 32])).collect();
        let all = MasterKeys::only(Zeroizing::new([7; 32]));
        *keys.lock().unwrap() = MasterKeys { own: own.into_iter().collect(), retired, ..all };
    };

    // What it has goes under its own key; others stay where they are.
    change(Some(1), &[]);
    assert_eq!(settle().await.rewrapped, 1);
    assert_eq!(wrapped_by(&works).await, master_key_id(&[1; 32]));
    assert_eq!(wrapped_by(&other).await, master_key_id(&[7; 32]));
    assert_eq!(reveal(&mut ada, &one).await.json["value"], VALUE, "without a restart");

    // Another one takes its place, and the former one is not needed any more.
    change(Some(2), &[1]);
    assert_eq!(settle().await.rewrapped, 1);
    change(Some(2), &[]);
    assert_eq!(wrapped_by(&works).await, master_key_id(&[2; 32]));
    assert_eq!(reveal(&mut ada, &one).await.json["value"], VALUE);
    assert_eq!(
        ada.post(&format!("{}/rotate", secrets(&works)), &json!({})).await.json["resealed"],
        1
    );
    assert_eq!(wrapped_by(&works).await, master_key_id(&[2; 32]), "a new data key as well");

    // Without it nothing of that organization opens, and everything of the others does.
    change(None, &[]);
    assert_eq!(settle().await.unreadable, 1);
    assert_eq!(reveal(&mut ada, &others).await.json["value"], VALUE);
    // It goes back to the common key while its own is among the retired ones.
    change(None, &[2]);
    assert_eq!(settle().await.rewrapped, 1);
    assert_eq!(wrapped_by(&works).await, master_key_id(&[7; 32]));
    assert_eq!(reveal(&mut ada, &one).await.json["value"], VALUE);
}

#[tokio::test]
async fn another_data_key_seals_every_value_anew_and_the_former_one_is_forgotten() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let org = ada.org("Works").await;
    ada.bring(&org, &mut bob).await;
    let one = workspace_secret(&mut ada, &org).await;
    ada.patch(&one, &json!({"value": "second"})).await;
    let sealed = |rows: Vec<convene_db::Row>| -> Vec<String> {
        rows.iter().map(|row| row.get("sealed").unwrap()).collect()
    };
    let select = "SELECT sealed FROM secret_versions ORDER BY version";
    let before = sealed(world.db.query(Statement::new(select, vec![])).await.unwrap());
    let rotate = format!("{}/rotate", secrets(&org));
    assert_eq!(bob.post(&rotate, &json!({})).await.refusal(), (403, "forbidden"));
    assert_eq!(ada.post(&rotate, &json!({})).await.json, json!({"resealed": 2}));
    let after = sealed(world.db.query(Statement::new(select, vec![])).await.unwrap());
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    assert_eq!(world.rows("data_keys").await, 1);
    assert_eq!(reveal(&mut ada, &one).await.json["value"], "second");
    let former = ada.post(&format!("{one}/reveal"), &json!({"version": 1})).await;
    assert_eq!(former.json["value"], VALUE);
}

#[tokio::test]
async fn a_row_that_was_moved_over_another_one_does_not_open() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Works").await;
    let one = workspace_secret(&mut ada, &org).await;
    let other = json!({"scope": "workspace", "name": "OTHER", "value": "other"});
    secret(&mut ada, &org, other).await;
    let swap = "UPDATE secret_versions SET sealed = (SELECT v.sealed FROM secret_versions v
        JOIN secrets s ON s.secret_id = v.secret_id WHERE s.name = 'OTHER')";
    world.db.execute(Statement::new(swap, vec![])).await.unwrap();
    assert_eq!(reveal(&mut ada, &one).await.refusal(), (500, "internal"));
}
