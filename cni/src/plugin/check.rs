//! CHECK compares the interface with the store and with what ADD answered.

use std::path::Path;

use weft_routing::netlink::LinkName;

use super::add::{answer, preferred_sources};
use super::{
    datapath_error, host_link_name, interface, key, namespace_error, node_error, open_socket, open_store,
    store_error,
};
use crate::datapath::{self, Interface, PodNamespace, Told};
use crate::ipam::{Entry, State};
use crate::node::{self, NodeFile};
use crate::spec::{Attachment, Code, Error, NetworkConfig, PreviousResult};

pub(super) fn check(config: &NetworkConfig, attachment: &Attachment, netns: &str) -> Result<(), Error> {
    let previous = config.prev_result.clone().ok_or_else(|| {
        Error::new(Code::InvalidConfig, "prevResult is missing: CHECK needs what ADD answered")
    })?;
    let previous: PreviousResult = serde_json::from_value(previous)
        .map_err(|error| Error::new(Code::InvalidConfig, format!("prevResult: {error}")))?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    let entry = hold.entry().map_err(store_error)?.filter(|entry| entry.state != State::Reserved);
    let entry = entry.ok_or_else(|| {
        Error::new(Code::UnknownContainer, format!("{} was not added, or was deleted", hold.key()))
    })?;

    let namespace = PodNamespace::open(Path::new(netns)).map_err(namespace_error)?;
    let interface = interface(&entry, attachment, host_link_name(attachment)?);
    let mut faults = previous.lacks(&answer(&interface, None, &entry.netns));
    let given = previous.addresses_of(attachment.ifname.as_str());
    let foreign = given.iter().filter(|address| !entry.addresses.contains(address));
    faults.extend(foreign.map(|address| format!("prevResult gives the pod {address}, ADD did not")));
    let told = told(config, &previous, &interface, &entry, &boot_id)?;
    faults
        .extend(datapath::check(&mut open_socket()?, &namespace, &interface, &told).map_err(datapath_error)?);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::CheckFailed, format!("{} is not as ADD left it", hold.key()))
        .details(faults.join("; ")))
}

/// A later plugin of the chain may have changed an MTU, and says so in the result from version 1.1.0 on. Before, only the
/// configuration tells; what the node's MTU was at the time of ADD, nobody knows any more.
fn told(
    config: &NetworkConfig,
    previous: &PreviousResult,
    interface: &Interface,
    entry: &Entry,
    boot_id: &str,
) -> Result<Told, Error> {
    let configured = config.mtu()?;
    let mtu = |name: &LinkName, sandbox: &str| previous.mtu_of(name.as_str(), sandbox).or(configured);
    // CHECK works without weftd's file, as everything else that is about a pod that is there.
    let node = NodeFile::read(&config.run_dir, boot_id).ok();
    Ok(Told {
        host_mtu: mtu(&interface.host_link, ""),
        pod_mtu: mtu(&interface.ifname, &entry.netns),
        sources: node.as_ref().map(preferred_sources).unwrap_or_default(),
    })
}
