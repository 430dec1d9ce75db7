//! Takes over what the controller needs to know of the group; an equal or older version is success
//! and changes nothing.

use convene_model::{
    Code,
    event::{EventKind, GroupConfig},
    limits::{COOLDOWN_SETTING_SECS, MAX_AGENTS_PER_GROUP, MAX_NAME_CHARS, MAX_ROUNDS_SETTING},
};

use crate::{
    controller::{Rejected, Turn},
    runs,
};

pub(crate) fn configure(turn: &mut Turn<'_>, config: GroupConfig) -> Result<(), Rejected> {
    let invalid = |detail: String| Err(Rejected::new(Code::ValidationFailed, detail));
    if config.agents.len() > MAX_AGENTS_PER_GROUP {
        return invalid(format!("a group has at most {MAX_AGENTS_PER_GROUP} agents"));
    }
    if config.max_rounds.is_some_and(|rounds| rounds > MAX_ROUNDS_SETTING) {
        return invalid(format!("max_rounds is at most {MAX_ROUNDS_SETTING}"));
    }
    if config.cooldown_secs.is_some_and(|secs| !COOLDOWN_SETTING_SECS.contains(&secs)) {
        let (least, most) = (COOLDOWN_SETTING_SECS.start(), COOLDOWN_SETTING_SECS.end());
        return invalid(format!("cooldown_secs is {least} to {most}"));
    }
    for (index, agent) in config.agents.iter().enumerate() {
        if agent.name.trim().is_empty() || agent.name.chars().count() > MAX_NAME_CHARS {
            return invalid(format!("an agent's name has 1 to {MAX_NAME_CHARS} characters"));
        }
        let others = &config.agents[..index];
        if others.iter().any(|other| other.agent_id == agent.agent_id) {
            return invalid(format!("the agent {} is listed twice", agent.agent_id));
        }
        let name = agent.name.to_lowercase();
        if others.iter().any(|other| other.name.to_lowercase() == name) {
            return invalid(format!("two agents have the name {}", agent.name));
        }
    }
    if config.version > turn.state().config.version {
        turn.emit(EventKind::GroupConfigured(config));
        runs::end_removed(turn);
    }
    Ok(())
}
