//! Giving addresses back: those that leak, and those that an admin names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use weft_cni::datapath;
use weft_cni::ipam::Entry;
use weft_routing::netlink::{LinkName, Neighbour, Request, Socket};
use weft_routing::route::{Protocol, Route};

use super::keeper::{Keeper, freed};
use super::observe::{Observation, Whereabouts, find};
use crate::api::ipam::{IpamFreedJson, IpamReleaseRequest};
use crate::daemon::socket::Refusal;

/// `map_err` for what the kernel or the store did not do.
fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Refused(error.to_string())
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

impl Keeper {
    /// Frees the entries whose addresses were nowhere for long enough, if that is still so now that no ADD or DEL of them can
    /// be at work. One that is at work changes its entry, or the next look finds it as it is.
    pub(super) fn free(&mut self, socket: &mut Socket, due: &[Entry]) -> Result<Vec<IpamFreedJson>> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut holds = self.store.hold_free(due.iter().map(|entry| entry.key.clone()))?;
        let entries = holds.entries()?;
        let held = holds.keys();
        let mut lost = Vec::new();
        for entry in entries.into_iter().filter(|entry| held.contains(&entry.key) && due.contains(entry)) {
            if let Whereabouts::Nowhere { earlier_boot } = find(socket, &entry, &self.boot_id)? {
                lost.push((entry, earlier_boot));
            }
        }
        holds.release(&lost.iter().map(|(entry, _)| entry.key.clone()).collect())?;
        for (entry, earlier_boot) in &lost {
            self.looks.forget(&entry.key);
            self.freed = self.freed.saturating_add(entry.addresses.len() as u64);
            let why = if *earlier_boot {
                "an earlier boot, in which its network namespace went"
            } else {
                "no link and no network namespace had it"
            };
            self.happened(
                "address-freed",
                format!("freed {} of {}: {why}", list(&entry.addresses), entry.key),
            );
        }
        Ok(lost.iter().map(|(entry, _)| freed(entry, Vec::new())).collect())
    }

    /// Frees what an admin names.
    pub(super) fn release(&mut self, request: IpamReleaseRequest) -> Result<IpamFreedJson, Refusal> {
        let mut socket = Socket::new().map_err(failed)?;
        let seen = self.observe(&mut socket).map_err(failed)?;
        let mut entries = seen.entries.iter().map(|(entry, _)| entry);
        let freed = match entries.find(|entry| entry.addresses.contains(&request.address)) {
            Some(entry) => self.release_entry(&mut socket, entry, request.force)?,
            None => release_route(&mut socket, &seen, request)?,
        };
        let removed = match freed.removed.as_slice() {
            [] => String::new(),
            removed => format!("; removed {}", removed.join(", ")),
        };
        let text = format!("released {} as asked{removed}", list(&freed.addresses));
        self.happened("address-released", text);
        Ok(freed)
    }

    fn release_entry(
        &mut self,
        socket: &mut Socket,
        entry: &Entry,
        force: bool,
    ) -> Result<IpamFreedJson, Refusal> {
        let mut hold = self.store.hold(entry.key.clone()).map_err(failed)?;
        if hold.entry().map_err(failed)?.as_ref() != Some(entry) {
            return Err(Refusal::Refused(format!("{} has changed meanwhile; ask again", entry.key)));
        }
        let whereabouts = find(socket, entry, &self.boot_id).map_err(failed)?;
        if let Some(use_) = in_use(entry, whereabouts).filter(|_| !force) {
            return Err(Refusal::Refused(format!(
                "{} of {} is in use: {use_}; delete the pod, or use --force, which takes its link away",
                list(&entry.addresses),
                entry.key
            )));
        }
        // The link first: an address is free when nothing answers to it any more.
        let mut removed = Vec::new();
        if matches!(whereabouts, Whereabouts::Linked { .. }) {
            let name: LinkName = entry.host_link.parse().map_err(failed)?;
            datapath::remove(socket, &name).map_err(failed)?;
            removed.push(format!("link {name}"));
        }
        hold.release().map_err(failed)?;
        self.looks.forget(&entry.key);
        Ok(freed(entry, removed))
    }
}

fn in_use(entry: &Entry, whereabouts: Whereabouts) -> Option<String> {
    match whereabouts {
        Whereabouts::Linked { .. } => Some(format!("its link {} is there", entry.host_link)),
        Whereabouts::InNamespace => {
            Some(format!("the network namespace {} has it, or cannot be read", entry.netns))
        }
        Whereabouts::Nowhere { .. } => None,
    }
}

/// Takes a route and a neighbour away that are in no entry, and with `force` the pod's link that they are on, if that is in
/// no entry either.
fn release_route(
    socket: &mut Socket,
    seen: &Observation,
    request: IpamReleaseRequest,
) -> Result<IpamFreedJson, Refusal> {
    let IpamReleaseRequest { address, force } = request;
    let by_routes = seen.routes.iter().filter(|(to, _)| *to == address).map(|(_, link)| *link);
    let by_neighbours = seen.neighbours.iter().filter(|(to, _)| *to == address).map(|(_, link)| Some(*link));
    let over: BTreeSet<Option<u32>> = by_routes.chain(by_neighbours).collect();
    if over.is_empty() {
        return Err(Refusal::NotFound(format!("{address} is in no entry, and no pod's route leads to it")));
    }
    let in_no_entry = |name: &str| seen.entries.iter().all(|(entry, _)| entry.host_link != name);
    let nobodys = seen.links.iter().find(|(name, index)| over.contains(&Some(**index)) && in_no_entry(name));
    let mut removed = Vec::new();
    if let Some((name, _)) = nobodys {
        if !force {
            return Err(Refusal::Refused(format!(
                "{address} is in no entry, but the pod's link {name} is there and may be in use; \
                 use --force to take the link away"
            )));
        }
        let name: LinkName = name.parse().map_err(failed)?;
        datapath::remove(socket, &name).map_err(failed)?;
        removed.push(format!("link {name}"));
    }
    let to_address = |route: &Route| route.key.destination() == IpNet::from(address);
    for route in socket.routes_of(Protocol::WEFT_PODS).map_err(failed)?.into_iter().filter(to_address) {
        remove(socket, &Route::delete(route.key, route.protocol))?;
        removed.push(format!("route {}", route.key));
    }
    let on_pods_link = |neighbour: &Neighbour| {
        neighbour.address == address && seen.links.values().any(|index| *index == neighbour.link)
    };
    for neighbour in socket.neighbours().map_err(failed)?.into_iter().filter(on_pods_link) {
        remove(socket, &neighbour.delete())?;
        removed.push(format!("neighbour {address}"));
    }
    Ok(IpamFreedJson { addresses: vec![address], holder: None, removed })
}

/// Removes what may have gone meanwhile.
fn remove(socket: &mut Socket, request: &Request) -> Result<(), Refusal> {
    match socket.execute(request) {
        Err(error) if !error.is_absent() => Err(failed(error)),
        _ => Ok(()),
    }
}
