//! `Idempotency-Key`: a mutating call that is repeated with its key is answered, not done again.
//!
//! A key is scoped to issuer, method and path and kept for [`KEPT_FOR`]. Before the work begins the
//! key is claimed in the directory; afterwards the answer is stored under it, unless it is a 401, a
//! 429 or a 5xx, which give the key back. Claim, work and answer are separate transactions: when a
//! process dies in between, the claim runs out after [`CLAIM_LEASE`] and a repeat does the work
//! again, which every mutating route allows for. Never decides who may call: a key is looked at
//! only for a caller whose token holds.

use std::{future::Future, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use convene_db::{Db, DbError, Statement, Value, params};
use convene_hop::{ApiError, Clock, RawRequest};
use convene_model::{Code, OrgId, Problem, token::body_hash};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tracing::Instrument;
use uuid::Uuid;

use crate::problem;

/// How long an answer is kept under its key.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a call may hold its key without an answer; longer than any mutating route takes.
pub(crate) const CLAIM_LEASE: Duration = Duration::from_secs(60);

/// Characters of a key at most, of visible ASCII.
pub(crate) const MAX_KEY_CHARS: usize = 255;

/// How often a claim is tried when the key's row changes under it.
const MAX_CLAIM_TRIES: usize = 3;

const HEADER: &str = "idempotency-key";

/// The keys in use and the answers kept under them.
pub(crate) struct Idempotency {
    db: Db,
    clock: Clock,
}

/// A successful answer of a mutating route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    status: StatusCode,
    body: String,
}

/// Who calls, as far as a key depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The `iss` of the call's token.
    pub(crate) issuer: String,
    /// The organization that the token names. It is part of what makes two requests the same, so
    /// that no stored answer gets around a refusal.
    pub(crate) org_id: Option<OrgId>,
}

/// A key of one call.
struct Key {
    issuer: String,
    method: String,
    path: String,
    key: String,
    request_hash: String,
    claim: String,
}

enum Claim {
    Taken,
    Answered(Result<Answer, Problem>),
}

impl Idempotency {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }

    /// Does `work` unless the request's key already has an answer.
    ///
    /// The work goes on to its end, and its answer is stored, even when the caller hangs up.
    ///
    /// # Errors
    /// The work's problem, now or when it was first done; [`Code::InvalidRequest`] for a malformed
    /// key, [`Code::Conflict`] while another call holds it, [`Code::IdempotencyKeyReused`] when it
    /// came with another request.
    pub(crate) async fn once(
        &self,
        scope: Scope,
        request: &RawRequest,
        work: impl Future<Output = Result<Answer, Problem>> + Send + 'static,
    ) -> Result<Answer, ApiError> {
        let Some(key) = Key::of(scope, request)? else {
            return Ok(finish(work).await?);
        };
        match self.claim(&key).await? {
            Claim::Answered(answer) => Ok(answer?),
            Claim::Taken => {
                let db = Db::clone(&self.db);
                let work = async move {
                    let answer = work.await;
                    if let Err(error) = settle(&db, &key, &answer).await {
                        // The work is done and a repeat is harmless, so the caller gets its answer.
                        tracing::warn!(%error, "an idempotency key could not be settled");
                    }
                    answer
                };
                Ok(finish(work).await?)
            }
        }
    }

    /// Removes keys that are kept no longer.
    pub(crate) async fn forget_expired(&self) -> Result<u64, DbError> {
        let expired = ((self.clock)() - KEPT_FOR).millis();
        self.db
            .execute(Statement::new(
                "DELETE FROM idempotency_keys WHERE claimed_at <= $1",
                params![expired],
            ))
            .await
    }

    async fn claim(&self, key: &Key) -> Result<Claim, Problem> {
        let now = (self.clock)();
        let expired = (now - KEPT_FOR).millis();
        for _ in 0..MAX_CLAIM_TRIES {
            let mut values = key.params();
            values.extend(params![
                &key.request_hash,
                &key.claim,
                now.millis(),
                expired,
                (now - CLAIM_LEASE).millis(),
            ]);
            let taken = self
                .db
                .execute(Statement::new(
                    "INSERT INTO idempotency_keys
                     (issuer, method, path, idempotency_key, request_hash, claim, claimed_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)
                     ON CONFLICT (issuer, method, path, idempotency_key) DO UPDATE
                     SET request_hash = excluded.request_hash, claim = excluded.claim,
                         claimed_at = excluded.claimed_at, status = NULL, body = NULL
                     WHERE idempotency_keys.claimed_at <= $8
                        OR (idempotency_keys.status IS NULL
                            AND idempotency_keys.claimed_at <= $9
                            AND idempotency_keys.request_hash = excluded.request_hash)",
                    values,
                ))
                .await
                .map_err(problem::of_directory)?;
            if taken > 0 {
                return Ok(Claim::Taken);
            }
            if let Some(claim) = self.answer(key).await? {
                return Ok(claim);
            }
        }
        Err(Code::Conflict.into())
    }

    /// What stands under a key that somebody else claimed; `None` when it was given back meanwhile.
    async fn answer(&self, key: &Key) -> Result<Option<Claim>, Problem> {
        let rows = self
            .db
            .query(Statement::new(
                "SELECT request_hash, status, body FROM idempotency_keys
                 WHERE issuer = $1 AND method = $2 AND path = $3 AND idempotency_key = $4",
                key.params(),
            ))
            .await
            .map_err(problem::of_directory)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let request_hash: String = row.get("request_hash").map_err(problem::of_directory)?;
        if request_hash != key.request_hash {
            return Err(Code::IdempotencyKeyReused.into());
        }
        let status: Option<u32> = row.get("status").map_err(problem::of_directory)?;
        let body: Option<String> = row.get("body").map_err(problem::of_directory)?;
        let Some(status) = status else { return Err(Code::Conflict.into()) };
        let answer = Answer::stored(status, body.unwrap_or_default());
        answer.map(|answer| Some(Claim::Answered(answer))).map_err(problem::of_directory)
    }
}

