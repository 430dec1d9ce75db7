//! `POST /infra/groups/{id}/adopt`: a group moves from one Orchestrator to another with its snapshot.

use std::sync::Arc;

use convene_model::keys::SigningKey;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde_json::{Value, json};

use crate::world::World;

/// What another Orchestrator has signed: its keys, and the store with its snapshot of `g1` of `o1`.
async fn moved() -> (Value, Arc<dyn ObjectStore>) {
    let world = World::with_messages(3).await;
    world.archive("g1").await.expect_status(200);
    world.settled().await;
    let foreign = SigningKey::from_seed("orchestrator", &[77; 32]);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for path in world.files().await {
        let path = Path::from(path);
        let mut bytes = world.archives.get(&path).await.unwrap().bytes().await.unwrap();
        if path.as_ref().ends_with(".manifest.json") {
            let manifest: convene_model::archive::Manifest =
                serde_json::from_slice(&bytes).unwrap();
            bytes = manifest.sign(&foreign).to_bytes().into();
        }
        store.put(&path, bytes.into()).await.unwrap();
    }
    (serde_json::to_value(foreign.jwks()).unwrap(), store)
}

/// What the manifests in the store are.
async fn manifests(world: &World) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for path in world.files().await.iter().filter(|path| path.ends_with(".manifest.json")) {
        let file = world.archives.get(&Path::from(path.as_str())).await.unwrap();
        found.push(file.bytes().await.unwrap().to_vec());
    }
    found
}

async fn adopt(world: &World, body: &Value) -> crate::world::Answer {
    world.ask("POST", "/infra/groups/g1/adopt").json(body).send().await
}

#[tokio::test]
async fn a_group_from_elsewhere_is_archived_here_read_and_brought_to_life() {
    let (jwks, store) = moved().await;
    let world = World::with_store(store).await;
    adopt(&world, &json!({})).await.expect_problem(409, "snapshot_corrupt");
    world.ask("GET", "/infra/groups/g1").send().await.expect_problem(404, "group_not_found");
    let body = json!({"jwks": jwks});
    let record = adopt(&world, &body).await.expect_status(200).body;
    assert_eq!((&record["group_status"], &record["org_id"]), (&json!("archived"), &json!("o1")));
    assert_eq!(world.active("o1").await, 0, "an archived group takes no place");
    assert_eq!(world.life("g1").await, ["inactive>archived"]);
    // From here on it has this Orchestrator's own signature.
    let token = world.routing_token("g1", "u1").await;
    let page = world.ask("GET", "/groups/g1/history").header("x-routing-token", &token);
    let page = page.send().await.expect_status(200).body;
    assert_eq!(page["messages"].as_array().unwrap().len(), 3);
    let restored = world.restore("g1").await.expect_status(200).body;
    assert_eq!((&restored["status"], &restored["epoch"]), (&json!("active"), &json!(2)));
    assert_eq!(world.active("o1").await, 1);
    let again = adopt(&world, &body).await.expect_problem(409, "illegal_transition");
    assert_eq!(again.body["group_status"], "active");
    world.delete("g1").await.expect_status(204);
    adopt(&world, &body).await.expect_problem(410, "group_deleted");
}

#[tokio::test]
async fn an_adoption_needs_an_operator_the_right_keys_and_an_organization_that_is_free() {
    let (jwks, store) = moved().await;
    let world = World::with_store(store).await;
    let body = json!({"jwks": jwks});
    let by_portal = world.ask("POST", "/infra/groups/g1/adopt").by(&world.portal).json(&body);
    by_portal.send().await.expect_problem(403, "forbidden");
    let other = SigningKey::from_seed("orchestrator", &[78; 32]);
    let others = json!({"jwks": other.jwks()});
    adopt(&world, &others).await.expect_problem(409, "snapshot_corrupt");
    let unknown = json!({"jwks": jwks, "owner": "nobody"});
    adopt(&world, &unknown).await.expect_problem(422, "validation_failed");
    let snapshot = json!({"jwks": jwks, "snapshot_id": "0".repeat(64)});
    adopt(&world, &snapshot).await.expect_problem(409, "snapshot_corrupt");
    // The organization is our own App's by now.
    world.activate("g2", "o1").await.expect_status(200);
    let portals = json!({"jwks": jwks, "owner": "portal"});
    let before = manifests(&world).await;
    adopt(&world, &portals).await.expect_problem(409, "org_mismatch");
    assert_eq!(manifests(&world).await, before, "what is refused changes nothing in the store");
    assert_eq!(adopt(&world, &body).await.expect_status(200).body["group_status"], "archived");
    assert_eq!(world.active("o1").await, 1, "the count is that of the groups in service");
}
