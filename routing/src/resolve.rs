//! Next-hop resolution: which gateways and links lead to a BGP next hop, by the kernel's routes that are not
//! ours. [`sync`](crate::sync) goes on from there over learned routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use crate::netlink::{Address, Link};
use crate::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};

/// A BGP next hop to be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopRef {
    /// The address.
    pub address: IpAddr,
    /// Whether 0.0.0.0/0 and ::/0 count as a way to it.
    pub default_route: bool,
    /// The link that it is on, whatever the routes say: of a link-local address.
    pub link: Option<u32>,
}

impl NextHopRef {
    /// Whether packets over it are to be dropped: it is of the discard prefix, 100::/64 (RFC 6666).
    pub fn is_discard(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.segments().starts_with(&[0x100, 0, 0, 0]))
    }
}

/// How a BGP next hop is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolution {
    /// Not at all: paths over it are not eligible.
    #[default]
    Unresolved,
    /// It is a neighbour on a link that is up.
    OnLink,
    /// Over other routers.
    Gateway {
        /// The metric of the kernel's route to it.
        metric: u32,
    },
    /// Over a learned route.
    Recursive {
        /// The route's destination.
        over: IpNet,
        /// The metric of the kernel's route to the next hop where one leads there; else the worst of those to the next hops that the
        /// learned route leads to in the end.
        metric: u32,
        /// Whether a route of the kernel's leads there too, if only a less specific one.
        direct: bool,
    },
    /// Not at all, though a learned route leads there: its own next hops are reached over learned routes alone, over too many, or over one
    /// to themselves.
    TooDeep {
        /// The route's destination.
        over: IpNet,
    },
}

impl Resolution {
    /// Whether paths over the next hop are eligible.
    pub fn is_resolved(self) -> bool {
        !matches!(self, Self::Unresolved | Self::TooDeep { .. })
    }
}

/// A resolution and the legs a route over the next hop is installed with; none when unresolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// What BGP is told.
    pub resolution: Resolution,
    /// Gateways and links.
    pub legs: NextHops,
}

/// What the kernel's routes alone say of a next hop.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) resolved: Resolved,
    /// The route that leads there, or that says that nothing does; `None`: there is no route.
    pub(crate) route: Option<RouteKey>,
    /// Whether a learned route may lead there: not to ourselves nor to a neighbour on a link.
    pub(crate) open: bool,
}

/// The part of the kernel's state that resolution depends on.
#[derive(Debug, Default)]
pub struct Topology {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
    /// Routes of other protocols by destination, best metric first.
    foreign: JointPrefixMap<IpNet, Vec<Route>>,
}

impl Topology {
    /// The links, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The addresses of all links.
    pub fn addresses(&self) -> &BTreeSet<Address> {
        &self.addresses
    }