/// Runs work to its end, also when nobody waits for it any more.
async fn finish(
    work: impl Future<Output = Result<Answer, Problem>> + Send + 'static,
) -> Result<Answer, Problem> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "a mutating call broke off");
            Err(Code::Internal.into())
        }
    }
}

/// Stores the answer under its key, or gives the key back.
async fn settle(db: &Db, key: &Key, answer: &Result<Answer, Problem>) -> Result<(), DbError> {
    let (status, body) = match answer {
        Ok(answer) => (answer.status.as_u16(), answer.body.clone()),
        Err(problem) => (problem.status, serde_json::to_string(problem).unwrap_or_default()),
    };
    let mut values = key.params();
    values.extend(params![&key.claim]);
    if is_stored(status) {
        values.extend(params![u32::from(status), body]);
        db.execute(Statement::new(
            "UPDATE idempotency_keys SET status = $6, body = $7
             WHERE issuer = $1 AND method = $2 AND path = $3 AND idempotency_key = $4
               AND claim = $5",
            values,
        ))
        .await?;
    } else {
        db.execute(Statement::new(
            "DELETE FROM idempotency_keys
             WHERE issuer = $1 AND method = $2 AND path = $3 AND idempotency_key = $4
               AND claim = $5",
            values,
        ))
        .await?;
    }
    Ok(())
}

/// Whether an answer with this status is kept: one that may turn out otherwise next time is not.
const fn is_stored(status: u16) -> bool {
    !matches!(status, 401 | 429 | 500..)
}

/// The key of a call that has to have one.
///
/// # Errors
/// [`Code::InvalidRequest`] when there is none, or a malformed one.
pub(crate) fn mandatory_key(request: &RawRequest) -> Result<String, Problem> {
    if !request.headers.contains_key(HEADER) {
        return Err(Problem::new(Code::InvalidRequest).detail("an Idempotency-Key is required"));
    }
    read_key(request)
}

fn read_key(request: &RawRequest) -> Result<String, Problem> {
    let key = request.header(HEADER).filter(|key| {
        (1..=MAX_KEY_CHARS).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
    });
    key.map(str::to_owned).ok_or_else(|| {
        Problem::new(Code::InvalidRequest).detail(format!(
            "an Idempotency-Key is given once and has 1 to {MAX_KEY_CHARS} visible ASCII characters"
        ))
    })
}

impl Key {
    fn of(scope: Scope, request: &RawRequest) -> Result<Option<Self>, Problem> {
        if !request.headers.contains_key(HEADER) {
            return Ok(None);
        }
        let key = read_key(request)?;
        let org_id = scope.org_id.as_ref().map_or("", OrgId::as_str);
        Ok(Some(Self {
            issuer: scope.issuer,
            method: request.method.as_str().to_owned(),
            path: request.path.clone(),
            key,
            request_hash: format!("{}.{org_id}", body_hash(&request.body)),
            claim: Uuid::new_v4().simple().to_string(),
        }))
    }

    fn params(&self) -> Vec<Value> {
        params![&self.issuer, &self.method, &self.path, &self.key]
    }
}

impl Answer {
    /// 200 with a JSON body.
    pub(crate) fn json<T: Serialize>(body: &T) -> Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(|error| {
            tracing::error!(%error, "an answer of ours cannot be encoded");
            Problem::new(Code::Internal)
        })?;
        Ok(Self { status: StatusCode::OK, body })
    }

    /// 202 with a JSON body.
    pub(crate) fn accepted<T: Serialize>(body: &T) -> Result<Self, Problem> {
        Self::json(body).map(|answer| Self { status: StatusCode::ACCEPTED, ..answer })
    }

    /// 204.
    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: String::new() }
    }

    fn stored(status: u32, body: String) -> Result<Result<Self, Problem>, DbError> {
        let impossible = |column: &str, problem: String| {
            DbError::decode(format!("idempotency_keys.{column}"), problem)
        };
        let status = u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| impossible("status", format!("{status} is no HTTP status")))?;
        if status.is_success() {
            return Ok(Ok(Self { status, body }));
        }
        serde_json::from_str(&body)
            .map(Err)
            .map_err(|error| impossible("body", format!("no problem: {error}")))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let has_body = !self.body.is_empty();
        let mut response = Response::new(Body::from(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        if has_body {
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_would_be_the_same_again_are_stored() {
        for stored in [200, 204, 400, 403, 404, 409, 410, 422] {
            assert!(is_stored(stored), "{stored}");
        }
        for returned in [401, 429, 500, 502, 503, 599] {
            assert!(!is_stored(returned), "{returned}");
        }
    }

    #[test]
    fn a_row_that_holds_no_answer_is_an_error_that_names_the_column() {
        for (status, body, column) in [(7, "", "status"), (404, "nonsense", "body")] {
            let error = Answer::stored(status, body.into()).expect_err("the row is impossible");
            assert!(error.to_string().contains(&format!("idempotency_keys.{column}")), "{error}");
        }
    }
}
