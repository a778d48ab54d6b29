//! What is done and not seen yet, and who has been gone since when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Change, Plan, Usages, View, plan};
use crate::api::IPBlockSpec;
use crate::cluster::{Cluster, Kind, Object};

/// How long a change that was made is taken for granted although the watch does not show it.
const ASSUMED: Duration = Duration::from_secs(30);

/// Plans again and again. Time is an argument.
#[derive(Debug)]
pub struct Keeper {
    grace: Duration,
    /// What IPBlocks are by the answers to our writes, or that they are no more, and until when that is believed.
    assumed: BTreeMap<String, (Option<IPBlockSpec>, Instant)>,
    /// Since when Nodes are seen to be gone that have blocks.
    gone: BTreeMap<String, Instant>,
}

impl Keeper {
    /// `grace` is how long a Node must be gone before its blocks are others'.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, assumed: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// What should be done now.
    pub fn plan(
        &mut self,
        now: Instant,
        cluster: &Cluster,
        usage: &Usages,
        released: &BTreeSet<String>,
        refused: &BTreeSet<String>,
    ) -> Plan {
        let cluster = self.with_assumed(now, cluster);
        self.look_for_gone(now, &cluster);
        let long_gone = |since: &Instant| now.saturating_duration_since(*since) >= self.grace;
        let gone =
            self.gone.iter().filter(|(_, since)| long_gone(since)).map(|(node, _)| node.clone()).collect();
        plan(View { cluster: &cluster, usage, released, refused, gone: &gone })
    }

    /// When the plan changes although nothing else does.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let gone = self.gone.values().filter_map(|since| since.checked_add(self.grace));
        let assumed = self.assumed.values().map(|(_, until)| *until);
        // What is over is in the plan already.
        gone.chain(assumed).filter(|deadline| *deadline > now).min()
    }

    /// Takes a change for granted that was made.
    pub fn made(&mut self, now: Instant, change: &Change, before: Option<&IPBlockSpec>) {
        let spec = match change {
            Change::Give { spec, .. } => Some(spec.clone()),
            Change::Close { .. } => before.map(|spec| IPBlockSpec { closed: true, ..spec.clone() }),
            Change::Return { .. } => None,
        };
        self.assumed.insert(change.name().to_owned(), (spec, now + ASSUMED));
    }

    fn with_assumed(&mut self, now: Instant, cluster: &Cluster) -> Cluster {
        self.assumed.retain(|name, (assumed, until)| {
            now < *until && cluster.blocks.get(name).map(AsRef::as_ref) != assumed.as_ref()
        });
        let mut cluster = cluster.clone();
        for (name, (assumed, _)) in &self.assumed {
            match assumed {
                Some(spec) => cluster.apply(name.clone(), Object::IpBlock(spec.clone().into())),
                None => cluster.delete(Kind::IpBlock, name),
            }
        }
        cluster
    }

    fn look_for_gone(&mut self, now: Instant, cluster: &Cluster) {
        let named: BTreeSet<&String> = cluster.blocks.values().map(|block| &block.node).collect();
        let gone: BTreeSet<&String> =
            named.into_iter().filter(|node| !cluster.nodes.contains_key(*node)).collect();
        self.gone.retain(|node, _| gone.contains(node));
        for node in gone {
            self.gone.entry(node.clone()).or_insert(now);
        }
    }
}
