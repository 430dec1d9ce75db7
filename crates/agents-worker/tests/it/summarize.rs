//! `POST /summarize`: the checks of a run with a scope of its own, and what the model is shown.

use axum::body::Body;
use convene_model::{
    Code, RunId,
    agents::{ContextSummary, ResolvedModel, SummarizeRequest, Summarized, SummaryAuthor},
    claims::{SCOPE_INVOKE, SCOPE_SUMMARIZE},
    limits::{MAX_SUMMARY_TEXT_BYTES, SUMMARY_OUTPUT_TOKENS, SUMMARY_TOKENS},
    token,
};
use convene_testing::model_server::{ModelServer, Script};
use http::{Response, StatusCode};
use http_body_util::BodyExt;

use crate::world::{World, agent_author, controllers_key, message, openai, problem, request, user};

fn asked() -> SummarizeRequest {
    let invoke = request("");
    SummarizeRequest {
        group_id: invoke.group_id,
        agent_id: invoke.agent_id,
        run_id: RunId::new("s9-1").unwrap(),
        agents: invoke.agents,
        previous: Some("@[u:u2] had asked for the plan.".into()),
        messages: vec![
            message("m1", user("u1"), "Here it is."),
            message("m2", agent_author("a1"), "Thank you, Ana."),
        ],
        tokens: SUMMARY_TOKENS,
    }
}

/// Sends a request with a token of its own of this scope.
async fn send(world: &World, asked: &SummarizeRequest, scope: &str) -> Response<Body> {
    let body = serde_json::to_vec(asked).unwrap();
    let mut token = world.token(&body);
    token.claims.scope = scope.to_owned();
    token.claims.run_id = RunId::new("s9-1").unwrap();
    let bearer = format!("Bearer {}", token::sign(&controllers_key(), &token));
    world.send_to("/summarize", Some(&bearer), body).await
}

async fn summarized(response: Response<Body>) -> Summarized {
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn the_agents_model_writes_a_summary_of_what_everybody_said() {
    let models = ModelServer::start().await.unwrap();
    let world = World::new(openai(&models.base_url(), "writer"));
    models.next("writer", Script::Say("Ben asked for the plan and Ana gave it.".into()));
    let summary = summarized(send(&world, &asked(), SCOPE_SUMMARIZE).await).await;
    assert_eq!(summary.text, "Ben asked for the plan and Ana gave it.");
    let requests = models.requests();
    let messages = requests[0].messages();
    let [(system, instructions), (user, text)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((system.as_str(), user.as_str()), ("system", "user"));
    assert!(instructions.contains("summary") && !instructions.contains("Be brief."));
    assert!(text.contains("Ben had asked for the plan."), "{text}");
    assert!(text.contains("Ana: Here it is.\nAria: Thank you, Ana."), "{text}");
}

#[tokio::test]
async fn a_token_of_another_scope_neither_summarizes_nor_runs() {
    let world = World::new(ResolvedModel::Demo);
    let refused = problem(send(&world, &asked(), SCOPE_INVOKE).await).await;
    assert_eq!(refused.code, Code::Forbidden);
    let body = serde_json::to_vec(&request("@Aria hi")).unwrap();
    let mut token = world.token(&body);
    token.claims.scope = SCOPE_SUMMARIZE.to_owned();
    let bearer = format!("Bearer {}", token::sign(&controllers_key(), &token));
    assert_eq!(problem(world.send(Some(&bearer), body).await).await.code, Code::Forbidden);
    assert_eq!(world.asked(), 0, "the App was asked");
}

#[tokio::test]
async fn what_cannot_be_summarized_is_a_problem() {
    let world = World::new(ResolvedModel::Demo);
    let nothing = SummarizeRequest { messages: Vec::new(), ..asked() };
    let refused = problem(send(&world, &nothing, SCOPE_SUMMARIZE).await).await;
    assert_eq!(refused.code, Code::ValidationFailed);
    let demo = problem(send(&world, &asked(), SCOPE_SUMMARIZE).await).await;
    assert_eq!(demo.code, Code::ValidationFailed);

    let models = ModelServer::start().await.unwrap();
    let world = World::new(openai(&models.base_url(), "writer"));
    for script in [
        Script::error(500, "broken"),
        Script::Cut(vec!["half".into()]),
        Script::Nothing("stop".into()),
        Script::Say("long ".repeat(MAX_SUMMARY_TEXT_BYTES)),
    ] {
        models.next("writer", script);
        let failed = problem(send(&world, &asked(), SCOPE_SUMMARIZE).await).await;
        assert_eq!(failed.code, Code::Unavailable);
    }
    models.next("writer", Script::Say("long ".repeat(MAX_SUMMARY_TEXT_BYTES / 4)));
    let cut = summarized(send(&world, &asked(), SCOPE_SUMMARIZE).await).await;
    assert!(cut.text.len() <= MAX_SUMMARY_TEXT_BYTES);
}

#[tokio::test]
async fn a_summary_uses_no_more_than_it_has_reserved() {
    let models = ModelServer::start().await.unwrap();
    let world = World::new(openai(&models.base_url(), "writer"));
    models.always("writer", Script::Say("Fine.".into()));
    for (tokens, written) in [(SUMMARY_TOKENS, SUMMARY_OUTPUT_TOKENS), (8_192, 7_000)] {
        summarized(send(&world, &SummarizeRequest { tokens, ..asked() }, SCOPE_SUMMARIZE).await)
            .await;
        let most = models.requests().last().unwrap().body["max_tokens"].as_u64().unwrap();
        assert!((written - 2_000..=written).contains(&most), "{most} of {tokens}");
    }
    let asked_before = models.requests().len();
    for (tokens, bytes) in [(1_000, 0), (u64::MAX, SUMMARY_TOKENS as usize)] {
        let mut asked = SummarizeRequest { tokens, ..asked() };
        asked.messages[0].text.push_str(&"x".repeat(bytes));
        let refused = problem(send(&world, &asked, SCOPE_SUMMARIZE).await).await;
        assert_eq!(refused.extra["usage"]["input_tokens"], 0, "{refused:?}");
    }
    assert_eq!(models.requests().len(), asked_before, "no model was asked");
}

#[tokio::test]
async fn a_run_is_shown_the_summary_before_the_messages_and_what_comes_first_stays_the_same() {
    let models = ModelServer::start().await.unwrap();
    let world = World::new(openai(&models.base_url(), "writer"));
    models.always("writer", Script::Say("Yes.".into()));
    let mut call = request("@Aria and now?");
    call.summary = Some(ContextSummary {
        from_seq: 1,
        to_seq: 9,
        by: SummaryAuthor::Extractive,
        text: "@[u:u2]: the plan\n@[a:a1]: fine".into(),
    });
    world.invoke(&call).await;
    call.messages.push(message("m2", user("u2"), "anything new?"));
    world.invoke(&call).await;
    let requests = models.requests();
    let shown: Vec<_> = requests.iter().map(|request| request.messages()).collect();
    assert_eq!(shown[0][0], shown[1][0], "the frame");
    let (first, second) = (&shown[0][1].1, &shown[1][1].1);
    assert!(
        first.contains("Ben: the plan\n> Aria: fine")
            || first.contains("> Ben: the plan\n> Aria: fine"),
        "{first}"
    );
    assert!(second.starts_with(first.as_str()), "{first}\n---\n{second}");
}