    /// True when the address is on a link and past duplicate address detection: the kernel takes it as a source.
    pub fn is_usable_source(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.ip() == address && !held.tentative)
    }

    /// Links that a default route leads out of, by index.
    pub fn default_route_links(&self) -> BTreeSet<u32> {
        [IpAddr::from([0; 4]), IpAddr::from([0; 16])]
            .into_iter()
            .filter_map(|any| self.foreign.get(&IpNet::new_assert(any, 0)))
            .flatten()
            .filter_map(|route| match &route.action {
                Action::Forward(legs) => Some(legs),
                _ => None,
            })
            .flatten()
            .map(|leg| leg.link)
            .collect()
    }

    /// The routes of other protocols to exactly this destination, best metric first.
    pub fn foreign(&self, destination: &IpNet) -> &[Route] {
        self.foreign.get(destination).map_or(&[], Vec::as_slice)
    }

    /// How many destinations routes of other protocols have.
    pub(crate) fn foreign_count(&self) -> usize {
        self.foreign.len()
    }

    /// True when a route of another protocol holds this key.
    pub fn holds(&self, key: RouteKey) -> bool {
        self.foreign(&key.destination()).iter().any(|route| route.key == key)
    }

    /// True when the destination is a link's own subnet, to which the kernel has a worse metric than `metric`: IPv6 ones have 256.
    pub(crate) fn is_connected_worse(&self, destination: &IpNet, metric: u32) -> bool {
        let on_link = |action: &Action| match action {
            Action::Forward(legs) => legs.iter().any(|leg| leg.gateway.is_none()),
            _ => false,
        };
        self.foreign(destination).iter().any(|route| {
            route.protocol == Protocol::KERNEL && route.key.metric() > metric && on_link(&route.action)
        })
    }

    pub(crate) fn set_links(&mut self, links: impl IntoIterator<Item = Link>) -> bool {
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let changed = self.links != links;
        self.links = links;
        changed
    }

    pub(crate) fn set_addresses(&mut self, addresses: impl IntoIterator<Item = Address>) -> bool {
        let addresses = addresses.into_iter().collect();
        let changed = self.addresses != addresses;
        self.addresses = addresses;
        changed
    }

    /// The link as it was before, `None` when it is new.
    pub(crate) fn insert_link(&mut self, link: Link) -> Option<Link> {
        self.links.insert(link.index, link)
    }

    pub(crate) fn remove_link(&mut self, index: u32) -> Option<Link> {
        self.links.remove(&index)
    }

    /// True when that changed anything.
    pub(crate) fn insert_address(&mut self, address: Address) -> bool {
        if self.addresses.contains(&address) {
            return false;
        }
        self.remove_address(address);
        self.addresses.insert(address)
    }

    /// Removes the address whether or not it is still tentative; true when it was there.
    pub(crate) fn remove_address(&mut self, address: Address) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|held| held.link != address.link || held.address != address.address);
        self.addresses.len() != before
    }

    /// True when the route is new.
    pub(crate) fn insert_foreign(&mut self, route: Route) -> bool {
        let routes = self.foreign.entry(route.key.destination()).or_default();
        if routes.contains(&route) {
            return false;
        }
        let place = routes.partition_point(|held| held.key.metric() <= route.key.metric());
        routes.insert(place, route);
        true
    }

    /// Removes every foreign route with this key.
    pub(crate) fn remove_foreign_key(&mut self, key: RouteKey) -> bool {
        self.retain_foreign(key.destination(), |held| held.key != key)
    }

    /// Removes one foreign route; true when exactly that route was known.
    pub(crate) fn remove_foreign(&mut self, route: &Route) -> bool {
        self.retain_foreign(route.key.destination(), |held| held != route)
    }

    fn retain_foreign(&mut self, destination: IpNet, keep: impl FnMut(&Route) -> bool) -> bool {
        let Some(routes) = self.foreign.get_mut(&destination) else { return false };
        let before = routes.len();
        routes.retain(keep);
        let removed = routes.len() != before;
        if routes.is_empty() {
            self.foreign.remove(&destination);
        }
        removed
    }

    /// Replaces all foreign routes; true when that changed anything.
    pub(crate) fn set_foreign(&mut self, routes: impl IntoIterator<Item = Route>) -> bool {
        let before = std::mem::take(&mut self.foreign);
        for route in routes {
            self.insert_foreign(route);
        }
        !before.iter().eq(self.foreign.iter())
    }

    /// How the kernel's routes alone lead to a next hop: longest match, then best metric. A leg over a link that is down or has no
    /// carrier does not count, and where no leg is left the next shorter prefix is tried. An unreachable, blackhole or prohibit route
    /// ends the search, as it does in the kernel.
    ///
    /// A next hop of the discard prefix is always there, and has no legs: packets go nowhere.
    ///
    /// A next hop that comes with its link is on it, while it is up and the address is not its own. A link-local one without is
    /// nowhere: every link may have one like it.
    pub fn resolve(&self, next_hop: NextHopRef) -> Resolved {
        self.look_up(next_hop).resolved
    }

    /// The same, and by which route.
    pub(crate) fn look_up(&self, next_hop: NextHopRef) -> Lookup {
        let address = next_hop.address;
        if next_hop.is_discard() {
            let resolved = Resolved { resolution: Resolution::OnLink, ..Resolved::default() };
            return Lookup { resolved, ..Lookup::default() };
        }
        if let Some(link) = next_hop.link {
            let leg = NextHop::via(address, link);
            let own = self.addresses.iter().any(|held| held.link == link && held.ip() == address);
            if own || !self.is_usable(&leg) {
                return Lookup::default();
            }
            return Lookup { resolved: resolved(address, 0, &[NextHop::on_link(link)]), ..Lookup::default() };
        }
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if is_link_local || self.addresses.iter().any(|held| held.ip() == address) {
            return Lookup::default();
        }
        let covering: Vec<(IpNet, &Vec<Route>)> = self.foreign.cover(&IpNet::from(address)).collect();
        for (prefix, routes) in covering.into_iter().rev() {
            if prefix.prefix_len() == 0 && !next_hop.default_route {
                continue;
            }
            for route in routes {
                let Action::Forward(legs) = &route.action else {
                    return Lookup { resolved: Resolved::default(), route: Some(route.key), open: true };
                };
                let usable: Vec<NextHop> = self.usable(legs).collect();
                if !usable.is_empty() {
                    let resolved = resolved(address, route.key.metric(), &usable);
                    let open = resolved.resolution != Resolution::OnLink;
                    return Lookup { resolved, route: Some(route.key), open };
                }
            }
        }
        Lookup { open: true, ..Lookup::default() }
    }

    /// Those of the legs that leave over a link which is running.
    pub(crate) fn usable<'a>(&'a self, legs: &'a NextHops) -> impl Iterator<Item = NextHop> + 'a {
        legs.iter().filter(|leg| self.is_usable(leg)).copied()
    }

    fn is_usable(&self, leg: &NextHop) -> bool {
        self.links.get(&leg.link).is_some_and(|link| link.is_running() && !link.loopback)
    }
}

