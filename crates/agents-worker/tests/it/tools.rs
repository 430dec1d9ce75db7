//! Calls of tools: what is made within an attempt, what is handed over, and how a run goes on.

use convene_model::{
    agents::{
        ApiKey, Approvers, BuiltinTool, HttpTool, InvokeEvent, NamedValue, Outcome, ResolvedTool,
        ResponseFormat, Resume, ResumedCall, ToolStatus, ToolValue, Usage, Verdict, call_hash,
        failure,
    },
    limits::{MAX_CONTINUATION_BYTES, MAX_TOOL_CALLS, MAX_TOOL_ROUNDS, RUN_TOKENS},
};
use convene_testing::{
    model_server::{ModelServer, Script},
    web_service::WebService,
};
use serde_json::{Value, json};

use crate::world::{Reply, World, openai, request};

const SECRET: &str = "s3cr3t-value-42";

/// A tool that writes to a service.
fn note(service: &WebService) -> HttpTool {
    HttpTool {
        tool_id: "t1".into(),
        version: 3,
        name: "note".into(),
        description: "Writes a note.".into(),
        parameters: json!({"type": "object", "properties": {"text": {"type": "string"}}}),
        base_url: format!("{}/echo", service.url()),
        methods: vec!["POST".into()],
        path: String::new(),
        headers: vec![NamedValue {
            name: "authorization".into(),
            value: ToolValue::Secret(ApiKey::new(format!("Bearer {SECRET}"))),
        }],
        query: Vec::new(),
        timeout_ms: 5_000,
        max_response_bytes: 10_000,
        response: ResponseFormat::Json,
        auto_approve: false,
        approvers: Approvers::Initiator,
    }
}

fn builtins() -> Vec<ResolvedTool> {
    BuiltinTool::ALL.iter().map(|name| ResolvedTool::Builtin { name: *name }).collect()
}

struct Scene {
    server: ModelServer,
    service: WebService,
    world: World,
}

impl Scene {
    async fn new() -> Self {
        let server = ModelServer::start().await.unwrap();
        let service = WebService::start().await.unwrap();
        let world = World::new(openai(&server.base_url(), "m"));
        let mut tools = builtins();
        tools.push(ResolvedTool::Http(Box::new(note(&service))));
        world.give(tools);
        Self { server, service, world }
    }

    /// What the model was told of its calls in the last request.
    fn told(&self) -> Vec<String> {
        let requests = self.server.requests();
        let messages = requests.last().unwrap().messages();
        let tool = |(role, text): (String, String)| (role == "tool").then_some(text);
        messages.into_iter().filter_map(tool).collect()
    }

    /// A run that has handed over one call to `note`.
    async fn handed_over(&self) -> Reply {
        self.server.next(
            "m",
            Script::Call {
                text: "I write it down.".into(),
                calls: vec![("note".into(), json!({"text": "milk"}).to_string())],
            },
        );
        self.world.say("@Aria note milk").await
    }

    /// The next attempt, with this verdict on the one call.
    async fn resumed(&self, before: &Reply, verdict: Verdict) -> Reply {
        let (calls, continuation) = before.requested();
        let mut call = request("@Aria note milk");
        call.attempt = 2;
        call.resume = Some(Resume {
            continuation,
            offset: before.text().len() as u64,
            calls: calls
                .into_iter()
                .map(|call| ResumedCall {
                    call_id: call.call_id,
                    hash: call.hash,
                    verdict: verdict.clone(),
                })
                .collect(),
        });
        self.world.invoke(&call).await
    }
}

