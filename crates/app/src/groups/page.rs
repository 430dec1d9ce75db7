//! `/g/{group_id}`: the group's page with its newest messages; `…/m/{message_id}`: with those around
//! one of them.

use std::collections::{BTreeSet, HashMap};

use axum::{extract::State, response::Response};
use convene_db::{Statement, params};
use convene_model::{
    Code, GroupId, MessageId, OrgId, Problem,
    event::Author,
    history::{FinishedRun, HistoryQuery, Message, RawHistoryPage},
    infra::HistoryMode,
};
use serde_json::value::RawValue;

use super::{agents, life, members, store};
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
    show(&state, &caller, &group, None).await
}

/// A link to a message: the group, opened there.
pub(super) async fn at_message(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message)): Ids<(GroupId, MessageId)>,
) -> Answer<Response> {
    show(&state, &caller, &group, Some(message)).await
}

async fn show(
    state: &AppState,
    caller: &Caller,
    group: &GroupId,
    target: Option<MessageId>,
) -> Answer<Response> {
    let group = life::look(state, store::enter(state, group, caller).await?).await?;
    let org = orgs::enter(state, group.org(), caller).await?;
    let shell = shell(state, caller, org).await?;
    let members = members::list(state, &group).await?;
    let agents = agents::list(state, &group).await?;
    let page = match page_at(state, &group, caller, target.as_ref()).await {
        Ok(page) => Some(page),
        Err(Failure(problem)) if problem.code == Code::GroupDeleted => return Err(problem.into()),
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
    let runs = page.iter().flat_map(|page| &page.runs);
    for user in runs.flat_map(|run| &run.approvals).flat_map(|approval| &approval.by) {
        if members.iter().all(|person| person.user_id != *user) {
            unknown.insert(user.as_str().to_owned());
        }
    }
    let former = former_names(state, group.org(), &unknown).await?;
    let view = GroupView {
        shell,
        paused: group.paused,
        can_manage: group.is_managed_by(caller.id()),
        keeps_history: group.history_mode == HistoryMode::External,
        group: group.item,
        members,
        agents,
        former,
        page,
        target,
    };
    Ok(web::page(pages::group(&view)))
}

/// The page of history around a message; the newest one without it, and where there is none such,
/// which the script then says.
async fn page_at(
    state: &AppState,
    group: &store::Group,
    caller: &Caller,
    target: Option<&MessageId>,
) -> Answer<PageView> {
    let (id, user) = (group.id(), caller.id());
    let mut query = HistoryQuery::default();
    if let Some(target) = target {
        match state.rooms.message(id.clone(), user.clone(), target.clone()).await {
            Ok(detail) => query.around = Some(numbered(&detail.message)?.seq),
            // An archived group is opened at its end: only its messages' numbers can be looked up.
            Err(problem) if matches!(problem.code, Code::MessageNotFound | Code::GroupArchived) => {
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    let page = state.rooms.history(id.clone(), user.clone(), query).await?;
    page_view(&page).map_err(|error| {
        tracing::error!(%error, group_id = %group.id(), "a page of history cannot be read");
        Problem::new(Code::Internal).into()
    })
}

/// The number of a message, of which nothing else is needed.
#[derive(serde::Deserialize)]
struct Numbered {
    seq: u64,
}

fn numbered(message: &RawValue) -> Result<Numbered, Problem> {
    serde_json::from_str(message.get()).map_err(|error| {
        tracing::error!(%error, "a message cannot be read");
        Problem::new(Code::Internal)
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
        answered: page.answered.clone(),
        more_before: page.more_before,
        more_after: page.more_after,
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
