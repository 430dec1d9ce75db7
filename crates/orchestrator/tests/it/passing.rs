//! `GET /groups/{id}/history` and `GET /groups/{id}/ws`: what passes through and what does not.

use bytes::Bytes;
use convene_hop::{ConnectError, GroupLink, Hop};
use convene_model::{Code, Problem};
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::json;
use tokio_websockets::{ClientBuilder, Message};

use crate::{
    controllers::Behaviour,
    world::{Asking, World},
};

async fn connect(world: &World, call: &Asking<'_>) -> Result<GroupLink, ConnectError> {
    let token = call.app_token().encode();
    Hop::in_process(world.router.clone()).connect(call.request(Some(&token))).await
}

#[tokio::test]
async fn history_passes_through_with_its_query_and_the_users_token() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g1/history?before=9&limit=%32").routing_token(&token);
    let answer = call.send().await.expect_status(200);
    assert_eq!(answer.body, json!({ "messages": [], "head": 7 }));
    assert_eq!(answer.content_type, "application/json");
    let calls = world.controllers.calls();
    let call = calls.last().unwrap();
    assert_eq!(call.line, "GET /groups/g1/history?before=9&limit=%32");
    assert_eq!(call.routing_token, Some(token));
}

#[tokio::test]
async fn a_query_that_asks_for_no_page_is_refused_and_reaches_no_controller() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let before = world.standing().await;
    for query in ["limit=0", "limit=201", "x=1", "before=-1", "around=3&after=2", "limit=2&limit=3"]
    {
        let call = world.ask("GET", &format!("/groups/g1/history?{query}")).routing_token(&token);
        call.send().await.expect_problem(400, "invalid_request");
    }
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn a_message_and_a_search_pass_through_with_the_users_token() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g1/messages/m-1").routing_token(&token);
    let answer = call.send().await.expect_status(200);
    assert_eq!(answer.body, json!({ "message": "messages/m-1", "revisions": [] }));
    let call = world.controllers.calls().pop().unwrap();
    assert_eq!(call.line, "GET /groups/g1/messages/m-1");
    assert_eq!(call.routing_token.as_ref(), Some(&token));

    let query = json!({ "query": "hello", "limit": 3 });
    let call = world.ask("POST", "/groups/g1/search").json(&query).routing_token(&token);
    let answer = call.send().await.expect_status(200);
    assert_eq!(answer.body, json!({ "hits": [], "more": false }));
    let call = world.controllers.calls().pop().unwrap();
    assert_eq!((call.line.as_str(), call.body), ("POST /groups/g1/search", query.to_string()));
    assert_eq!(call.routing_token, Some(token));
}

#[tokio::test]
async fn what_is_no_message_id_names_no_message_and_reaches_no_controller() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let before = world.standing().await;
    for path in ["/groups/g1/messages/a%20b", "/groups/g1/messages/a.b"] {
        let call = world.ask("GET", path).routing_token(&token);
        call.send().await.expect_problem(404, "message_not_found");
        assert_eq!(world.standing().await, before);
    }
}

#[tokio::test]
async fn an_escaped_id_is_the_id_that_it_spells() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g%31/history").routing_token(&token);
    call.send().await.expect_status(200);
    assert_eq!(world.controllers.lines().last().unwrap(), "GET /groups/g1/history");
}

#[tokio::test]
async fn the_controllers_refusals_pass_through_but_doubts_about_our_own_token_do_not() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g1/history?limit=1").routing_token(&token);
    let search =
        world.ask("POST", "/groups/g1/search").json(&json!({ "query": "a" })).routing_token(&token);
    for (code, status, passed) in [
        (Code::ValidationFailed, 422, "validation_failed"),
        (Code::Overloaded, 503, "overloaded"),
        (Code::GroupQuarantined, 503, "group_quarantined"),
        (Code::AccessRevoked, 403, "access_revoked"),
        (Code::TokenExpired, 401, "token_expired"),
        (Code::Unauthorized, 502, "group_controller_unavailable"),
    ] {
        world.controllers.refuse(Problem::new(code));
        call.send().await.expect_problem(status, passed);
        search.send().await.expect_problem(status, passed);
        let upgrade = world.ask("GET", "/groups/g1/ws").routing_token(&token);
        let refused = connect(&world, &upgrade).await;
        let Err(ConnectError::Refused(problem)) = refused else { panic!("not refused") };
        assert_eq!(problem.code.as_str(), passed);
        assert_eq!(problem.status, status);
    }
    world.controllers.behave(Behaviour::Broken(StatusCode::NOT_FOUND));
    call.send().await.expect_problem(502, "group_controller_unavailable");
}

