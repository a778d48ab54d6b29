//! What the rest of the program wants in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::netlink::{Mac, Neighbour};
use crate::resolve::{NextHopRef, Resolved};
use crate::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};

/// Metric of the unreachable routes for own blocks: apart from every metric in use, so that a /32 block and the
/// route to its one pod have different keys, and worse than all.
pub const OWN_BLOCK_METRIC: u32 = 4_278_198_272;
/// Metric of routes to pods on this node: better than any learned route's.
pub const POD_METRIC: u32 = 32;
/// Metric of learned routes unless configured otherwise.
pub const DEFAULT_METRIC: u32 = 64;

/// What holds for all routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Metric of learned routes.
    pub metric: u32,
    /// Preferred source of IPv4 routes; left out while no link has it.
    pub preferred_source_v4: Option<Ipv4Addr>,
    /// Preferred source of IPv6 routes; left out while no link has it.
    pub preferred_source_v6: Option<Ipv6Addr>,
    /// This node's blocks, kept as unreachable routes so that a miss never leaves the node.
    pub own_blocks: BTreeSet<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metric: DEFAULT_METRIC,
            preferred_source_v4: None,
            preferred_source_v6: None,
            own_blocks: BTreeSet::new(),
        }
    }
}

impl Settings {
    /// The preferred source of routes to `destination`.
    pub fn preferred_source(&self, destination: IpNet) -> Option<IpAddr> {
        match destination {
            IpNet::V4(_) => self.preferred_source_v4.map(IpAddr::V4),
            IpNet::V6(_) => self.preferred_source_v6.map(IpAddr::V6),
        }
    }
}

/// A learned route: the BGP next hops it is to be installed with, none to remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The destination.
    pub prefix: IpNet,
    /// All next hops of the best paths (ECMP); empty withdraws the route.
    pub next_hops: Vec<NextHopRef>,
    /// The next hops of the best of those paths that need no learned route themselves, by which the route leads to other next hops;
    /// `None`: the same.
    pub direct: Option<Vec<NextHopRef>>,
}

/// The route and the neighbour entry of one address of one pod on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRoute {
    /// The pod's address.
    pub address: IpAddr,
    /// Index of the host end of the pod's veth. Unlike its name, no later link has it.
    pub link: u32,
    /// The MAC address of the pod's end.
    pub mac: Mac,
}

impl PodRoute {
    /// The key of the route to the pod.
    pub fn key(&self) -> RouteKey {
        RouteKey::new(self.address.into(), POD_METRIC)
    }

    /// The route, out of the host end.
    pub fn route(&self, preferred_source: Option<IpAddr>) -> Route {
        Route {
            key: self.key(),
            protocol: Protocol::WEFT_PODS,
            action: Action::Forward(NextHop::on_link(self.link).into()),
            preferred_source,
        }
    }

    /// The permanent neighbour entry, on the host end.
    pub fn neighbour(&self) -> Neighbour {
        Neighbour { link: self.link, address: self.address, mac: self.mac }
    }
}

/// A set of BGP next hops, shared by the prefixes that use it.
type NextHopSet = Arc<[NextHopRef]>;

/// The prefixes that share a set of next hops, and the legs the set resolves to.
#[derive(Debug, Default)]
struct Group {
    prefixes: BTreeSet<IpNet>,
    legs: NextHops,
}

/// Learned routes, grouped by their next hops: a next hop that resolves anew touches its groups only.
#[derive(Debug, Default)]
pub(super) struct Learned {
    routes: BTreeMap<IpNet, NextHopSet>,
    groups: BTreeMap<NextHopSet, Group>,
    /// By which next hops a route leads to others, where that is not by its own.
    direct: BTreeMap<IpNet, Arc<[NextHopRef]>>,
}

impl Learned {
    /// Takes in a change. `resolve` is asked for the next hops of a set that was not in use before.
    pub(super) fn set(&mut self, change: RouteChange, resolve: impl Fn(&NextHopRef) -> Resolved) {
        let prefix = change.prefix.trunc();
        match change.direct {
            Some(direct) => self.direct.insert(prefix, direct.into()),
            None => self.direct.remove(&prefix),
        };
        let next_hops: BTreeSet<NextHopRef> = change.next_hops.into_iter().collect();
        let next_hops: NextHopSet = next_hops.into_iter().collect();
        if let Some(before) = self.routes.remove(&prefix)
            && let Some(group) = self.groups.get_mut(&before)
        {
            group.prefixes.remove(&prefix);
            if group.prefixes.is_empty() && before != next_hops {
                self.groups.remove(&before);
            }
        }
        if next_hops.is_empty() {
            return;
        }
        let group = self
            .groups
            .entry(Arc::clone(&next_hops))
            .or_insert_with(|| Group { prefixes: BTreeSet::new(), legs: merge(&next_hops, &resolve) });
        group.prefixes.insert(prefix);
        self.routes.insert(prefix, next_hops);
    }

    /// Resolves every group again that has a next hop which `concerns`; returns the prefixes whose legs changed.
    pub(super) fn resolve(
        &mut self,
        concerns: impl Fn(&NextHopRef) -> bool,
        resolve: impl Fn(&NextHopRef) -> Resolved,
    ) -> Vec<IpNet> {
        let mut changed = Vec::new();
        for (next_hops, group) in &mut self.groups {
            if !next_hops.iter().any(&concerns) {
                continue;
            }
            let legs = merge(next_hops, &resolve);
            if group.legs != legs {
                group.legs = legs;
                changed.extend(&group.prefixes);
            }
        }
        changed
    }

    /// The next hops that routes use.
    pub(super) fn next_hops(&self) -> BTreeSet<NextHopRef> {
        self.groups.keys().flat_map(|next_hops| next_hops.iter().copied()).collect()
    }

    /// The next hops of the route to `prefix`; none: it is not learned.
    pub(super) fn next_hops_of(&self, prefix: &IpNet) -> &[NextHopRef] {
        self.routes.get(prefix).map_or(&[], |next_hops| &**next_hops)
    }

    /// Those by which the route to `prefix` leads to other next hops.
    pub(super) fn direct(&self, prefix: &IpNet) -> &[NextHopRef] {
        self.direct.get(prefix).map_or_else(|| self.next_hops_of(prefix), |direct| &**direct)
    }

    /// The legs of the route to `prefix`: `None` when it is not learned, empty when no next hop resolves.
    pub(super) fn legs(&self, prefix: &IpNet) -> Option<&NextHops> {
        self.routes.get(prefix).and_then(|next_hops| self.groups.get(next_hops)).map(|group| &group.legs)
    }

    /// Whether packets to a learned prefix are to be dropped.
    pub(super) fn is_discarded(&self, prefix: &IpNet) -> bool {
        self.routes.get(prefix).is_some_and(|next_hops| next_hops.iter().any(NextHopRef::is_discard))
    }

    /// The learned prefixes, in order.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.routes.keys()
    }
}

fn merge(next_hops: &[NextHopRef], resolve: &impl Fn(&NextHopRef) -> Resolved) -> NextHops {
    next_hops.iter().flat_map(|next_hop| resolve(next_hop).legs.iter().copied().collect::<Vec<_>>()).collect()
}
