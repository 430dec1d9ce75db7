//! Resolution: what the App is asked, how often, and what its faults become.

use std::time::Duration;

use convene_agents_worker::{Limits, RESOLVE_TTL};
use convene_model::{
    AgentId, Code, OrgId, Problem, RunId,
    agents::{ResolvedModel, failure},
};
use convene_testing::model_server::{ModelServer, Script};

use crate::world::{Answer, World, agent, openai};

#[tokio::test]
async fn the_app_is_asked_with_the_runs_own_token() {
    let world = World::new(ResolvedModel::Demo);
    world.say("@Aria hello").await.usage();
    let asked = world.app.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].claims.org_id, OrgId::new("o1").unwrap());
    assert_eq!(asked[0].claims.run_id, RunId::new("r1").unwrap());
}

#[tokio::test]
async fn each_run_asks_whether_what_is_known_still_holds() {
    let world = World::new(ResolvedModel::Demo);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.questions(), (1, 0));
    world.advance(RESOLVE_TTL.as_secs() - 1);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.questions(), (2, 1));
    world.advance(1);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.questions(), (3, 1), "it is not kept for longer");
}

#[tokio::test]
async fn a_change_holds_for_the_next_run() {
    let server = ModelServer::start().await.unwrap();
    server.always("m", Script::Say("Yes.".to_owned()));
    let world = World::new(openai(&server.base_url(), "m"));
    for version in 1..=20 {
        let prompt = format!("You are number {version}.");
        world.change(|agent| agent.system_prompt.clone_from(&prompt));
        for _ in 0..2 {
            world.say("hi").await.usage();
            let sent = server.requests().pop().unwrap();
            assert!(sent.messages()[0].1.starts_with(&prompt), "{}", sent.messages()[0].1);
        }
    }
    assert_eq!(world.questions(), (40, 20));
}

#[tokio::test]
async fn what_is_known_is_used_by_no_run_that_the_app_did_not_confirm_it_for() {
    let limits = Limits { resolve_timeout: Duration::from_millis(20), ..Limits::default() };
    let world = World::with(ResolvedModel::Demo, limits);
    let known = Answer::Agent(agent(ResolvedModel::Demo));
    for answer in [
        Answer::Unavailable,
        Answer::Never,
        Answer::Garbage,
        Answer::Refuse(Problem::new(Code::Forbidden)),
    ] {
        *world.app.answer.lock().unwrap() = known.clone();
        world.say("@Aria hello").await.usage();
        *world.app.answer.lock().unwrap() = answer;
        assert_eq!(world.say("@Aria hello").await.failure().0, failure::RESOLVE_FAILED);
    }
}

#[tokio::test]
async fn an_app_that_is_away_for_a_moment_ends_no_run() {
    let world = World::new(ResolvedModel::Demo);
    let unavailable = Problem::new(Code::Unavailable);
    world.app.failing.lock().unwrap().extend([Answer::Unavailable, Answer::Refuse(unavailable)]);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn an_app_that_stands_still_leaves_time_for_another_one() {
    let limits = Limits {
        resolve_timeout: Duration::from_millis(400),
        demo_pace: Duration::ZERO,
        ..Limits::default()
    };
    let world = World::with(ResolvedModel::Demo, limits);
    world.app.failing.lock().unwrap().push_back(Answer::Never);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn an_app_that_cannot_resolve_ends_the_run_in_one_sentence() {
    let mut other = agent(ResolvedModel::Demo);
    other.agent_id = AgentId::new("a2").unwrap();
    let limits = Limits { resolve_timeout: Duration::from_millis(50), ..Limits::default() };
    for (answer, detail) in [
        (Answer::Unavailable, "the App cannot be reached."),
        (Answer::Refuse(Problem::new(Code::Forbidden).detail("x")), "You may not do this."),
        (Answer::Garbage, "the App's answer is not of the documented form."),
        (Answer::Unchanged, "the App's answer is not of the documented form."),
        (Answer::Agent(other), "the App answered for another agent."),
    ] {
        let world = World::with(ResolvedModel::Demo, limits);
        *world.app.answer.lock().unwrap() = answer;
        let reply = world.say("@Aria hello").await;
        assert_eq!(
            reply.failure(),
            (
                failure::RESOLVE_FAILED.to_owned(),
                format!("The agent's configuration could not be read: {detail}"),
                None
            )
        );
        assert!(reply.deltas().is_empty());
        // Nothing of it is kept.
        *world.app.answer.lock().unwrap() = Answer::Agent(agent(ResolvedModel::Demo));
        world.say("@Aria hello").await.usage();
    }
}

#[tokio::test]
async fn an_app_that_does_not_answer_ends_the_run_too() {
    let limits = Limits { resolve_timeout: Duration::from_millis(20), ..Limits::default() };
    let world = World::with(ResolvedModel::Demo, limits);
    *world.app.answer.lock().unwrap() = Answer::Never;
    let (code, detail, _) = world.say("@Aria hello").await.failure();
    assert_eq!(code, failure::RESOLVE_FAILED);
    assert!(detail.ends_with("the App did not answer in time."), "{detail}");
}
