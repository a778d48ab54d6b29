//! The plan, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::bmp::BmpConfig;
use weft_bgp::config::{
    AddPath, AddPathSend as SpeakerAddPathSend, Aggregation, LimitAction, MaxPrefixes,
    NextHopMode as SpeakerNextHopMode, Origination, PathChoice, PeerConfig, RangeConfig, RemoteAs,
    SpeakerConfig,
};
use weft_bgp::protection::Authentication;
use weft_bgp::protection::ao::NO_TCP_AO;
use weft_bgp::role::Role;
use weft_bgp::types::{Asn, Family, FamilySet, Interface, PeerAddress};

use super::policy::Policies;
use super::session::{Wanted, reflects, wanted};
use super::settings::{BGP_PORT, Settings};
use super::{
    Block, HostFacts, InterfaceFacts, Mrt, NodeAddresses, NodePlan, ServicePrefix, Sysctl, address, bfd,
    blocks, diagnose, nat, services,
};
use crate::api::json::Problem;
use crate::api::{
    AddPathSend, AddPathSpec, AdvertiseNodeAddress, Aggregate, MaxPrefixesAction, MaxPrefixesSpec,
    NextHopMode, PeerAs, PeerRole, SEND_MAX, SourceAddress,
};
use crate::cluster::{Cluster, Node, Signing};

/// The MTU where no interface says otherwise: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// From which part of a limit on prefixes on a warning is given, in percent, where it does not say.
const WARNING_THRESHOLD: u8 = 75;

/// How many dynamic peers a range has at most, where no BGPPeer says.
const LISTEN_LIMIT: u32 = 100;

/// The interface that every host has, whatever its links do.
const LOOPBACK: &str = "lo";

/// What the whole plan is made from.
pub(super) struct Context<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
    pub(super) settings: Settings,
    pub(super) host: &'a HostFacts,
    /// The addresses by which others know the node.
    pub(super) declared: NodeAddresses,
    /// Those of them, or those chosen by configuration, that the host has.
    pub(super) local: NodeAddresses,
    pub(super) blocks: Vec<Block>,
}

impl<'a> Context<'a> {
    fn new(cluster: &'a Cluster, name: &'a str, node: &'a Node, host: &'a HostFacts) -> Self {
        let settings = Settings::of(cluster, name);
        let declared = address::declared(node, &settings);
        let local = address::local(node, &settings, host);
        let blocks = blocks::blocks(cluster, name, &host.held_blocks);
        Self { cluster, name, node, settings, host, declared, local, blocks }
    }

    /// The blocks that no other node has, as prefixes.
    pub(super) fn cidrs(&self) -> Vec<IpNet> {
        self.blocks.iter().filter(|block| block.is_own()).map(|block| block.cidr).collect()
    }

    /// The addresses that sessions are made with. One that is off its interface for a moment, as IPv6 addresses are while
    /// the link is down, still counts: sessions do not change their OPEN for that.
    pub(super) fn known(&self) -> NodeAddresses {
        self.local.or(self.declared)
    }
}

