//! Anthropic's and Google's APIs: what is sent, what becomes of the answer, and their faults.

use std::time::Duration;

use convene_agents_worker::Limits;
use convene_model::{
    MessageId,
    agents::{ApiKey, BuiltinTool, ModelPrice, ResolvedModel, ResolvedTool, ToolStatus, failure},
    limits::RUN_TOKENS,
};
use convene_testing::model_server::{ModelServer, Script};
use serde_json::{Map, Value, json};

use crate::world::{KEY, World, agent_author, message, openai, request, user};

type Model = fn(&ModelServer, Map<String, Value>) -> ResolvedModel;

fn anthropic(server: &ModelServer, options: Map<String, Value>) -> ResolvedModel {
    ResolvedModel::Anthropic {
        base_url: server.root_url(),
        model: "m".into(),
        api_key: ApiKey::new(KEY.into()),
        options,
    }
}

fn gemini(server: &ModelServer, options: Map<String, Value>) -> ResolvedModel {
    ResolvedModel::Gemini {
        base_url: server.root_url(),
        model: "m".into(),
        api_key: ApiKey::new(KEY.into()),
        options,
    }
}

fn compatible(server: &ModelServer, options: Map<String, Value>) -> ResolvedModel {
    let mut model = openai(&server.base_url(), "m");
    if let ResolvedModel::OpenaiCompatible { options: own, .. } = &mut model {
        *own = options;
    }
    model
}

const NEW: [Model; 2] = [anthropic, gemini];
const ALL: [Model; 3] = [anthropic, gemini, compatible];

struct Scene {
    server: ModelServer,
    world: World,
}

impl Scene {
    async fn new(model: Model) -> Self {
        Self::with(model, Map::new(), Limits::default()).await
    }

    async fn with(model: Model, options: Map<String, Value>, limits: Limits) -> Self {
        let server = ModelServer::start().await.unwrap();
        let world = World::with(model(&server, options), limits);
        Self { server, world }
    }
}

#[tokio::test]
async fn a_reply_is_streamed_with_its_usage() {
    for model in NEW {
        let scene = Scene::new(model).await;
        scene.server.always("m", Script::Say("Grüße an alle 🙂!".into()));
        let reply = scene.world.say("@Aria hi").await;
        assert_eq!(reply.text(), "Grüße an alle 🙂!");
        let usage = reply.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.cost()), (10, 4, None));
    }
}

#[tokio::test]
async fn each_call_of_a_model_costs_what_the_workspace_says_and_the_provider_counts() {
    let price = ModelPrice {
        input: 1_000_000,
        cached_input: Some(100_000),
        cache_write: Some(2_000_000),
        output: 5_000_000,
    };
    // Anthropic says that 1 of the 10 tokens was in its cache and 5 went into it.
    let read = [4 + 10 + 1, 10, 10];
    for (model, read) in ALL.into_iter().zip(read) {
        let scene = Scene::new(model).await;
        scene.world.change(|agent| agent.price = Some(price));
        scene.world.give(vec![ResolvedTool::Builtin { name: BuiltinTool::Calculator }]);
        scene.server.next("m", Script::call("calculator", &json!({"expression": "6*7"})));
        scene.server.next("m", Script::Say("It is 42.".into()));
        let usage = scene.world.say("@Aria 6*7?").await.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (20, 3));
        assert_eq!(usage.cost(), Some(2 * read + 15), "{usage:?}");
    }
    let scene = Scene::new(anthropic).await;
    scene.world.change(|agent| agent.price = Some(ModelPrice { output: 0, ..price }));
    let usage = scene.world.say("@Aria hi").await.usage().unwrap();
    assert_eq!((usage.cached_input_tokens, usage.cache_write_tokens), (1, 5));
    // 14.1 millionths.
    assert_eq!(usage.cost(), Some(15));
}

/// What a request lets the model write.
fn most_written(body: &Value) -> Option<u64> {
    let named = [&body["max_tokens"], &body["generationConfig"]["maxOutputTokens"]];
    named.into_iter().find_map(Value::as_u64)
}

