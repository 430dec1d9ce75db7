//! Organizations' own history services: what groups have to say to them, and the texts that are read
//! back from them.
//!
//! Owns the requests and their repetition. What was sent when is the controller's: it asks again after
//! a crash, and a service takes a repetition for what it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use convene_agents_worker::Transport;
use convene_group_controller::Input;
use convene_model::{
    Code, GroupId, HistoryId, OrgId, Problem,
    external::{AppendRequest, Appended, Entry, Texts},
    history::{Excerpt, Message},
    limits::{
        EXCERPT_CHARS, HISTORY_PAUSE, HISTORY_TIMEOUT, MAX_HISTORY_APPEND_BYTES,
        MAX_HISTORY_ENTRIES, MAX_PAGE,
    },
};
use convene_storage::StoreError;
use futures_util::StreamExt;
use http::{Method, Request, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use url::Url;

use super::{Shared, actor::Mail};
use crate::config::SecretText;

/// How long a service that fails is left alone before it is asked again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Bytes of an answer that are read at most: a page of the longest texts, escaped.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Numbers within which texts are asked for with one request.
const NEAR: u64 = 1000;
/// Events that are read at a time for one request.
const EVENTS_PER_READ: u64 = 512;

/// The services of all organizations that have one.
pub struct HistoryServices {
    services: BTreeMap<OrgId, Service>,
    transport: Arc<dyn Transport>,
}

/// One organization's service.
pub struct Service {
    /// Where it is.
    pub url: Url,
    /// What it knows us by.
    pub secret: SecretText,
}

/// A request that came to nothing.
#[derive(Debug)]
enum Failed {
    /// It answered that it has everything only up to a number.
    Behind(u64),
    /// Anything else; the text is for the log.
    Other(String),
}

impl HistoryServices {
    /// The services, reached over `transport`.
    #[must_use]
    pub fn new(services: BTreeMap<OrgId, Service>, transport: Arc<dyn Transport>) -> Self {
        Self { services, transport }
    }

    /// Whether an organization has one.
    #[must_use]
    pub fn has(&self, org_id: &OrgId) -> bool {
        self.services.contains_key(org_id)
    }

    /// Gives messages whose texts are with the organization's service their texts back.
    ///
    /// # Errors
    /// [`Code::HistoryServiceUnavailable`].
    pub(super) async fn fill(
        &self,
        org_id: &OrgId,
        group_id: &GroupId,
        messages: &mut [Message],
    ) -> Result<(), Problem> {
        let messages = messages.iter_mut().filter(|message| !message.deleted);
        let texts = messages.map(|message| (message.seq, &mut message.posted.text)).collect();
        self.fill_texts(org_id, group_id, texts).await
    }

    /// The same for excerpts, which stay empty where the service cannot be used: the messages that
    /// answer them are worth more.
    pub(super) async fn fill_excerpts(
        &self,
        org_id: &OrgId,
        group_id: &GroupId,
        excerpts: &mut [Excerpt],
    ) {
        let there =
            excerpts.iter_mut().filter(|excerpt| !excerpt.deleted && excerpt.text.is_empty());
        let mut texts: Vec<(u64, String)> =
            there.map(|excerpt| (excerpt.seq, String::new())).collect();
        let missing = texts.iter_mut().map(|(seq, text)| (*seq, text)).collect();
        // What could not be read is in the log.
        let _ = self.fill_texts(org_id, group_id, missing).await;
        for (seq, text) in texts {
            for excerpt in excerpts.iter_mut().filter(|excerpt| excerpt.seq == seq) {
                excerpt.text = text.chars().take(EXCERPT_CHARS).collect();
            }
        }
    }

    async fn fill_texts(
        &self,
        org_id: &OrgId,
        group_id: &GroupId,
        mut missing: Vec<(u64, &mut String)>,
    ) -> Result<(), Problem> {
        // Nobody can write a message without a text, so an empty one is elsewhere.
        missing.retain(|(_, text)| text.is_empty());
        missing.sort_by_key(|(seq, _)| *seq);
        while let Some(last) = missing.last().map(|(seq, _)| *seq) {
            // Those that lie near each other come with one request.
            let near = missing.iter().map(|(seq, _)| *seq).find(|seq| seq + NEAR >= last);
            let first = near.unwrap_or(last);
            let found =
                self.texts(org_id, group_id, first - 1, last + 1).await.map_err(|failed| {
                    tracing::warn!(%group_id, %org_id, ?failed, "a history service cannot be read");
                    Problem::new(Code::HistoryServiceUnavailable)
                })?;
            let cut = found.messages.first().filter(|_| found.messages.len() >= MAX_PAGE);
            let begin = cut.map_or(first, |text| text.seq.min(last));
            let texts: BTreeMap<u64, String> =
                found.messages.into_iter().map(|text| (text.seq, text.text)).collect();
            // What lies before the answer is asked for next; what is in its range is done.
            missing.retain_mut(|(seq, text)| {
                if *seq < begin {
                    return true;
                }
                match texts.get(seq) {
                    Some(found) => found.clone_into(text),
                    None => tracing::warn!(%group_id, seq, "a history service has lost a message"),
                }
                false
            });
        }
        Ok(())
    }

    /// Has a deleted group's history erased.
    ///
    /// # Errors
    /// [`Code::HistoryServiceUnavailable`].
    pub(super) async fn erase(&self, org_id: &OrgId, group_id: &GroupId) -> Result<(), Problem> {
        let path = format!("groups/{group_id}");
        let done = self.call::<()>(org_id, Method::DELETE, &path, None).await;
        done.map(|_| ()).map_err(|failed| {
            tracing::warn!(%group_id, %org_id, ?failed, "a history service did not erase a group");
            Problem::new(Code::HistoryServiceUnavailable)
        })
    }

    async fn append(&self, request: &AppendRequest) -> Result<(), Failed> {
        let path = format!("groups/{}/entries", request.group_id);
        let answer = self.call(&request.org_id, Method::POST, &path, Some(request)).await?;
        let Appended { last } = parse(&answer)?;
        if last < request.upto {
            return Err(Failed::Other(format!("it answered that it has {last}")));
        }
        Ok(())
    }

    async fn texts(
        &self,
        org_id: &OrgId,
        group_id: &GroupId,
        after: u64,
        before: u64,
    ) -> Result<Texts, Failed> {
        let path =
            format!("groups/{group_id}/messages?after={after}&before={before}&limit={MAX_PAGE}");
        parse(&self.call::<()>(org_id, Method::GET, &path, None).await?)
    }

    async fn call<T: Serialize + Sync>(
        &self,
        org_id: &OrgId,
        method: Method,
        path: &str,
        body: Option<&T>,
    ) -> Result<Vec<u8>, Failed> {
        let other = |error: &dyn std::fmt::Display| Failed::Other(error.to_string());
        let service = self.services.get(org_id).ok_or_else(|| other(&"none is configured"))?;
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| other(&error))?;
        let base = service.url.as_str().trim_end_matches('/');
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}/{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", service.secret.expose()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.unwrap_or_default()))
            .map_err(|error| other(&error))?;
        let exchange = async {
            let response = self.transport.send(request).await.map_err(|error| other(&error))?;
            let (head, mut chunks) = response.into_parts();
            let mut answer = Vec::new();
            while let Some(chunk) = chunks.next().await {
                answer.extend_from_slice(&chunk.map_err(|error| other(&error))?);
                if answer.len() > MAX_ANSWER_BYTES {
                    return Err(other(&"its answer is too long"));
                }
            }
            Ok((head.status, answer))
        };
        let exchanged = tokio::time::timeout(HISTORY_TIMEOUT, exchange).await;
        let (status, answer) = exchanged.map_err(|_| other(&"no answer in time"))??;
        if status == StatusCode::CONFLICT
            && let Ok(Appended { last }) = serde_json::from_slice(&answer)
        {
            return Err(Failed::Behind(last));
        }
        if !status.is_success() {
            return Err(other(&format_args!("it answered {status}")));
        }
        Ok(answer)
    }
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(answer).map_err(|error| Failed::Other(error.to_string()))
}

