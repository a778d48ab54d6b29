//! A small API server for tests: lists in pages, watches, bookmarks, and a history that can be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Json as JsonBody, Router};
use futures_util::stream;
use hyper::{HeaderMap, StatusCode, Uri};
use kube::{Client, Config};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::client;

/// One change: its version, the kind's plural, what happened and the object.
type Change = (u64, String, &'static str, Json);

#[derive(Default)]
struct Store {
    objects: BTreeMap<(String, String), Json>,
    history: Vec<Change>,
    /// Watches from before this version are refused.
    oldest: u64,
    /// The kinds that were asked for, and those that may not be.
    asked: BTreeSet<String>,
    forbidden: BTreeSet<String>,
}

/// The server. What it holds survives [`Server::stop`].
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<JoinHandle<()>>,
}

struct Shared {
    store: Mutex<Store>,
    version: watch::Sender<u64>,
    /// The status that everything is refused with; 0: nothing is.
    refusing: AtomicU16,
}

impl Server {
    pub(super) async fn start() -> Self {
        let shared =
            Arc::new(Shared { store: Mutex::default(), version: watch::channel(1).0, refusing: 0.into() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self { address: listener.local_addr().unwrap(), shared, running: None };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        self.shared.refusing.store(0, Ordering::SeqCst);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&self.shared));
        self.running = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// Ends the server and its watches; what else comes over connections that are there is refused.
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        self.refuse(StatusCode::SERVICE_UNAVAILABLE);
    }

    /// Ends all watches, and refuses everything from now on.
    pub(super) fn refuse(&self, status: StatusCode) {
        self.shared.refusing.store(status.as_u16(), Ordering::SeqCst);
        self.shared.version.send_modify(|_| {});
    }

    /// Refuses nothing any more.
    pub(super) fn welcome(&self) {
        self.shared.refusing.store(0, Ordering::SeqCst);
    }

