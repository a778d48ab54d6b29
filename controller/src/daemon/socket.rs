//! HTTP: JSON for `weftctl` on the unix socket, metrics and health for monitoring on a TCP port.
//!
//! | where | path | answer |
//! |---|---|---|
//! | socket | `GET /v1/status` | [`StatusJson`] |
//! | socket | `GET /v1/peers[?peer=P]` | list of [`PeerJson`]; P is an address or a name; 404 if there is none |
//! | socket | `GET /v1/routes[?rib=loc\|in\|out][&peer=P][&prefix=PREFIX \| &address=IP]` | list of [`RouteJson`] |
//! | socket | `GET /v1/bmp` | list of [`StationJson`] |
//! | socket | `GET /v1/fib` | list of [`FibJson`] |
//! | socket | `GET /v1/services` | list of [`ServicePrefixJson`] |
//! | socket | `GET /v1/events[?after=SEQ][&wait=SECONDS][&peer=P][&prefix=PREFIX \| &address=IP]` | list of [`EventJson`]; waits for the first one, at most 30 s |
//! | socket | `GET /v1/prefix-events[?after=SEQ][&peer=P][&prefix=PREFIX \| &address=IP]` | list of [`EventJson`]: best paths that changed, numbered by themselves |
//! | socket | `GET /v1/ipam`, `POST /v1/ipam/check`, `POST /v1/ipam/release` | see [`crate::api::ipam`] |
//! | socket | `POST /v1/clear` with [`ClearRequest`] | list of [`ClearedJson`]; 409 if nothing can be done |
//! | socket | `POST /v1/drain` | [`DrainJson`]; 409 if the node is being drained |
//! | socket | `POST /v1/undrain` | null; 409 if the node is not being drained, or by a taint |
//! | socket | `GET /v1/mrt` | the table as MRT (RFC 6396, TABLE_DUMP_V2), in pieces; 409 while two others are under way |
//! | socket | `GET /v1/version` | [`VersionJson`] |
//! | port | `GET /metrics` | the Prometheus text format |
//! | port | `GET /healthz` | 200: the daemon's loop answers |
//! | port | `GET /readyz` | 200: converged once since the start; else 503 and why |
//!
//! A wrong question is answered with 400, something that is not there with 404, something that cannot be done as things are with
//! 409, all with `{"error": "…"}`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::poll_fn;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use weft_bgp::transport::Handle;

use super::clear::no_such_peer;
use super::clock::Moment;
use super::event_query::EventQuery;
use super::events::Events;
use super::report::Seen;
use super::{ipam, mrt};
use crate::api::clear::{ClearRequest, ClearedJson};
use crate::api::json::{DrainJson, EventJson, FibJson, PeerJson, RouteJson, StatusJson, VersionJson};
use crate::api::{ServicePrefixJson, StationJson};

/// How long the daemon's loop may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest wait for an event.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How many dumps may be under way.
const DUMPS_MAX: usize = 2;

static DUMPS: Semaphore = Semaphore::const_new(DUMPS_MAX);

/// A question to the daemon's loop.
#[derive(Debug)]
pub(super) enum Ask {
    /// How is the node?
    Status(oneshot::Sender<StatusJson>),
    /// How are the peers?
    Peers(oneshot::Sender<Vec<PeerJson>>),
    /// How are the monitoring stations?
    Bmp(oneshot::Sender<Vec<StationJson>>),
    /// Which routes are there?
    Routes(RoutesQuery, oneshot::Sender<Result<Vec<RouteJson>, Refusal>>),
    /// Which best paths changed?
    PrefixEvents(EventQuery, oneshot::Sender<Vec<EventJson>>),
    /// Which Services are announced?
    Services(oneshot::Sender<Vec<ServicePrefixJson>>),
    /// Who can be asked for a dump; none before the first plan.
    Speaker(oneshot::Sender<Option<Handle>>),
    /// Begin sessions anew, or have routes told again.
    Clear(ClearRequest, oneshot::Sender<Result<Vec<ClearedJson>, Refusal>>),
    /// Begin to drain the node.
    Drain(oneshot::Sender<Result<DrainJson, Refusal>>),
    /// Drain it no more.
    Undrain(oneshot::Sender<Result<(), Refusal>>),
    /// What is in the kernel?
    Fib(oneshot::Sender<Vec<FibJson>>),
    /// Everything that is counted, as the Prometheus text format has it.
    Metrics(oneshot::Sender<String>),
    /// What is to be told to the API server?
    Report(oneshot::Sender<Seen>),
    /// Ready for traffic? If not, why.
    Ready(oneshot::Sender<Result<(), String>>),
}

