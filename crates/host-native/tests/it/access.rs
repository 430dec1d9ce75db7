//! Who may do what changes while sockets are open, in several App processes.

use convene_testing::{
    client::{Person, Socket, http_client},
    cluster::{Cluster, Plan},
    conformance::Portal,
    forge::Identity,
};
use serde_json::{Value, json};

const OPERATOR: &str = "console";

/// Two Apps, and an outside app with operator scope.
async fn cluster(dir: &std::path::Path) -> (Cluster, Portal) {
    let operator = Identity::new(OPERATOR, 11);
    let jwks = serde_json::to_string(&operator.key.jwks()).unwrap();
    let toml = format!(
        "[[orchestrator.apps]]\nissuer = \"{OPERATOR}\"\nscope = \"operator\"\njwks = '{jwks}'\n"
    );
    let binary = env!("CARGO_BIN_EXE_convene");
    let cluster = Plan::sized(binary, dir, 2, 2, 1).toml(&toml).start().await;
    let portal = Portal::new(&cluster.infra_url(), &operator);
    (cluster, portal)
}

/// Ana, who owns a workspace with one group, and Ben, who is a member.
async fn two(cluster: &Cluster) -> (Person, Person, String, String) {
    let ana = Person::sign_up(&cluster.app_url(0), "Ana").await;
    let ben = Person::sign_up(&cluster.app_url(1), "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    let group = ana.create_group(&org, "Plans").await;
    ana.invite(&org, &ben).await;
    (ana, ben, org, group)
}

/// Reads to the end; returns the events' numbers and the close code.
async fn rest(socket: &mut Socket) -> (Vec<u64>, u16) {
    let mut events = Vec::new();
    loop {
        match socket.next().await {
            Ok(frame) => events.extend(frame["seq"].as_u64().filter(|_| frame["type"] == "event")),
            Err(code) => return (events, code),
        }
    }
}

async fn done(socket: &mut Socket, r#ref: &str) -> Value {
    socket.answer(r#ref).await
}

#[tokio::test]
async fn who_is_removed_on_one_app_hears_nothing_more_on_another() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, _) = cluster(dir.path()).await;
    let (ana, ben, org, group) = two(&cluster).await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    let (mut to_ben_here, _) = ben.at(&cluster.app_url(0)).attach(&group, None).await;
    to_ana.post("before", "hello").await;
    let before = done(&mut to_ana, "before").await["seq"].as_u64().unwrap();
    let path = format!("/api/orgs/{org}/members/{}", ben.user_id);
    assert_eq!(ana.send("DELETE", &path, None).await.0, 204);
    let revoked = to_ana.event("access.revoked").await["seq"].as_u64().unwrap();
    for number in 0..20 {
        to_ana.post(&format!("after-{number}"), "he is gone").await;
    }
    for socket in [&mut to_ben, &mut to_ben_here] {
        let (events, code) = rest(socket).await;
        assert_eq!(code, 4003);
        assert!(events.contains(&before), "what came before is passed on: {events:?}");
        assert!(events.iter().all(|seq| *seq <= revoked), "{events:?} after {revoked}");
    }
    assert!(ben.connect(&group).await.is_err(), "and the door is closed");
    cluster.shut_down().await;
}

#[tokio::test]
async fn another_role_holds_at_once_on_the_sockets_of_every_app() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, _) = cluster(dir.path()).await;
    let (ana, ben, org, group) = two(&cluster).await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let (mut there, _) = ben.attach(&group, None).await;
    let (mut here, _) = ben.at(&cluster.app_url(0)).attach(&group, None).await;
    for message in ["m1", "m2", "m3"] {
        to_ana.post(message, "Ana's own").await;
        done(&mut to_ana, message).await;
    }
    there.delete("m1").await;
    assert_eq!(done(&mut there, "delete-m1").await["code"], "forbidden");

    let path = format!("/api/orgs/{org}/members/{}", ben.user_id);
    let role = |role: &str| json!({ "role": role });
    assert_eq!(ana.send("PATCH", &path, Some(&role("admin"))).await.0, 204);
    to_ana.event("access.revoked").await;
    for (socket, message) in [(&mut there, "m1"), (&mut here, "m2")] {
        loop {
            // What meets the moment of the change may be sent again.
            socket.delete(message).await;
            let answer = done(socket, &format!("delete-{message}")).await;
            if answer["code"] != "unavailable" {
                assert_eq!(answer["type"], "ok", "{answer}");
                break;
            }
        }
    }

    assert_eq!(ana.send("PATCH", &path, Some(&role("member"))).await.0, 204);
    to_ana.event("access.revoked").await;
    for socket in [&mut there, &mut here] {
        loop {
            socket.delete("m3").await;
            let answer = done(socket, "delete-m3").await;
            if answer["code"] != "unavailable" {
                assert_eq!(answer["code"], "forbidden", "{answer}");
                break;
            }
        }
    }
    cluster.shut_down().await;
}

