//! The commands, each in a file of its own. This one reads the environment and standard input, hands them to the
//! command and writes what it answers; and it holds what several commands need.

mod add;
mod announced;
mod check;
mod choice;
mod del;
mod gc;
mod status;

use std::io::{self, IsTerminal, Read, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use weft_routing::netlink::{self, LinkName, Socket};

use crate::datapath::{self, Interface, PodAddress};
use crate::ipam::{self, Entry, Key, Store};
use crate::node::{self, GATEWAY_V4, GATEWAY_V6};
use crate::spec::{
    AddRequest, Attachment, Code, Environment, Error, NetworkConfig, Version, VersionResult, parse_version,
};

/// The longest configuration that is read, in bytes; runtimes send a few thousand.
const INPUT_MAX: u64 = 4 * 1024 * 1024;

/// Runs the command the environment asks for: configuration on standard input, answer or error on standard output.
pub fn main() -> ExitCode {
    // The configuration first, so that an error about the environment too is written in its version.
    let (version, outcome) = match read_input() {
        Err(error) => (Version::LATEST, Err(error)),
        Ok(input) => {
            let environment = Environment::parse(|name| std::env::var_os(name));
            let version = parse_version(&input).unwrap_or(Version::LATEST);
            (version, environment.and_then(|environment| run(environment, &input)))
        }
    };
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (error.to_json(version), ExitCode::FAILURE),
    };
    // A runtime that does not listen has given up, and will call DEL.
    match io::stdout().write_all(&output) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A person at a terminal is not waited for.
fn read_input() -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    if io::stdin().is_terminal() {
        return Ok(input);
    }
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
            // A caller of another version, or none, asks in order to find one that both speak.
            Ok(VersionResult::new(parse_version(input).unwrap_or(Version::LATEST)).to_json())
        }
        Environment::Add { attachment, netns, arguments } => {
            let config = NetworkConfig::parse(input)?;
            let request = AddRequest::parse(&config, &arguments)?;
            let result = add::add(&config, &attachment, &netns, &request)?;
            Ok(result.to_json(config.version, request.chained))
        }
        Environment::Del(attachment) => {
            let config = NetworkConfig::parse(input)?;
            del::del(&config, &attachment).map(|()| Vec::new())
        }
        Environment::Check(attachment, netns) => {
            let config = NetworkConfig::parse(input)?;
            since(Version::V0_4_0, "CHECK", &config)?;
            check::check(&config, &attachment, &netns).map(|()| Vec::new())
        }
        Environment::Gc => {
            let config = NetworkConfig::parse(input)?;
            since(Version::V1_1_0, "GC", &config)?;
            gc::gc(&config).map(|()| Vec::new())
        }
        Environment::Status => {
            let config = NetworkConfig::parse(input)?;
            since(Version::V1_1_0, "STATUS", &config)?;
            status::status(&config).map(|()| Vec::new())
        }
    }
}

/// Refuses a command that the configuration's version does not have.
fn since(first: Version, command: &str, config: &NetworkConfig) -> Result<(), Error> {
    if config.version >= first {
        return Ok(());
    }
    Err(Error::new(
        Code::IncompatibleVersion,
        format!("{command} is not part of cniVersion {}, but of {first} and later", config.version),
    ))
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
        ipam::Error::Taken { .. } => {
            Error::new(Code::TryAgainLater, msg).details("ask for another address, or delete that one first")
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