/// Which routes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoutesQuery {
    /// Which table.
    pub(super) rib: Rib,
    /// A peer's address or name.
    pub(super) peer: Option<String>,
    /// Which prefixes.
    pub(super) select: Select,
}

/// A RIB of RFC 4271 section 3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rib {
    /// Adj-RIB-In of a peer.
    In,
    /// Loc-RIB.
    #[default]
    Loc,
    /// Adj-RIB-Out of a peer.
    Out,
}

/// Which prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// All.
    All,
    /// This one.
    Exact(IpNet),
    /// The longest that covers this address.
    Covering(IpAddr),
}

/// Why a question gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is malformed.
    Malformed(String),
    /// It asks for what is not there.
    NotFound(String),
    /// It cannot be done as things are.
    Refused(String),
    /// The daemon cannot answer now.
    Unavailable(String),
}

#[derive(Serialize)]
struct ErrorBody {
    error: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Malformed(error) => (StatusCode::BAD_REQUEST, error),
            Self::NotFound(error) => (StatusCode::NOT_FOUND, error),
            Self::Refused(error) => (StatusCode::CONFLICT, error),
            Self::Unavailable(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
        };
        (status, Json(ErrorBody { error })).into_response()
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}

/// What the handlers work with.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    /// To the daemon's loop.
    pub(super) asks: mpsc::Sender<Ask>,
    /// What happened lately.
    pub(super) events: Events,
    /// To the keeper of the pods' addresses.
    pub(super) ipam: mpsc::Sender<ipam::Ask>,
}

impl Serving {
    /// Asks the daemon's loop.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, Refusal> {
        exchange(&self.asks, PATIENCE, question).await
    }
}

/// Asks, and waits for the answer no longer than `patience`.
pub(super) async fn exchange<Q, T>(
    asks: &mpsc::Sender<Q>,
    patience: Duration,
    question: impl FnOnce(oneshot::Sender<T>) -> Q,
) -> Result<T, Refusal> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        asks.send(question(reply)).await.ok()?;
        answer.await.ok()
    };
    match timeout(patience, exchange).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Refusal::Unavailable("the daemon is stopping".into())),
        Err(_) => Err(Refusal::Unavailable(format!("no answer within {} s", patience.as_secs()))),
    }
}

/// Listens on the unix socket, for the owner of the process only. A socket file that a dead daemon left is replaced, without a
/// moment in which there is none or one that others may use.
///
/// # Errors
/// What the kernel says of the path.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension("sock.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// The socket's paths.
pub(super) fn api(serving: Serving) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/routes", get(routes))
        .route("/v1/bmp", get(bmp))
        .route("/v1/fib", get(fib))
        .route("/v1/services", get(services))
        .route("/v1/events", get(events))
        .route("/v1/prefix-events", get(prefix_events))
        .route("/v1/clear", post(clear))
        .route("/v1/drain", post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/mrt", get(dump))
        .route("/v1/version", get(version))
        .merge(ipam::routes())
        .fallback(unknown)
        .with_state(serving)
}

/// The port's paths.
pub(super) fn monitoring(serving: Serving) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown)
        .with_state(serving)
}

async fn unknown() -> Refusal {
    Refusal::NotFound("no such path".into())
}

