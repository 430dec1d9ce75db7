//! Whom a message mentions that does not say so itself.

use convene_model::{ParticipantId, event::GroupAgent, limits::MAX_MENTIONS, mention};

/// Whom a message mentions that does not say so itself; at most [`MAX_MENTIONS`].
pub(crate) fn participants(text: &str, agents: &[GroupAgent]) -> Vec<ParticipantId> {
    mentioned(text, agents)
        .into_iter()
        .filter_map(|agent| ParticipantId::new(&agent.agent_id).ok())
        .take(MAX_MENTIONS)
        .collect()
}

fn mentioned<'a>(text: &str, agents: &'a [GroupAgent]) -> Vec<&'a GroupAgent> {
    let names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
    mention::named(text, &names).into_iter().map(|index| &agents[index]).collect()
}

#[cfg(test)]
mod tests {
    use convene_model::{AgentId, event::TriggerPolicy};

    use super::*;

    #[test]
    fn agents_are_mentioned_by_name_in_their_order() {
        let agents: Vec<_> = ["Guide", "Critic", "Two"]
            .iter()
            .enumerate()
            .map(|(index, name)| GroupAgent {
                agent_id: AgentId::new(format!("a{index}")).expect("an id"),
                name: (*name).to_owned(),
                trigger: TriggerPolicy::Mention,
                outside: false,
            })
            .collect();
        let ids: Vec<_> = participants("@two, and you, @guide!", &agents);
        assert_eq!(ids, ["a0", "a2"].map(|id| ParticipantId::new(id).expect("an id")));
        assert!(participants("nobody", &agents).is_empty());
    }
}
