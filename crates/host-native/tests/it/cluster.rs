//! The four services as processes of their own.

use std::path::Path;

use convene_testing::{
    client::{Person, http_client},
    cluster::{Member, Plan},
};
use serde_json::{Value, json};

fn plan(dir: &Path) -> Plan {
    Plan::new(env!("CARGO_BIN_EXE_convene"), dir)
}

#[tokio::test]
async fn people_and_an_agent_talk_through_four_processes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = plan(dir.path()).start().await;
    let ana = Person::sign_up(&cluster.app_url(0), "Ana").await;
    let ben = Person::sign_up(&cluster.app_url(1), "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    ana.invite(&org, &ben).await;
    let (mut to_ana, attached) = ana.attach(&group, None).await;
    let agent = attached["state"]["agents"][0]["name"].as_str().unwrap().to_owned();
    let (mut to_ben, _) = ben.attach(&group, None).await;

    to_ana.post("m1", &format!("@{agent} what can you do?")).await;
    let seen = to_ben.event("message.posted").await;
    assert_eq!(seen["author"], json!({"kind": "user", "id": ana.user_id}));
    let delta = to_ben.until(|frame| frame["type"] == "delta").await;
    assert_eq!(delta["offset"], 0);
    let finished = to_ben.event("run.finished").await;
    assert_eq!(finished["status"], "completed", "{finished}");
    assert_eq!(ben.all_messages(&group).await.len(), 2);
    cluster.shut_down().await;
}

#[tokio::test]
async fn a_second_controllers_process_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = plan(dir.path()).prepare().await;
    cluster.start(Member::Controllers).await;
    let (code, errors) = cluster.run_to_end(Member::Controllers).await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("another controllers process has the groups"), "{errors}");
    let (code, errors) = crate::convene(dir.path()).run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("another process is using the data directory"), "{errors}");
    assert_eq!(cluster.stop(Member::Controllers).await, Some(0));
}

#[tokio::test]
async fn processes_start_in_any_order_and_say_what_they_lack_until_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster =
        Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1).prepare().await;
    cluster.start(Member::App(0)).await;
    let url = cluster.app_url(0);
    let http = http_client();
    let lives = http.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(lives.status(), 200);
    let ready = http.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let problem: Value = serde_json::from_slice(&ready.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "unavailable");
    let checks = &problem["checks"];
    assert_eq!(checks["database"], "ok", "{checks}");
    assert_eq!(checks["orchestrator"], "unavailable", "{checks}");
    assert_eq!(checks["keys of controllers"], "unavailable", "{checks}");

    // What needs nobody else works already; what does is refused for now, with the reason.
    let ana = Person::sign_up(&url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let mut socket = ana.connect(&group).await.unwrap();
    socket.send(&json!({"type": "attach", "ref": "a"})).await;
    let refused = socket.until(|frame| frame["ref"] == "a").await;
    assert_eq!(refused["code"], "unavailable", "{refused}");

    for member in [Member::Agents(0), Member::Orchestrator(0), Member::Controllers] {
        cluster.start(member).await;
    }
    cluster.until_ready().await;
    let (mut socket, attached) = ana.attach(&group, None).await;
    let agent = attached["state"]["agents"][0]["name"].as_str().unwrap().to_owned();
    socket.post("m1", &format!("@{agent} are you there?")).await;
    assert_eq!(socket.event("run.finished").await["status"], "completed");
    cluster.shut_down().await;
}

