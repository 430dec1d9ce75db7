//! What tools and servers have in common: headers and parameters of their requests, who permits
//! their calls, and their bounds.
//!
//! A value is plain, the secret that it names by id, or the variable that the agent's env profile
//! fills in. None of them holds a secret itself.

use std::collections::BTreeSet;

use convene_model::{OrgId, Problem, Role, agents::Approvers, limits::MAX_TOOL_TIMEOUT};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Guard, member, secret};
use crate::validate::{self, invalid};

/// Headers, or query parameters, of one tool or server.
pub const MAX_SETTINGS: usize = 16;
/// Bytes of the name of a header or a query parameter.
pub const MAX_SETTING_NAME_BYTES: usize = 64;
/// Bytes of a plain value of a header or a query parameter.
pub const MAX_PLAIN_VALUE_BYTES: usize = 1024;
/// Bytes of the word that stands before a secret in a header.
pub const MAX_PREFIX_BYTES: usize = 32;
/// How long a call may take at least, in milliseconds.
pub const MIN_TOOL_TIMEOUT_MS: u64 = 500;
/// People among whom some have to agree to a call.
pub const MAX_APPROVERS: usize = 20;
/// Bytes of the name of a tool.
pub const MAX_TOOL_NAME_BYTES: usize = 64;

/// Headers that requests set themselves.
const OWN_HEADERS: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header or a query parameter of every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: SettingValue,
    /// A word that stands, with a space, before a value that is not plain: `Bearer` for instance.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) prefix: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SettingValue {
    /// It stands here.
    Plain(String),
    /// The secret of the workspace with this id.
    Secret(String),
    /// The variable of this name in the agent's env profile.
    Variable(String),
}

/// What the settings are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Headers,
    Query,
}

/// Checks headers or query parameters.
pub(crate) fn settings(field: &str, part: Part, settings: &[Setting]) -> Result<(), Problem> {
    if settings.len() > MAX_SETTINGS {
        return Err(invalid(field, format!("There may be at most {MAX_SETTINGS} of these.")));
    }
    let mut names = BTreeSet::new();
    for setting in settings {
        let name = &setting.name;
        let sized = (1..=MAX_SETTING_NAME_BYTES).contains(&name.len());
        let (well_formed, key) = match part {
            Part::Headers => (name.bytes().all(is_token), name.to_ascii_lowercase()),
            Part::Query => (!name.chars().any(char::is_control), name.clone()),
        };
        if !sized || !well_formed {
            let sentence = format!("{name:?} is no name for this.");
            return Err(invalid(field, sentence));
        }
        let own = OWN_HEADERS.contains(&&*key) || key.starts_with("proxy-");
        if part == Part::Headers && own {
            let sentence = format!("The header {name} is set by Convene itself.");
            return Err(invalid(field, sentence));
        }
        if !names.insert(key) {
            return Err(invalid(field, format!("{name} stands here twice.")));
        }
        value(field, part, setting)?;
    }
    Ok(())
}

fn value(field: &str, part: Part, setting: &Setting) -> Result<(), Problem> {
    let Setting { name, value, prefix } = setting;
    match value {
        SettingValue::Plain(_) if !prefix.is_empty() => {
            let sentence = format!("{name}: a prefix stands before a secret or a variable only.");
            return Err(invalid(field, sentence));
        }
        SettingValue::Plain(text) => {
            let fits = match part {
                Part::Headers => is_header_value(text),
                Part::Query => !text.contains('\0'),
            };
            if text.len() > MAX_PLAIN_VALUE_BYTES || !fits {
                let sentence = format!(
                    "{name}: a plain value has at most {MAX_PLAIN_VALUE_BYTES} visible characters."
                );
                return Err(invalid(field, sentence));
            }
        }
        SettingValue::Secret(_) => {}
        SettingValue::Variable(variable) => {
            validate::secret_name(field, variable)?;
        }
    }
    if prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(is_token) {
        let sentence = format!(
            "{name}: what stands before a secret is one word of at most {MAX_PREFIX_BYTES} characters."
        );
        return Err(invalid(field, sentence));
    }
    Ok(())
}

