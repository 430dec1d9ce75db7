//! What the Orchestrator asks of a group's controller while it archives, restores or removes it.
//!
//! Each call names the epoch that it is for, so that one that comes late changes nothing. None is
//! repeated here: the flows decide what an answer that did not come means.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use convene_hop::read_body;
use convene_model::{
    Code, GroupId, ImportId, Problem,
    archive::{
        BeginImport, ExportQuery, FreezeRequest, Frozen, ImportProgress, NEXT_HEADER, ThawRequest,
        WipeRequest,
    },
    infra::Initialized,
    limits::{MAX_ARCHIVE_LINE_BYTES, MAX_BODY_BYTES, MAX_EXPORT_BYTES},
};
use http::{Method, Request};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::{Controllers, problem_in, to_json, unavailable};

/// How long a controller may take to freeze, to thaw, to begin an import, or over one piece of it.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a controller may take to bring an imported group to life: it reads all of its events.
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);

/// Lines of one section, and where to go on.
pub(crate) struct Exported {
    pub(crate) lines: Bytes,
    /// The `after` of the next call, while there is more.
    pub(crate) next: Option<u64>,
}

impl Controllers {
    /// Freezes a group for an attempt to archive it.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`]: then it may be frozen.
    pub(crate) async fn freeze(
        &self,
        group_id: &GroupId,
        body: &FreezeRequest,
    ) -> Result<Frozen, Problem> {
        let request = self.post(group_id, body.epoch, "freeze", to_json(body)?);
        self.answer(group_id, request, STEP_TIMEOUT).await
    }

