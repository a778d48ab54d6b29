//! What the nodes say of themselves, as far as it counts here.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use ipnet::IpNet;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use crate::api::{BGPNodeStatus, SessionReport};
use crate::blocks::{Usage, Usages};
use crate::kubernetes::Pauses;

/// How many objects one answer may hold.
const PAGE: u32 = 100;

/// The reports of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reports {
    nodes: BTreeMap<String, Report>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    blocks: Vec<(IpNet, Usage)>,
    sessions: Vec<SessionReport>,
}

impl Reports {
    /// How full the blocks are.
    pub(super) fn usage(&self) -> Usages {
        let mut usages = Usages::default();
        for (node, report) in &self.nodes {
            report.blocks.iter().for_each(|(block, usage)| usages.put(node, *block, *usage));
        }
        usages
    }

    /// The sessions of BGPPeers: the node's name, and the session.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&String, &SessionReport)> {
        self.nodes
            .iter()
            .flat_map(|(node, report)| report.sessions.iter().map(move |session| (node, session)))
    }

    /// The nodes that have reported.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    fn put(&mut self, object: &BGPNodeStatus) {
        let status = object.status.clone().unwrap_or_default();
        let blocks = status
            .blocks
            .iter()
            .map(|block| (block.cidr.net(), Usage { used: block.used, free: block.free }));
        // The mesh is nobody's object.
        let sessions = status.peers.into_iter().filter(|session| !session.name.starts_with("mesh:"));
        let report = Report { blocks: blocks.collect(), sessions: sessions.collect() };
        self.nodes.insert(object.name_any(), report);
    }
}

/// Watches them, until the receiver is gone. None: they were not listed yet.
pub(super) fn follow(client: Client) -> watch::Receiver<Option<Reports>> {
    let (told, reports) = watch::channel(None::<Reports>);
    let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
    let objects: Api<BGPNodeStatus> = Api::all(client);
    let mut news = watcher::watcher(objects, config).backoff(Pauses::default()).boxed();
    tokio::spawn(async move {
        let mut listing = Reports::default();
        loop {
            let event = tokio::select! {
                event = news.next() => event,
                () = told.closed() => return,
            };
            match event {
                Some(Ok(Event::Init)) => listing = Reports::default(),
                Some(Ok(Event::InitApply(object))) => listing.put(&object),
                Some(Ok(Event::InitDone)) => drop(told.send_replace(Some(std::mem::take(&mut listing)))),
                Some(Ok(Event::Apply(object))) => {
                    told.send_modify(|reports| reports.get_or_insert_default().put(&object));
                }
                Some(Ok(Event::Delete(object))) => {
                    told.send_modify(|reports| {
                        drop(reports.get_or_insert_default().nodes.remove(&object.name_any()));
                    });
                }
                // The watches of the documents tell of an API server that is away.
                Some(Err(error)) => tracing::debug!(%error, "cannot watch bgpnodestatuses"),
                None => return,
            }
        }
    });
    reports
}
