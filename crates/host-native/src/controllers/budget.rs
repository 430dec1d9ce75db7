//! Leave to start runs, asked of the Orchestrator.
//!
//! That an organization has no budget is kept for as long as the Orchestrator says, for all of its
//! groups: their runs then ask nobody. Whatever else happens, nobody starts without leave: an
//! Orchestrator that is away is asked a few times, then the answer is that nobody knows. A host that
//! reports to no Orchestrator has no budgets.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use convene_group_controller::{Input, Leave};
use convene_hop::Hop;
use convene_model::{
    Code, GroupId, OrgId, Problem, RunId, Timestamp,
    claims::{ControllerClaims, service},
    limits::MAX_BODY_BYTES,
    token::body_hash,
    usage::{RESERVATION_ENDED, Reservation, ReserveRequest, UNLIMITED_FOR},
};
use http::{Method, Request, header};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Shared, actor::Mail};

/// The pauses between the times that the Orchestrator is asked.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How long the Orchestrator may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the organizations' budgets.
#[derive(Default)]
pub(super) struct Budgets {
    orchestrator: OnceLock<Hop>,
    /// Organizations without a budget, until when that holds.
    unlimited: Mutex<HashMap<OrgId, Timestamp>>,
}

/// A run that wants to start.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) group_id: GroupId,
    pub(super) org_id: OrgId,
    pub(super) epoch: u64,
    pub(super) run_id: RunId,
    pub(super) tokens: u64,
}

impl Budgets {
    /// Asks this Orchestrator from now on.
    pub(super) fn ask_from_now_on(&self, orchestrator: Hop) {
        let _ = self.orchestrator.set(orchestrator);
    }

    /// Until when an organization's runs start without leave, if they do.
    pub(super) fn unlimited_until(&self, org_id: &OrgId, now: Timestamp) -> Option<Timestamp> {
        if self.orchestrator.get().is_none() {
            return Some(now + UNLIMITED_FOR);
        }
        self.unlimited.lock().get(org_id).copied().filter(|until| *until > now)
    }

    fn keep(&self, org_id: &OrgId, until: Timestamp, now: Timestamp) {
        let mut unlimited = self.unlimited.lock();
        unlimited.retain(|_, until| *until > now);
        unlimited.insert(org_id.clone(), until);
    }
}

/// Asks for a run, and lets its group know.
pub(super) async fn ask(
    shared: Arc<Shared>,
    waiting: Waiting,
    mailbox: mpsc::WeakSender<Box<Mail>>,
) {
    let (leave, unlimited_until) = asked(&shared, &waiting).await;
    let Some(mailbox) = mailbox.upgrade() else { return };
    if let Some(until) = unlimited_until {
        let _ = mailbox.send(Box::new(Mail::Run { input: Input::Unlimited { until } })).await;
    }
    let input = Input::Reserved { run_id: waiting.run_id, leave };
    let _ = mailbox.send(Box::new(Mail::Run { input })).await;
}

async fn asked(shared: &Shared, waiting: &Waiting) -> (Leave, Option<Timestamp>) {
    let mut pauses = PAUSES.into_iter();
    loop {
        let problem = match reserve(shared, waiting).await {
            Ok(reservation) => {
                let until = reservation.unlimited_until;
                if let Some(until) = until {
                    shared.budgets.keep(&waiting.org_id, until, (shared.clock)());
                }
                return (Leave::Granted, until);
            }
            Err(problem) => problem,
        };
        match problem.code {
            Code::BudgetExhausted => return (Leave::Refused, None),
            // It was held for so long that it was charged in full: what it uses corrects that.
            Code::Conflict if problem.extra.contains_key(RESERVATION_ENDED) => {
                return (Leave::Granted, None);
            }
            // An attempt that nobody waits for any more is still being answered.
            Code::Conflict => {}
            _ if problem.status >= 500 || matches!(problem.status, 401 | 429) => {}
            _ => {
                tracing::warn!(
                    group = %waiting.group_id, run = %waiting.run_id, code = problem.code.as_str(),
                    detail = problem.detail, "the Orchestrator does not say whether a run may start"
                );
                return (Leave::Unknown, None);
            }
        }
        let Some(pause) = pauses.next() else {
            tracing::error!(
                group = %waiting.group_id, run = %waiting.run_id, code = problem.code.as_str(),
                "the Orchestrator cannot be asked whether a run may start"
            );
            return (Leave::Unknown, None);
        };
        tokio::time::sleep(pause).await;
    }
}

async fn reserve(shared: &Shared, waiting: &Waiting) -> Result<Reservation, Problem> {
    let Some(orchestrator) = shared.budgets.orchestrator.get() else {
        return Err(Code::Unavailable.into());
    };
    let internal = |error: &dyn std::fmt::Display| super::internal("reserving for a run", error);
    let path = format!("/infra/groups/{}/reserve", waiting.group_id);
    let body = ReserveRequest { run_id: waiting.run_id.clone(), tokens: waiting.tokens };
    let body = serde_json::to_vec(&body).map_err(|error| internal(&error))?;
    let token = shared.config.signer.mint(
        service::ORCHESTRATOR,
        ControllerClaims {
            group_id: waiting.group_id.clone(),
            epoch: waiting.epoch,
            htm: Method::POST.as_str().to_owned(),
            htu: path.clone(),
            bh: body_hash(&body),
        },
    );
    let request = Request::post(&path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", format!("run-{}", waiting.run_id))
        .body(Bytes::from(body))
        .map_err(|error| internal(&error))?;
    let called = orchestrator.call(request, MAX_BODY_BYTES);
    let answer = match tokio::time::timeout(ANSWER_TIMEOUT, called).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Code::Unavailable.into()),
    };
    serde_json::from_slice(&answer).map_err(|error| internal(&error))
}
