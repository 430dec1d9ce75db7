//! What a run may open: its organization, group, agent and initiator decide, and nothing else.
//!
//! A secret of the workspace opens in the groups that it is granted to, one of an agent's namespace
//! in that agent's runs, a personal one in runs that its owner began and while they belong to the
//! workspace. Whatever does not open looks like something that is not there.

use std::collections::{BTreeMap, BTreeSet};

use convene_db::{Statement, Value, params};
use convene_model::{AgentId, GroupId, OrgId, UserId, claims::AgentAccessClaims};
use zeroize::Zeroizing;

use super::{
    store::{AGENT, PERSONAL, WORKSPACE},
    vault::{SEALED_COLUMNS, Vault},
};
use crate::web::failure::Answer;

/// A secret that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// One of the workspace, by id.
    Workspace(String),
    /// One in the namespace of the agent that runs, by name.
    Agent(String),
    /// One of the person who began the run, by name.
    Personal(String),
}

/// On whose behalf secrets are opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    org: &'a OrgId,
    place: Place<'a>,
    agent: Option<&'a AgentId>,
    initiator: Option<&'a UserId>,
}

/// Where secrets of the workspace are used.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// In a group: those that are granted to it.
    Group(&'a GroupId),
    /// In the settings, by somebody who manages the workspace and may reveal them anyway.
    Settings,
}

impl<'a> Reach<'a> {
    /// What a run may use.
    pub(crate) const fn of_run(run: &'a AgentAccessClaims) -> Self {
        Self {
            org: &run.org_id,
            place: Place::Group(&run.group_id),
            agent: Some(&run.agent_id),
            initiator: run.initiator.as_ref(),
        }
    }

    /// What somebody who manages the workspace tries out.
    pub(crate) const fn of_manager(org: &'a OrgId, manager: &'a UserId) -> Self {
        Self { org, place: Place::Settings, agent: None, initiator: Some(manager) }
    }
}

/// What was opened, for the time of one answer.
#[derive(Default)]
pub(crate) struct Opened(BTreeMap<Wanted, Zeroizing<String>>);

impl Opened {
    /// The value, if this run may use it.
    pub(crate) fn get(&self, wanted: &Wanted) -> Option<&str> {
        self.0.get(wanted).map(|value| value.as_str())
    }
}

impl Vault {
    /// Opens those of the wanted secrets that may be used.
    pub(crate) async fn open_for(
        &self,
        reach: Reach<'_>,
        wanted: &BTreeSet<Wanted>,
    ) -> Answer<Opened> {
        if wanted.is_empty() {
            return Ok(Opened::default());
        }
        let (sql, params) = question(reach, wanted);
        let mut opened = BTreeMap::new();
        for row in self.db.query(Statement::new(sql, params)).await? {
            let name: String = row.get("name")?;
            let wanted = match row.get::<String>("scope")?.as_str() {
                AGENT => Wanted::Agent(name),
                PERSONAL => Wanted::Personal(name),
                _ => Wanted::Workspace(row.get("secret_id")?),
            };
            opened.insert(wanted, self.open_row(&row)?);
        }
        Ok(Opened(opened))
    }
}

/// One statement, so that a grant that is withdrawn meanwhile holds for all or none of them.
fn question(reach: Reach<'_>, wanted: &BTreeSet<Wanted>) -> (String, Vec<Value>) {
    let group = match reach.place {
        Place::Group(group) => group.as_str(),
        Place::Settings => "",
    };
    let granted = match reach.place {
        Place::Group(_) => {
            "(s.all_groups = 1 OR EXISTS (SELECT 1 FROM secret_grants t
              WHERE t.secret_id = s.secret_id AND t.group_id = $2))"
        }
        Place::Settings => "1 = 1",
    };
    // An empty id is nobody's.
    let agent = reach.agent.map_or("", AgentId::as_str);
    let initiator = reach.initiator.map_or("", UserId::as_str);
    let mut params = params![reach.org.as_str(), group, agent, initiator];
    let mut place = |text: &str| {
        params.push(text.into());
        format!("${}", params.len())
    };
    let conditions: Vec<String> = wanted
        .iter()
        .map(|one| match one {
            Wanted::Workspace(id) => {
                format!("(s.scope = '{WORKSPACE}' AND s.secret_id = {} AND {granted})", place(id))
            }
            Wanted::Agent(name) => {
                format!("(s.scope = '{AGENT}' AND s.owner_id = $3 AND s.name = {})", place(name))
            }
            Wanted::Personal(name) => format!(
                "(s.scope = '{PERSONAL}' AND s.owner_id = $4 AND s.name = {} AND EXISTS
                 (SELECT 1 FROM org_members m WHERE m.org_id = $1 AND m.user_id = $4))",
                place(name)
            ),
        })
        .collect();
    let sql = format!(
        "SELECT {SEALED_COLUMNS}, s.scope, s.name FROM secrets s
         JOIN secret_versions v ON v.secret_id = s.secret_id AND v.version = s.version
         JOIN data_keys k ON k.data_key_id = v.data_key_id
         WHERE s.org_id = $1 AND CAST($2 AS TEXT) IS NOT NULL
         AND CAST($3 AS TEXT) IS NOT NULL AND CAST($4 AS TEXT) IS NOT NULL AND ({})",
        conditions.join(" OR ")
    );
    (sql, params)
}
