//! What the rooms ask the workspace about a group.

use async_trait::async_trait;
use convene_db::{Db, DbError, Statement, params};
use convene_hop::Clock;
use convene_model::{
    Code, GroupId, OrgId, Problem, Role, UserId,
    event::{GroupAgent, GroupConfig},
};

use super::store;
use crate::{
    rooms::{GroupDescription, Groups},
    web::{failure::of_database, rows},
};

/// The workspace's own answers.
pub struct WorkspaceGroups {
    db: Db,
    clock: Clock,
}

impl WorkspaceGroups {
    /// Answers from this database.
    #[must_use]
    pub fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }

    /// One statement, so that version and agents are of the same moment.
    async fn read(&self, group: &GroupId) -> Result<Option<GroupDescription>, DbError> {
        const SQL: &str = "SELECT g.org_id, g.version, g.paused, a.agent_id, a.name, ga.wakes_on
            FROM chat_groups g LEFT JOIN group_agents ga ON ga.group_id = g.group_id
            LEFT JOIN agents a ON a.agent_id = ga.agent_id
            WHERE g.group_id = $1 ORDER BY ga.place, a.created_at, a.agent_id";
        let found = self.db.query(Statement::new(SQL, params![group.as_str()])).await?;
        let Some(first) = found.first() else { return Ok(None) };
        let mut agents = Vec::new();
        for row in &found {
            if row.get::<Option<String>>("agent_id")?.is_some() {
                agents.push(GroupAgent {
                    agent_id: rows::id(row, "agent_id")?,
                    name: row.get("name")?,
                    trigger: rows::trigger(row, "wakes_on")?,
                });
            }
        }
        let org_id: OrgId = rows::id(first, "org_id")?;
        let (version, paused) = (first.get("version")?, first.get("paused")?);
        Ok(Some(GroupDescription {
            org_id,
            config: GroupConfig { version, agents, paused, ..GroupConfig::default() },
        }))
    }
}

#[async_trait]
impl Groups for WorkspaceGroups {
    async fn describe(&self, group: &GroupId) -> Result<GroupDescription, Problem> {
        let found = self.read(group).await.map_err(|error| of_database(&error))?;
        found.ok_or_else(|| Code::GroupNotFound.into())
    }

    async fn role(&self, group: &GroupId, user: &UserId) -> Result<Option<Role>, Problem> {
        let found = store::find(&*self.db, group, user).await;
        Ok(found.map_err(|error| of_database(&error))?.map(|group| group.role))
    }

    async fn activated(&self, group: &GroupId) -> Result<(), Problem> {
        const SQL: &str = "UPDATE chat_groups SET activated_at = $2
            WHERE group_id = $1 AND activated_at IS NULL";
        let params = params![group.as_str(), (self.clock)().millis()];
        let done = self.db.execute(Statement::new(SQL, params)).await;
        done.map(|_| ()).map_err(|error| of_database(&error))
    }
}
