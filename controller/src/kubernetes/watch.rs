//! Watches of every kind of object, made into what is in force.
//!
//! While the API server is away everything stays as it is; when it is back, the watches go on where they were or list anew.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, AbortHandle, BoxStream, SelectAll};
use kube::api::ApiResource;
use kube::core::{DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::api::json::DocumentError;
use crate::cluster::Kind;
use crate::documents::{Admission, Reading, Version, Versions};

/// Changes are taken together that come within this time of each other.
const QUIET: Duration = Duration::from_millis(100);
/// A cluster that never comes to rest is looked at all the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much longer a change of a Node waits for others, for each Node there is: in a large cluster some change all the time, and
/// each look costs the more the more there are.
const PER_NODE: Duration = Duration::from_micros(400);
/// The first and the longest pause before a watch that failed is tried again, but for chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an API server that is away is asked whether it is back, and how long it may take to say so.
const PROBE: Duration = Duration::from_secs(2);
/// How many objects one answer may hold. A Node is large, and the text of a page is in memory at once.
const PAGE: u32 = 100;

/// What comes of the watches.
#[derive(Debug)]
pub(crate) struct Followed {
    /// What is in force, anew after each change; the first once every kind was listed.
    pub(crate) readings: mpsc::Receiver<Reading>,
    /// Why the API server cannot be used, while that is so.
    pub(crate) trouble: watch::Receiver<Option<String>>,
}

/// Watches every kind on behalf of a node, or of none where the name is empty, until the receiver is gone: Services and their endpoints
/// only while the node announces some, and those Secrets that its sessions have their passwords in, each by its name. A Node that is deleted counts for `linger` more, unless another has its addresses.
pub(crate) fn follow(client: Client, node: &str, linger: Duration) -> Followed {
    let (out, readings) = mpsc::channel(1);
    let (trouble_sender, trouble) = watch::channel(None);
    let watches = Kind::ALWAYS.map(|kind| events(&client, kind.into()));
    let follower = Follower {
        admission: Admission::new(node),
        listing: BTreeMap::new(),
        listed: BTreeSet::new(),
        node: node.to_owned(),
        versions: Versions::new(),
        lingering: Lingering { linger, nodes: BTreeMap::new() },
        services: Vec::new(),
        secrets: BTreeMap::new(),
        refused: BTreeSet::new(),
        trouble: trouble_sender,
    };
    tokio::spawn(follower.run(client, stream::select_all(watches), out));
    Followed { readings, trouble }
}

/// What a watch is of: the objects of a kind, or the one of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    kind: Kind,
    name: Option<String>,
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        Self { kind, name: None }
    }
}

impl Subject {
    fn secret(name: &str) -> Self {
        Self { kind: Kind::Secret, name: Some(name.to_owned()) }
    }

    /// Whether an absence of rights to it holds up nothing else.
    fn can_be_done_without(&self) -> bool {
        Kind::OF_SERVICES.contains(&self.kind) || self.kind == Kind::Secret
    }

    fn covers(&self, name: &str) -> bool {
        self.name.as_deref().is_none_or(|own| own == name)
    }
}

/// What a watch says, or why it failed.
type News = (Subject, Result<Event<DynamicObject>, watcher::Error>);

fn events(client: &Client, subject: Subject) -> BoxStream<'static, News> {
    let kind = subject.kind;
    let (group, version) = kind.group_version();
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind.as_str()),
        kind.plural(),
    );
    let mut config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
    if kind == Kind::EndpointSlice {
        // Headless Services have no address to announce, and often the most endpoints.
        config = config.labels("!service.kubernetes.io/headless");
    }
    if kind == Kind::Namespace {
        // Of these only the labels count.
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client.clone(), &resource);
        let events = watcher::watcher(api, config).backoff(Pauses::default());
        return events.map(move |event| (subject.clone(), event.map(of_metadata))).boxed();
    }
    if let Some(name) = &subject.name {
        // By name, so that the right to watch it can be given by name too.
        config = config.fields(&format!("metadata.name={name}"));
        let namespace = client.default_namespace();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let events = watcher::watcher(api, config).backoff(Pauses::default());
        return events.map(move |event| (subject.clone(), event)).boxed();
    }
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let events = watcher::watcher(api, config).backoff(Pauses::default());
    events.map(move |event| (subject.clone(), event)).boxed()
}

