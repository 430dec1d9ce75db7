//! What was decided about a message and what came of it, and what runs did with tools.

use convene_model::{
    AgentId, GroupKey, MessageId, RunId,
    event::{Author, EventKind},
    history::{FinishedRun, PastApproval},
    tools::ToolView,
    why::{Why, WhyRun},
};

use crate::{
    rooms::{agent_events, reader::Reader, view::View},
    store::{error::StoreError, types::Explained},
};

/// See `GroupStore::why`.
pub(crate) fn why(
    reader: &Reader,
    key: &GroupKey,
    message_id: &MessageId,
    upto: u64,
) -> Result<Option<Explained>, StoreError> {
    let view = View::new(reader, key, upto)?;
    let Some(seq) = reader.find(key, message_id)?.filter(|seq| *seq <= upto) else {
        return Ok(None);
    };
    let author = view.current(&view.record(seq)?)?.posted.author;
    let mut why = Why::of(message_id.clone());
    for record in view.about(&agent_events::decisions(seq))? {
        if let EventKind::TriggerDecided(decided) = view.decode(&record)?.kind {
            for candidate in decided.candidates {
                why.decide(candidate.agent_id, candidate.decision);
            }
        }
    }
    for run in why.agents.iter_mut().filter_map(|agent| agent.run.as_mut()) {
        view.live_through(run)?;
    }
    let author: Option<AgentId> = match author {
        Author::User(_) => None,
        Author::Agent(id) => Some(id),
    };
    Ok(Some(Explained { why, author }))
}

impl View<'_> {
    /// What became of a run.
    fn live_through(&self, run: &mut WhyRun) -> Result<(), StoreError> {
        for record in self.about(&agent_events::life(&run.run_id))? {
            let event = self.decode(&record)?;
            if let EventKind::RunStarted(started) = event.kind {
                run.start(started.attempt, event.at);
            } else if let EventKind::RunFinished(finished) = event.kind {
                run.finish(finished, event.at);
            }
        }
        (run.tools, run.approvals) = self.tools_of(&run.run_id)?;
        Ok(())
    }

    /// Gives runs that ended what they did with tools.
    pub(crate) fn with_tools(&self, runs: &mut [FinishedRun]) -> Result<(), StoreError> {
        for run in runs {
            (run.tools, run.approvals) = self.tools_of(&run.finished.run_id)?;
        }
        Ok(())
    }

    fn tools_of(&self, run_id: &RunId) -> Result<(Vec<ToolView>, Vec<PastApproval>), StoreError> {
        let mut log = convene_model::history::ToolLog::default();
        for record in self.about(&agent_events::tools(run_id))? {
            log.take(self.decode(&record)?);
        }
        Ok((log.tools, log.approvals))
    }
}
