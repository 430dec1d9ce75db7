//! The four services as processes of their own.

use std::path::Path;

use convene_testing::{
    client::Person,
    cluster::{Member, Plan},
};
use serde_json::json;

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
