//! `convene backup` under load, and the way back: check, adopt, serve.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use convene_testing::client::Person;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::convene;

/// Runs `convene …` to its end: exit code and everything that it said.
async fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_convene"))
        .args(args)
        .current_dir(dir)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn history(person: &Person, group: &str) -> Value {
    let (status, page) = person.get(&format!("/api/groups/{group}/messages?limit=1")).await;
    assert_eq!(status, 200, "{page}");
    page
}

fn ids(messages: &[Value]) -> Vec<String> {
    let ids = messages.iter().map(|message| message["message_id"].as_str().unwrap().to_owned());
    ids.filter(|id| id.starts_with("post-")).collect()
}

#[tokio::test]
async fn a_backup_under_load_is_adopted_and_clients_read_its_history_anew() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Backed up").await;
    std::fs::write(dir.path().join("convene.toml"), "data_dir = \"data\"\n").unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let writer = tokio::spawn({
        let (ana, group) = (ana.clone(), group.clone());
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("post-{number}");
                let body = json!({"message_id": id, "text": format!("text {number}")});
                ana.post(&format!("/api/groups/{group}/messages"), body).await;
                acknowledged.lock().unwrap().push(id);
            }
        }
    });
    let posted = || acknowledged.lock().unwrap().clone();
    while posted().len() < 20 {
        tokio::task::yield_now().await;
    }
    let before = posted();
    let (code, said) = run(dir.path(), &["backup", "--to", "copy"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("convene journal adopt"), "{said}");
    let by_then = posted().len();
    while posted().len() < by_then + 20 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let lost_page = history(&ana, &group).await;
    let (lost_head, lost_history) = (lost_page["head"].as_u64().unwrap(), &lost_page["history"]);
    node.kill().await;

    // A second backup does not overwrite the first.
    let (code, said) = run(dir.path(), &["backup", "--to", "copy"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("exists already"), "{said}");

    let copy = dir.path().join("copy");
    for name in ["groups/rooms.db", "workspace.db", "infra.db", "keys/app.key", "convene.toml"] {
        let mode = std::fs::metadata(copy.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!copy.join("groups/ballast").exists());

    // Not served before it was adopted, but sound.
    let restored = tempfile::tempdir().unwrap();
    std::fs::rename(&copy, restored.path().join("data")).unwrap();
    let launch = convene(restored.path());
    let (code, said) = launch.run_to_end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("convene journal adopt"), "{said}");
    for command in ["check", "adopt", "check"] {
        let (code, said) = run(restored.path(), &["journal", command, "--data-dir", "data"]).await;
        assert_eq!(code, Some(0), "{command}: {said}");
    }

    let node = launch.start().await;
    let ana = ana.at(&node.url);
    let kept = ids(&ana.all_messages(&group).await);
    assert!(kept.len() >= before.len(), "what was acknowledged before the backup is in it");
    assert_eq!(kept, posted()[..kept.len()], "and nothing is missing in between");
    let page = history(&ana, &group).await;
    assert_ne!(&page["history"], lost_history);
    assert!(page["head"].as_u64().unwrap() < lost_head, "numbers will be used again");

    // Who knows the lost numbers is told to read anew, whatever number it has.
    for after in [1, kept.len() as u64, lost_head] {
        let mut socket = ana.connect(&group).await.unwrap();
        let attach = json!({
            "type": "attach", "ref": "a", "after": after, "history": lost_history
        });
        socket.send(&attach).await;
        let answer = socket.answer("a").await;
        assert_eq!((&answer["type"], &answer["history"]), (&json!("reset"), &page["history"]));
    }
    let (mut socket, attached) = ana.attach(&group, page["head"].as_u64()).await;
    assert_eq!(attached["history"], page["history"]);
    assert!(attached["epoch"].as_u64().unwrap() > 1_000_000, "no lost token has this epoch");
    socket.post("again", "goes on").await;
    assert_eq!(socket.answer("again").await["type"], "ok");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn a_running_process_keeps_the_journal_commands_out_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Checked").await;
    ana.post(&format!("/api/groups/{group}/messages"), json!({"text": "hello"})).await;
    for command in ["check", "adopt"] {
        let (code, said) = run(dir.path(), &["journal", command, "--data-dir", "data"]).await;
        assert_eq!(code, Some(1), "{command}");
        assert!(said.contains("another process"), "{said}");
    }
    assert_eq!(node.stop().await, Some(0));
    let check = ["journal", "check", "--data-dir", "data"];
    let (code, said) = run(dir.path(), &check).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Everything is as it should be"), "{said}");

    let rooms = rusqlite::Connection::open(dir.path().join("data/groups/rooms.db")).unwrap();
    rooms.execute("UPDATE message_ids SET seq = seq + 1", []).unwrap();
    drop(rooms);
    let (code, said) = run(dir.path(), &check).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("PROBLEM") && said.contains(&group), "{said}");

    for args in [
        &["backup", "--to", "x", "--data-dir", "nowhere"][..],
        &["journal", "check", "--data-dir", "nowhere"],
    ] {
        let (code, said) = run(dir.path(), args).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nowhere") && !dir.path().join("nowhere").exists(), "{said}");
    }
}
