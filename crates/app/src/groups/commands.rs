//! `POST /api/groups/{group_id}/messages`, what is done to a message, to a run and to an approval:
//! each call is a command to the group's controller, which decides whether the caller may.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use convene_hop::ApiJson;
use convene_model::{
    AgentId, ApprovalId, Code, GroupId, MessageId, ParticipantId, Problem, RunId,
    event::ApprovalDecision,
    limits::{MAX_EMOJI_BYTES, MAX_MENTIONS, MAX_TEXT_BYTES},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::store;
use crate::{
    identity::caller::Caller,
    rooms::{Carried, GroupCommand, PostRequest},
    state::{AppState, fresh_id},
    validate::invalid,
    web::{extract::Ids, failure::Answer},
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessage {
    /// Makes the post idempotent; chosen here when it is absent.
    #[serde(default)]
    message_id: Option<MessageId>,
    text: String,
    #[serde(default)]
    mentions: Option<Vec<ParticipantId>>,
    #[serde(default)]
    reply_to: Option<MessageId>,
}

pub(super) async fn post(
    State(state): State<AppState>,
    caller: Caller,
    Ids(group): Ids<GroupId>,
    ApiJson(body): ApiJson<NewMessage>,
) -> Answer<Response> {
    let NewMessage { message_id, text, mentions, reply_to } = body;
    if mentions.as_ref().is_some_and(|mentions| mentions.len() > MAX_MENTIONS) {
        let sentence = format!("A message mentions at most {MAX_MENTIONS}.");
        return Err(invalid("mentions", sentence).into());
    }
    check_text(&text)?;
    let message_id = match message_id {
        Some(id) => id,
        None => MessageId::new(fresh_id(state.now())).map_err(|_| Problem::new(Code::Internal))?,
    };
    let post = GroupCommand::Post(PostRequest { message_id, text, mentions, reply_to });
    let posted = command(&state, &caller, &group, post).await?;
    Ok((StatusCode::CREATED, posted).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewText {
    text: String,
}

pub(super) async fn edit(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id)): Ids<(GroupId, MessageId)>,
    ApiJson(NewText { text }): ApiJson<NewText>,
) -> Answer<Json<Carried>> {
    check_text(&text)?;
    command(&state, &caller, &group, GroupCommand::Edit { message_id, text }).await
}

pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id)): Ids<(GroupId, MessageId)>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Delete { message_id }).await
}

type ReactionPath = Ids<(GroupId, MessageId, String)>;

pub(super) async fn add_reaction(
    state: State<AppState>,
    caller: Caller,
    path: ReactionPath,
) -> Answer<Json<Carried>> {
    react(state, caller, path, true).await
}

pub(super) async fn remove_reaction(
    state: State<AppState>,
    caller: Caller,
    path: ReactionPath,
) -> Answer<Json<Carried>> {
    react(state, caller, path, false).await
}

async fn react(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id, emoji)): ReactionPath,
    on: bool,
) -> Answer<Json<Carried>> {
    if emoji.len() > MAX_EMOJI_BYTES {
        let sentence = format!("A reaction is one emoji of at most {MAX_EMOJI_BYTES} bytes.");
        return Err(invalid("emoji", sentence).into());
    }
    command(&state, &caller, &group, GroupCommand::React { message_id, emoji, on }).await
}

pub(super) async fn pin(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id)): Ids<(GroupId, MessageId)>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Pin { message_id, on: true }).await
}

pub(super) async fn unpin(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id)): Ids<(GroupId, MessageId)>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Pin { message_id, on: false }).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decide {
    decision: ApprovalDecision,
}

pub(super) async fn approve(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, approval_id)): Ids<(GroupId, ApprovalId)>,
    ApiJson(Decide { decision }): ApiJson<Decide>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Approve { approval_id, decision }).await
}

pub(super) async fn cancel_run(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, run_id)): Ids<(GroupId, RunId)>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Cancel { run_id }).await
}

pub(super) async fn retry_run(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, run_id)): Ids<(GroupId, RunId)>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Retry { run_id }).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LetContinue {
    agent_id: AgentId,
}

pub(super) async fn let_continue(
    State(state): State<AppState>,
    caller: Caller,
    Ids((group, message_id)): Ids<(GroupId, MessageId)>,
    ApiJson(LetContinue { agent_id }): ApiJson<LetContinue>,
) -> Answer<Json<Carried>> {
    command(&state, &caller, &group, GroupCommand::Continue { message_id, agent_id }).await
}

async fn command(
    state: &AppState,
    caller: &Caller,
    group: &GroupId,
    command: GroupCommand,
) -> Answer<Json<Carried>> {
    let group = store::enter(state, group, caller).await?;
    Ok(Json(state.rooms.command(group.id().clone(), caller.id().clone(), command).await?))
}

fn check_text(text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > MAX_TEXT_BYTES {
        return Err(invalid("text", format!("A message has 1 to {MAX_TEXT_BYTES} bytes.")));
    }
    Ok(())
}