#[tokio::test]
async fn four_processes_that_were_just_started_answer_the_very_first_calls() {
    let last_to_first =
        [Member::Agents(0), Member::Controllers, Member::Orchestrator(0), Member::App(0)];
    for order in [last_to_first, std::array::from_fn(|at| last_to_first[3 - at])] {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
        let mut cluster = plan.prepare().await;
        // Whoever starts first has looked for the keys of the others in vain.
        for member in order {
            cluster.start(member).await;
        }
        let ana = Person::sign_up(&cluster.app_url(0), "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let group = ana.create_group(&org, "Plans").await;
        let mut socket = ana.connect(&group).await.unwrap();
        socket.send(&json!({"type": "attach", "ref": "a"})).await;
        let attached = socket.until(|frame| frame["ref"] == "a").await;
        assert_eq!(attached["type"], "attached", "{order:?}: {attached}");
        let agent = attached["state"]["agents"][0]["name"].as_str().unwrap().to_owned();
        socket.post("m1", &format!("@{agent} are you there?")).await;
        let finished = socket.event("run.finished").await;
        assert_eq!(finished["status"], "completed", "{order:?}: {finished}");
    }
}

#[tokio::test]
async fn the_door_for_the_agents_worker_is_not_the_one_for_people_unless_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
    let internal = plan.internal_address(0).to_owned();
    let mut cluster = plan.prepare().await;
    cluster.start(Member::App(0)).await;
    let http = http_client();
    let resolve = |door: String| {
        let request = http.post(format!("{door}/internal/resolve"));
        async { request.send().await.unwrap().status().as_u16() }
    };
    let public = cluster.app_url(0);
    assert_eq!(resolve(format!("http://{internal}")).await, 401, "a token is asked for there");
    let refused = resolve(public).await;
    assert!(refused == 403 || refused == 404, "there is no such thing: {refused}");
    let page = http.get(format!("http://{internal}/")).send().await.unwrap();
    assert_eq!(page.status(), 404, "no pages there");
    let jwks = http.get(format!("http://{internal}/.well-known/jwks.json")).send().await.unwrap();
    assert_eq!(jwks.status(), 200);
    cluster.stop(Member::App(0)).await;
    drop(cluster);

    let plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
    let public = plan.address(Member::App(0)).to_owned();
    let mut cluster = plan.env("CONVENE_APP__INTERNAL_LISTEN", public).prepare().await;
    cluster.start(Member::App(0)).await;
    assert_eq!(resolve(cluster.app_url(0)).await, 401);
    assert_eq!(http.get(cluster.app_url(0)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_role_that_lacks_an_address_does_not_start_and_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    for (role, key) in [
        ("app", "orchestrator.urls"),
        ("orchestrator", "orchestrator.listen"),
        ("controllers", "controllers.listen"),
        ("agents", "agents.listen"),
    ] {
        let launch = crate::convene(dir.path()).arg("--role").arg(role);
        let (code, errors) = launch.run_to_end().await;
        assert_eq!(code, Some(1), "{role}");
        assert!(errors.contains(key), "{role}: {errors}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[tokio::test]
async fn a_role_has_only_what_it_needs_in_its_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = |member: usize| dir.path().join(format!("data-{member}"));
    let mut plan = Plan::sized(env!("CARGO_BIN_EXE_convene"), dir.path(), 1, 1, 1);
    let members = plan.members();
    for (number, member) in members.iter().enumerate() {
        plan = plan.env_of(*member, "CONVENE_DATA_DIR", data(number).to_string_lossy());
    }
    let cluster = plan.without_shared_data().start().await;
    let ana = Person::sign_up(&cluster.url(), "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    ana.attach(&group, None).await;
    for (number, member) in members.iter().enumerate() {
        let has = |name: &str| data(number).join(name).exists();
        assert_eq!(has("groups"), *member == Member::Controllers, "{member:?}");
        assert_eq!(has("infra.db"), *member == Member::Orchestrator(0), "{member:?}");
        assert_eq!(has("workspace.db"), *member == Member::App(0), "{member:?}");
        assert_eq!(has("keys/master.key"), *member == Member::App(0), "{member:?}");
        let keys = std::fs::read_dir(data(number).join("keys")).unwrap();
        let keys = keys.filter(|key| key.as_ref().unwrap().file_name() != "master.key").count();
        // The Orchestrator makes the key of the operator at its machine, too.
        let operators = usize::from(*member == Member::Orchestrator(0));
        assert_eq!(has("keys/operator.key"), operators == 1, "{member:?}");
        assert_eq!(keys, 1 + operators, "{member:?} has its own key and nobody else's");
    }
    cluster.shut_down().await;
}
