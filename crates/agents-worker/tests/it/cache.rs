//! Resolution: what the App is asked, how often, and what its faults become.

use std::time::Duration;

use convene_agents_worker::{Limits, RESOLVE_TTL};
use convene_model::{
    AgentId, Code, OrgId, Problem, RunId, UserId,
    agents::{ResolvedModel, failure},
};
use convene_testing::model_server::{ModelServer, Script};

use crate::world::{Answer, World, agent, openai, request};

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
async fn a_resolved_agent_is_used_again_until_its_time_is_over() {
    let world = World::new(ResolvedModel::Demo);
    world.say("@Aria hello").await.usage();
    world.advance(RESOLVE_TTL.as_secs() - 1);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.asked(), 1);
    world.advance(1);
    world.say("@Aria hello").await.usage();
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn a_newcomer_or_a_new_name_is_asked_for_at_once() {
    let world = World::new(ResolvedModel::Demo);
    world.say("@Aria hello").await.usage();
    let mut newcomer = agent(ResolvedModel::Demo);
    newcomer.people.insert(UserId::new("u3").unwrap(), "Cid".into());
    newcomer.version = 2;
    *world.app.answer.lock().unwrap() = Answer::Agent(newcomer);
    let mut call = request("@Aria hello");
    call.messages[0].author = crate::world::user("u3");
    let reply = world.invoke(&call).await;
    assert!(reply.text().starts_with("Hello Cid!"), "{}", reply.text());
    assert_eq!(world.asked(), 2);
    call.agents.insert(AgentId::new("a1").unwrap(), "Renamed".into());
    world.invoke(&call).await.usage();
    assert_eq!(world.asked(), 3);
}

#[tokio::test]
async fn an_agent_whose_key_was_refused_is_resolved_anew() {
    let server = ModelServer::start().await.unwrap();
    server.next("m", Script::error(401, "Incorrect API key"));
    let world = World::new(openai(&server.base_url(), "m"));
    assert_eq!(world.say("hi").await.failure().0, failure::PROVIDER_UNAUTHORIZED);
    world.say("hi").await.usage();
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn an_app_that_cannot_resolve_ends_the_run_in_one_sentence() {
    let mut other = agent(ResolvedModel::Demo);
    other.agent_id = AgentId::new("a2").unwrap();
    for (answer, detail) in [
        (Answer::Unavailable, "the App cannot be reached."),
        (Answer::Refuse(Problem::new(Code::Forbidden).detail("x")), "You may not do this."),
        (Answer::Garbage, "the App's answer is not of the documented form."),
        (Answer::Agent(other), "the App answered for another agent."),
    ] {
        let world = World::new(ResolvedModel::Demo);
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