/// The same event, of an object that is nothing but its metadata.
fn of_metadata(event: Event<PartialObjectMeta<DynamicObject>>) -> Event<DynamicObject> {
    let object = |partial: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: None,
        metadata: partial.metadata,
        data: Json::Null,
    };
    match event {
        Event::Apply(partial) => Event::Apply(object(partial)),
        Event::Delete(partial) => Event::Delete(object(partial)),
        Event::Init => Event::Init,
        Event::InitApply(partial) => Event::InitApply(object(partial)),
        Event::InitDone => Event::InitDone,
    }
}

/// The pauses between tries, each up to half as long again by chance: the nodes of a cluster must not all come at once.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = pause.saturating_mul(2).min(LONGEST_PAUSE);
        let chance = RandomState::new().hash_one(()) % 1024;
        Some(pause + pause.mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 2048.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

struct Follower {
    admission: Admission,
    /// The names that a list in progress has given so far.
    listing: BTreeMap<Subject, BTreeSet<String>>,
    /// What was listed once.
    listed: BTreeSet<Subject>,
    /// Whose IPBlocks' versions are kept; those of all objects where it is empty.
    node: String,
    versions: Versions,
    lingering: Lingering,
    /// The watches of [`Kind::OF_SERVICES`], while there are any.
    services: Vec<AbortHandle>,
    /// The watches of Secrets, by name.
    secrets: BTreeMap<String, AbortHandle>,
    /// Those of all these that the API server does not let us see: their absence holds up nothing else.
    refused: BTreeSet<Subject>,
    trouble: watch::Sender<Option<String>>,
}

impl Follower {
    async fn run(
        mut self,
        client: Client,
        mut news: SelectAll<BoxStream<'static, News>>,
        out: mpsc::Sender<Reading>,
    ) {
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: Option<Due> = None;
        loop {
            let at = due.as_ref().map(|due| due.at);
            let leaves = self.lingering.next();
            tokio::select! {
                Some((subject, event)) = news.next() => {
                    let urgent = !matches!(subject.kind, Kind::Node | Kind::Namespace) || matches!(event, Ok(Event::InitDone));
                    if self.take(subject, event) {
                        due = Some(if urgent { Due::soon(due) } else { Due::in_time(due, self.admission.nodes()) });
                    }
                }
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    due = None;
                    if let Some(reading) = self.settle(&client, &mut news)
                        && out.send(reading).await.is_err()
                    {
                        return;
                    }
                }
                () = sleep_until(leaves.unwrap_or_else(Instant::now)), if leaves.is_some() => {
                    for node in self.lingering.due(Instant::now()) {
                        self.forget(Kind::Node, &node);
                    }
                    due = Some(Due::soon(due));
                }
                _ = probe.tick(), if self.trouble.borrow().is_some() => {
                    if let Ok(Ok(_)) = timeout(PROBE, client.apiserver_version()).await {
                        self.trouble.send_replace(None);
                    }
                }
                () = out.closed() => return,
            }
        }
    }

    /// What is in force; nothing while a kind that is needed was not listed yet: what is there already must not be withdrawn for
    /// a moment.
    fn settle(&mut self, client: &Client, news: &mut SelectAll<BoxStream<'static, News>>) -> Option<Reading> {
        if !Kind::ALWAYS.iter().all(|kind| self.listed.contains(&Subject::from(*kind))) {
            return None;
        }
        let mut reading = Reading { versions: self.versions.clone(), ..self.admission.settle() };
        if self.follow_services(client, news) | self.follow_secrets(client, news) {
            reading = Reading { versions: self.versions.clone(), ..self.admission.settle() };
        }
        reading.errors.extend(self.refused.iter().map(refused));
        let of_services = Kind::OF_SERVICES.into_iter().filter(|_| !self.services.is_empty());
        let of_secrets = self.secrets.keys().map(|name| Subject::secret(name));
        let known = |subject: Subject| self.listed.contains(&subject) || self.refused.contains(&subject);
        of_services.map(Subject::from).chain(of_secrets).all(known).then_some(reading)
    }

    /// Watches Services and their endpoints if the node announces some; tells whether they have just been forgotten.
    fn follow_services(&mut self, client: &Client, news: &mut SelectAll<BoxStream<'static, News>>) -> bool {
        match (self.admission.announces_services() && !self.node.is_empty(), self.services.is_empty()) {
            (true, true) => {
                for kind in Kind::OF_SERVICES {
                    let (events, handle) = stream::abortable(events(client, kind.into()));
                    news.push(events.boxed());
                    self.services.push(handle);
                }
                false
            }
            (false, false) => {
                self.services.drain(..).for_each(|watch| watch.abort());
                for kind in Kind::OF_SERVICES {
                    for name in self.admission.names(kind) {
                        self.forget(kind, &name);
                    }
                    self.listed.remove(&kind.into());
                    self.refused.remove(&kind.into());
                }
                true
            }
            _ => false,
        }
    }

    /// Watches the Secrets that passwords are in; tells whether one has just been forgotten.
    fn follow_secrets(&mut self, client: &Client, news: &mut SelectAll<BoxStream<'static, News>>) -> bool {
        let wanted = self.admission.secrets();
        let gone: Vec<String> = self.secrets.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in &gone {
            self.secrets.remove(name).iter().for_each(AbortHandle::abort);
            self.forget(Kind::Secret, name);
            self.listing.remove(&Subject::secret(name));
            self.listed.remove(&Subject::secret(name));
            self.refused.remove(&Subject::secret(name));
        }
        for name in wanted {
            self.secrets.entry(name).or_insert_with_key(|name| {
                let (events, handle) = stream::abortable(events(client, Subject::secret(name)));
                news.push(events.boxed());
                handle
            });
        }
        !gone.is_empty()
    }

    /// Takes in what a watch says; tells whether something changed.
    fn take(&mut self, subject: Subject, event: Result<Event<DynamicObject>, watcher::Error>) -> bool {
        let kind = subject.kind;
        match event {
            Ok(Event::Init) => drop(self.listing.insert(subject, BTreeSet::new())),
            Ok(Event::InitApply(object)) => {
                let (name, _) = self.apply(kind, object);
                self.listing.entry(subject).or_default().insert(name);
            }
            Ok(Event::InitDone) => {
                let names = self.listing.remove(&subject).unwrap_or_default();
                for name in self.admission.names(kind).difference(&names).filter(|name| subject.covers(name))
                {
                    self.delete(kind, name);
                }
                self.refused.remove(&subject);
                self.listed.insert(subject);
                return true;
            }
            Ok(Event::Apply(object)) => return self.apply(kind, object).1,
            Ok(Event::Delete(object)) => {
                self.delete(kind, &name(kind, &object));
                return true;
            }
            Err(error) if subject.can_be_done_without() && is_forbidden(&error) => {
                return self.refused.insert(subject);
            }
            Err(error) => {
                let text = format!("cannot watch {}: {}", kind.plural(), causes(&error));
                self.trouble.send_if_modified(|trouble| {
                    let first = trouble.is_none();
                    if first {
                        tracing::warn!("{text}");
                        *trouble = Some(text);
                    }
                    first
                });
            }
        }
        false
    }

    fn delete(&mut self, kind: Kind, name: &str) {
        if kind == Kind::Node && self.lingering.keeps(name) {
            return;
        }
        self.forget(kind, name);
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        self.admission.delete(kind, name);
        self.versions.remove(&(kind, name.to_owned()));
    }

    /// Takes in an object; gives its name, and whether it can make a difference.
    fn apply(&mut self, kind: Kind, object: DynamicObject) -> (String, bool) {
        let name = name(kind, &object);
        let mut differs = false;
        if kind == Kind::Node {
            for replaced in self.lingering.given_way(&name, &object, &self.admission) {
                self.forget(Kind::Node, &replaced);
                differs = true;
            }
        }
        let own =
            kind == Kind::IpBlock && object.data.pointer("/spec/node") == Some(&Json::from(&*self.node));
        if own || (self.node.is_empty() && !kind.is_core()) {
            let version = version(&object);
            differs |= self.versions.insert((kind, name.clone()), version.clone()) != Some(version);
        } else {
            differs |= self.versions.remove(&(kind, name.clone())).is_some();
        }
        differs |= self.admission.apply(kind, &name, document(kind, object));
        (name, differs)
    }
}

