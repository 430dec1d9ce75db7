//! The OpenAPI 3.1 document of a table of routes.

use std::collections::{BTreeMap, BTreeSet};

use convene_model::{Code, limits::MAX_ID_LEN};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Access, Operation};

/// What a document says beside its operations.
#[derive(Debug, Clone)]
pub struct Document {
    /// The API's name.
    pub title: &'static str,
    /// What it is for and how to call it, in Markdown.
    pub description: &'static str,
    /// How callers prove themselves, as OpenAPI's security schemes by name; any one of them is
    /// enough.
    pub credentials: Value,
    /// Problems that follow from an operation's form.
    pub problems: Problems,
}

/// Problems that every operation of a form may answer with.
#[derive(Debug, Clone, Copy)]
pub struct Problems {
    /// All operations.
    pub any: &'static [Code],
    /// Those that want credentials.
    pub caller: &'static [Code],
    /// Those that want a user's routing token besides.
    pub user: &'static [Code],
    /// Those that change something.
    pub changing: &'static [Code],
    /// Those with a body.
    pub body: &'static [Code],
    /// Those with a query.
    pub query: &'static [Code],
    /// Those with a member in their path.
    pub path: &'static [Code],
    /// Those that take an idempotency key.
    pub idempotent: &'static [Code],
}

impl Document {
    /// The document of these operations, in their order.
    #[must_use]
    pub fn of(&self, operations: &[Operation]) -> Value {
        let mut answers = SchemaSettings::draft2020_12()
            .for_serialize()
            .with(|settings| settings.definitions_path = "/components/schemas".into())
            .into_generator();
        let mut requests = SchemaSettings::draft2020_12()
            .for_deserialize()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator();
        let mut paths: Map<String, Value> = Map::new();
        for operation in operations {
            let described = self.operation(operation, &mut answers, &mut requests);
            let path = paths.entry(operation.path).or_insert_with(|| json!({}));
            path[operation.method.as_str().to_ascii_lowercase()] = described;
        }
        let mut schemas = answers.take_definitions(true);
        schemas.insert("Problem".to_owned(), problem());
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": self.title,
                "description": self.description,
                "version": env!("CARGO_PKG_VERSION"),
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": self.credentials},
        })
    }

    fn operation(
        &self,
        operation: &Operation,
        answers: &mut SchemaGenerator,
        requests: &mut SchemaGenerator,
    ) -> Value {
        let mut parameters = Vec::new();
        for name in members(operation.path) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true,
                "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LEN},
            }));
        }
        if let Some(shape) = operation.query {
            parameters.extend(query(&shape(requests).to_value()));
        }
        if operation.idempotent {
            parameters.push(json!({
                "name": "idempotency-key", "in": "header", "required": operation.needs_key,
                "description": "A repeat with the same key and body is answered as the first.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }));
        }
        let mut responses: BTreeMap<String, Value> = BTreeMap::new();
        for answer in &operation.answers {
            let mut described = json!({"description": description(answer.status)});
            if let Some(shape) = answer.shape {
                described["content"] = json!({answer.media: {"schema": shape(answers)}});
            }
            responses.insert(answer.status.to_string(), described);
        }
        for (status, codes) in self.problems_of(operation) {
            let content = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
            responses.insert(
                status.to_string(),
                json!({
                    "description": format!("`{}`", codes.join("`, `")),
                    "content": {"application/problem+json": content},
                }),
            );
        }
        let security: Vec<_> = match operation.access {
            Access::Open => Vec::new(),
            Access::Caller => self.schemes().map(|name| json!({name: []})).collect(),
            Access::CallerAndUser => {
                self.schemes().map(|name| json!({name: [], "routingToken": []})).collect()
            }
        };
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "parameters": parameters,
            "responses": responses,
            "security": security,
        });
        if let Some(shape) = operation.body {
            described["requestBody"] = json!({
                "required": true, "content": {"application/json": {"schema": shape(requests)}},
            });
        }
        described
    }

    /// The names of the credentials of callers.
    fn schemes(&self) -> impl Iterator<Item = &String> {
        let all = self.credentials.as_object().into_iter().flat_map(Map::keys);
        all.filter(|name| *name != "routingToken")
    }

    fn problems_of(&self, operation: &Operation) -> BTreeMap<u16, Vec<&'static str>> {
        let Problems { any, caller, user, changing, body, query, path, idempotent } = self.problems;
        let when = |holds: bool, codes: &'static [Code]| if holds { codes } else { &[] };
        let user_too = operation.access == Access::CallerAndUser;
        let codes = [
            any,
            when(operation.access != Access::Open, caller),
            when(user_too, user),
            when(operation.method != http::Method::GET, changing),
            when(operation.body.is_some(), body),
            when(operation.query.is_some(), query),
            when(members(operation.path).next().is_some(), path),
            when(operation.idempotent, idempotent),
        ];
        let codes: BTreeSet<_> = codes
            .into_iter()
            .flatten()
            .chain(&operation.problems)
            .map(|code| (code.status(), code.as_str()))
            .collect();
        let mut by_status: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for (status, code) in codes {
            by_status.entry(status).or_default().push(code);
        }
        by_status
    }
}

/// The names in braces of a path.
fn members(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The members of a query's shape as parameters.
fn query(shape: &Value) -> Vec<Value> {
    let required: Vec<_> = shape["required"].as_array().cloned().unwrap_or_default();
    let members = shape["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({
            "name": name, "in": "query", "required": required.contains(&json!(name)),
            "schema": without_null(schema),
        });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    members.map(parameter).collect()
}

/// A query has no null: a member is there or it is not.
fn without_null(mut schema: Value) -> Value {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(either) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        either.retain(|shape| shape["type"] != "null");
        if let [only] = either.as_slice() {
            let only = only.clone();
            schema = only;
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.retain(|name, value| !(name == "default" && value.is_null()));
    }
    schema
}

/// RFC 9457, with the stable codes.
fn problem() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "description": "An error (RFC 9457) with a stable code, and figures beside it where they help.",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": {"type": "string", "description": "`urn:convene:problem:<code>`"},
            "title": {"type": "string", "description": "One sentence, the same for every problem of this code."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"type": "string", "enum": codes},
            "detail": {"type": "string", "description": "What is particular to this occurrence."},
        },
    })
}

fn description(status: u16) -> &'static str {
    match status {
        101 => "The connection is a WebSocket from here on.",
        201 => "Made.",
        202 => "Under way.",
        204 => "Done.",
        _ => "Success.",
    }
}
