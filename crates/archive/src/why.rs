//! Why agents of an archived group answered a message, from its events.
//!
//! All events are read, one member at a time; those that name neither the message nor one of its
//! runs are passed over unparsed.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use convene_model::{
    MessageId, RunId,
    archive::{Manifest, line},
    event::{Author, EventKind, GroupAgent, TriggerDecided},
    history::ToolLog,
    record::Record,
    why::{Why, WhyRun},
};
use futures_util::TryStreamExt;
use object_store::ObjectStore;

use crate::{blocking, error::ArchiveError, reader::events};

/// Answers from the snapshot what `GET /groups/{id}/messages/{message_id}/why` of the group itself
/// would; `None` when it has no such message.
///
/// # Errors
/// [`ArchiveError::Corrupt`], [`ArchiveError::Store`].
pub async fn why(
    store: Arc<dyn ObjectStore>,
    manifest: &Manifest,
    message_id: &MessageId,
) -> Result<Option<Why>, ArchiveError> {
    let mut search = Search::new(message_id.clone());
    let mut members = pin!(events(store, manifest, 1));
    while let Some(member) = members.try_next().await? {
        let searched = blocking::run(move || search.read(&member)).await?;
        search =
            searched.map_err(|problem| ArchiveError::corrupt(manifest.content_path(), problem))?;
    }
    Ok(search.end())
}

/// What was found so far.
struct Search {
    why: Why,
    /// How an event looks that names the message.
    named: String,
    /// Who wrote the message, once it was found.
    author: Option<Author>,
    /// The agents of the group as they were last configured.
    agents: Vec<GroupAgent>,
    /// What each run of the message did with tools, by how an event looks that names it.
    logs: Vec<(String, ToolLog)>,
}

impl Search {
    fn new(message_id: MessageId) -> Self {
        let named = format!("\"message_id\":\"{message_id}\"");
        let (author, agents, logs) = (None, Vec::new(), Vec::new());
        Self { why: Why::of(message_id), named, author, agents, logs }
    }

    fn read(mut self, member: &Bytes) -> Result<Self, String> {
        for line in line::split(member).map_err(|error| error.to_string())? {
            let text = std::str::from_utf8(&line).map_err(|error| error.to_string())?;
            let told = text.contains("\"kind\":\"group.configured\"")
                || text.contains(&self.named)
                || self.logs.iter().any(|(run, _)| text.contains(run));
            if told {
                let record = line::parse_event(&line).map_err(|error| error.to_string())?;
                self.take(&record)?;
            }
        }
        Ok(self)
    }

    fn take(&mut self, record: &Record) -> Result<(), String> {
        let event = record.decode().map_err(|error| error.to_string())?;
        if let EventKind::GroupConfigured(config) = event.kind {
            self.agents = config.agents;
        } else if let EventKind::MessagePosted(posted) = event.kind {
            if posted.message_id == self.why.message_id {
                self.author = Some(posted.author);
            }
        } else if let EventKind::TriggerDecided(decided) = event.kind {
            if decided.message_id == self.why.message_id {
                self.decide(decided);
            }
        } else if let EventKind::RunStarted(started) = event.kind {
            if let Some(run) = self.run(&started.run_id) {
                run.start(started.attempt, event.at);
            }
        } else if let EventKind::RunFinished(finished) = event.kind {
            if let Some(run) = self.run(&finished.run_id) {
                run.finish(finished, event.at);
            }
        } else {
            let text = std::str::from_utf8(&record.body).unwrap_or_default();
            if let Some((_, log)) = self.logs.iter_mut().find(|(run, _)| text.contains(run)) {
                log.take(event);
            }
        }
        Ok(())
    }

    fn decide(&mut self, decided: TriggerDecided) {
        for candidate in decided.candidates {
            self.why.decide(candidate.agent_id, candidate.decision);
        }
        for run in self.why.agents.iter().filter_map(|agent| agent.run.as_ref()) {
            let named = named(&run.run_id);
            if !self.logs.iter().any(|(known, _)| *known == named) {
                self.logs.push((named, ToolLog::default()));
            }
        }
    }

    fn run(&mut self, run_id: &RunId) -> Option<&mut WhyRun> {
        let mut runs = self.why.agents.iter_mut().filter_map(|agent| agent.run.as_mut());
        runs.find(|run| run.run_id == *run_id)
    }

    fn end(mut self) -> Option<Why> {
        let author = match self.author? {
            Author::User(_) => None,
            Author::Agent(id) => Some(id),
        };
        for run in self.why.agents.iter_mut().filter_map(|agent| agent.run.as_mut()) {
            let named = named(&run.run_id);
            let at = self.logs.iter().position(|(known, _)| *known == named);
            if let Some((_, log)) = at.map(|at| self.logs.swap_remove(at)) {
                (run.tools, run.approvals) = (log.tools, log.approvals);
            }
        }
        let agents = self.agents.iter().map(|agent| (&agent.agent_id, agent.name.as_str()));
        self.why.name(agents, author.as_ref());
        Some(self.why)
    }
}

/// How an event looks that names a run.
fn named(run_id: &RunId) -> String {
    format!("\"run_id\":\"{run_id}\"")
}
