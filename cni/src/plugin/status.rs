//! STATUS says whether ADD can be served: what weftd must have put in place is there. weftd itself is not asked: while it
//! is stopped or restarts, ADD goes on. Full blocks are no reason either: the runtime would take the whole node for
//! broken, where one ADD fails with a clear error.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_routing::netlink::Socket;
use weft_routing::route::Protocol;
use weft_routing::{nft, sysctl};

use super::{open_socket, open_store, store_error};
use crate::ipam::{Entry, State};
use crate::node::{self, NodeFile};
use crate::spec::{Code, Error, NetworkConfig};

pub(super) fn status(config: &NetworkConfig) -> Result<(), Error> {
    let Some(reason) = missing(config) else { return Ok(()) };
    let error = |code| Error::new(code, reason.clone());
    // What cannot be found out about the pods that are there does not hide why there can be no new ones.
    match unreachable(config) {
        Ok(pods) if pods.is_empty() => Err(error(Code::NotAvailable)),
        Ok(pods) => {
            Err(error(Code::LimitedConnectivity).details(format!("no route leads to {}", pods.join(", "))))
        }
        Err(cause) => Err(error(Code::NotAvailable).details(cause.msg)),
    }
}

/// What ADD needs and is not there.
fn missing(config: &NetworkConfig) -> Option<String> {
    let read = node::boot_id().and_then(|boot_id| NodeFile::read(&config.run_dir, &boot_id));
    let node = match read {
        Ok(node) => node,
        Err(error) => return Some(format!("weftd has not made this node ready: {error}")),
    };
    match nft::is_guarded() {
        Ok(true) => {}
        Ok(false) => {
            return Some("the nftables table inet weft is missing: pods could forge sources".to_owned());
        }
        Err(error) => return Some(format!("cannot ask for the nftables table inet weft: {error}")),
    }
    let forwarding =
        [(node.ipv4.is_some(), "net/ipv4/ip_forward"), (node.ipv6.is_some(), "net/ipv6/conf/all/forwarding")];
    forwarding.into_iter().filter(|(wanted, _)| *wanted).find_map(|(_, key)| match sysctl::read(key) {
        Ok(value) if value == "1" => None,
        Ok(value) => Some(format!("sysctl {key} is {value}, and must be 1 for pods to be reached")),
        Err(error) => Some(error.to_string()),
    })
}

/// The addresses of living pods that the host has no route to.
fn unreachable(config: &NetworkConfig) -> Result<Vec<String>, Error> {
    /// How many are named.
    const NAMED_MAX: usize = 10;
    let kernel = |error: weft_routing::netlink::Error| Error::new(Code::Kernel, error.to_string());
    let boot_id = node::boot_id().map_err(super::node_error)?;
    let entries = open_store(config, &boot_id)?.entries().map_err(store_error)?;
    let mut socket = open_socket()?;
    let links: BTreeSet<String> = socket.links().map_err(kernel)?.into_iter().map(|link| link.name).collect();
    let routed = routed(&mut socket).map_err(kernel)?;
    // A pod whose link is gone is gone itself, and DEL is on its way.
    let lives = |entry: &&Entry| {
        entry.state == State::Committed && entry.boot_id == boot_id && links.contains(&entry.host_link)
    };
    let addresses = entries.iter().filter(lives).flat_map(|entry| &entry.addresses);
    let lost = addresses.filter(|address| !routed.contains(address));
    Ok(lost.take(NAMED_MAX).map(IpAddr::to_string).collect())
}

/// The addresses that pod routes lead to.
fn routed(socket: &mut Socket) -> Result<BTreeSet<IpAddr>, weft_routing::netlink::Error> {
    let routes = socket.routes_of(Protocol::WEFT_PODS)?;
    Ok(routes.iter().map(|route| route.key.destination().addr()).collect())
}
