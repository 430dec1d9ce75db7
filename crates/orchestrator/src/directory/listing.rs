//! Pages of groups, organizations, tasks and steps of a group's life, in an order that stands still while they are turned.

use convene_db::{DbError, Row, Statement, Value};
use convene_model::{
    GroupId, LifeEventId, OrgId, TaskId, Timestamp,
    infra::GroupStatus,
    listing::{
        GroupsPage, GroupsQuery, LifeEvent, LifeEventsPage, LifeEventsQuery, OrgSummary, OrgsPage,
        OrgsQuery, TasksPage, TasksQuery,
    },
};

use super::{Directory, OwnedRecord, RECORD_COLUMNS, RECORD_TABLES, tasks::TaskRow};

/// Where a group stands that has no record, as events have it.
const INACTIVE: &str = "inactive";

/// Whose entries a caller sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sight<'a> {
    /// Only those of this app; `None` for an operator.
    pub(crate) issuer: Option<&'a str>,
    /// Only those of this organization, where the caller's token names one.
    pub(crate) org_id: Option<&'a OrgId>,
}

/// The conditions of a query, with their values.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds one; `?` stands for the value, wherever it occurs.
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql.push(condition.replace('?', &format!("${}", self.values.len())));
    }

    fn fixed(&mut self, condition: &str) {
        self.sql.push(condition.to_owned());
    }

    fn seen_by(&mut self, sight: &Sight<'_>, org_column: &str) {
        if let Some(issuer) = sight.issuer {
            self.add("o.issuer = ?", issuer);
        }
        if let Some(org_id) = sight.org_id {
            self.add(&format!("{org_column} = ?"), org_id.as_str());
        }
    }

    /// `select` with these conditions; one row more than the page has tells whether there are more.
    fn statement(self, select: &str, order: &str, page: usize) -> Statement {
        let conditions = if self.sql.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.sql.join(" AND "))
        };
        let sql = format!("{select}{conditions} ORDER BY {order} LIMIT {}", page + 1);
        Statement::new(sql, self.values)
    }
}

impl Directory {
    /// A page of groups.
    pub(crate) async fn groups(
        &self,
        sight: &Sight<'_>,
        query: &GroupsQuery,
        page: usize,
    ) -> Result<GroupsPage, DbError> {
        let mut conditions = Conditions::default();
        conditions.seen_by(sight, "r.org_id");
        if let Some(org_id) = &query.org_id {
            conditions.add("r.org_id = ?", org_id.as_str());
        }
        match query.status {
            Some(status) => conditions.add("r.status = ?", status.as_str()),
            None => conditions.add("r.status <> ?", GroupStatus::Deleted.as_str()),
        }
        if let Some(after) = &query.after {
            conditions.add("r.group_id > ?", after.as_str());
        }
        let select = format!("SELECT {RECORD_COLUMNS} FROM {RECORD_TABLES}");
        let rows = self.db.query(conditions.statement(&select, "r.group_id", page)).await?;
        let mut groups = Vec::with_capacity(rows.len().min(page));
        for row in rows.iter().take(page) {
            groups.push(OwnedRecord::try_from(row)?.record);
        }
        let more = rows.len() > page;
        let next = groups.last().filter(|_| more).map(|last| last.group_id.clone());
        Ok(GroupsPage { groups, next })
    }

    /// A page of organizations.
    pub(crate) async fn orgs(
        &self,
        sight: &Sight<'_>,
        query: &OrgsQuery,
        page: usize,
    ) -> Result<OrgsPage, DbError> {
        let mut conditions = Conditions::default();
        conditions.seen_by(sight, "c.org_id");
        match query.blocked {
            Some(true) => conditions.fixed("c.blocked_at IS NOT NULL"),
            Some(false) => conditions.fixed("c.blocked_at IS NULL"),
            None => {}
        }
        if let Some(after) = &query.after {
            conditions.add("c.org_id > ?", after.as_str());
        }
        let select =
            "SELECT c.org_id, c.active, c.max_active, c.blocked_at, c.block_reason, o.issuer
             FROM org_counts c LEFT JOIN org_owners o ON o.org_id = c.org_id";
        let rows = self.db.query(conditions.statement(select, "c.org_id", page)).await?;
        let orgs = rows.iter().take(page).map(|row| self.summary(row));
        let orgs = orgs.collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > page;
        let next = orgs.last().filter(|_| more).map(|last| last.org_id.clone());
        Ok(OrgsPage { orgs, next })
    }

