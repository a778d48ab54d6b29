//! STATUS says whether ADD would succeed, from what is on the host: weftd is not asked, and need not run. A full block is
//! no reason: the node is not to lose the pods it has because it takes no more.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_routing::route::{Protocol, Route};
use weft_routing::{nft, sysctl};

use super::{node_error, open_socket, open_store, store_error};
use crate::ipam::{Entry, Key, State};
use crate::node::{self, NodeFile};
use crate::spec::{Code, Error, NetworkConfig};

/// How many pods without a route are named.
const NAMED: usize = 5;

pub(super) fn status(config: &NetworkConfig) -> Result<(), Error> {
    let boot_id = node::boot_id().map_err(node_error)?;
    let reasons = match NodeFile::read(&config.run_dir, &boot_id) {
        Ok(node) => {
            let store =
                open_store(config, &boot_id).and_then(|mut store| store.entries().map_err(store_error));
            unready(&node).into_iter().chain(store.err().map(|error| error.msg)).collect()
        }
        Err(error) => vec![error.to_string()],
    };
    if reasons.is_empty() {
        return Ok(());
    }
    let msg = format!("pods cannot be added: {}", reasons.join("; "));
    Err(match pods_without_route(config, &boot_id) {
        Ok(pods) if pods.is_empty() => Error::new(Code::NotAvailable, msg).details("see `weftctl status`"),
        Ok(pods) => Error::new(Code::LimitedConnectivity, msg).details(describe(&pods)),
        Err(error) => Error::new(Code::NotAvailable, msg)
            .details(format!("whether pods are cut off cannot be told: {}", error.msg)),
    })
}

/// What weftd sets up before it first writes `node.json`, and is not so any more.
fn unready(node: &NodeFile) -> Vec<String> {
    let guard = match nft::is_guarded() {
        Ok(true) => None,
        Ok(false) => Some(format!("nftables has no table inet {} with its rules", nft::GUARD_TABLE)),
        Err(error) => Some(format!("cannot look for the nftables table inet {}: {error}", nft::GUARD_TABLE)),
    };
    let ipv4 = node.ipv4.as_ref().and_then(|_| not_forwarding("net/ipv4/ip_forward"));
    let ipv6 = node.ipv6.as_ref().and_then(|_| not_forwarding("net/ipv6/conf/all/forwarding"));
    guard.into_iter().chain(ipv4).chain(ipv6).collect()
}

fn not_forwarding(key: &str) -> Option<String> {
    match sysctl::read(key) {
        Ok(value) if value == "1" => None,
        Ok(value) => Some(format!("{key} is {value}, not 1")),
        Err(error) => Some(error.to_string()),
    }
}

/// The pods that were added, have their link, and lack the host's route to one of their addresses.
fn pods_without_route(config: &NetworkConfig, boot_id: &str) -> Result<Vec<Key>, Error> {
    let entries = open_store(config, boot_id)?.entries().map_err(store_error)?;
    let mut socket = open_socket()?;
    let unread = |error: weft_routing::netlink::Error| Error::new(Code::Kernel, error.to_string());
    let links: BTreeSet<String> = socket.links().map_err(unread)?.into_iter().map(|link| link.name).collect();
    let routes = socket.routes_of(Protocol::WEFT_PODS).map_err(unread)?;
    let reached: BTreeSet<IpNet> = routes.iter().map(|route: &Route| route.key.destination()).collect();
    let cut_off = |entry: &Entry| {
        let lives =
            entry.state != State::Reserved && entry.boot_id == boot_id && links.contains(&entry.host_link);
        let routed = |address: &IpAddr| reached.contains(&IpNet::from(*address));
        lives && !entry.addresses.iter().all(routed)
    };
    Ok(entries.into_iter().filter(cut_off).map(|entry| entry.key).collect())
}

fn describe(pods: &[Key]) -> String {
    let named: Vec<String> = pods.iter().take(NAMED).map(Key::to_string).collect();
    let more = match pods.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and of {more} more"),
    };
    format!("the host lacks a route to an address of {}{more}", named.join(", of "))
}