#[tokio::test]
async fn what_a_model_may_write_is_limited_to_what_is_left_of_the_run() {
    for (model, whole) in ALL.into_iter().zip([Some(8_192), None, None]) {
        let scene = Scene::new(model).await;
        scene.world.say("@Aria hi").await.usage();
        let said = |nth: usize| most_written(&scene.server.requests()[nth].body);
        assert_eq!(said(0), whole, "there is more left than a model writes");
        let long = "x".repeat(RUN_TOKENS as usize - 5_000);
        scene.world.change(|agent| agent.system_prompt = long.clone());
        scene.world.say("@Aria hi").await.usage();
        let left = said(1).unwrap();
        assert!((2_000..4_000).contains(&left), "{left}");
        // As many more as there are left: there is no room for an answer.
        let longer = format!("{long}{}", "x".repeat(left as usize));
        scene.world.change(|agent| agent.system_prompt = longer);
        assert_eq!(scene.world.say("@Aria hi").await.failure().0, failure::TOKENS_USED_UP);
        assert_eq!(scene.server.requests().len(), 2, "it is not asked");
    }
}

#[tokio::test]
async fn a_model_that_writes_less_than_it_is_told_that_it_may_is_told_less() {
    let scene = Scene::new(compatible).await;
    let refused = || Script::error(400, "max_tokens is too large: 16384");
    scene.world.change(|agent| agent.system_prompt = "x".repeat(RUN_TOKENS as usize / 2));
    scene.server.next("m", refused());
    scene.server.next("m", Script::Say("Here I am.".into()));
    assert_eq!(scene.world.say("@Aria hi").await.text(), "Here I am.");
    let told = || {
        let requests = scene.server.requests();
        requests.iter().map(|request| most_written(&request.body)).collect::<Vec<_>>()
    };
    assert_eq!(told(), [Some(16_384), Some(4_096)]);
    for _ in 0..3 {
        scene.server.next("m", refused());
    }
    let (code, detail, _) = scene.world.say("@Aria hi").await.failure();
    assert_eq!(code, failure::PROVIDER_ERROR);
    assert!(detail.contains("too large"), "{detail}");
    assert_eq!(told()[2..], [Some(16_384), Some(4_096), Some(1_024)]);

    // Who is told nothing is asked once.
    scene.world.change(|agent| agent.system_prompt = "Be brief.".to_owned());
    scene.server.next("m", refused());
    assert_eq!(scene.world.say("@Aria hi").await.failure().0, failure::PROVIDER_ERROR);
    assert_eq!(told()[5..], [None]);
}

#[tokio::test]
async fn anthropic_is_asked_as_its_documentation_says() {
    let scene = Scene::new(anthropic).await;
    let mut call = request("hello @Aria");
    call.messages.push(message("m2", agent_author("a1"), "Hello!"));
    call.messages.push(message("m3", user("u2"), "@Aria and you?"));
    call.trigger = MessageId::new("m3").unwrap();
    let reply = scene.world.invoke(&call).await;
    assert_eq!(reply.text(), "You said: Ben: @Aria and you?");
    let requests = scene.server.requests();
    let sent = &requests[0];
    assert_eq!(sent.uri, "/v1/messages");
    assert_eq!(sent.header("x-api-key"), Some(KEY));
    assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(sent.header("authorization"), None);
    let mut body = sent.body.clone();
    let system = body["system"].take();
    assert!(system[0]["text"].as_str().unwrap().starts_with("Be brief.\n\nYou are Aria, "));
    assert_eq!(system[0]["cache_control"], json!({"type": "ephemeral"}));
    let text = |text: &str| json!({"type": "text", "text": text});
    let last = json!({
        "type": "text", "text": "Ben: @Aria and you?", "cache_control": {"type": "ephemeral"},
    });
    assert_eq!(
        body,
        json!({
            "model": "m",
            "max_tokens": 8192,
            "stream": true,
            "system": null,
            "messages": [
                {"role": "user", "content": [text("Ana: hello @Aria")]},
                {"role": "assistant", "content": [text("Hello!")]},
                {"role": "user", "content": [last]},
            ],
        })
    );
}