/// The Nodes that were deleted a moment ago.
struct Lingering {
    linger: Duration,
    /// Until when each counts.
    nodes: BTreeMap<String, Instant>,
}

impl Lingering {
    /// Whether a Node that is deleted counts still.
    fn keeps(&mut self, node: &str) -> bool {
        if !self.linger.is_zero() {
            self.nodes.entry(node.to_owned()).or_insert_with(|| Instant::now() + self.linger);
        }
        !self.linger.is_zero()
    }

    fn next(&self) -> Option<Instant> {
        self.nodes.values().min().copied()
    }

    /// Takes out those whose time is over.
    fn due(&mut self, now: Instant) -> Vec<String> {
        self.take_out(|_, until| until <= now)
    }

    /// Takes out those that a Node which is there replaces: itself, which is back and stays, and others, named here, whose
    /// addresses or podCIDRs it has.
    fn given_way(&mut self, name: &str, object: &DynamicObject, admission: &Admission) -> Vec<String> {
        self.nodes.remove(name);
        let text = |pointer: &str| object.data.pointer(pointer).map(Json::to_string).unwrap_or_default();
        let (addresses, pod_cidrs) = (text("/status/addresses"), text("/spec/podCIDRs"));
        let has = |all: &str, one: String| all.contains(&format!("\"{one}\""));
        let replaced = |gone: &String| {
            admission.node(gone).is_none_or(|gone| {
                gone.addresses.iter().any(|address| has(&addresses, address.to_string()))
                    || gone.pod_cidrs.iter().any(|cidr| has(&pod_cidrs, cidr.to_string()))
            })
        };
        self.take_out(|gone, _| replaced(gone))
    }

