//! `PUT /infra/groups/{id}/config`.

use convene_model::{Code, Problem};
use http::StatusCode;
use serde_json::json;

use crate::{controllers::Behaviour, world::World};

#[tokio::test]
async fn a_configuration_reaches_the_controller_as_it_was_sent() {
    let world = World::with_group().await;
    let body =
        r#"{ "version": 3, "agents": [{"agent_id":"a1","name":"Ada","trigger":"mention"}] }"#;
    let call = world.ask("PUT", "/infra/groups/g1/config").body(body);
    call.send().await.expect_status(204);
    let calls = world.controllers.calls();
    let call = calls.last().unwrap();
    assert_eq!(call.line, "PUT /groups/g1/config");
    assert_eq!(call.body, body);
    assert_eq!(call.epoch, 1);
    assert_eq!(call.routing_token, None);
}

#[tokio::test]
async fn the_controllers_refusal_passes_through_with_its_status_and_figures() {
    let world = World::with_group().await;
    let problem = Problem::new(Code::ValidationFailed).detail("too many agents").with("max", 32);
    world.controllers.refuse(problem);
    let call = world.ask("PUT", "/infra/groups/g1/config").json(&json!({ "version": 1 }));
    let answer = call.send().await.expect_problem(422, "validation_failed");
    assert_eq!(answer.body["detail"], "too many agents");
    assert_eq!(answer.body["max"], 32);
}

#[tokio::test]
async fn controllers_that_answer_nonsense_or_refuse_our_own_token_are_unavailable() {
    let world = World::with_group().await;
    for behaviour in [
        Behaviour::Broken(StatusCode::BAD_REQUEST),
        Behaviour::Refuse(Box::new(Problem::new(Code::Unauthorized))),
        Behaviour::Refuse(Box::new(Problem::new(Code::TokenReplayed))),
    ] {
        world.controllers.behave(behaviour);
        let call = world.ask("PUT", "/infra/groups/g1/config").json(&json!({ "version": 1 }));
        call.send().await.expect_problem(502, "group_controller_unavailable");
    }
}
