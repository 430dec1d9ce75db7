//! What an agent is, asked of the App with a `worker+jwt`, and kept so that the next answer may be
//! that it still holds.
//!
//! The cache is never authoritative: each run asks when it begins, with the version of what is known,
//! and the App says whether that is the newest. Nothing is used that was not confirmed for this very
//! run, so a change that was acknowledged holds for each run that begins later, whichever worker has
//! it, and an App that cannot be asked ends the run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use convene_model::{
    AgentId, GroupId, OrgId, Problem, Timestamp, UserId,
    agents::{ResolveRequest, ResolvedAgent, failure},
    claims::{AgentAccessClaims, WorkerClaims, service},
    token,
};
use futures_util::future::{Either, select};
use http::{Request, Response, StatusCode, header};

use crate::{Config, RESOLVE_PATH, Worker, failure::Failure, invoke::Call};

/// How long a resolved agent is kept, keys and secrets included. How old it may be when it is used
/// does not depend on this.
pub const RESOLVE_TTL: Duration = Duration::from_secs(60);
/// Resolved agents kept at a time; beyond it the oldest goes.
pub const MAX_CACHED_AGENTS: usize = 1024;
/// The pause before an App that could not be asked is asked again; it doubles up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An answer is for one agent in one group of one organization and for who began the run, as the
/// token names them: another person's secrets make another answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    org: OrgId,
    group: GroupId,
    agent: AgentId,
    initiator: Option<UserId>,
}

impl Key {
    pub(crate) fn of(claims: &AgentAccessClaims) -> Self {
        Self {
            org: claims.org_id.clone(),
            group: claims.group_id.clone(),
            agent: claims.agent_id.clone(),
            initiator: claims.initiator.clone(),
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    agent: Arc<ResolvedAgent>,
    at: Timestamp,
}

/// Resolved agents of the last [`RESOLVE_TTL`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

impl Cache {
    fn get(&self, key: &Key, now: Timestamp) -> Option<Arc<ResolvedAgent>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        (now.since(entry.at) < RESOLVE_TTL).then(|| Arc::clone(&entry.agent))
    }

    /// Keeps an answer, unless a later version was kept while it was under way. What is known of older
    /// versions of the workspace goes: nothing of it will be confirmed.
    fn put(&self, key: Key, agent: Arc<ResolvedAgent>, now: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|other, entry| {
            let older = other.org == key.org && entry.agent.version < agent.version;
            now.since(entry.at) < RESOLVE_TTL && !older
        });
        if entries.get(&key).is_some_and(|entry| entry.agent.version > agent.version) {
            return;
        }
        if entries.len() >= MAX_CACHED_AGENTS && !entries.contains_key(&key) {
            let oldest =
                entries.iter().min_by_key(|(_, entry)| entry.at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                entries.remove(&oldest);
            }
        }
        entries.insert(key, Entry { agent, at: now });
    }
}

/// Resolves the agent of a call: what the App says now, or what is known and the App confirms.
pub(crate) async fn resolve(worker: &Worker, call: &Call) -> Result<Arc<ResolvedAgent>, Failure> {
    let key = Key::of(&call.claims);
    let now = (worker.config.clock)();
    let known = worker.agents.get(&key, now);
    let body = ResolveRequest { known: known.as_ref().map(|agent| agent.version) };
    let body = serde_json::to_vec(&body).map(Bytes::from);
    let body = body.map_err(|_| failed("it cannot be asked for."))?;
    let answer = ask(&worker.config, call, &body).await?;
    if answer.status() == StatusCode::NO_CONTENT {
        return known.ok_or_else(|| failed("the App's answer is not of the documented form."));
    }
    let agent = Arc::new(read(&answer, call)?);
    worker.agents.put(key, Arc::clone(&agent), now);
    Ok(agent)
}

fn failed(why: &str) -> Failure {
    let detail = format!("The agent's configuration could not be read: {why}");
    Failure::new(failure::RESOLVE_FAILED, detail)
}

