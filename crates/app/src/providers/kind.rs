//! What kinds of model providers there are, and what is kept of one as a document.

use convene_db::DbError;
use std::collections::BTreeMap;

use convene_model::{
    Problem,
    price::{MAX_PRICE, ModelPrice},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::validate::{self, invalid};

/// Models that a provider offers to agents by name.
pub const MAX_MODELS: usize = 100;
/// Models whose prices a provider's record gives.
pub const MAX_PRICED_MODELS: usize = MAX_MODELS;
/// Bytes of a provider's options as JSON.
pub const MAX_OPTIONS_BYTES: usize = 4096;

/// Members of requests that carry the conversation, the model, the tools or the stream: no options.
const OWN_MEMBERS: &[&str] = &[
    "messages",
    "model",
    "tools",
    "tool_choice",
    "stream",
    "stream_options",
    "system",
    "contents",
    "systemInstruction",
    "system_instruction",
    "toolConfig",
    "tool_config",
    "n",
];

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// OpenAI's chat completions: OpenAI, Ollama, vLLM, LiteLLM and others.
    #[default]
    OpenaiCompatible,
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

impl ProviderKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenaiCompatible, Self::Anthropic, Self::Gemini];

    /// As it stands in documents and forms.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiCompatible => "openai_compatible",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::OpenaiCompatible => "OpenAI-compatible",
            Self::Anthropic => "Anthropic",
            Self::Gemini => "Google Gemini",
        }
    }

    /// Where the service is when nothing is said; the first kind is many services.
    #[must_use]
    pub const fn home(self) -> Option<&'static str> {
        match self {
            Self::OpenaiCompatible => None,
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com"),
        }
    }

    /// Whether no request is answered without a key.
    #[must_use]
    pub const fn needs_key(self) -> bool {
        match self {
            Self::OpenaiCompatible => false,
            Self::Anthropic | Self::Gemini => true,
        }
    }
}

/// What is kept of a provider beside its name, its address and its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderConfig {
    #[serde(default)]
    pub(super) kind: ProviderKind,
    #[serde(default)]
    pub(super) models: Vec<String>,
    #[serde(default)]
    pub(super) options: Map<String, Value>,
    /// What models cost, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) prices: BTreeMap<String, ModelPrice>,
}

impl ProviderConfig {
    pub(super) fn parse(text: &str) -> Result<Self, DbError> {
        serde_json::from_str(text).map_err(|error| DbError::decode("config", error))
    }
}

/// The names of models, trimmed, each once.
pub(super) fn models(field: &str, names: &[String]) -> Result<Vec<String>, Problem> {
    let mut models = Vec::new();
    for name in names {
        let name = validate::model(field, name, true)?;
        if !models.contains(&name) {
            models.push(name);
        }
    }
    if models.len() > MAX_MODELS {
        return Err(invalid(field, format!("A provider offers at most {MAX_MODELS} models.")));
    }
    Ok(models)
}

/// What models cost, by their names, trimmed; of models that the list names and of others.
pub(super) fn prices(
    field: &str,
    prices: &BTreeMap<String, ModelPrice>,
) -> Result<BTreeMap<String, ModelPrice>, Problem> {
    let mut priced = BTreeMap::new();
    for (name, price) in prices {
        let name = validate::model(field, name, true)?;
        if !price.is_within_limits() {
            let dollars = MAX_PRICE / 1_000_000;
            let why = format!("A million tokens of {name} cost at most {dollars} dollars.");
            return Err(invalid(field, why));
        }
        if priced.insert(name.clone(), *price).is_some() {
            return Err(invalid(field, format!("{name} has two prices.")));
        }
    }
    if priced.len() > MAX_PRICED_MODELS {
        let why = format!("A provider has prices of at most {MAX_PRICED_MODELS} models.");
        return Err(invalid(field, why));
    }
    Ok(priced)
}

/// Members of every request, such as `temperature`.
pub(super) fn options(field: &str, options: &Map<String, Value>) -> Result<(), Problem> {
    if let Some(own) = options.keys().find(|key| OWN_MEMBERS.contains(&key.as_str())) {
        return Err(invalid(field, format!("{own} is set by Convene itself.")));
    }
    let bytes = serde_json::to_string(options).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_OPTIONS_BYTES {
        return Err(invalid(field, format!("Options have at most {MAX_OPTIONS_BYTES} bytes.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_models_is_held_to_its_limit_on_both_sides() {
        let names = |count: usize| (0..count).map(|n| format!("m{n}")).collect::<Vec<_>>();
        assert!(models("models", &names(MAX_MODELS)).is_ok());
        assert!(models("models", &names(MAX_MODELS + 1)).is_err());
        assert_eq!(models("models", &[" a ".into(), "a".into()]).as_deref(), Ok(&["a".into()][..]));
        assert!(models("models", &[String::new()]).is_err());
    }

    #[test]
    fn prices_are_held_to_their_limits_on_both_sides() {
        let price = |input| ModelPrice { input, cached_input: None, cache_write: None, output: 1 };
        let of = |count: usize| (0..count).map(|n| (format!("m{n}"), price(1))).collect();
        assert!(prices("prices", &of(MAX_PRICED_MODELS)).is_ok());
        assert!(prices("prices", &of(MAX_PRICED_MODELS + 1)).is_err());
        let one = |name: &str, input| BTreeMap::from([(name.to_owned(), price(input))]);
        assert_eq!(prices("prices", &one(" a ", MAX_PRICE)).unwrap(), one("a", MAX_PRICE));
        assert!(prices("prices", &one("a", MAX_PRICE + 1)).is_err());
        assert!(prices("prices", &one("", 1)).is_err());
        let twice = BTreeMap::from([("a".to_owned(), price(1)), (" a".to_owned(), price(2))]);
        assert!(prices("prices", &twice).is_err());
    }

    #[test]
    fn options_leave_the_conversation_alone_and_are_held_to_their_limit() {
        let of = |key: &str, value: String| Map::from_iter([(key.to_owned(), value.into())]);
        let fits = |map: &Map<String, Value>| options("options", map).is_ok();
        assert!(fits(&of("temperature", "0.2".to_owned())));
        let frame = r#"{"a":""}"#.len();
        assert!(fits(&of("a", "x".repeat(MAX_OPTIONS_BYTES - frame))));
        assert!(!fits(&of("a", "x".repeat(MAX_OPTIONS_BYTES - frame + 1))));
        assert!(!fits(&of("messages", String::new())));
    }

    #[test]
    fn what_was_kept_before_there_were_kinds_speaks_as_it_did() {
        let first = ProviderConfig::parse("{}").unwrap();
        assert_eq!((first.kind, first.models.len()), (ProviderKind::OpenaiCompatible, 0));
        for kind in ProviderKind::ALL {
            let models = vec!["m".to_owned()];
            let config = ProviderConfig { kind, models, ..ProviderConfig::default() };
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.contains(kind.as_str()));
            assert_eq!(ProviderConfig::parse(&text).unwrap(), config);
        }
    }
}
