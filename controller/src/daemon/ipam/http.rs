//! The socket's paths below `/v1/ipam`.

use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::Ask;
use crate::api::ipam::{IpamCheckJson, IpamCheckRequest, IpamFreedJson, IpamJson, IpamReleaseRequest};
use crate::daemon::socket::{Refusal, Serving, exchange};

/// How long an answer may take: a command of the plugin's at work on an entry is waited for.
const PATIENCE: Duration = Duration::from_secs(50);

/// `GET /v1/ipam`, `POST /v1/ipam/check`, `POST /v1/ipam/release`.
pub(in super::super) fn routes() -> Router<Serving> {
    Router::new()
        .route("/v1/ipam", get(show))
        .route("/v1/ipam/check", post(check))
        .route("/v1/ipam/release", post(release))
}

async fn show(State(serving): State<Serving>) -> Result<Json<IpamJson>, Refusal> {
    exchange(&serving.ipam, PATIENCE, Ask::Show).await?.map(Json)
}

async fn check(
    State(serving): State<Serving>,
    request: Result<Json<IpamCheckRequest>, JsonRejection>,
) -> Result<Json<IpamCheckJson>, Refusal> {
    let Json(IpamCheckRequest { grace_ms }) = request?;
    let grace = grace_ms.map(Duration::from_millis);
    exchange(&serving.ipam, PATIENCE, |reply| Ask::Check(grace, reply)).await?.map(Json)
}

async fn release(
    State(serving): State<Serving>,
    request: Result<Json<IpamReleaseRequest>, JsonRejection>,
) -> Result<Json<IpamFreedJson>, Refusal> {
    let Json(request) = request?;
    exchange(&serving.ipam, PATIENCE, |reply| Ask::Release(request, reply)).await?.map(Json)
}
