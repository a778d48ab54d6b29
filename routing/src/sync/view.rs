//! What is known of the kernel, and how a notification or a dump changes it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::table::Table;
use crate::fib::{Notification, Snapshot};
use crate::netlink::{Link, Mac};
use crate::nexthop::Nexthops;
use crate::resolve::Topology;
use crate::route::{Action, NextHop, Route, RouteKey};

/// The kernel's state as last heard, but for the routes of ours, which are in the [`Table`].
#[derive(Debug, Default)]
pub(super) struct View {
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
    /// The kernel may have dropped nexthop objects without a word, and the routes over them, or somebody else changed some.
    pub(super) objects: bool,
    /// The kernel may have dropped routes without a word, or the notification does not tell all: dump again.
    pub(super) inexact: bool,
    /// Notifications were lost: dump again at once.
    pub(super) overrun: bool,
}

impl View {
    pub(super) fn notify(&mut self, notification: Notification, table: &mut Table, effects: &mut Effects) {
        match notification {
            Notification::RouteAdded { route, replaced } => self.route_added(route, replaced, table, effects),
            Notification::RouteRemoved(route) => self.route_removed(&route, table, effects),
            Notification::Link(link) => self.link(link, effects),
            Notification::LinkRemoved(index) => {
                if self.topology.remove_link(index).is_some() {
                    effects.links = true;
                    effects.topology = true;
                    effects.inexact = true;
                    effects.objects = true;
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
            Notification::NexthopObjects => {
                effects.objects = true;
                effects.inexact = true;
            }
            Notification::Overrun => effects.overrun = true,
        }
    }

    fn route_added(&mut self, route: Route, replaced: bool, table: &mut Table, effects: &mut Effects) {
        let key = route.key;
        effects.keys.insert(key);
        if route.protocol.is_weft() {
            if replaced {
                effects.topology |= self.topology.remove_foreign_key(key);
            }
            let before = table.hold(route);
            if before.is_some() && before.as_ref() != table.held(&key).as_deref() {
                effects.drifted.insert(key);
            }
            return;
        }
        effects.foreign.insert(key.destination());
        if replaced {
            self.topology.remove_foreign_key(key);
            if table.let_go(&key).is_some() {
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

    fn route_removed(&mut self, route: &Route, table: &mut Table, effects: &mut Effects) {
        let key = route.key;
        effects.keys.insert(key);
        if !route.protocol.is_weft() {
            effects.foreign.insert(key.destination());
            effects.topology = true;
            effects.inexact |= !self.topology.remove_foreign(route);
            return;
        }
        let held = table.held(&key).filter(|held| held.protocol == route.protocol).map(Cow::into_owned);
        let Some(held) = held else { return };
        effects.drifted.insert(key);
        match remaining(&held.action, &route.action) {
            Some(action) => drop(table.hold(Route { action, ..held })),
            None => drop(table.let_go(&key)),
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
        effects.inexact |= before.as_ref().is_some_and(|before| before.is_running() && !running);
        let state = |link: &Link| (link.up, link.carrier, link.operational);
        effects.objects |= before.is_some_and(|before| state(&before) != state(&link));
    }

    /// Takes the whole state over; gives the nexthop objects, which are no part of the view.
    pub(super) fn replace(
        &mut self,
        snapshot: Snapshot,
        table: &mut Table,
        effects: &mut Effects,
    ) -> Option<Nexthops> {
        let (ours, foreign): (Vec<Route>, Vec<Route>) =
            snapshot.routes.into_iter().partition(|route| route.protocol.is_weft());
        let (mut others, mut all) = table.replace_held(ours);
        effects.drifted.append(&mut others);
        effects.keys.append(&mut all);
        effects.links |= self.topology.set_links(snapshot.links);
        effects.addresses |= self.topology.set_addresses(snapshot.addresses);
        effects.topology |= self.topology.set_foreign(foreign) | effects.links | effects.addresses;
        self.neighbours =
            snapshot.neighbours.into_iter().map(|entry| ((entry.link, entry.address), entry.mac)).collect();
        effects.neighbours = true;
        snapshot.nexthops
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
