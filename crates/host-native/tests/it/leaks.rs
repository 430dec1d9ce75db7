//! Secrets of every kind in a busy workspace: they are in no log, no answer, no prompt, no event and
//! no file.

use std::path::{Path, PathBuf};

use convene_testing::{
    client::Person,
    model_server::{ModelServer, Script},
};
use serde_json::{Value, json};

use crate::convene;

/// Nothing else looks like them, so that they are found wherever they leak.
const PROVIDER_KEY: &str = "sk-provider-9QwXzL27bTn";
const OF_WORKSPACE: &str = "of-the-workspace-Vd83kPq1";
const FORMER: &str = "a-former-value-mW02jHy6";
const OF_AGENT: &str = "of-the-agent-Zr55tGc9";
const OF_ANA: &str = "of-ana-alone-Lk19sFb4";
const OF_BEN: &str = "of-ben-alone-Yx64nDe7";
const ALL: [&str; 6] = [PROVIDER_KEY, OF_WORKSPACE, FORMER, OF_AGENT, OF_ANA, OF_BEN];

/// Makes something and returns the member of the answer that is its id.
async fn make(person: &Person, path: &str, body: Value, key: &str) -> String {
    person.post(path, body).await[key].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn secrets_are_in_no_log_no_answer_no_prompt_and_no_file_of_a_busy_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let models = ModelServer::start().await.unwrap();
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
        "description": "Finds tides.", "base_url": "http://127.0.0.1:9/v1", "methods": ["GET"],
        "headers": bearer(json!({"secret": shared})),
    }});
    let tool = make(&ana, &format!("{api}/http-tools"), tool, "tool_id").await;
    let own = json!({"name": "mine", "config": {
        "description": "Reads what is mine.", "base_url": "http://127.0.0.1:9/v1",
        "methods": ["GET", "POST"], "headers": bearer(json!({"variable": "MINE"})),
        "query": [{"name": "key", "value": {"variable": "KEY"}}],
    }});
    let own = make(&ana, &format!("{api}/http-tools"), own, "tool_id").await;
    let variables = json!([
        {"name": "MINE", "value": {"personal": "MINE"}},
        {"name": "KEY", "value": {"agent": "OWN"}},
    ]);
    let profile = json!({"name": "Env", "config": {"variables": variables}});
    let profile = make(&ana, &format!("{api}/env-profiles"), profile, "env_profile_id").await;
    let agent = json!({
        "name": "Scribe", "provider_id": provider, "model": "scribe", "system_prompt": "Be brief.",
        "config": {"builtin_tools": ["current_time"], "http_tools": [tool, own], "env_profile_id": profile},
    });
    let agent = make(&ana, &format!("{api}/agents"), agent, "agent_id").await;
    let of_agent = json!({"scope": "agent", "agent_id": agent, "name": "OWN", "value": OF_AGENT});
    make(&ana, &secrets, of_agent, "secret_id").await;
    let group = json!({"org_id": org, "title": "Launch", "agent_ids": [agent]});
    let group = make(&ana, "/api/groups", group, "group_id").await;

    // Runs of both people, one of which fails.
    let (mut to_ana, _) = ana.attach(&group, None).await;
    let (mut to_ben, _) = ben.attach(&group, None).await;
    models.next("scribe", Script::Say("Noon.".to_owned()));
    to_ana.post("m1", "@Scribe when?").await;
    let ended = to_ana.event("run.finished").await;
    assert_eq!(ended["status"], "completed", "{ended}");
    models.next("scribe", Script::error(401, &format!("{PROVIDER_KEY} is no key of ours")));
    to_ben.post("m2", "@Scribe and mine?").await;
    let ended = to_ben.event("run.finished").await;
    let ended = match ended["status"].as_str() {
        Some("completed") => to_ben.event("run.finished").await,
        _ => ended,
    };
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
        for path in ["", "/agents", "/messages"] {
            seen(&person.get(&format!("/api/groups/{group}{path}")).await.1);
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
    assert!(sent.len() >= 2);
    for request in &sent {
        assert!(request.header("authorization").unwrap().contains(PROVIDER_KEY));
        let prompt = format!("{:?}", request.messages());
        for secret in ALL {
            assert!(!prompt.contains(secret), "{secret} is in a prompt: {prompt}");
        }
    }
    drop((to_ana, to_ben));
    assert_eq!(node.stop().await, Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("TRACE") && log.contains("an attempt failed"), "nothing was logged");
    let files = files_below(dir.path());
    assert!(files.iter().any(|file| file.ends_with("workspace.db")), "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for secret in ALL {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} is in {}", file.display());
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
