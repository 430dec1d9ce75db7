//! The examples in Python do what their README says.

use std::path::{Path, PathBuf};

use convene_testing::browser::free_port;
use tokio::process::Command;

use crate::convene;

/// Python with the packages that the examples need.
pub(crate) fn python() -> String {
    std::env::var("CONVENE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

pub(crate) async fn run(name: &str, args: &[&str]) -> String {
    let output = Command::new(python()).arg(example(name)).args(args).output().await.unwrap();
    let (out, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{name}: {errors}\n(run the tests with `cargo xtask test`, which installs what Python needs)"
    );
    out.into_owned()
}

#[tokio::test]
async fn the_chat_client_streams_a_reply_and_resumes_after_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).env("CONVENE_AGENTS__DEMO_WORD_PAUSE_MS", "20").start().await;
    let account = ["--email", "ana@example.org", "--password", "correct horse battery"];
    let mut args = vec!["--url", &node.url];
    args.extend(account);
    args.push("@Guide what can you do?");
    let out = run("chat_client.py", &args).await;
    assert!(out.contains("[cut, resuming]"), "{out}");
    assert!(out.contains(" completed at event "), "{out}");
    assert!(out.contains("thanked as event ") && out.contains("edited as event "), "{out}");

    let group = out.lines().next().and_then(|line| line.strip_prefix("group ")).unwrap();
    args.splice(2..2, ["--group", group]);
    let again = run("chat_client.py", &args).await;
    assert!(again.starts_with(&format!("group {group}\n")), "{again}");
}

#[tokio::test]
async fn an_outside_app_with_its_own_key_speaks_for_two_users() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("portal.key");
    let key = key.to_str().unwrap();
    let jwks = run("outside_app.py", &["keygen", key]).await;
    let config = dir.path().join("convene.toml");
    std::fs::write(
        &config,
        format!("[[orchestrator.apps]]\nissuer = \"our-portal\"\njwks = '{}'\n", jwks.trim()),
    )
    .unwrap();
    let infra = format!("127.0.0.1:{}", free_port());
    let node = convene(dir.path())
        .arg("--config")
        .arg(config.to_str().unwrap())
        .arg("--orchestrator-listen")
        .arg(&infra)
        .start()
        .await;
    let infra = format!("http://{infra}");
    let out = run("outside_app.py", &["run", key, "--infra", &infra]).await;
    assert!(out.contains("ana: Is this one upstream?"), "{out}");
    assert!(out.contains("ben: Yes, and we share it."), "{out}");

    // A key that Convene was not told of gets nowhere.
    let other = dir.path().join("other.key");
    let other = other.to_str().unwrap();
    run("outside_app.py", &["keygen", other]).await;
    let refused = Command::new(python())
        .arg(example("outside_app.py"))
        .args(["run", other, "--infra", &infra, "--group", "another"])
        .output()
        .await
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unauthorized"));
    assert_eq!(node.stop().await, Some(0));
}
