//! A conversation as a model is to see it: names in place of ids, and who said what.
//!
//! Pure. Names are made distinguishable here, since two people may have the same one.

use std::collections::BTreeMap;

use convene_model::{
    agents::{InvokeRequest, ResolvedAgent},
    event::Author,
};

/// Whose words a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The agent that is to answer.
    Me,
    /// A person.
    Person(String),
    /// Another agent.
    Agent(String),
}

impl Speaker {
    /// The name, of anyone but the agent itself.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Me => None,
            Self::Person(name) | Self::Agent(name) => Some(name),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) speaker: Speaker,
    pub(crate) text: String,
}

/// What a provider is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// The agent's own name.
    pub(crate) me: String,
    /// The agent's system prompt.
    pub(crate) instructions: String,
    /// The people of the group, by name.
    pub(crate) people: Vec<String>,
    /// The other agents of the group, by name.
    pub(crate) agents: Vec<String>,
    /// The messages, oldest first, without empty ones.
    pub(crate) lines: Vec<Line>,
    /// Which of them is to be answered.
    pub(crate) trigger: usize,
}

/// What people and agents are called that are no longer in the group.
const GONE_PERSON: &str = "A former member";
const GONE_AGENT: &str = "A former agent";

impl Conversation {
    /// The conversation of a call whose trigger is among its messages.
    pub(crate) fn new(agent: &ResolvedAgent, request: &InvokeRequest) -> Self {
        let me = one_line(&agent.name);
        let mut names = Names::default();
        names.take(&me, "");
        let people: BTreeMap<_, _> = agent
            .people
            .iter()
            .map(|(id, name)| (id, names.take(&one_line(name), id.as_str())))
            .collect();
        let agents: BTreeMap<_, _> = request
            .agents
            .iter()
            .filter(|(id, _)| **id != agent.agent_id)
            .map(|(id, name)| (id, names.take(&one_line(name), id.as_str())))
            .collect();

        let mut lines = Vec::with_capacity(request.messages.len());
        let mut trigger = 0;
        for message in &request.messages {
            let triggers = message.message_id == request.trigger;
            if message.text.trim().is_empty() && !triggers {
                continue;
            }
            let speaker = match &message.author {
                Author::User(id) => Speaker::Person(
                    people.get(id).cloned().unwrap_or_else(|| GONE_PERSON.to_owned()),
                ),
                Author::Agent(id) if *id == agent.agent_id => Speaker::Me,
                Author::Agent(id) => {
                    Speaker::Agent(agents.get(id).cloned().unwrap_or_else(|| GONE_AGENT.to_owned()))
                }
            };
            if triggers {
                trigger = lines.len();
            }
            lines.push(Line { speaker, text: message.text.clone() });
        }
        Self {
            me,
            instructions: agent.system_prompt.trim().to_owned(),
            people: people.into_values().collect(),
            agents: agents.into_values().collect(),
            lines,
            trigger,
        }
    }

    /// The message to be answered.
    pub(crate) fn question(&self) -> Option<&Line> {
        self.lines.get(self.trigger)
    }
}

/// Names that are given out, in lower case.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// The name, with the id behind it when the name is taken.
    fn take(&mut self, name: &str, id: &str) -> String {
        let taken = self.0.contains(&name.to_lowercase());
        let name = if taken { format!("{name} ({id})") } else { name.to_owned() };
        self.0.push(name.to_lowercase());
        name
    }
}

/// A name that cannot begin a new line of the prompt.
fn one_line(name: &str) -> String {
    let printable: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}
