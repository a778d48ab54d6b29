//! The commands. ADD validates everything, reserves addresses, makes the interface, commits and answers; a failure
//! undoes what was done. A process killed in between leaves a reserved entry and perhaps a link, which the next ADD or
//! DEL for the same container interface takes over or away.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use weft_routing::netlink::{self, LinkName, Socket};

use crate::datapath::{self, Interface, PodAddress, PodNamespace, PreferredSources};
use crate::ipam::{self, Entry, Hold, Key, Request, State, Store};
use crate::node::{self, GATEWAY_V4, GATEWAY_V6, NodeFile, check_mtu};
use crate::spec::{
    AddResult, Attachment, Code, Environment, Error, IpConfig, NetworkConfig, PreviousResult, Route, Version,
    VersionResult, parse_version,
};
use crate::{mac, spec};

/// The longest configuration that is read, in bytes; runtimes send a few thousand.
const INPUT_MAX: u64 = 4 * 1024 * 1024;

/// Runs the command the environment asks for: configuration on standard input, answer or error on standard output.
pub fn main() -> ExitCode {
    let outcome = Environment::parse(|name| std::env::var_os(name))
        .map_err(|error| (error, Version::LATEST))
        .and_then(|environment| {
            let input = read_input().map_err(|error| (error, Version::LATEST))?;
            let version = parse_version(&input).unwrap_or(Version::LATEST);
            run(environment, &input).map_err(|error| (error, version))
        });
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err((error, version)) => (error.to_json(version), ExitCode::FAILURE),
    };
    // A runtime that does not listen has given up, and will call DEL.
    match io::stdout().write_all(&output) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_input() -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    let read = io::stdin().take(INPUT_MAX.saturating_add(1)).read_to_end(&mut input);
    read.map_err(|error| Error::new(Code::Io, format!("cannot read standard input: {error}")))?;
    if input.len() as u64 > INPUT_MAX {
        return Err(Error::new(
            Code::InvalidConfig,
            format!("the network configuration on standard input is larger than {INPUT_MAX} bytes"),
        ));
    }
    Ok(input)
}

/// Carries out one command; returns what goes to standard output.
pub fn run(environment: Environment, input: &[u8]) -> Result<Vec<u8>, Error> {
    match environment {
        Environment::Version => {
            // A caller that only wants the list may send nothing.
            let version = if input.is_empty() { Version::LATEST } else { parse_version(input)? };
            Ok(VersionResult::new(version).to_json())
        }
        Environment::Add(attachment, netns) => {
            let config = NetworkConfig::parse(input)?;
            add(&config, &attachment, &netns).map(|result| result.to_json(config.version))
        }
        Environment::Del(attachment) => {
            let config = NetworkConfig::parse(input)?;
            del(&config, &attachment).map(|()| Vec::new())
        }
        Environment::Check(attachment, netns) => {
            let config = NetworkConfig::parse(input)?;
            check(&config, &attachment, &netns).map(|()| Vec::new())
        }
    }
}