/// What the node should be.
///
/// # Errors
/// The cluster has no such Node; whoever has a plan of it from before should keep it.
pub fn plan(cluster: &Cluster, node: &str, host: &HostFacts) -> Result<NodePlan, Problem> {
    let (name, node) = cluster.nodes.get_key_value(node).ok_or_else(|| diagnose::no_node(cluster, node))?;
    let context = Context::new(cluster, name, node, host);
    let sessions = wanted(cluster, name, node);
    let (Peers { named, ranges }, mut diagnostics) = peers(&context, &sessions);
    diagnostics.extend(diagnose::all(&context, &sessions));
    let pools = blocks::pools(cluster, &context.blocks);
    diagnostics.extend(blocks::diagnose(&context.blocks, &pools));
    let (packet_filter, without_nat) = nat::ruleset(&context);
    diagnostics.extend(without_nat);
    diagnostics.sort();
    diagnostics.dedup();
    let settings = &context.settings;
    let mut services = services::prefixes(cluster, name, node, &settings.services, &host.settling);
    let mut speaker = SpeakerConfig {
        asn: settings.asn,
        router_id: address::router_id(name, settings, context.known()),
        // One given for all nodes is that of the reflectors: a client that took it for its own would believe none of them.
        cluster_id: settings.cluster_id.filter(|_| reflects(cluster, node)),
        max_paths: settings.max_paths,
        install_routes: settings.install_routes,
        // Where packets go elsewhere, how the kernel would send them says nothing.
        next_hop_tracking: settings.install_routes,
        originate: originate(&context, &services),
        peers: named,
        ranges,
        bmp: bmp(name, settings),
    };
    if let Some(drain) = &host.drain {
        drain.apply(&mut speaker, &mut services);
    }
    Ok(NodePlan {
        node: name.clone(),
        listeners: listeners(&speaker, settings.listen_port),
        mtu: mtu(&context, &speaker),
        sysctls: sysctls(&context, &speaker),
        services,
        packet_filter,
        speaker: Arc::new(speaker),
        address_choice: address::explain(node, settings, host, context.local),
        addresses: context.local,
        route_metric: settings.route_metric,
        resilience: settings.resilience,
        manage_sysctls: settings.manage_sysctls,
        mrt: settings.mrt.as_ref().map(Mrt::of),
        reserved: blocks::reserved(cluster, &context.blocks),
        pools,
        blocks: context.blocks,
        diagnostics,
    })
}

/// Whom to tell what the RIBs hold, and who we are.
fn bmp(name: &str, settings: &Settings) -> BmpConfig {
    BmpConfig {
        system_name: name.to_owned(),
        system_description: format!("Weft {}", env!("CARGO_PKG_VERSION")),
        stations: settings.bmp.iter().map(|station| (station.address.0, station.config())).collect(),
    }
}

/// The other ends of the node's sessions.
#[derive(Default)]
struct Peers {
    named: BTreeMap<PeerAddress, Arc<PeerConfig>>,
    ranges: BTreeMap<IpNet, Arc<RangeConfig>>,
}

fn peers(context: &Context<'_>, sessions: &[Wanted<'_>]) -> (Peers, Vec<Problem>) {
    let cidrs = context.cidrs();
    let service_ranges: Vec<IpNet> = context.settings.services.ranges().collect();
    let asns = sessions.iter().map(|session| local_as(context, session)).chain([context.settings.asn]);
    let asns: BTreeSet<Asn> = asns.collect();
    let policies =
        Policies::new(context.cluster, context.name, &cidrs, context.known(), &asns, &service_ranges);
    let mut peers = Peers::default();
    let mut problems = Vec::new();
    for session in sessions {
        match peer(context, &policies, session) {
            Err(problem) => problems.push(problem),
            Ok((address, config)) => {
                problems.extend(peers.add(context, session, address, config));
            }
        }
    }
    (peers, problems)
}

impl Peers {
    /// Adds a session. Who is there already stays; a BGPPeer that is too late is told of.
    fn add(
        &mut self,
        context: &Context<'_>,
        session: &Wanted<'_>,
        address: PeerAddress,
        config: PeerConfig,
    ) -> Vec<Problem> {
        let first = match session.range {
            Some(range) => self.ranges.get(&range).map(|range| &range.peer),
            None => self.named.get(&address),
        };
        match (first, session.place()) {
            (Some(first), Some(place)) if session.spec().is_some() => {
                return vec![diagnose::peer_conflict(place, &first.name, &config.name)];
            }
            (Some(_), _) => return Vec::new(),
            (None, _) => {}
        }
        let problem = diagnose::unsigned(session, context, &config.authentication);
        let config = Arc::new(config);
        match session.range {
            Some(range) => {
                let limit = session.spec().and_then(|spec| spec.listen_limit);
                let limit = limit.map_or(LISTEN_LIMIT, |limit| limit.get().into());
                drop(self.ranges.insert(range, Arc::new(RangeConfig { limit, peer: config })));
            }
            None => drop(self.named.insert(address, config)),
        }
        problem.into_iter().collect()
    }
}

