//! The hosts that the tools of a workspace may reach, where it says so. Without a list they may
//! reach whatever the operator's configuration lets them.

use convene_db::{DbError, Statement, params};
use convene_model::{Code, OrgId, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Host;

use crate::{
    identity::caller::Caller,
    state::AppState,
    validate::{self, invalid},
    web::failure::Answer,
    workspaces::{
        audit::{self, Action},
        orgs,
    },
};

/// Hosts in one list.
pub const MAX_TOOL_HOSTS: usize = 100;
/// Bytes of a host with its port.
const MAX_HOST_BYTES: usize = 260;

/// The hosts that tools may reach, each `host` (every port) or `host:port`; `null` for any that the
/// operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolHosts {
    #[serde(deserialize_with = "validate::nullable")]
    pub(crate) hosts: Option<Vec<String>>,
}

/// The list of a workspace.
pub(crate) async fn of(state: &AppState, org: &OrgId) -> Answer<Option<Vec<String>>> {
    const SQL: &str = "SELECT tool_hosts FROM orgs WHERE org_id = $1";
    let found = state.db.query(Statement::new(SQL, params![org.as_str()])).await?;
    let Some(row) = found.first() else { return Err(Code::NotFound.into()) };
    Ok(parse(row.get("tool_hosts")?)?)
}

/// The list as it stands in the column `tool_hosts`.
pub(crate) fn parse(column: Option<String>) -> Result<Option<Vec<String>>, DbError> {
    let list = column.map(|text| serde_json::from_str(&text));
    list.transpose().map_err(|error| DbError::decode("tool_hosts", error))
}

/// Sets the list of a workspace.
pub(crate) async fn set(
    state: &AppState,
    org: &OrgId,
    caller: &Caller,
    hosts: ToolHosts,
) -> Answer<ToolHosts> {
    const SQL: &str = "UPDATE orgs SET tool_hosts = $2 WHERE org_id = $1";
    let hosts = hosts.hosts.map(|hosts| checked("hosts", &hosts)).transpose()?;
    let text = hosts.as_ref().map(|hosts| json!(hosts).to_string());
    let detail = json!({"hosts": hosts});
    let (action, now) = (Action::ToolHostsSet, state.now());
    let batch = vec![
        orgs::reconfigured(org),
        Statement::new(SQL, params![org.as_str(), text]).expect_rows(),
        audit::record(org, caller.id(), action, org.as_str(), &detail, now),
    ];
    state.db.batch(batch).await?;
    Ok(ToolHosts { hosts })
}

/// The hosts in lower case, each once.
fn checked(field: &str, hosts: &[String]) -> Result<Vec<String>, Problem> {
    let mut checked = Vec::new();
    for host in hosts {
        let host = self::host(host.trim()).ok_or_else(|| {
            invalid(field, format!("{host:?} is no host, like api.example or api.example:8443."))
        })?;
        if !checked.contains(&host) {
            checked.push(host);
        }
    }
    if checked.len() > MAX_TOOL_HOSTS {
        return Err(invalid(field, format!("There may be at most {MAX_TOOL_HOSTS} hosts.")));
    }
    Ok(checked)
}

fn host(text: &str) -> Option<String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        Some(_) | None => (text, None),
    };
    if text.is_empty() || text.len() > MAX_HOST_BYTES {
        return None;
    }
    let name = Host::parse(name).ok()?.to_string();
    match port {
        None => Some(name),
        Some(port) => {
            let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
            Some(format!("{name}:{port}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_kept_in_one_form_and_nothing_else_is_a_host() {
        let list = ["API.example", "api.example", "a.b:8443", "[::1]:80", "10.0.0.1"];
        let list: Vec<_> = list.map(str::to_owned).into();
        let kept = checked("hosts", &list).unwrap();
        assert_eq!(kept, ["api.example", "a.b:8443", "[::1]:80", "10.0.0.1"]);
        for bad in ["", "a b", "https://a", "a/b", "a:0", "a:x", "a:70000", "u@a", "::1"] {
            assert!(checked("hosts", &[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_is_held_to_its_limit_on_both_sides() {
        let hosts = |count| (0..count).map(|n| format!("h{n}")).collect::<Vec<_>>();
        assert!(checked("hosts", &hosts(MAX_TOOL_HOSTS)).is_ok());
        assert!(checked("hosts", &hosts(MAX_TOOL_HOSTS + 1)).is_err());
    }
}
