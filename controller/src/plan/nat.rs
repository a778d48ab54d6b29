//! What the node wants of nftables: which pods speak to the outside with the node's address, who counts as outside, and where
//! packets to Services end.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_routing::nft::{Nat, Ruleset, ServiceRanges};

use super::make::Context;
use crate::api::json::Problem;

/// Link-local (RFC 3927) and multicast (RFC 5771): a translated source would make no sense.
const NEVER_V4: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
];
/// Link-local and multicast (RFC 4291 section 2.4).
const NEVER_V6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// What the node wants of nftables, and the families in which it cannot be had.
pub(super) fn ruleset(context: &Context<'_>) -> (Ruleset, Vec<Problem>) {
    let pools = || context.cluster.pools.values();
    let (pools_v4, pools_v6) = split(pools().filter(|pool| pool.nat_outgoing).map(|pool| pool.cidr.net()));
    let (mut excluded_v4, mut excluded_v6) = split(inside(context));
    excluded_v4.extend(NEVER_V4);
    excluded_v6.extend(NEVER_V6);
    let own = context.known();
    let mut problems = Vec::new();
    let missing = [
        ("IPv4", own.v4.is_none() && !pools_v4.is_empty()),
        ("IPv6", own.v6.is_none() && !pools_v6.is_empty()),
    ];
    problems
        .extend(missing.into_iter().filter(|(_, missing)| *missing).map(|(family, _)| no_address(family)));
    let nat_v4 = own.v4.filter(|_| !pools_v4.is_empty());
    let nat_v6 = own.v6.filter(|_| !pools_v6.is_empty());
    let (services_v4, services_v6) = split(context.settings.services.ranges());
    let ruleset = Ruleset {
        services: ServiceRanges { v4: services_v4, v6: services_v6 },
        nat_v4: nat_v4.map(|source| Nat { source, pools: pools_v4, excluded: excluded_v4 }),
        nat_v6: nat_v6.map(|source| Nat { source, pools: pools_v6, excluded: excluded_v6 }),
    };
    (ruleset, problems)
}

/// The destinations that see pods' own sources: pods, also those of pools that give out no more addresses; nodes; Services;
/// and what the admin says.
fn inside<'a>(context: &'a Context<'_>) -> impl Iterator<Item = IpNet> + 'a {
    let cluster = context.cluster;
    let pools = cluster.pools.values().map(|pool| pool.cidr.net());
    let blocks = cluster.blocks.values().map(|block| block.cidr.net()).chain(context.cidrs());
    let pod_cidrs = cluster.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
    let nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter().copied().map(IpNet::from));
    let own = context.known().iter().map(IpNet::from);
    let asked = context.settings.nat_outgoing_exclude.iter().map(|cidr| cidr.net());
    let services = context.settings.services.ranges();
    pools.chain(blocks).chain(pod_cidrs).chain(nodes).chain(own).chain(asked).chain(services)
}

fn split(nets: impl Iterator<Item = IpNet>) -> (BTreeSet<Ipv4Net>, BTreeSet<Ipv6Net>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for net in nets {
        match net {
            IpNet::V4(net) => drop(v4.insert(net)),
            IpNet::V6(net) => drop(v6.insert(net)),
        }
    }
    (v4, v6)
}

fn no_address(family: &str) -> Problem {
    Problem::error(
        "nat-no-address",
        format!("an {family} IPPool has natOutgoing, and this node has no {family} address to speak with"),
        "give the Node an InternalIP of that family that is on one of its interfaces, or set nodeAddress",
    )
}