#[tokio::test]
async fn gemini_is_asked_as_its_documentation_says() {
    let scene = Scene::new(gemini).await;
    scene.world.say("hello @Aria").await.usage();
    let requests = scene.server.requests();
    let sent = &requests[0];
    assert_eq!(sent.uri, "/v1beta/models/m:streamGenerateContent?alt=sse");
    assert_eq!(sent.header("x-goog-api-key"), Some(KEY));
    let mut body = sent.body.clone();
    let system = body["systemInstruction"].take();
    assert!(system["parts"][0]["text"].as_str().unwrap().starts_with("Be brief."));
    let contents = json!([{"role": "user", "parts": [{"text": "Ana: hello @Aria"}]}]);
    assert_eq!(body, json!({"systemInstruction": null, "contents": contents}));
}

#[tokio::test]
async fn a_model_whose_name_is_a_path_is_not_asked() {
    for name in ["../x", "a/b", "", "m:other", "a?b", ".."] {
        let server = ModelServer::start().await.unwrap();
        let mut model = gemini(&server, Map::new());
        if let ResolvedModel::Gemini { model, .. } = &mut model {
            *model = name.into();
        }
        assert_eq!(World::new(model).say("hi").await.failure().0, failure::PROVIDER_ERROR);
        assert!(server.requests().is_empty());
    }
}

#[tokio::test]
async fn rounds_of_calls_are_what_the_service_takes() {
    for model in NEW {
        let scene = Scene::new(model).await;
        let tools = BuiltinTool::ALL.iter().map(|name| ResolvedTool::Builtin { name: *name });
        scene.world.give(tools.collect());
        let sum = |text: &str| ("calculator".to_owned(), json!({"expression": text}).to_string());
        let text = "Let me see.".to_owned();
        scene.server.next("m", Script::Call { text, calls: vec![sum("1+1"), sum("2 +")] });
        scene.server.next("m", Script::Call { text: String::new(), calls: vec![sum("2+2")] });
        scene.server.next("m", Script::Say("Done.".into()));
        let reply = scene.world.say("@Aria").await;
        assert_eq!(reply.text(), "Let me see.\n\nDone.");
        let made: Vec<_> = reply.tools().into_iter().map(|(_, _, status, _)| status).collect();
        assert_eq!(made, [ToolStatus::Ok, ToolStatus::Failed, ToolStatus::Ok]);
        let usage = reply.usage().unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (30, 4));
        let body = scene.server.requests()[2].body.to_string();
        assert!(body.contains("invalid_arguments") && body.contains("calculator"), "{body}");
    }
}

#[tokio::test]
async fn arguments_that_are_not_json_do_not_break_the_conversation() {
    let scene = Scene::new(anthropic).await;
    scene.world.give(vec![ResolvedTool::Builtin { name: BuiltinTool::Calculator }]);
    let calls = vec![("calculator".into(), "{\"expression\": ".into())];
    scene.server.next("m", Script::Call { text: String::new(), calls });
    scene.server.next("m", Script::Say("Sorry.".into()));
    let reply = scene.world.say("@Aria").await;
    assert_eq!((reply.text().as_str(), reply.tools()[0].2), ("Sorry.", ToolStatus::Failed));

    // Google's service parses calls itself and says that it could not.
    let scene = Scene::new(gemini).await;
    scene.world.give(vec![ResolvedTool::Builtin { name: BuiltinTool::Calculator }]);
    let calls = vec![("calculator".into(), "{\"expression\": ".into())];
    scene.server.next("m", Script::Call { text: String::new(), calls });
    let (code, _, _) = scene.world.say("@Aria").await.failure();
    assert_eq!(code, failure::EMPTY_REPLY);
}

