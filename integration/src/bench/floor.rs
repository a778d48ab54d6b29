//! The kernel's own share: a process that asks the kernel for a pod's interface and does nothing else.
//!
//! What it makes has the form of what `weft-cni` makes: a veth whose peer is born in the pod's namespace, addresses,
//! permanent neighbours and routes of both families, both ends up. It allocates, checks, remembers, waits for and undoes nothing.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use weft_routing::PodRoute;
use weft_routing::netlink::{self, Address, LinkName, Neighbour, Request, Scope, Socket, Veth};
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};

use super::site::{BLOCK_V4, BLOCK_V6, INTERFACE};

/// The first argument of this program when it is started as this process.
pub const ARGUMENT: &str = "floor";

const HOST_MAC: [u8; 6] = [0xee; 6];
const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const LOOPBACK_INDEX: u32 = 1;

/// Carries out what the arguments behind [`ARGUMENT`] say: `start`, `add NUMBER NETNS`, `del NUMBER`.
///
/// # Errors
/// What the kernel refuses, and other arguments.
pub fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["start"] => Ok(()),
        ["add", number, netns] => add(number.parse()?, Path::new(netns)),
        ["del", number] => delete(number.parse()?),
        _ => bail!("{ARGUMENT} takes start, add NUMBER NETNS or del NUMBER"),
    }
}

fn link_name(number: u32) -> Result<LinkName> {
    Ok(format!("floor{number}").parse()?)
}

/// The addresses of pod `number`, and the gateways that it has for them.
fn addresses(number: u32) -> [(IpAddr, IpAddr); 2] {
    let v4 = BLOCK_V4.network().to_bits().wrapping_add(number);
    let v6 = BLOCK_V6.network().to_bits().wrapping_add(number.into());
    [(Ipv4Addr::from_bits(v4).into(), GATEWAY_V4), (Ipv6Addr::from_bits(v6).into(), GATEWAY_V6)]
}

fn add(number: u32, netns: &Path) -> Result<()> {
    let namespace = File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
    let name = link_name(number)?;
    let peer_name: LinkName = INTERFACE.parse()?;
    let mut host = Socket::new()?;
    let veth = Veth {
        name: &name,
        mac: HOST_MAC,
        peer_name: &peer_name,
        peer_mac: Some(POD_MAC),
        peer_netns: &namespace,
        mtu: 1500,
    };
    host.execute(&veth.create())?;
    let host_link = index(&mut host, &name)?;
    // The socket stays on the host; the process has nothing else to do there.
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let mut pod = Socket::new()?;
    let pod_link = index(&mut pod, &peer_name)?;
    perform(&mut pod, &in_pod(number, pod_link))?;
    perform(&mut host, &on_host(number, host_link))
}

fn in_pod(number: u32, link: u32) -> Vec<Request> {
    let mut requests = vec![netlink::set_up(LOOPBACK_INDEX, true), netlink::set_up(link, true)];
    for (address, gateway) in addresses(number) {
        let default =
            if address.is_ipv4() { IpNet::V4(Default::default()) } else { IpNet::V6(Default::default()) };
        let next_hop = NextHop { onlink: true, ..NextHop::via(gateway, link) };
        let route = Route {
            key: RouteKey::new(default, 0),
            protocol: Protocol::BOOT,
            action: Action::Forward(next_hop.into()),
            preferred_source: None,
        };
        requests.extend([
            Address { link, address: address.into(), scope: Scope::Global, tentative: false }.add(),
            Neighbour { link, address: gateway, mac: HOST_MAC }.replace(),
            route.add(),
        ]);
    }
    requests
}

fn on_host(number: u32, link: u32) -> Vec<Request> {
    let gateway = IpNet::new_assert(GATEWAY_V6, 64);
    let mut requests = vec![
        netlink::set_addr_gen_mode_none(link),
        netlink::set_up(link, true),
        Address { link, address: gateway, scope: Scope::Link, tentative: false }.add(),
    ];
    for (address, _) in addresses(number) {
        let way = PodRoute { address, link, mac: POD_MAC };
        requests.extend([way.neighbour().replace(), way.route(None).add()]);
    }
    requests
}

fn delete(number: u32) -> Result<()> {
    let mut socket = Socket::new()?;
    let Some(link) = socket.link_by_name(&link_name(number)?)? else { return Ok(()) };
    match socket.execute(&netlink::delete_link(link.index)) {
        Err(error) if !error.is_absent() => Err(error.into()),
        _ => Ok(()),
    }
}

fn index(socket: &mut Socket, name: &LinkName) -> Result<u32> {
    let link = socket.link_by_name(name)?;
    Ok(link.with_context(|| format!("there is no link {name}"))?.index)
}

fn perform(socket: &mut Socket, requests: &[Request]) -> Result<()> {
    socket.batch(requests).into_iter().try_for_each(|result| Ok(result?))
}
