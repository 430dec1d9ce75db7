//! What the App asks the Agents Worker to try, so that people learn whether a provider, an MCP server
//! or an agent works before a group depends on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agents::{McpServer, ModelPrice, ResolvedModel, Usage};

/// `POST /probe` on the Agents Worker, with an `app+jwt` of the audience `agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProbeRequest {
    /// Which models a provider offers.
    Models {
        /// The provider; the model's name is not read.
        model: ResolvedModel,
    },
    /// What a model answers: a test run, without tools and without a group.
    Reply {
        /// The model.
        model: ResolvedModel,
        /// The system prompt.
        system_prompt: String,
        /// What it is asked.
        text: String,
        /// What the model costs, where the workspace says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        price: Option<ModelPrice>,
    },
    /// Which tools an MCP server has.
    Mcp {
        /// The server; its mask is not read, so that all of its tools are listed.
        server: Box<McpServer>,
        /// The hosts that tools may reach; any that the operator allows where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_hosts: Option<Vec<String>>,
    },
}

/// What came of it, answered with 200 also when what was tried does not work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ProbeAnswer {
    /// The names of a provider's models, in its order.
    Models {
        /// The names, at most `MAX_LISTED_MODELS`.
        models: Vec<String>,
    },
    /// A model's answer.
    Reply {
        /// The text.
        text: String,
        /// What it used, where the provider says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// An MCP server and its tools.
    Mcp(McpListing),
    /// It does not work.
    Failed {
        /// A stable code, see [`crate::agents::failure`].
        code: String,
        /// One sentence for people, without secrets.
        detail: String,
    },
}

/// What an MCP server says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct McpListing {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The revision of the protocol that is spoken with it.
    pub protocol: String,
    /// Its tools, in its order.
    pub tools: Vec<McpTool>,
}

/// A tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct McpTool {
    /// Its name there, as masks name it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether the server says that calls of it change nothing.
    pub read_only: bool,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// Why models are not offered it, one sentence, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
