//! What providers cache of prompts: the requests of a conversation that grows begin with each other.

use convene_model::{
    MessageId,
    agents::{ApiKey, BuiltinTool, InvokeRequest, ResolvedModel, ResolvedTool},
};
use convene_testing::model_server::{ModelServer, Script};
use serde_json::{Map, Value, json};

use crate::world::{KEY, World, agent_author, message, openai, request, user};

/// The requests for four mentions, one after the other, each with a round of a tool's call.
async fn grown(model: impl Fn(&ModelServer) -> ResolvedModel) -> Vec<Value> {
    let server = ModelServer::start().await.unwrap();
    let world = World::new(model(&server));
    world.give(BuiltinTool::ALL.iter().map(|name| ResolvedTool::Builtin { name: *name }).collect());
    let mut call: InvokeRequest = request("@Aria one?");
    for nth in 1..=4 {
        let sum = json!({"expression": format!("{nth}+{nth}")});
        server.next("m", Script::call("calculator", &sum));
        server.next("m", Script::Say(format!("Answer {nth}.")));
        let reply = world.invoke(&call).await;
        assert_eq!(reply.text(), format!("Answer {nth}."));
        call.messages.push(message(&format!("a{nth}"), agent_author("a1"), &reply.text()));
        call.messages.push(message(&format!("b{nth}"), user("u2"), "Let me think."));
        call.messages.push(message(&format!("q{nth}"), user("u1"), "@Aria and now?"));
        call.trigger = MessageId::new(format!("q{nth}")).unwrap();
    }
    server.requests().into_iter().map(|request| request.body).collect()
}

/// A value without the marks of what is to be cached, which move along.
fn unmarked(value: &Value) -> Value {
    let mut value = value.clone();
    match &mut value {
        Value::Object(object) => {
            object.remove("cache_control");
            object.values_mut().for_each(|inner| *inner = unmarked(inner));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| *inner = unmarked(inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

/// What comes before the conversation is the same bytes in each request, and the conversation of each begins
/// with that of the last question to the model before it: within a run with the last request, and between
/// runs with the first one of the run before.
fn check(requests: &[Value], before: &[&str], conversation: &str) {
    assert_eq!(requests.len(), 8);
    let turns = |request: &Value| -> Vec<String> {
        let turns = request[conversation].as_array().unwrap();
        turns.iter().map(|turn| unmarked(turn).to_string()).collect()
    };
    for (nth, request) in requests.iter().enumerate().skip(1) {
        for name in before {
            assert_eq!(request[name].to_string(), requests[nth - 1][name].to_string(), "{name}");
        }
        let first_of_run = nth % 2 == 0;
        let earlier = turns(&requests[if first_of_run { nth - 2 } else { nth - 1 }]);
        let later = turns(request);
        assert!(later.len() > earlier.len());
        assert_eq!(later[..earlier.len()], earlier, "request {nth}");
    }
}

#[tokio::test]
async fn requests_to_anthropic_begin_with_each_other_up_to_the_mark_of_the_cache() {
    let requests = grown(|server| ResolvedModel::Anthropic {
        base_url: server.root_url(),
        model: "m".into(),
        api_key: ApiKey::new(KEY.into()),
        options: Map::new(),
    })
    .await;
    check(&requests, &["tools", "system"], "messages");
    for request in &requests {
        let mark = json!({"type": "ephemeral"});
        assert_eq!(request["system"][0]["cache_control"], mark);
        let messages = request["messages"].as_array().unwrap();
        let last = messages.last().unwrap()["content"].as_array().unwrap().last().unwrap();
        assert_eq!(last["cache_control"], mark, "the next request reads up to here");
        assert_eq!(request.to_string().matches("cache_control").count(), 2, "and nowhere else");
    }
}

#[tokio::test]
async fn requests_to_openai_begin_with_identical_messages() {
    let requests = grown(|server| openai(&server.base_url(), "m")).await;
    check(&requests, &["tools"], "messages");
}

#[tokio::test]
async fn requests_to_gemini_begin_with_identical_contents() {
    let requests = grown(|server| ResolvedModel::Gemini {
        base_url: server.root_url(),
        model: "m".into(),
        api_key: ApiKey::new(KEY.into()),
        options: Map::new(),
    })
    .await;
    check(&requests, &["tools", "systemInstruction"], "contents");
}
