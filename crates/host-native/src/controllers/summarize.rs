//! Summaries of a group's earlier messages: the call of the Agents Worker, and the look-up of messages
//! of which one is to be written anew. Whatever fails, the group is answered.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use convene_group_controller::{Input, Summarization};
use convene_hop::{Hop, Signer, read_body};
use convene_model::{
    GroupId, OrgId, Problem,
    agents::{ContextMessage, Summarized, Usage},
    claims::{AgentAccessClaims, SCOPE_SUMMARIZE, service},
    history::HistoryQuery,
    limits::{MAX_BODY_BYTES, MAX_PAGE, SERVICE_TOKEN_TTL, SUMMARY_TIMEOUT},
    token::body_hash,
};
use http::{Request, header};
use tokio::sync::mpsc;

use super::{Shared, actor::Mail};

/// How often an organization's own history service is asked for texts that a summary needs.
const REFILL_EVERY: Duration = Duration::from_secs(10);

/// Has a summary written and tells the group what came of it.
pub(super) async fn write(
    shared: Arc<Shared>,
    asked: Box<Summarization>,
    mailbox: mpsc::WeakSender<Box<Mail>>,
) {
    let call = call(&shared.config.agents, &shared.config.signer, &asked);
    let answer = tokio::select! {
        answer = tokio::time::timeout(SUMMARY_TIMEOUT, call) => answer,
        () = shared.stopping.cancelled() => return,
    };
    let (text, usage) = match answer.unwrap_or_else(|_| Err("it took too long".to_owned().into())) {
        Ok(Summarized { text, usage }) => (Some(text), usage),
        Err(Unwritten { detail, usage }) => {
            tracing::info!(
                group = %asked.request.group_id, agent = %asked.request.agent_id, detail,
                "no model wrote a summary; the messages' beginnings stand in"
            );
            (None, usage)
        }
    };
    let run_id = asked.request.run_id;
    feed(&mailbox, Input::Summarized { id: asked.id, run_id, text, usage }).await;
}

/// Why there is no summary.
struct Unwritten {
    detail: String,
    /// What was used nevertheless; `None` when nobody knows.
    usage: Option<Usage>,
}

impl From<String> for Unwritten {
    fn from(detail: String) -> Self {
        Self { detail, usage: None }
    }
}

async fn call(
    agents: &Hop,
    signer: &Signer,
    asked: &Summarization,
) -> Result<Summarized, Unwritten> {
    let request = &asked.request;
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let token = signer.mint(
        service::AGENTS,
        AgentAccessClaims {
            group_id: request.group_id.clone(),
            org_id: asked.org_id.clone(),
            agent_id: request.agent_id.clone(),
            run_id: request.run_id.clone(),
            attempt: 1,
            scope: SCOPE_SUMMARIZE.to_owned(),
            bh: body_hash(&body),
            // Nobody asked for it, so nobody's personal secrets are used for it.
            initiator: None,
            run_exp: (signer.now() + SUMMARY_TIMEOUT + SERVICE_TOKEN_TTL).secs(),
        },
    );
    let request = Request::post("/summarize")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body))
        .map_err(|error| error.to_string())?;
    let response = agents.send(request).await.map_err(|error| {
        // Where nobody could be reached no model was asked.
        let usage = (!error.may_have_arrived()).then(Usage::default);
        Unwritten { detail: error.to_string(), usage }
    })?;
    let status = response.status();
    let body = read_body(response.into_body(), MAX_BODY_BYTES)
        .await
        .map_err(|problem| problem.code.as_str().to_owned())?;
    if !status.is_success() {
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let said = problem.as_ref().and_then(|problem| problem.extra.get("usage"));
        let usage = said.and_then(|usage| serde_json::from_value(usage.clone()).ok());
        // Who is refused has asked no model.
        let usage = usage.or_else(|| status.is_client_error().then(Usage::default));
        let detail = problem.and_then(|problem| problem.detail).unwrap_or_default();
        return Err(Unwritten {
            detail: format!("the agents worker answered {status}: {detail}"),
            usage,
        });
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string().into())
}

/// Looks the newest messages of a range up as they are, and hands them to the group. `kept_by` is the
/// organization whose own service has texts of the group.
pub(super) async fn recollect(
    shared: Arc<Shared>,
    group_id: GroupId,
    kept_by: Option<OrgId>,
    (id, range): (u64, RangeInclusive<u64>),
    mailbox: mpsc::WeakSender<Box<Mail>>,
) {
    let (store, key) = (shared.store.clone(), group_id.key());
    let before = Some(range.end() + 1);
    let query = HistoryQuery { before, limit: Some(MAX_PAGE), ..HistoryQuery::default() };
    let read = tokio::task::spawn_blocking(move || store.history(key, query, u64::MAX)).await;
    let page = match read {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => {
            tracing::error!(group = %group_id, %error, "messages for a summary cannot be read");
            return;
        }
        Err(error) => {
            tracing::error!(group = %group_id, %error, "messages for a summary were not read");
            return;
        }
    };
    let mut messages: Vec<_> = page
        .messages
        .into_iter()
        .filter(|message| range.contains(&message.seq) && !message.deleted)
        .collect();
    if let Some((org_id, services)) = kept_by.zip(shared.history.get()) {
        // A summary without them would be wrong for good; the group goes on without one meanwhile.
        while services.fill(&org_id, &group_id, &mut messages).await.is_err() {
            tokio::select! {
                () = tokio::time::sleep(REFILL_EVERY) => {}
                () = shared.stopping.cancelled() => return,
            }
            if mailbox.strong_count() == 0 {
                return;
            }
        }
    }
    let messages = messages.into_iter().map(|message| {
        let posted = message.posted;
        let (message_id, author, text) = (posted.message_id, posted.author, posted.text);
        (message.seq, ContextMessage { message_id, author, text })
    });
    let messages = messages.collect();
    feed(&mailbox, Input::Recollected { id, messages }).await;
}

/// A group that sleeps by now asks again when it wakes.
async fn feed(mailbox: &mpsc::WeakSender<Box<Mail>>, input: Input) {
    let Some(mailbox) = mailbox.upgrade() else { return };
    let _ = mailbox.send(Box::new(Mail::Run { input })).await;
}
