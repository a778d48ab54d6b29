//! CHECK compares the interface with the store and with what ADD answered.

use std::net::IpAddr;
use std::path::Path;

use super::add::answer;
use super::{
    datapath_error, host_link_name, interface, key, namespace_error, node_error, open_socket, open_store,
    store_error,
};
use crate::datapath::{self, PodNamespace};
use crate::ipam::State;
use crate::node;
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
    let entry = hold.entry().map_err(store_error)?.filter(|entry| entry.state == State::Committed);
    let entry = entry.ok_or_else(|| {
        Error::new(Code::UnknownContainer, format!("{} was not added, or was deleted", hold.key()))
    })?;

    let mut faults = Vec::new();
    let told = previous.addresses_of(attachment.ifname.as_str());
    let mut held = entry.addresses.clone();
    held.sort_unstable();
    if told != held {
        faults.push(format!("prevResult gives {} to the interface, the store {}", list(&told), list(&held)));
    }
    let namespace = PodNamespace::open(Path::new(netns)).map_err(namespace_error)?;
    let interface = interface(&entry, attachment, host_link_name(attachment)?);
    faults.extend(previous.lacks(&answer(&interface, None, &entry.netns)));
    faults.extend(datapath::check(&mut open_socket()?, &namespace, &interface).map_err(datapath_error)?);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::CheckFailed, format!("{} is not as ADD left it", hold.key()))
        .details(faults.join("; ")))
}

fn list(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
