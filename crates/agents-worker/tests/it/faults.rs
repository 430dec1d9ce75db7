//! Every fault of a provider ends the run in one final state with one readable sentence, without
//! the key and without the provider's raw answer.

use std::{sync::Arc, time::Duration};

use convene_agents_worker::Limits;
use convene_model::{
    agents::{ResolvedModel, failure},
    limits::MAX_REPLY_BYTES,
};
use convene_testing::model_server::{ModelServer, Script};

use crate::world::{KEY, Refusing, Reply, START, World, openai};

async fn run(script: Script) -> Reply {
    run_with(script, Limits::default()).await
}

async fn run_with(script: Script, limits: Limits) -> Reply {
    let server = ModelServer::start().await.unwrap();
    server.always("m", script);
    let reply = World::with(openai(&server.base_url(), "m"), limits).say("hi").await;
    let (_, detail, _) = reply.failure();
    assert!(!detail.contains(KEY) && !detail.contains('\n') && !detail.contains('{'), "{detail}");
    reply
}

fn failed(code: &str, detail: &str) -> (String, String, Option<u64>) {
    (code.to_owned(), detail.to_owned(), None)
}

fn one() -> Vec<String> {
    vec!["One ".into()]
}

#[tokio::test]
async fn a_refused_key() {
    for status in [401, 403] {
        let reply = run(Script::error(status, &format!("Incorrect API key: {KEY}."))).await;
        assert_eq!(
            reply.failure(),
            failed(
                failure::PROVIDER_UNAUTHORIZED,
                "The model provider refused the API key: Incorrect API key: [redacted]"
            )
        );
    }
}

#[tokio::test]
async fn too_many_requests_with_seconds() {
    let (code, detail, retry_after_ms) = run(Script::rate_limited("7")).await.failure();
    assert_eq!((code.as_str(), retry_after_ms), (failure::PROVIDER_RATE_LIMITED, Some(7_000)));
    assert_eq!(detail, "The model provider asks to slow down: Rate limit reached for requests");
}

#[tokio::test]
async fn too_many_requests_with_a_date() {
    // 90 seconds after the test's fixed clock.
    assert_eq!(START, 1_800_000_000);
    let (code, _, retry_after_ms) =
        run(Script::rate_limited("Fri, 15 Jan 2027 08:01:30 GMT")).await.failure();
    assert_eq!((code.as_str(), retry_after_ms), (failure::PROVIDER_RATE_LIMITED, Some(90_000)));
}

#[tokio::test]
async fn errors_of_the_provider() {
    for status in [400, 404, 500, 503] {
        assert_eq!(
            run(Script::error(status, "No such\nmodel")).await.failure(),
            failed(
                failure::PROVIDER_ERROR,
                &format!("The model provider answered with error {status}: No such model")
            )
        );
    }
    let page = Script::Status {
        status: 502,
        headers: Vec::new(),
        body: "<html><h1>Bad gateway</h1></html>".into(),
    };
    assert_eq!(
        run(page).await.failure(),
        failed(failure::PROVIDER_ERROR, "The model provider answered with error 502.")
    );
}

#[tokio::test]
async fn an_error_in_place_of_a_chunk() {
    let script = Script::ErrorChunk { chunks: one(), message: "The model crashed".into() };
    let reply = run(script).await;
    assert_eq!(
        reply.failure(),
        failed(failure::PROVIDER_ERROR, "The model provider reported an error: The model crashed")
    );
    assert_eq!(reply.text(), "One ");
}

#[tokio::test]
async fn a_redirect_is_not_an_answer() {
    let server = ModelServer::start().await.unwrap();
    let script = Script::Status { status: 204, headers: Vec::new(), body: String::new() };
    server.always("m", script);
    let reply = World::new(openai(&server.base_url(), "m")).say("hi").await;
    assert_eq!(reply.failure().0, failure::PROVIDER_ERROR);
    let redirect = Script::Status { status: 307, headers: Vec::new(), body: String::new() };
    assert!(run(redirect).await.failure().1.contains("redirect (307)"));
}

#[tokio::test]
async fn an_answer_that_is_no_stream() {
    let script = Script::Status { status: 200, headers: Vec::new(), body: "{}".into() };
    assert_eq!(
        run(script).await.failure(),
        failed(
            failure::PROVIDER_ERROR,
            "The model provider did not answer with an event stream; check its address."
        )
    );
}

