//! The page of what was changed in a workspace, by whom and when.
//!
//! It says what the audit has in words. The title of a group is that of one which the reader may open, or of
//! one that is gone.

use askama::Template;
use axum::{extract::State, response::Response};
use convene_model::{OrgId, Timestamp};
use serde::Deserialize;

use super::{
    api::AuditQuery,
    audit::{self, Action, Told},
    orgs, shell,
};
use crate::{
    identity::caller::Caller,
    state::AppState,
    ui::{pages, view::Shell},
    web::{
        self,
        extract::{Ids, Search},
        failure::Answer,
    },
};

/// Entries on one page.
const ON_ONE_PAGE: usize = 50;

pub(super) async fn settings(
    State(state): State<AppState>,
    caller: Caller,
    Ids(org): Ids<OrgId>,
    Search(query): Search<AuditQuery>,
) -> Answer<Response> {
    let org = orgs::manage(&state, &org, &caller).await?;
    let before = query.before.as_deref();
    let mut told = audit::list(&state, &org.org_id, before, ON_ONE_PAGE + 1).await?;
    let has_older = told.len() > ON_ONE_PAGE;
    told.truncate(ON_ONE_PAGE);
    let older = told.last().filter(|_| has_older).map(|told| told.entry.audit_id.clone());
    let shell = shell(&state, &caller, org).await?;
    Ok(web::page(pages::html(&Page {
        csrf: &shell.csrf,
        shell: &shell,
        current: None,
        settings: true,
        tab: "audit",
        days: days(&shell, &told),
        is_newest: before.is_none(),
        older,
    })))
}

#[derive(Template)]
#[template(path = "settings_audit.html")]
struct Page<'a> {
    csrf: &'a str,
    shell: &'a Shell,
    current: Option<String>,
    settings: bool,
    tab: &'static str,
    /// Each day with its entries, the newest first.
    days: Vec<(String, Vec<Line<'a>>)>,
    is_newest: bool,
    /// Where the page after this one begins.
    older: Option<String>,
}

/// An entry in words: who, what was done, to what, and what is particular to it.
struct Line<'a> {
    at: Timestamp,
    actor_id: &'a str,
    actor: &'a str,
    words: &'a str,
    subject: Option<String>,
    addition: Option<String>,
}

/// What is known of a change, of any kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    name: Option<String>,
    title: Option<String>,
    from: Option<String>,
    to: Option<String>,
    hosts: Option<Vec<String>>,
}

fn days<'a>(shell: &Shell, told: &'a [Told]) -> Vec<(String, Vec<Line<'a>>)> {
    let mut days: Vec<(String, Vec<Line<'a>>)> = Vec::new();
    for told in told {
        let day = pages::date(&told.entry.at);
        let line = line(shell, told);
        match days.last_mut() {
            Some((last, lines)) if *last == day => lines.push(line),
            _ => days.push((day, vec![line])),
        }
    }
    days
}

fn line<'a>(shell: &Shell, told: &'a Told) -> Line<'a> {
    let entry = &told.entry;
    // What a later version has recorded may look otherwise: then it is told without it.
    let detail: Detail = serde_json::from_str(entry.detail.get()).unwrap_or_default();
    let action = Action::named(&entry.action);
    let mut words: &str = action.map_or(&*entry.action, |action| action.words());
    let mut subject = detail.name;
    let mut addition = detail.from.zip(detail.to).map(|(from, to)| format!("from {from} to {to}"));
    match action {
        Some(Action::MemberRemoved) if entry.subject == entry.actor_id.as_str() => words = "left",
        Some(
            Action::RoleChanged
            | Action::MemberRemoved
            | Action::PasswordReset
            | Action::AgentTokenRevoked,
        ) => subject.clone_from(&told.subject),
        Some(Action::AgentTokenMade) => {
            addition = subject.take().map(|name| format!("({name})"));
            subject.clone_from(&told.subject);
        }
        Some(Action::ToolHostsSet) => {
            addition = Some(match detail.hosts.as_deref() {
                None => "to every host that the operator allows".to_owned(),
                Some([]) => "to none".to_owned(),
                Some(hosts) => format!("to {}", hosts.join(", ")),
            });
        }
        Some(
            Action::GroupArchived
            | Action::GroupRestored
            | Action::GroupDeleted
            | Action::RevisionsSet,
        ) => {
            let title = shell.title(&entry.subject).map(str::to_owned).or(detail.title);
            subject = title.or_else(|| Some("that is not open to you".to_owned()));
        }
        _ => {}
    }
    Line {
        at: entry.at,
        actor_id: entry.actor_id.as_str(),
        actor: told.actor.as_deref().unwrap_or(entry.actor_id.as_str()),
        words,
        subject,
        addition,
    }
}
