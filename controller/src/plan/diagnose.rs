//! What a plan finds wrong or noteworthy.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_bgp::protection::{Authentication, Password};
use weft_bgp::types::Family;

use super::address;
use super::bfd;
use super::blocks::BlockState;
use super::make::Context;
use super::session::{Origin, Place, Wanted};
use super::settings::{SettingsByNode, node_configuration_name};
use crate::api::json::Problem;
use crate::api::{AllowedUse, NextHopMode, NodeAddress, PeerAs, SourceAddress};
use crate::cluster::{Cluster, Signing};

/// How many nodes a full mesh carries without a word: each has a session with every other.
const MESH_MAX: usize = 100;

/// How many names a sentence lists.
const LISTED: usize = 5;

pub(super) fn no_node(cluster: &Cluster, name: &str) -> Problem {
    let known = list(cluster.nodes.keys().map(String::as_str));
    let known = if known.is_empty() { "there are none".into() } else { format!("there are {known}") };
    Problem::error(
        "no-node",
        format!("there is no Node {name}"),
        format!("add a Node document of that name, or start weftd with --node for another; {known}"),
    )
}

pub(super) fn peer_conflict(place: Place<'_>, first: &str, second: &str) -> Problem {
    Problem::error(
        "peer-conflict",
        format!("the BGPPeers {first} and {second} both ask for a session with {place}; {first} is used"),
        "keep one of them, or part them by nodeSelector",
    )
}

pub(super) fn no_common_family(session: &Wanted<'_>) -> Problem {
    let other = session.node.as_ref().map_or("its peer", |(name, _)| *name);
    Problem::error(
        "no-common-family",
        format!("{}: this node and {other} have no address family in common", session.name()),
        "give both Nodes an InternalIP of one family",
    )
}

pub(super) fn peer_is_self(session: &Wanted<'_>, address: IpAddr) -> Problem {
    Problem::warning(
        "peer-is-self",
        format!("BGPPeer {}: {address} is an address of this node", session.name()),
        "leave this node out by nodeSelector",
    )
}

pub(super) fn no_interface(session: &Wanted<'_>, name: &str) -> Problem {
    Problem::error(
        "no-interface",
        format!("BGPPeer {}: this node has no interface {name}", session.name()),
        "correct the name (`ip link` shows them), or leave this node out by nodeSelector",
    )
}

pub(super) fn no_family(session: &Wanted<'_>) -> Problem {
    Problem::error(
        "no-family",
        format!("{}: the node has no address of a family that the session may carry", session.name()),
        "give the Node an InternalIP of that family, or change the peer's families",
    )
}

pub(super) fn no_peer_as(session: &Wanted<'_>) -> Problem {
    Problem::error(
        "no-peer-as",
        format!("BGPPeer {} names no AS", session.name()),
        "set asNumber to a number, internal or external",
    )
}

/// What a session is signed with is not to be had, or not all of it.
pub(super) fn unsigned(
    session: &Wanted<'_>,
    context: &Context<'_>,
    authentication: &Authentication,
) -> Option<Problem> {
    let (who, [password, keys]) = match session.peer() {
        Some(peer) => (format!("BGPPeer {peer}"), ["password", "tcpAO"]),
        None => ("the node-to-node mesh".to_owned(), ["nodeMeshPassword", "nodeMeshTCPAO"]),
    };
    let max = Password::MAX;
    let Authentication::Unavailable(why) = authentication else {
        let Some(Signing::TcpAo(spec)) = session.signing(&context.settings) else { return None };
        let missing = context.cluster.missing_keys(spec);
        let why = missing.first()?;
        let count = missing.len();
        return Some(Problem::warning(
            "no-password",
            format!("{who} goes without {count} of its TCP-AO keys: {why}"),
            format!("put a key of 1 to {max} octets there, or correct the secretKeyRef in {keys}.keys"),
        ));
    };
    Some(match session.signing(&context.settings) {
        Some(Signing::TcpAo(_)) if !context.host.tcp_ao => Problem::error(
            "no-tcp-ao",
            format!("{who} wants TCP-AO, and its sessions stay down: {why}"),
            format!(
                "run another kernel on this node, or write {password} in the place of {keys}, at both ends"
            ),
        ),
        Some(Signing::TcpAo(_)) => Problem::error(
            "no-password",
            format!("{who} has no TCP-AO keys, and its sessions stay down: {why}"),
            format!("put a key of 1 to {max} octets there, or correct the secretKeyRef in {keys}.keys"),
        ),
        Some(Signing::Password(_)) | None => Problem::error(
            "no-password",
            format!("{who} has no password, and its sessions stay down: {why}"),
            format!("put a password of 1 to {max} octets there, or correct {password}.secretKeyRef"),
        ),
    })
}

