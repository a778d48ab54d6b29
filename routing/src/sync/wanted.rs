//! What the rest of the program wants in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::table::{Place, Table};
use crate::netlink::{Mac, Neighbour};
use crate::nexthop::Resilience;
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
    /// How the groups that learned routes go over are resilient; `None`: they are not.
    pub resilience: Option<Resilience>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metric: DEFAULT_METRIC,
            preferred_source_v4: None,
            preferred_source_v6: None,
            own_blocks: BTreeSet::new(),
            resilience: None,
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
    pub next_hops: NextHopRefs,
    /// The next hops of the best of those paths that need no learned route themselves, by which the route leads to other next hops;
    /// `None`: the same.
    pub direct: Option<Box<NextHopRefs>>,
}

/// Next hops of a route, in no certain order.
pub type NextHopRefs = Arc<[NextHopRef]>;

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
pub(super) struct Set {
    /// In order, each once.
    pub(super) next_hops: Arc<[NextHopRef]>,
    /// What it resolves to.
    pub(super) legs: NextHops,
    /// The nexthop object that a route with it was given last.
    pub(super) object: Option<u32>,
    /// How many prefixes have it.
    prefixes: usize,
}

impl Set {
    /// Whether packets over it are to be dropped.
    pub(super) fn is_discard(&self) -> bool {
        self.next_hops.iter().any(NextHopRef::is_discard)
    }
}

/// Names a set for as long as prefixes have it.
pub(super) type SetId = u32;

/// The sets of next hops of learned routes, which are in the [`Table`]: a next hop that resolves anew touches its sets only.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// By which next hops a route leads to others, where that is not by its own.
    direct: BTreeMap<IpNet, NextHopRefs>,
    /// By their ids; none: the id is free.
    sets: Vec<Option<Set>>,
    free: Vec<SetId>,
    ids: BTreeMap<Arc<[NextHopRef]>, SetId>,
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
    /// Takes in a change of the route at this place. `resolve` is asked for the next hops of a set that was not in use before.
    pub(super) fn set(
        &mut self,
        change: RouteChange,
        (table, place): (&mut Table, Place),
        resolve: impl FnMut(&NextHopRef) -> Resolved,
    ) {
        let prefix = change.prefix.trunc();
        match change.direct {
            Some(direct) => drop(self.direct.insert(prefix, *direct)),
            None if self.direct.is_empty() => {}
            None => drop(self.direct.remove(&prefix)),
        }
        let id = (!change.next_hops.is_empty()).then(|| self.id_of(change.next_hops, resolve));
        if let Some(set) = id.and_then(|id| self.get_mut(id)) {
            set.prefixes = set.prefixes.saturating_add(1);
        }
        if let Some(before) = table.learn(place, id) {
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
                let legs = merge(&next_hops, &self.lost, resolve);
                let set = Set { next_hops: Arc::clone(&next_hops), legs, object: None, prefixes: 0 };
                let id = self.insert(set);
                self.ids.insert(next_hops, id);
                id
            }
        };
        self.latest = Some((told, id));
        id
    }

    fn insert(&mut self, set: Set) -> SetId {
        if let Some(id) = self.free.pop()
            && let Some(free) = self.sets.get_mut(id as usize)
        {
            *free = Some(set);
            return id;
        }
        self.sets.push(Some(set));
        // So many sets do not fit in memory.
        SetId::try_from(self.sets.len().saturating_sub(1)).unwrap_or(SetId::MAX)
    }

    /// A set.
    pub(super) fn get(&self, id: SetId) -> Option<&Set> {
        self.sets.get(id as usize)?.as_ref()
    }

    /// The same, to change.
    pub(super) fn get_mut(&mut self, id: SetId) -> Option<&mut Set> {
        self.sets.get_mut(id as usize)?.as_mut()
    }

    /// Every set.
    fn sets(&self) -> impl Iterator<Item = (SetId, &Set)> {
        (0..).zip(&self.sets).filter_map(|(id, set)| Some((id, set.as_ref()?)))
    }

    fn leave(&mut self, id: SetId) {
        let Some(set) = self.get_mut(id) else { return };
        set.prefixes = set.prefixes.saturating_sub(1);
        if set.prefixes == 0
            && let Some(set) = self.sets.get_mut(id as usize).and_then(Option::take)
        {
            self.free.push(id);
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
        for (id, set) in (0..).zip(&mut self.sets).filter_map(|(id, set)| Some((id, set.as_mut()?))) {
            let before = set.legs.clone();
            if set.next_hops.iter().any(&concerns) {
                set.legs = merge(&set.next_hops, &self.lost, &mut resolve);
            }
            let others = moves.together.entry(before.clone()).or_insert_with(|| set.legs.clone());
            if *others != set.legs {
                moves.apart.insert(before.clone());
            }
            if before != set.legs {
                moves.sets.entry(before).or_default().insert(id);
            }
        }
        moves.together.retain(|from, to| from != to && !moves.apart.contains(from));
        moves
    }

    /// The sets that had these legs and have others.
    pub(super) fn moved_from(&self, moves: &Moves, legs: &BTreeSet<NextHops>) -> BTreeSet<SetId> {
        legs.iter().filter_map(|legs| moves.sets.get(legs)).flatten().copied().collect()
    }

    /// The sets that have these legs.
    pub(super) fn with_legs(&self, legs: &BTreeSet<NextHops>) -> BTreeSet<SetId> {
        self.sets().filter(|(_, set)| legs.contains(&set.legs)).map(|(id, _)| id).collect()
    }

    /// The next hops that routes use.
    pub(super) fn next_hops(&self) -> BTreeSet<NextHopRef> {
        self.ids.keys().flat_map(|next_hops| next_hops.iter().copied()).collect()
    }

    /// Those of a route by which it leads to other next hops; its set's, unless it was learned with others.
    pub(super) fn direct<'a>(&'a self, prefix: &IpNet, set: &'a Set) -> &'a [NextHopRef] {
        self.direct.get(prefix).unwrap_or(&set.next_hops)
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
