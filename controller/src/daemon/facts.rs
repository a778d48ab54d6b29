//! What the planner has to know of this machine, drawn from the kernel's state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use weft_bgp::transport::has_tcp_ao;
use weft_routing::netlink::{Link, Mac};
use weft_routing::resolve::Topology;
use weft_routing::route::Action;

use super::cleanup::is_pod_link;
use crate::plan::{HostFacts, InterfaceFacts};

/// `RTPROT_RA` (rtnetlink.h): a route out of a router advertisement.
const PROTOCOL_RA: u8 = 9;

/// The interfaces but those of pods; of held blocks the kernel knows nothing. An address still under duplicate address detection is nobody's yet.
pub(super) fn of(topology: &Topology) -> HostFacts {
    let default_routes = topology.default_route_links();
    let advertised = links_with_advertised_default_route(topology);
    let interfaces: BTreeMap<_, _> = topology
        .links()
        .filter(|link| !is_pod_link(&link.name))
        .map(|link| {
            let addresses = topology
                .addresses()
                .iter()
                .filter(|a| a.link == link.index && !a.tentative)
                .map(|a| a.address);
            let facts = InterfaceFacts {
                index: link.index,
                addresses: addresses.collect(),
                mtu: link.mtu,
                default_route: default_routes.contains(&link.index),
                router_advertisements: advertised.contains(&link.index),
            };
            (link.name.clone(), facts)
        })
        .collect();
    HostFacts { interfaces, tcp_ao: has_tcp_ao(), ..HostFacts::default() }
}

fn links_with_advertised_default_route(topology: &Topology) -> BTreeSet<u32> {
    topology
        .foreign(&IpNet::V6(Ipv6Net::default()))
        .iter()
        .filter(|route| route.protocol.0 == PROTOCOL_RA)
        .filter_map(|route| match &route.action {
            Action::Forward(legs) => Some(legs),
            _ => None,
        })
        .flatten()
        .map(|leg| leg.link)
        .collect()
}

/// The links that router advertisements can be sent on: up, and with a link-local address that is past duplicate address
/// detection. Each with its MAC address.
pub(super) fn advertising_links(topology: &Topology) -> BTreeMap<u32, Option<Mac>> {
    let has_link_local = |link: &Link| {
        topology.addresses().iter().any(|held| {
            let link_local = matches!(held.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
            held.link == link.index && link_local && !held.tentative
        })
    };
    let ready = topology.links().filter(|link| link.is_running() && has_link_local(link));
    ready.map(|link| (link.index, link.mac)).collect()
}
