//! `http_request` tools against a service: what is sent, what comes back, and what is refused.

use convene_model::agents::{
    ApiKey, Approvers, HttpTool, NamedValue, ResolvedTool, ResponseFormat, ToolStatus, ToolValue,
};
use convene_testing::{
    model_server::{ModelServer, Script},
    web_service::WebService,
};
use serde_json::{Value, json};

use crate::world::{World, openai};

const SECRET: &str = "s3cr3t/value+42";

struct Scene {
    server: ModelServer,
    service: WebService,
    world: World,
}

/// What came of one call: status, what people see, what the model was told.
struct Made {
    status: ToolStatus,
    summary: String,
    told: String,
}

impl Scene {
    async fn new() -> Self {
        let server = ModelServer::start().await.unwrap();
        let service = WebService::start().await.unwrap();
        let world = World::new(openai(&server.base_url(), "m"));
        Self { server, service, world }
    }

    fn tool(&self, path: &str) -> HttpTool {
        HttpTool {
            tool_id: "t1".into(),
            version: 1,
            name: "look".into(),
            description: "Looks something up.".into(),
            parameters: json!({"type": "object"}),
            base_url: self.service.url(),
            methods: vec!["GET".into()],
            path: path.into(),
            headers: Vec::new(),
            query: Vec::new(),
            timeout_ms: 5_000,
            max_response_bytes: 10_000,
            response: ResponseFormat::Text,
            auto_approve: false,
            approvers: Approvers::Initiator,
        }
    }

    async fn call(&self, tool: HttpTool, arguments: Value) -> Made {
        self.world.give(vec![ResolvedTool::Http(Box::new(tool))]);
        self.server.next("m", Script::call("look", &arguments));
        let reply = self.world.say("@Aria").await;
        reply.usage();
        let (_, _, status, summary) = reply.tools().remove(0);
        let requests = self.server.requests();
        let (role, told) = requests.last().unwrap().messages().pop().unwrap();
        assert_eq!(role, "tool");
        Made { status, summary, told }
    }
}

#[tokio::test]
async fn a_request_is_what_the_configuration_and_the_arguments_say() {
    let scene = Scene::new().await;
    let mut tool = scene.tool("/echo/{id}");
    tool.headers = vec![NamedValue { name: "x-kind".into(), value: ToolValue::Plain("a".into()) }];
    tool.query = vec![NamedValue { name: "v".into(), value: ToolValue::Plain("2".into()) }];
    let made = scene.call(tool, json!({"id": "a b", "q": ["x", "y"]})).await;
    assert_eq!(made.status, ToolStatus::Ok);
    let echo: Value = serde_json::from_str(&made.told).unwrap();
    assert_eq!((&echo["method"], &echo["path"]), (&json!("GET"), &json!("/echo/a%20b")));
    assert_eq!((&echo["query"], &echo["headers"]["x-kind"]), (&json!("v=2&q=x&q=y"), &json!("a")));
}

#[tokio::test]
async fn a_head_tells_status_and_headers() {
    let scene = Scene::new().await;
    let tool = HttpTool { methods: vec!["HEAD".into()], ..scene.tool("/text/abc") };
    let made = scene.call(tool, json!({})).await;
    assert!(made.told.starts_with("status: 200\n"), "{}", made.told);
    assert!(made.told.contains("content-length: 3"), "{}", made.told);
}

