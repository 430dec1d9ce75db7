//! What a process says of itself.

use serde_json::Value;

use super::Target;
use crate::client::http_client;

pub(super) async fn every_door_says_that_it_lives_and_is_ready_and_publishes_keys(target: &Target) {
    let http = http_client();
    for door in [&target.app, &target.infra] {
        for path in ["/healthz", "/readyz"] {
            let answer = http.get(format!("{door}{path}")).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{door}{path}");
        }
        let jwks = http.get(format!("{door}/.well-known/jwks.json")).send().await;
        let jwks = jwks.expect("an answer").bytes().await.expect("a body");
        let jwks: Value = serde_json::from_slice(&jwks).expect("a key set is JSON");
        let key = &jwks["keys"][0];
        assert_eq!((&key["kty"], &key["crv"]), (&"OKP".into(), &"Ed25519".into()), "{door}");
        assert!(key["d"].is_null(), "{door} publishes no private key");
        let missing = http.get(format!("{door}/nothing/here")).send().await.expect("an answer");
        assert_eq!(missing.status(), 404, "{door}");
    }
    // What services ask each other is not at the door for people.
    let resolve = http.post(format!("{}/internal/resolve", target.app)).send().await;
    let status = resolve.expect("an answer").status().as_u16();
    assert!(status == 403 || status == 404, "{status}");
}