/// Everything about the node as a whole.
pub(super) fn all(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    let mut problems = missing_addresses(context);
    problems.extend(other_address(context, sessions));
    problems.extend(large_mesh(sessions));
    problems.extend(blocks_outside_pools(context));
    problems.extend(equal_router_ids(context));
    problems.extend(absent_sources(context, sessions));
    problems.extend(missing_filters(context, sessions));
    problems.extend(missing_profiles(context, sessions));
    problems.extend(as_loop(context, sessions));
    problems.extend(no_routes(context, sessions));
    problems
}

/// An address is never guessed: what is not found is said.
fn missing_addresses(context: &Context<'_>) -> Vec<Problem> {
    let (declared, local) = (context.declared, context.local);
    let configuration = node_configuration_name(context.name);
    let wanted = |family| match &context.settings.node_address {
        Some(NodeAddress::Cidr(cidr)) if Family::of(&cidr.net()) == family => Some(format!("in {cidr}")),
        Some(NodeAddress::Interface(name)) if declared.iter().any(|a| Family::of_address(a) == family) => {
            Some(format!("on the interface {name}"))
        }
        Some(NodeAddress::Interface(_)) => None,
        _ => {
            let named: Vec<String> = context
                .node
                .addresses
                .iter()
                .filter(|a| Family::of_address(**a) == family)
                .map(ToString::to_string)
                .collect();
            (!named.is_empty()).then(|| format!("of the Node's InternalIPs ({})", named.join(", ")))
        }
    };
    let mut problems = Vec::new();
    for (family, shown) in [(Family::Ipv4Unicast, "IPv4"), (Family::Ipv6Unicast, "IPv6")] {
        let found = local.iter().any(|a| Family::of_address(a) == family);
        if let Some(place) = wanted(family).filter(|_| !found) {
            problems.push(Problem::error(
                "no-node-address",
                format!("no local {shown} address {place} is found: the node's {shown} address is not known"),
                format!("put the address on an interface, or choose another by nodeAddress in BGPConfiguration {configuration}"),
            ));
        }
    }
    if problems.is_empty() && local.iter().next().is_none() {
        problems.push(Problem::error(
            "no-node-address",
            "the Node has no InternalIP, and none is chosen",
            format!("list one in the Node's status.addresses, or choose by nodeAddress in BGPConfiguration {configuration}"),
        ));
    }
    problems
}

/// Other nodes go by the Node alone.
fn other_address(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    let (declared, local) = (context.declared, context.local);
    let pairs = [
        (declared.v4.map(IpAddr::from), local.v4.map(IpAddr::from)),
        (declared.v6.map(IpAddr::from), local.v6.map(IpAddr::from)),
    ];
    let differing =
        pairs.into_iter().filter_map(|(theirs, ours)| Some((theirs?, ours?))).filter(|(t, o)| t != o);
    let between_nodes = sessions.iter().any(|s| s.node.is_some());
    differing
        .filter(|_| between_nodes)
        .map(|(theirs, ours)| {
            Problem::warning(
                "node-address-differs",
                format!("the node goes by {ours}, but other nodes look for it at {theirs}"),
                format!("list {ours} first among the InternalIPs of the Node's status.addresses"),
            )
        })
        .collect()
}