#[tokio::test]
async fn a_secret_that_comes_back_is_seen_by_nobody() {
    let scene = Scene::new().await;
    let secret = |name: &str, text: &str| NamedValue {
        name: name.into(),
        value: ToolValue::Secret(ApiKey::new(text.into())),
    };
    for path in ["/echo", "/status/500"] {
        let mut tool = scene.tool(path);
        // "user:s3cr3t/value+42"
        tool.headers = vec![
            secret("authorization", "Basic dXNlcjpzM2NyM3QvdmFsdWUrNDI="),
            secret("x-key", SECRET),
        ];
        tool.query = vec![secret("key", SECRET)];
        let made = scene.call(tool, json!({})).await;
        let sent = scene.service.requests().pop().unwrap();
        assert_eq!(sent.headers["x-key"], SECRET);
        assert_eq!(sent.uri.query(), Some("key=s3cr3t%2Fvalue%2B42"));
        for text in [&made.summary, &made.told] {
            assert!(text.contains("[redacted]"), "{text}");
            for form in [SECRET, "s3cr3t%2Fvalue%2B42", "dXNlcjpzM2NyM3QvdmFsdWUrNDI", "s3cr3t"] {
                assert!(!text.contains(form), "{form}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_status_that_is_no_success_is_a_failure_with_what_the_service_said() {
    let scene = Scene::new().await;
    let made = scene.call(scene.tool("/status/404"), json!({"q": "x"})).await;
    assert_eq!(made.status, ToolStatus::Failed);
    assert!(made.summary.starts_with("The service answered with status 404."), "{}", made.summary);
    let told: Value = serde_json::from_str(&made.told).unwrap();
    assert_eq!(told["error"]["code"], "http_status");
    assert!(told["error"]["body"].as_str().unwrap().contains("q=x"), "{told}");
}

#[tokio::test]
async fn an_answer_must_be_what_the_configuration_says() {
    let scene = Scene::new().await;
    for (path, response, code) in [
        ("/text/abc", ResponseFormat::Json, "not_json"),
        ("/binary", ResponseFormat::Text, "not_text"),
        ("/binary", ResponseFormat::Json, "not_text"),
    ] {
        let made = scene.call(HttpTool { response, ..scene.tool(path) }, json!({})).await;
        assert_eq!(made.status, ToolStatus::Failed);
        assert!(made.told.contains(code), "{}", made.told);
    }
    let made = scene.call(scene.tool("/empty"), json!({})).await;
    assert_eq!((made.status, made.told.as_str()), (ToolStatus::Ok, "(status 204, no content)"));
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit() {
    let scene = Scene::new().await;
    let exact = HttpTool { max_response_bytes: 3, ..scene.tool("/text/abc") };
    assert_eq!(scene.call(exact, json!({})).await.told, "abc");
    let less = HttpTool { max_response_bytes: 2, ..scene.tool("/text/abc") };
    let made = scene.call(less, json!({})).await;
    assert_eq!(made.told, "ab\n(The answer is longer; only 2 bytes were read.)");
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_a_time_out() {
    let scene = Scene::new().await;
    for path in ["/silent", "/stuck"] {
        let made = scene.call(HttpTool { timeout_ms: 100, ..scene.tool(path) }, json!({})).await;
        assert_eq!(made.status, ToolStatus::Timeout);
        assert_eq!(made.summary, "It took longer than 0.1 seconds.");
    }
}

#[tokio::test]
async fn redirects_are_followed_within_their_origin_only() {
    let scene = Scene::new().await;
    let other = WebService::start().await.unwrap();
    let made = scene.call(scene.tool("/to"), json!({"/text/there": ""})).await;
    // The query is the target: `?%2Ftext%2Fthere=`, which leads to a path of that name.
    assert_eq!(made.status, ToolStatus::Failed);

    let follow = |target: String| {
        let mut tool = scene.tool("");
        tool.base_url = format!("{}/to?{target}", scene.service.url());
        scene.call(tool, json!({}))
    };
    let made = follow("/text/there".to_owned()).await;
    assert_eq!((made.status, made.told.as_str()), (ToolStatus::Ok, "there"));
    let made = follow(format!("{}/echo", other.url())).await;
    assert_eq!(made.status, ToolStatus::Failed);
    assert!(made.told.contains("\"redirect\""), "{}", made.told);
    let made = follow("/to?/to?/text/three".to_owned()).await;
    assert_eq!((made.status, made.told.as_str()), (ToolStatus::Ok, "three"));
    let made = follow("/to?/to?/to?/text/four".to_owned()).await;
    assert!(made.told.contains("more than 3 times"), "{}", made.told);
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_host_that_the_workspace_does_not_allow_is_not_reached() {
    let scene = Scene::new().await;
    scene.world.change(|agent| agent.tool_hosts = Some(vec!["api.example.com".into()]));
    let made = scene.call(scene.tool("/echo"), json!({})).await;
    assert_eq!(made.status, ToolStatus::Failed);
    assert!(made.summary.contains("does not allow its tools to reach"), "{}", made.summary);
    assert!(scene.service.requests().is_empty());
    let host = scene.service.host();
    scene.world.change(|agent| agent.tool_hosts = Some(vec![host]));
    assert_eq!(scene.call(scene.tool("/echo"), json!({})).await.status, ToolStatus::Ok);
}

#[tokio::test]
async fn an_address_with_a_user_in_it_is_refused() {
    let scene = Scene::new().await;
    let base_url = scene.service.url().replace("http://", "http://user:pass@");
    let made = scene.call(HttpTool { base_url, ..scene.tool("/echo") }, json!({})).await;
    assert!(made.told.contains("address_not_allowed"), "{}", made.told);
    assert!(scene.service.requests().is_empty());
}
