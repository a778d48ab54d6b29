//! Whether an interface is as it was made.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use weft_routing::netlink::{Link, LinkName, Mac, Neighbour, Request, Socket};
use weft_routing::route::{Protocol, Route};
use weft_routing::sysctl;

use super::lookup::{link_of, look_up};
use super::step::HOST_PARAMETERS_V4;
use super::{
    Error, HOST_MAC, Interface, LOOPBACK_INDEX, PodNamespace, PreferredSources, default_route, host_address,
    pod_address, refused, speaks_ipv6,
};

/// What ADD was told beside the interface itself, as far as that is still known; the rest is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    /// MTU of the host end, in bytes.
    pub host_mtu: Option<u32>,
    /// MTU of the pod end, in bytes.
    pub pod_mtu: Option<u32>,
    /// The sources that the host's routes prefer.
    pub sources: PreferredSources,
}

/// What is not as [`super::create`] left it, one sentence each; empty when all is well.
pub fn check(
    socket: &mut Socket,
    namespace: &PodNamespace,
    interface: &Interface,
    told: &Told,
) -> Result<Vec<String>, Error> {
    let (mut faults, pod) = namespace.run(|| {
        let mut socket = Socket::new().map_err(refused("open a netlink socket in the pod"))?;
        check_pod(&mut socket, interface, told)
    })?;
    let (of_host, host) = check_host(socket, interface, told)?;
    faults.extend(of_host);
    if let (Some(pod), Some(host)) = (pod, host) {
        faults.extend(check_pair(interface, &pod, &host));
    }
    Ok(faults)
}

/// One end of the link, to be spoken of.
#[derive(Clone, Copy)]
struct End<'a> {
    name: &'a LinkName,
    place: &'static str,
    mac: Mac,
    mtu: Option<u32>,
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.place)
    }
}

/// A look at one end: what is wrong with it, and the link if there is one.
type Look = (Vec<String>, Option<Link>);

fn check_pod(socket: &mut Socket, interface: &Interface, told: &Told) -> Result<Look, Error> {
    let end = End { name: &interface.ifname, place: "in the pod", mac: interface.mac, mtu: told.pod_mtu };
    let mut faults = Vec::new();
    let lo = socket.link_by_index(LOOPBACK_INDEX).map_err(refused("look up lo in the pod"))?;
    if !lo.is_some_and(|lo| lo.up) {
        faults.push("lo in the pod is down".to_owned());
    }
    let Some(link) = end.find(socket, &mut faults)? else { return Ok((faults, None)) };
    let mut parameters = Vec::new();
    if interface.has_ipv6() {
        parameters.push(Parameter::new("ipv6", "lo", "disable_ipv6", 0));
        parameters.push(Parameter::new("ipv6", end.name.as_str(), "disable_ipv6", 0));
    }
    if speaks_ipv6(end.name) {
        parameters.push(Parameter::new("ipv6", end.name.as_str(), "accept_ra", 0));
    }
    faults.extend(parameters.iter().filter_map(|parameter| parameter.fault(end.place)));
    let seen = Seen::by(socket, Protocol::BOOT)?;
    for pod in &interface.addresses {
        faults.extend(seen.address_fault(&end, link.index, pod_address(pod.address, link.index).address));
        let gateway = Neighbour { link: link.index, address: pod.gateway, mac: HOST_MAC };
        faults.extend(seen.neighbour_fault(&end, &gateway));
        let route = default_route(pod, link.index);
        if !seen.has_route(&route) {
            faults.push(format!("the pod has no route {} via {}", route.key.destination(), pod.gateway));
        }
    }
    Ok((faults, Some(link)))
}

