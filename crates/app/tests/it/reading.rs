//! What people have read: counts in lists, marks, mentions, muted groups.

use convene_model::{AgentId, UserId, event::Author};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, World};

pub(crate) fn person(id: &str) -> Author {
    Author::User(UserId::new(id).unwrap())
}

fn agent(id: &str) -> Author {
    Author::Agent(AgentId::new(id).unwrap())
}

/// An owner and a member of one workspace with one group.
async fn two(world: &World) -> (String, String, [Client<'_>; 2]) {
    let mut ann = world.person("Ann").await;
    let mut bob = world.person("Bob").await;
    let org = ann.org("Works").await;
    ann.bring(&org, &mut bob).await;
    let group = ann.group(&org, "Plans", None).await;
    (org, group, [ann, bob])
}

/// How a group stands with its reader.
async fn standing(client: &mut Client<'_>, org: &str, group: &str) -> Value {
    let list = client.get(&format!("/api/groups?org_id={org}")).await.json;
    let found = list.as_array().unwrap().iter().find(|item| item["group_id"] == group);
    found.cloned().unwrap()
}

async fn counts(client: &mut Client<'_>, org: &str, group: &str) -> (u64, u64) {
    let item = standing(client, org, group).await;
    (item["unread"].as_u64().unwrap(), item["mentions"].as_u64().unwrap())
}

async fn read(client: &mut Client<'_>, group: &str, up_to: u64) {
    let path = format!("/api/groups/{group}/read");
    let reply = client.put(&path, &json!({"up_to": up_to})).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT, "{}", reply.text);
}

#[tokio::test]
async fn what_others_write_is_unread_until_it_is_read_and_ones_own_never_is() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let item = standing(&mut bob, &org, &group).await;
    assert_eq!(
        (&item["head"], &item["unread"], &item["last_at"]),
        (&json!(0), &json!(0), &Value::Null)
    );
    for text in ["one", "two", "three"] {
        world.say(&group, person(&ann.id), &[], text).await;
    }
    assert_eq!(counts(&mut ann, &org, &group).await, (0, 0));
    let item = standing(&mut bob, &org, &group).await;
    assert_eq!((&item["head"], &item["nth"], &item["unread"]), (&json!(30), &json!(3), &json!(3)));
    assert_eq!(item["last_at"], world.now().millis());
    read(&mut bob, &group, 25).await;
    assert_eq!(counts(&mut bob, &org, &group).await, (1, 0), "25 is between the second and third");
    assert_eq!(standing(&mut bob, &org, &group).await["read_up_to"], 25);
    read(&mut bob, &group, 10).await;
    assert_eq!(counts(&mut bob, &org, &group).await, (1, 0), "a mark never moves back");
    world.say(&group, person(&bob.id), &[], "four").await;
    assert_eq!(counts(&mut bob, &org, &group).await, (0, 0), "who answers has read");
    assert_eq!(counts(&mut ann, &org, &group).await, (1, 0));
    read(&mut ann, &group, u64::MAX >> 12).await;
    world.say(&group, person(&bob.id), &[], "five").await;
    assert_eq!(counts(&mut ann, &org, &group).await, (1, 0), "the future cannot be read");
    let one = ann.get(&format!("/api/groups/{group}")).await.json;
    assert_eq!((&one["unread"], &one["head"]), (&json!(1), &json!(50)));
}

#[tokio::test]
async fn mentions_are_counted_by_id_and_by_name_where_no_person_is_named_by_id() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let (a, b) = (ann.id.clone(), bob.id.clone());
    world.say(&group, person(&a), &[&b], "by id").await;
    world.say(&group, person(&a), &[], "hello @bob!").await;
    world.say(&group, agent("guide"), &["guide"], "ask @Bob or @ann").await;
    world.say(&group, person(&a), &[&b], "by id, so @ann means nothing").await;
    world.say(&group, person(&a), &[&a, "stranger"], "nobody").await;
    world.say(&group, person(&b), &[], "I, @bob, think so").await;
    assert_eq!(counts(&mut bob, &org, &group).await, (0, 0), "what one has answered is read");
    assert_eq!(counts(&mut ann, &org, &group).await, (1, 0), "the third is before her own");
    world.say(&group, agent("guide"), &[], "@Bob, look").await;
    world.say(&group, agent("guide"), &[], "@bobby, look").await;
    assert_eq!(counts(&mut bob, &org, &group).await, (2, 1));
    read(&mut bob, &group, 70).await;
    assert_eq!(counts(&mut bob, &org, &group).await, (1, 0));
    assert_eq!(world.rows("mentions").await, 0, "what is read is not kept");
}

#[tokio::test]
async fn what_was_read_is_unread_again_where_its_reader_says_so() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    for text in ["one", "two", "three"] {
        world.say(&group, person(&ann.id), &[], text).await;
    }
    read(&mut bob, &group, 30).await;
    let path = format!("/api/groups/{group}/read");
    let reply = bob.put(&path, &json!({"up_to": 19, "back": true})).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT, "{}", reply.text);
    assert_eq!(counts(&mut bob, &org, &group).await, (2, 0));
    assert_eq!(standing(&mut bob, &org, &group).await["read_up_to"], 19);
    let reply = bob.put(&path, &json!({"up_to": 25, "back": true})).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert_eq!(counts(&mut bob, &org, &group).await, (2, 0), "nothing is read by it");
    assert_eq!(counts(&mut ann, &org, &group).await, (0, 0), "and nobody else is concerned");
    read(&mut bob, &group, 30).await;
    assert_eq!(counts(&mut bob, &org, &group).await, (0, 0));
}