async fn status(State(serving): State<Serving>) -> Result<Json<StatusJson>, Refusal> {
    serving.ask(Ask::Status).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersParameters {
    peer: Option<String>,
}

async fn peers(
    State(serving): State<Serving>,
    parameters: Result<Query<PeersParameters>, QueryRejection>,
) -> Result<Json<Vec<PeerJson>>, Refusal> {
    let Query(parameters) = parameters?;
    let mut peers = serving.ask(Ask::Peers).await?;
    if let Some(wanted) = parameters.peer {
        let address = wanted.parse::<IpAddr>().ok();
        let is_called = |p: &PeerJson| {
            p.name == wanted || p.peer == wanted || address.is_some_and(|a| p.peer == a.to_string())
        };
        if !peers.iter().any(is_called) {
            return Err(no_such_peer(&wanted, peers.iter().map(|peer| (&peer.name, &peer.peer))));
        }
        peers.retain(is_called);
    }
    Ok(Json(peers))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesParameters {
    #[serde(default)]
    rib: Rib,
    peer: Option<String>,
    prefix: Option<String>,
    address: Option<String>,
}

impl RoutesParameters {
    fn parse(self) -> Result<RoutesQuery, Refusal> {
        let select = parse_select(self.prefix.as_deref(), self.address.as_deref())?;
        if self.rib != Rib::Loc && self.peer.is_none() {
            return Err(Refusal::Malformed("rib=in and rib=out need peer=ADDRESS or peer=NAME".into()));
        }
        Ok(RoutesQuery { rib: self.rib, peer: self.peer, select })
    }
}

fn parse_select(prefix: Option<&str>, address: Option<&str>) -> Result<Select, Refusal> {
    match (prefix, address) {
        (None, None) => Ok(Select::All),
        (Some(prefix), None) => parse_prefix(prefix).map(Select::Exact),
        (None, Some(address)) => address.parse().map(Select::Covering).map_err(|_| {
            Refusal::Malformed(format!("{address:?} is no address; write 10.1.2.3 or 2001:db8::1"))
        }),
        (Some(_), Some(_)) => Err(Refusal::Malformed("give either prefix or address, not both".into())),
    }
}

fn parse_prefix(text: &str) -> Result<IpNet, Refusal> {
    let prefix: IpNet = text.parse().map_err(|_| {
        Refusal::Malformed(format!("{text:?} is no prefix; write 10.1.2.0/26 or 2001:db8::/122"))
    })?;
    if prefix == prefix.trunc() {
        Ok(prefix)
    } else {
        Err(Refusal::Malformed(format!("{prefix} has host bits; did you mean {}?", prefix.trunc())))
    }
}

async fn routes(
    State(serving): State<Serving>,
    parameters: Result<Query<RoutesParameters>, QueryRejection>,
) -> Result<Json<Vec<RouteJson>>, Refusal> {
    let Query(parameters) = parameters?;
    let query = parameters.parse()?;
    serving.ask(|reply| Ask::Routes(query, reply)).await?.map(Json)
}

async fn services(State(serving): State<Serving>) -> Result<Json<Vec<ServicePrefixJson>>, Refusal> {
    serving.ask(Ask::Services).await.map(Json)
}

async fn bmp(State(serving): State<Serving>) -> Result<Json<Vec<StationJson>>, Refusal> {
    serving.ask(Ask::Bmp).await.map(Json)
}

async fn fib(State(serving): State<Serving>) -> Result<Json<Vec<FibJson>>, Refusal> {
    serving.ask(Ask::Fib).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsParameters {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
    peer: Option<String>,
    prefix: Option<String>,
    address: Option<String>,
}

impl EventsParameters {
    /// What is asked for. A peer's name is looked up, as events have addresses; one that is gone is known by its address alone, while
    /// there is an event of it.
    async fn query(self, serving: &Serving) -> Result<EventQuery, Refusal> {
        let select = parse_select(self.prefix.as_deref(), self.address.as_deref())?;
        let mut query = EventQuery { after: self.after, peer: None, select };
        if let Some(wanted) = self.peer {
            query.peer = Some(vec![wanted.clone()]);
            let peers = serving.ask(Ask::Peers).await?;
            if !query.resolve(&peers) && !serving.events.concern(&wanted) {
                return Err(no_such_peer(&wanted, peers.iter().map(|peer| (&peer.name, &peer.peer))));
            }
        }
        Ok(query)
    }
}

async fn events(
    State(serving): State<Serving>,
    parameters: Result<Query<EventsParameters>, QueryRejection>,
) -> Result<Json<Vec<EventJson>>, Refusal> {
    let Query(parameters) = parameters?;
    let patience = Duration::from_secs(parameters.wait).min(WAIT_MAX);
    let query = parameters.query(&serving).await?;
    Ok(Json(serving.events.wait(query, patience).await))
}

async fn prefix_events(
    State(serving): State<Serving>,
    parameters: Result<Query<EventsParameters>, QueryRejection>,
) -> Result<Json<Vec<EventJson>>, Refusal> {
    let Query(parameters) = parameters?;
    let query = parameters.query(&serving).await?;
    serving.ask(|reply| Ask::PrefixEvents(query, reply)).await.map(Json)
}

async fn clear(
    State(serving): State<Serving>,
    request: Result<Json<ClearRequest>, JsonRejection>,
) -> Result<Json<Vec<ClearedJson>>, Refusal> {
    let Json(request) = request?;
    serving.ask(|reply| Ask::Clear(request, reply)).await?.map(Json)
}

async fn drain(State(serving): State<Serving>) -> Result<Json<DrainJson>, Refusal> {
    serving.ask(Ask::Drain).await?.map(Json)
}

async fn undrain(State(serving): State<Serving>) -> Result<Json<()>, Refusal> {
    serving.ask(Ask::Undrain).await?.map(Json)
}

/// Gives a dump as it is made. One that breaks off breaks the connection off, so that nobody takes it for a whole one.
async fn dump(State(serving): State<Serving>) -> Result<Response, Refusal> {
    let Ok(permit) = DUMPS.try_acquire() else {
        return Err(Refusal::Refused(format!("{DUMPS_MAX} dumps are under way; wait for one to end")));
    };
    let Some(speaker) = serving.ask(Ask::Speaker).await? else {
        return Err(Refusal::Refused("there is no table yet: the documents are not in force".into()));
    };
    let (sender, mut pieces) = mpsc::channel(mrt::PIECES_MAX);
    tokio::spawn(async move {
        mrt::dump(speaker, Moment::now().instant, sender).await;
        drop(permit);
    });
    let body = Body::from_stream(poll_fn(move |context| pieces.poll_recv(context)));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

async fn version() -> Json<VersionJson> {
    Json(VersionJson { version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn metrics(State(serving): State<Serving>) -> Result<Response, Refusal> {
    let text = serving.ask(Ask::Metrics).await?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

async fn healthz(State(serving): State<Serving>) -> Result<&'static str, Refusal> {
    serving.ask(Ask::Ready).await.map(|_| "ok\n")
}

async fn readyz(State(serving): State<Serving>) -> Response {
    match serving.ask(Ask::Ready).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::daemon::events::NewEvent;

    /// A daemon's socket before a loop that gives fixed answers, and the questions about routes that it got.
    struct Fixed {
        dir: tempfile::TempDir,
        events: Events,
        routes: mpsc::UnboundedReceiver<RoutesQuery>,
    }

    impl Fixed {
        fn serve() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let events = Events::default();
            let (asks, mut asked) = mpsc::channel(4);
            let (told, routes) = mpsc::unbounded_channel();
            let (ipam, _) = mpsc::channel(1);
            let serving = Serving { asks, events: events.clone(), ipam };
            let listener = listen(&dir.path().join("weft.sock")).unwrap();
            tokio::spawn(
                axum::serve(listener, api(serving.clone()).merge(monitoring_without_fallback(serving)))
                    .into_future(),
            );
            tokio::spawn(async move {
                while let Some(ask) = asked.recv().await {
                    match ask {
                        Ask::Peers(reply) => drop(reply.send(Vec::new())),
                        Ask::PrefixEvents(_, reply) => drop(reply.send(Vec::new())),
                        Ask::Bmp(reply) => drop(reply.send(Vec::new())),
                        Ask::Fib(reply) => drop(reply.send(Vec::new())),
                        Ask::Services(reply) => drop(reply.send(Vec::new())),
                        Ask::Routes(query, reply) => {
                            told.send(query).unwrap();
                            drop(reply.send(Err(Refusal::NotFound("no such peer".into()))));
                        }
                        Ask::Metrics(reply) => drop(reply.send("weft_ready 1\n# EOF\n".into())),
                        Ask::Ready(reply) => drop(reply.send(Err("waiting".into()))),
                        // A loop that is stopping lets go of its questions.
                        Ask::Status(reply) => drop(reply),
                        Ask::Clear(_, reply) => drop(reply),
                        Ask::Drain(reply) => drop(reply),
                        Ask::Undrain(reply) => {
                            drop(reply.send(Err(Refusal::Refused("the node is not being drained".into()))));
                        }
                        Ask::Speaker(reply) => drop(reply.send(None)),
                        Ask::Report(reply) => drop(reply),
                    }
                }
            });
            Self { dir, events, routes }
        }

        /// The status code and the body.
        async fn get(&self, path: &str) -> (u16, String) {
            let mut stream = UnixStream::connect(self.dir.path().join("weft.sock")).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        }

        async fn error(&self, path: &str) -> (u16, String) {
            let (status, body) = self.get(path).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            (status, body["error"].as_str().unwrap().to_owned())
        }
    }

    fn monitoring_without_fallback(serving: Serving) -> Router {
        monitoring(serving).reset_fallback()
    }

    #[tokio::test]
    async fn malformed_questions_are_400_with_a_reason() {
        let fixed = Fixed::serve();
        for (path, reason) in [
            ("/v1/routes?prefix=10.0.0.1/8", "did you mean 10.0.0.0/8?"),
            ("/v1/routes?prefix=nonsense", "is no prefix"),
            ("/v1/routes?address=10.0.0.0/8", "is no address"),
            ("/v1/routes?prefix=10.0.0.0/8&address=10.0.0.1", "not both"),
            ("/v1/routes?rib=in", "need peer="),
            ("/v1/routes?rib=sideways", "sideways"),
            ("/v1/routes?bogus=1", "bogus"),
            ("/v1/events?after=-1", "after"),
            ("/v1/events?prefix=10.0.0.1/8", "did you mean"),
            ("/v1/prefix-events?address=x", "is no address"),
            ("/v1/peers?peers=x", "peers"),
        ] {
            let (status, error) = fixed.error(path).await;
            assert_eq!(status, 400, "{path}: {error}");
            assert!(error.contains(reason), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn questions_reach_the_loop_as_they_were_meant() {
        let mut fixed = Fixed::serve();
        let (status, error) = fixed.error("/v1/routes?rib=in&peer=tor-a&prefix=10.0.0.0%2F8").await;
        assert_eq!((status, error.as_str()), (404, "no such peer"));
        let query = fixed.routes.recv().await.unwrap();
        let select = Select::Exact("10.0.0.0/8".parse().unwrap());
        assert_eq!(query, RoutesQuery { rib: Rib::In, peer: Some("tor-a".into()), select });
        fixed.get("/v1/routes?address=fd00::1").await;
        let query = fixed.routes.recv().await.unwrap();
        let select = Select::Covering("fd00::1".parse().unwrap());
        assert_eq!(query, RoutesQuery { rib: Rib::Loc, peer: None, select });
    }

    #[tokio::test]
    async fn there_is_no_dump_before_there_is_a_speaker() {
        let (status, error) = Fixed::serve().error("/v1/mrt").await;
        assert_eq!(status, 409);
        assert!(error.contains("no table yet"), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_a_stopping_daemon_503() {
        let fixed = Fixed::serve();
        assert_eq!(fixed.error("/v2/status").await.0, 404);
        let (status, error) = fixed.error("/v1/peers?peer=x").await;
        assert_eq!(status, 404);
        assert!(error.contains("\"x\""), "{error}");
        for path in ["/v1/events?peer=10.0.0.1", "/v1/prefix-events?peer=10.0.0.1"] {
            let (status, error) = fixed.error(path).await;
            assert_eq!(status, 404);
            assert!(
                error.contains("no peer has the address or name \"10.0.0.1\"; there are none"),
                "{error}"
            );
        }
        let (status, error) = fixed.error("/v1/status").await;
        assert_eq!((status, error.as_str()), (503, "the daemon is stopping"));
    }

    #[tokio::test]
    async fn events_are_given_from_where_the_reader_is() {
        let fixed = Fixed::serve();
        for text in ["one", "two"] {
            let event = NewEvent { peer: None, kind: "test", text: text.into(), bytes: bytes::Bytes::new() };
            fixed.events.push(jiff::Timestamp::UNIX_EPOCH, event);
        }
        let (status, body) = fixed.get("/v1/events?after=1&wait=30").await;
        assert_eq!(status, 200);
        let events: Value = serde_json::from_str(&body).unwrap();
        let two = json!([{"seq": 2, "time": "1970-01-01T00:00:00Z", "peer": null, "prefix": null, "kind": "test", "text": "two", "bytes": null}]);
        assert_eq!(events, two);
    }

    #[tokio::test]
    async fn events_of_a_peer_that_is_gone_are_given() {
        let fixed = Fixed::serve();
        let peer = Some("10.0.0.1".to_owned());
        let event = NewEvent { peer, kind: "test", text: "last".into(), bytes: bytes::Bytes::new() };
        fixed.events.push(jiff::Timestamp::UNIX_EPOCH, event);
        let (status, body) = fixed.get("/v1/events?peer=10.0.0.1").await;
        assert_eq!(status, 200);
        assert!(body.contains("\"last\""), "{body}");
        assert_eq!(fixed.get("/v1/events?peer=10.0.0.1&after=1").await, (200, "[]".into()));
    }

    #[tokio::test]
    async fn health_is_an_answer_and_readiness_has_a_reason() {
        let fixed = Fixed::serve();
        assert_eq!(fixed.get("/healthz").await, (200, "ok\n".into()));
        assert_eq!(fixed.get("/readyz").await, (503, "waiting\n".into()));
        assert_eq!(fixed.get("/metrics").await, (200, "weft_ready 1\n# EOF\n".into()));
    }

    #[tokio::test]
    async fn the_socket_is_the_owners_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weft.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).await.unwrap();
    }
}
