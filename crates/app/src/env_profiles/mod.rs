//! Env profiles of a workspace: named sets of variables that the headers and parameters of an
//! agent's tools may refer to.
//!
//! So one tool serves several agents, each with credentials of its own. A variable is plain, a
//! secret of the workspace by id, or a secret by name: of the agent that runs, or of the person who
//! began the run.

mod api;

use std::collections::BTreeSet;

use convene_db::DbError;
use convene_hop::api::{Api, Operation};
use convene_model::{Code, OrgId, Problem, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objects::{self, Draft, Kind, Object, secret, values::MAX_PLAIN_VALUE_BYTES},
    state::AppState,
    validate::{self, invalid},
    web::failure::Answer,
};

/// Variables of one profile.
pub const MAX_VARIABLES: usize = 64;

/// What an env profile is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvProfileConfig {
    /// Its variables, each name once.
    pub(crate) variables: Vec<Variable>,
}

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    /// Its name: letters, digits and `_`.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: VariableValue,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VariableValue {
    /// It stands here.
    Plain(String),
    /// The secret of the workspace with this id, in the groups that it is granted to.
    Secret(String),
    /// The secret of this name in the namespace of the agent that runs.
    Agent(String),
    /// The secret of this name of the person who began the run.
    Personal(String),
}

/// An env profile of a workspace.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct EnvProfileView {
    pub(crate) env_profile_id: String,
    pub(crate) name: String,
    /// Grows with each change.
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    pub(crate) config: EnvProfileConfig,
}

impl EnvProfileView {
    pub(crate) fn of(object: Object) -> Result<Self, DbError> {
        let config = object.parse()?;
        let Object { id: env_profile_id, name, version, updated_at, .. } = object;
        Ok(Self { env_profile_id, name, version, updated_at, config })
    }
}

/// A profile as somebody describes it, checked.
fn draft(org: &OrgId, name: &str, config: EnvProfileConfig) -> Result<Draft, Problem> {
    const FIELD: &str = "variables";
    let name = validate::name("name", name)?;
    if config.variables.len() > MAX_VARIABLES {
        let sentence = format!("A profile has at most {MAX_VARIABLES} variables.");
        return Err(invalid(FIELD, sentence));
    }
    let (mut names, mut guards) = (BTreeSet::new(), Vec::new());
    for Variable { name, value } in &config.variables {
        validate::secret_name(FIELD, name)?;
        if !names.insert(name.as_str()) {
            return Err(invalid(FIELD, format!("{name} stands here twice.")));
        }
        match value {
            VariableValue::Plain(text) => {
                if text.len() > MAX_PLAIN_VALUE_BYTES || text.chars().any(char::is_control) {
                    let sentence = format!(
                        "{name}: a plain value has at most {MAX_PLAIN_VALUE_BYTES} bytes on one line."
                    );
                    return Err(invalid(FIELD, sentence));
                }
            }
            VariableValue::Secret(id) => guards.push(secret(org, id, FIELD)),
            VariableValue::Agent(secret) | VariableValue::Personal(secret) => {
                validate::secret_name(FIELD, secret)?;
            }
        }
    }
    Draft::new(name, &config, guards)
}

/// The API of this part.
pub(crate) fn api() -> Api<AppState> {
    const ALL: &str = "/api/orgs/{org_id}/env-profiles";
    const ONE: &str = "/api/orgs/{org_id}/env-profiles/{env_profile_id}";
    const MANAGE: &[Code] = &[Code::Forbidden, Code::AlreadyExists, Code::Conflict];
    Api::new()
        .on(
            Operation::get(ALL, "listEnvProfiles", "Sets of variables for the tools of agents.")
                .answers::<Vec<EnvProfileView>>(200)
                .problems(MANAGE),
            api::list,
        )
        .on(
            Operation::post(ALL, "makeEnvProfile", "Make an env profile.")
                .body::<api::NewProfile>()
                .answers::<EnvProfileView>(201)
                .problems(MANAGE),
            api::make,
        )
        .on(
            Operation::get(ONE, "readEnvProfile", "One env profile.")
                .answers::<EnvProfileView>(200)
                .problems(MANAGE),
            api::get,
        )
        .on(
            Operation::put(ONE, "setEnvProfile", "Set a profile anew, from the version given.")
                .body::<api::ProfileChange>()
                .answers::<EnvProfileView>(200)
                .problems(MANAGE),
            api::change,
        )
        .on(
            Operation::delete(ONE, "deleteEnvProfile", "Delete a profile that no agent uses.")
                .answers_empty(204)
                .problems(MANAGE),
            api::delete,
        )
}

/// The profiles of a workspace, by name.
pub(crate) async fn list(state: &AppState, org: &OrgId) -> Answer<Vec<EnvProfileView>> {
    let found = objects::list(state, org, Kind::EnvProfile).await?;
    Ok(found.into_iter().map(EnvProfileView::of).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: Vec<Variable>) -> bool {
        draft(&OrgId::new("o1").unwrap(), "Staging", EnvProfileConfig { variables }).is_ok()
    }

    fn variable(name: &str, value: VariableValue) -> Variable {
        Variable { name: name.to_owned(), value }
    }

    #[test]
    fn variables_are_held_to_their_rules_on_both_sides() {
        let plain = |size: usize| VariableValue::Plain("v".repeat(size));
        let many = |count: usize| {
            (0..count).map(|n| variable(&format!("V{n}"), plain(0))).collect::<Vec<_>>()
        };
        assert!(check(many(MAX_VARIABLES)));
        assert!(!check(many(MAX_VARIABLES + 1)));
        assert!(check(vec![variable("A", plain(MAX_PLAIN_VALUE_BYTES))]));
        assert!(!check(vec![variable("A", plain(MAX_PLAIN_VALUE_BYTES + 1))]));
        assert!(!check(vec![variable("A", VariableValue::Plain("a\nb".to_owned()))]));
        assert!(!check(vec![variable("A-B", plain(1))]));
        assert!(!check(vec![variable("A", plain(1)), variable("A", plain(2))]));
        assert!(check(vec![variable("A", VariableValue::Personal("GITHUB_TOKEN".to_owned()))]));
        assert!(!check(vec![variable("A", VariableValue::Agent("no name".to_owned()))]));
    }
}