/// What a group is to say to its organization's service.
pub(super) struct Export {
    pub(super) org_id: OrgId,
    pub(super) group_id: GroupId,
    pub(super) history: HistoryId,
    pub(super) after: u64,
    pub(super) upto: u64,
}

/// Says it, as often as it takes, and tells the group of each part that was acknowledged.
pub(super) async fn export(
    shared: Arc<Shared>,
    mut export: Export,
    mailbox: mpsc::WeakSender<Box<Mail>>,
) {
    let stopping = shared.stopping.clone();
    let work = async {
        tokio::time::sleep(HISTORY_PAUSE).await;
        while export.after < export.upto {
            let request = read(&shared, &export).await;
            let request = match request {
                Ok(request) => request,
                Err(error) => {
                    tracing::error!(group = %export.group_id, %error, "an outbox cannot be read");
                    tokio::time::sleep(RETRY.1).await;
                    continue;
                }
            };
            if let Some(last) = deliver(&shared, &request).await {
                // It has lost something, an older backup of it was restored, say: it is told again of
                // what is still here.
                export.after = last;
                continue;
            }
            export.after = request.upto;
            let whole = export.after >= export.upto;
            let Some(mailbox) = mailbox.upgrade() else { return };
            let input = Input::Exported { upto: request.upto, whole };
            if mailbox.send(Box::new(Mail::Run { input })).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopping.cancelled() => {}
    }
}

/// Sends a request as often as it takes; up to where the service has everything, if that is before what
/// the request begins with.
async fn deliver(shared: &Shared, request: &AppendRequest) -> Option<u64> {
    let mut pause = RETRY.0;
    loop {
        let (failed, behind) = match shared.history.get() {
            Some(services) => match services.append(request).await {
                Ok(()) => return None,
                Err(Failed::Behind(last)) if last >= request.upto => return None,
                Err(Failed::Behind(last)) => {
                    let failed =
                        format!("it has everything up to {last} only, of {}", request.after);
                    (failed, (last < request.after).then_some(last))
                }
                Err(Failed::Other(failed)) => (failed, None),
            },
            None => ("none is configured".to_owned(), None),
        };
        tracing::warn!(
            group = %request.group_id, org = %request.org_id, failed,
            "a history service did not take what happened in a group"
        );
        tokio::time::sleep(pause).await;
        if behind.is_some() {
            return behind;
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

/// The next request: as many events as fit.
async fn read(shared: &Shared, export: &Export) -> Result<AppendRequest, StoreError> {
    let (store, key) = (shared.store.clone(), export.group_id.key());
    let (after, upto) = (export.after, export.upto.min(export.after + EVENTS_PER_READ));
    let records = tokio::task::spawn_blocking(move || store.events(key, after + 1, upto))
        .await
        .map_err(|error| StoreError::Failed(error.to_string()))??;
    let (mut entries, mut bytes, mut reached) = (Vec::new(), 0, after);
    for record in records {
        let event = record.decode().map_err(|error| StoreError::Failed(error.to_string()))?;
        if let Some(entry) = Entry::of(event) {
            let size = record.body.len();
            let full =
                entries.len() >= MAX_HISTORY_ENTRIES || bytes + size > MAX_HISTORY_APPEND_BYTES;
            if full && !entries.is_empty() {
                break;
            }
            bytes += size;
            entries.push(entry);
        }
        reached = record.seq;
    }
    Ok(AppendRequest {
        org_id: export.org_id.clone(),
        group_id: export.group_id.clone(),
        history: export.history.clone(),
        after,
        upto: reached,
        entries,
    })
}