fn large_mesh(sessions: &[Wanted<'_>]) -> Option<Problem> {
    let nodes = sessions.iter().filter(|s| matches!(s.origin, Origin::Mesh)).count() + 1;
    (nodes > MESH_MAX).then(|| {
        Problem::warning(
            "large-mesh",
            format!("the node-to-node mesh has {nodes} nodes, each with {} sessions", nodes - 1),
            "set nodeToNodeMeshEnabled: false and peer with the ToRs, or with nodes that reflect (routeReflectorClient)",
        )
    })
}

fn blocks_outside_pools(context: &Context<'_>) -> Vec<Problem> {
    let pools = || context.cluster.pools.values().filter(|pool| pool.is_for(AllowedUse::Workload));
    let given = context.blocks.iter().filter(|block| block.state != BlockState::Leaving);
    let outside = given.map(|block| block.cidr).filter(|block| {
        let family = Family::of(block);
        pools().any(|p| Family::of(&p.cidr.net()) == family)
            && !pools().any(|p| !p.disabled && p.cidr.net().contains(block))
    });
    outside
        .map(|block| {
            Problem::warning(
                "block-outside-pools",
                format!(
                    "the node's block {block} lies in no enabled IPPool: peers that go by the pools reject it"
                ),
                "make the IPPool wide enough, or add one",
            )
        })
        .collect()
}

fn equal_router_ids(context: &Context<'_>) -> Option<Problem> {
    let own = address::router_id(context.name, &context.settings, context.known());
    let all = SettingsByNode::new(context.cluster);
    let equal = context.cluster.nodes.iter().filter(|(name, node)| {
        let settings = all.of(name);
        *name != context.name
            && settings.asn == context.settings.asn
            && address::router_id(name, &settings, address::declared(node, &settings)) == own
    });
    let names = list(equal.map(|(name, _)| name.as_str()));
    (!names.is_empty()).then(|| {
        Problem::warning(
            "equal-router-ids",
            format!("the router id {own} is also that of {names} in the same AS: they can have no session"),
            format!("set routerID in BGPConfiguration {}", node_configuration_name(context.name)),
        )
    })
}

fn absent_sources(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    let given = sessions.iter().filter_map(|s| match s.spec()?.source_address? {
        SourceAddress::Address(address) => Some((s, address)),
        SourceAddress::Kernel | SourceAddress::NodeAddress => None,
    });
    given
        .filter(|(_, address)| context.host.interface_of(*address).is_none())
        .map(|(session, address)| {
            Problem::error(
                "no-source-address",
                format!(
                    "BGPPeer {}: the sourceAddress {address} is on no interface of this node",
                    session.name()
                ),
                "give an address of the node, UseNodeIP or None",
            )
        })
        .collect()
}

fn missing_filters(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    let named = sessions.iter().filter_map(Wanted::spec).flat_map(|spec| &spec.filters);
    let missing: BTreeSet<&String> =
        named.filter(|name| !context.cluster.filters.contains_key(*name)).collect();
    missing
        .into_iter()
        .map(|name| {
            Problem::error(
                "filter-missing",
                format!("there is no BGPFilter {name}: the sessions that name it exchange nothing"),
                "add it, or take it off the BGPPeer's filters",
            )
        })
        .collect()
}

fn missing_profiles(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    let named = sessions.iter().filter_map(|session| bfd::profile_name(context, session));
    let missing: BTreeSet<&str> =
        named.filter(|name| !context.cluster.bfd_profiles.contains_key(*name)).collect();
    missing
        .into_iter()
        .map(|name| {
            Problem::error(
                "bfd-profile-missing",
                format!("there is no BFDProfile {name}: the sessions that name it run without BFD"),
                "add it, or take it off as bfdProfile of the BGPPeer or the BGPConfiguration",
            )
        })
        .collect()
}

/// Nodes of one AS that reach each other only through an eBGP peer reject each other's blocks as a loop.
fn as_loop(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Option<Problem> {
    let (cluster, asn) = (context.cluster, context.settings.asn);
    let external = |spec: &crate::api::BGPPeerSpec| {
        spec.local_as_number.is_none()
            && spec.num_allowed_local_as_numbers.unwrap_or(0) == 0
            && match spec.as_number {
                Some(PeerAs::Number(number)) => number.get() != asn,
                Some(PeerAs::External) => true,
                Some(PeerAs::Internal) | None => false,
            }
    };
    if sessions.iter().any(|s| s.reflected) {
        return None;
    }
    let peer = sessions.iter().find(|s| s.spec().is_some_and(external))?;
    let direct: BTreeSet<&str> =
        sessions.iter().filter_map(|s| s.node.as_ref().map(|(name, _)| *name)).collect();
    let (blocks, all) = (cluster.blocks_by_node(), SettingsByNode::new(cluster));
    let cut_off = cluster.nodes.iter().filter(|(name, node)| {
        *name != context.name
            && !direct.contains(name.as_str())
            && blocks.contains_key(name.as_str())
            && all.of(name).asn == asn
            && cluster.peers.values().any(|spec| {
                external(spec) && spec.node_selector.as_ref().is_none_or(|s| s.matches(&node.labels))
            })
    });
    let names = list(cut_off.map(|(name, _)| name.as_str()));
    (!names.is_empty()).then(|| {
        Problem::warning(
            "as-loop",
            format!("{names} share AS {asn} with this node and are reached only through eBGP: unless the peers replace \
                     the AS, their blocks are rejected as a loop"),
            format!("set numAllowedLocalASNumbers: 1 on BGPPeer {}, or give each node or rack an AS of its own", peer.name()),
        )
    })
}

/// A node whose kernel has no learned routes is of no use to its own pods, nor to who sends packets to it.
fn no_routes(context: &Context<'_>, sessions: &[Wanted<'_>]) -> Vec<Problem> {
    if context.settings.install_routes {
        return Vec::new();
    }
    let own = node_configuration_name(context.name);
    let pods = context.cidrs().first().map(|block| {
        Problem::warning(
            "pods-without-routes",
            format!("the node has the block {block}, but learned routes stay out of its kernel (installRoutes: false): its pods reach none of them"),
            format!("set installRoutes: true in BGPConfiguration {own}, or give the node no blocks"),
        )
    });
    let draws =
        sessions.iter().filter(|s| s.spec().and_then(|spec| spec.next_hop_mode) == Some(NextHopMode::Own));
    let draws = draws.map(|session| {
        Problem::error(
            "draws-packets",
            format!(
                "BGPPeer {}: nextHopMode Self has packets sent to this node, whose kernel has no learned routes (installRoutes: false)",
                session.name()
            ),
            format!("leave nextHopMode out: next hops stay as learned then; or set installRoutes: true in BGPConfiguration {own}"),
        )
    });
    pods.into_iter().chain(draws).collect()
}

/// The first names, and how many more there are.
fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
