//! The calls about a group's life: where it stands, archive, restore and delete, how their tasks
//! stand, and what it has used.

use bytes::Bytes;
use convene_model::{
    GroupId, OrgId, Problem, TaskId,
    infra::{Activation, GroupStatus, RoutingRecord},
    limits::{MAX_BODY_BYTES, MAX_PAGE},
    listing::GroupsPage,
    tasks::{ArchiveRequest, Archived, Task},
    usage::GroupUsage,
};
use http::{HeaderName, Method, header};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Call, IDEMPOTENCY_KEY, OrchestratorClient, encode, internal};

/// How long a call about a group's life waits for its end, as the header says it: what takes longer
/// goes on as a task, whose progress can be shown.
const WAIT: &str = "wait=2";
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What became of a call that may take longer than anybody waits.
#[derive(Debug)]
pub enum Begun<T> {
    /// It is done.
    Done(T),
    /// It goes on.
    Running(Box<Task>),
}

impl OrchestratorClient {
    /// Where a group stands: `GET /infra/groups/{id}`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`convene_model::Code::GroupNotFound`] for a group that was never
    /// activated among them.
    pub async fn record(&self, group: &GroupId, org: &OrgId) -> Result<RoutingRecord, Problem> {
        self.read(&format!("/infra/groups/{group}"), org).await
    }

    /// The archived groups of an organization behind `after`, one page of them:
    /// `GET /infra/groups`.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn archived(
        &self,
        org: &OrgId,
        after: Option<&GroupId>,
    ) -> Result<GroupsPage, Problem> {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        let status = GroupStatus::Archived.as_str();
        let query = format!("?org_id={org}&status={status}&limit={MAX_PAGE}{after}");
        self.read_page("/infra/groups", &query, org).await
    }

    /// What a group's agents and clients have used, by month: `GET /infra/groups/{id}/usage`.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn usage(&self, group: &GroupId, org: &OrgId) -> Result<GroupUsage, Problem> {
        self.read(&format!("/infra/groups/{group}/usage"), org).await
    }

    /// How a task stands: `GET /infra/tasks/{id}`.
    ///
    /// # Errors
    /// The Orchestrator's problem, [`convene_model::Code::TaskNotFound`] among them.
    pub async fn task(&self, task: &TaskId, org: &OrgId) -> Result<Task, Problem> {
        self.read(&format!("/infra/tasks/{task}"), org).await
    }

    /// Archives a group: `POST /infra/groups/{id}/archive`.
    ///
    /// # Errors
    /// The Orchestrator's problem; the group is live again then.
    pub async fn archive(
        &self,
        group: &GroupId,
        org: &OrgId,
        reason: String,
    ) -> Result<Begun<Archived>, Problem> {
        let path = format!("/infra/groups/{group}/archive");
        let body = encode(&ArchiveRequest { reason })?;
        let answer = self.begin(Method::POST, &path, org, body).await?;
        begun(&path, &answer)
    }

    /// Restores a group: `POST /infra/groups/{id}/restore`.
    ///
    /// # Errors
    /// The Orchestrator's problem; the group is archived still then.
    pub async fn restore(
        &self,
        group: &GroupId,
        org: &OrgId,
    ) -> Result<Begun<Activation>, Problem> {
        let path = format!("/infra/groups/{group}/restore");
        let answer = self.begin(Method::POST, &path, org, Bytes::new()).await?;
        begun(&path, &answer)
    }

    /// Deletes a group for good: `DELETE /infra/groups/{id}`. Once it has begun nothing ends it.
    ///
    /// # Errors
    /// The Orchestrator's problem.
    pub async fn delete(&self, group: &GroupId, org: &OrgId) -> Result<(), Problem> {
        let path = format!("/infra/groups/{group}");
        self.begin(Method::DELETE, &path, org, Bytes::new()).await.map(drop)
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        org: &OrgId,
        body: Bytes,
    ) -> Result<Bytes, Problem> {
        let key = Uuid::new_v4().simple().to_string();
        let mut headers = vec![(IDEMPOTENCY_KEY, key), (PREFER, WAIT.to_owned())];
        if !body.is_empty() {
            headers.push((header::CONTENT_TYPE, "application/json".to_owned()));
        }
        self.call(Call { method, path, query: "", org, headers, body, limit: MAX_BODY_BYTES }).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, org: &OrgId) -> Result<T, Problem> {
        self.read_page(path, "", org).await
    }

    async fn read_page<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
        org: &OrgId,
    ) -> Result<T, Problem> {
        let (headers, body, limit) = (Vec::new(), Bytes::new(), MAX_BODY_BYTES);
        let call = Call { method: Method::GET, path, query, org, headers, body, limit };
        parse(path, &self.call(call).await?)
    }
}

fn begun<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<Begun<T>, Problem> {
    match serde_json::from_slice::<Task>(answer) {
        Ok(task) => Ok(Begun::Running(Box::new(task))),
        Err(_) => parse(path, answer).map(Begun::Done),
    }
}

fn parse<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(answer)
        .map_err(|error| internal(&format!("{path} answered with something else: {error}")))
}