    pub(super) async fn start_again(&mut self) {
        let listener = loop {
            // The port is this test's: nothing else takes it, but connections may still be closing.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.serve(listener);
    }

    pub(super) fn client(&self) -> Client {
        let config = Config::new(format!("http://{}", self.address).parse().unwrap());
        client(&config, std::time::Duration::from_secs(30)).unwrap()
    }

    /// Adds an object or replaces it.
    pub(super) fn put(&self, plural: &str, name: &str, mut object: Json) {
        let metadata = json!({ "name": name, "uid": "1", "managedFields": [{"manager": "test"}] });
        match object["metadata"].as_object_mut() {
            Some(given) => given.extend(metadata.as_object().unwrap().clone()),
            None => object["metadata"] = metadata,
        }
        self.change(plural, name, Some(object));
    }

    /// Takes an object away.
    pub(super) fn delete(&self, plural: &str, name: &str) {
        self.change(plural, name, None);
    }

    fn change(&self, plural: &str, name: &str, object: Option<Json>) {
        let version = *self.shared.version.borrow() + 1;
        let mut store = self.shared.store.lock().unwrap();
        let id = (plural.to_owned(), name.to_owned());
        let (what, mut object) = match object {
            Some(object) if store.objects.contains_key(&id) => ("MODIFIED", object),
            Some(object) => ("ADDED", object),
            None => ("DELETED", store.objects.remove(&id).unwrap()),
        };
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if what != "DELETED" {
            store.objects.insert(id, object.clone());
        }
        store.history.push((version, plural.to_owned(), what, object));
        drop(store);
        self.shared.version.send_replace(version);
    }

    /// Answers 403 Forbidden to who asks for this kind.
    pub(super) fn forbid(&self, plural: &str) {
        self.shared.store.lock().unwrap().forbidden.insert(plural.to_owned());
    }

    /// Whether this kind was listed or watched so far.
    pub(super) fn was_asked_for(&self, plural: &str) -> bool {
        self.shared.store.lock().unwrap().asked.contains(plural)
    }

    /// Forgets what happened so far: a watch from before gets 410 Gone.
    pub(super) fn compact(&self) {
        self.shared.store.lock().unwrap().oldest = *self.shared.version.borrow();
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BTreeMap<String, String>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Ok(status) = StatusCode::from_u16(shared.refusing.load(Ordering::SeqCst)) {
        return status.into_response();
    }
    let plural = uri.path().rsplit('/').next().unwrap().to_owned();
    if plural == "version" {
        let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return JsonBody(version).into_response();
    }
    let allowed = {
        let mut store = shared.store.lock().unwrap();
        store.asked.insert(plural.clone());
        !store.forbidden.contains(&plural)
    };
    let accept = headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if plural == "namespaces" && !accept.contains("as=PartialObjectMetadata") {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    if !allowed {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "message": "not for you", "code": 403});
        return (StatusCode::FORBIDDEN, JsonBody(status)).into_response();
    }
    if query.contains_key("watch") {
        let since = query["resourceVersion"].parse().unwrap();
        let body = Body::from_stream(changes(shared, plural, selected(&query), since));
        return ([("content-type", "application/json")], body).into_response();
    }
    JsonBody(list(&shared, &plural, &query)).into_response()
}

/// The name of the only object that is asked for.
fn selected(query: &BTreeMap<String, String>) -> Option<String> {
    query.get("fieldSelector").map(|selector| selector.strip_prefix("metadata.name=").unwrap().to_owned())
}

fn list(shared: &Shared, plural: &str, query: &BTreeMap<String, String>) -> Json {
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
    let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let store = shared.store.lock().unwrap();
    let name = selected(query);
    let meant =
        |(kind, own): &(String, String)| kind == plural && name.as_ref().is_none_or(|name| name == own);
    let all: Vec<&Json> =
        store.objects.iter().filter(|(id, _)| meant(id)).map(|(_, object)| object).collect();
    let end = from.saturating_add(limit).min(all.len());
    let more = if end < all.len() { end.to_string() } else { String::new() };
    let version = shared.version.borrow().to_string();
    json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version, "continue": more },
        "items": all[from..end] })
}

/// The changes of one kind since a version, as they happen, and a bookmark where there was none.
fn changes(
    shared: Arc<Shared>,
    plural: String,
    name: Option<String>,
    since: u64,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    let version = shared.version.subscribe();
    stream::unfold(Some((shared, plural, name, since, version)), |state| async move {
        let (shared, plural, name, since, mut version) = state?;
        loop {
            let now = *version.borrow_and_update();
            if shared.refusing.load(Ordering::SeqCst) != 0 {
                return None;
            }
            let (text, gone) = tell(&shared, &plural, name.as_deref(), since, now);
            if gone {
                return Some((Ok(text.into()), None));
            }
            if !text.is_empty() {
                return Some((Ok(text.into()), Some((shared, plural, name, now, version))));
            }
            version.changed().await.ok()?;
        }
    })
}

fn tell(shared: &Shared, plural: &str, name: Option<&str>, since: u64, now: u64) -> (String, bool) {
    let store = shared.store.lock().unwrap();
    if since < store.oldest {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
            "message": "too old resource version", "code": 410});
        return (format!("{}\n", json!({"type": "ERROR", "object": status})), true);
    }
    let of_kind =
        store.history.iter().filter(|(at, kind, ..)| (since + 1..=now).contains(at) && kind == plural);
    let mut text: String = of_kind
        .filter(|(.., object)| name.is_none_or(|name| object["metadata"]["name"] == name))
        .map(|(_, _, what, object)| format!("{}\n", json!({"type": what, "object": object})))
        .collect();
    if text.is_empty() && now > since {
        let object =
            json!({"kind": "X", "apiVersion": "v1", "metadata": {"resourceVersion": now.to_string()}});
        text = format!("{}\n", json!({"type": "BOOKMARK", "object": object}));
    }
    (text, false)
}
