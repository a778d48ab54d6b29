//! What the rest of the program wants in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

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
    /// All next hops of the best paths (ECMP); empty withdraws the route. Shared by routes that have the same: such cost least one behind
    /// the other.
    pub next_hops: Arc<[NextHopRef]>,
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

/// A set of BGP next hops.
#[derive(Debug)]
struct Set {
    /// In order, each once.
    next_hops: Arc<[NextHopRef]>,
    /// What it resolves to.
    legs: NextHops,
    /// How many prefixes have it.
    prefixes: usize,
}

/// Names a set for as long as prefixes have it.
type SetId = u32;

/// Learned routes by their sets of next hops: a next hop that resolves anew touches its sets only.
#[derive(Debug, Default)]
pub(super) struct Learned {
    routes: FxHashMap<IpNet, SetId>,
    /// By which next hops a route leads to others, where that is not by its own.
    direct: BTreeMap<IpNet, Arc<[NextHopRef]>>,
    sets: BTreeMap<SetId, Set>,
    ids: BTreeMap<Arc<[NextHopRef]>, SetId>,
    last: SetId,
    /// The set that a route was given last, as it was told: most routes have that of the one before.
    latest: Option<(Arc<[NextHopRef]>, SetId)>,
    /// Next hops that nobody offers any more, though routes with them are not told anew yet.
    lost: BTreeSet<NextHopRef>,
}

/// What follows from next hops that resolve anew.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Legs that all routes with them leave for these others.
    pub(super) together: BTreeMap<NextHops, NextHops>,
    /// Legs that some leave for others, or for none.
    pub(super) apart: BTreeSet<NextHops>,
    /// The sets that had each.
    sets: BTreeMap<NextHops, BTreeSet<SetId>>,
}

impl Learned {
    /// Takes in a change. `resolve` is asked for the next hops of a set that was not in use before.
    pub(super) fn set(&mut self, change: RouteChange, resolve: impl FnMut(&NextHopRef) -> Resolved) {
        let prefix = change.prefix.trunc();
        match change.direct {
            Some(direct) => drop(self.direct.insert(prefix, direct.into())),
            None => drop(self.direct.remove(&prefix)),
        }
        if change.next_hops.is_empty() {
            if let Some(set) = self.routes.remove(&prefix) {
                self.leave(set);
            }
            return;
        }
        let id = self.id_of(change.next_hops, resolve);
        if let Some(set) = self.sets.get_mut(&id) {
            set.prefixes = set.prefixes.saturating_add(1);
        }
        if let Some(before) = self.routes.insert(prefix, id) {
            self.leave(before);
        }
    }

    fn id_of(&mut self, told: Arc<[NextHopRef]>, resolve: impl FnMut(&NextHopRef) -> Resolved) -> SetId {
        if let Some((latest, id)) = &self.latest
            && (Arc::ptr_eq(latest, &told) || *latest == told)
        {
            return *id;
        }
        let in_order: BTreeSet<NextHopRef> = told.iter().copied().collect();
        let next_hops: Arc<[NextHopRef]> = in_order.into_iter().collect();
        let id = match self.ids.get(&next_hops) {
            Some(id) => *id,
            None => {
                while self.sets.contains_key(&self.last) {
                    self.last = self.last.wrapping_add(1);
                }
                let legs = merge(&next_hops, &self.lost, resolve);
                self.sets.insert(self.last, Set { next_hops: Arc::clone(&next_hops), legs, prefixes: 0 });
                self.ids.insert(next_hops, self.last);
                self.last
            }
        };
        self.latest = Some((told, id));
        id
    }

    fn leave(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        set.prefixes = set.prefixes.saturating_sub(1);
        if set.prefixes == 0
            && let Some(set) = self.sets.remove(&id)
        {
            self.ids.remove(&set.next_hops);
            self.latest.take_if(|(_, latest)| *latest == id);
            self.lost.retain(|lost| self.ids.keys().any(|next_hops| next_hops.contains(lost)));
        }
    }

    /// Notes that nobody offers these next hops any more. Says whether any are in use.
    pub(super) fn lose(&mut self, next_hops: impl IntoIterator<Item = NextHopRef>) -> bool {
        let in_use = self.next_hops();
        let before = self.lost.len();
        self.lost.extend(next_hops.into_iter().filter(|next_hop| in_use.contains(next_hop)));
        self.lost.len() != before
    }

    /// Notes that somebody offers a next hop. Says whether that is news.
    pub(super) fn find(&mut self, next_hop: &NextHopRef) -> bool {
        !self.lost.is_empty() && self.lost.remove(next_hop)
    }

