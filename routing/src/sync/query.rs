//! What can be asked of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::Engine;
use super::report::{self, Counters, FibEntry, RouteState};
use crate::netlink::Link;
use crate::resolve::{NextHopRef, Resolution, Topology};
use crate::route::{Action, Protocol, RouteKey};

impl Engine {
    /// Links, addresses and others' routes.
    pub fn topology(&self) -> &Topology {
        &self.view.topology
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many nexthop objects the kernel has of ours: single legs, and groups of them.
    pub fn nexthop_objects(&self) -> (usize, usize) {
        self.objects.count()
    }

    /// How many of the groups are resilient.
    pub fn resilient_groups(&self) -> usize {
        self.objects.count_resilient()
    }

    /// Why groups are not resilient though the settings say so: the kernel's words.
    pub fn not_resilient(&self) -> Option<&str> {
        self.objects.not_resilient()
    }

    /// How a next hop resolves now.
    pub fn resolution(&self, next_hop: NextHopRef) -> Resolution {
        self.recursion().resolve(next_hop).resolved.resolution
    }

    /// True when the learned route to `prefix` is in the kernel as wanted and no other route shadows it.
    pub fn is_installed(&self, prefix: IpNet) -> bool {
        let key = RouteKey::new(prefix, self.settings.metric);
        self.legs(key).is_some() && self.state(key) == RouteState::Installed
    }

    /// True when nothing is left to be done: every wanted route is installed, or known to be impossible now.
    pub fn is_settled(&self) -> bool {
        self.dumped_at.is_some()
            && self.table.unfinished() == 0
            && self.retries.is_empty()
            && self.resync_at.is_none()
    }

    /// The link-local gateways of what an earlier run left, by link: who its routers were. A link with several has none.
    pub fn adopted_routers(&self) -> BTreeMap<u32, Ipv6Addr> {
        let mut gateways: BTreeMap<u32, BTreeSet<Ipv6Addr>> = BTreeMap::new();
        for route in self.adopted.iter().filter_map(|key| self.table.held(key)) {
            let Some(legs) = self.legs_of(&route.action) else { continue };
            for leg in legs {
                if let Some(IpAddr::V6(gateway)) = leg.gateway
                    && gateway.is_unicast_link_local()
                {
                    gateways.entry(leg.link).or_default().insert(gateway);
                }
            }
        }
        gateways.retain(|_, gateways| gateways.len() == 1);
        gateways
            .into_iter()
            .filter_map(|(link, gateways)| Some((link, gateways.into_iter().next()?)))
            .collect()
    }

    /// Every route that is wanted or that the kernel has of ours, by destination and metric.
    pub fn fib(&self) -> Vec<FibEntry> {
        let mut keys = self.wanted_keys();
        keys.extend(self.table.routes().map(|route| route.key));
        keys.into_iter().map(|key| self.entry(key)).collect()
    }

    fn entry(&self, key: RouteKey) -> FibEntry {
        let name = |index| {
            let name = |link: &Link| link.name.clone();
            self.view.topology.link(index).map_or_else(|| index.to_string(), name)
        };
        let known = self.table.known(key);
        let (desired, actual) = (self.desired(&known), known.held.as_deref());
        let shown = desired.as_ref().or(actual);
        let pod = self.pods.get(&key.destination().addr()).is_some_and(|pod| pod.key() == key);
        let unmade = if pod { Protocol::WEFT_PODS } else { Protocol::WEFT };
        FibEntry {
            prefix: key.destination(),
            next_hops: shown
                .and_then(|route| self.legs_of(&route.action))
                .map(|legs| report::next_hops(legs, name))
                .unwrap_or_default(),
            resilient: actual.is_some_and(
                |route| matches!(route.action, Action::Object(id) if self.objects.is_resilient(id)),
            ),
            blackhole: shown.is_some_and(|route| route.action == Action::Blackhole),
            protocol: shown.map_or(unmade, |route| route.protocol).0,
            metric: key.metric(),
            state: self.state(key),
            over: self.over(key),
        }
    }

    /// The learned routes that lead to the next hops of a learned route.
    fn over(&self, key: RouteKey) -> BTreeSet<IpNet> {
        let set = self.table.learned(&key).and_then(|set| self.learned.get(set));
        let next_hops = set.into_iter().flat_map(|set| set.next_hops.iter());
        let over = |next_hop| match self.resolutions.get(next_hop)?.resolution {
            Resolution::Recursive { over, .. } => Some(over),
            _ => None,
        };
        next_hops.filter_map(over).collect()
    }

    fn state(&self, key: RouteKey) -> RouteState {
        let known = self.table.known(key);
        let (desired, actual) = (self.desired(&known), known.held.as_deref());
        let foreign = self.view.topology.foreign(&key.destination());
        let shadow = foreign.first().filter(|route| route.key.metric() <= key.metric());
        match (&desired, actual) {
            (Some(desired), Some(actual)) if desired == actual => match shadow {
                Some(foreign) => RouteState::Shadowed(foreign.protocol),
                None => RouteState::Installed,
            },
            (Some(_), None) if self.view.topology.holds(key) => {
                shadow.map_or(RouteState::Pending, |foreign| RouteState::Shadowed(foreign.protocol))
            }
            (Some(desired), Some(actual))
                if actual.protocol == Protocol::WEFT_PODS && desired.protocol != Protocol::WEFT_PODS =>
            {
                RouteState::Shadowed(actual.protocol)
            }
            (None, None)
                if self.view.topology.is_connected_worse(&key.destination(), key.metric())
                    && self.legs(key).is_some() =>
            {
                RouteState::Shadowed(Protocol::KERNEL)
            }
            (None, None) => RouteState::Unresolved,
            (None, Some(_)) if self.adopted.contains(&key) => RouteState::Adopted,
            (None, Some(actual)) if actual.protocol == Protocol::WEFT_PODS => RouteState::Installed,
            _ => match self.refused.get(&key) {
                Some(refused) => RouteState::Refused(refused.error.to_string()),
                None => RouteState::Pending,
            },
        }
    }
}
