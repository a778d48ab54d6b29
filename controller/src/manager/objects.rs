//! Objects of one kind, as they are now.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::kubernetes::Pauses;

/// How many objects one answer may hold.
const PAGE: u32 = 100;

/// What counts of each object, by name and, where there is one, Namespace; nothing before they were listed.
pub(super) type Objects<T> = Option<BTreeMap<String, Arc<T>>>;

/// Watches the objects of a kind until the receiver is gone. `read` takes what counts of an object, if anything does.
pub(super) fn follow<K, T>(
    api: Api<K>,
    what: &'static str,
    read: fn(&K) -> Option<T>,
) -> watch::Receiver<Objects<T>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send + Sync + 'static,
{
    let (told, objects) = watch::channel(None);
    let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
    let mut news = watcher::watcher(api, config).backoff(Pauses::default()).boxed();
    tokio::spawn(async move {
        let mut listing = BTreeMap::new();
        let mut failed = false;
        loop {
            let event = tokio::select! {
                event = news.next() => event,
                () = told.closed() => return,
            };
            match event {
                Some(Ok(Event::Init)) => listing = BTreeMap::new(),
                Some(Ok(Event::InitApply(object))) => drop(put(&mut listing, &object, read)),
                Some(Ok(Event::InitDone)) => {
                    failed = false;
                    told.send_replace(Some(std::mem::take(&mut listing)));
                }
                Some(Ok(Event::Apply(object))) => drop(told.send_if_modified(|objects| {
                    objects.as_mut().is_some_and(|objects| put(objects, &object, read))
                })),
                Some(Ok(Event::Delete(object))) => drop(told.send_if_modified(|objects| {
                    objects.as_mut().is_some_and(|objects| objects.remove(&name(&object)).is_some())
                })),
                Some(Err(error)) => {
                    if !failed {
                        tracing::warn!(%error, "cannot watch {what}");
                    }
                    failed = true;
                }
                None => return,
            }
        }
    });
    objects
}

/// Whether that changed anything: most objects count for nothing.
fn put<K: Resource, T>(
    objects: &mut BTreeMap<String, Arc<T>>,
    object: &K,
    read: fn(&K) -> Option<T>,
) -> bool {
    match read(object) {
        Some(counts) => {
            objects.insert(name(object), Arc::new(counts));
            true
        }
        None => objects.remove(&name(object)).is_some(),
    }
}

/// As `NAMESPACE/NAME`, where it is in one.
fn name<K: Resource>(object: &K) -> String {
    match &object.meta().namespace {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
