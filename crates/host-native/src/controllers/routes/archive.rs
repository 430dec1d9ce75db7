//! The calls by which a group is frozen, exported, thawed, wiped and imported.

use axum::{
    Json, Router,
    extract::{Path, RawQuery, Request, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use convene_hop::{ApiError, RawRequest, json, query};
use convene_model::{
    Code, GroupId, ImportId, Problem,
    archive::{
        BeginImport, DeleteQuery, ExportQuery, FreezeRequest, Frozen, ImportProgress, ImportQuery,
        NEXT_HEADER, ThawRequest, WipeRequest,
    },
    claims::OrchestratorClaims,
    infra::Initialized,
    limits::{MAX_ARCHIVE_LINE_BYTES, MAX_IMPORT_BYTES},
};
use http::StatusCode;

use super::{Controllers, authorize};

pub(super) fn routes() -> Router<Controllers> {
    Router::new()
        .route("/groups/{id}", delete(purge))
        .route("/groups/{id}/freeze", post(freeze))
        .route("/groups/{id}/export", get(export))
        .route("/groups/{id}/thaw", post(thaw))
        .route("/groups/{id}/wipe", post(wipe))
        .route("/groups/{id}/import", post(begin_import))
        .route("/groups/{id}/import/{import_id}", put(import))
        .route("/groups/{id}/import/{import_id}/finish", post(finish_import))
}

async fn freeze(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<Json<Frozen>, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let body: FreezeRequest = json(&request.body)?;
    let group_id = of_epoch(claims, body.epoch)?;
    Ok(Json(controllers.freeze(&group_id, body).await?))
}

async fn export(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let query: ExportQuery = query(raw.as_deref())?;
    let group_id = of_epoch(claims, query.epoch)?;
    let part = controllers.export(&group_id, query).await?;
    let ndjson = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok(match part.next {
        None => (ndjson, part.lines).into_response(),
        Some(next) => (ndjson, [(NEXT_HEADER, next.to_string())], part.lines).into_response(),
    })
}

async fn thaw(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let body: ThawRequest = json(&request.body)?;
    let group_id = of_epoch(claims, body.epoch)?;
    controllers.thaw(&group_id, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn wipe(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let body: WipeRequest = json(&request.body)?;
    let group_id = of_epoch(claims, body.epoch)?;
    controllers.wipe(&group_id, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn purge(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    request: RawRequest,
) -> Result<StatusCode, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let query: DeleteQuery = query(raw.as_deref())?;
    let group_id = of_epoch(claims, query.epoch)?;
    controllers.delete(&group_id, query.epoch).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn begin_import(
    State(controllers): State<Controllers>,
    Path(id): Path<String>,
    request: RawRequest,
) -> Result<Json<ImportProgress>, ApiError> {
    let claims = authorize(&controllers, &id, &request)?;
    let body: BeginImport = json(&request.body)?;
    let group_id = of_epoch(claims, body.epoch)?;
    Ok(Json(controllers.begin_import(&group_id, body).await?))
}

async fn import(
    State(controllers): State<Controllers>,
    Path((id, import_id)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<ImportProgress>, ApiError> {
    let request = RawRequest::read(request, MAX_IMPORT_BYTES).await?;
    let claims = authorize(&controllers, &id, &request)?;
    let query: ImportQuery = query(raw.as_deref())?;
    let import_id = parse_import_id(&import_id)?;
    let progress = controllers
        .import(&claims.group_id, import_id, claims.epoch, query.from, request.body)
        .await?;
    Ok(Json(progress))
}

async fn finish_import(
    State(controllers): State<Controllers>,
    Path((id, import_id)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Initialized>, ApiError> {
    let request = RawRequest::read(request, MAX_ARCHIVE_LINE_BYTES).await?;
    let claims = authorize(&controllers, &id, &request)?;
    let import_id = parse_import_id(&import_id)?;
    let head =
        controllers.finish_import(&claims.group_id, import_id, claims.epoch, &request.body).await?;
    Ok(Json(Initialized { epoch: head.epoch, head: head.seq, history: head.history }))
}

fn parse_import_id(text: &str) -> Result<ImportId, Problem> {
    ImportId::new(text)
        .map_err(|error| Problem::new(Code::InvalidRequest).detail(error.to_string()))
}

/// The group of a service token that is of the epoch which the call names.
fn of_epoch(claims: OrchestratorClaims, epoch: u64) -> Result<GroupId, ApiError> {
    if claims.epoch != epoch {
        return Err(Problem::new(Code::StaleEpoch).into());
    }
    Ok(claims.group_id)
}
