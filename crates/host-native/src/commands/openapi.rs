//! `convene openapi`: the OpenAPI documents of this very binary.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::CliError;

/// An API that is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Described {
    /// The App's JSON API, for people's programs.
    App,
    /// The Orchestrator's infra API, for apps with their own key.
    Infra,
}

/// Prints a document, its members in alphabetical order.
pub(crate) fn run(described: Described) -> Result<(), CliError> {
    let document = match described {
        Described::App => convene_app::openapi::document(),
        Described::Infra => convene_orchestrator::openapi::document(),
    };
    println!("{}", serde_json::to_string_pretty(&sorted(document))?);
    Ok(())
}

/// The same value with sorted members, whatever order the library keeps them in.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}