#[tokio::test]
async fn nobody_listens() {
    let server = ModelServer::start().await.unwrap();
    let base_url = server.base_url();
    // The task that listens is gone once another port-less request fails; binding again proves it.
    let address = server.address();
    drop(server);
    while tokio::net::TcpListener::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    let reply = World::new(openai(&base_url, "m")).say("hi").await;
    assert_eq!(reply.failure().0, failure::PROVIDER_UNREACHABLE);
}

#[tokio::test]
async fn silence_before_the_first_byte_and_in_the_middle() {
    let detail = "The model provider said nothing for 0.3 seconds.";
    let limits = Limits { provider_silent: Duration::from_millis(300), ..Limits::default() };
    let reply = run_with(Script::Silent, limits).await;
    assert_eq!(reply.failure(), failed(failure::PROVIDER_SILENT, detail));
    let reply = run_with(Script::SilentAfter(one()), limits).await;
    assert_eq!(reply.failure(), failed(failure::PROVIDER_SILENT, detail));
    assert_eq!(reply.text(), "One ");
}

#[tokio::test]
async fn an_answer_that_is_cut() {
    for script in [Script::Cut(one()), Script::Abort(one())] {
        let reply = run(script).await;
        assert_eq!(reply.failure().0, failure::PROVIDER_CUT);
        assert_eq!(reply.text(), "One ");
    }
    assert_eq!(run(Script::Cut(Vec::new())).await.failure().0, failure::PROVIDER_CUT);
}

#[tokio::test]
async fn a_malformed_chunk() {
    let reply = run(Script::Malformed(one())).await;
    assert_eq!(
        reply.failure(),
        failed(failure::PROVIDER_CUT, "The model provider's answer is malformed.")
    );
    assert_eq!(reply.text(), "One ");
}

#[tokio::test]
async fn a_reply_without_a_word() {
    for (reason, detail) in [
        ("stop", "The model ended its reply without a word."),
        ("length", "The model used up its length before it wrote a word."),
        ("content_filter", "The provider's content filter withheld the reply."),
    ] {
        let reply = run(Script::Nothing(reason.into())).await;
        assert_eq!(reply.failure(), failed(failure::EMPTY_REPLY, detail));
    }
    assert_eq!(run(Script::Say(" \n ".into())).await.failure().0, failure::EMPTY_REPLY);
}

#[tokio::test]
async fn a_reply_that_is_too_long() {
    let reply = run(Script::Say("x".repeat(MAX_REPLY_BYTES + 1))).await;
    assert_eq!(
        reply.failure(),
        failed(failure::REPLY_TOO_LONG, "The model wrote more than 64 KiB.")
    );
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::Say("x".repeat(MAX_REPLY_BYTES)));
    let reply = World::new(openai(&server.base_url(), "m")).say("hi").await;
    assert_eq!(reply.text().len(), MAX_REPLY_BYTES);
    reply.usage();
}

#[tokio::test]
async fn an_address_that_is_not_allowed() {
    let world =
        World::over(openai("http://10.0.0.1/v1", "m"), Limits::default(), Arc::new(Refusing));
    assert_eq!(
        world.say("hi").await.failure(),
        failed(failure::ADDRESS_NOT_ALLOWED, "It is NotAllowed.")
    );
}

#[tokio::test]
async fn an_address_or_a_key_that_makes_no_request() {
    for base_url in ["", "not a url", "http://"] {
        let world = World::new(openai(base_url, "m"));
        let (code, detail, _) = world.say("hi").await.failure();
        let expected = [failure::PROVIDER_ERROR, failure::ADDRESS_NOT_ALLOWED];
        assert!(expected.contains(&code.as_str()), "{base_url:?}: {code} {detail}");
    }
    let server = ModelServer::start().await.unwrap();
    let world = World::new(ResolvedModel::OpenaiCompatible {
        base_url: server.base_url(),
        model: "m".into(),
        api_key: Some(convene_model::agents::ApiKey::new("two\nlines".into())),
        options: serde_json::Map::new(),
    });
    assert_eq!(world.say("hi").await.failure().0, failure::PROVIDER_ERROR);
    assert!(server.requests().is_empty());
}
