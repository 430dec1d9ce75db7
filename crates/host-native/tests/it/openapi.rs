//! The OpenAPI documents: written down as the binary prints them, and neither with a route that is
//! not served nor without one that is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use convene_testing::{browser::free_port, client::http_client};
use serde_json::Value;
use tokio::process::Command;

/// Each document: its name at the command line, and its file.
const DOCUMENTS: [(&str, &str); 2] = [("app", "openapi.json"), ("infra", "openapi-infra.json")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) async fn printed(api: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    let output = command.args(["openapi", api]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_documents_are_current() {
    for (api, file) in DOCUMENTS {
        let written = fs::read_to_string(root().join("docs/api").join(file)).unwrap();
        let same = written == printed(api).await;
        assert!(same, "docs/api/{file} is not what is served: run `cargo xtask openapi`");
    }
}

#[tokio::test]
async fn every_documented_operation_is_served_and_says_who_may_call() {
    let dir = tempfile::tempdir().unwrap();
    let infra = format!("127.0.0.1:{}", free_port());
    let launch = crate::convene(dir.path()).arg("--orchestrator-listen").arg(&infra);
    let node = launch.start().await;
    let doors = [node.url.clone(), format!("http://{infra}")];
    let client = http_client();
    for ((api, _), door) in DOCUMENTS.iter().zip(&doors) {
        let document: Value = serde_json::from_str(&printed(api).await).unwrap();
        let mut operations = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            let url = format!("{door}{}", path.replace(['{', '}'], ""));
            for (method, operation) in methods.as_object().unwrap() {
                operations += 1;
                let method = method.to_uppercase().parse().unwrap();
                let answer = client.request(method, &url).send().await.unwrap();
                let status = answer.status().as_u16().to_string();
                let id = &operation["operationId"];
                assert!(operation["responses"].get(&status).is_some(), "{id}: {status}");
                let open = operation["security"].as_array().unwrap().is_empty();
                assert_eq!(!open, status == "401", "{id}: {status}");
            }
            let answer = client.request("TRACE".parse().unwrap(), &url).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{path}");
        }
        assert!(operations > 15, "{api} has {operations}");
    }
    assert_eq!(node.stop().await, Some(0));
}

/// The tables are the only way to a route of the APIs: nothing else may add one beside them.
#[test]
fn no_route_of_an_api_is_added_past_the_tables() {
    for (folder, prefixes) in
        [("app", &["/api"][..]), ("orchestrator", &["/infra", "/groups", "/"][..])]
    {
        let mut files = vec![root().join("crates").join(folder).join("src")];
        let mut read = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            if path.extension().is_none_or(|kind| kind != "rs")
                || path.components().any(|part| part.as_os_str() == "tests")
            {
                continue;
            }
            read += 1;
            let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
            for prefix in prefixes {
                let found = text.contains(&format!(".route(\"{prefix}"));
                assert!(!found, "{} adds a route past its table", path.display());
            }
        }
        assert!(read > 10, "{folder} was read");
    }
}