#[tokio::test]
async fn a_raised_epoch_detaches_everybody_and_who_has_access_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, operator) = cluster(dir.path()).await;
    let (ana, ben, _, group) = two(&cluster).await;
    let (mut to_ana, attached) = ana.attach(&group, None).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    assert_eq!(attached["epoch"], 1);
    let raise = json!({"from": 1, "reason": "a test"});
    let path = format!("/infra/groups/{group}/epoch");
    let (first, again) = tokio::join!(
        operator.call("POST", &path, raise.clone()),
        operator.call("POST", &path, raise.clone()),
    );
    assert_eq!((first.0, again.0), (200, 200), "{first:?} {again:?}");
    assert_eq!((&first.1["epoch"], &again.1["epoch"]), (&json!(2), &json!(2)));
    to_ana.post("m1", "still here").await;
    loop {
        let answer = done(&mut to_ana, "m1").await;
        if answer["code"] != "unavailable" {
            assert_eq!(answer["type"], "ok", "{answer}");
            break;
        }
        to_ana.post("m1", "still here").await;
    }
    assert_eq!(to_ben.event("group.epoch_raised").await["epoch"], 2);
    assert_eq!(to_ben.event("message.posted").await["message_id"], "m1");
    let (_, attached) = ben.attach(&group, None).await;
    assert_eq!(attached["epoch"], 2);
    cluster.shut_down().await;
}

#[tokio::test]
async fn a_deleted_token_closes_what_was_opened_with_it_on_every_app_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, _) = cluster(dir.path()).await;
    let (_, ben, _, group) = two(&cluster).await;
    let other = Person::sign_in(&cluster.app_url(1), "Ben").await;
    let (mut there, _) = ben.attach(&group, None).await;
    let (mut here, _) = ben.at(&cluster.app_url(0)).attach(&group, None).await;
    let (mut kept, _) = other.attach(&group, None).await;
    let mut events = Vec::new();
    for app in 0..2 {
        let request = http_client().get(format!("{}/api/events", cluster.app_url(app)));
        let mut stream = request.bearer_auth(&ben.token).send().await.unwrap();
        assert!(stream.chunk().await.unwrap().unwrap().starts_with(b"event: groups"));
        events.push(stream);
    }
    ben.post("/api/auth/sign-out", json!({})).await;
    for socket in [&mut there, &mut here] {
        assert_eq!(rest(socket).await.1, 4003);
    }
    for mut stream in events {
        while stream.chunk().await.unwrap().is_some() {}
    }
    kept.post("m1", "another device").await;
    assert_eq!(done(&mut kept, "m1").await["type"], "ok");
    cluster.shut_down().await;
}

#[tokio::test]
async fn what_is_said_and_read_on_one_app_is_told_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, _) = cluster(dir.path()).await;
    let (ana, ben, org, group) = two(&cluster).await;
    let request = http_client().get(format!("{}/api/events", cluster.app_url(1)));
    let mut stream = request.bearer_auth(&ben.token).send().await.unwrap();
    let mut told = String::new();
    let mut until = async |what: &str| {
        while !told.contains(what) {
            let chunk = stream.chunk().await.unwrap().expect("the stream goes on");
            told.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        told.clear();
    };
    until("event: groups").await;
    let (mut to_ana, _) = ana.attach(&group, None).await;
    to_ana.post("m1", "hello @ben").await;
    let seq = done(&mut to_ana, "m1").await["seq"].as_u64().unwrap();
    until("\"unread\":1,\"mentions\":1").await;
    let (mut to_ben, _) = ben.at(&cluster.app_url(0)).attach(&group, None).await;
    to_ben.send(&json!({"type": "read", "ref": "r", "up_to": seq})).await;
    assert_eq!(done(&mut to_ben, "r").await["type"], "ok");
    until("\"unread\":0,\"mentions\":0").await;
    let (_, list) = ana.get(&format!("/api/groups?org_id={org}")).await;
    assert_eq!((&list[0]["unread"], &list[0]["head"]), (&json!(0), &json!(seq)));
    cluster.shut_down().await;
}
