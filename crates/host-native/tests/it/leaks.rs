//! Secrets of every kind in a busy workspace: they are in no log, no answer, no prompt, no event and
//! no file.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use convene_testing::{
    client::{Person, Socket},
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::{ModelServer, Script},
    web_service::WebService,
};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::convene;

/// Nothing else looks like them, so that they are found wherever they leak.
const PROVIDER_KEY: &str = "sk-provider-9QwXzL27bTn";
const OF_WORKSPACE: &str = "of-the-workspace-Vd83kPq1";
const FORMER: &str = "a-former-value-mW02jHy6";
const OF_AGENT: &str = "of-the-agent-Zr55tGc9";
const OF_ANA: &str = "of-ana-alone-Lk19sFb4";
const OF_BEN: &str = "of-ben-alone-Yx64nDe7";
const OF_SERVER: &str = "of-the-mcp-server-Hn37aQw5";
const ALL: [&str; 7] = [PROVIDER_KEY, OF_WORKSPACE, FORMER, OF_AGENT, OF_ANA, OF_BEN, OF_SERVER];

/// Makes something and returns the member of the answer that is its id.
async fn make(person: &Person, path: &str, body: Value, key: &str) -> String {
    person.post(path, body).await[key].as_str().unwrap().to_owned()
}

/// Permits the call that the agent asks for, and waits for the end of the run.
async fn permit(socket: &mut Socket) -> Value {
    let asked = socket.event("approval.requested").await;
    let approval = &asked["approval_id"];
    let frame =
        json!({"type": "approve", "ref": "d", "approval_id": approval, "decision": "approve"});
    socket.send(&frame).await;
    socket.event("run.finished").await
}