    fn summary(&self, row: &Row) -> Result<OrgSummary, DbError> {
        let org_id: String = row.get("org_id")?;
        Ok(OrgSummary {
            org_id: OrgId::new(&org_id)
                .map_err(|error| DbError::decode("org_counts.org_id", error))?,
            issuer: row.get("issuer")?,
            active_groups: row.get("active")?,
            max_active_groups: row
                .get::<Option<u64>>("max_active")?
                .unwrap_or(self.default_max_active),
            blocked_at: row.get::<Option<u64>>("blocked_at")?.map(Timestamp::from_millis),
            block_reason: row.get("block_reason")?,
        })
    }

    /// A page of tasks. Behind a task that is no longer kept there is nothing.
    pub(crate) async fn tasks(
        &self,
        sight: &Sight<'_>,
        query: &TasksQuery,
        page: usize,
    ) -> Result<TasksPage, DbError> {
        let mut conditions = Conditions::default();
        conditions.seen_by(sight, "t.org_id");
        if let Some(group_id) = &query.group_id {
            conditions.add("t.group_id = ?", group_id.as_str());
        }
        if let Some(status) = query.status {
            conditions.add("t.status = ?", status.as_str());
        }
        if let Some(after) = &query.after {
            conditions.add(
                "EXISTS (SELECT 1 FROM tasks b WHERE b.task_id = ? AND (t.created_at < b.created_at
                     OR (t.created_at = b.created_at AND t.task_id < b.task_id)))",
                after.as_str(),
            );
        }
        let select = "SELECT t.task_id, t.kind, t.group_id, t.org_id, t.status, t.step, t.done,
                 t.total, t.problem, t.result, t.actor, t.reason, t.archive_id, t.epoch, t.worker,
                 t.attempt, t.lease_until, t.created_at, t.updated_at
             FROM tasks t LEFT JOIN org_owners o ON o.org_id = t.org_id";
        let order = "t.created_at DESC, t.task_id DESC";
        let rows = self.db.query(conditions.statement(select, order, page)).await?;
        let mut tasks = Vec::with_capacity(rows.len().min(page));
        for row in rows.iter().take(page) {
            tasks.push(TaskRow::try_from(row)?.task);
        }
        let more = rows.len() > page;
        let next = tasks.last().filter(|_| more).map(|last| last.task_id.clone());
        Ok(TasksPage { tasks, next })
    }

    /// A page of the steps of a group's life, the newest first. Behind one that is no longer kept there is
    /// nothing.
    pub(crate) async fn life(
        &self,
        group_id: &GroupId,
        query: &LifeEventsQuery,
        page: usize,
    ) -> Result<LifeEventsPage, DbError> {
        let mut conditions = Conditions::default();
        conditions.add("e.group_id = ?", group_id.as_str());
        if let Some(after) = &query.after {
            conditions.add(
                "EXISTS (SELECT 1 FROM lifecycle_events b
                     WHERE b.event_id = ? AND b.group_id = e.group_id
                       AND (e.at < b.at OR (e.at = b.at AND e.event_id < b.event_id)))",
                after.as_str(),
            );
        }
        let select =
            "SELECT e.event_id, e.at, e.from_status, e.to_status, e.epoch, e.actor, e.reason,
                 e.task_id
             FROM lifecycle_events e";
        let order = "e.at DESC, e.event_id DESC";
        let rows = self.db.query(conditions.statement(select, order, page)).await?;
        let events = rows.iter().take(page).map(life_event).collect::<Result<Vec<_>, _>>()?;
        let more = rows.len() > page;
        let next = events.last().filter(|_| more).map(|last| last.event_id.clone());
        Ok(LifeEventsPage { events, next })
    }
}

fn life_event(row: &Row) -> Result<LifeEvent, DbError> {
    let text = |column: &str| row.get::<String>(column);
    let event_id = text("event_id")?;
    let impossible = |column: &str, value: &str| {
        DbError::decode(
            format!("lifecycle_events.{column}"),
            format!("event {event_id:?} has {value:?}"),
        )
    };
    let status = |column: &str| {
        let name = text(column)?;
        GroupStatus::parse(&name).ok_or_else(|| impossible(column, &name))
    };
    let task_id: Option<String> = row.get("task_id")?;
    Ok(LifeEvent {
        event_id: LifeEventId::new(&event_id).map_err(|_| impossible("event_id", &event_id))?,
        at: Timestamp::from_millis(row.get("at")?),
        from: if text("from_status")? == INACTIVE { None } else { Some(status("from_status")?) },
        to: status("to_status")?,
        epoch: row.get("epoch")?,
        actor: text("actor")?,
        reason: text("reason")?,
        task_id: task_id
            .map(|id| TaskId::new(&id).map_err(|_| impossible("task_id", &id)))
            .transpose()?,
    })
}
