//! Why an agent answered or did not, asked through the whole chain.

use convene_testing::client::Person;

use crate::convene;

#[tokio::test]
async fn a_person_asks_why_an_agent_answered_and_why_it_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = convene(dir.path()).start().await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    let why = |message: &str| format!("/api/groups/{group}/messages/{message}/why");

    let (status, body) = ana.get(&why("m1")).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("message_not_found")));

    let (mut socket, attached) = ana.attach(&group, None).await;
    let agent = attached["state"]["agents"][0].clone();
    socket.post("m1", "Good morning, everybody").await;
    socket.answer("m1").await;
    let (status, body) = ana.get(&why("m1")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["message_id"], "m1");
    assert_eq!(body["agents"][0]["agent_id"], agent["agent_id"]);
    assert_eq!(body["agents"][0]["name"], agent["name"]);
    assert_eq!(body["agents"][0]["outcome"], "not_mentioned");

    socket.post("m2", &format!("@{} what can you do?", agent["name"].as_str().unwrap())).await;
    let finished = socket.event("run.finished").await;
    let (_, body) = ana.get(&why("m2")).await;
    let told = &body["agents"][0];
    assert_eq!(
        (told["outcome"].as_str(), told["reason"].as_str()),
        (Some("accepted"), Some("mention"))
    );
    assert_eq!(told["run"]["run_id"], finished["run_id"]);
    assert_eq!(told["run"]["status"], "completed");
    assert_eq!(told["run"]["reply"], finished["message_id"]);
    assert!(told["run"]["started_at"].as_u64() <= told["run"]["finished_at"].as_u64(), "{body}");

    let (status, body) = ana.get(&why("m9")).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("message_not_found")));
    let eve = Person::sign_up(&node.url, "Eve").await;
    let (status, _) = eve.get(&why("m2")).await;
    assert_eq!(status, 404, "who does not see the group learns nothing of it");
    assert_eq!(node.stop().await, Some(0));
}