#[tokio::test]
async fn options_are_sent_and_replace_nothing_that_the_worker_says() {
    let options = json!({
        "temperature": 0.2, "max_tokens": 5, "model": "other", "stream": false, "messages": [],
        "contents": [], "tools": [{"x": 1}], "system": "obey", "n": 9,
    });
    for model in ALL {
        let options = options.as_object().unwrap().clone();
        let scene = Scene::with(model, options, Limits::default()).await;
        scene.world.say("hi").await.usage();
        let body = &scene.server.requests()[0].body;
        assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.2), &json!(5)));
        assert!(body.get("tools").is_none() && body.get("n").is_none(), "{body}");
        assert_ne!(body["model"], "other");
        assert!(!body.to_string().contains("obey"), "{body}");
    }
}

#[tokio::test]
async fn faults_of_a_service_end_the_run_with_one_readable_sentence() {
    let one = || vec!["One ".to_owned()];
    for model in NEW {
        for (script, code) in [
            (Script::error(401, &format!("bad key {KEY}")), failure::PROVIDER_UNAUTHORIZED),
            (Script::rate_limited("7"), failure::PROVIDER_RATE_LIMITED),
            (Script::error(529, "Overloaded"), failure::PROVIDER_RATE_LIMITED),
            (Script::error(500, "x"), failure::PROVIDER_ERROR),
            (
                Script::ErrorChunk { chunks: one(), message: "crashed".into() },
                failure::PROVIDER_ERROR,
            ),
            (Script::Cut(one()), failure::PROVIDER_CUT),
            (Script::Cut(Vec::new()), failure::PROVIDER_CUT),
            (Script::Abort(one()), failure::PROVIDER_CUT),
            (Script::Malformed(one()), failure::PROVIDER_CUT),
            (Script::Silent, failure::PROVIDER_SILENT),
            (Script::SilentAfter(one()), failure::PROVIDER_SILENT),
            (Script::Nothing("length".into()), failure::EMPTY_REPLY),
            (Script::Nothing("content_filter".into()), failure::EMPTY_REPLY),
            (Script::Nothing("stop".into()), failure::EMPTY_REPLY),
        ] {
            let mut limits = Limits::default();
            if matches!(script, Script::Silent | Script::SilentAfter(_)) {
                limits.provider_silent = Duration::from_millis(300);
            }
            let scene = Scene::with(model, Map::new(), limits).await;
            scene.server.always("m", script.clone());
            let (found, detail, _) = scene.world.say("hi").await.failure();
            assert_eq!(found, code, "{script:?}: {detail}");
            assert!(!detail.contains(KEY) && !detail.contains('{'), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_google_says_when_to_come_back_and_when_a_key_is_wrong() {
    let refuse = |status: u16, error: Value| Script::Status {
        status,
        headers: Vec::new(),
        body: json!({"error": error}).to_string(),
    };
    let scene = Scene::new(gemini).await;
    let details = json!([{"@type": "x/google.rpc.RetryInfo", "retryDelay": "20s"}]);
    let error = json!({"code": 429, "message": "Quota exceeded", "details": details});
    scene.server.next("m", refuse(429, error));
    let (code, _, retry_after_ms) = scene.world.say("hi").await.failure();
    assert_eq!((code.as_str(), retry_after_ms), (failure::PROVIDER_RATE_LIMITED, Some(20_000)));
    let details = json!([{"reason": "API_KEY_INVALID"}]);
    let error = json!({"code": 400, "message": "API key not valid", "details": details});
    scene.server.next("m", refuse(400, error));
    assert_eq!(scene.world.say("hi").await.failure().0, failure::PROVIDER_UNAUTHORIZED);
}

#[tokio::test]
async fn an_overloaded_service_that_says_so_in_its_stream_asks_to_slow_down() {
    let scene = Scene::new(anthropic).await;
    let error = json!({"type": "overloaded_error", "message": "Overloaded"});
    let body = format!("event: error\ndata: {}\n\n", json!({"type": "error", "error": error}));
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    scene.server.next("m", Script::Status { status: 200, headers, body });
    let (code, detail, _) = scene.world.say("hi").await.failure();
    assert_eq!(code, failure::PROVIDER_RATE_LIMITED);
    assert_eq!(detail, "The model provider asks to slow down: Overloaded");
}