fn check_host(socket: &mut Socket, interface: &Interface, told: &Told) -> Result<Look, Error> {
    let end = End { name: &interface.host_link, place: "on the host", mac: HOST_MAC, mtu: told.host_mtu };
    let mut faults = Vec::new();
    let Some(link) = end.find(socket, &mut faults)? else { return Ok((faults, None)) };
    let ipv4 = HOST_PARAMETERS_V4.iter().map(|parameter| (parameter.name, parameter.value));
    let mut parameters: Vec<Parameter<'_>> =
        ipv4.map(|(name, value)| Parameter::new("ipv4", end.name.as_str(), name, value)).collect();
    if interface.has_ipv6() {
        parameters.push(Parameter::new("ipv6", end.name.as_str(), "disable_ipv6", 0));
    }
    if speaks_ipv6(end.name) {
        parameters.push(Parameter::new("ipv6", end.name.as_str(), "accept_ra", 0));
        parameters.push(Parameter::new("ipv6", end.name.as_str(), "addr_gen_mode", ADDR_GEN_MODE_NONE));
    }
    faults.extend(parameters.iter().filter_map(|parameter| parameter.fault(end.place)));
    let seen = Seen::by(socket, Protocol::WEFT_PODS)?;
    for pod in &interface.addresses {
        if pod.gateway.is_ipv6() {
            faults.extend(seen.address_fault(
                &end,
                link.index,
                host_address(pod.gateway, link.index).address,
            ));
        }
        let way = interface.host_route(pod, link.index);
        faults.extend(seen.neighbour_fault(&end, &way.neighbour()));
        let wanted = way.route(told.sources.towards(pod.address));
        match seen.routes.iter().find(|found| found.key == wanted.key && found.action == wanted.action) {
            None => faults.push(format!("the host has no route to {} on {}", pod.address, end.name)),
            Some(found) => {
                faults.extend(source_fault(pod.address, &wanted, found));
                faults.extend(way_fault(socket, pod.address, &end, &link));
            }
        }
    }
    Ok((faults, Some(link)))
}

fn source_fault(address: IpAddr, wanted: &Route, found: &Route) -> Option<String> {
    let source = wanted.preferred_source.filter(|_| wanted.preferred_source != found.preferred_source)?;
    let instead = found.preferred_source.map_or_else(|| "none".to_owned(), |found| found.to_string());
    Some(format!("the host's route to {address} prefers {instead} as source instead of {source}"))
}

/// Another route, with a better metric or of another table, may take the packets away.
fn way_fault(socket: &mut Socket, address: IpAddr, end: &End<'_>, link: &Link) -> Option<String> {
    match look_up(socket, address) {
        Ok(route) if link_of(&route) == Some(link.index) => None,
        Ok(_) => Some(format!("the host sends packets to {address} another way than by {}", end.name)),
        Err(error) => Some(format!("the host sends no packets to {address}: {error}")),
    }
}

/// What is wrong between two ends each of which may be right.
fn check_pair(interface: &Interface, pod: &Link, host: &Link) -> Option<String> {
    let (pod_end, host_end) = (&interface.ifname, &interface.host_link);
    if (pod.peer, host.peer) != (Some(host.index), Some(pod.index)) {
        return Some(format!("{pod_end} in the pod is not the other end of {host_end} on the host"));
    }
    (host.mtu < pod.mtu).then(|| {
        format!(
            "{host_end} on the host has MTU {} and drops packets of {pod_end} in the pod, which has {}",
            host.mtu, pod.mtu
        )
    })
}

impl End<'_> {
    /// The link, where it is there; says what is wrong with it.
    fn find(&self, socket: &mut Socket, faults: &mut Vec<String>) -> Result<Option<Link>, Error> {
        let found = socket.link_by_name(self.name).map_err(refused(format_args!("look up link {self}")))?;
        let Some(link) = &found else {
            faults.push(format!("there is no link {self}"));
            return Ok(None);
        };
        if link.kind.as_deref() != Some("veth") {
            faults.push(format!("{self} is no veth"));
        }
        if !link.up {
            faults.push(format!("{self} is down"));
        }
        if link.mac != Some(self.mac) {
            let instead = link.mac.map_or_else(|| "none".to_owned(), crate::mac::to_text);
            let wanted = crate::mac::to_text(self.mac);
            faults.push(format!("{self} has MAC address {instead} instead of {wanted}"));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu != link.mtu) {
            faults.push(format!("{self} has MTU {} instead of {mtu}", link.mtu));
        }
        Ok(found)
    }
}

