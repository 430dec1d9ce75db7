//! Both APIs are held to their OpenAPI documents by requests that nobody thought of: schemathesis,
//! with an outside app's key for the infra API and a bearer for the App's. Each operation finds what it
//! is about, and does it at least once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
};

use convene_testing::{
    browser::free_port,
    client::{PASSWORD, Person},
    conformance::Portal,
    forge::Identity,
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::{ModelServer, Script},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{examples, openapi};

/// Generated requests of each operation, in the suite and in its long form.
const EXAMPLES: &str = "4";
const MANY_EXAMPLES: &str = "80";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,unsupported_method,allow_header_conformance";
/// A stream without an end, what would end the caller's own credentials, and what counts as so many failed
/// sign-ins that nobody could sign in any more.
const LEFT_OUT: [&str; 5] =
    ["followGroups", "signOut", "endSession", "endOtherSessions", "changePassword"];

/// The outside app's key is made of this.
const PORTAL: u8 = 71;

/// Operations that cannot succeed here, and the answer that shows that they were reached.
const BEYOND_REACH: [(&str, u16); 9] = [
    // An upgrade is no request that can be generated.
    ("openUpstream", 426),
    ("openSocket", 426),
    // The groups have records, or no snapshot.
    ("adoptGroup", 409),
    // The group may be for everybody by then.
    ("removeGroupMember", 422),
    // No run is under way, none may be made again, and no discussion waits for a person.
    ("cancelRun", 404),
    ("retryRun", 409),
    ("letContinue", 409),
    // One permission is asked for, and it may be decided by then.
    ("decideApproval", 409),
    // The archives have ended by the time that they are answered.
    ("readGroupTask", 404),
];

#[tokio::test]
async fn generated_requests_to_the_infra_api_find_no_undocumented_answer() {
    check_infra(EXAMPLES).await;
}

#[tokio::test]
async fn generated_requests_to_the_apps_api_find_no_undocumented_answer() {
    check_app(EXAMPLES).await;
}

#[tokio::test]
async fn soak_many_generated_requests_find_no_undocumented_answer() {
    check_infra(MANY_EXAMPLES).await;
    check_app(MANY_EXAMPLES).await;
}

async fn check_infra(examples: &str) {
    let dir = tempfile::tempdir().unwrap();
    let infra = format!("127.0.0.1:{}", free_port());
    let config = dir.path().join("convene.toml");
    let portal = Identity::new("our-portal", PORTAL);
    let jwks = serde_json::to_string(&portal.key.jwks()).unwrap();
    let app = format!(
        "[[orchestrator.apps]]\nissuer = \"our-portal\"\nscope = \"operator\"\njwks = '{jwks}'\n"
    );
    std::fs::write(&config, app).unwrap();
    let launch = crate::convene(dir.path())
        .arg("--config")
        .arg(config.to_str().unwrap())
        .arg("--orchestrator-listen")
        .arg(&infra);
    let node = launch.start().await;
    let infra = format!("http://{infra}");
    let contract = infra_contract(&infra, &portal, dir.path()).await;
    run("infra", &infra, contract, examples, dir.path()).await;
    assert_eq!(node.stop().await, Some(0));
}

async fn check_app(examples: &str) {
    let dir = tempfile::tempdir().unwrap();
    let launch = crate::convene(dir.path()).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1");
    let node = launch.start().await;
    let workspace = Workspace::furnish(&node.url).await;
    run("app", &node.url, workspace.contract.clone(), examples, dir.path()).await;
    assert_eq!(node.stop().await, Some(0));
}

/// An outside app with operator scope and its groups: one that is used, one whose controller speaks for
/// itself, and some that may be taken away.
async fn infra_contract(infra: &str, by: &Identity, dir: &Path) -> Value {
    let portal = Portal::new(infra, by);
    let key = dir.join("portal.key");
    std::fs::write(&key, [PORTAL; 32]).unwrap();
    let named = |what: &str| (0..8).map(|nth| format!("{what}-{nth}")).collect::<Vec<_>>();
    let (spare, doomed) = (named("spare"), named("doomed"));
    let used = ["used".to_owned(), "callbacks".to_owned()];
    for group in used.iter().chain(&spare).chain(&doomed) {
        portal.activate(group, "portal-org").await;
    }
    portal.activate("other", "spare-org").await;
    for group in &spare[..4] {
        let path = format!("/infra/groups/{group}/archive");
        portal.done("POST", &path, json!({"reason": "a test"})).await;
    }
    let token = portal.routing_token("used", "ana").await;
    let mut upstream = portal.upstream("used", &token).await.unwrap();
    let attach = json!({"type": "attach", "ref": "a", "conn": "ana", "token": token});
    upstream.send(&attach).await;
    upstream.until(|frame| frame["ref"] == "a").await;
    let post =
        json!({"type": "post", "ref": "m1", "conn": "ana", "message_id": "m1", "text": "Hi"});
    upstream.send(&post).await;
    upstream.until(|frame| frame["ref"] == "m1").await;
    let tasks = portal.done("GET", "/infra/tasks", Value::Null).await;
    let tasks: Vec<_> = tasks["tasks"].as_array().unwrap().iter().collect();
    json!({
        "key": key, "issuer": by.issuer(), "org_id": null, "infra": infra,
        "controllers_key": dir.join("data/keys/controllers.key"), "controllers_groups": ["callbacks"],
        "ids": {
            "org_id": ["portal-org"], "group_id": ["used"], "user_id": ["ana", "ben"],
            "message_id": ["m1"], "run_id": ["r1", "r2"], "from": [1], "query": ["Hi"],
            "task_id": tasks.iter().map(|task| &task["task_id"]).collect::<Vec<_>>(),
        },
        "spare": {"org_id": ["spare-org"], "group_id": spare, "user_id": ["carl"]},
        "doomed": {"group_id": doomed},
        "taking_away": [
            "archiveGroup", "restoreGroup", "raiseEpoch", "setBlock", "setLimits", "revokeUser",
            "adoptGroup",
        ],
    })
}

/// A workspace with something of every kind, and of each a second that may be taken away.
struct Workspace {
    contract: Value,
    _models: ModelServer,
    _tools: McpTestServer,
}

impl Workspace {
    async fn furnish(url: &str) -> Self {
        let models = ModelServer::start().await.unwrap();
        let tools = vec![tool("read", true), tool("write", false)];
        let tools =
            McpTestServer::start(Behaviour::new(Generation::Sessions, tools)).await.unwrap();
        let ana = Person::sign_up(url, "Ana").await;
        let org = ana.create_org("Lighthouse").await;
        let mut people = Vec::new();
        for name in ["Ben", "Carl", "Dora"] {
            let person = Person::sign_up(url, name).await;
            ana.invite(&org, &person).await;
            people.push(person.user_id.clone());
        }
        let things = Things { ana: &ana, api: format!("/api/orgs/{org}") };
        let provider = json!({"name": "Models", "base_url": models.base_url()});
        let providers = things.some("providers", "provider_id", &provider).await;
        let secret = json!({"scope": "workspace", "name": "KEY", "value": "a-value"});
        let secrets = things.some("secrets", "secret_id", &secret).await;
        let tool = json!({"name": "look", "config": {
            "description": "Looks.", "base_url": "http://127.0.0.1:9/v1", "methods": ["GET"],
        }});
        let http_tools = things.some("http-tools", "tool_id", &tool).await;
        let server = json!({"name": "files", "config": {"url": tools.url()}});
        let servers = things.some("mcp-servers", "server_id", &server).await;
        let profile = json!({"name": "Env", "config": {"variables": []}});
        let profiles = things.some("env-profiles", "env_profile_id", &profile).await;
        let agent = json!({
            "name": "Aria", "provider_id": providers[0], "model": "m",
            "config": {"mcp_servers": [{"server_id": servers[0]}]},
        });
        let agents = things.some("agents", "agent_id", &agent).await;
        let outside = json!({"name": "Echo", "outside": true});
        let outside = things.ana.post(&format!("{}/agents", things.api), outside).await;
        let outside = outside["agent_id"].as_str().unwrap().to_owned();
        let agents_tokens = format!("{}/agents/{outside}/tokens", things.api);
        let mut own_tokens = Vec::new();
        let mut tokens = Vec::new();
        let mut invites = Vec::new();
        let mut invite_tokens = Vec::new();
        for _ in 0..FEW {
            let token = ana.post("/api/tokens", json!({"name": "A script"})).await;
            tokens.push(token["token_id"].clone());
            let token = ana.post(&agents_tokens, json!({"name": "A server"})).await;
            own_tokens.push(token["token_id"].clone());
            let invite = ana.post(&format!("/api/orgs/{org}/invites"), json!({})).await;
            invites.push(invite["invite_id"].clone());
            let invite = ana.post(&format!("/api/orgs/{org}/invites"), json!({})).await;
            invite_tokens.push(invite["token"].clone());
        }
        let mut groups = Vec::new();
        for nth in 0..10 {
            // The one that is used is private, so that it has members of its own.
            let group = json!({
                "org_id": org, "title": format!("Plan {nth}"), "is_private": nth == 0,
                "agent_ids": [agents[0]],
            });
            groups.push(ana.post("/api/groups", group).await["group_id"].clone());
        }
        let used = groups.remove(0);
        // Stays private, whatever becomes of the others.
        let private = json!({"org_id": org, "title": "Private", "is_private": true});
        let private = ana.post("/api/groups", private).await["group_id"].clone();
        let members = format!("/api/groups/{}/members/{}", used.as_str().unwrap(), people[1]);
        assert_eq!(ana.send("PUT", &members, None).await.0, 204);
        let mut tasks = Vec::new();
        for group in &groups[..3] {
            let path = format!("/api/groups/{}", group.as_str().unwrap());
            ana.post(&format!("{path}/messages"), json!({"text": "Hi"})).await;
            let archived = ana.post(&format!("{path}/archive"), json!({})).await;
            tasks.extend(archived.get("task_id").cloned());
        }
        // A run that ended, and one that waits for somebody's leave.
        let (mut socket, _) = ana.attach(used.as_str().unwrap(), None).await;
        models.next("m", Script::error(500, "no"));
        socket.post("m1", "@Aria hello?").await;
        let failed = socket.event("run.finished").await;
        models.next("m", Script::call("files__write", &json!({"text": "a"})));
        socket.post("m2", "@Aria write it").await;
        let asked = socket.event("approval.requested").await;
        for message in ["m3", "m4"] {
            socket.post(message, "Hi").await;
            socket.answer(message).await;
        }
        let contract = json!({
            "bearer": ana.token,
            "ids": {
                "org_id": [org], "group_id": [used], "user_id": [people[0]],
                "message_id": ["m1", "m2"], "run_id": [failed["run_id"], asked["run_id"]],
                "approval_id": [asked["approval_id"]], "agent_id": [agents[0]],
                "provider_id": [providers[0]], "secret_id": [secrets[0]], "tool_id": [http_tools[0]],
                "server_id": [servers[0]], "env_profile_id": [profiles[0]], "token": invite_tokens,
                "task_id": tasks, "author": [ana.user_id], "emoji": ["👍"], "q": ["Hi"],
            },
            "of": {
                "addGroupMember": {"group_id": [private], "user_id": [people[0]]},
                "listAgentTokens": {"agent_id": [outside]},
                "makeAgentToken": {"agent_id": [outside]},
                "revokeAgentToken": {"agent_id": [outside], "token_id": own_tokens},
            },
            "spare": {"group_id": groups[..4]},
            "doomed": {
                "group_id": groups[4..], "user_id": people[1..], "agent_id": agents[1..],
                "provider_id": providers[1..], "secret_id": secrets[1..], "tool_id": http_tools[1..],
                "server_id": servers[1..], "env_profile_id": profiles[1..], "token_id": tokens,
                "invite_id": invites, "message_id": ["m3", "m4"],
            },
            "taking_away": ["archiveGroup", "restoreGroup"],
            "bodies": {
                "signUp": (0..6).map(|nth| json!({
                    "email": format!("new-{nth}@example.org"), "name": "New",
                    "password": "correct horse battery",
                })).collect::<Vec<_>>(),
                "changeMe": [{"name": "Ana"}],
                "signIn": [{"email": "ana@example.org", "password": PASSWORD}],
                "makeHttpTool": (0..6).map(|nth| {
                    let mut tool = tool.clone();
                    tool["name"] = json!(format!("find{nth}"));
                    tool
                }).collect::<Vec<_>>(),
                "makeAgentToken": [{"name": "A server"}],
                "postMessage": [{"text": "Hello"}],
                "editMessage": [{"text": "Hello again"}],
                "setHttpTool": [in_version_one(&tool)],
                "makeGroup": [{"org_id": org, "title": "Another", "agent_ids": [agents[0]]}],
                "setMcpServer": [in_version_one(&server)],
                "setEnvProfile": [in_version_one(&profile)],
                "makeProvider": (0..6).map(|nth| json!({
                    "name": format!("More {nth}"), "base_url": models.base_url(),
                })).collect::<Vec<_>>(),
                "makeSecret": (0..6).map(|nth| json!({
                    "scope": "workspace", "name": format!("OTHER{nth}"), "value": "a-value",
                })).collect::<Vec<_>>(),
            },
        });
        Self { contract, _models: models, _tools: tools }
    }
}

/// The first change of something that was made so.
fn in_version_one(made: &Value) -> Value {
    let mut change = made.clone();
    change["version"] = json!(1);
    change
}

/// How many of each kind there are.
const FEW: usize = 4;

/// What a workspace has.
struct Things<'a> {
    ana: &'a Person,
    api: String,
}

