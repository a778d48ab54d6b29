//! GC frees what attachments have that the runtime no longer knows: their links, with the routes and neighbours that lead
//! over them, and their addresses. What cannot be freed does not keep the rest from it.

use std::collections::BTreeSet;

use weft_routing::netlink::{LinkName, Socket};

use super::{datapath_error, node_error, open_socket, open_store, store_error};
use crate::datapath::{self, Doomed};
use crate::ipam::{Entry, Store};
use crate::node;
use crate::spec::{AttachmentId, Error, NetworkConfig};

pub(super) fn gc(config: &NetworkConfig) -> Result<(), Error> {
    let valid = config.valid_attachments()?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut socket = open_socket()?;
    // The links before the entries: an ADD makes its entry first, so a link that no entry has is nobody's.
    let links = datapath::host_links(&mut socket).map_err(datapath_error)?;
    let entries = store.entries().map_err(store_error)?;
    let orphans = orphans(links, &entries, &valid);
    let stale: Vec<Entry> = entries.into_iter().filter(|entry| is_stale(entry, config, &valid)).collect();

    let mut failures = Vec::new();
    let mut doomed = Doomed::default();
    for link in &orphans {
        failures.extend(doomed.add(&mut socket, link).map_err(datapath_error).err());
    }
    for entry in &stale {
        failures.extend(doom(&mut store, &mut socket, &mut doomed, entry).err());
    }
    failures.extend(doomed.remove(&mut socket).map_err(datapath_error).err());
    for entry in &stale {
        failures.extend(release(&mut store, &mut socket, entry).err());
    }
    report(failures)
}

fn is_stale(entry: &Entry, config: &NetworkConfig, valid: &BTreeSet<AttachmentId>) -> bool {
    let key = &entry.key;
    let id = AttachmentId { container_id: key.container_id.clone(), ifname: key.ifname.clone() };
    key.network == config.name && !valid.contains(&id)
}

/// The host ends that neither an entry of any network nor a valid attachment has; one of the latter lost its entry with
/// the store, and works.
fn orphans(links: Vec<LinkName>, entries: &[Entry], valid: &BTreeSet<AttachmentId>) -> Vec<LinkName> {
    let of_entries = entries.iter().map(|entry| entry.host_link.clone());
    let of_valid = valid.iter().filter_map(|id| {
        let ifname = id.ifname.parse().ok()?;
        Some(datapath::host_link_name(&id.container_id, &ifname).ok()?.to_string())
    });
    let owned: BTreeSet<String> = of_entries.chain(of_valid).collect();
    links.into_iter().filter(|link| !owned.contains(link.as_str())).collect()
}

/// Marks the link for removal, unless the entry has changed since it was looked at: then an ADD or DEL was at work.
fn doom(store: &mut Store, socket: &mut Socket, doomed: &mut Doomed, seen: &Entry) -> Result<(), Error> {
    let mut hold = store.hold(seen.key.clone()).map_err(store_error)?;
    if hold.entry().map_err(store_error)?.as_ref() != Some(seen) {
        return Ok(());
    }
    match seen.host_link.parse() {
        Ok(link) => doomed.add(socket, &link).map_err(datapath_error),
        // No link can have this name.
        Err(_) => Ok(()),
    }
}

/// Frees the addresses, unless somebody may answer to them: the link is there, or the entry is another by now.
fn release(store: &mut Store, socket: &mut Socket, seen: &Entry) -> Result<(), Error> {
    let mut hold = store.hold(seen.key.clone()).map_err(store_error)?;
    if hold.entry().map_err(store_error)?.as_ref() != Some(seen) {
        return Ok(());
    }
    let link: Option<LinkName> = seen.host_link.parse().ok();
    let is_there = link.map(|link| datapath::exists(socket, &link)).transpose().map_err(datapath_error)?;
    if is_there != Some(true) {
        hold.release().map_err(store_error)?;
    }
    Ok(())
}

/// The first failure's code, and all failures' words.
fn report(failures: Vec<Error>) -> Result<(), Error> {
    let words: Vec<String> = failures.iter().map(|error| error.msg.clone()).collect();
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => {
            Err(Error::new(first.code, format!("GC met {} errors and freed the rest", words.len()))
                .details(words.join("; ")))
        }
    }
}
