//! Why agents answered a message, or did not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AgentId, MessageId, RunId, Timestamp,
    agents::Usage,
    event::{Decision, RunFinished, RunStatus, SuppressReason, WakeReason},
    history::PastApproval,
    tools::ToolView,
};

/// `GET /groups/{id}/messages/{message_id}/why`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The message.
    pub message_id: MessageId,
    /// Each agent that came into question, and those of the group now that did not.
    pub agents: Vec<WhyAgent>,
}

/// What was decided about one agent and one message, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhyAgent {
    /// Which agent.
    pub agent_id: AgentId,
    /// Its name; its id when it is no longer in the group.
    pub name: String,
    /// What was decided.
    pub outcome: Outcome,
    /// Why; absent for an agent that did not come into question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The last run that the decision led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<WhyRun>,
}

/// What was decided about an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was woken.
    Accepted,
    /// It was not, although it came into question.
    Suppressed,
    /// Nothing brought it into question.
    NotMentioned,
}

/// Why an agent was woken, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Reason {
    /// Why it was woken.
    Woken(WakeReason),
    /// Why it was not.
    Suppressed(SuppressReason),
}

/// A run, whether it has ended or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhyRun {
    /// Which run.
    pub run_id: RunId,
    /// What has become of it.
    pub status: WhyStatus,
    /// The last attempt; 0 when none was begun.
    pub attempt: u32,
    /// A stable code, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// One sentence for people, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What it used, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The message with its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<MessageId>,
    /// When its first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The calls of tools that it made or wanted to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolView>,
    /// What it asked permission for, and what became of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<PastApproval>,
}

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyStatus {
    /// It waits for its turn.
    Queued,
    /// It is under way, or waits for permission.
    Running,
    /// The agent replied.
    Completed,
    /// Something failed.
    Failed,
    /// A person stopped it, or what it answers was taken back.
    Cancelled,
    /// It was cut off after it had begun to answer.
    Interrupted,
}

impl From<RunStatus> for WhyStatus {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Completed => Self::Completed,
            RunStatus::Failed => Self::Failed,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::Interrupted => Self::Interrupted,
        }
    }
}

impl Why {
    /// Nothing decided yet.
    #[must_use]
    pub fn of(message_id: MessageId) -> Self {
        Self { message_id, agents: Vec::new() }
    }

    /// Takes the next decision about the message in; a later one about the same agent takes the
    /// place of an earlier one, unless it kept a run from being made that there is.
    pub fn decide(&mut self, agent_id: AgentId, decision: Decision) {
        let (outcome, reason, run) = match decision {
            Decision::Accepted { reason, run_id } => {
                (Outcome::Accepted, Reason::Woken(reason), Some(WhyRun::queued(run_id)))
            }
            Decision::Suppressed { reason } => {
                (Outcome::Suppressed, Reason::Suppressed(reason), None)
            }
        };
        let name = agent_id.to_string();
        let agent = WhyAgent { agent_id, name, outcome, reason: Some(reason), run };
        match self.agents.iter_mut().find(|known| known.agent_id == agent.agent_id) {
            Some(known) if known.run.is_some() && agent.run.is_none() => {}
            Some(known) => *known = agent,
            None => self.agents.push(agent),
        }
    }

    /// Names the agents of the group as it is now, and adds those that did not come into question;
    /// `author` is the agent that wrote the message, which none asks about.
    pub fn name<'a>(
        &mut self,
        agents: impl IntoIterator<Item = (&'a AgentId, &'a str)>,
        author: Option<&AgentId>,
    ) {
        for (agent_id, name) in agents {
            match self.agents.iter_mut().find(|known| known.agent_id == *agent_id) {
                Some(known) => name.clone_into(&mut known.name),
                None if author == Some(agent_id) => {}
                None => self.agents.push(WhyAgent {
                    agent_id: agent_id.clone(),
                    name: name.to_owned(),
                    outcome: Outcome::NotMentioned,
                    reason: None,
                    run: None,
                }),
            }
        }
    }
}

impl WhyRun {
    /// A run of which nothing is known but that it was made.
    #[must_use]
    pub fn queued(run_id: RunId) -> Self {
        Self {
            run_id,
            status: WhyStatus::Queued,
            attempt: 0,
            code: None,
            detail: None,
            usage: None,
            reply: None,
            started_at: None,
            finished_at: None,
            tools: Vec::new(),
            approvals: Vec::new(),
        }
    }

    /// Takes the beginning of an attempt in.
    pub fn start(&mut self, attempt: u32, at: Timestamp) {
        self.status = WhyStatus::Running;
        self.attempt = attempt;
        self.started_at.get_or_insert(at);
    }

    /// Takes its end in.
    pub fn finish(&mut self, finished: RunFinished, at: Timestamp) {
        self.status = finished.status.into();
        self.attempt = finished.attempt;
        self.code = finished.code;
        self.detail = finished.detail;
        self.usage = finished.usage;
        self.reply = finished.message_id;
        self.finished_at = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(id: &str) -> AgentId {
        AgentId::new(id).unwrap()
    }

    fn accepted(reason: WakeReason, run: &str) -> Decision {
        Decision::Accepted { reason, run_id: RunId::new(run).unwrap() }
    }

    #[test]
    fn a_later_decision_takes_the_place_of_an_earlier_one_but_never_of_a_run() {
        let mut why = Why::of(MessageId::new("m1").unwrap());
        why.decide(agent("a"), Decision::Suppressed { reason: SuppressReason::MaxRounds });
        why.decide(agent("a"), accepted(WakeReason::Continue, "r1"));
        why.decide(agent("a"), Decision::Suppressed { reason: SuppressReason::Paused });
        let [only] = &why.agents[..] else { panic!("{why:?}") };
        assert_eq!(only.outcome, Outcome::Accepted);
        assert_eq!(only.reason, Some(Reason::Woken(WakeReason::Continue)));
        why.decide(agent("a"), accepted(WakeReason::Retry, "r2"));
        let run = why.agents[0].run.as_ref().unwrap();
        assert_eq!(run.run_id.as_str(), "r2");
    }

    #[test]
    fn agents_that_did_not_come_into_question_are_named_but_for_the_author() {
        let mut why = Why::of(MessageId::new("m1").unwrap());
        why.decide(agent("a"), accepted(WakeReason::Mention, "r1"));
        why.decide(agent("gone"), Decision::Suppressed { reason: SuppressReason::Policy });
        let (a, b, c) = (agent("a"), agent("b"), agent("c"));
        why.name([(&a, "Ada"), (&b, "Ben"), (&c, "Cleo")], Some(&c));
        let named: Vec<_> =
            why.agents.iter().map(|agent| (agent.name.as_str(), agent.outcome)).collect();
        assert_eq!(
            named,
            [
                ("Ada", Outcome::Accepted),
                ("gone", Outcome::Suppressed),
                ("Ben", Outcome::NotMentioned),
            ]
        );
    }

    #[test]
    fn reasons_are_single_words() {
        let woken = serde_json::to_value(Reason::Woken(WakeReason::Mention)).unwrap();
        assert_eq!(woken, "mention");
        let back: Reason = serde_json::from_value("cooldown".into()).unwrap();
        assert_eq!(back, Reason::Suppressed(SuppressReason::Cooldown));
    }
}
