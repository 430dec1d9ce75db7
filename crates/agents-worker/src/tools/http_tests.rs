//! How arguments become requests.

use convene_model::agents::{ApiKey, Approvers, NamedValue};
use serde_json::json;

use super::*;

fn tool() -> HttpTool {
    HttpTool {
        tool_id: "t1".into(),
        version: 1,
        name: "issues".into(),
        description: String::new(),
        parameters: json!({"type": "object"}),
        base_url: "https://api.example.com/v2/".into(),
        methods: vec!["GET".into(), "POST".into(), "DELETE".into()],
        path: String::new(),
        headers: Vec::new(),
        query: Vec::new(),
        timeout_ms: 1000,
        max_response_bytes: 1000,
        response: ResponseFormat::Text,
        auto_approve: false,
        approvers: Approvers::Initiator,
    }
}

fn sent(tool: &HttpTool, arguments: Value) -> Result<Request<Bytes>, &'static str> {
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    request(tool, &arguments).map_err(|failure| failure.code)
}

fn uri(tool: &HttpTool, arguments: Value) -> Result<String, &'static str> {
    sent(tool, arguments).map(|request| request.uri().to_string())
}

#[test]
fn arguments_are_the_query_of_a_request_without_a_body_and_the_body_of_any_other() {
    let tool = tool();
    let get = sent(&tool, json!({"q": "a b", "tags": ["x", 2], "none": null})).unwrap();
    assert_eq!(get.uri(), "https://api.example.com/v2/?q=a+b&tags=x&tags=2");
    assert!(get.body().is_empty());
    let delete = sent(&tool, json!({"method": "delete", "id": 7})).unwrap();
    assert_eq!((delete.method(), delete.uri().query()), (&Method::DELETE, Some("id=7")));
    let post = sent(&tool, json!({"method": "POST", "title": "x", "on": true})).unwrap();
    assert_eq!(post.uri(), "https://api.example.com/v2/");
    assert_eq!(&post.body()[..], br#"{"on":true,"title":"x"}"#);
    assert_eq!(post.headers()["content-type"], "application/json");
}

#[test]
fn only_the_tools_own_methods_can_be_chosen_and_only_where_there_are_several() {
    let mut tool = tool();
    assert_eq!(uri(&tool, json!({"method": "PATCH"})), Err("invalid_arguments"));
    assert_eq!(uri(&tool, json!({"method": 1})), Err("invalid_arguments"));
    tool.methods = vec!["POST".into()];
    let post = sent(&tool, json!({"method": "DELETE"})).unwrap();
    assert_eq!(post.method(), Method::POST);
    assert_eq!(&post.body()[..], br#"{"method":"DELETE"}"#);
}

#[test]
fn a_path_is_filled_with_encoded_arguments() {
    let mut tool = tool();
    tool.path = "/repos/{repo}/files/{+path}".into();
    let found = uri(&tool, json!({"repo": "a/b?c", "path": "src/main.rs", "ref": "x"}));
    let expected = "https://api.example.com/v2/repos/a%2Fb%3Fc/files/src/main.rs?ref=x";
    assert_eq!(found.as_deref(), Ok(expected));
    assert_eq!(uri(&tool, json!({"repo": "a"})), Err("invalid_arguments"));
    assert_eq!(uri(&tool, json!({"repo": "", "path": "x"})), Err("invalid_arguments"));
    assert_eq!(uri(&tool, json!({"repo": ["a"], "path": "x"})), Err("invalid_arguments"));
}

#[test]
fn no_argument_leads_out_of_the_tools_address() {
    let mut tool = tool();
    tool.path = "{+path}".into();
    for path in ["..", "../admin", "a/../../admin", ".", "a/./b"] {
        assert_eq!(uri(&tool, json!({"path": path})), Err("invalid_arguments"), "{path}");
    }
    for path in
        ["@evil.example/", ".evil.example", "//evil.example/x", "%2e%2e/x", "\\..\\x", "?a#b"]
    {
        let found = uri(&tool, json!({"path": path})).unwrap();
        assert!(found.starts_with("https://api.example.com/v2/"), "{path}: {found}");
        assert!(!found.contains("/../") && !found.contains('#'), "{path}: {found}");
    }
    tool.base_url = "https://api.example.com".into();
    tool.path = "{name}".into();
    for name in ["@evil.example", ":80@evil.example", ".evil.example", "..", "\t//evil"] {
        if let Ok(found) = uri(&tool, json!({"name": name})) {
            assert!(found.starts_with("https://api.example.com/"), "{name}: {found}");
        }
    }
}

#[test]
fn what_the_configuration_sets_is_sent_and_cannot_be_set_by_arguments() {
    let mut tool = tool();
    let secret = |text: &str| ToolValue::Secret(ApiKey::new(text.into()));
    tool.query = vec![NamedValue { name: "key".into(), value: secret("k&1") }];
    tool.headers = vec![
        NamedValue { name: "Authorization".into(), value: secret("Bearer t") },
        NamedValue { name: "Accept".into(), value: ToolValue::Plain("text/csv".into()) },
    ];
    let get = sent(&tool, json!({"q": "x"})).unwrap();
    assert_eq!(get.uri().query(), Some("key=k%261&q=x"));
    assert_eq!(get.headers()["accept"], "text/csv");
    assert_eq!(get.headers()["authorization"], "Bearer t");
    assert!(get.headers()["authorization"].is_sensitive());
    assert_eq!(uri(&tool, json!({"key": "mine"})), Err("invalid_arguments"));
}

#[test]
fn a_configuration_that_makes_no_request_is_told_as_one() {
    for name in ["Host", "content-length", "a b", ""] {
        let mut tool = tool();
        let value = ToolValue::Plain("x".into());
        tool.headers = vec![NamedValue { name: name.into(), value }];
        assert_eq!(uri(&tool, json!({})), Err("misconfigured"), "{name:?}");
    }
    let mut tool = tool();
    tool.path = "/{open".into();
    assert_eq!(uri(&tool, json!({})), Err("misconfigured"));
    tool.path = String::new();
    tool.base_url = "no url".into();
    assert_eq!(uri(&tool, json!({})), Err("misconfigured"));
}
