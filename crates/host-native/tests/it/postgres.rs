//! Convene on PostgreSQL: as one process and as several, with the commands beside it, and while the
//! server is gone.

use std::{path::Path, time::Duration};

use convene_testing::{
    client::{Person, Socket, http_client},
    cluster::{Member, Plan},
    conformance::{self, Target},
    fault_proxy::{FaultProxy, Line},
    postgres::TestDatabase,
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::convene;

const URL: &str = "CONVENE_DATABASE_URL";

/// How long the server is gone, and in the long form of the test.
const GONE: Duration = Duration::from_secs(2);
const LONG_GONE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn seven_processes_over_postgres_conform_two_orchestrators_among_them() {
    let dir = tempfile::tempdir().unwrap();
    let database = TestDatabase::fresh().await;
    let plan = Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path())
        .toml(&Target::apps_toml())
        .env(URL, database.url());
    let members = plan.members();
    assert!(members.contains(&Member::Orchestrator(1)) && members.len() == 7);
    let cluster = plan.start().await;
    conformance::run(&Target::new(cluster.url(), cluster.infra_url())).await;
    cluster.shut_down().await;
    let data = dir.path().join("data");
    assert!(data.join("groups").exists());
    for file in ["infra.db", "workspace.db"] {
        assert!(!data.join(file).exists(), "{file} is in PostgreSQL");
    }
}

#[tokio::test]
async fn two_orchestrators_and_apps_may_start_on_an_empty_database_at_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    let database = TestDatabase::fresh().await;
    let apart = |number: usize| {
        let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
        plan.env(URL, database.url())
            .env("CONVENE_DATA_DIR", dir.path().join(format!("data-{number}")).to_string_lossy())
    };
    let prepare = async |number| apart(number).without_shared_data().prepare().await;
    let (mut one, mut two) = tokio::join!(prepare(1), prepare(2));
    for member in [Member::Orchestrator(0), Member::App(0)] {
        tokio::join!(one.start(member), two.start(member));
    }
    let ana = Person::sign_up(&one.app_url(0), "Ana").await;
    assert_eq!(ana.at(&two.app_url(0)).get("/api/me").await.0, 200);
    one.shut_down().await;
    two.shut_down().await;
}

#[tokio::test]
async fn accounts_on_postgres_outlive_the_process_and_are_looked_after_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = TestDatabase::fresh().await;
    let secret = dir.path().join("database-url");
    std::fs::write(&secret, format!("{}\n", database.url())).unwrap();
    let file = secret.to_string_lossy().into_owned();
    let log = dir.path().join("log");
    let launch = || convene(dir.path()).env("CONVENE_DATABASE_URL_FILE", file.clone());
    let node = launch().env("CONVENE_LOG__LEVEL", "debug").log_to(&log).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    to_ana.post("m1", "kept").await;
    to_ana.answer("m1").await;
    node.kill().await;

    let node = launch().start().await;
    let ana = ana.at(&node.url);
    assert_eq!(ana.all_messages(&group).await[0]["text"], "kept");
    let (code, out, said) = beside(dir.path(), &file, &["users", "list", "--json"]).await;
    assert_eq!(code, Some(0), "{said}");
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["orgs"], json!([{"name": "Lighthouse", "role": "owner"}]));
    let copy = dir.path().join("copy");
    let (code, out, said) =
        beside(dir.path(), &file, &["backup", "--to", copy.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("pg_dump") && copy.join("groups").exists(), "{out}");
    assert_eq!(node.stop().await, Some(0));

    // A restored backup is adopted with the records that are in PostgreSQL.
    let data = ["--data-dir", copy.to_str().unwrap()];
    let (code, out, said) =
        beside(dir.path(), &file, &["journal", "adopt", data[0], data[1]]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("Adopted 1 groups"), "{out}");
    let node = convene(dir.path())
        .configured_data_dir()
        .env("CONVENE_DATA_DIR", copy.to_string_lossy())
        .env("CONVENE_DATABASE_URL_FILE", file.clone())
        .start()
        .await;
    assert_eq!(ana.at(&node.url).all_messages(&group).await[0]["text"], "kept");
    assert_eq!(node.stop().await, Some(0));

    let logged = std::fs::read_to_string(&log).unwrap();
    let (user, _) = database.url().rsplit_once('@').unwrap();
    let (_, password) = user.rsplit_once(':').unwrap();
    assert!(logged.contains("ready") && !logged.contains(password), "the password is in no log");
}