/// The AS that the node is on a session.
fn local_as(context: &Context<'_>, session: &Wanted<'_>) -> Asn {
    let number = session.spec().and_then(|spec| spec.local_as_number);
    number.map_or(context.settings.asn, |number| number.get())
}

fn peer(
    context: &Context<'_>,
    policies: &Policies<'_>,
    session: &Wanted<'_>,
) -> Result<(PeerAddress, PeerConfig), Problem> {
    let (spec, settings, own) = (session.spec(), &context.settings, context.known());
    let address = address(context, session)?;
    let asked = spec.and_then(|s| s.families.as_ref());
    let asked = asked.map_or_else(FamilySet::all, |families| families.iter().copied().collect());
    let families: FamilySet = asked.intersection(own.iter().map(Family::of_address).collect());
    if families.is_empty() {
        return Err(diagnose::no_family(session));
    }
    let remote_as = match (&session.node, spec.and_then(|s| s.as_number)) {
        (Some((_, theirs)), _) => {
            RemoteAs::Exactly(spec.and_then(|s| s.local_as_number).map_or(theirs.asn, |number| number.get()))
        }
        (None, Some(PeerAs::Number(number))) => RemoteAs::Exactly(number.get()),
        (None, Some(PeerAs::Internal)) => RemoteAs::Internal,
        (None, Some(PeerAs::External)) => RemoteAs::External,
        (None, None) => return Err(diagnose::no_peer_as(session)),
    };
    let (next_hop_v4, next_hop_v6) = next_hops(context, session, address, families);
    let (import, export) = policies.of(session);
    let mut config = PeerConfig {
        name: session.name(),
        port: session.port.map_or(BGP_PORT, u16::from),
        neighbour: address.interface().and_then(|i| context.host.routers.get(&i.index()).copied()),
        remote_as,
        local_as: local_as(context, session),
        source_address: source_address(session, own, address),
        families,
        next_hop_v4,
        next_hop_v6,
        next_hop_mode: match spec.and_then(|s| s.next_hop_mode).unwrap_or_default() {
            // What does not forward draws no packets to itself.
            NextHopMode::Auto if !settings.install_routes => SpeakerNextHopMode::Keep,
            NextHopMode::Auto => SpeakerNextHopMode::Auto,
            NextHopMode::Own => SpeakerNextHopMode::Own,
            NextHopMode::Keep => SpeakerNextHopMode::Keep,
        },
        // Sessions between nodes are between node addresses, wherever those are. A peer that may be some hops away has next hops there.
        ebgp_multihop: session.node.is_some()
            || spec.is_some_and(|s| s.ebgp_multihop || s.ttl_security.is_some_and(|hops| hops.get() > 1)),
        authentication: authentication(context, session),
        ttl_security: spec.and_then(|s| s.ttl_security),
        max_prefixes: settings.max_prefixes(spec).map(max_prefixes),
        passive: session.range.is_some() || spec.is_some_and(|s| s.passive == Some(true)),
        shutdown: spec.filter(|s| s.shutdown).map(|s| {
            s.shutdown_message.clone().unwrap_or_else(|| format!("BGPPeer {} is shut down", session.name()))
        }),
        route_reflector_client: session.client,
        add_path: spec.and_then(|s| s.add_path).map(add_path).unwrap_or_default(),
        allowed_own_as: spec.and_then(|s| s.num_allowed_local_as_numbers).unwrap_or(0),
        allow_as_sets: spec.is_some_and(|s| s.allow_as_sets),
        as_override: spec.is_some_and(|s| s.as_override),
        remove_private_as: spec.is_some_and(|s| s.remove_private_as),
        role: spec.and_then(|s| s.role).map(|role| match role {
            PeerRole::Provider => Role::Provider,
            PeerRole::Customer => Role::Customer,
            PeerRole::Peer => Role::Peer,
            PeerRole::Rs => Role::RouteServer,
            PeerRole::RsClient => Role::RouteServerClient,
        }),
        role_strict: spec.is_some_and(|s| s.role_strict),
        timers: settings.timers(spec),
        graceful_restart: settings.graceful_restart(spec),
        bfd: None,
        import,
        export,
    };
    config.bfd = bfd::session(context, session, address, &config);
    Ok((address, config))
}