    /// A piece of a frozen group.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn export(
        &self,
        group_id: &GroupId,
        query: &ExportQuery,
    ) -> Result<Exported, Problem> {
        let ExportQuery { archive_id, epoch, section, after } = query;
        let section = section.as_str();
        let query =
            format!("archive_id={archive_id}&epoch={epoch}&section={section}&after={after}");
        let path = format!("/groups/{group_id}/export");
        let request = self.bound(group_id, *epoch, Method::GET, path, Some(&query), Bytes::new());
        let broken = |why: &dyn std::fmt::Display| unavailable(group_id, why);
        let read = async {
            let response = self.success(group_id, request).await?;
            let next = match response.headers().get(NEXT_HEADER) {
                None => None,
                Some(next) => {
                    let next = next.to_str().ok().and_then(|next| next.parse().ok());
                    let next = next.filter(|next| next > after);
                    Some(next.ok_or_else(|| broken(&"an export goes on from no later number"))?)
                }
            };
            let limit = MAX_EXPORT_BYTES.max(MAX_ARCHIVE_LINE_BYTES) + 1;
            let lines = read_body(response.into_body(), limit)
                .await
                .map_err(|problem| broken(&format_args!("an export: {}", problem.code.as_str())))?;
            Ok(Exported { lines, next })
        };
        timeout(STEP_TIMEOUT, read).await.unwrap_or_else(|_| Err(broken(&"no export in time")))
    }

    /// Tells a controller that its group goes on, under a higher epoch.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn thaw(&self, group_id: &GroupId, body: &ThawRequest) -> Result<(), Problem> {
        let request = self.post(group_id, body.epoch, "thaw", to_json(body)?);
        self.done(group_id, request).await
    }

    /// Has a controller remove what it has of an archived group.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn wipe(&self, group_id: &GroupId, body: &WipeRequest) -> Result<(), Problem> {
        let request = self.post(group_id, body.epoch, "wipe", to_json(body)?);
        self.done(group_id, request).await
    }

    /// Has a controller remove what it has of a group, whatever that is, unless the group's own
    /// epoch is `epoch` or higher.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn remove(&self, group_id: &GroupId, epoch: u64) -> Result<(), Problem> {
        let query = format!("epoch={epoch}");
        let path = format!("/groups/{group_id}");
        let request = self.bound(group_id, epoch, Method::DELETE, path, Some(&query), Bytes::new());
        self.done(group_id, request).await
    }

    /// Begins an import, or goes on with it.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn begin_import(
        &self,
        group_id: &GroupId,
        body: &BeginImport,
    ) -> Result<ImportProgress, Problem> {
        let request = self.post(group_id, body.epoch, "import", to_json(body)?);
        self.answer(group_id, request, STEP_TIMEOUT).await
    }

    /// Gives a controller the event lines from number `from` on.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`].
    pub(crate) async fn import(
        &self,
        group_id: &GroupId,
        epoch: u64,
        import_id: &ImportId,
        from: u64,
        lines: Bytes,
    ) -> Result<ImportProgress, Problem> {
        let path = format!("/groups/{group_id}/import/{import_id}");
        let query = format!("from={from}");
        let request = self.bound(group_id, epoch, Method::PUT, path, Some(&query), lines);
        self.answer(group_id, request, STEP_TIMEOUT).await
    }

    /// Brings an imported group to life.
    ///
    /// # Errors
    /// The controllers' problem, or [`Code::GroupControllerUnavailable`]: then it may live.
    pub(crate) async fn finish_import(
        &self,
        group_id: &GroupId,
        epoch: u64,
        import_id: &ImportId,
    ) -> Result<Initialized, Problem> {
        let what = format!("import/{import_id}/finish");
        let request = self.post(group_id, epoch, &what, Bytes::new());
        self.answer(group_id, request, FINISH_TIMEOUT).await
    }

    fn post(&self, group_id: &GroupId, epoch: u64, what: &str, body: Bytes) -> Request<Bytes> {
        let path = format!("/groups/{group_id}/{what}");
        self.bound(group_id, epoch, Method::POST, path, None, body)
    }

    /// Sends a request and reads the document that answers it.
    async fn answer<T: DeserializeOwned>(
        &self,
        group_id: &GroupId,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<T, Problem> {
        let broken = |why: &dyn std::fmt::Display| unavailable(group_id, why);
        let read = async {
            let response = self.success(group_id, request).await?;
            let body = read_body(response.into_body(), MAX_BODY_BYTES)
                .await
                .map_err(|problem| broken(&problem.code.as_str()))?;
            serde_json::from_slice(&body).map_err(|error| broken(&error))
        };
        timeout(patience, read).await.unwrap_or_else(|_| Err(broken(&"no answer in time")))
    }

    async fn done(&self, group_id: &GroupId, request: Request<Bytes>) -> Result<(), Problem> {
        let sent = timeout(STEP_TIMEOUT, self.success(group_id, request)).await;
        let unanswered = |_| Err(unavailable(group_id, &"no answer in time"));
        sent.unwrap_or_else(unanswered).map(|_| ())
    }

    async fn success(
        &self,
        group_id: &GroupId,
        request: Request<Bytes>,
    ) -> Result<Response, Problem> {
        let response =
            self.hop.send(request).await.map_err(|error| unavailable(group_id, &error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(problem_in(group_id, response).await)
        }
    }
}

/// Whether a problem says that the controller does not answer, rather than that it refuses.
pub(crate) fn is_away(problem: &Problem) -> bool {
    problem.code == Code::GroupControllerUnavailable
        || problem.status >= 500
        || problem.status == 429
}

/// How often what may be asked for any number of times is asked for again when no answer comes.
pub(crate) const TRIES: u32 = 3;

/// The pause before the first time that it is; each further one is four times as long.
pub(crate) const TRY_PAUSE: Duration = Duration::from_millis(100);

/// The pause before a controller that is only busy is asked again, at least and at most.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When a controller that does not answer is only busy and says when it wants to be asked again.
pub(crate) fn told_to_come_back(problem: &Problem) -> Option<Duration> {
    let after = problem.extra.get("retry_after_ms").filter(|_| is_away(problem))?.as_u64()?;
    Some(Duration::from_millis(after).clamp(BUSY_PAUSE.0, BUSY_PAUSE.1))
}

/// Asks a controller, and again for as long as it is only busy and says when to come back.
///
/// # Errors
/// Those of `ask`; the last one when it is busy for longer than `patience`.
pub(crate) async fn unless_busy<T, F: Future<Output = Result<T, Problem>>>(
    patience: Duration,
    ask: impl Fn() -> F,
) -> Result<T, Problem> {
    let until = Instant::now() + patience;
    loop {
        match ask().await {
            Err(problem) if Instant::now() < until => match told_to_come_back(&problem) {
                Some(pause) => sleep(pause).await,
                None => return Err(problem),
            },
            answer => return answer,
        }
    }
}

/// The same, and so many times more when no answer comes ([`TRIES`]): only for what a controller answers the
/// same however often it is asked, and refuses once its group is not what was asked about any more.
///
/// # Errors
/// Those of `ask`; the last one when no answer came.
pub(crate) async fn until_answered<T, F: Future<Output = Result<T, Problem>>>(
    patience: Duration,
    ask: impl Fn() -> F,
) -> Result<T, Problem> {
    for tries in 0..TRIES {
        match unless_busy(patience, &ask).await {
            // One that was busy for all of that time has answered.
            Err(problem) if is_away(&problem) && told_to_come_back(&problem).is_none() => {
                tracing::warn!(code = problem.code.as_str(), tries, "a controller is asked again");
                sleep(TRY_PAUSE * 4_u32.pow(tries)).await;
            }
            answer => return answer,
        }
    }
    unless_busy(patience, &ask).await
}