fn add(config: &NetworkConfig, attachment: &Attachment, netns: &str) -> Result<AddResult, Error> {
    if config.prev_result.is_some() {
        return Err(Error::new(
            Code::InvalidConfig,
            "prevResult: this plugin makes the interface, so it comes first in the list of plugins",
        ));
    }
    let boot_id = node::boot_id().map_err(node_error)?;
    let node = NodeFile::read(&config.run_dir, &boot_id).map_err(node_error)?;
    let mtu = config.mtu.unwrap_or(node.mtu);
    check_mtu(mtu, node.ipv6.is_some())
        .map_err(|reason| Error::new(Code::InvalidConfig, format!("mtu: {reason}")))?;
    let families: Vec<_> = node
        .families()
        .into_iter()
        .map(|family| family.blocks.into_iter().map(|block| block.cidr).collect())
        .collect();
    if families.is_empty() {
        return Err(Error::new(Code::TryAgainLater, "this node has no block of addresses for pods yet"));
    }
    let namespace = PodNamespace::open(Path::new(netns)).map_err(namespace_error)?;
    let mut socket = open_socket()?;
    let host_link = host_link_name(attachment)?;

    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    refuse_second_add(&mut hold, &mut socket, &host_link, &boot_id)?;
    let request = Request {
        families: &families,
        excluded: &node.own_addresses(),
        host_link: host_link.as_str(),
        mac: mac::of_attachment(&attachment.container_id, attachment.ifname.as_str()),
        netns,
        pod: attachment.pod.as_ref(),
    };
    let entry = hold.reserve(&request).map_err(store_error)?;
    let interface = interface(&entry, attachment, host_link);
    let done = datapath::create(&mut socket, &namespace, &interface, mtu, &preferred_sources(&node))
        .map_err(datapath_error)
        .and_then(|()| hold.commit().map_err(store_error));
    match done {
        Ok(()) => Ok(answer(&interface, netns)),
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
    let lives = entry.state == State::Committed
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

fn del(config: &NetworkConfig, attachment: &Attachment) -> Result<(), Error> {
    let host_link = host_link_name(attachment)?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    // The link first: an address is free when nothing answers to it any more.
    datapath::remove(&mut open_socket()?, &host_link).map_err(datapath_error)?;
    hold.release().map_err(store_error)?;
    Ok(())
}

fn check(config: &NetworkConfig, attachment: &Attachment, netns: &str) -> Result<(), Error> {
    if config.version < Version::V0_4_0 {
        return Err(Error::new(
            Code::IncompatibleVersion,
            format!("CHECK is not part of cniVersion {}, but of 0.4.0 and later", config.version),
        ));
    }
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

fn key(config: &NetworkConfig, attachment: &Attachment) -> Key {
    Key {
        network: config.name.clone(),
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.as_str().to_owned(),
    }
}

fn interface(entry: &Entry, attachment: &Attachment, host_link: LinkName) -> Interface {
    let with_gateway = |address: &IpAddr| PodAddress { address: *address, gateway: gateway(*address) };
    Interface {
        ifname: attachment.ifname.clone(),
        mac: entry.mac,
        host_link,
        addresses: entry.addresses.iter().map(with_gateway).collect(),
    }
}

/// The gateways are the same on every node, so that CHECK needs no `node.json`.
fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

fn preferred_sources(node: &NodeFile) -> PreferredSources {
    PreferredSources {
        ipv4: node.ipv4.as_ref().and_then(|family| family.node_address),
        ipv6: node.ipv6.as_ref().and_then(|family| family.node_address),
    }
}

fn answer(interface: &Interface, netns: &str) -> AddResult {
    /// Index of the pod's end below.
    const POD_END: usize = 1;
    let end = |name: &LinkName, mac, sandbox: &str| spec::Interface {
        name: name.to_string(),
        mac: mac::to_text(mac),
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
    }
}

fn host_link_name(attachment: &Attachment) -> Result<LinkName, Error> {
    datapath::host_link_name(&attachment.container_id, &attachment.ifname)
        .map_err(|error| Error::new(Code::Kernel, error.to_string()))
}

fn open_socket() -> Result<Socket, Error> {
    Socket::new().map_err(|error: netlink::Error| Error::new(Code::Kernel, error.to_string()))
}

fn open_store(config: &NetworkConfig, boot_id: &str) -> Result<Store, Error> {
    Store::open(&config.state_dir, boot_id).map_err(store_error)
}

fn node_error(error: node::Error) -> Error {
    Error::new(Code::TryAgainLater, format!("weftd has not made this node ready: {error}"))
        .details("see `weftctl status`")
}

fn namespace_error(error: datapath::Error) -> Error {
    Error::new(Code::InvalidEnvironment, format!("CNI_NETNS: {error}"))
}

fn datapath_error(error: datapath::Error) -> Error {
    Error::new(Code::Kernel, error.to_string())
}

fn store_error(error: ipam::Error) -> Error {
    let msg = error.to_string();
    match error {
        ipam::Error::Io { .. } => Error::new(Code::Io, msg),
        ipam::Error::Busy { .. } => Error::new(Code::TryAgainLater, msg),
        ipam::Error::Exhausted { .. } => {
            Error::new(Code::TryAgainLater, msg).details("delete pods, or give the node another block")
        }
        ipam::Error::Damaged { path, .. } => Error::new(Code::StoreDamaged, msg).details(format!(
            "no address is given out from it; drain the node, remove {}, and start its pods again",
            path.display()
        )),
        ipam::Error::Format { .. } => {
            Error::new(Code::StoreDamaged, msg).details("weft-cni and the store must be of one release")
        }
        ipam::Error::LinkNameTaken { .. } | ipam::Error::NotReserved(_) => Error::new(Code::Kernel, msg),
    }
}
