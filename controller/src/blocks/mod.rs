//! Nodes and their blocks: who is given one of which pool, who gives one back.
//!
//! Every node that a pool is for has at least one block of it, before any pod asks, and gets another before the last is full.
//! A block is given by making an IPBlock that is named after it ([`name`]), so that the API server itself refuses to give one
//! twice. It comes back in steps: it is closed; its node gives no address of it any more and says, of just this state of the object, that
//! none is left ([`IPBlockStatus::released_generation`](crate::api::IPBlockStatus)); then it is deleted. Nothing but the last step is more
//! than a waste if it is done on old news.
//!
//! IPBlocks with other names were made by people, and are left to them.

mod keeper;
mod place;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

pub use self::keeper::Keeper;

use self::place::{Place, Places};
pub(crate) use self::space::Space;
use crate::api::{AllowedUse, Cidr, IPBlockSpec, IPPoolSpec, PodCidrSource};
use crate::cluster::{Cluster, Node};

/// How many blocks of one pool a node may have.
const BLOCKS_MAX: usize = 256;

/// What a node says of one of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How many of its addresses pods have, or had a moment ago.
    pub used: u64,
    /// How many a new pod could get.
    pub free: u64,
}

/// What nodes say of blocks. Of a block counts what its own node says: a node cannot speak for another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usages(BTreeMap<String, BTreeMap<IpNet, Usage>>);

impl Usages {
    /// Takes down what a node says of a block, in place of what it said before.
    pub fn put(&mut self, node: impl Into<String>, block: IpNet, usage: Usage) {
        self.0.entry(node.into()).or_default().insert(block, usage);
    }

    /// What its own node says of a block.
    #[must_use]
    pub fn of(&self, block: &IPBlockSpec) -> Option<Usage> {
        self.0.get(&block.node)?.get(&block.cidr.net()).copied()
    }
}

/// What to do to an IPBlock. Each is done only if the IPBlock is still what it was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it.
    Give {
        /// Its name.
        name: String,
        /// What it says.
        spec: IPBlockSpec,
    },
    /// Close it.
    Close {
        /// Its name.
        name: String,
    },
    /// Delete it: it is closed, and its node has given it up, or its node is gone.
    Return {
        /// Its name.
        name: String,
        /// Whether its node need not have given it up.
        orphaned: bool,
    },
}

impl Change {
    /// The IPBlock's name.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Give { name, .. } | Self::Close { name } | Self::Return { name, .. }) = self;
        name
    }
}

/// A wish of a pool that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    /// The IPPool.
    pub pool: String,
    /// The Node.
    pub node: String,
    /// What is short.
    pub of: Short,
}

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Short {
    /// Every block of the pool is taken.
    Blocks,
    /// No prefix is left for the nodes that stand together: the block is among others' blocks.
    Prefixes,
    /// The node has as many blocks as a node may have.
    Room,
}

/// What should be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub changes: Vec<Change>,
    /// In order.
    pub shortages: Vec<Shortage>,
}

/// What the plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Everything there is.
    pub cluster: &'a Cluster,
    /// What nodes said of their blocks last.
    pub usage: &'a Usages,
    /// The names of IPBlocks that their nodes have given up.
    pub released: &'a BTreeSet<String>,
    /// The names of IPBlocks that are there and not in force.
    pub refused: &'a BTreeSet<String>,
    /// The Nodes that blocks are named for and that have been gone for long.
    pub gone: &'a BTreeSet<String>,
}

/// The name of the IPBlock of a block: the same of the same block, and a DNS subdomain (RFC 1123).
#[must_use]
pub fn name(block: IpNet) -> String {
    format!("{}-{}", name_of_address(block.network()), block.prefix_len())
}

/// The block that an IPBlock of this name would be made for.
fn block_of_name(text: &str) -> Option<IpNet> {
    let (address, len) = text.rsplit_once('-')?;
    let address = address.parse::<IpAddr>().or_else(|_| address.replace('-', ":").parse()).ok()?;
    IpNet::new(address, len.parse().ok()?).ok().filter(|block| name(*block) == text)
}

/// The blocks that cannot be given because an IPBlock has their name, whatever it says. Only those that might be: a name of a larger block
/// stands in nobody's way.
fn named(view: View<'_>) -> impl Iterator<Item = IpNet> {
    let names = view.cluster.blocks.keys().chain(view.refused);
    names.filter_map(|name| block_of_name(name)).filter(move |block| {
        view.cluster.pod_pool_of(*block).is_some_and(|(_, pool)| pool.block_len() == block.prefix_len())
    })
}

/// An address as a DNS subdomain (RFC 1123), the same of the same address.
pub(crate) fn name_of_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let groups: Vec<String> = v6.segments().iter().map(|group| format!("{group:x}")).collect();
            groups.join("-")
        }
    }
}

/// What should be done to the IPBlocks.
#[must_use]
pub fn plan(view: View<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut space = Space::default();
    let pod_cidrs = view.cluster.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
    let blocks = view.cluster.blocks.values().map(|block| block.cidr.net());
    blocks.chain(pod_cidrs).chain(named(view)).for_each(|net| space.take(net));
    let owned = owned(view);
    let pools = view.cluster.pools.iter();
    let pools = pools.filter(|(_, pool)| !pool.disabled && pool.is_for(AllowedUse::Workload));
    for (pool_name, pool) in pools {
        let mut places = Places::of(view.cluster, pool);
        for (node_name, node) in
            view.cluster.nodes.iter().filter(|(_, node)| entitled(view.cluster, pool, node))
        {
            let own =
                owned.get(&(node_name.as_str(), Some(pool_name.as_str()))).map_or(&[][..], Vec::as_slice);
            match need(pool, own) {
                Need::Nothing => {}
                Need::Fewer(name) => plan.changes.push(Change::Close { name }),
                Need::More if own.len() >= BLOCKS_MAX => plan.short(pool_name, node_name, Short::Room),
                Need::More => match places.next(&mut space, node) {
                    Some(place) => plan.give(pool_name, node_name, place),
                    None => plan.short(pool_name, node_name, Short::Blocks),
                },
            }
        }
    }
    plan.changes.extend(unentitled(view, &owned));
    plan.changes.extend(returns(view));
    plan
}

