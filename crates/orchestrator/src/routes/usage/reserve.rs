//! `POST /infra/groups/{id}/reserve`: holds tokens of the organization's budget for a run, before the
//! run starts; for the group's controller under its present epoch.
//!
//! Idempotent by the run's id, also without an `Idempotency-Key`. Where the organization has no budget
//! nothing is held, and the answer says for how long nobody needs to ask again.
//!
//! Errors: 402 `budget_exhausted` `{limit, used, reserved, asked, resets_at}`, 403 `forbidden`,
//! `stale_epoch`, `org_blocked`, 404 `group_not_found`, 409 `group_archived`, `conflict` (the run's
//! reservation has ended, which `ended` says, or another call has the key), 410 `group_deleted`, 422 `validation_failed`.

use axum::extract::State;
use convene_hop::{ApiError, RawRequest, json};
use convene_model::{
    Code, GroupId, Problem,
    usage::{MAX_RESERVED_TOKENS, RESERVATION_ENDED, Reservation, ReserveRequest, UNLIMITED_FOR},
};

use super::Reporting;
use crate::{
    Shared,
    directory::budget::Granted,
    idempotency::Answer,
    problem,
    routes::{
        Orchestra, PathId,
        groups::{check_not_blocked, check_usable},
    },
};

pub(crate) async fn handle(
    State(orchestra): State<Orchestra>,
    group_id: PathId<GroupId>,
    request: RawRequest,
) -> Result<Answer, ApiError> {
    let reporting = orchestra.reporting(group_id, &request).await?;
    let asked: ReserveRequest = json(&request.body)?;
    if !(1..=MAX_RESERVED_TOKENS).contains(&asked.tokens) {
        return Err(Problem::new(Code::ValidationFailed)
            .detail(format!("a run reserves 1 to {MAX_RESERVED_TOKENS} tokens"))
            .into());
    }
    reporting.check_epoch()?;
    check_not_blocked(&reporting.found)?;
    check_usable(&reporting.found.record)?;
    let scope = reporting.scope();
    let work = {
        let orchestra = Orchestra::clone(&orchestra);
        async move { reserve(&orchestra, &reporting, asked).await }
    };
    orchestra.idempotency.once(scope, &request, work).await
}

async fn reserve(
    shared: &Shared,
    reporting: &Reporting,
    ReserveRequest { run_id, tokens }: ReserveRequest,
) -> Result<Answer, Problem> {
    let now = shared.now();
    if reporting.found.monthly_tokens.is_none() {
        let unlimited_until = Some(now + UNLIMITED_FOR);
        return Answer::json(&Reservation { run_id, tokens: 0, expires_at: None, unlimited_until });
    }
    let granted = shared
        .directory
        .reserve(&reporting.found, &run_id, tokens, now)
        .await
        .map_err(problem::of_directory)?;
    match granted {
        Granted::Held(held) => Answer::json(&Reservation {
            run_id,
            tokens: held.tokens,
            expires_at: Some(held.expires_at),
            unlimited_until: None,
        }),
        Granted::Ended => Err(Problem::new(Code::Conflict)
            .detail("the run's reservation has ended")
            .with(RESERVATION_ENDED, true)),
        Granted::Exhausted { limit, used, reserved, resets_at } => {
            tracing::info!(
                group_id = %reporting.found.record.group_id,
                org_id = %reporting.found.record.org_id,
                limit, used, reserved, asked = tokens, "a run found no budget"
            );
            Err(Problem::new(Code::BudgetExhausted)
                .detail(format!(
                    "{used} of {limit} tokens of this month are used and {reserved} are held for \
                     runs under way; {tokens} were asked for"
                ))
                .with("limit", limit)
                .with("used", used)
                .with("reserved", reserved)
                .with("asked", tokens)
                .with("resets_at", resets_at.millis()))
        }
    }
}