/// Whether a text can stand in a header as it is.
pub(crate) fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The guards that every secret exists which the settings name.
pub(crate) fn secrets(org: &OrgId, field: &str, settings: &[Setting]) -> Vec<Guard> {
    let ids = settings.iter().filter_map(|setting| match &setting.value {
        SettingValue::Secret(id) => Some(id),
        SettingValue::Plain(_) | SettingValue::Variable(_) => None,
    });
    ids.map(|id| secret(org, id, field)).collect()
}

/// Checks who permits calls, and returns the guards that they belong to the workspace.
pub(crate) fn approvers(
    org: &OrgId,
    field: &str,
    approvers: &Approvers,
) -> Result<Vec<Guard>, Problem> {
    match approvers {
        Approvers::Initiator => Ok(Vec::new()),
        Approvers::Role { role: Role::Agent } => {
            Err(invalid(field, "Only people permit calls: choose member, admin or owner."))
        }
        Approvers::Role { role: Role::Member | Role::Admin | Role::Owner } => Ok(Vec::new()),
        Approvers::NOfM { n, users } => {
            let distinct: BTreeSet<_> = users.iter().collect();
            if distinct.len() < users.len() || users.len() > MAX_APPROVERS {
                let sentence = format!("Name at most {MAX_APPROVERS} people, each of them once.");
                return Err(invalid(field, sentence));
            }
            if *n == 0 || *n as usize > users.len() {
                let sentence = "At least one person has to agree, and no more than are named.";
                return Err(invalid(field, sentence));
            }
            Ok(users.iter().map(|user| member(org, user, field)).collect())
        }
    }
}

