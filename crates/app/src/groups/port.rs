//! What the rooms ask the workspace about a group.

use async_trait::async_trait;
use convene_db::{Db, DbError, Statement, params};
use convene_hop::Clock;
use convene_model::{
    Code, GroupId, OrgId, Problem, Role, UserId,
    event::{GroupAgent, GroupConfig},
    infra::GroupStatus,
};

use super::{life, store};
use crate::{
    agents::tokens,
    changes::Bell,
    reading::Recording,
    rooms::{GroupDescription, Groups, Head, Records},
    web::{failure::of_database, rows},
};

/// The workspace's own answers.
pub struct WorkspaceGroups {
    db: Db,
    clock: Clock,
    recording: Recording,
    bell: Bell,
}

impl WorkspaceGroups {
    /// Answers from this database.
    #[must_use]
    pub fn new(db: Db, clock: Clock) -> Self {
        Self::with_bell(db, clock, Bell::default())
    }

    /// Answers from this database, and rings when it has written what others may have to hear of.
    pub(crate) fn with_bell(db: Db, clock: Clock, bell: Bell) -> Self {
        let recording = Recording::new(db.clone(), clock.clone(), bell.clone());
        Self { db, clock, recording, bell }
    }

    /// One statement, so that version and agents are of the same moment.
    async fn read(&self, group: &GroupId) -> Result<Option<GroupDescription>, DbError> {
        const SQL: &str = "SELECT g.org_id, g.version, g.paused, g.revisions, g.max_rounds,
            g.cooldown_secs, a.agent_id, a.name, a.outside, ga.wakes_on
            FROM chat_groups g LEFT JOIN group_agents ga ON ga.group_id = g.group_id
            LEFT JOIN agents a ON a.agent_id = ga.agent_id
            WHERE g.group_id = $1 AND g.deleted_at IS NULL ORDER BY ga.place, a.created_at, a.agent_id";
        let found = self.db.query(Statement::new(SQL, params![group.as_str()])).await?;
        let Some(first) = found.first() else { return Ok(None) };
        let mut agents = Vec::new();
        for row in &found {
            if row.get::<Option<String>>("agent_id")?.is_some() {
                agents.push(GroupAgent {
                    agent_id: rows::id(row, "agent_id")?,
                    name: row.get("name")?,
                    trigger: rows::trigger(row, "wakes_on")?,
                    outside: row.get("outside")?,
                });
            }
        }
        let org_id: OrgId = rows::id(first, "org_id")?;
        let config = GroupConfig {
            version: first.get("version")?,
            agents,
            paused: first.get("paused")?,
            revisions: rows::revisions(first, "revisions")?,
            max_rounds: first.get("max_rounds")?,
            cooldown_secs: first.get("cooldown_secs")?,
        };
        Ok(Some(GroupDescription { org_id, config }))
    }
}

#[async_trait]
impl Groups for WorkspaceGroups {
    async fn describe(&self, group: &GroupId) -> Result<GroupDescription, Problem> {
        let found = self.read(group).await.map_err(|error| of_database(&error))?;
        found.ok_or_else(|| Code::GroupNotFound.into())
    }

    async fn role(&self, group: &GroupId, user: &UserId) -> Result<Option<Role>, Problem> {
        let of_database = |error| of_database(&error);
        if let Some(group) = store::find(&*self.db, group, user).await.map_err(of_database)? {
            return Ok(Some(group.role));
        }
        let is_agent = tokens::is_in(&*self.db, group, user).await.map_err(of_database)?;
        Ok(is_agent.then_some(Role::Agent))
    }

    async fn head(&self, group: &GroupId) -> Result<Option<Head>, Problem> {
        self.recording.head(group).await.map_err(|error| of_database(&error))
    }

    async fn record(&self, group: &GroupId, records: Records) -> Result<Option<Head>, Problem> {
        self.recording.record(group, records).await
    }

    async fn activated(&self, group: &GroupId) -> Result<(), Problem> {
        const SQL: &str = "UPDATE chat_groups SET activated_at = $2
            WHERE group_id = $1 AND activated_at IS NULL";
        let params = params![group.as_str(), (self.clock)().millis()];
        let done = self.db.execute(Statement::new(SQL, params)).await;
        done.map_err(|error| of_database(&error))?;
        self.stands(group, GroupStatus::Active).await
    }

    async fn stands(&self, group: &GroupId, status: GroupStatus) -> Result<(), Problem> {
        let noted = life::stands(&*self.db, &self.bell, group, status, (self.clock)()).await;
        noted.map_err(|error| of_database(&error))
    }
}