    fn take_out(&mut self, which: impl Fn(&String, Instant) -> bool) -> Vec<String> {
        let out: Vec<String> = self
            .nodes
            .iter()
            .filter(|(node, until)| which(node, **until))
            .map(|(node, _)| node.clone())
            .collect();
        self.nodes.retain(|node, _| !out.contains(node));
        out
    }
}

fn version(object: &DynamicObject) -> Version {
    let generation = object.metadata.generation.unwrap_or_default();
    Version {
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        generation,
        released: object.data.pointer("/status/releasedGeneration") == Some(&Json::from(generation)),
    }
}

/// An object's name as [`Admission`] has it, with its Namespace where it is in one; Secrets are all in one.
fn name(kind: Kind, object: &DynamicObject) -> String {
    let name = object.metadata.name.clone().unwrap_or_default();
    match &object.metadata.namespace {
        Some(namespace) if kind != Kind::Secret => format!("{namespace}/{name}"),
        _ => name,
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}

fn refused(subject: &Subject) -> DocumentError {
    let Subject { kind, name } = subject;
    let (consequence, otherwise) = match kind {
        Kind::Secret => {
            ("the sessions that have their password in it stay down", "give weftd's account that right")
        }
        _ => ("no Service is announced", "take the service ranges out of the BGPConfiguration"),
    };
    let what = name.as_ref().map_or_else(|| kind.plural().to_owned(), |name| format!("the Secret {name}"));
    let message = format!("the API server does not let weftd list and watch {what}: {consequence}");
    let remedy = format!("apply manifests/base of this version, or {otherwise}");
    DocumentError {
        file: None,
        line: None,
        object: Some(format!("{}/{}", kind.as_str(), name.as_deref().unwrap_or("*"))),
        field: None,
        message,
        remedy,
    }
}

/// When the changes so far are taken together.
struct Due {
    since: Instant,
    at: Instant,
}

impl Due {
    fn soon(before: Option<Self>) -> Self {
        let now = Instant::now();
        let since = before.map_or(now, |before| before.since);
        Self { since, at: (now + QUIET).min(since + PATIENCE).max(now) }
    }

    fn in_time(before: Option<Self>, nodes: usize) -> Self {
        before.unwrap_or_else(|| {
            let now = Instant::now();
            let more = PER_NODE.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX)).min(PATIENCE * 4);
            Self { since: now, at: now + QUIET + more }
        })
    }
}

/// The object as a document of its kind. Of its metadata only names and labels count.
fn document(kind: Kind, object: DynamicObject) -> Json {
    let mut document = match object.data {
        Json::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    let api_version = match kind.group_version() {
        ("", version) => version.to_owned(),
        (group, version) => format!("{group}/{version}"),
    };
    document.insert("apiVersion".into(), api_version.into());
    document.insert("kind".into(), kind.as_str().into());
    let metadata = object.metadata;
    let labels = metadata.labels.unwrap_or_default();
    let kept = match metadata.namespace {
        Some(namespace) => json!({ "name": metadata.name, "namespace": namespace, "labels": labels }),
        None => json!({ "name": metadata.name, "labels": labels }),
    };
    document.insert("metadata".into(), kept);
    document.into()
}

/// An error with its causes: the first ones do not say what happened.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
