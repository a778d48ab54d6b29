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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::daemon::events::Events;

    /// Posts `body` before a keeper that refuses whatever it is asked to release; gives the answer's status code, and what
    /// the keeper was asked.
    async fn post_release(body: &str) -> (u16, Option<IpamReleaseRequest>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let (asks, _asked) = mpsc::channel(1);
        let (ipam, mut ipam_asked) = mpsc::channel(1);
        let serving = Serving { asks, events: Events::default(), ipam };
        let server = tokio::spawn(axum::serve(listener, routes().with_state(serving)).into_future());
        let keeper = tokio::spawn(async move {
            let Some(Ask::Release(request, reply)) = ipam_asked.recv().await else { return None };
            drop(reply.send(Err(Refusal::Refused("in use".into()))));
            Some(request)
        });
        let mut stream = UnixStream::connect(dir.path().join("sock")).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST /v1/ipam/release HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        // The keeper ends with the last who can ask it.
        drop(stream);
        server.abort();
        let asked = keeper.await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), asked)
    }

    #[tokio::test]
    async fn a_release_reaches_the_keeper_as_it_was_meant_and_a_refusal_is_a_conflict() {
        let wanted = IpamReleaseRequest { address: [10, 0, 0, 1].into(), force: false };
        assert_eq!(post_release(r#"{"address": "10.0.0.1"}"#).await, (409, Some(wanted)));
        let (status, asked) = post_release(r#"{"address": "fd00::1", "force": true}"#).await;
        assert_eq!((status, asked.map(|asked| asked.force)), (409, Some(true)));
    }

    #[tokio::test]
    async fn a_malformed_release_reaches_nobody() {
        for body in ["", "{}", r#"{"address": "10.0.0.0/8"}"#, r#"{"address": "10.0.0.1", "forced": true}"#] {
            assert_eq!(post_release(body).await, (400, None), "{body}");
        }
    }
}
