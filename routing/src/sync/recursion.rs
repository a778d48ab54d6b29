//! Next hops that learned routes lead to.
//!
//! Which learned routes lead to next hops does not depend on what they lead to: only the best of those paths count whose own next hops the
//! kernel's routes lead to, whatever else was learned. So how a next hop resolves is a function of the kernel's routes and of those paths,
//! the same in whatever order they came, and a path that becomes eligible by it never takes away what it resolves over.
//!
//! Until the sweep, what an earlier run left leads to next hops as well, where nothing was learned instead: so paths are eligible from the
//! start that were before, and their routes are not swept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::objects::Objects;
use super::table::Table;
use super::wanted::{Learned, Set, Settings};
use crate::resolve::{Lookup, NextHopRef, Resolution, Resolved, Topology};
use crate::route::{Action, NextHop, RouteKey};

/// How many learned routes one after the other may lead to a next hop.
const DEPTH: usize = 4;
/// How many next hops are looked at for the sake of one.
const LOOKUPS: usize = 256;

/// What a next hop is resolved by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recursion<'a> {
    pub(super) topology: &'a Topology,
    pub(super) learned: &'a Learned,
    pub(super) settings: &'a Settings,
    /// The keys of what an earlier run left, and our routes in the kernel, these among them.
    pub(super) adopted: &'a BTreeSet<RouteKey>,
    pub(super) table: &'a Table,
    pub(super) objects: &'a Objects,
}

/// How a next hop resolves.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) resolved: Resolved,
    /// The next hops, itself among them, that learned routes were asked about: another route to one of them may make it another answer.
    pub(super) over: BTreeSet<NextHopRef>,
}

/// A learned route that leads to a next hop, or one that an earlier run left.
struct Way {
    prefix: IpNet,
    next_hops: BTreeSet<NextHopRef>,
    /// Of what an earlier run left, in place of next hops.
    legs: Vec<NextHop>,
}

impl<'a> Recursion<'a> {
    /// Longest match over the kernel's routes and the learned ones, until none but the kernel's are left. Where that does not end, what
    /// the kernel's routes alone say.
    pub(super) fn resolve(self, next_hop: NextHopRef) -> Answer {
        let lookup = self.topology.look_up(next_hop);
        let mut over = BTreeSet::new();
        if lookup.open {
            over.insert(next_hop);
        }
        let resolved = match self.way(next_hop, &lookup) {
            Some(way) => {
                let prefix = way.prefix;
                match self.follow(next_hop, way, &mut over) {
                    Some((legs, worst)) => {
                        let (metric, direct) = match lookup.resolved.resolution {
                            Resolution::Gateway { metric } => (metric, true),
                            _ => (worst, false),
                        };
                        let resolution = Resolution::Recursive { over: prefix, metric, direct };
                        Resolved { resolution, legs: legs.into_iter().collect() }
                    }
                    None => too_deep(lookup.resolved, Some(prefix)),
                }
            }
            None => {
                let useless = lookup.open.then(|| self.useless_way(next_hop, &lookup)).flatten();
                too_deep(lookup.resolved, useless)
            }
        };
        Answer { resolved, over }
    }

    /// The legs that a way ends in, and the worst metric of the kernel's routes there; `None`: it is too long, or comes back.
    fn follow(
        self,
        next_hop: NextHopRef,
        way: Way,
        over: &mut BTreeSet<NextHopRef>,
    ) -> Option<(BTreeSet<NextHop>, u32)> {
        let (mut legs, mut worst): (BTreeSet<NextHop>, _) = (way.legs.into_iter().collect(), 0);
        let mut level = way.next_hops;
        for _ in 0..DEPTH {
            let mut below = BTreeSet::new();
            for hop in level {
                if hop.address == next_hop.address || over.len() > LOOKUPS {
                    return None;
                }
                let lookup = self.topology.look_up(hop);
                if lookup.open {
                    over.insert(hop);
                }
                if let Some(way) = self.way(hop, &lookup) {
                    below.extend(way.next_hops);
                    legs.extend(way.legs);
                    continue;
                }
                if let Resolution::Gateway { metric } = lookup.resolved.resolution {
                    worst = worst.max(metric);
                }
                legs.extend(lookup.resolved.legs.iter().copied());
            }
            if below.is_empty() {
                return Some((legs, worst));
            }
            level = below;
        }
        None
    }