/// How the ends of a session know each other; what this kernel has not is not to be had.
fn authentication(context: &Context<'_>, session: &Wanted<'_>) -> Authentication {
    match session.signing(&context.settings) {
        None => Authentication::None,
        Some(Signing::TcpAo(_)) if !context.host.tcp_ao => Authentication::Unavailable(NO_TCP_AO.into()),
        Some(signing) => context.cluster.authentication(signing),
    }
}

fn max_prefixes(spec: MaxPrefixesSpec) -> MaxPrefixes {
    let limit = spec.limit.get();
    let percent = u64::from(spec.warning_threshold.unwrap_or(WARNING_THRESHOLD));
    let warning = (u64::from(limit) * percent).div_ceil(100);
    let after = spec.restart_after.map_or(Duration::ZERO, |after| after.0);
    MaxPrefixes {
        limit,
        warning: u32::try_from(warning).unwrap_or(limit),
        action: match spec.action.unwrap_or_default() {
            MaxPrefixesAction::Warn => LimitAction::Warn,
            MaxPrefixesAction::Stop => LimitAction::Stop,
            MaxPrefixesAction::Restart => LimitAction::Restart(after),
        },
    }
}

fn add_path(AddPathSpec { receive, send, send_max }: AddPathSpec) -> AddPath {
    let send = send.map(|paths| SpeakerAddPathSend {
        paths: match paths {
            AddPathSend::Multipath => PathChoice::Multipath,
            AddPathSend::All => PathChoice::All,
        },
        limit: send_max.unwrap_or(SEND_MAX),
    });
    AddPath { receive, send }
}

/// Where the other end of a session is on this host. Of a range, the first address stands for all.
fn address(context: &Context<'_>, session: &Wanted<'_>) -> Result<PeerAddress, Problem> {
    if let Some(range) = session.range {
        return Ok(range.network().into());
    }
    let Some(name) = session.interface else {
        let address = session.address.ok_or_else(|| diagnose::no_common_family(session))?;
        let own = context.known().iter().any(|a| a == address);
        return match own || context.host.interface_of(address).is_some() {
            true => Err(diagnose::peer_is_self(session, address)),
            false => Ok(address.into()),
        };
    };
    let facts = context.host.interfaces.get(name);
    let interface = facts.and_then(|facts| Interface::new(facts.index, name));
    interface.map(PeerAddress::Interface).ok_or_else(|| diagnose::no_interface(session, name))
}

fn source_address(session: &Wanted<'_>, own: NodeAddresses, peer: PeerAddress) -> Option<IpAddr> {
    let default = if session.node.is_some() { SourceAddress::NodeAddress } else { SourceAddress::Kernel };
    match session.spec().and_then(|s| s.source_address).unwrap_or(default) {
        SourceAddress::Kernel => None,
        SourceAddress::NodeAddress => peer.ip().and_then(|peer| own.of_family(peer)),
        SourceAddress::Address(address) => Some(address),
    }
}

