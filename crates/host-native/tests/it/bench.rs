//! The figures of `convene bench` that take a server of their own can be measured.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

/// What `convene bench --only NAME …` writes.
async fn figures(dir: &Path, only: &str, more: &[&str]) -> Value {
    let file = dir.join(format!("{only}.json"));
    let done = Command::new(env!("CARGO_BIN_EXE_convene"))
        .args(["bench", "--only", only])
        .args(more)
        .arg("--dir")
        .arg(dir.join("bench"))
        .arg("--json")
        .arg(&file)
        .current_dir(dir)
        .output()
        .await
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

#[tokio::test]
async fn figures_about_many_clients_are_measured_beside_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["idle_socket_bytes", "reconnect_storm"] {
        let figures = figures(dir.path(), name, &["--clients", "40"]).await;
        assert!(figures[name]["limit"].as_f64().unwrap() > 0.0, "{figures}");
        // So few sockets may fit into memory that is there already; clients always take time.
        assert!(figures[name]["value"].as_f64().unwrap() >= 0.0, "{figures}");
        assert_eq!(figures.as_object().unwrap().len(), 1, "{figures}");
    }
}

#[tokio::test]
async fn snapshots_are_written_and_checked_beside_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let figures = figures(dir.path(), "snapshot_", &["--slice", "0.1"]).await;
    for name in ["snapshot_write", "snapshot_verify"] {
        assert!(figures[name]["limit"].as_f64().unwrap() > 0.0, "{figures}");
        assert!(figures[name]["value"].as_f64().unwrap() > 0.0, "{figures}");
    }
}

/// How much more memory archiving a group may take than archiving one of a quarter of its messages: what
/// differs is how often the allocator was asked.
const FLAT: f64 = 1.5;
/// Bytes below which a growth says nothing about a group's size.
const NOISE: f64 = 16.0 * 1024.0 * 1024.0;

#[tokio::test]
async fn soak_archiving_a_million_messages_takes_no_more_memory_than_archiving_a_quarter_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let figures = figures(dir.path(), "archive_memory", &["--slice", "2"]).await;
    let figure = &figures["archive_memory"];
    let read = |name: &str| figure[name].as_f64().unwrap();
    assert_eq!(read("messages"), 1_000_000.0, "{figures}");
    let (large, small) = (read("value"), read("limit"));
    assert!(large <= small.max(NOISE) * FLAT, "{figures}");
}