#[tokio::test]
async fn who_joins_has_nothing_unread() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let secret = ann.group(&org, "Secret", Some(&[])).await;
    for group in [&group, &secret] {
        world.say(group, person(&ann.id), &[], "before").await;
    }
    let mut cid = world.person("Cid").await;
    ann.bring(&org, &mut cid).await;
    assert_eq!(counts(&mut cid, &org, &group).await, (0, 0));
    assert_eq!(counts(&mut bob, &org, &group).await, (1, 0));
    let member = format!("/api/groups/{secret}/members/{}", cid.id);
    assert_eq!(ann.put(&member, &json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(counts(&mut cid, &org, &secret).await, (0, 0));
    world.say(&secret, person(&ann.id), &[], "after").await;
    assert_eq!(counts(&mut cid, &org, &secret).await, (1, 0));
    let open = json!({"is_private": false});
    assert_eq!(ann.patch(&format!("/api/groups/{secret}"), &open).await.status, StatusCode::OK);
    assert_eq!(counts(&mut bob, &org, &secret).await, (0, 0), "he sees it from now on");
    assert_eq!(counts(&mut cid, &org, &secret).await, (1, 0), "she saw it before");
}

#[tokio::test]
async fn a_group_is_muted_by_its_reader_alone() {
    let world = World::new().await;
    let (org, group, [mut ann, mut bob]) = two(&world).await;
    let path = format!("/api/groups/{group}/preferences");
    assert_eq!(bob.put(&path, &json!({"muted": true})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(standing(&mut bob, &org, &group).await["muted"], true);
    assert_eq!(standing(&mut ann, &org, &group).await["muted"], false);
    assert_eq!(bob.put(&path, &json!({"muted": false})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(standing(&mut bob, &org, &group).await["muted"], false);
    assert_eq!(bob.put(&path, &json!({})).await.refusal(), (400, "invalid_request"));
}

#[tokio::test]
async fn marks_and_preferences_are_for_who_may_see_the_group() {
    let world = World::new().await;
    let (org, _, [mut ann, mut bob]) = two(&world).await;
    let secret = ann.group(&org, "Secret", Some(&[])).await;
    let path = |what: &str| format!("/api/groups/{secret}/{what}");
    let refused = bob.put(&path("read"), &json!({"up_to": 1})).await;
    assert_eq!(refused.refusal(), (404, "group_not_found"));
    let refused = bob.put(&path("preferences"), &json!({"muted": true})).await;
    assert_eq!(refused.refusal(), (404, "group_not_found"));
    assert_eq!(world.rows("group_preferences").await, 0);
}

#[tokio::test]
async fn the_same_facts_from_several_processes_count_once_and_gaps_move_nothing() {
    use convene_app::rooms::{Groups, Records, Said};
    let world = World::new().await;
    let (org, group, [ann, mut bob]) = two(&world).await;
    let id = convene_model::GroupId::new(&group).unwrap();
    let said = |nth: u64| Said {
        seq: nth * 10,
        nth,
        at: world.now(),
        author: person(&ann.id),
        mentions: vec![],
        text: "@bob".to_owned(),
    };
    let records = |nths: &[u64], history: &str, jump| Records {
        history: convene_model::HistoryId::new(history).unwrap(),
        said: nths.iter().map(|nth| said(*nth)).collect(),
        unsaid: vec![],
        read: vec![],
        jump,
    };
    let (one, two) = (world.groups(), world.groups());
    let (a, b) = tokio::join!(
        one.record(&id, records(&[1, 2, 3], "h1", false)),
        two.record(&id, records(&[1, 2], "h1", false)),
    );
    assert!(a.unwrap().is_some() && b.unwrap().is_some());
    assert_eq!(one.head(&id).await.unwrap().unwrap().nth, 3);
    assert_eq!(counts(&mut bob, &org, &group).await, (3, 3));
    let stands = two.record(&id, records(&[5], "h1", false)).await.unwrap().unwrap();
    assert_eq!(stands.nth, 3, "the fourth is missing");
    let stands = two.record(&id, records(&[3, 4, 5], "h1", false)).await.unwrap().unwrap();
    assert_eq!(stands.nth, 5);
    let mut taken_back = records(&[], "h1", false);
    taken_back.unsaid = vec![50];
    two.record(&id, taken_back).await.unwrap();
    assert_eq!(counts(&mut bob, &org, &group).await, (5, 4), "what is taken back mentions nobody");
    let stands = one.record(&id, records(&[1, 2], "h2", true)).await.unwrap().unwrap();
    assert_eq!((stands.nth, stands.history.as_str()), (2, "h2"), "after a backup was adopted");
    assert_eq!(counts(&mut bob, &org, &group).await, (2, 2));
}
