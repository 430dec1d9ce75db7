//! People, workspaces and who may see what.

use serde_json::json;

use super::{Target, unique};
use crate::client::Person;

pub(super) async fn a_person_signs_up_and_in_and_is_known_by_the_token(target: &Target) {
    let name = unique("Ana");
    let ana = Person::sign_up(&target.app, &name).await;
    let again = Person::sign_in(&target.app, &name).await;
    assert_eq!(again.user_id, ana.user_id);

    let email = format!("{}@example.org", name.to_lowercase());
    let wrong = json!({"email": email, "password": "another password", "bearer": true});
    assert_eq!(ana.send("POST", "/api/auth/sign-in", Some(&wrong)).await.0, 401);
    let mut nobody = ana.clone();
    "nonsense".clone_into(&mut nobody.token);
    assert_eq!(nobody.get("/api/me").await.0, 401);
    let org = json!({"name": "Lighthouse", "unknown": 1});
    assert_eq!(ana.send("POST", "/api/orgs", Some(&org)).await.0, 400);
}

pub(super) async fn what_a_person_may_not_see_does_not_exist(target: &Target) {
    let (ana, org, group) = target.founder("Ana").await;
    let ben = target.person("Ben").await;
    for path in [
        format!("/api/groups/{group}"),
        format!("/api/groups/{group}/messages"),
        format!("/api/orgs/{org}/members"),
    ] {
        assert_eq!(ben.get(&path).await.0, 404, "{path}");
    }
    let post = json!({"text": "Let me in"});
    let path = format!("/api/groups/{group}/messages");
    assert_eq!(ben.send("POST", &path, Some(&post)).await.0, 404);
    assert!(ben.connect(&group).await.is_err());

    ana.invite(&org, &ben).await;
    assert_eq!(ben.get(&format!("/api/groups/{group}")).await.0, 200);
    assert!(ben.connect(&group).await.is_ok());
}
