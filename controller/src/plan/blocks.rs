//! The node's blocks, the pools that they are of, and who gets addresses of those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;

use crate::api::json::Problem;
use crate::api::{AssignmentMode, IPPoolSpec};
use crate::cluster::Cluster;

/// One block of the node's: announced, and unreachable in the kernel but for the pods' own routes, whatever its state, unless it is
/// another Node's by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block.
    pub cidr: IpNet,
    /// The name of the IPBlock that gives it to the node, if one does.
    pub object: Option<String>,
    /// The pool that it lies in.
    pub pool: Option<String>,
    /// Whether new pods get addresses of it.
    pub state: BlockState,
    /// The other Node that the documents give it to, or a part of it, where pods here still have addresses of it.
    pub owner: Option<String>,
    /// How long an address rests before it is given out again.
    pub cooldown: Duration,
}

/// Whether new pods get addresses of a block, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// They do.
    Open,
    /// Its pool is disabled.
    Disabled,
    /// Its IPBlock says so.
    Closed,
    /// It is not the node's any more, and goes with the last pod that has an address of it.
    Leaving,
}

impl Block {
    /// Whether it is the node's to announce. Where two nodes did, the new owner's pods would be cut off from some of the network; the pods
    /// here keep their own routes.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.owner.is_none()
    }
}

/// Who gets addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The Namespaces whose pods it is for; none: it is for all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Whether it is used without being asked for by name.
    pub automatic: bool,
}

/// The blocks that the documents give to a node, and those of `held` that they do not, in order.
pub(super) fn blocks(cluster: &Cluster, node: &str, held: &BTreeSet<IpNet>) -> Vec<Block> {
    let given = cluster.blocks_of(node);
    let mut leaving = held.iter().filter(|cidr| !given.contains(cidr)).peekable();
    let all = if leaving.peek().is_some() { cluster.blocks_by_node() } else { BTreeMap::new() };
    let owner = |cidr: &IpNet| {
        let overlaps = |block: &IpNet| block.contains(cidr) || cidr.contains(block);
        let mut owners = all.iter().filter(|(name, blocks)| **name != node && blocks.iter().any(overlaps));
        owners.next().map(|(name, _)| (*name).to_owned())
    };
    let mut blocks: Vec<Block> = given.iter().map(|cidr| block(cluster, *cidr, true)).collect();
    blocks.extend(leaving.map(|cidr| Block { owner: owner(cidr), ..block(cluster, *cidr, false) }));
    blocks.sort_by_key(|block| block.cidr);
    blocks
}

fn block(cluster: &Cluster, cidr: IpNet, given: bool) -> Block {
    let pool = cluster.pod_pool_of(cidr);
    let object = cluster.blocks.iter().find(|(_, block)| given && block.cidr.net() == cidr);
    let state = match pool {
        _ if !given => BlockState::Leaving,
        _ if object.is_some_and(|(_, block)| block.closed) => BlockState::Closed,
        Some((_, pool)) if pool.disabled => BlockState::Disabled,
        _ => BlockState::Open,
    };
    let cooldown = pool.map_or(IPPoolSpec::COOLDOWN, |(_, pool)| pool.cooldown());
    let object = object.map(|(name, _)| name.clone());
    Block { cidr, object, pool: pool.map(|(name, _)| name.to_owned()), state, owner: None, cooldown }
}

/// The pools of these blocks, by name.
pub(super) fn pools(cluster: &Cluster, blocks: &[Block]) -> BTreeMap<String, Pool> {
    let named = of_blocks(cluster, blocks).map(|(name, spec)| {
        let namespaces = spec.namespace_selector.as_ref().map(|selector| {
            let selected = cluster.namespaces.iter().filter(|(_, labels)| selector.matches(labels));
            selected.map(|(namespace, _)| namespace.clone()).collect()
        });
        let automatic = spec.assignment_mode == AssignmentMode::Automatic;
        (name.clone(), Pool { namespaces, automatic })
    });
    named.collect()
}

/// The reserved ranges of the pools of these blocks.
pub(super) fn reserved(cluster: &Cluster, blocks: &[Block]) -> BTreeSet<IpNet> {
    of_blocks(cluster, blocks).flat_map(|(_, spec)| &spec.reserved).map(|cidr| cidr.net()).collect()
}

fn of_blocks<'a>(
    cluster: &'a Cluster,
    blocks: &[Block],
) -> impl Iterator<Item = (&'a String, &'a IPPoolSpec)> {
    let names: BTreeSet<&String> = blocks.iter().filter_map(|block| block.pool.as_ref()).collect();
    let names: BTreeSet<String> = names.into_iter().cloned().collect();
    cluster
        .pools
        .iter()
        .filter(move |(name, _)| names.contains(*name))
        .map(|(name, spec)| (name, spec.as_ref()))
}

/// What is noteworthy of them.
pub(super) fn diagnose(blocks: &[Block], pools: &BTreeMap<String, Pool>) -> Vec<Problem> {
    let leaving = blocks.iter().filter(|block| block.state == BlockState::Leaving).map(|block| match &block.owner {
        Some(owner) => Problem::error(
            "block-taken",
            format!(
                "the documents give the block {}, or a part of it, to the Node {owner}, and pods on this node still have \
                 addresses of it: this node does not announce it, and from elsewhere these pods are not reached",
                block.cidr
            ),
            format!(
                "delete the pods that weftctl ipam show lists in it, so that they get other addresses, or take the block from \
                 {owner} and give it back to this node"
            ),
        ),
        None => Problem::warning(
            "block-closed",
            format!(
                "the block {} is not this node's any more, and pods still have addresses of it: it stays announced, and new \
                 pods get no address of it; other nodes may reject it, as they go by the documents",
                block.cidr
            ),
            "move the pods that weftctl ipam show lists, or give the block back to the node; it goes with its last address",
        ),
    });
    let nobodys = pools.iter().filter(|(_, pool)| pool.namespaces.as_ref().is_some_and(BTreeSet::is_empty));
    let nobodys = nobodys.map(|(name, _)| {
        Problem::warning(
            "pool-without-namespaces",
            format!("the namespaceSelector of IPPool {name} selects no Namespace: no pod gets an address of it unasked"),
            "add the Namespaces' documents, correct the selector, or leave it out for all namespaces",
        )
    });
    leaving.chain(nobodys).collect()
}
