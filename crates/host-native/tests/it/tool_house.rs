//! A process whose agents' tools reach a model, a service and an MCP server of the test's own.

use convene_testing::{
    client::Person,
    mcp_server::{Behaviour, Generation, McpTestServer, tool},
    model_server::ModelServer,
    process::{Convene, Launch},
    web_service::WebService,
};
use tempfile::TempDir;

use crate::convene;

/// What an agent's tools reach.
pub(crate) struct Outside {
    pub(crate) models: ModelServer,
    pub(crate) service: WebService,
    /// With a tool `read` that changes nothing and a tool `write`.
    pub(crate) mcp: McpTestServer,
}

impl Outside {
    pub(crate) async fn start() -> Self {
        let tools = vec![tool("read", true), tool("write", false)];
        Self {
            models: ModelServer::start().await.unwrap(),
            service: WebService::start().await.unwrap(),
            mcp: McpTestServer::start(Behaviour::new(Generation::Sessions, tools)).await.unwrap(),
        }
    }

    /// What the model was told of its last call.
    pub(crate) fn told(&self) -> String {
        let (role, text) = self.models.requests().last().unwrap().messages().pop().unwrap();
        assert_eq!(role, "tool");
        text
    }
}

/// One process, and somebody who has signed up.
pub(crate) struct House {
    _dir: TempDir,
    pub(crate) launch: Launch,
    pub(crate) node: Convene,
    pub(crate) outside: Outside,
    pub(crate) ana: Person,
}

impl House {
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let launch = convene(dir.path()).env("CONVENE_AGENTS__ALLOW_HOSTS", "127.0.0.1");
        let node = launch.start().await;
        let ana = Person::sign_up(&node.url, "Ana").await;
        Self { _dir: dir, launch, node, outside: Outside::start().await, ana }
    }
}
