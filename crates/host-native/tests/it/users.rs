//! `convene users` on the data directory of a process that runs, and of one that does not.

use std::{path::Path, process::Stdio};

use convene_testing::client::Person;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::convene;

/// Runs `convene users …`; exit code, standard output, standard error.
async fn users(data: &Path, args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_convene"))
        .arg("users")
        .args(args)
        .arg("--data-dir")
        .arg(data)
        .current_dir(data.parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that refuses before it reads has closed its end.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn sign_in(person: &Person, password: &str) -> u16 {
    let body = json!({"email": "ana@example.org", "password": password, "bearer": true});
    let mut nobody = person.clone();
    nobody.token.clear();
    nobody.send("POST", "/api/auth/sign-in", Some(&body)).await.0
}

#[tokio::test]
async fn an_owner_who_is_locked_out_gets_back_in_while_the_process_serves() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    ana.create_org("Lighthouse").await;

    let (code, out, _) = users(&data, &["list", "--json"], "").await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &listed["email"]), (Some(0), &json!("ana@example.org")));
    assert_eq!(listed["orgs"], json!([{"name": "Lighthouse", "role": "owner"}]));

    let (code, out, said) = users(&data, &["reset-password", "ana@example.org"], "").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("tokens deleted: 1"), "{said}");
    let password = out.trim();
    assert_eq!(ana.get("/api/me").await.0, 401, "the token that was there is void at once");
    assert_eq!(sign_in(&ana, convene_testing::client::PASSWORD).await, 401);
    assert_eq!(sign_in(&ana, password).await, 200);
    assert_eq!(node.stop().await, Some(0));

    // Offline, with a password of one's own.
    let asked = ["reset-password", "ana@example.org", "--ask"];
    let (code, out, _) = users(&data, &asked, "horses and batteries\n").await;
    assert_eq!((code, out.as_str()), (Some(0), ""));
    let node = convene(dir.path()).start().await;
    let ana = ana.at(&node.url);
    assert_eq!(sign_in(&ana, "horses and batteries").await, 200);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_reset_that_cannot_be_made_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (code, _, said) = users(&data, &["reset-password", "ana@example.org"], "").await;
    assert_eq!(code, Some(1));
    assert!(said.contains("workspace.db") && said.contains("--data-dir"), "{said}");
    assert!(!data.exists(), "nothing is made where nothing was");

    let node = convene(dir.path()).start().await;
    let (code, _, said) = users(&data, &["reset-password", "ana@example.org"], "").await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no account with the mail address ana@example.org"), "{said}");
    assert_eq!(node.stop().await, Some(0));
}