#[tokio::test]
async fn an_upstream_carries_frames_both_ways_until_either_end_goes() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let call = world.ask("GET", "/groups/g1/ws?v=1").routing_token(&token);
    let mut link = connect(&world, &call).await.unwrap();
    let calls = world.controllers.calls();
    assert_eq!(calls.last().unwrap().line, "GET /groups/g1/ws?v=1");
    assert_eq!(calls.last().unwrap().routing_token, Some(token));
    let mut group = world.controllers.take_link();
    link.tx.send(Bytes::from_static(b"{\"type\":\"attach\"}")).await.unwrap();
    assert_eq!(group.rx.recv().await.unwrap(), "{\"type\":\"attach\"}");
    group.tx.send(Bytes::from_static(b"{\"type\":\"event\"}")).await.unwrap();
    assert_eq!(link.rx.recv().await.unwrap(), "{\"type\":\"event\"}");
    drop(group);
    assert_eq!(link.rx.recv().await, None);
}

#[tokio::test]
async fn a_request_that_asks_for_no_upgrade_is_told_so_and_reaches_no_controller() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let before = world.standing().await;
    let call = world.ask("GET", "/groups/g1/ws").routing_token(&token);
    call.send().await.expect_problem(426, "upgrade_required");
    assert_eq!(world.standing().await, before);
}

#[tokio::test]
async fn an_outside_app_opens_an_upstream_over_a_real_websocket() {
    let world = World::with_group().await;
    let token = world.routing_token("g1", "u1").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, world.router.clone()).into_future());
    let call = world.ask("GET", "/groups/g1/ws").routing_token(&token);
    let request = call.request(Some(&call.app_token().encode()));
    let uri = format!("ws://{address}/groups/g1/ws").parse().unwrap();
    let mut client = ClientBuilder::from_uri(uri);
    for (name, value) in request.headers() {
        client = client.add_header(name.clone(), value.clone()).unwrap();
    }
    client = client
        .add_header(
            http::header::SEC_WEBSOCKET_PROTOCOL,
            http::HeaderValue::from_static("convene.v1"),
        )
        .unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = client.connect_on(stream).await.unwrap();
    let mut group = world.controllers.take_link();
    socket.send(Message::text("{\"type\":\"attach\"}")).await.unwrap();
    assert_eq!(group.rx.recv().await.unwrap(), "{\"type\":\"attach\"}");
    group.tx.send(Bytes::from_static(b"{\"type\":\"event\"}")).await.unwrap();
    let message = socket.next().await.unwrap().unwrap();
    assert_eq!(message.as_text(), Some("{\"type\":\"event\"}"));
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn controllers_that_do_not_answer_are_given_up() {
    let world = World::in_a_file().await;
    world.activate("g1", "o1").await.expect_status(200);
    let token = world.routing_token("g1", "u1").await;
    world.controllers.behave(Behaviour::Silent);
    let call = world.ask("GET", "/groups/g1/history").routing_token(&token);
    call.send().await.expect_problem(502, "group_controller_unavailable");
    let call = world.ask("GET", "/groups/g1/ws").routing_token(&token);
    let refused = connect(&world, &call).await;
    let Err(ConnectError::Refused(problem)) = refused else { panic!("not refused") };
    assert_eq!(problem.code, Code::GroupControllerUnavailable);
}