#[tokio::test]
async fn secrets_are_in_no_log_no_answer_no_prompt_and_no_file_of_a_busy_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await.unwrap();
    let service = WebService::start().await.unwrap();
    let mut behaviour = Behaviour::new(Generation::Sessions, vec![tool("read", true)]);
    behaviour.wants = Some(("x-token", OF_SERVER));
    // What a tool is sent it may say again: that is taken out before anybody sees it.
    let said = format!("You are {OF_SERVER}, are you not?");
    behaviour.results = json!({"read": {"content": [{"type": "text", "text": said}]}});
    let mcp = McpTestServer::start(behaviour).await.unwrap();
    let node = convene(dir.path())
        .env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1")
        .env("CONVENE_LOG__LEVEL", "trace")
        .log_to(dir.path().join("log"))
        .start()
        .await;
    let ana = Person::sign_up(&node.url, "Ana").await;
    let ben = Person::sign_up(&node.url, "Ben").await;
    let org = ana.create_org("Lighthouse").await;
    ana.invite(&org, &ben).await;
    let api = format!("/api/orgs/{org}");

    // A provider, an agent with tools of both sorts, and a secret of each kind behind them.
    let provider =
        json!({"name": "Models", "base_url": models.base_url(), "api_key": PROVIDER_KEY});
    let provider = make(&ana, &format!("{api}/providers"), provider, "provider_id").await;
    let secrets = format!("{api}/secrets");
    let shared = json!({"scope": "workspace", "name": "SHARED", "value": FORMER});
    let shared = make(&ana, &secrets, shared, "secret_id").await;
    let one = format!("{secrets}/{shared}");
    let (status, _) = ana.send("PATCH", &one, Some(&json!({"value": OF_WORKSPACE}))).await;
    assert_eq!(status, 200);
    for (person, value) in [(&ana, OF_ANA), (&ben, OF_BEN)] {
        let own = json!({"scope": "personal", "name": "MINE", "value": value});
        make(person, &secrets, own, "secret_id").await;
    }
    let bearer =
        |value: Value| json!([{"name": "Authorization", "value": value, "prefix": "Bearer"}]);
    let tool = json!({"name": "tides", "config": {
        "description": "Finds tides.", "base_url": format!("{}/echo", service.url()), "methods": ["GET"],
        "headers": bearer(json!({"secret": shared})),
    }});
    let tool = make(&ana, &format!("{api}/http-tools"), tool, "tool_id").await;
    let own = json!({"name": "mine", "config": {
        "description": "Writes what is mine.", "base_url": format!("{}/echo", service.url()),
        "methods": ["POST"], "headers": bearer(json!({"variable": "MINE"})),
        "query": [{"name": "key", "value": {"variable": "KEY"}}],
    }});
    let own = make(&ana, &format!("{api}/http-tools"), own, "tool_id").await;
    let of_server = json!({"scope": "workspace", "name": "SERVER", "value": OF_SERVER});
    let of_server = make(&ana, &secrets, of_server, "secret_id").await;
    let server = json!({"name": "files", "config": {
        "url": mcp.url(), "headers": [{"name": "x-token", "value": {"variable": "SERVER"}}],
    }});
    let server = make(&ana, &format!("{api}/mcp-servers"), server, "server_id").await;
    let variables = json!([
        {"name": "SERVER", "value": {"secret": of_server}},
        {"name": "MINE", "value": {"personal": "MINE"}},
        {"name": "KEY", "value": {"agent": "OWN"}},
    ]);
    let profile = json!({"name": "Env", "config": {"variables": variables}});
    let profile = make(&ana, &format!("{api}/env-profiles"), profile, "env_profile_id").await;
    let agent = json!({
        "name": "Scribe", "provider_id": provider, "model": "scribe", "system_prompt": "Be brief.",
        "config": {"builtin_tools": ["current_time"], "http_tools": [tool, own],
            "mcp_servers": [{"server_id": server}], "env_profile_id": profile},
    });
    let agent = make(&ana, &format!("{api}/agents"), agent, "agent_id").await;
    let of_agent = json!({"scope": "agent", "agent_id": agent, "name": "OWN", "value": OF_AGENT});
    make(&ana, &secrets, of_agent, "secret_id").await;
    let group = json!({"org_id": org, "title": "Launch", "agent_ids": [agent]});
    let group = make(&ana, "/api/groups", group, "group_id").await;

    let checked = json!({"env_profile_id": profile});
    let path = format!("{api}/mcp-servers/{server}/check");
    let (status, checked) = ana.send("POST", &path, Some(&checked)).await;
    assert!(status == 200 && checked.to_string().contains("\"read\""), "{checked}");

    // Runs of both people that use every tool, and one that fails.
    for (person, message_id) in [(&ana, "m1"), (&ben, "m2")] {
        let (mut socket, _) = person.attach(&group, None).await;
        let calls = ["tides", "files__read", "mine"];
        let calls = calls.map(|tool| (tool.to_owned(), json!({}).to_string())).to_vec();
        models.next("scribe", Script::Call { text: "I look. ".to_owned(), calls });
        models.next("scribe", Script::Say("Noon.".to_owned()));
        socket.post(message_id, "@Scribe when?").await;
        let ended = permit(&mut socket).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    // Each secret went where it belongs.
    let sent: Vec<_> = service.requests();
    let bearers: Vec<_> =
        sent.iter().map(|sent| sent.headers["authorization"].to_str().unwrap()).collect();
    let of = |secret: &str| format!("Bearer {secret}");
    assert_eq!(bearers, [of(OF_WORKSPACE), of(OF_ANA), of(OF_WORKSPACE), of(OF_BEN)]);
    assert_eq!(sent[1].uri.query(), Some(&*format!("key={OF_AGENT}")));
    assert_eq!(mcp.calls().len(), 2);
    let (mut to_ben, _) = ben.attach(&group, None).await;
    models.next("scribe", Script::error(401, &format!("{PROVIDER_KEY} is no key of ours")));
    to_ben.post("m3", "@Scribe and mine?").await;
    let ended =
        to_ben.until(|frame| frame["kind"] == "run.finished" && frame["status"] == "failed").await;
    assert_eq!(ended["status"], "failed", "{ended}");

    // What is read back, by the one who manages everything and by the other.
    let seen = |answer: &Value| {
        let text = answer.to_string();
        for secret in ALL {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    };
    for person in [&ana, &ben] {
        for path in
            ["secrets", "providers", "http-tools", "mcp-servers", "env-profiles", "agents", "audit"]
        {
            seen(&person.get(&format!("{api}/{path}")).await.1);
        }
        for path in ["", "/agents", "/messages", "/messages/m1/why", "/messages/m2/why"] {
            seen(&person.get(&format!("/api/groups/{group}{path}")).await.1);
        }
    }
    let (mut replayed, attached) = ben.attach(&group, Some(0)).await;
    seen(&attached);
    loop {
        let event = replayed.until(|frame| frame["type"] == "event").await;
        seen(&event);
        if event["seq"].as_u64() >= attached["seq"].as_u64() {
            break;
        }
    }
    let (status, shown) = ana.send("POST", &format!("{one}/reveal"), Some(&json!({}))).await;
    assert_eq!((status, shown["value"].as_str()), (200, Some(OF_WORKSPACE)));
    let (_, audit) = ana.get(&format!("{api}/audit")).await;
    seen(&audit);
    assert!(audit.to_string().contains("secret.revealed"), "whoever looked is on record");
    let (status, _) = ana.send("POST", &format!("{secrets}/rotate"), Some(&json!({}))).await;
    assert_eq!(status, 200);

    // The key went where it belongs, and nothing else into a prompt.
    let sent = models.requests();
    assert_eq!(sent.len(), 5);
    let told = format!("{:?}", sent[1].messages());
    assert!(told.contains("are you not?") && told.contains("authorization"), "{told}");
    for request in &sent {
        assert!(request.header("authorization").unwrap().contains(PROVIDER_KEY));
        let prompt = format!("{:?}", request.messages());
        for secret in ALL {
            assert!(!prompt.contains(secret), "{secret} is in a prompt: {prompt}");
        }
    }
    drop((to_ben, replayed));
    let (status, put_away) =
        ana.send("POST", &format!("/api/groups/{group}/archive"), Some(&json!({}))).await;
    assert!(status < 300, "{status} {put_away}");
    while ana.get(&format!("/api/groups/{group}")).await.1["status"] != "archived" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen(&ana.get(&format!("/api/groups/{group}/messages")).await.1);
    assert_eq!(node.stop().await, Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("TRACE") && log.contains("an attempt failed"), "nothing was logged");
    let files = files_below(dir.path());
    assert!(files.iter().any(|file| file.ends_with("workspace.db")), "{files:?}");
    let mut snapshots = 0;
    for file in files {
        let mut bytes = std::fs::read(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "gz") {
            let mut lines = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut lines).unwrap();
            // Logs are shipped in the same form.
            let calls = String::from_utf8_lossy(&lines).contains("are you not?");
            snapshots += u32::from(calls);
            bytes = lines;
        }
        for secret in ALL {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} is in {}", file.display());
        }
    }
    assert_eq!(snapshots, 1, "the snapshot of the group has its calls");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