#[tokio::test]
async fn a_process_waits_for_a_database_that_starts_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = TestDatabase::fresh().await;
    let proxy = FaultProxy::to(database.address()).await;
    proxy.set(Line::Refused);
    let launch = convene(dir.path()).env(URL, database.url_through(&proxy.address()));
    let (node, ()) = tokio::join!(launch.start(), async {
        sleep(Duration::from_millis(700)).await;
        proxy.set(Line::Open);
    });
    Person::sign_up(&node.url, "Ana").await;
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn while_the_database_is_gone_calls_are_503_and_groups_talk_and_afterwards_all_is_well() {
    survives(Line::Refused, GONE).await;
}

/// Nothing comes back from the network, for as long as an operator takes to notice.
#[tokio::test]
async fn soak_half_a_minute_without_an_answer_of_the_database_loses_nothing() {
    survives(Line::Silent, LONG_GONE).await;
}

async fn survives(fault: Line, gone: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let database = TestDatabase::fresh().await;
    let proxy = FaultProxy::to(database.address()).await;
    let through = database.url_through(&proxy.address());
    let cluster =
        Plan::new(env!("CARGO_BIN_EXE_convene"), dir.path()).env(URL, through).start().await;
    let ana = Person::sign_up(&cluster.app_url(0), "Ana").await;
    let ben = Person::sign_up(&cluster.app_url(1), "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let group = ana.create_group(&org, "Plans").await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    talk(&mut to_ana, &mut to_ben, "before").await;

    proxy.set(fault);
    let end = Instant::now() + gone;
    let mut said = 0;
    loop {
        refused(&ana, "GET", "/api/orgs").await;
        let body = json!({"org_id": org, "title": "Never", "is_private": false, "agent_ids": []});
        refuses(&ana, &body).await;
        talk(&mut to_ana, &mut to_ben, &format!("gone-{said}")).await;
        said += 1;
        if Instant::now() >= end {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    proxy.set(Line::Open);

    // Nobody restarts anything: the next calls find it again.
    let back = Instant::now() + Duration::from_secs(30);
    while ana.get("/api/me").await.0 != 200 {
        assert!(Instant::now() < back, "the App finds its database again");
        sleep(Duration::from_millis(100)).await;
    }
    let later = loop {
        let body = json!({"org_id": org, "title": "Later", "is_private": false, "agent_ids": []});
        let (status, made) = ana.send("POST", "/api/groups", Some(&body)).await;
        if status == 201 {
            break made["group_id"].as_str().unwrap().to_owned();
        }
        assert!(status == 503 && Instant::now() < back, "{status}: {made}");
    };
    // An activation, by the Orchestrators' way to the same server.
    let (mut there, _) = ana.attach(&later, None).await;
    there.post("m1", "hello again").await;
    there.event("message.posted").await;
    talk(&mut to_ana, &mut to_ben, "after").await;
    assert_eq!(ana.all_messages(&group).await.len(), said + 2, "nothing was lost");
    // What was said meanwhile is counted for those who have not read it.
    loop {
        let (_, groups) = ben.get(&format!("/api/groups/{group}")).await;
        if groups["unread"].as_u64() == Some(said as u64 + 2) {
            break;
        }
        assert!(Instant::now() < back, "heads are recorded afterwards: {groups}");
        sleep(Duration::from_millis(100)).await;
    }
    cluster.shut_down().await;
}

/// One says something, the other sees it.
async fn talk(one: &mut Socket, other: &mut Socket, message: &str) {
    one.post(message, message).await;
    loop {
        let seen = other.event("message.posted").await;
        if seen["message_id"] == message {
            return;
        }
    }
}

async fn refuses(person: &Person, body: &Value) {
    let (status, problem) = person.send("POST", "/api/groups", Some(body)).await;
    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")), "{problem}");
}

/// 503 with a time to come back at.
async fn refused(person: &Person, method: &str, path: &str) {
    let method = method.parse().unwrap();
    let request = http_client().request(method, format!("{}{path}", person.url));
    let asked = request.bearer_auth(&person.token).send();
    let answer = timeout(Duration::from_secs(20), asked).await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
}

/// Runs a command with the same database; exit code, standard output, standard error.
async fn beside(dir: &Path, url_file: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convene"));
    command.args(args).current_dir(dir).env("CONVENE_DATABASE_URL_FILE", url_file);
    if !args.contains(&"--data-dir") {
        command.arg("--data-dir").arg(dir.join("data"));
    }
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}
