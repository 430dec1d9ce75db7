//! `/api/groups/{group_id}/messages`, `…/why`, `…/search` and `/ws`: reading a group's conversation.

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use convene_db::{Statement, params};
use convene_model::{
    AgentId, GroupId, MessageId, OrgId, UserId,
    event::Author,
    history::{HistoryQuery, RawHistoryPage, SearchRequest},
    limits::{MAX_HITS, MAX_PAGE, MAX_QUERY_CHARS},
    why::Why,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::store;
use crate::{
    agents::tokens,
    identity::{self, caller::Caller},
    rooms::{RawMessageDetail, RawSearchPage, WithHtml},
    state::AppState,
    ui::markdown,
    validate::invalid,
    web::{
        extract::{Ids, Participant, Search},
        failure::Answer,
    },
};

/// What comes with each message beside its text.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Render {
    /// A sanitised fragment, as `html`.
    Html,
}

fn rendered<T: WithHtml>(answer: T, render: Option<Render>) -> T {
    match render {
        Some(Render::Html) => answer.with_html(markdown::render),
        None => answer,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    before: Option<u64>,
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    around: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    render: Option<Render>,
}

/// As whom somebody reads in a group, who takes part in it.
async fn reader(state: &AppState, group: &GroupId, participant: &Participant) -> Answer<UserId> {
    match participant {
        Participant::Person(caller) => {
            store::enter(state, group, caller).await?;
            Ok(caller.id().clone())
        }
        Participant::Agent(agent) => {
            tokens::enter(state, group, agent).await?;
            Ok(agent.user()?)
        }
    }
}

pub(super) async fn history(
    State(state): State<AppState>,
    participant: Participant,
    Ids(group): Ids<GroupId>,
    Search(query): Search<PageQuery>,
) -> Answer<Json<RawHistoryPage>> {
    let user = reader(&state, &group, &participant).await?;
    let PageQuery { before, after, around, limit, render } = query;
    let query = HistoryQuery { before, after, around, limit };
    if query.page_size().is_err() {
        return Err(invalid("limit", format!("A page has 1 to {MAX_PAGE} messages.")).into());
    }
    if around.is_some() && (before.is_some() || after.is_some()) {
        let sentence = "A page is around a number, or before and after numbers.";
        return Err(invalid("around", sentence).into());
    }
    let page = state.rooms.history(group, user, query).await?;
    Ok(Json(rendered(page, render)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DetailQuery {
    #[serde(default)]
    render: Option<Render>,
}

pub(super) async fn detail(
    State(state): State<AppState>,
    participant: Participant,
    Ids((group, message)): Ids<(GroupId, MessageId)>,
    Search(query): Search<DetailQuery>,
) -> Answer<Json<RawMessageDetail>> {
    let user = reader(&state, &group, &participant).await?;
    let detail = state.rooms.message(group, user, message).await?;
    Ok(Json(rendered(detail, query.render)))
}

/// Why agents answered a message; those that are no longer in the group are named as the workspace
/// knows them.
pub(super) async fn why(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message)): Ids<(GroupId, MessageId)>,
) -> Answer<Json<Why>> {
    let group = store::enter(&state, &group, &caller).await?;
    let mut why = state.rooms.why(group.id().clone(), caller.id().clone(), message).await?;
    for agent in why.agents.iter_mut().filter(|agent| agent.name == agent.agent_id.as_str()) {
        const SQL: &str = "SELECT name FROM agents WHERE agent_id = $1 AND org_id = $2";
        let statement = Statement::new(SQL, params![agent.agent_id.as_str(), group.org().as_str()]);
        if let Some(row) = state.db.query(statement).await?.first() {
            agent.name = row.get("name")?;
        }
    }
    Ok(Json(why))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    q: String,
    #[serde(default)]
    before: Option<u64>,
    /// The id of a person or of an agent.
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    render: Option<Render>,
}

pub(super) async fn search(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    Search(query): Search<SearchQuery>,
) -> Answer<Json<RawSearchPage>> {
    let group = store::enter(&state, &group, &caller).await?;
    let SearchQuery { q, before, author, limit, render } = query;
    if q.trim().is_empty() || q.chars().count() > MAX_QUERY_CHARS {
        let sentence = format!("A query has 1 to {MAX_QUERY_CHARS} characters.");
        return Err(invalid("q", sentence).into());
    }
    if limit.is_some_and(|limit| !(1..=MAX_HITS).contains(&limit)) {
        return Err(invalid("limit", format!("A page has 1 to {MAX_HITS} hits.")).into());
    }
    let author = match author {
        Some(id) => Some(author_of(&state, group.org(), &id).await?),
        None => None,
    };
    let request = SearchRequest { query: q, before, author, limit };
    let page = state.rooms.search(group.id().clone(), caller.id().clone(), request).await?;
    Ok(Json(rendered(page, render)))
}

/// Who has an id: an agent of the workspace, also a former one, or else a person.
async fn author_of(state: &AppState, org: &OrgId, id: &str) -> Answer<Author> {
    const SQL: &str = "SELECT agent_id FROM agents WHERE agent_id = $1 AND org_id = $2";
    let unknown = || invalid("author", "An author is named by id.");
    let user = UserId::new(id).map_err(|_| unknown())?;
    let agents = state.db.query(Statement::new(SQL, params![id, org.as_str()])).await?;
    if agents.is_empty() {
        return Ok(Author::User(user));
    }
    Ok(Author::Agent(AgentId::new(id).map_err(|_| unknown())?))
}

/// A client's WebSocket; the guard has checked its Origin.
pub(super) async fn socket(
    State(state): State<AppState>,
    participant: Participant,
    Ids(group): Ids<GroupId>,
    request: Request,
) -> Answer<Response> {
    let user = reader(&state, &group, &participant).await?;
    let proof = match &participant {
        Participant::Person(caller) => caller.proof(),
        Participant::Agent(agent) => agent.proof(),
    };
    let response = state.rooms.upgrade(group, user.clone(), proof, request).await;
    // The credential may have ended before the socket could be found by it.
    let held = identity::proofs_of(&state, &user).await?;
    state.rooms.keep_sockets(&user, &held);
    Ok(response)
}