/// Checks how long a call may take.
pub(crate) fn timeout(field: &str, timeout_ms: u64) -> Result<(), Problem> {
    let most = u64::try_from(MAX_TOOL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    if (MIN_TOOL_TIMEOUT_MS..=most).contains(&timeout_ms) {
        return Ok(());
    }
    let sentence = format!("A time-out is {MIN_TOOL_TIMEOUT_MS} to {most} milliseconds.");
    Err(invalid(field, sentence))
}

/// The name of a tool or a server: letters, digits, `_` and `-`. Two underscores in a row part a
/// server's name from its tool's.
pub(crate) fn name(field: &str, text: &str, most: usize) -> Result<String, Problem> {
    let name = text.trim();
    let well_formed = (1..=most).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        && !name.contains("__");
    if well_formed {
        return Ok(name.to_owned());
    }
    let sentence = format!(
        "This name has 1 to {most} letters, digits, _ or -, and no two underscores in a row."
    );
    Err(invalid(field, sentence))
}

/// A list of names of tools: at most `most`, each once, none empty or too long.
pub(crate) fn tool_names(field: &str, names: &[String], most: usize) -> Result<(), Problem> {
    let distinct: BTreeSet<_> = names.iter().collect();
    let sized = |name: &String| {
        (1..=MAX_TOOL_NAME_BYTES * 2).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    if names.len() <= most && distinct.len() == names.len() && names.iter().all(sized) {
        return Ok(());
    }
    Err(invalid(field, format!("Name at most {most} tools, each of them once.")))
}

#[cfg(test)]
mod tests {
    use convene_model::UserId;

    use super::*;

    fn plain(name: &str, value: &str) -> Setting {
        let value = SettingValue::Plain(value.to_owned());
        Setting { name: name.to_owned(), value, prefix: String::new() }
    }

    fn headers(all: &[Setting]) -> bool {
        settings("headers", Part::Headers, all).is_ok()
    }

    #[test]
    fn a_header_that_a_request_sets_itself_or_that_stands_twice_is_refused() {
        assert!(headers(&[plain("X-Team", "a b"), plain("Accept", "text/plain")]));
        for own in ["Host", "content-length", "Proxy-Authorization", "Content-Type"] {
            assert!(!headers(&[plain(own, "x")]), "{own}");
        }
        assert!(!headers(&[plain("X-Team", "a"), plain("x-team", "b")]));
        for name in ["", "a b", "a:b", "ä", &"n".repeat(MAX_SETTING_NAME_BYTES + 1)] {
            assert!(!headers(&[plain(name, "x")]), "{name:?}");
        }
        assert!(headers(&[plain(&"n".repeat(MAX_SETTING_NAME_BYTES), "x")]));
    }

    #[test]
    fn settings_are_held_to_their_limits_on_both_sides() {
        let many = |count| (0..count).map(|n| plain(&format!("h{n}"), "x")).collect::<Vec<_>>();
        assert!(headers(&many(MAX_SETTINGS)));
        assert!(!headers(&many(MAX_SETTINGS + 1)));
        assert!(headers(&[plain("h", &"v".repeat(MAX_PLAIN_VALUE_BYTES))]));
        assert!(!headers(&[plain("h", &"v".repeat(MAX_PLAIN_VALUE_BYTES + 1))]));
        assert!(!headers(&[plain("h", "a\r\nb: c")]), "a header cannot be split");
        assert!(settings("query", Part::Query, &[plain("ä b", "ü\n")]).is_ok());
        let secret = |prefix: String| Setting {
            name: "Authorization".to_owned(),
            value: SettingValue::Secret("s1".to_owned()),
            prefix,
        };
        assert!(headers(&[secret("Bearer".to_owned())]));
        assert!(headers(&[secret("p".repeat(MAX_PREFIX_BYTES))]));
        assert!(!headers(&[secret("p".repeat(MAX_PREFIX_BYTES + 1))]));
        assert!(!headers(&[secret("two words".to_owned())]));
        assert!(!headers(&[Setting { prefix: "p".to_owned(), ..plain("h", "v") }]));
    }

    #[test]
    fn time_outs_names_and_lists_are_held_to_their_limits_on_both_sides() {
        let most = MAX_TOOL_TIMEOUT.as_millis() as u64;
        for (ms, holds) in [
            (MIN_TOOL_TIMEOUT_MS - 1, false),
            (MIN_TOOL_TIMEOUT_MS, true),
            (most, true),
            (most + 1, false),
        ] {
            assert_eq!(timeout("timeout_ms", ms).is_ok(), holds, "{ms}");
        }
        for good in ["a", "create-issue_2", &"n".repeat(MAX_TOOL_NAME_BYTES)] {
            assert!(name("name", good, MAX_TOOL_NAME_BYTES).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a__b", "ä", &"n".repeat(MAX_TOOL_NAME_BYTES + 1)] {
            assert!(name("name", bad, MAX_TOOL_NAME_BYTES).is_err(), "{bad}");
        }
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert!(tool_names("tools", &names(3), 3).is_ok());
        assert!(tool_names("tools", &names(4), 3).is_err());
        assert!(tool_names("tools", &["a".to_owned(), "a".to_owned()], 3).is_err());
    }

    #[test]
    fn those_who_permit_calls_are_people_and_enough_of_them() {
        let org = OrgId::new("o1").unwrap();
        let users = |count: usize| {
            (0..count).map(|n| UserId::new(format!("u{n}")).unwrap()).collect::<Vec<_>>()
        };
        let check = |who: &Approvers| approvers(&org, "approvers", who).map(|guards| guards.len());
        assert_eq!(check(&Approvers::Initiator), Ok(0));
        assert_eq!(check(&Approvers::Role { role: Role::Admin }), Ok(0));
        assert!(check(&Approvers::Role { role: Role::Agent }).is_err());
        assert_eq!(check(&Approvers::NOfM { n: 2, users: users(2) }), Ok(2));
        assert!(check(&Approvers::NOfM { n: 3, users: users(2) }).is_err());
        assert!(check(&Approvers::NOfM { n: 0, users: users(2) }).is_err());
        assert!(check(&Approvers::NOfM { n: 1, users: users(MAX_APPROVERS) }).is_ok());
        assert!(check(&Approvers::NOfM { n: 1, users: users(MAX_APPROVERS + 1) }).is_err());
        let twice = vec![UserId::new("u1").unwrap(), UserId::new("u1").unwrap()];
        assert!(check(&Approvers::NOfM { n: 2, users: twice }).is_err());
    }
}