#[tokio::test]
async fn a_call_that_changes_nothing_is_made_within_the_attempt() {
    let scene = Scene::new().await;
    let script = Script::Call {
        text: "Let me see.".into(),
        calls: vec![("calculator".into(), json!({"expression": "6*7"}).to_string())],
    };
    scene.server.next("m", script);
    scene.server.next("m", Script::Say("It is 42.".into()));
    let reply = scene.world.say("@Aria 6*7?").await;
    assert_eq!(reply.text(), "Let me see.\n\nIt is 42.");
    assert_eq!(
        reply.tools(),
        [("calculator".into(), r#"{"expression":"6*7"}"#.into(), ToolStatus::Ok, "42".into())]
    );
    let usage = Usage { input_tokens: 20, output_tokens: 6, ..Usage::default() };
    assert_eq!(reply.usage(), Some(usage));
    assert_eq!(scene.told(), ["42"]);
    let sent = &scene.server.requests()[1].body;
    let said = &sent["messages"][2];
    assert_eq!((&said["role"], &said["content"]), (&json!("assistant"), &json!("Let me see.")));
    assert_eq!(said["tool_calls"][0]["function"]["name"], "calculator");
    let names: Vec<_> =
        sent["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, ["current_time", "calculator", "search_history", "note"]);
}

#[tokio::test]
async fn calls_of_one_round_are_told_in_their_order() {
    let scene = Scene::new().await;
    let sum = |text: &str| ("calculator".to_owned(), json!({"expression": text}).to_string());
    let calls = vec![sum("1+1"), ("current_time".to_owned(), String::new()), sum("2+2")];
    scene.server.next("m", Script::Call { text: String::new(), calls });
    let reply = scene.world.say("@Aria").await;
    assert_eq!(reply.tools().len(), 3);
    let told = scene.told();
    assert_eq!((told[0].as_str(), told[2].as_str()), ("2", "4"));
    assert!(told[1].contains("2027-01-15T08:00:00Z"), "{}", told[1]);
    // The finished text comes without a paragraph before it: nothing was said.
    assert!(reply.text().starts_with("You said:"), "{}", reply.text());
}

#[tokio::test]
async fn arguments_that_are_not_json_are_a_failure_for_the_model_and_for_people() {
    let scene = Scene::new().await;
    let calls = vec![("calculator".into(), "{\"expression\": ".into())];
    scene.server.next("m", Script::Call { text: String::new(), calls });
    scene.server.next("m", Script::Say("Sorry.".into()));
    let reply = scene.world.say("@Aria").await;
    assert_eq!(reply.text(), "Sorry.");
    let (tool, arguments, status, summary) = reply.tools().remove(0);
    assert_eq!((tool.as_str(), status), ("calculator", ToolStatus::Failed));
    let shown: Value = serde_json::from_str(&arguments).unwrap();
    assert_eq!(shown, json!("{\"expression\":"));
    assert!(summary.starts_with("The arguments are not JSON"), "{summary}");
    assert!(scene.told()[0].contains("invalid_arguments"), "{}", scene.told()[0]);
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_a_failure_for_the_model_and_for_people() {
    let scene = Scene::new().await;
    scene.server.next("m", Script::call("format disk", &json!({})));
    let reply = scene.world.say("@Aria").await;
    let (tool, _, status, _) = reply.tools().remove(0);
    assert_eq!((tool.as_str(), status), ("format_disk", ToolStatus::Failed));
    assert!(scene.told()[0].contains("unknown_tool"), "{}", scene.told()[0]);
}

#[tokio::test]
async fn after_the_last_round_a_model_must_answer() {
    let scene = Scene::new().await;
    for _ in 0..MAX_TOOL_ROUNDS {
        scene.server.next("m", Script::call("calculator", &json!({"expression": "1+1"})));
    }
    scene.server.next("m", Script::Say("Two.".into()));
    let reply = scene.world.say("@Aria").await;
    assert_eq!(reply.text(), "Two.");
    let requests = scene.server.requests();
    assert_eq!(requests.len(), MAX_TOOL_ROUNDS as usize + 1);
    let choice = |request: &convene_testing::model_server::Recorded| {
        request.body.get("tool_choice").cloned()
    };
    assert_eq!(requests.last().and_then(choice), Some(json!("none")));
    assert_eq!(requests.iter().rev().nth(1).and_then(choice), None);

    let script = Script::call("calculator", &json!({"expression": "1+1"}));
    scene.server.always("m", script);
    let reply = scene.world.say("@Aria").await;
    assert_eq!(reply.failure().0, failure::TOO_MANY_TOOL_CALLS);
    let Outcome::Failed { usage, .. } = reply.outcome() else { panic!() };
    assert_eq!(usage.unwrap().input_tokens, 10 * (u64::from(MAX_TOOL_ROUNDS) + 1));
}

#[tokio::test]
async fn a_round_may_have_as_many_calls_as_the_limit_and_no_more() {
    let scene = Scene::new().await;
    let call = ("calculator".to_owned(), json!({"expression": "1+1"}).to_string());
    for (calls, fails) in [(MAX_TOOL_CALLS, false), (MAX_TOOL_CALLS + 1, true)] {
        let calls = vec![call.clone(); calls];
        scene.server.next("m", Script::Call { text: String::new(), calls });
        let reply = scene.world.say("@Aria").await;
        assert_eq!(matches!(reply.outcome(), Outcome::Failed { .. }), fails);
    }
}

#[tokio::test]
async fn a_call_that_may_change_something_is_handed_over_and_not_made() {
    let scene = Scene::new().await;
    let reply = scene.handed_over().await;
    assert_eq!(reply.text(), "I write it down.");
    let (calls, continuation) = reply.requested();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    let schema = note(&scene.service).parameters;
    assert_eq!((call.tool.as_str(), call.tool_version), ("note", 3));
    assert_eq!(call.arguments, r#"{"text":"milk"}"#);
    assert_eq!(call.hash, call_hash("note", 3, &schema, r#"{"text":"milk"}"#));
    assert_eq!(call.approvers, Some(Approvers::Initiator));
    assert!(!continuation.contains(SECRET) && !continuation.contains(crate::world::KEY));
    assert!(continuation.len() <= MAX_CONTINUATION_BYTES);
    assert!(scene.service.requests().is_empty());
    let Outcome::ToolRequested { usage, .. } = reply.outcome() else { panic!() };
    assert_eq!(usage.unwrap().input_tokens, 10);
}

#[tokio::test]
async fn a_call_that_is_approved_by_its_configuration_is_handed_over_all_the_same() {
    let scene = Scene::new().await;
    let free = HttpTool { auto_approve: true, ..note(&scene.service) };
    scene.world.give(vec![ResolvedTool::Http(Box::new(free))]);
    let (calls, _) = scene.handed_over().await.requested();
    assert_eq!(calls[0].approvers, None);
    assert!(scene.service.requests().is_empty());
}

#[tokio::test]
async fn what_was_permitted_is_made_once_and_the_reply_goes_on() {
    let scene = Scene::new().await;
    let before = scene.handed_over().await;
    scene.server.next("m", Script::Say("Done.".into()));
    let after = scene.resumed(&before, Verdict::Make).await;
    let sent = scene.service.requests();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].method.as_str(), sent[0].body.as_str()), ("POST", r#"{"text":"milk"}"#));
    assert_eq!(sent[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(after.deltas(), [(16, "\n\nDone.".to_owned())]);
    let (tool, arguments, status, summary) = after.tools().remove(0);
    assert_eq!((tool.as_str(), arguments.as_str()), ("note", r#"{"text":"milk"}"#));
    assert_eq!(status, ToolStatus::Ok);
    assert!(summary.contains("[redacted]") && !summary.contains(SECRET), "{summary}");
    let told = scene.told();
    assert!(told[0].contains("milk") && !told[0].contains(SECRET), "{}", told[0]);
    let usage = after.usage().unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (20, 5));
    assert!(usage.egress_bytes > 200, "{}", usage.egress_bytes);
}

#[tokio::test]
async fn what_was_not_permitted_or_is_not_known_is_told_to_the_model_and_not_made() {
    for (verdict, expected) in [
        (Verdict::Denied, "denied"),
        (Verdict::Unknown, "nobody knows whether it took effect"),
        (
            Verdict::Finished { status: ToolStatus::Ok, summary: "It is noted.".into() },
            "It is noted.",
        ),
    ] {
        let scene = Scene::new().await;
        let before = scene.handed_over().await;
        let after = scene.resumed(&before, verdict).await;
        assert!(scene.told()[0].contains(expected), "{expected}: {}", scene.told()[0]);
        assert_eq!(after.tools(), []);
        assert!(scene.service.requests().is_empty());
        after.usage();
    }
}

#[tokio::test]
async fn a_call_that_was_handed_over_and_is_not_spoken_of_is_not_made() {
    let scene = Scene::new().await;
    let before = scene.handed_over().await;
    let (_, continuation) = before.requested();
    let mut call = request("@Aria note milk");
    call.attempt = 2;
    call.resume = Some(Resume { continuation, offset: 16, calls: Vec::new() });
    scene.world.invoke(&call).await.usage();
    assert!(scene.told()[0].contains("nobody knows"), "{}", scene.told()[0]);
    assert!(scene.service.requests().is_empty());
}

#[tokio::test]
async fn a_tool_that_was_changed_in_between_voids_the_permission() {
    type Change = fn(&mut HttpTool);
    let changes: [Change; 3] = [
        |tool| tool.version += 1,
        |tool| tool.parameters = json!({"type": "object"}),
        |tool| tool.name = "other".into(),
    ];
    for change in changes {
        let scene = Scene::new().await;
        let before = scene.handed_over().await;
        let mut tool = note(&scene.service);
        change(&mut tool);
        scene.world.give(vec![ResolvedTool::Http(Box::new(tool))]);
        let after = scene.resumed(&before, Verdict::Make).await;
        assert!(scene.service.requests().is_empty());
        let (_, _, status, summary) = after.tools().remove(0);
        assert_eq!(status, ToolStatus::Failed);
        assert!(summary.contains("changed"), "{summary}");
        assert!(scene.told()[0].contains("tool_changed"), "{}", scene.told()[0]);
    }
}

#[tokio::test]
async fn a_permission_for_other_arguments_is_void() {
    let scene = Scene::new().await;
    let before = scene.handed_over().await;
    let (calls, continuation) = before.requested();
    let mut call = request("@Aria note milk");
    call.attempt = 2;
    let tampered = continuation.replace("milk", "rum");
    let resumed = ResumedCall {
        call_id: calls[0].call_id.clone(),
        hash: calls[0].hash.clone(),
        verdict: Verdict::Make,
    };
    call.resume = Some(Resume { continuation: tampered, offset: 16, calls: vec![resumed] });
    scene.world.invoke(&call).await.usage();
    assert!(scene.service.requests().is_empty());
}

#[tokio::test]
async fn a_continuation_that_cannot_be_read_ends_the_run_before_anything_is_done() {
    let scene = Scene::new().await;
    let asked = scene.server.requests().len();
    for continuation in ["", "{}", "{\"v\":9}", &"x".repeat(MAX_CONTINUATION_BYTES + 1)] {
        let mut call = request("hi");
        let resume = Resume { continuation: continuation.to_owned(), offset: 0, calls: Vec::new() };
        call.resume = Some(resume);
        let reply = scene.world.invoke(&call).await;
        assert_eq!(reply.failure().0, failure::CONTINUATION_INVALID);
        assert_eq!(reply.events.len(), 1);
    }
    assert_eq!(scene.server.requests().len(), asked);
}

#[tokio::test]
async fn of_one_round_what_changes_nothing_is_made_and_the_rest_is_handed_over() {
    let scene = Scene::new().await;
    let calls = vec![
        ("note".into(), json!({"text": "a"}).to_string()),
        ("calculator".into(), json!({"expression": "1+1"}).to_string()),
        ("note".into(), json!({"text": "b"}).to_string()),
    ];
    scene.server.next("m", Script::Call { text: String::new(), calls });
    let before = scene.world.say("@Aria").await;
    assert_eq!(before.tools().len(), 1);
    let (calls, _) = before.requested();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].call_id, calls[1].call_id);
    let after = scene.resumed(&before, Verdict::Make).await;
    assert_eq!(after.tools().len(), 2);
    let sent: Vec<_> = scene.service.requests().into_iter().map(|sent| sent.body).collect();
    assert_eq!(sent, [r#"{"text":"a"}"#, r#"{"text":"b"}"#]);
    let told = scene.told();
    assert_eq!(told[1], "2");
    assert!(told[0].contains("\\\"a\\\"") && told[2].contains("\\\"b\\\""), "{told:?}");
    // No id of the run is used twice, over all its attempts.
    let mut ids: Vec<_> = before
        .events
        .iter()
        .chain(&after.events)
        .filter_map(|event| match event {
            InvokeEvent::ToolStarted { call_id, .. } => Some(call_id.clone()),
            InvokeEvent::Delta { .. }
            | InvokeEvent::ToolFinished { .. }
            | InvokeEvent::Finished(_) => None,
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_run_that_fails_after_rounds_says_what_it_used() {
    let scene = Scene::new().await;
    scene.server.next("m", Script::call("calculator", &json!({"expression": "1+1"})));
    scene.server.next("m", Script::rate_limited("3"));
    let reply = scene.world.say("@Aria").await;
    let Outcome::Failed { code, usage, .. } = reply.outcome() else { panic!() };
    assert_eq!(code, failure::PROVIDER_RATE_LIMITED);
    assert_eq!(usage.map(|usage| usage.input_tokens), Some(10));
    // What was cut in the middle used nobody knows how much.
    scene.server.next("m", Script::Cut(vec!["One ".into()]));
    let Outcome::Failed { usage, .. } = scene.world.say("@Aria").await.outcome() else { panic!() };
    assert_eq!(usage, None);
}

#[tokio::test]
async fn a_search_is_for_the_group_of_the_run_whatever_the_arguments_say() {
    let scene = Scene::new().await;
    let arguments = json!({"query": "milk", "group_id": "g2", "author": "@ben", "limit": 3});
    scene.server.next("m", Script::call("search_history", &arguments));
    *scene.world.orchestrator.answer.lock().unwrap() = (
        200,
        json!({"more": true, "hits": [{
            "message": {
                "seq": 12, "at": 1_800_000_000_000_u64, "message_id": "m9",
                "author": {"kind": "user", "id": "u2"}, "root": "m9", "hop": 0, "nth": 3, "text": "Buy milk!",
            },
            "snippet": [{"text": "Buy milk!"}],
        }]})
        .to_string(),
    );
    scene.world.say("@Aria").await.usage();
    let asked = scene.world.orchestrator.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, "/groups/g1/search");
    let body: Value = serde_json::from_str(&asked[0].1).unwrap();
    assert_eq!((&body["query"], &body["limit"]), (&json!("milk"), &json!(3)));
    assert!(asked[0].1.contains("\"u2\""), "{}", asked[0].1);
    assert_eq!(
        scene.told(),
        ["[12, 2027-01-15T08:00:00Z] Ben: Buy milk!\n\
          (There are older ones: ask again with before=12.)"]
    );
}

#[tokio::test]
async fn a_search_that_fails_is_told() {
    let scene = Scene::new().await;
    for (status, body, expected) in [
        (503, "down".to_owned(), "cannot be searched at the moment"),
        (
            400,
            json!({"type": "about:blank", "title": "x", "status": 400, "code": "invalid_request",
                   "detail": "no words"})
            .to_string(),
            "no words",
        ),
        (200, "[]".to_owned(), "malformed"),
    ] {
        *scene.world.orchestrator.answer.lock().unwrap() = (status, body);
        scene.server.next("m", Script::call("search_history", &json!({"query": "x"})));
        let reply = scene.world.say("@Aria").await;
        let (_, _, status, summary) = reply.tools().remove(0);
        assert_eq!(status, ToolStatus::Failed);
        assert!(summary.contains(expected), "{summary}");
    }
}

#[tokio::test]
async fn a_service_that_says_more_than_there_can_have_been_uses_nothing_up_and_is_told_of() {
    let scene = Scene::new().await;
    for said in [RUN_TOKENS * 10, u64::MAX] {
        scene.server.next("m", calculates(Some(said)));
        scene.server.next("m", Script::Say("It is 42.".into()));
        let reply = scene.world.say("@Aria 6*7?").await;
        assert_eq!(reply.text(), "It is 42.");
        let usage = reply.usage().unwrap();
        // Two small questions, of which each byte may be a token.
        assert!(usage.input_tokens < 10_000, "{usage:?}");
        assert_eq!(usage.excess_tokens, said - (usage.input_tokens - 10), "{usage:?}");
        assert!(!usage.tokens_unknown);
    }
}

#[tokio::test]
async fn a_service_that_says_zero_has_not_counted() {
    let scene = Scene::new().await;
    scene.server.next("m", calculates(Some(0)));
    scene.server.next("m", Script::Say("It is 42.".into()));
    let usage = scene.world.say("@Aria 6*7?").await.usage().unwrap();
    assert!(usage.tokens_unknown, "{usage:?}");
    assert_eq!(usage.input_tokens, 10, "what was counted once is known");
}

/// An answer that calls the calculator, for which the service says so many tokens, or nothing.
fn calculates(input_tokens: Option<u64>) -> Script {
    let answer = Box::new(Script::call("calculator", &json!({"expression": "6*7"})));
    Script::Metered { input_tokens, answer }
}

#[tokio::test]
async fn a_run_that_has_used_up_its_tokens_asks_its_model_no_more() {
    let scene = Scene::new().await;
    // A third of what a run may use, as the service says, which is no more than there can be.
    let third = RUN_TOKENS / 3;
    scene.world.change(|agent| agent.system_prompt = "a".repeat(third as usize));
    scene.server.next("m", calculates(Some(third)));
    scene.server.next("m", calculates(Some(third)));
    let reply = scene.world.say("@Aria 6*7?").await;
    let (code, detail, _) = reply.failure();
    assert_eq!(code, failure::TOKENS_USED_UP);
    assert!(detail.contains("200000"), "{detail}");
    assert_eq!(scene.server.requests().len(), 2, "it is not asked a third time");
    assert_eq!(reply.tools().len(), 2, "what it wanted before was done");
    assert_eq!(reply.usage().unwrap().input_tokens, 2 * third);

    scene.server.next("m", calculates(Some(RUN_TOKENS / 4)));
    scene.server.next("m", Script::Say("42".into()));
    assert_eq!(scene.world.say("@Aria 6*7?").await.text(), "42", "there is room for the rest");
}

#[tokio::test]
async fn tokens_that_nobody_counts_are_as_many_as_they_can_be_and_what_tools_sent_is_known_all_the_same()
 {
    let scene = Scene::new().await;
    // Three fifths of what a run may use, if each byte is a token.
    let long = "word ".repeat(RUN_TOKENS as usize / 5 * 3 / 5);
    scene.world.change(|agent| agent.system_prompt = long);
    scene.server.next("m", calculates(None));
    let reply = scene.world.say("@Aria 6*7?").await;
    assert_eq!(reply.failure().0, failure::TOKENS_USED_UP);
    assert_eq!(scene.server.requests().len(), 1);

    scene.world.change(|agent| agent.system_prompt = "word ".repeat(RUN_TOKENS as usize));
    let reply = scene.world.say("@Aria 6*7?").await;
    assert_eq!(reply.failure().0, failure::TOKENS_USED_UP);
    assert_eq!(reply.usage(), Some(Usage::default()), "no model was asked");
    assert_eq!(scene.server.requests().len(), 1);

    scene.world.change(|agent| agent.system_prompt = "Be brief.".to_owned());
    let mut note = note(&scene.service);
    note.methods = vec!["GET".into()];
    scene.world.give(vec![ResolvedTool::Http(Box::new(note))]);
    let call = ("note".to_owned(), json!({"text": "milk"}).to_string());
    let answer = Box::new(Script::Call { text: String::new(), calls: vec![call] });
    scene.server.next("m", Script::Metered { input_tokens: None, answer });
    scene.server.next("m", Script::Say("Done.".into()));
    let reply = scene.world.say("@Aria note milk").await;
    let usage = reply.usage().unwrap();
    assert!(usage.tokens_unknown && usage.egress_bytes > 0, "{usage:?}");
    assert_eq!(usage.tokens(), None);
}
