//! ADD validates everything, reserves addresses, makes the interface, commits and answers; a failure undoes what was
//! done. A process killed in between leaves a reserved entry and perhaps a link, which the next ADD or DEL for the same
//! container interface takes over or away.

use std::path::Path;

use weft_routing::netlink::{LinkName, Socket};

use super::choice::choose;
use super::{
    announced, datapath_error, host_link_name, interface, key, namespace_error, node_error, open_socket,
    open_store, store_error,
};
use crate::datapath::{self, Interface, PodAddress, PodNamespace, PreferredSources};
use crate::ipam::{Hold, Request, State};
use crate::node::{self, NodeFile, check_mtu};
use crate::spec::{AddRequest, AddResult, Attachment, Code, Error, IpConfig, NetworkConfig, Route};
use crate::{mac, spec};

pub(super) fn add(
    config: &NetworkConfig,
    attachment: &Attachment,
    netns: &str,
    request: &AddRequest,
) -> Result<AddResult, Error> {
    let boot_id = node::boot_id().map_err(node_error)?;
    let node = NodeFile::read(&config.run_dir, &boot_id).map_err(node_error)?;
    let families = choose(&node, request)?;
    let mtu = request.mtu.unwrap_or(node.mtu);
    let ipv6 = families.iter().flat_map(|family| &family.blocks).any(|block| block.cidr.network().is_ipv6());
    check_mtu(mtu, ipv6).map_err(|reason| Error::new(Code::InvalidConfig, format!("mtu: {reason}")))?;
    let namespace = PodNamespace::open(Path::new(netns)).map_err(namespace_error)?;
    let mut socket = open_socket()?;
    let host_link = host_link_name(attachment)?;

    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    refuse_second_add(&mut hold, &mut socket, &host_link, &boot_id)?;
    let entry = hold
        .reserve(&Request {
            families: &families,
            excluded: &node.own_addresses(),
            reserved: &node.reserved,
            host_link: host_link.as_str(),
            mac: request
                .mac
                .unwrap_or_else(|| mac::of_attachment(&attachment.container_id, attachment.ifname.as_str())),
            netns,
            pod: request.pod.as_ref(),
        })
        .map_err(store_error)?;
    let interface = interface(&entry, attachment, host_link);
    let done = datapath::create(&mut socket, &namespace, &interface, mtu, &preferred_sources(&node))
        .map_err(datapath_error)
        .and_then(|host_end| hold.commit(host_end).map_err(store_error))
        .and_then(|()| match request.wait_for_route {
            None => Ok(()),
            Some(patience) => announced::wait(&config.run_dir, &boot_id, &entry.addresses, patience),
        });
    match done {
        Ok(()) => Ok(AddResult { dns: request.dns.clone(), ..answer(&interface, Some(mtu), netns) }),
        Err(error) => Err(undo(&mut hold, &mut socket, &interface.host_link, error)),
    }
}

/// The specification forbids a second ADD without DEL. What is left of a pod whose link is gone, with its namespace or
/// in a reboot, or of an ADD that was killed, is no first one: the new ADD takes its addresses over.
fn refuse_second_add(
    hold: &mut Hold<'_>,
    socket: &mut Socket,
    host_link: &LinkName,
    boot_id: &str,
) -> Result<(), Error> {
    let Some(entry) = hold.entry().map_err(store_error)? else { return Ok(()) };
    let lives = entry.state != State::Reserved
        && entry.boot_id == boot_id
        && datapath::exists(socket, host_link).map_err(datapath_error)?;
    if lives {
        return Err(Error::new(Code::AlreadyAdded, format!("{} was added already", hold.key()))
            .details(format!("it has link {host_link}; DEL comes before another ADD")));
    }
    Ok(())
}

/// Takes back what a failed ADD did. What cannot be taken back is added to the error; a DEL will try again.
fn undo(hold: &mut Hold<'_>, socket: &mut Socket, host_link: &LinkName, error: Error) -> Error {
    let mut left = Vec::new();
    // The addresses stay taken as long as the link may have them.
    match datapath::remove(socket, host_link) {
        Ok(_) => left.extend(hold.release().err().map(|error| error.to_string())),
        Err(error) => left.push(error.to_string()),
    }
    if left.is_empty() {
        return error;
    }
    let details = [error.details.as_str(), "could not be undone:", &left.join("; ")].join(" ");
    error.details(details.trim_start().to_owned())
}

pub(super) fn preferred_sources(node: &NodeFile) -> PreferredSources {
    PreferredSources {
        ipv4: node.ipv4.as_ref().and_then(|family| family.node_address),
        ipv6: node.ipv6.as_ref().and_then(|family| family.node_address),
    }
}

/// What ADD answers, and CHECK finds again in `prevResult`.
pub(super) fn answer(interface: &Interface, mtu: Option<u32>, netns: &str) -> AddResult {
    /// Index of the pod's end below.
    const POD_END: usize = 1;
    let end = |name: &LinkName, mac, sandbox: &str| spec::Interface {
        name: name.to_string(),
        mac: mac::to_text(mac),
        mtu,
        sandbox: sandbox.to_owned(),
    };
    let ip = |pod: &PodAddress| IpConfig {
        address: pod.address.into(),
        gateway: Some(pod.gateway),
        interface: Some(POD_END),
    };
    let route = |pod: &PodAddress| Route { dst: datapath::default_destination(pod.address), gw: pod.gateway };
    AddResult {
        interfaces: vec![
            end(&interface.host_link, datapath::HOST_MAC, ""),
            end(&interface.ifname, interface.mac, netns),
        ],
        ips: interface.addresses.iter().map(ip).collect(),
        routes: interface.addresses.iter().map(route).collect(),
        dns: None,
    }
}
