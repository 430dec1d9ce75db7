//! What an agent is, asked of the App with a `worker+jwt` and kept for a short time.
//!
//! The cache is never authoritative: an entry is dropped when its time is over, when the call knows
//! of something that the entry does not, when the App answers with a newer version of the same agent,
//! and when the provider refused the entry's key. Several workers side by side thus differ for no
//! longer than an entry lives.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use convene_model::{
    AgentId, GroupId, OrgId, Problem, Timestamp, UserId,
    agents::{InvokeRequest, ResolvedAgent, failure},
    claims::{AgentAccessClaims, WorkerClaims, service},
    event::Author,
    token,
};
use futures_util::future::{Either, select};
use http::{Request, StatusCode, header};

use crate::{Config, RESOLVE_PATH, Worker, failure::Failure, invoke::Call};

/// How long a resolved agent is used without asking again.
pub const RESOLVE_TTL: Duration = Duration::from_secs(5);
/// Resolved agents kept at a time; beyond it the oldest goes.
pub const MAX_CACHED_AGENTS: usize = 1024;

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
    agent: ResolvedAgent,
    at: Timestamp,
}

/// Resolved agents of the last [`RESOLVE_TTL`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

impl Cache {
    fn get(&self, key: &Key, request: &InvokeRequest, now: Timestamp) -> Option<ResolvedAgent> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        let fresh = now.since(entry.at) < RESOLVE_TTL && knows(&entry.agent, request);
        fresh.then(|| entry.agent.clone())
    }

    /// Keeps an answer, unless a later version was kept while it was under way. What is known of an
    /// older version of the agent, for others or in other groups, goes.
    fn put(&self, key: Key, agent: ResolvedAgent, now: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|other, entry| {
            let same = other.org == key.org && other.agent == key.agent;
            let older = same && entry.agent.version < agent.version;
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

    /// Drops an answer that turned out to be wrong.
    pub(crate) fn forget(&self, key: &Key) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Whether the answer is at least as new as the call: same name, and everyone who speaks is known.
fn knows(agent: &ResolvedAgent, request: &InvokeRequest) -> bool {
    let named = request.agents.get(&request.agent_id).is_none_or(|name| *name == agent.name);
    named
        && request.messages.iter().all(|message| match &message.author {
            Author::User(user_id) => agent.people.contains_key(user_id),
            Author::Agent(_) => true,
        })
}

/// Resolves the agent of a call, from the cache or from the App.
pub(crate) async fn resolve(worker: &Worker, call: &Call) -> Result<ResolvedAgent, Failure> {
    let key = Key::of(&call.claims);
    let now = (worker.config.clock)();
    if let Some(agent) = worker.agents.get(&key, &call.request, now) {
        return Ok(agent);
    }
    let agent = ask(&worker.config, call, now).await?;
    worker.agents.put(key, agent.clone(), now);
    Ok(agent)
}

async fn ask(config: &Config, call: &Call, now: Timestamp) -> Result<ResolvedAgent, Failure> {
    let failed = |why: &str| {
        Failure::new(
            failure::RESOLVE_FAILED,
            format!("The agent's configuration could not be read: {why}"),
        )
    };
    let body = Bytes::from_static(b"{}");
    let claims = WorkerClaims {
        htm: "POST".to_owned(),
        htu: RESOLVE_PATH.to_owned(),
        bh: token::body_hash(&body),
        act: call.token.clone(),
    };
    let token = token::mint(&config.signing.signing(), service::APP, claims, now, (config.jti)());
    let request = Request::post(RESOLVE_PATH)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("a token is a valid header value");

    let answer = config.app.call(request);
    let answer = match select(answer, (config.sleep)(config.limits.resolve_timeout)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => return Err(failed("the App did not answer in time.")),
    };
    let answer = answer.map_err(|error| {
        tracing::warn!(%error, agent_id = %call.claims.agent_id, "an agent cannot be resolved");
        failed("the App cannot be reached.")
    })?;
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

    use convene_model::{
        MessageId, RunId, UserId,
        agents::{ContextMessage, ResolvedModel},
    };

    use super::*;

    fn agent(version: u64, name: &str, people: &[&str]) -> ResolvedAgent {
        ResolvedAgent {
            agent_id: AgentId::new("a1").unwrap(),
            name: name.to_owned(),
            version,
            system_prompt: String::new(),
            model: ResolvedModel::Demo,
            price: None,
            people: people.iter().map(|id| (UserId::new(id).unwrap(), (*id).to_owned())).collect(),
            tools: Vec::new(),
            tool_hosts: None,
        }
    }

    fn request(name: &str, speaker: &str) -> InvokeRequest {
        let message_id = MessageId::new("m1").unwrap();
        InvokeRequest {
            group_id: GroupId::new("g1").unwrap(),
            agent_id: AgentId::new("a1").unwrap(),
            run_id: RunId::new("r1").unwrap(),
            attempt: 1,
            trigger: message_id.clone(),
            agents: BTreeMap::from([(AgentId::new("a1").unwrap(), name.to_owned())]),
            messages: vec![ContextMessage {
                message_id,
                author: Author::User(UserId::new(speaker).unwrap()),
                text: "hi".to_owned(),
            }],
            summary: None,
            resume: None,
        }
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
    fn an_answer_is_used_until_its_time_is_over() {
        let cache = Cache::default();
        cache.put(key(1), agent(1, "Aria", &["u1"]), NOW);
        let last = NOW + RESOLVE_TTL - Duration::from_millis(1);
        assert!(cache.get(&key(1), &request("Aria", "u1"), last).is_some());
        assert!(cache.get(&key(1), &request("Aria", "u1"), NOW + RESOLVE_TTL).is_none());
        assert!(cache.get(&key(2), &request("Aria", "u1"), NOW).is_none());
    }

    #[test]
    fn an_answer_that_knows_less_than_the_call_is_not_used() {
        let cache = Cache::default();
        cache.put(key(1), agent(1, "Aria", &["u1"]), NOW);
        assert!(cache.get(&key(1), &request("Renamed", "u1"), NOW).is_none());
        assert!(cache.get(&key(1), &request("Aria", "u2"), NOW).is_none());
    }

    #[test]
    fn an_older_version_does_not_replace_a_newer_one() {
        let cache = Cache::default();
        cache.put(key(1), agent(2, "Aria", &["u1"]), NOW);
        cache.put(key(1), agent(1, "Old", &["u1"]), NOW);
        assert_eq!(cache.get(&key(1), &request("Aria", "u1"), NOW).unwrap().version, 2);
    }

    #[test]
    fn an_answer_is_for_who_began_the_run() {
        let cache = Cache::default();
        let anas = Key { initiator: Some(UserId::new("u1").unwrap()), ..key(1) };
        cache.put(anas.clone(), agent(1, "Aria", &["u1"]), NOW);
        assert!(cache.get(&anas, &request("Aria", "u1"), NOW).is_some());
        let bens = Key { initiator: Some(UserId::new("u2").unwrap()), ..key(1) };
        assert!(cache.get(&bens, &request("Aria", "u1"), NOW).is_none());
        assert!(cache.get(&key(1), &request("Aria", "u1"), NOW).is_none());
    }

    #[test]
    fn a_newer_version_drops_what_is_known_of_older_ones() {
        let cache = Cache::default();
        cache.put(key(1), agent(1, "Aria", &["u1"]), NOW);
        let other = Key { agent: AgentId::new("a2").unwrap(), ..key(1) };
        cache.put(other.clone(), agent(1, "Critic", &["u1"]), NOW);
        cache.put(key(2), agent(2, "Aria", &["u1"]), NOW);
        assert!(cache.get(&key(1), &request("Aria", "u1"), NOW).is_none());
        assert!(cache.get(&key(2), &request("Aria", "u1"), NOW).is_some());
        let entries = cache.entries.lock().unwrap();
        assert!(entries.contains_key(&other));
    }

    #[test]
    fn the_oldest_answer_goes_when_there_are_too_many() {
        let cache = Cache::default();
        for group in 0..=MAX_CACHED_AGENTS {
            let at = NOW + Duration::from_millis(group as u64);
            cache.put(key(group), agent(1, "Aria", &["u1"]), at);
        }
        assert!(cache.get(&key(0), &request("Aria", "u1"), NOW).is_none());
        assert!(cache.get(&key(1), &request("Aria", "u1"), NOW).is_some());
        let entries = cache.entries.lock().unwrap().len();
        assert_eq!(entries, MAX_CACHED_AGENTS);
    }
}