impl Things<'_> {
    /// Makes a few of a kind, each with a name of its own; their ids.
    async fn some(&self, kind: &str, id: &str, new: &Value) -> Vec<String> {
        let mut made = Vec::new();
        for nth in 0..FEW {
            let mut new = new.clone();
            if nth > 0 {
                new["name"] = json!(format!("{}{nth}", new["name"].as_str().unwrap()));
            }
            let answer = self.ana.post(&format!("{}/{kind}", self.api), new).await;
            made.push(answer[id].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
        }
        made
    }
}

async fn run(api: &str, url: &str, mut contract: Value, examples: &str, dir: &Path) {
    let document = dir.join(format!("{api}.json"));
    let report = dir.join(format!("{api}.report"));
    contract["report"] = json!(report);
    std::fs::write(&document, openapi::printed(api).await).unwrap();
    let folder = examples::example("contract_hooks.py");
    let folder = folder.parent().unwrap();
    let mut command = Command::new(examples::python());
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(&document)
        .args(["--url", url, "--checks", CHECKS, "--phases", "coverage,fuzzing"])
        .args(["--max-examples", examples, "--request-timeout", "30", "--no-color"])
        .args(["--continue-on-failure", "--warnings", "off"])
        // The suite makes the same requests each time, and the long form others.
        .args(if examples == EXAMPLES { &["--seed", "7"][..] } else { &[] })
        .env("PYTHONPATH", folder)
        .env("SCHEMATHESIS_HOOKS", "contract_hooks")
        .env("CONTRACT", contract.to_string())
        .current_dir(dir)
        .stdin(Stdio::null());
    let described: Value = serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
    let mut operations = BTreeMap::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            if LEFT_OUT.contains(&id.as_str()) {
                command.args(["--exclude-operation-id", &id]);
            } else {
                operations.insert(format!("{} {path}", method.to_uppercase()), id);
            }
        }
    }
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{api}:\n{said}\n{errors}\n(`cargo xtask test` installs what this needs)"
    );
    let tested = format!("Tested: {}", operations.len());
    assert!(said.contains(&tested), "{tested}:\n{said}");
    reached(api, &operations, &std::fs::read_to_string(&report).unwrap());
}

/// That each operation did what it is for at least once: nothing stayed before somebody's 401 or in
/// front of something that is not there.
fn reached(api: &str, operations: &BTreeMap<String, String>, report: &str) {
    let mut answers: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for line in report.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let status = line["status"].as_u64().unwrap() as u16;
        answers.entry(line["operation"].as_str().unwrap().to_owned()).or_default().insert(status);
    }
    let mut missed = Vec::new();
    for (label, id) in operations {
        let found = answers.get(label).cloned().unwrap_or_default();
        let beyond = BEYOND_REACH.iter().find(|(beyond, _)| beyond == id);
        let did = found.iter().any(|status| (200..300).contains(status))
            || beyond.is_some_and(|(_, status)| found.contains(status));
        if !did {
            missed.push(format!("{id} ({label}): {found:?}"));
        }
    }
    assert!(missed.is_empty(), "{api}: {missed:#?}");
}