/// `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h).
const ADDR_GEN_MODE_NONE: u32 = 1;

/// A kernel parameter of one link, and what it should be.
struct Parameter<'a> {
    family: &'static str,
    link: &'a str,
    name: &'static str,
    value: u32,
}

impl<'a> Parameter<'a> {
    fn new(family: &'static str, link: &'a str, name: &'static str, value: u32) -> Self {
        Self { family, link, name, value }
    }

    /// Reads it in the network namespace of the calling thread.
    fn fault(&self, place: &str) -> Option<String> {
        let key = format!("net/{}/conf/{}/{}", self.family, self.link, self.name);
        match sysctl::read(&key) {
            Ok(value) if value == self.value.to_string() => None,
            Ok(value) => Some(format!("{key} {place} is {value} instead of {}", self.value)),
            Err(error) => Some(format!("{place}: {error}")),
        }
    }
}

/// What a namespace has: the routes of one protocol only, since a node may have a million others.
struct Seen {
    addresses: Vec<SeenAddress>,
    neighbours: Vec<Neighbour>,
    routes: Vec<Route>,
}

struct SeenAddress {
    link: u32,
    address: IpNet,
    flags: AddressFlags,
}

impl Seen {
    fn by(socket: &mut Socket, protocol: Protocol) -> Result<Self, Error> {
        let every = Request::new(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), 0);
        let addresses = socket.dump(&every, |_, payload| SeenAddress::parse(payload));
        Ok(Self {
            addresses: addresses.map_err(refused("list addresses"))?,
            neighbours: socket.neighbours().map_err(refused("list neighbours"))?,
            routes: socket.routes_of(protocol).map_err(refused("list routes"))?,
        })
    }

    /// What is wrong with an address that was added to last and, of IPv6, without duplicate address detection.
    fn address_fault(&self, end: &End<'_>, link: u32, wanted: IpNet) -> Option<String> {
        let same = |found: &&SeenAddress| found.link == link && found.address.addr() == wanted.addr();
        let Some(found) = self.addresses.iter().find(same) else {
            return Some(format!("{end} has no address {wanted}"));
        };
        let fault = if found.address != wanted {
            format!("has prefix length {} instead of {}", found.address.prefix_len(), wanted.prefix_len())
        } else if found.flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
            "has not passed duplicate address detection".to_owned()
        } else if wanted.addr().is_ipv6() && !found.flags.contains(AddressFlags::Nodad) {
            "was added with duplicate address detection".to_owned()
        } else if !found.flags.contains(AddressFlags::Permanent) {
            "has a limited lifetime".to_owned()
        } else {
            return None;
        };
        Some(format!("address {} of {end} {fault}", wanted.addr()))
    }

    fn neighbour_fault(&self, end: &End<'_>, wanted: &Neighbour) -> Option<String> {
        let same = |found: &&Neighbour| (found.link, found.address) == (wanted.link, wanted.address);
        match self.neighbours.iter().find(same) {
            None => Some(format!("{end} has no permanent neighbour {}", wanted.address)),
            Some(found) if found.mac != wanted.mac => Some(format!(
                "neighbour {} of {end} has MAC address {} instead of {}",
                wanted.address,
                crate::mac::to_text(found.mac),
                crate::mac::to_text(wanted.mac)
            )),
            Some(_) => None,
        }
    }

    /// Whether there is a route of this key that leads the same way.
    fn has_route(&self, wanted: &Route) -> bool {
        self.routes.iter().any(|found| found.key == wanted.key && found.action == wanted.action)
    }
}

impl SeenAddress {
    fn parse(payload: &[u8]) -> Option<Self> {
        let message = AddressMessage::parse(payload).ok()?;
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        let mut local = None;
        let mut peer = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                // All of them: the header has room for eight.
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let address = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, address, flags })
    }
}
