//! `/g/{group_id}`: the group's page with its newest messages.

use std::collections::{BTreeSet, HashMap};

use axum::{extract::State, response::Response};
use convene_db::{Statement, params};
use convene_model::{
    GroupId, OrgId, Problem,
    event::Author,
    history::{FinishedRun, HistoryQuery, Message, RawHistoryPage},
};

use super::{agents, members, store};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::{
        markdown, pages,
        view::{GroupView, MessageView, PageView},
    },
    web::{
        self,
        extract::Ids,
        failure::{Answer, Failure},
    },
    workspaces::{orgs, shell},
};

pub(super) async fn group(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
) -> Answer<Response> {
    let group = store::enter(&state, &group, &caller).await?;
    let org = orgs::enter(&state, group.org(), &caller).await?;
    let shell = shell(&state, &caller, org).await?;
    let members = members::list(&state, &group).await?;
    let agents = agents::list(&state, &group).await?;
    let page = match newest_page(&state, &group, &caller).await {
        Ok(page) => Some(page),
        // The page stands without it; the script tries again.
        Err(Failure(problem)) => {
            tracing::warn!(group_id = %group.id(), code = problem.code.as_str(), "no history for a page");
            None
        }
    };
    let mut unknown = BTreeSet::new();
    for message in page.iter().flat_map(|page| &page.messages) {
        match &message.message.posted.author {
            Author::User(id) if members.iter().all(|person| person.user_id != *id) => {
                unknown.insert(id.as_str().to_owned());
            }
            Author::Agent(id) if agents.iter().all(|agent| agent.agent_id != *id) => {
                unknown.insert(id.as_str().to_owned());
            }
            Author::User(_) | Author::Agent(_) => {}
        }
    }
    let former = former_names(&state, group.org(), &unknown).await?;
    let view = GroupView {
        shell,
        paused: group.paused,
        group: group.item,
        members,
        agents,
        former,
        page,
        read_only: None,
    };
    Ok(web::page(pages::group(&view)))
}

async fn newest_page(state: &AppState, group: &store::Group, caller: &Caller) -> Answer<PageView> {
    let (id, user) = (group.id().clone(), caller.id().clone());
    let page = state.rooms.history(id, user, HistoryQuery::default()).await?;
    page_view(&page).map_err(|error| {
        tracing::error!(%error, group_id = %group.id(), "a page of history cannot be read");
        Problem::new(convene_model::Code::Internal).into()
    })
}

fn page_view(page: &RawHistoryPage) -> Result<PageView, serde_json::Error> {
    let messages = page.messages.iter().map(|raw| {
        let message: Message = serde_json::from_str(raw.get())?;
        let html = match message.deleted {
            true => String::new(),
            false => markdown::render(&message.posted.text),
        };
        Ok(MessageView { message, html })
    });
    let runs = page.runs.iter().map(|raw| serde_json::from_str::<FinishedRun>(raw.get()));
    Ok(PageView {
        messages: messages.collect::<Result<_, serde_json::Error>>()?,
        runs: runs.collect::<Result<_, _>>()?,
        more_before: page.more_before,
        head: page.head,
        history: page.history.clone(),
    })
}

/// The names of authors who are in the group no longer.
async fn former_names(
    state: &AppState,
    org: &OrgId,
    ids: &BTreeSet<String>,
) -> Answer<HashMap<String, String>> {
    const USER: &str = "SELECT name FROM users WHERE user_id = $1";
    const AGENT: &str = "SELECT name FROM agents WHERE agent_id = $1 AND org_id = $2";
    let mut names = HashMap::new();
    for id in ids {
        let user = state.db.query(Statement::new(USER, params![id])).await?;
        let found = match user.is_empty() {
            true => state.db.query(Statement::new(AGENT, params![id, org.as_str()])).await?,
            false => user,
        };
        if let Some(row) = found.first() {
            names.insert(id.clone(), row.get("name")?);
        }
    }
    Ok(names)
}
