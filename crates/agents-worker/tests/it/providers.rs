//! A model behind OpenAI's chat completions: what is sent, and what becomes of the answer.

use std::time::Duration;

use convene_agents_worker::Limits;
use convene_model::{
    MessageId,
    agents::{ResolvedModel, Usage},
};
use convene_testing::model_server::{ModelServer, Script};
use futures_util::StreamExt;
use serde_json::json;

use crate::world::{KEY, World, agent_author, message, openai, request, user};

#[tokio::test]
async fn a_reply_is_streamed_with_its_usage() {
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::Say("Grüße an alle 🙂!".into()));
    let world = World::new(openai(&server.base_url(), "m"));
    let reply = world.say("@Aria hi").await;
    assert_eq!(reply.text(), "Grüße an alle 🙂!");
    assert_eq!(
        reply.usage(),
        Some(Usage { input_tokens: 10, output_tokens: 4, ..Usage::default() })
    );
}

#[tokio::test]
async fn a_chunk_is_passed_on_before_the_next_one_is_there() {
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::SilentAfter(vec!["One".into()]));
    let world = World::new(openai(&server.base_url(), "m"));
    let mut body = world.open(&request("hi")).await.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!(&first[..], b"data: {\"type\":\"delta\",\"offset\":0,\"text\":\"One\"}\n\n");
    assert_eq!(server.open_answers(), 1);
}

#[tokio::test]
async fn the_provider_is_asked_as_its_documentation_says() {
    let server = ModelServer::start().await.unwrap();
    let world = World::new(openai(&server.base_url(), "some/model:latest"));
    let mut call = request("hello @Aria");
    call.messages.push(message("m2", agent_author("a1"), "Hello!"));
    call.messages.push(message("m3", agent_author("a2"), "Shorter."));
    call.messages.push(message("m4", user("u2"), "@Aria and you?"));
    call.trigger = MessageId::new("m4").unwrap();
    let reply = world.invoke(&call).await;
    assert_eq!(reply.text(), "You said: Critic: Shorter.\n\nBen: @Aria and you?");

    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let sent = &requests[0];
    assert_eq!((sent.method.as_str(), sent.uri.path()), ("POST", "/v1/chat/completions"));
    assert_eq!(sent.header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    let mut body = sent.body.clone();
    let system = body["messages"][0].take();
    assert_eq!(system["role"], "system");
    assert!(system["content"].as_str().unwrap().starts_with("Be brief.\n\nYou are Aria, "));
    assert_eq!(
        body,
        json!({
            "model": "some/model:latest",
            "stream": true,
            "stream_options": {"include_usage": true},
            "messages": [
                null,
                {"role": "user", "content": "Ana: hello @Aria"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "Critic: Shorter.\n\nBen: @Aria and you?"},
            ],
        })
    );
}

#[tokio::test]
async fn a_provider_without_a_key_is_sent_none() {
    let server = ModelServer::start().await.unwrap();
    let world = World::new(ResolvedModel::OpenaiCompatible {
        base_url: format!("{}/", server.base_url()),
        model: "m".into(),
        api_key: None,
        options: serde_json::Map::new(),
    });
    world.say("hi").await.usage();
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn the_agents_own_name_in_front_of_its_reply_is_taken_away() {
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::Say("Aria: Good day, Ana.".into()));
    let world = World::new(openai(&server.base_url(), "m"));
    assert_eq!(world.say("hi").await.text(), "Good day, Ana.");
}

#[tokio::test]
async fn a_service_that_queues_is_waited_for_while_it_gives_signs_of_life() {
    let server = ModelServer::start().await.unwrap();
    let pause = Duration::from_millis(50);
    server.always("m", Script::Comments { count: 12, pause, text: "At last.".into() });
    let limits = Limits { provider_silent: Duration::from_millis(500), ..Limits::default() };
    let world = World::with(openai(&server.base_url(), "m"), limits);
    assert_eq!(world.say("hi").await.text(), "At last.");
}

#[tokio::test]
async fn a_quiet_answer_is_kept_alive() {
    let server = ModelServer::start().await.unwrap();
    let chunks = vec!["Done.".to_owned()];
    server.always("m", Script::Slow { chunks, pause: Duration::from_millis(100) });
    let limits = Limits { heartbeat: Duration::from_millis(10), ..Limits::default() };
    let world = World::with(openai(&server.base_url(), "m"), limits);
    let reply = world.say("hi").await;
    assert_eq!(reply.text(), "Done.");
    assert!(reply.comments > 0);
}

#[tokio::test]
async fn dropping_the_answer_cancels_the_providers_request() {
    let server = ModelServer::start().await.unwrap();
    server.always("after", Script::SilentAfter(vec!["One".into()]));
    server.always("before", Script::Silent);
    for model in ["after", "before"] {
        let world = World::new(openai(&server.base_url(), model));
        let mut body = world.open(&request("hi")).await.into_body().into_data_stream();
        {
            // Nothing is sent before somebody reads.
            let mut first = body.next();
            tokio::select! {
                chunk = &mut first => assert!(chunk.unwrap().unwrap().starts_with(b"data: ")),
                () = server.wait_for_open_answers(1) => {}
            }
        }
        server.wait_for_open_answers(1).await;
        drop(body);
        server.wait_for_open_answers(0).await;
    }
}