    /// Resolves every set again that has a next hop which `concerns`.
    pub(super) fn resolve(
        &mut self,
        concerns: impl Fn(&NextHopRef) -> bool,
        mut resolve: impl FnMut(&NextHopRef) -> Resolved,
    ) -> Moves {
        let mut moves = Moves::default();
        for (id, set) in &mut self.sets {
            let before = set.legs.clone();
            if set.next_hops.iter().any(&concerns) {
                set.legs = merge(&set.next_hops, &self.lost, &mut resolve);
            }
            let others = moves.together.entry(before.clone()).or_insert_with(|| set.legs.clone());
            if *others != set.legs {
                moves.apart.insert(before.clone());
            }
            if before != set.legs {
                moves.sets.entry(before).or_default().insert(*id);
            }
        }
        moves.together.retain(|from, to| from != to && !moves.apart.contains(from));
        moves
    }

    /// The prefixes whose sets had these legs and have others.
    pub(super) fn moved_from(&self, moves: &Moves, legs: &BTreeSet<NextHops>) -> Vec<IpNet> {
        let sets: BTreeSet<SetId> =
            legs.iter().filter_map(|legs| moves.sets.get(legs)).flatten().copied().collect();
        self.prefixes_of(&sets)
    }

    /// The prefixes that have these legs.
    pub(super) fn with_legs(&self, legs: &BTreeSet<NextHops>) -> Vec<IpNet> {
        let has = |(id, set): (&SetId, &Set)| legs.contains(&set.legs).then_some(*id);
        self.prefixes_of(&self.sets.iter().filter_map(has).collect())
    }

    fn prefixes_of(&self, sets: &BTreeSet<SetId>) -> Vec<IpNet> {
        if sets.is_empty() {
            return Vec::new();
        }
        self.in_order(|set| sets.contains(&set))
    }

    #[expect(clippy::disallowed_methods, reason = "they are sorted")]
    fn in_order(&self, is_meant: impl Fn(SetId) -> bool) -> Vec<IpNet> {
        let meant = self.routes.iter().filter(|(_, set)| is_meant(**set));
        let mut prefixes: Vec<IpNet> = meant.map(|(prefix, _)| *prefix).collect();
        prefixes.sort_unstable();
        prefixes
    }

    /// The next hops that routes use.
    pub(super) fn next_hops(&self) -> BTreeSet<NextHopRef> {
        self.ids.keys().flat_map(|next_hops| next_hops.iter().copied()).collect()
    }

    /// The next hops of the route to `prefix`; none: it is not learned.
    pub(super) fn next_hops_of(&self, prefix: &IpNet) -> &[NextHopRef] {
        self.routes.get(prefix).and_then(|set| self.sets.get(set)).map_or(&[], |set| &*set.next_hops)
    }

    /// Those by which the route to `prefix` leads to other next hops.
    pub(super) fn direct(&self, prefix: &IpNet) -> &[NextHopRef] {
        self.direct.get(prefix).map_or_else(|| self.next_hops_of(prefix), |direct| &**direct)
    }

    /// The legs of the route to `prefix`: `None` when it is not learned, empty when no next hop resolves.
    pub(super) fn legs(&self, prefix: &IpNet) -> Option<&NextHops> {
        self.routes.get(prefix).and_then(|set| self.sets.get(set)).map(|set| &set.legs)
    }

    /// The next hops of the route to `prefix`, and its legs.
    pub(super) fn get(&self, prefix: &IpNet) -> Option<(&[NextHopRef], &NextHops)> {
        let set = self.routes.get(prefix).and_then(|set| self.sets.get(set))?;
        Some((&set.next_hops, &set.legs))
    }

    /// The learned prefixes, in order.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.in_order(|_| true)
    }
}

/// The legs of next hops: of those that are offered, or of all where that leaves none.
fn merge(
    next_hops: &[NextHopRef],
    lost: &BTreeSet<NextHopRef>,
    mut resolve: impl FnMut(&NextHopRef) -> Resolved,
) -> NextHops {
    let legs = |next_hop: &NextHopRef| resolve(next_hop).legs.iter().copied().collect::<Vec<_>>();
    let offered = next_hops.iter().filter(|next_hop| !lost.contains(*next_hop));
    let mut legs = legs;
    let some: NextHops = offered.flat_map(&mut legs).collect();
    if some.is_empty() && !lost.is_empty() { next_hops.iter().flat_map(legs).collect() } else { some }
}
