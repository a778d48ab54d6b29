//! What is known of the kernel, and how a notification or a dump changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::fib::{Notification, Snapshot};
use crate::netlink::{Link, Mac};
use crate::resolve::Topology;
use crate::route::{Action, NextHop, Route, RouteKey};

/// The kernel's state as last heard.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Routes with one of our protocols.
    pub(super) ours: BTreeMap<RouteKey, Route>,
    /// Permanent neighbour entries by link and address.
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// Links, addresses and others' routes.
    pub(super) topology: Topology,
}

/// What a change of the view means for the engine.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Keys whose holder changed.
    pub(super) keys: BTreeSet<RouteKey>,
    /// Of those, the keys from which a route of ours was taken or altered.
    pub(super) drifted: BTreeSet<RouteKey>,
    /// Destinations of others' routes that came or went.
    pub(super) foreign: BTreeSet<IpNet>,
    /// Links, addresses or others' routes changed: next hops may resolve differently.
    pub(super) topology: bool,
    pub(super) links: bool,
    pub(super) addresses: bool,
    pub(super) neighbours: bool,
    /// The kernel may have dropped routes without a word, or the notification does not tell all: dump again.
    pub(super) inexact: bool,
    /// Notifications were lost: dump again at once.
    pub(super) overrun: bool,
}

impl View {
    pub(super) fn notify(&mut self, notification: Notification, effects: &mut Effects) {
        match notification {
            Notification::RouteAdded { route, replaced } => self.route_added(route, replaced, effects),
            Notification::RouteRemoved(route) => self.route_removed(&route, effects),
            Notification::Link(link) => self.link(link, effects),
            Notification::LinkRemoved(index) => {
                if self.topology.remove_link(index).is_some() {
                    effects.links = true;
                    effects.topology = true;
                    effects.inexact = true;
                }
            }
            Notification::Address(address) => {
                if self.topology.insert_address(address) {
                    effects.addresses = true;
                    effects.topology = true;
                }
            }
            Notification::AddressRemoved(address) => {
                if self.topology.remove_address(address) {
                    effects.addresses = true;
                    effects.topology = true;
                    // IPv4 routes with this preferred source go without a word (fib_sync_down_addr).
                    effects.inexact = true;
                }
            }
            Notification::Neighbour(entry) => {
                let key = (entry.link, entry.address);
                effects.neighbours |= self.neighbours.insert(key, entry.mac) != Some(entry.mac);
            }
            Notification::NeighbourRemoved(link, address) => {
                effects.neighbours |= self.neighbours.remove(&(link, address)).is_some();
            }
            Notification::NexthopObjects => effects.inexact = true,
            Notification::Overrun => effects.overrun = true,
        }
    }

    fn route_added(&mut self, route: Route, replaced: bool, effects: &mut Effects) {
        let key = route.key;
        effects.keys.insert(key);
        if route.protocol.is_weft() {
            if replaced {
                effects.topology |= self.topology.remove_foreign_key(key);
            }
            let before = self.ours.insert(key, route);
            if before.is_some() && before.as_ref() != self.ours.get(&key) {
                effects.drifted.insert(key);
            }
            return;
        }
        effects.foreign.insert(key.destination());
        if replaced {
            self.topology.remove_foreign_key(key);
            if self.ours.remove(&key).is_some() {
                effects.drifted.insert(key);
            }
        }
        let held = self.topology.holds(key);
        let unclear = matches!(&route.action, Action::Forward(legs) if legs.is_empty());
        let new = self.topology.insert_foreign(route);
        effects.topology |= new;
        // An appended leg is announced with the whole route; which one it extends only a dump tells, and so it
        // does where a route over a nexthop object leads.
        effects.inexact |= new && (held || unclear);
    }

    fn route_removed(&mut self, route: &Route, effects: &mut Effects) {
        let key = route.key;
        effects.keys.insert(key);
        if !route.protocol.is_weft() {
            effects.foreign.insert(key.destination());
            effects.topology = true;
            effects.inexact |= !self.topology.remove_foreign(route);
            return;
        }
        let Some(held) = self.ours.get_mut(&key).filter(|held| held.protocol == route.protocol) else {
            return;
        };
        effects.drifted.insert(key);
        match remaining(&held.action, &route.action) {
            Some(action) => held.action = action,
            None => {
                self.ours.remove(&key);
            }
        }
    }

    fn link(&mut self, link: Link, effects: &mut Effects) {
        let running = link.is_running();
        let before = self.topology.insert_link(link.clone());
        if before.as_ref() == Some(&link) {
            return;
        }
        effects.links = true;
        effects.topology = true;
        // IPv4 routes over a link that goes down vanish without a word (fib_sync_down_dev).
        effects.inexact |= before.is_some_and(|before| before.is_running() && !running);
    }

    /// Takes the whole state over.
    pub(super) fn replace(&mut self, snapshot: Snapshot, effects: &mut Effects) {
        let (ours, foreign): (Vec<Route>, Vec<Route>) =
            snapshot.routes.into_iter().partition(|route| route.protocol.is_weft());
        let ours = ours.into_iter().map(|route| (route.key, route)).collect();
        let before = std::mem::replace(&mut self.ours, ours);
        for (key, route) in &before {
            if self.ours.get(key) != Some(route) {
                effects.drifted.insert(*key);
            }
        }
        effects.keys.extend(before.into_keys());
        effects.keys.extend(self.ours.keys());
        effects.links |= self.topology.set_links(snapshot.links);
        effects.addresses |= self.topology.set_addresses(snapshot.addresses);
        effects.topology |= self.topology.set_foreign(foreign) | effects.links | effects.addresses;
        self.neighbours =
            snapshot.neighbours.into_iter().map(|entry| ((entry.link, entry.address), entry.mac)).collect();
        effects.neighbours = true;
    }
}

/// What is left of a route when the kernel says that `gone` went: IPv6 legs can go one by one.
fn remaining(held: &Action, gone: &Action) -> Option<Action> {
    let (Action::Forward(held), Action::Forward(gone)) = (held, gone) else { return None };
    let same = |a: &NextHop, b: &NextHop| a.gateway == b.gateway && a.link == b.link;
    let left: Vec<NextHop> =
        held.iter().filter(|leg| !gone.iter().any(|gone| same(leg, gone))).copied().collect();
    (!left.is_empty() && left.len() < held.len()).then(|| Action::Forward(left.into_iter().collect()))
}
