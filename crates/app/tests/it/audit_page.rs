//! The page of the audit: what was changed in words, page by page, for those who manage the workspace.

use http::StatusCode;
use serde_json::json;

use crate::support::{Client, World};

/// The page as text: its lines without marks, and the link to the next.
async fn told(client: &mut Client<'_>, path: &str) -> (String, Option<String>) {
    let page = client.get(path).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let (_, main) = page.text.split_once("<section").unwrap();
    let (main, _) = main.split_once("</section>").unwrap();
    let older = main.split_once("class=\"button\" href=\"").map(|(_, rest)| rest);
    let older = older.map(|rest| rest.split_once('"').unwrap().0.to_owned());
    let (mut text, mut in_mark) = (String::new(), true);
    for letter in main.chars() {
        match letter {
            '<' => in_mark = true,
            '>' => in_mark = false,
            _ if in_mark => {}
            _ => text.push(letter),
        }
    }
    (text.split_whitespace().collect::<Vec<_>>().join(" "), older)
}

#[tokio::test]
async fn it_tells_who_did_what_to_whom() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let mut bob = world.person("Bob").await;
    let org = ada.org("Works").await;
    let page = format!("/o/{org}/settings/audit");
    ada.bring(&org, &mut bob).await;
    let api = format!("/api/orgs/{org}");
    let bob_in_org = format!("{api}/members/{}", bob.id);
    ada.patch(&bob_in_org, &json!({"role": "admin"})).await;
    ada.patch(&api, &json!({"name": "Harbour <Lab>"})).await;
    ada.put(&format!("{api}/tool-hosts"), &json!({"hosts": ["a.example", "b.example:8443"]})).await;
    let open = ada.group(&org, "Plans", None).await;
    let hidden = bob.group(&org, "Surprise for Ada", Some(&[])).await;
    for group in [&open, &hidden] {
        let revisions = json!({"revisions": "discard"});
        let reply = bob.patch(&format!("/api/groups/{group}"), &revisions).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
    let (text, older) = told(&mut ada, &page).await;
    for line in [
        "Ada made a link to join",
        "Bob joined",
        "Ada changed the role of Bob from member to admin",
        "Ada renamed the workspace from Works to Harbour &#60;Lab&#62;",
        "Ada set which hosts tools may reach to a.example, b.example:8443",
        "Bob set what becomes of former texts in the group Plans from keep to discard",
        "Bob set what becomes of former texts in the group that is not open to you from keep to",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("Surprise"), "a title is for those who may open the group: {text}");
    assert_eq!(older, None);
    let (text, _) = told(&mut bob, &page).await;
    assert!(text.contains("in the group Surprise for Ada from keep to discard"), "{text}");

    ada.patch(&bob_in_org, &json!({"role": "member"})).await;
    assert_eq!(bob.get(&page).await.status, StatusCode::FORBIDDEN);
    bob.delete(&bob_in_org).await;
    assert!(told(&mut ada, &page).await.0.contains("Bob left"), "by himself");
    assert_eq!(bob.get(&page).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn it_goes_back_page_by_page_to_the_beginning() {
    let world = World::new().await;
    let mut ada = world.person("Ada").await;
    let org = ada.org("Name 0").await;
    let first = format!("/o/{org}/settings/audit");
    let (text, older) = told(&mut ada, &first).await;
    assert!(text.contains("Nothing yet"), "{text}");
    assert_eq!(older, None);
    let api = format!("/api/orgs/{org}");
    for number in 1..=101 {
        ada.patch(&api, &json!({"name": format!("Name {number}.")})).await;
    }
    let (mut seen, mut next, mut pages) = (String::new(), Some(first), 0);
    while let Some(path) = next {
        let (text, older) = told(&mut ada, &path).await;
        assert_eq!(text.contains("The newest"), pages > 0);
        seen.push_str(&text);
        (next, pages) = (older, pages + 1);
    }
    assert_eq!(pages, 3);
    for number in 1..=101 {
        let line = format!("to Name {number}.");
        assert_eq!(seen.matches(&line).count(), 1, "{line}");
    }
}