impl Plan {
    fn give(&mut self, pool: &str, node: &str, place: Place) {
        let (Place::Good(block) | Place::Strange(block)) = place;
        if let Place::Strange(_) = place {
            self.short(pool, node, Short::Prefixes);
        }
        let spec = IPBlockSpec { cidr: Cidr::from(block), node: node.to_owned(), closed: false };
        self.changes.push(Change::Give { name: name(block), spec });
    }

    fn short(&mut self, pool: &str, node: &str, of: Short) {
        self.shortages.push(Shortage { pool: pool.to_owned(), node: node.to_owned(), of });
    }
}

/// One block of a node's.
struct Own<'a> {
    name: &'a str,
    closed: bool,
    managed: bool,
    usage: Option<Usage>,
}

/// The blocks of each node and pool, in order; those in no pool too.
fn owned<'a>(view: View<'a>) -> BTreeMap<(&'a str, Option<&'a str>), Vec<Own<'a>>> {
    let mut owned: BTreeMap<_, Vec<(IpNet, Own<'a>)>> = BTreeMap::new();
    for (name, spec) in &view.cluster.blocks {
        let cidr = spec.cidr.net();
        let pool = view.cluster.pod_pool_of(cidr);
        let own =
            Own { name, closed: spec.closed, managed: is_managed(name, spec), usage: view.usage.of(spec) };
        owned.entry((spec.node.as_str(), pool.map(|(name, _)| name))).or_default().push((cidr, own));
    }
    let in_order = |mut blocks: Vec<(IpNet, Own<'a>)>| {
        blocks.sort_by_key(|(cidr, _)| *cidr);
        blocks.into_iter().map(|(_, own)| own).collect()
    };
    owned.into_iter().map(|(whose, blocks)| (whose, in_order(blocks))).collect()
}

/// Whether an IPBlock is one of those that are made here.
fn is_managed(block_name: &str, spec: &IPBlockSpec) -> bool {
    block_name == name(spec.cidr.net())
}

/// Whether a node is to have blocks of a pool.
fn entitled(cluster: &Cluster, pool: &IPPoolSpec, node: &Node) -> bool {
    let from_pools = match cluster.pod_cidr_source() {
        PodCidrSource::Node => false,
        PodCidrSource::IPPool => true,
        PodCidrSource::Auto => node.pod_cidrs.is_empty(),
    };
    from_pools && pool.node_selector.as_ref().is_none_or(|selector| selector.matches(&node.labels))
}

/// What a node wants of a pool.
enum Need {
    Nothing,
    More,
    /// This one is to go.
    Fewer(String),
}

fn need(pool: &IPPoolSpec, own: &[Own<'_>]) -> Need {
    let host_bits = pool.cidr.net().max_prefix_len().saturating_sub(pool.block_len());
    let size = 1u64.checked_shl(host_bits.into()).unwrap_or(u64::MAX);
    // A block that its node has said nothing of is new.
    let free = |block: &Own<'_>| block.usage.map_or(size, |usage| usage.free);
    let open: Vec<&Own<'_>> = own.iter().filter(|block| !block.closed).collect();
    let all_free = open.iter().fold(0u64, |sum, block| sum.saturating_add(free(block)));
    if all_free < (size / 4).max(1) {
        return Need::More;
    }
    // The last one goes first. With it gone there must be more room left than calls for another.
    let spare =
        open.iter().rev().find(|block| block.managed && block.usage.is_some_and(|usage| usage.used == 0));
    match spare {
        Some(block) if open.len() > 1 && all_free.saturating_sub(free(block)) >= (size / 2).max(1) => {
            Need::Fewer(block.name.to_owned())
        }
        _ => Need::Nothing,
    }
}

/// Closes the blocks that are their nodes' no more: of pools that are not for them, and of no pool.
fn unentitled(view: View<'_>, owned: &BTreeMap<(&str, Option<&str>), Vec<Own<'_>>>) -> Vec<Change> {
    let keeps = |node: &str, pool: Option<&str>| {
        let Some(node) = view.cluster.nodes.get(node) else { return true };
        let Some(pool) = pool.and_then(|pool| view.cluster.pools.get(pool)) else { return false };
        pool.disabled || entitled(view.cluster, pool, node)
    };
    let strange = owned.iter().filter(|((node, pool), _)| !keeps(node, *pool)).flat_map(|(_, blocks)| blocks);
    let open = strange.filter(|block| block.managed && !block.closed);
    open.map(|block| Change::Close { name: block.name.to_owned() }).collect()
}

fn returns(view: View<'_>) -> impl Iterator<Item = Change> {
    let managed = view.cluster.blocks.iter().filter(|(name, spec)| is_managed(name, spec));
    managed.filter_map(move |(name, spec)| {
        let orphaned = view.gone.contains(&spec.node) && !view.cluster.nodes.contains_key(&spec.node);
        let given_up = spec.closed && view.released.contains(name);
        (orphaned || given_up).then(|| Change::Return { name: name.clone(), orphaned })
    })
}

#[cfg(test)]
mod tests;
