//! The Orchestrator before the scripted group, as small as the rooms can bear, with real tokens.

use axum::{
    Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use convene_hop::{ApiError, GroupLink, LinkUpgrade, RawRequest, json};
use convene_model::{
    Code, GroupId, MessageId, Problem, UserId,
    claims::{AppClaims, RoutingClaims, service},
    event::GroupConfig,
    frame::{DetachReason, GroupFrame},
    history::{HistoryQuery, SearchRequest},
    infra::{
        ActivateRequest, Activation, GroupStatus, RevokeRequest, RoutingToken, RoutingTokenRequest,
    },
    limits::ROUTING_TOKEN_TTL,
    token::{authorize, verify_routing},
};

use super::group::{FakeGroup, GROUP};
use crate::rooms::html::{event_kind, event_seq};

impl FakeGroup {
    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/infra/groups", post(activate))
            .route("/infra/groups/{id}/config", put(configure))
            .route("/infra/groups/{id}/revoke", post(revoke))
            .route("/infra/routing-token", post(routing_token))
            .route("/groups/{id}/history", get(history))
            .route("/groups/{id}/messages/{message_id}", get(message))
            .route("/groups/{id}/search", post(search))
            .route("/groups/{id}/ws", get(connect))
            .with_state(self.clone())
    }

    pub(super) fn check(&self, request: &RawRequest) -> Result<(), Problem> {
        let (line, now) = (request.line(), self.now());
        let guard = Some(&*self.replay);
        let token =
            authorize::<AppClaims>(&self.app_keys, service::ORCHESTRATOR, line, now, guard)?;
        assert_eq!(token.claims.org_id.unwrap().as_str(), "o1");
        if request.method != http::Method::GET && !request.path.ends_with("/search") {
            assert!(request.header("idempotency-key").is_some(), "a mutation has its key");
        }
        Ok(())
    }

    pub(super) fn check_routing(&self, token: Option<&str>) -> Result<UserId, Problem> {
        let token = token.ok_or(Code::Unauthorized)?;
        let access = verify_routing(&self.own_keys, token, self.now())?;
        let inner = self.inner.lock();
        if access.claims.epoch != inner.epoch {
            return Err(Code::StaleEpoch.into());
        }
        let revoked = inner.revoked.get(&access.claims.user_id).copied();
        if revoked.is_some_and(|at| access.issued_at <= at) {
            return Err(Code::AccessRevoked.into());
        }
        Ok(access.claims.user_id)
    }
}

type Answer = Result<Response, ApiError>;

async fn activate(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let body: ActivateRequest = json(&request.body)?;
    let mut inner = group.inner.lock();
    inner.counts.activations += 1;
    if let Some(code) = inner.refuse_activation {
        return Err(code.into());
    }
    inner.activated = true;
    inner.epoch_is_unheard = false;
    Ok(axum::Json(Activation {
        group_controller_id: body.group_id.controller_id(),
        group_id: body.group_id,
        status: GroupStatus::Active,
        history_mode: body.history_mode,
        epoch: inner.epoch,
    })
    .into_response())
}

async fn configure(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let config: GroupConfig = json(&request.body)?;
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    if let Some(code) = inner.refuse_configurations {
        return Err(code.into());
    }
    inner.counts.configurations += 1;
    inner.config = Some(config);
    drop(inner);
    group.touch();
    Ok(axum::Json(serde_json::json!({})).into_response())
}

async fn revoke(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let RevokeRequest { user_id } = json(&request.body)?;
    let now = group.now();
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    inner.counts.revocations += 1;
    inner.revoked.insert(user_id.clone(), now);
    inner.conns.retain(|_, owner| *owner != user_id);
    let reason = DetachReason::Revoked;
    inner.broadcast(&GroupFrame::Detached { reason, user_id: Some(user_id) }.encode());
    drop(inner);
    group.touch();
    Ok(axum::Json(serde_json::json!({})).into_response())
}

async fn routing_token(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    let RoutingTokenRequest { group_id, user_id, role } = json(&request.body)?;
    let mut inner = group.inner.lock();
    if !inner.activated {
        return Err(Code::GroupNotFound.into());
    }
    inner.counts.tokens += 1;
    inner.roles.insert(role.as_str().to_owned());
    let epoch = inner.epoch;
    drop(inner);
    group.touch();
    let org_id = convene_model::OrgId::new("o1").unwrap();
    let claims = RoutingClaims { user_id, org_id, group_id, role, epoch };
    let routing_token = group.signer.mint(service::CONTROLLERS, claims);
    let expires_at = group.now() + ROUTING_TOKEN_TTL;
    Ok(axum::Json(RoutingToken { routing_token, expires_at }).into_response())
}

async fn history(
    State(group): State<FakeGroup>,
    Query(query): Query<HistoryQuery>,
    request: RawRequest,
) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    let mut inner = group.inner.lock();
    if inner.epoch_is_unheard {
        return Err(Code::StaleEpoch.into());
    }
    inner.history_reads += 1;
    let before = query.before.unwrap_or(u64::MAX);
    let messages: Vec<&str> = inner
        .events
        .iter()
        .filter(|event| event_kind(event) == Some(b"message.posted"))
        .filter(|event| event_seq(event).unwrap() < before)
        .map(|event| std::str::from_utf8(event).unwrap())
        .collect();
    let first = messages.len().saturating_sub(query.page_size().unwrap());
    let page = format!(
        r#"{{"messages":[{}],"runs":[],"more_before":{},"head":{},"history":"h1"}}"#,
        messages[first..].join(","),
        first > 0,
        inner.events.len(),
    );
    drop(inner);
    group.touch();
    Ok(page.into_response())
}

async fn message(
    State(group): State<FakeGroup>,
    Path((_, id)): Path<(GroupId, MessageId)>,
    request: RawRequest,
) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    let seq = group.inner.lock().message_ids.get(&id).copied().ok_or(Code::MessageNotFound)?;
    let message = format!(r#"{{"seq":{seq},"message_id":"{id}","text":"now"}}"#);
    let revisions = r#"[{"seq":1,"at":1,"text":"before"}]"#;
    Ok(format!(r#"{{"message":{message},"revisions":{revisions}}}"#).into_response())
}

async fn search(State(group): State<FakeGroup>, request: RawRequest) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    let asked: SearchRequest = json(&request.body)?;
    let text = serde_json::to_string(&asked.query).unwrap();
    let hit = format!(
        r#"{{"message":{{"seq":1,"text":{text}}},"snippet":[{{"text":{text},"hit":true}}]}}"#
    );
    Ok(format!(r#"{{"hits":[{hit}],"more":false}}"#).into_response())
}

async fn connect(
    State(group): State<FakeGroup>,
    Path(id): Path<GroupId>,
    upgrade: LinkUpgrade,
    request: RawRequest,
) -> Answer {
    group.check(&request)?;
    group.check_routing(request.header("x-routing-token"))?;
    assert_eq!(id.as_str(), GROUP);
    let refusal = {
        let mut inner = group.inner.lock();
        inner.counts.connects += 1;
        inner.refuse_connect.clone()
    };
    if let Some(problem) = refusal {
        group.touch();
        return Err(ApiError(problem));
    }
    let (theirs, ours) = GroupLink::pair();
    group.link(ours);
    Ok(upgrade.accept(theirs))
}