/// Asks until the App answers or the time for it is over: an App that starts anew, say, ends no run.
async fn ask(config: &Config, call: &Call, body: &Bytes) -> Result<Response<Bytes>, Failure> {
    let mut time_out = (config.sleep)(config.limits.resolve_timeout);
    let (mut pause, mut why) = (FIRST_PAUSE, "the App did not answer in time.");
    loop {
        // Half of the time, so that another App has a chance when one stands still.
        let patience = (config.sleep)(config.limits.resolve_timeout / 2);
        let answer = select(config.app.call(question(config, call, body)), patience);
        let answer = match select(answer, time_out).await {
            Either::Left((answer, rest)) => {
                time_out = rest;
                answer
            }
            Either::Right(((), _)) => return Err(failed(why)),
        };
        let Either::Left((answer, _)) = answer else {
            why = "the App did not answer in time.";
            continue;
        };
        match answer {
            Ok(answer) if !is_passing(answer.status()) => return Ok(answer),
            Ok(answer) => {
                tracing::warn!(status = %answer.status(), "an agent cannot be resolved now");
                why = "the App is not able to answer.";
            }
            Err(error) => {
                tracing::warn!(%error, agent_id = %call.claims.agent_id, "an agent cannot be resolved");
                why = "the App cannot be reached.";
            }
        }
        match select((config.sleep)(pause), time_out).await {
            Either::Left(((), rest)) => time_out = rest,
            Either::Right(((), _)) => return Err(failed(why)),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the same question may be answered soon.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The question, with a token of its own.
fn question(config: &Config, call: &Call, body: &Bytes) -> Request<Bytes> {
    let now = (config.clock)();
    let claims = WorkerClaims {
        htm: "POST".to_owned(),
        htu: RESOLVE_PATH.to_owned(),
        bh: token::body_hash(body),
        act: call.token.clone(),
    };
    let token = token::mint(&config.signing.signing(), service::APP, claims, now, (config.jti)());
    Request::post(RESOLVE_PATH)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.clone())
        .expect("a token is a valid header value")
}

fn read(answer: &Response<Bytes>, call: &Call) -> Result<ResolvedAgent, Failure> {
    if answer.status() != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(answer.body());
        let why = problem.map(|problem| problem.title).unwrap_or_default();
        tracing::warn!(status = %answer.status(), why, "the App refused to resolve an agent");
        return Err(failed(if why.is_empty() { "the App refused." } else { &why }));
    }
    let agent: ResolvedAgent = serde_json::from_slice(answer.body())
        .map_err(|_| failed("the App's answer is not of the documented form."))?;
    if agent.agent_id != call.claims.agent_id {
        return Err(failed("the App answered for another agent."));
    }
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use convene_model::agents::ResolvedModel;

    use super::*;

    fn agent(version: u64) -> Arc<ResolvedAgent> {
        Arc::new(ResolvedAgent {
            agent_id: AgentId::new("a1").unwrap(),
            name: "Aria".to_owned(),
            version,
            system_prompt: String::new(),
            model: ResolvedModel::Demo,
            price: None,
            people: BTreeMap::new(),
            tools: Vec::new(),
            tool_hosts: None,
        })
    }

    fn key(group: usize) -> Key {
        Key {
            org: OrgId::new("o1").unwrap(),
            group: GroupId::new(format!("g{group}")).unwrap(),
            agent: AgentId::new("a1").unwrap(),
            initiator: None,
        }
    }

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn an_answer_is_kept_until_its_time_is_over() {
        let cache = Cache::default();
        cache.put(key(1), agent(1), NOW);
        let last = NOW + RESOLVE_TTL - Duration::from_millis(1);
        assert!(cache.get(&key(1), last).is_some());
        assert!(cache.get(&key(1), NOW + RESOLVE_TTL).is_none());
        assert!(cache.get(&key(2), NOW).is_none());
    }

    #[test]
    fn an_older_version_does_not_replace_a_newer_one() {
        let cache = Cache::default();
        cache.put(key(1), agent(2), NOW);
        cache.put(key(1), agent(1), NOW);
        assert_eq!(cache.get(&key(1), NOW).unwrap().version, 2);
    }

    #[test]
    fn an_answer_is_for_who_began_the_run() {
        let cache = Cache::default();
        let anas = Key { initiator: Some(UserId::new("u1").unwrap()), ..key(1) };
        cache.put(anas.clone(), agent(1), NOW);
        assert!(cache.get(&anas, NOW).is_some());
        let bens = Key { initiator: Some(UserId::new("u2").unwrap()), ..key(1) };
        assert!(cache.get(&bens, NOW).is_none());
        assert!(cache.get(&key(1), NOW).is_none());
    }

    #[test]
    fn a_newer_version_drops_what_is_known_of_older_ones() {
        let cache = Cache::default();
        cache.put(key(1), agent(1), NOW);
        let other = Key { org: OrgId::new("o2").unwrap(), ..key(1) };
        cache.put(other.clone(), agent(1), NOW);
        cache.put(key(2), agent(2), NOW);
        assert!(cache.get(&key(1), NOW).is_none());
        assert!(cache.get(&key(2), NOW).is_some());
        assert!(cache.get(&other, NOW).is_some());
    }

    #[test]
    fn the_oldest_answer_goes_when_there_are_too_many() {
        let cache = Cache::default();
        for group in 0..=MAX_CACHED_AGENTS {
            let at = NOW + Duration::from_millis(group as u64);
            cache.put(key(group), agent(1), at);
        }
        assert!(cache.get(&key(0), NOW).is_none());
        assert!(cache.get(&key(1), NOW).is_some());
        let entries = cache.entries.lock().unwrap().len();
        assert_eq!(entries, MAX_CACHED_AGENTS);
    }
}