/// The interface by which the other end of a session, or everybody who may be that, is reached.
pub(super) fn way_to<'a>(
    context: &'a Context<'_>,
    session: &Wanted<'_>,
    peer: PeerAddress,
) -> Option<&'a InterfaceFacts> {
    match session.range {
        Some(range) => context.host.way_to_all(range),
        None => context.host.way_to(peer),
    }
}

/// Our next hop for the family that is not the session's own, where the ends do not agree on an address of the session (RFC 8950): the
/// address of the session's interface, where possible the node address, else the node address wherever it is. What is reflected reaches nodes
/// on other links, which know only the node address. On a link without numbers the link-local address is enough, and goes along with a
/// global one of that interface.
fn next_hops(
    context: &Context<'_>,
    session: &Wanted<'_>,
    peer: PeerAddress,
    families: FamilySet,
) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let own = context.known();
    let link = way_to(context, session, peer).filter(|_| !session.reflected);
    let on_link: Vec<IpAddr> = link.into_iter().flat_map(|link| link.global()).collect();
    let preferred = |address: &IpAddr| !own.iter().any(|a| a == *address);
    match peer {
        PeerAddress::Interface(_) => {
            let on_link = on_link.into_iter().filter(IpAddr::is_ipv6).min_by_key(preferred);
            (None, on_link.and_then(|a| if let IpAddr::V6(v6) = a { Some(v6) } else { None }))
        }
        PeerAddress::Ip(IpAddr::V4(_)) if families.contains(Family::Ipv6Unicast) => {
            let on_link = on_link.into_iter().filter(IpAddr::is_ipv6).min_by_key(preferred);
            let address = on_link.or(own.v6.map(IpAddr::from));
            (None, address.and_then(|a| if let IpAddr::V6(v6) = a { Some(v6) } else { None }))
        }
        PeerAddress::Ip(IpAddr::V6(_)) if families.contains(Family::Ipv4Unicast) => {
            let on_link = on_link.into_iter().filter(IpAddr::is_ipv4).min_by_key(preferred);
            let address = on_link.or(own.v4.map(IpAddr::from));
            (address.and_then(|a| if let IpAddr::V4(v4) = a { Some(v4) } else { None }), None)
        }
        PeerAddress::Ip(_) => (None, None),
    }
}

fn originate(
    context: &Context<'_>,
    services: &BTreeMap<IpNet, ServicePrefix>,
) -> BTreeMap<IpNet, Origination> {
    let own_addresses =
        context.local.iter().filter(|address| match context.settings.advertise_node_address {
            AdvertiseNodeAddress::Always => true,
            AdvertiseNodeAddress::Never => false,
            AdvertiseNodeAddress::Auto => context.host.interface_of(*address) == Some(LOOPBACK),
        });
    let services = services.iter().filter(|(_, prefix)| prefix.verdict.is_announced()).map(|(net, _)| *net);
    let prefixes = context.cidrs().into_iter().chain(own_addresses.map(IpNet::from)).chain(services);
    let advertisements = &context.settings.prefix_advertisements;
    let origination = |prefix: IpNet| {
        let all = advertisements.iter().filter(|advertisement| advertisement.cidr.net().contains(&prefix));
        let communities = all.flat_map(|advertisement| &advertisement.communities);
        // A name that is not there is an error of the documents.
        let communities = communities.filter_map(|community| context.cluster.community(community)).collect();
        Origination { communities, ..Origination::default() }
    };
    let aggregates = advertisements.iter().filter_map(|advertisement| {
        let aggregation = match advertisement.aggregate? {
            Aggregate::WithSpecifics => Aggregation::WithSpecifics,
            Aggregate::SummaryOnly => Aggregation::SummaryOnly,
        };
        let net = advertisement.cidr.net();
        Some((net, Origination { aggregation: Some(aggregation), ..origination(net) }))
    });
    // What is announced in any case is no aggregate.
    aggregates.chain(prefixes.map(|prefix| (prefix, origination(prefix)))).collect()
}

