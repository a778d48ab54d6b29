//! Where in a pool a node's next block is taken.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::space::Space;
use crate::api::{IPPoolSpec, Topology};
use crate::cluster::{Cluster, Node};

/// Nodes that stand together: the value of the label, if they have it. Of a node that is gone nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Of(Option<String>),
    Unknown,
}

/// Where the blocks of one pool go.
pub(super) struct Places<'a> {
    pool: &'a IPPoolSpec,
    /// Of a pool with a topology: whose blocks each of its prefixes has.
    groups: BTreeMap<IpNet, BTreeSet<Group>>,
}

/// A place for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As the pool wants it.
    Good(IpNet),
    /// Among the blocks of other nodes than it should be: there is no other place left.
    Strange(IpNet),
}

impl<'a> Places<'a> {
    pub(super) fn of(cluster: &Cluster, pool: &'a IPPoolSpec) -> Self {
        let mut places = Self { pool, groups: BTreeMap::new() };
        let within = cluster.blocks.values().filter(|block| pool.cidr.net().contains(&block.cidr.net()));
        for block in within {
            places.note(block.cidr.net(), cluster.nodes.get(&block.node).map(AsRef::as_ref));
        }
        places
    }

    /// The next block for a node, which is then taken.
    pub(super) fn next(&mut self, space: &mut Space, node: &Node) -> Option<Place> {
        let len = self.pool.block_len();
        let pool = self.pool.cidr.net();
        let good = match &self.pool.topology {
            None => space.first_free(pool, len),
            Some(topology) => {
                let group = BTreeSet::from([group(topology, Some(node))]);
                let own =
                    self.groups.iter().filter(|(_, groups)| **groups == group).map(|(prefix, _)| *prefix);
                let prefixes = own.chain(space.first_free(pool, topology.prefix_length));
                prefixes.filter_map(|prefix| space.first_free(prefix, len)).next()
            }
        };
        let place = match good {
            Some(block) => Place::Good(block),
            None => Place::Strange(space.first_free(pool, len)?),
        };
        let (Place::Good(block) | Place::Strange(block)) = place;
        space.take(block);
        self.note(block, Some(node));
        Some(place)
    }

    fn note(&mut self, block: IpNet, node: Option<&Node>) {
        let Some(topology) = &self.pool.topology else { return };
        if let Ok(prefix) = IpNet::new(block.network(), topology.prefix_length) {
            self.groups.entry(prefix.trunc()).or_default().insert(group(topology, node));
        }
    }
}

fn group(topology: &Topology, node: Option<&Node>) -> Group {
    match node {
        Some(node) => Group::Of(node.labels.get(&topology.node_label).cloned()),
        None => Group::Unknown,
    }
}