/// Legs that lead to `address` over a route with these usable legs.
fn resolved(address: IpAddr, metric: u32, usable: &[NextHop]) -> Resolved {
    let on_link = usable.iter().all(|leg| leg.gateway.is_none());
    let resolution = if on_link { Resolution::OnLink } else { Resolution::Gateway { metric } };
    let legs = usable.iter().map(|leg| NextHop { gateway: Some(leg.gateway.unwrap_or(address)), ..*leg });
    Resolved { resolution, legs: legs.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, running: bool) -> Link {
        Link {
            index,
            name: format!("eth{index}"),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: running,
            operational: running,
            loopback: false,
            kind: None,
            peer: None,
            peer_namespace: None,
        }
    }

    fn route(destination: &str, metric: u32, legs: &[(Option<&str>, u32)]) -> Route {
        let legs = legs.iter().map(|(gateway, link)| NextHop {
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ..NextHop::on_link(*link)
        });
        Route {
            key: RouteKey::new(destination.parse().unwrap(), metric),
            protocol: Protocol::KERNEL,
            action: Action::Forward(legs.collect()),
            preferred_source: None,
        }
    }

    fn topology(routes: &[Route]) -> Topology {
        let mut topology = Topology::default();
        topology.set_links([link(1, true), link(2, true), link(3, false)]);
        topology.set_foreign(routes.iter().cloned());
        topology
    }

    fn resolve(topology: &Topology, address: &str, default_route: bool) -> (Resolution, Vec<(String, u32)>) {
        let found =
            topology.resolve(NextHopRef { address: address.parse().unwrap(), default_route, link: None });
        let legs = found.legs.iter().map(|leg| (leg.gateway.unwrap().to_string(), leg.link)).collect();
        (found.resolution, legs)
    }

    #[test]
    fn connected_next_hops_are_on_link() {
        let t = topology(&[route("10.0.0.0/24", 0, &[(None, 1)]), route("2001:db8::/64", 0, &[(None, 2)])]);
        assert_eq!(resolve(&t, "10.0.0.2", false), (Resolution::OnLink, vec![("10.0.0.2".into(), 1)]));
        assert_eq!(resolve(&t, "2001:db8::2", false), (Resolution::OnLink, vec![("2001:db8::2".into(), 2)]));
        assert_eq!(resolve(&t, "10.0.1.2", false), (Resolution::Unresolved, vec![]));
    }

    #[test]
    fn the_default_route_counts_only_where_it_is_allowed() {
        let t = topology(&[route("0.0.0.0/0", 100, &[(Some("10.0.0.1"), 1)])]);
        assert_eq!(resolve(&t, "192.0.2.1", false).0, Resolution::Unresolved);
        let (resolution, legs) = resolve(&t, "192.0.2.1", true);
        assert_eq!(resolution, Resolution::Gateway { metric: 100 });
        assert_eq!(legs, [("10.0.0.1".into(), 1)]);
    }

    #[test]
    fn legs_without_carrier_do_not_count() {
        let t = topology(&[
            route("192.0.2.0/24", 5, &[(Some("10.0.0.1"), 1), (Some("10.0.1.1"), 2), (Some("10.0.2.1"), 3)]),
            route("198.51.100.0/24", 0, &[(None, 3)]),
            route("198.51.0.0/16", 0, &[(Some("10.0.0.1"), 1)]),
        ]);
        let legs = resolve(&t, "192.0.2.1", false).1;
        assert_eq!(legs, [("10.0.0.1".into(), 1), ("10.0.1.1".into(), 2)]);
        let shorter = resolve(&t, "198.51.100.1", false);
        assert_eq!(shorter.0, Resolution::Gateway { metric: 0 });
    }

    #[test]
    fn an_unreachable_route_and_a_local_address_do_not_resolve() {
        let mut unreachable = route("10.0.0.0/25", 0, &[]);
        unreachable.action = Action::Unreachable;
        let mut t = topology(&[route("10.0.0.0/24", 0, &[(None, 1)]), unreachable]);
        assert_eq!(resolve(&t, "10.0.0.2", false).0, Resolution::Unresolved);
        assert_eq!(resolve(&t, "10.0.0.202", false).0, Resolution::OnLink);
        t.insert_address(Address {
            link: 1,
            address: "10.0.0.202/24".parse().unwrap(),
            scope: crate::netlink::Scope::Global,
            tentative: false,
        });
        assert_eq!(resolve(&t, "10.0.0.202", false).0, Resolution::Unresolved);
    }

    #[test]
    fn a_link_local_next_hop_is_on_its_link_and_no_other() {
        // As kernels have it: the prefix is on every link.
        let mut t = topology(&[route("fe80::/64", 256, &[(None, 1)]), route("fe80::/64", 256, &[(None, 2)])]);
        let own = Address {
            link: 1,
            address: "fe80::1/64".parse().unwrap(),
            scope: crate::netlink::Scope::Link,
            tentative: false,
        };
        t.insert_address(own);
        let resolve = |address: &str, link| {
            let address = address.parse().unwrap();
            t.resolve(NextHopRef { address, default_route: false, link })
        };
        let on_link = |link: u32| Resolved {
            resolution: Resolution::OnLink,
            legs: NextHop::via("fe80::1".parse().unwrap(), link).into(),
        };
        assert_eq!(resolve("fe80::1", Some(2)), on_link(2));
        assert_eq!(resolve("fe80::1", Some(1)), Resolved::default(), "our own there");
        assert_eq!(resolve("fe80::1", Some(3)), Resolved::default(), "without carrier");
        assert_eq!(resolve("fe80::1", Some(9)), Resolved::default(), "no such link");
        assert_eq!(resolve("fe80::2", None), Resolved::default(), "every link may have one like it");
    }

    #[test]
    fn the_better_metric_wins_and_removal_uncovers_the_other() {
        let better = route("10.0.0.0/24", 1, &[(None, 2)]);
        let mut t = topology(&[route("10.0.0.0/24", 2, &[(None, 1)]), better.clone()]);
        assert_eq!(resolve(&t, "10.0.0.2", false).1, [("10.0.0.2".into(), 2)]);
        assert!(t.remove_foreign(&better));
        assert_eq!(resolve(&t, "10.0.0.2", false).1, [("10.0.0.2".into(), 1)]);
    }
}
