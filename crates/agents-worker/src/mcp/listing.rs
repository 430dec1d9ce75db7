//! The tools of an MCP server: what is taken of them, and for how long they are kept.
//!
//! A description or a schema is what a server wrote and may change at any time: it is bounded here,
//! and what a permission is bound to is made of it, so that a changed tool is another tool.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use convene_model::{
    Timestamp,
    agents::McpServer,
    limits::{MAX_MCP_TOOLS, MAX_TOOL_DESCRIPTION_CHARS, MAX_TOOL_SCHEMA_BYTES},
    token::body_hash,
};
use serde_json::{Value, json};

use super::{Era, wire};

/// Tools that are read.
pub(super) const MAX_TOOLS: usize = MAX_MCP_TOOLS;
/// Pages of a list that are asked for.
pub(super) const MAX_PAGES: usize = 64;
/// Characters of a tool's name at most.
const MAX_NAME_CHARS: usize = 128;
/// How long a server's tools are offered without asking again.
pub(crate) const LISTING_TTL: Duration = Duration::from_secs(60);
/// Servers whose tools are kept at a time.
pub(crate) const MAX_LISTINGS: usize = 256;

/// A server as it was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listing {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) era: Era,
    pub(crate) tools: Vec<Offered>,
}

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offered {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) parameters: Value,
    /// Whether the server says that calls change nothing.
    pub(crate) read_only: bool,
    /// Why models are not offered it.
    pub(crate) refused: Option<&'static str>,
}

impl Offered {
    pub(super) fn read(tool: &Value) -> Self {
        let name = tool["name"].as_str().unwrap_or_default();
        let refused_name = name.is_empty()
            || name.chars().count() > MAX_NAME_CHARS
            || name.chars().any(char::is_control);
        let mut parameters = match &tool["inputSchema"] {
            Value::Object(schema) => Value::Object(schema.clone()),
            _ => json!({}),
        };
        if parameters["type"].is_null() {
            parameters["type"] = "object".into();
        }
        let is_object = parameters["type"] == "object";
        let is_long = parameters.to_string().len() > MAX_TOOL_SCHEMA_BYTES;
        let refused = if refused_name {
            Some("Its name is empty or too long.")
        } else if !is_object {
            Some("Its arguments are no object.")
        } else if is_long {
            parameters = json!({"type": "object"});
            Some("The schema of its arguments is too long.")
        } else {
            None
        };
        let description = tool["description"].as_str().or(tool["title"].as_str());
        Self {
            name: wire::one_line(name, MAX_NAME_CHARS),
            description: cut(description.unwrap_or_default(), MAX_TOOL_DESCRIPTION_CHARS),
            parameters,
            read_only: tool["annotations"]["readOnlyHint"] == true,
            refused,
        }
    }

    /// What a permission is bound to beside the arguments.
    pub(crate) fn bound(&self) -> Value {
        json!({
            "parameters": self.parameters,
            "description": self.description,
            "read_only": self.read_only,
        })
    }
}

fn cut(text: &str, chars: usize) -> String {
    text.char_indices()
        .nth(chars)
        .map_or_else(|| text.to_owned(), |(end, _)| text[..end].to_owned())
}

/// The tools of servers, for [`LISTING_TTL`].
#[derive(Debug, Default)]
pub(crate) struct Listings {
    entries: Mutex<BTreeMap<String, (Timestamp, Listing)>>,
}

impl Listings {
    /// The key of a server with its whole configuration: another header, other tools.
    pub(crate) fn key(server: &McpServer) -> String {
        body_hash(&serde_json::to_vec(server).unwrap_or_default())
    }

    pub(crate) fn get(&self, key: &str, now: Timestamp) -> Option<Listing> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, listing) = entries.get(key)?;
        (now.since(*at) < LISTING_TTL).then(|| listing.clone())
    }

    pub(crate) fn put(&self, key: String, listing: Listing, now: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, (at, _)| now.since(*at) < LISTING_TTL);
        if entries.len() >= MAX_LISTINGS && !entries.contains_key(&key) {
            let oldest = entries.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                entries.remove(&oldest);
            }
        }
        entries.insert(key, (now, listing));
    }

    /// Drops what turned out to be wrong.
    pub(crate) fn forget(&self, key: &str) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_may_be_as_large_as_the_limits_and_no_larger() {
        let with = |name: &str, padding: usize| {
            let schema = json!({"type": "object", "x": "x".repeat(padding)});
            Offered::read(&json!({"name": name, "inputSchema": schema}))
        };
        let empty = json!({"type": "object", "x": ""}).to_string().len();
        assert_eq!(with("a", MAX_TOOL_SCHEMA_BYTES - empty).refused, None);
        let long = with("a", MAX_TOOL_SCHEMA_BYTES - empty + 1);
        assert!(long.refused.is_some());
        assert_eq!(long.parameters, json!({"type": "object"}));
        assert_eq!(with(&"é".repeat(MAX_NAME_CHARS), 0).refused, None);
        assert!(with(&"é".repeat(MAX_NAME_CHARS + 1), 0).refused.is_some());
        assert!(with("", 0).refused.is_some());
        let listed = |schema: Value| Offered::read(&json!({"name": "a", "inputSchema": schema}));
        assert!(listed(json!({"type": "string"})).refused.is_some());
        assert_eq!(listed(json!({})).parameters, json!({"type": "object"}));
        let described =
            json!({"name": "a", "description": "é".repeat(MAX_TOOL_DESCRIPTION_CHARS + 1)});
        let described = Offered::read(&described).description;
        assert_eq!(described.chars().count(), MAX_TOOL_DESCRIPTION_CHARS);
    }

    #[test]
    fn what_a_server_says_of_a_tool_is_what_a_permission_is_bound_to() {
        let tool = json!({"name": "a", "description": "x", "annotations": {"readOnlyHint": false}});
        let bound = Offered::read(&tool).bound();
        for (path, value) in
            [("/description", json!("y")), ("/annotations/readOnlyHint", json!(true))]
        {
            let mut changed = tool.clone();
            *changed.pointer_mut(path).unwrap() = value;
            assert_ne!(Offered::read(&changed).bound(), bound, "{path}");
        }
    }

    #[test]
    fn a_list_is_kept_for_its_time_and_the_oldest_goes() {
        let listings = Listings::default();
        let listing = Listing {
            name: String::new(),
            version: String::new(),
            era: Era::Modern,
            tools: Vec::new(),
        };
        let now = Timestamp::from_secs(1000);
        for number in 0..=MAX_LISTINGS {
            let at = now + Duration::from_millis(number as u64);
            listings.put(format!("k{number}"), listing.clone(), at);
        }
        assert_eq!(listings.get("k0", now), None);
        assert!(listings.get("k1", now + LISTING_TTL).is_some());
        assert_eq!(listings.get("k1", now + LISTING_TTL + Duration::from_millis(1)), None);
        listings.forget("k2");
        assert_eq!(listings.get("k2", now), None);
    }
}