    /// The most specific learned route to a next hop that comes before the kernel's.
    fn way(self, next_hop: NextHopRef, lookup: &Lookup) -> Option<Way> {
        self.covering(next_hop, lookup).find_map(|prefix| {
            let Some(set) = self.set(prefix) else {
                let legs = self.left(prefix);
                return (!legs.is_empty()).then(|| Way { prefix, next_hops: BTreeSet::new(), legs });
            };
            let direct = self.learned.direct(&prefix, set);
            // Its route is looked for, not the one over it.
            if direct.iter().any(|hop| hop.address == next_hop.address) {
                return None;
            }
            let reached = |hop: &&NextHopRef| self.topology.resolve(**hop).resolution.is_resolved();
            let next_hops: BTreeSet<NextHopRef> = direct.iter().filter(reached).copied().collect();
            (!next_hops.is_empty()).then(|| Way { prefix, next_hops, legs: Vec::new() })
        })
    }

    /// The next hops of the learned route to `prefix`.
    fn set(self, prefix: IpNet) -> Option<&'a Set> {
        self.learned.get(self.table.learned(&RouteKey::new(prefix, self.settings.metric))?)
    }

    /// The legs of the route to `prefix` that an earlier run left; none: it left none.
    fn left(self, prefix: IpNet) -> Vec<NextHop> {
        let key = RouteKey::new(prefix, self.settings.metric);
        let route = self.adopted.get(&key).and_then(|key| self.table.held(key));
        let legs = match route.as_deref().map(|route| &route.action) {
            Some(Action::Forward(legs)) => Some(legs),
            Some(Action::Object(id)) => self.objects.legs(*id),
            _ => None,
        };
        legs.map(|legs| self.topology.usable(legs).collect()).unwrap_or_default()
    }

    /// The most specific learned route to a next hop, which does not lead there: only for who asks why.
    fn useless_way(self, next_hop: NextHopRef, lookup: &Lookup) -> Option<IpNet> {
        self.covering(next_hop, lookup).find(|prefix| {
            let leads_elsewhere = |set: &Set| set.next_hops.iter().all(|hop| hop.address != next_hop.address);
            self.set(*prefix).is_some_and(leads_elsewhere)
        })
    }

    /// The prefixes that hold a next hop and come before the kernel's route there, most specific first.
    fn covering(self, next_hop: NextHopRef, lookup: &Lookup) -> impl Iterator<Item = IpNet> {
        let host = IpNet::from(next_hop.address);
        let (shortest, metric) =
            lookup.route.map_or((0, u32::MAX), |route| (route.destination().prefix_len(), route.metric()));
        let ours = self.settings.metric;
        let own = self.settings.own_blocks.iter().any(|block| block.contains(&host));
        let lengths = (shortest..=host.prefix_len()).rev().filter(move |length| {
            lookup.open
                && !own
                && (*length > 0 || next_hop.default_route)
                && (*length > shortest || ours < metric)
        });
        lengths.filter_map(move |length| Some(IpNet::new(host.addr(), length).ok()?.trunc()))
    }
}

/// What is not resolved, though there is a learned route.
fn too_deep(resolved: Resolved, over: Option<IpNet>) -> Resolved {
    match (resolved.resolution, over) {
        (Resolution::Unresolved, Some(over)) => {
            Resolved { resolution: Resolution::TooDeep { over }, ..resolved }
        }
        _ => resolved,
    }
}

/// Which next hops are to be resolved again when a learned route changes. Empty where all are on links.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Of each next hop that learned routes were asked about, those for whose sake it was.
    of: BTreeMap<NextHopRef, BTreeSet<NextHopRef>>,
    /// The other way round.
    over: BTreeMap<NextHopRef, BTreeSet<NextHopRef>>,
}

impl Dependents {
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Takes in what the resolution of a next hop depends on.
    pub(super) fn set(&mut self, next_hop: NextHopRef, over: BTreeSet<NextHopRef>) {
        if self.over.get(&next_hop).is_some_and(|before| *before == over) {
            return;
        }
        for hop in self.over.remove(&next_hop).into_iter().flatten() {
            if let Some(dependents) = self.of.get_mut(&hop) {
                dependents.remove(&next_hop);
                if dependents.is_empty() {
                    self.of.remove(&hop);
                }
            }
        }
        for hop in &over {
            self.of.entry(*hop).or_default().insert(next_hop);
        }
        if !over.is_empty() {
            self.over.insert(next_hop, over);
        }
    }

    /// Adds the next hops whose resolution a route to `prefix` may change.
    pub(super) fn concerned(&self, prefix: IpNet, concerned: &mut BTreeSet<NextHopRef>) {
        if self.of.is_empty() {
            return;
        }
        let bound = |address: IpAddr, default_route, link| NextHopRef { address, default_route, link };
        let first = bound(prefix.network(), false, None);
        let last = bound(prefix.broadcast(), true, Some(u32::MAX));
        concerned.extend(self.of.range(first..=last).flat_map(|(_, dependents)| dependents));
    }
}
