//! What the controller is told of the group: newer versions only, within limits.

use convene_group_controller::Input;
use convene_model::{
    Code,
    event::{GroupConfig, TriggerPolicy::Mention},
    limits::{MAX_AGENTS_PER_GROUP, MAX_NAME_CHARS},
};

use crate::harness::{Room, agent, config};

#[test]
fn a_newer_version_is_taken_over_and_others_change_nothing() {
    let mut room = Room::new();
    let out = room.step(Input::Configure(config(5, &[("guide", Mention)]))).accepted();
    assert_eq!(out.kinds(), ["group.configured"]);
    for old in [5, 4, 0] {
        let out = room.step(Input::Configure(config(old, &[]))).accepted();
        assert_eq!(out.0.events, []);
    }
    assert_eq!(room.controller.state().unwrap().config(), &config(5, &[("guide", Mention)]));
    room.step(Input::Configure(config(6, &[]))).accepted();
    assert!(room.controller.state().unwrap().config().agents.is_empty());
}

#[test]
fn a_group_has_at_most_so_many_agents() {
    let agents = |count: usize| -> Vec<_> {
        (0..count).map(|index| agent(&format!("a{index}"), Mention)).collect()
    };
    let with = |count| {
        Input::Configure(GroupConfig {
            version: 1,
            agents: agents(count),
            paused: false,
            ..GroupConfig::default()
        })
    };
    Room::new().step(with(MAX_AGENTS_PER_GROUP + 1)).refused(Code::ValidationFailed);
    Room::new().step(with(MAX_AGENTS_PER_GROUP)).accepted();
}

#[test]
fn an_agents_name_has_one_to_so_many_characters() {
    let named = |name: String| {
        let mut config = config(1, &[("guide", Mention)]);
        config.agents[0].name = name;
        Input::Configure(config)
    };
    for bad in [String::new(), "  ".into(), "ä".repeat(MAX_NAME_CHARS + 1)] {
        Room::new().step(named(bad)).refused(Code::ValidationFailed);
    }
    Room::new().step(named("ä".repeat(MAX_NAME_CHARS))).accepted();
    Room::new().step(named("x".into())).accepted();
}

#[test]
fn no_two_agents_share_an_id_or_a_name_in_any_case() {
    let mut same_name = config(1, &[("guide", Mention), ("scout", Mention)]);
    same_name.agents[0].name = "Guide".into();
    same_name.agents[1].name = "GUIDE".into();
    Room::new().step(Input::Configure(same_name)).refused(Code::ValidationFailed);
    let mut same_id = config(1, &[("guide", Mention), ("guide", Mention)]);
    same_id.agents[1].name = "scout".into();
    Room::new().step(Input::Configure(same_id)).refused(Code::ValidationFailed);
}