/// One wildcard socket per family in which there is a peer to be waited for.
fn listeners(speaker: &SpeakerConfig, port: u16) -> BTreeSet<SocketAddr> {
    let wildcard = |peer: &PeerAddress| match peer {
        PeerAddress::Ip(IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        PeerAddress::Ip(IpAddr::V6(_)) | PeerAddress::Interface(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let ranges = speaker.ranges.keys().map(|range| PeerAddress::from(range.network()));
    let peers = speaker.peers.keys().copied().chain(ranges);
    peers.map(|peer| SocketAddr::new(wildcard(&peer), port)).collect()
}

/// The smallest MTU of the ways out.
fn mtu(context: &Context<'_>, speaker: &SpeakerConfig) -> u32 {
    let sessions = ways_to_peers(context, speaker);
    let default = context.host.interfaces.values().filter(|facts| facts.default_route);
    let loopback = context.host.interfaces.get(LOOPBACK);
    let ways_out = sessions.chain(default).filter(|facts| Some(*facts) != loopback && facts.mtu > 0);
    context.settings.mtu.or_else(|| ways_out.map(|facts| facts.mtu).min()).unwrap_or(DEFAULT_MTU)
}

/// The interfaces by which peers are reached.
fn ways_to_peers<'a>(
    context: &'a Context<'_>,
    speaker: &'a SpeakerConfig,
) -> impl Iterator<Item = &'a InterfaceFacts> + 'a {
    let ranges = speaker.ranges.keys().filter_map(|range| context.host.way_to_all(*range));
    speaker.peers.keys().filter_map(|peer| context.host.way_to(*peer)).chain(ranges)
}

/// The interfaces by which routers are reached.
fn ways_out<'a>(
    context: &'a Context<'_>,
    speaker: &'a SpeakerConfig,
) -> impl Iterator<Item = &'a String> + 'a {
    context
        .host
        .interfaces
        .iter()
        .filter(|(_, facts)| {
            facts.default_route || ways_to_peers(context, speaker).any(|link| std::ptr::eq(link, *facts))
        })
        .map(|(name, _)| name)
        .filter(|name| *name != LOOPBACK)
}

fn sysctls(context: &Context<'_>, speaker: &SpeakerConfig) -> Vec<Sysctl> {
    let uses = |family| {
        let addresses = context.known();
        context.blocks.iter().any(|b| Family::of(&b.cidr) == family)
            || addresses.iter().any(|a| Family::of_address(a) == family)
    };
    let mut sysctls = Vec::new();
    let mut set = |path: String, value| sysctls.push(Sysctl { path, value });
    if uses(Family::Ipv4Unicast) {
        set("net/ipv4/ip_forward".into(), "1");
        // A pod knows no way but its gateway; the kernel redirects where either this or the link's own setting says so.
        set("net/ipv4/conf/all/send_redirects".into(), "0");
        // A packet to a Service that nobody answers would leave where it came from. The redirect that this causes uses up what the
        // kernel may say to its sender in a second (ip_rt_send_redirect), and the rejection would be silent.
        let has_services = context.settings.services.ranges().any(|range| matches!(range, IpNet::V4(_)));
        for name in ways_out(context, speaker).filter(|_| has_services) {
            set(format!("net/ipv4/conf/{name}/send_redirects"), "0");
        }
        set("net/ipv4/fib_multipath_hash_policy".into(), "1");
    }
    if uses(Family::Ipv6Unicast) {
        // A forwarding host forgets what routers advertised, its default route too, unless told otherwise first.
        for (name, facts) in &context.host.interfaces {
            if facts.router_advertisements {
                set(format!("net/ipv6/conf/{name}/accept_ra"), "2");
            }
        }
        set("net/ipv6/conf/all/forwarding".into(), "1");
        set("net/ipv6/fib_multipath_hash_policy".into(), "1");
    }
    set("net/ipv4/nexthop_compat_mode".into(), "0");
    sysctls
}
