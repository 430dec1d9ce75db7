//! `convene groups` and `convene orgs` beside a running process: at its socket, and at its infra API
//! with a key of an operator elsewhere.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use convene_testing::{
    browser::free_port,
    client::Person,
    cluster::Plan,
    conformance::{Portal, Target},
    s3_server::S3Fault,
    terminal::Terminal,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    archive_stage::{GROUP, Stage},
    convene,
};

/// How a command ended: its exit code, the lines of its JSON, what it said.
struct Ended {
    code: Option<i32>,
    lines: Vec<Value>,
    said: String,
}

/// Runs `convene …` in the folder of a data directory, with `--json`.
async fn run(dir: &Path, args: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_convene"))
        .args(args)
        .args(["--json", "--data-dir"])
        .arg(dir.join("data"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    Ended {
        code: output.status.code(),
        lines: out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        said: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What one that must succeed prints for people.
async fn in_words(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    command.args(args).arg("--data-dir").arg(dir.join("data")).current_dir(dir);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One that must succeed.
async fn done(dir: &Path, args: &[&str]) -> Vec<Value> {
    let ended = run(dir, args).await;
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.said);
    ended.lines
}

/// One that must end with a code; what it said.
async fn ends_with(dir: &Path, code: i32, args: &[&str]) -> String {
    let ended = run(dir, args).await;
    assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.said);
    assert!(ended.lines.is_empty());
    ended.said
}

/// The ids in the lines, with blanks between them.
fn ids(lines: &[Value], member: &str) -> String {
    let ids: Vec<_> = lines.iter().map(|line| line[member].as_str().unwrap()).collect();
    ids.join(" ")
}

#[tokio::test]
async fn an_operator_lists_archives_restores_and_deletes_groups_of_a_running_process() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let node = convene(dir).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;
    for id in ["m1", "m2"] {
        socket.post(id, "hello").await;
        socket.answer(id).await;
    }
    for (file, mode) in [("operator.sock", 0o600), ("keys/operator.key", 0o600)] {
        let found = std::fs::metadata(dir.join("data").join(file)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }

    assert_eq!(ids(&done(dir, &["groups", "list"]).await, "group_id"), group);
    assert!(done(dir, &["groups", "list", "--status", "archived"]).await.is_empty());
    let archived = done(dir, &["groups", "archive", &group, "--reason", "spring cleaning"]).await;
    assert_eq!(archived[0]["messages"], 2, "{archived:?}");
    let of_org = done(dir, &["groups", "list", "--org", &org, "--status", "archived"]).await;
    assert_eq!(ids(&of_org, "group_id"), group);
    let shown = done(dir, &["groups", "show", &group]).await;
    assert_eq!(shown[0]["group"]["group_status"], "archived");
    let tasks = shown[0]["tasks"].as_array().unwrap().clone();
    assert!(tasks.iter().any(|task| task["kind"] == "archive" && task["status"] == "done"));
    let events = shown[0]["events"].as_array().unwrap().clone();
    let step = |at: usize| [&events[at]["from"], &events[at]["to"]];
    assert_eq!(step(0), [&json!("archiving"), &json!("archived")], "{events:?}");
    assert_eq!(step(events.len() - 1), [&Value::Null, &json!("active")], "{events:?}");
    let one = done(dir, &["groups", "show", &group, "--events", "1"]).await;
    assert_eq!(one[0]["events"], json!([events[0]]));
    let words = in_words(dir, &["groups", "show", &group]).await;
    assert!(words.contains("\tarchiving > archived\tepoch 1\t"), "{words}");
    assert!(words.contains("\tinactive > active\tepoch 1\tapp\tactivated"), "{words}");
    let listed = done(dir, &["groups", "tasks", &group, "--status", "done"]).await;
    assert_eq!(listed[0]["group_id"], group.as_str(), "{listed:?}");
    assert!(done(dir, &["groups", "tasks", "--status", "failed"]).await.is_empty());
    let again = ends_with(dir, 1, &["groups", "archive", &group]).await;
    assert!(again.contains("group_not_active") && again.contains("archived"), "{again}");

    let restored = done(dir, &["groups", "restore", &group]).await;
    assert_eq!((&restored[0]["status"], &restored[0]["epoch"]), (&json!("active"), &json!(2)));
    let raised = done(dir, &["groups", "raise-epoch", &group]).await;
    assert_eq!(raised[0]["epoch"], 3);
    let (_, page) = ana.get(&format!("/api/groups/{group}/messages")).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 2, "{page}");

    let asked = ends_with(dir, 6, &["groups", "delete", &group]).await;
    assert!(asked.contains("--yes"), "{asked}");
    let deleted = done(dir, &["groups", "delete", &group, "--yes"]).await;
    assert_eq!(deleted[0]["group_status"], "deleted");
    assert!(done(dir, &["groups", "list"]).await.is_empty());
    let gone = done(dir, &["groups", "show", &group, "--events", "2"]).await;
    assert_eq!(gone[0]["group"]["group_status"], "deleted");
    assert_eq!(gone[0]["events"][0]["to"], "deleted");
    assert_eq!(gone[0]["events"][1]["to"], "deleting");
    ends_with(dir, 3, &["groups", "restore", &group]).await;
    ends_with(dir, 3, &["groups", "show", "nobodys"]).await;
    ends_with(dir, 2, &["groups", "list", "--status", "asleep"]).await;

    assert_eq!(node.stop().await, Some(0));
    let away = ends_with(dir, 4, &["groups", "list"]).await;
    assert!(away.contains("cannot be reached"), "{away}");
    assert!(!dir.join("data/operator.sock").exists());
}

#[tokio::test]
async fn an_operator_sets_limits_and_blocks_an_organization() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let node = convene(dir).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut socket, _) = ana.attach(&group, None).await;

    let set = ["--set", "max_active_groups=1", "--set", "auto_archive_after_secs=60"];
    let limits = done(dir, &[&["orgs", "limits", &org][..], &set].concat()).await;
    assert_eq!(limits[0], json!({"max_active_groups": 1, "auto_archive_after_secs": 60}));
    let given_back = ["orgs", "limits", &org, "--set", "auto_archive_after_secs=default"];
    assert_eq!(done(dir, &given_back).await, [json!({"max_active_groups": 1})]);
    let usage = done(dir, &["orgs", "usage", &org]).await;
    assert_eq!(
        (&usage[0]["active_groups"], &usage[0]["peak_active_groups"]),
        (&json!(1), &json!(1))
    );
    let month = usage[0]["month"].as_str().unwrap();
    assert_eq!(done(dir, &["orgs", "usage", &org, "--month", month]).await.len(), 1);
    ends_with(dir, 2, &["orgs", "usage", &org, "--month", "lately"]).await;
    let unknown = ends_with(dir, 1, &["orgs", "limits", &org, "--set", "wishes=3"]).await;
    assert!(unknown.contains("wishes"), "{unknown}");
    let second = ana.create_group(&org, "More").await;
    let (status, problem) = ana
        .send(
            "POST",
            &format!("/api/groups/{second}/messages"),
            Some(&json!({"message_id": "m", "text": "hello"})),
        )
        .await;
    assert_eq!((status, &problem["code"]), (429, &json!("active_group_limit_exceeded")));

    let blocked = done(dir, &["orgs", "block", &org, "--reason", "abuse"]).await;
    assert_eq!((&blocked[0]["blocked"], &blocked[0]["reason"]), (&json!(true), &json!("abuse")));
    while socket.next().await.is_ok() {}
    let listed = done(dir, &["orgs", "list", "--blocked"]).await;
    assert_eq!(
        (ids(&listed, "org_id"), &listed[0]["block_reason"]),
        (org.clone(), &json!("abuse"))
    );
    done(dir, &["orgs", "unblock", &org]).await;
    assert!(done(dir, &["orgs", "abuse"]).await.is_empty());
    assert!(done(dir, &["orgs", "list", "--blocked"]).await.is_empty());
    let (_, attached) = ana.attach(&group, None).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn an_operator_elsewhere_brings_a_key_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let infra = format!("127.0.0.1:{}", free_port());
    let url = format!("http://{infra}");
    let mut config = Target::apps_toml();
    let mut keys: Vec<PathBuf> = Vec::new();
    for (issuer, scope) in [("ops", "scope = \"operator\"\n"), ("guest", "")] {
        let file = dir.join(format!("{issuer}.key"));
        let mut make = Command::new(env!("CARGO_BIN_EXE_convene"));
        let made = make.args(["keys", "new"]).arg(&file).output().await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let jwks = String::from_utf8(made.stdout).unwrap();
        let jwks = jwks.trim();
        config.push_str(&format!(
            "\n[[orchestrator.apps]]\nissuer = \"{issuer}\"\n{scope}jwks = '{jwks}'\n"
        ));
        keys.push(file);
    }
    std::fs::write(dir.join("convene.toml"), config).unwrap();
    let node = convene(dir)
        .arg("--config")
        .arg(dir.join("convene.toml").to_str().unwrap())
        .arg("--orchestrator-listen")
        .arg(&infra)
        .start()
        .await;
    let target = Target::new(node.url.clone(), url.clone());
    let portal = Portal::new(&target.infra, &target.portal);
    portal.activate("g1", "o1").await;

    let ops = keys[0].to_str().unwrap().to_owned();
    let guest = keys[1].to_str().unwrap().to_owned();
    let by = |key: &str, issuer: &str, args: &[&str]| -> Vec<String> {
        let way = ["--infra", &url, "--key", key, "--issuer", issuer];
        args.iter().chain(&way).map(|arg| (*arg).to_owned()).collect()
    };
    let call = async |args: Vec<String>| {
        run(dir, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let listed = call(by(&ops, "ops", &["groups", "list"])).await;
    assert_eq!((listed.code, ids(&listed.lines, "group_id")), (Some(0), "g1".to_owned()));
    assert_eq!(call(by(&ops, "ops", &["groups", "archive", "g1"])).await.code, Some(0));
    // Without operator scope there is nothing that is the caller's, and nothing may be set.
    let guests = call(by(&guest, "guest", &["groups", "list"])).await;
    assert_eq!((guests.code, guests.lines.len()), (Some(0), 0));
    assert_eq!(call(by(&guest, "guest", &["groups", "delete", "g1", "--yes"])).await.code, Some(3));
    let block = ["orgs", "block", "o1", "--reason", "mine"];
    assert_eq!(call(by(&guest, "guest", &block)).await.code, Some(5));
    // A key under another's name is nobody's.
    assert_eq!(call(by(&guest, "ops", &["groups", "list"])).await.code, Some(5));
    assert_eq!(call(by(&guest, "operator", &["groups", "list"])).await.code, Some(5));
    assert_eq!(call(by(&ops, "ops", &["groups", "delete", "g1", "--yes"])).await.code, Some(0));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn an_operator_reaches_the_orchestrator_among_several_processes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).start().await;
    let ana = Person::sign_up(&cluster.url(), "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    ana.attach(&group, None).await;
    assert_eq!(ids(&done(dir.path(), &["groups", "list"]).await, "group_id"), group);
    let archived = done(dir.path(), &["groups", "archive", &group]).await;
    assert_eq!(archived[0]["group_id"], group.as_str());
    cluster.shut_down().await;
}

#[tokio::test]
async fn a_group_in_quarantine_can_be_deleted_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let launch = convene(dir).listen(format!("127.0.0.1:{}", free_port()));
    let node = launch.start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let mut groups = Vec::new();
    for title in ["One", "Two"] {
        let group = ana.create_group(&org, title).await;
        ana.post(&format!("/api/groups/{group}/messages"), json!({"text": "hello"})).await;
        groups.push(group);
    }
    assert_eq!(node.stop().await, Some(0));
    let rooms = rusqlite::Connection::open(dir.join("data/groups/rooms.db")).unwrap();
    let damage = "UPDATE groups SET head = head + 1 WHERE group_id = ?1";
    assert_eq!(rooms.execute(damage, [&groups[0]]).unwrap(), 1);
    drop(rooms);

    let node = launch.start().await;
    let (_, problem) = ana.get(&format!("/api/groups/{}/messages", groups[0])).await;
    assert_eq!(problem["code"], "group_quarantined", "{problem}");
    let refused = ends_with(dir, 1, &["groups", "archive", &groups[0]]).await;
    assert!(refused.contains("group_quarantined"), "{refused}");
    done(dir, &["groups", "delete", &groups[0], "--yes"]).await;
    let (status, page) = ana.get(&format!("/api/groups/{}/messages", groups[1])).await;
    assert_eq!((status, &page["messages"][0]["text"]), (200, &json!("hello")));
    assert_eq!(ids(&done(dir, &["groups", "list"]).await, "group_id"), groups[1]);
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_terminal_an_archive_shows_how_far_it_is_and_a_delete_asks_for_the_id() {
    let stage = Stage::start().await;
    stage.lively().await;
    let data_dir = stage.data_dir();
    let type_in = |command: &str| {
        let data_dir = data_dir.to_str().unwrap();
        let args = ["groups", command, GROUP, "--data-dir", data_dir];
        Terminal::start(Path::new(env!("CARGO_BIN_EXE_convene")), &args, &[], (24, 100))
    };
    // Longer than progress is kept to itself.
    stage.store.set(Some(S3Fault::Slow(Duration::from_millis(1200))));
    let archive = type_in("archive");
    archive.until(|screen| ["export", "verify"].iter().any(|step| screen.contains(step)));
    archive.shows("Archived g1: 5 messages");
    stage.store.set(None);
    assert_eq!(stage.status().await, "archived");

    let mut delete = type_in("delete");
    delete.shows("Type its id to go on:");
    delete.send("g2\r");
    delete.shows("nothing was deleted");
    assert_eq!(stage.status().await, "archived");
    let mut delete = type_in("delete");
    delete.shows("Type its id to go on:");
    delete.send("g1\r");
    delete.shows("Deleted g1.");
    assert_eq!(stage.status().await, "deleted");
}
