//! Whether an interface is as it was made.

use weft_routing::netlink::{Link, LinkName, Mac, Neighbour, Socket};
use weft_routing::route::{Protocol, Route};
use weft_routing::sysctl;

use super::step::HOST_PARAMETERS_V4;
use super::{
    Error, HOST_MAC, Interface, LOOPBACK_INDEX, PodNamespace, default_route, host_address, pod_address,
    refused, speaks_ipv6,
};

/// What is not as [`super::create`] left it, one sentence each; empty when all is well. An MTU may have been changed
/// since, by a later plugin of the chain.
pub fn check(
    socket: &mut Socket,
    namespace: &PodNamespace,
    interface: &Interface,
) -> Result<Vec<String>, Error> {
    let mut faults = namespace.run(|| {
        let mut socket = Socket::new().map_err(refused("open a netlink socket in the pod"))?;
        check_pod(&mut socket, interface)
    })?;
    faults.extend(check_host(socket, interface)?);
    Ok(faults)
}

fn check_pod(socket: &mut Socket, interface: &Interface) -> Result<Vec<String>, Error> {
    let name = &interface.ifname;
    let mut faults = Vec::new();
    let lo = socket.link_by_index(LOOPBACK_INDEX).map_err(refused("look up lo in the pod"))?;
    if !lo.is_some_and(|lo| lo.up) {
        faults.push("lo in the pod is down".to_owned());
    }
    let Some(link) = find(socket, name, "in the pod", interface.mac, &mut faults)? else {
        return Ok(faults);
    };
    let seen = Seen::by(socket, Protocol::BOOT)?;
    for pod in &interface.addresses {
        let wanted = pod_address(pod.address, link.index);
        if !seen.has_address(wanted.link, wanted.address) {
            faults.push(format!("{name} in the pod has no address {}", wanted.address));
        }
        let gateway = Neighbour { link: link.index, address: pod.gateway, mac: HOST_MAC };
        if !seen.neighbours.contains(&gateway) {
            faults.push(format!("{name} in the pod has no permanent neighbour {}", pod.gateway));
        }
        let route = default_route(pod, link.index);
        if !seen.has_route(&route) {
            faults.push(format!("the pod has no route {} via {}", route.key.destination(), pod.gateway));
        }
    }
    Ok(faults)
}

fn check_host(socket: &mut Socket, interface: &Interface) -> Result<Vec<String>, Error> {
    let name = &interface.host_link;
    let mut faults = Vec::new();
    let Some(link) = find(socket, name, "on the host", HOST_MAC, &mut faults)? else {
        return Ok(faults);
    };
    faults.extend(check_host_parameters(name));
    let seen = Seen::by(socket, Protocol::WEFT_PODS)?;
    for pod in &interface.addresses {
        if pod.gateway.is_ipv6()
            && !seen.has_address(link.index, host_address(pod.gateway, link.index).address)
        {
            faults.push(format!("{name} on the host has no address {}", pod.gateway));
        }
        let way = interface.host_route(pod);
        if !seen.neighbours.contains(&way.neighbour(link.index)) {
            faults.push(format!("{name} on the host has no permanent neighbour {}", pod.address));
        }
        if !seen.has_route(&way.route(link.index, None)) {
            faults.push(format!("the host has no route to {} on {name}", pod.address));
        }
    }
    Ok(faults)
}

fn check_host_parameters(name: &LinkName) -> Vec<String> {
    let ipv4 = HOST_PARAMETERS_V4.iter().map(|sysctl| ("ipv4", sysctl.name, sysctl.value));
    let ipv6 = speaks_ipv6(name).then_some(("ipv6", "accept_ra", 0));
    let fault = |(family, parameter, wanted): (&str, &str, u32)| {
        let key = format!("net/{family}/conf/{name}/{parameter}");
        match sysctl::read(&key) {
            Ok(value) if value == wanted.to_string() => None,
            Ok(value) => Some(format!("sysctl {key} is {value} and not {wanted}")),
            Err(error) => Some(error.to_string()),
        }
    };
    ipv4.chain(ipv6).filter_map(fault).collect()
}

/// The link, where it is there; says what is wrong with it.
fn find(
    socket: &mut Socket,
    name: &LinkName,
    place: &str,
    mac: Mac,
    faults: &mut Vec<String>,
) -> Result<Option<Link>, Error> {
    let found = socket.link_by_name(name).map_err(refused(format_args!("look up link {name} {place}")))?;
    let Some(link) = &found else {
        faults.push(format!("there is no link {name} {place}"));
        return Ok(None);
    };
    if link.kind.as_deref() != Some("veth") {
        faults.push(format!("{name} {place} is no veth"));
    }
    if !link.up {
        faults.push(format!("{name} {place} is down"));
    }
    if link.mac != Some(mac) {
        faults.push(format!("{name} {place} has another MAC address than {}", crate::mac::to_text(mac)));
    }
    Ok(found)
}

/// What a namespace has: the routes of one protocol only, since a node may have a million others.
struct Seen {
    addresses: Vec<weft_routing::netlink::Address>,
    neighbours: Vec<Neighbour>,
    routes: Vec<Route>,
}

impl Seen {
    fn by(socket: &mut Socket, protocol: Protocol) -> Result<Self, Error> {
        Ok(Self {
            addresses: socket.addresses().map_err(refused("list addresses"))?,
            neighbours: socket.neighbours().map_err(refused("list neighbours"))?,
            routes: socket.routes_of(protocol).map_err(refused("list routes"))?,
        })
    }

    fn has_address(&self, link: u32, address: ipnet::IpNet) -> bool {
        self.addresses.iter().any(|found| found.link == link && found.address == address)
    }

    /// Whether there is a route of this key that leads the same way. Its preferred source is weftd's business.
    fn has_route(&self, wanted: &Route) -> bool {
        self.routes.iter().any(|found| found.key == wanted.key && found.action == wanted.action)
    }
}
