//! Both APIs are held to their OpenAPI documents by requests that nobody thought of: schemathesis,
//! with an outside app's key for the infra API and a bearer for the App's.

use std::{path::Path, process::Stdio};

use convene_testing::{browser::free_port, client::Person};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{examples, openapi};

/// Generated requests of each operation, in the suite and in its long form.
const EXAMPLES: &str = "4";
const MANY_EXAMPLES: &str = "80";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance";
/// A stream without an end, and what would end the caller's own credentials.
const LEFT_OUT: [&str; 2] = ["followGroups", "signOut"];

#[tokio::test]
async fn generated_requests_find_no_undocumented_answer() {
    check(EXAMPLES).await;
}

#[tokio::test]
async fn soak_many_generated_requests_find_no_undocumented_answer() {
    check(MANY_EXAMPLES).await;
}

async fn check(examples: &str) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("portal.key");
    let key = key.to_str().unwrap();
    let jwks = examples::run("outside_app.py", &["keygen", key]).await;
    let config = dir.path().join("convene.toml");
    let app = format!(
        "[[orchestrator.apps]]\nissuer = \"our-portal\"\nscope = \"operator\"\njwks = '{}'\n",
        jwks.trim()
    );
    std::fs::write(&config, app).unwrap();
    let infra = format!("127.0.0.1:{}", free_port());
    let launch = crate::convene(dir.path())
        .arg("--config")
        .arg(config.to_str().unwrap())
        .arg("--orchestrator-listen")
        .arg(&infra);
    let node = launch.start().await;
    let infra = format!("http://{infra}");
    // The portal's group is awake, and a routing token for it is at hand.
    examples::run("outside_app.py", &["run", key, "--infra", &infra]).await;
    let token = examples::run("outside_app.py", &["token", key, "--infra", &infra]).await;
    let contract = json!({
        "key": key, "issuer": "our-portal", "org_id": "portal-org",
        "routing_tokens": {"portal-group": token.trim()},
        "ids": {
            "org_id": ["portal-org"], "group_id": ["portal-group"], "user_id": ["ana", "ben"],
        },
    });
    run("infra", &infra, &contract, examples, dir.path()).await;

    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Plans").await;
    let posted = ana.post(&format!("/api/groups/{group}/messages"), json!({"text": "Hi"})).await;
    let (_, agents) = ana.get(&format!("/api/orgs/{org}/agents")).await;
    let contract = json!({
        "bearer": ana.token,
        "ids": {
            "org_id": [org], "group_id": [group], "user_id": [ben.user_id],
            "message_id": [posted["message_id"]], "agent_id": [agents[0]["agent_id"]],
        },
    });
    run("app", &node.url, &contract, examples, dir.path()).await;
    assert_eq!(node.stop().await, Some(0));
}

async fn run(api: &str, url: &str, contract: &Value, examples: &str, dir: &Path) {
    let document = dir.join(format!("{api}.json"));
    std::fs::write(&document, openapi::printed(api).await).unwrap();
    let folder = examples::example("contract_hooks.py");
    let folder = folder.parent().unwrap();
    let mut command = Command::new(examples::python());
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(&document)
        .args(["--url", url, "--checks", CHECKS, "--phases", "coverage,fuzzing"])
        .args(["--max-examples", examples, "--request-timeout", "30", "--no-color"])
        .args(["--continue-on-failure", "--warnings", "off"])
        .env("PYTHONPATH", folder)
        .env("SCHEMATHESIS_HOOKS", "contract_hooks")
        .env("CONTRACT", contract.to_string())
        .current_dir(dir)
        .stdin(Stdio::null());
    let described: Value = serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
    let all = described["paths"].as_object().unwrap().values();
    let ids: Vec<_> = all.flat_map(|path| path.as_object().unwrap().values()).collect();
    let left_out: Vec<_> =
        ids.iter().filter(|one| LEFT_OUT.iter().any(|id| one["operationId"] == *id)).collect();
    for operation in &left_out {
        command.args(["--exclude-operation-id", operation["operationId"].as_str().unwrap()]);
    }
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{api}:\n{said}\n{errors}\n(`cargo xtask test` installs what this needs)"
    );
    let tested = format!("Tested: {}", ids.len() - left_out.len());
    assert!(said.contains(&tested), "{tested}:\n{said}");
}
