//! The RIB and its egresses against a model that computes everything anew from what was heard, after any sequence of events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use rib_support::*;
use weft_bgp::config::{AddPath, AddPathSend, PathChoice, PeerConfig};
use weft_bgp::egress::EgressInput;
use weft_bgp::ingress::{AddPathFamilies, Down, Session};
use weft_bgp::policy::{Community, Operation, Policy, PrefixMatch, PrefixRange, RouteSource, Rule, Verdict};
use weft_bgp::rib::RibInput;
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId, Reason};
use weft_bgp::wire::attributes::{Origin, PathAttributes};

/// Peers 0 and 1 are external and of one AS, 2 is external, 3 to 5 are internal, 5 at first a client. 1, 3 and 4 tell several paths of a
/// prefix, of IPv6 alone 3; 2 and 5 are told all, 4 two of those that are used, of IPv4 alone.
const PEERS: u32 = 6;

/// What we are called, and the clusters that we are of by turns.
const ROUTER_ID: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const CLUSTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(7, 7, 7, 7), ROUTER_ID];

fn is_external(peer: u32) -> bool {
    peer < 3
}

/// Whether prefixes of a family come from a peer with path identifiers.
fn receives(peer: u32, family: Family) -> bool {
    matches!((peer, family), (1 | 4, _) | (3, Family::Ipv6Unicast))
}

/// Which paths a peer is told of a family.
fn sends(peer: u32, family: Family) -> Option<AddPathSend> {
    match (peer, family) {
        (2 | 5, _) => Some(AddPathSend { paths: PathChoice::All, limit: 64 }),
        (4, Family::Ipv4Unicast) => Some(AddPathSend { paths: PathChoice::Multipath, limit: 2 }),
        _ => None,
    }
}

fn peer_config(peer: u32) -> PeerConfig {
    let send = Family::ALL.into_iter().find_map(|family| sends(peer, family));
    PeerConfig { add_path: AddPath { receive: true, send }, ..config() }
}

fn peer_session(peer: u32) -> Session {
    let families = |has: &dyn Fn(&Family) -> bool| Family::ALL.into_iter().filter(has).collect();
    let receive = families(&|family| receives(peer, *family));
    let send = families(&|family| sends(peer, *family).is_some());
    Session { add_path: AddPathFamilies { receive, send }, ..session(peer, remote_as(peer)) }
}

fn remote_as(peer: u32) -> Asn {
    match peer {
        0 | 1 => Asn(65001),
        2 => Asn(65002),
        _ => OWN,
    }
}

/// The next hops of routes: one of IPv4 is a peer.
fn next_hop(family: Family, number: u8) -> IpAddr {
    match (family, number) {
        (Family::Ipv4Unicast, 2) => address(4),
        (Family::Ipv4Unicast, _) => Ipv4Addr::new(192, 0, 2, 100 + number).into(),
        (Family::Ipv6Unicast, _) => ip(&format!("2001:db8::{}", 100 + number)),
    }
}

fn prefixes() -> Vec<IpNet> {
    ["10.0.0.0/24", "10.0.1.0/24", "10.1.0.0/16", "192.168.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48"]
        .map(net)
        .to_vec()
}

#[derive(Clone, Debug)]
struct Announcement {
    hops: u32,
    origin: Origin,
    med: Option<u32>,
    local_pref: u32,
    community: Option<u32>,
    own_as: bool,
    next_hop: u8,
    /// Between internal peers: no reflector before, another one, us, or we are the origin.
    reflected: u8,
    /// Where it is told by such.
    path_id: u32,
}

impl Announcement {
    fn attributes(&self, peer: u32, family: Family) -> PathAttributes {
        let external = is_external(peer);
        let mut asns: Vec<u32> = if external { vec![remote_as(peer).0] } else { vec![] };
        asns.extend((0..self.hops).map(|i| 64600 + i));
        if self.own_as {
            asns.push(OWN.0);
        }
        let next_hop = next_hop(family, self.next_hop).to_string();
        let reflected = |n| !external && self.reflected == n;
        PathAttributes {
            originator_id: match self.reflected {
                _ if external => None,
                1 | 2 => Some(Ipv4Addr::new(5, 5, 5, 5)),
                3 => Some(ROUTER_ID),
                _ => None,
            },
            cluster_list: [(1, Ipv4Addr::new(8, 8, 8, 8)), (2, CLUSTERS[0])]
                .into_iter()
                .filter_map(|(n, cluster)| reflected(n).then_some(cluster))
                .collect(),
            origin: self.origin,
            med: self.med,
            local_pref: (!external).then_some(self.local_pref),
            communities: self.community.into_iter().collect(),
            ..attributes(&asns, &next_hop)
        }
    }
}

/// GRACEFUL_SHUTDOWN of an external peer is the last choice (RFC 8326).
fn local_pref(from: Option<u32>, attributes: &PathAttributes) -> u32 {
    let going = from.is_some_and(is_external) && attributes.communities.contains(&0xFFFF_0000);
    if going { 0 } else { attributes.local_pref.unwrap_or(100) }
}

#[derive(Clone, Debug)]
enum Event {
    Announce(u32, u8, Announcement),
    Withdraw(u32, u8, u32),
    Up(u32, Option<u8>),
    Restart(u32, u8),
    Death(u32),
    EndOfRib(u32, Family),
    Import(u32, u8),
    Export(u32, u8),
    AllowedOwnAs(u32, u8),
    NextHop(Family, u8, bool, u8),
    Settings { originate: u8, max_paths: u16, tracking: bool },
    Read(u32, usize),
    Refresh(u32, Family),
    Wait(u64),
    Remove(u32),
    Client(u32, bool),
    Cluster(bool),
    Advertise,
}

fn families(bits: u8) -> FamilySet {
    Family::ALL.into_iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, f)| f).collect()
}

fn some_prefixes(bits: u8) -> impl Iterator<Item = IpNet> {
    prefixes().into_iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, p)| p)
}

fn policy(number: u8) -> Policy {
    let rule = |prefixes, source, verdict| Rule { prefixes, source, ..Rule::new(verdict) };
    let inside = |text, negated| {
        Some(PrefixMatch { ranges: vec![PrefixRange { net: net(text), min_len: 0, max_len: 128 }], negated })
    };
    let rules = match number {
        0 => vec![],
        1 => vec![
            rule(None, Some(RouteSource::Local), Verdict::Accept),
            rule(None, Some(RouteSource::Reflected), Verdict::Accept),
        ],
        2 => vec![rule(inside("10.0.0.0/8", false), None, Verdict::Accept)],
        3 => vec![
            rule(
                inside("10.0.0.0/23", false),
                None,
                Verdict::Reject(Reason::new("duplicate-origin", "another's")),
            ),
            rule(None, None, Verdict::Accept),
        ],
        4 => vec![
            Rule { communities: vec![Community::Standard(7)], ..Rule::new(rewriting(0)) },
            Rule { as_path_prefix: vec![Asn(65001), Asn(64600)], ..Rule::new(rewriting(1)) },
            rule(inside("2001:db8:1::/48", false), None, rewriting(2)),
            rule(inside("10.0.0.0/8", false), None, rewriting(3)),
            rule(None, Some(RouteSource::Local), rewriting(0)),
        ],
        _ => accept_all().rules,
    };
    Policy { rules, unmatched: Reason::new("unmatched", "no rule matches") }
}

/// Changes of attributes, by number.
fn rewriting(number: u8) -> Verdict {
    let operations = match number {
        0 => vec![
            Operation::AddCommunity(Community::Standard(8)),
            Operation::RemoveCommunity(Community::Standard(7)),
            Operation::SetMed(1),
        ],
        1 => vec![Operation::SetLocalPreference(150), Operation::PrependAsPath(vec![Asn(64999), OWN])],
        2 => vec![
            Operation::AddCommunity(Community::Standard(0xFFFF_FF01)),
            Operation::RemoveCommunity(Community::Standard(0xFFFF_0000)),
            Operation::SetLocalPreference(200),
        ],
        _ => vec![Operation::SetNextHop(address(4))],
    };
    Verdict::AcceptWith(operations.into())
}

/// What such changes do, told a second time.
fn rewritten(verdict: &Verdict, mut attributes: PathAttributes) -> PathAttributes {
    let Some(number) = (0..4).find(|number| rewriting(*number) == *verdict) else { return attributes };
    let communities = &mut attributes.communities;
    match number {
        0 => {
            communities.retain(|c| *c != 7);
            communities.push(8);
            attributes.med = Some(1);
        }
        1 => {
            attributes.local_pref = Some(150);
            attributes.as_path.prepend(OWN);
            attributes.as_path.prepend(Asn(64999));
        }
        2 => {
            communities.retain(|c| *c != 0xFFFF_0000);
            communities.push(0xFFFF_FF01);
            attributes.local_pref = Some(200);
        }
        _ => attributes.next_hop = address(4),
    }
    let communities: BTreeSet<u32> = attributes.communities.drain(..).collect();
    attributes.communities = communities.into_iter().collect();
    attributes
}

fn announcement() -> impl Strategy<Value = Announcement> {
    (
        0u32..2,
        prop_oneof![3 => Just(Origin::Igp), 1 => Just(Origin::Incomplete)],
        prop::option::of(0u32..3),
        prop_oneof![3 => Just(100u32), 1 => Just(200u32)],
        prop_oneof![4 => Just(None), 1 => Just(Some(0xFFFF_FF01)), 1 => Just(Some(0xFFFF_FF02)), 1 => Just(Some(7)),
            1 => Just(Some(0xFFFF_0000))],
        prop::bool::weighted(0.1),
        0u8..3,
        prop_oneof![6 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8), 1 => Just(3u8)],
        0u32..3,
    )
        .prop_map(|(hops, origin, med, local_pref, community, own_as, next_hop, reflected, path_id)| Announcement {
            hops,
            origin,
            med,
            local_pref,
            community,
            own_as,
            next_hop,
            reflected,
            path_id,
        })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 0..PEERS;
    prop_oneof![
        12 => (peer.clone(), any::<u8>(), announcement()).prop_map(|(p, s, a)| Event::Announce(p, s, a)),
        4 => (peer.clone(), any::<u8>(), 0u32..3).prop_map(|(p, s, id)| Event::Withdraw(p, s, id)),
        8 => (peer.clone(), prop::option::of(0u8..4)).prop_map(|(p, f)| Event::Up(p, f)),
        2 => (peer.clone(), 0u8..4).prop_map(|(p, f)| Event::Restart(p, f)),
        1 => peer.clone().prop_map(Event::Death),
        2 => (peer.clone(), family()).prop_map(|(p, f)| Event::EndOfRib(p, f)),
        4 => (peer.clone(), 0u8..6).prop_map(|(p, n)| Event::Import(p, n)),
        6 => (peer.clone(), 0u8..6).prop_map(|(p, n)| Event::Export(p, n)),
        1 => (peer.clone(), 0u8..2).prop_map(|(p, n)| Event::AllowedOwnAs(p, n)),
        8 => (family(), 0u8..3, any::<bool>(), 0u8..4).prop_map(|(f, h, d, r)| Event::NextHop(f, h, d, r)),
        2 => (any::<u8>(), 1u16..4, prop::bool::weighted(0.7))
            .prop_map(|(originate, max_paths, tracking)| Event::Settings { originate, max_paths, tracking }),
        6 => (peer.clone(), 1usize..3).prop_map(|(p, n)| Event::Read(p, n)),
        1 => (peer.clone(), family()).prop_map(|(p, f)| Event::Refresh(p, f)),
        1 => (1u64..200).prop_map(Event::Wait),
        1 => peer.prop_map(Event::Remove),
        3 => (3..PEERS, any::<bool>()).prop_map(|(p, c)| Event::Client(p, c)),
        1 => any::<bool>().prop_map(Event::Cluster),
        2 => Just(Event::Advertise),
    ]
}

/// What a peer is to the model.
struct ModelPeer {
    config: PeerConfig,
    /// Whether its session stands; none: it has no routes.
    up: Option<bool>,
    /// Its routes, and whether they are stale.
    routes: BTreeMap<(IpNet, u32), (PathAttributes, bool)>,
    stale_until: Option<u64>,
}

impl ModelPeer {
    fn new(peer: u32) -> Self {
        Self { config: peer_config(peer), up: None, routes: BTreeMap::new(), stale_until: None }
    }

    fn drop_stale(&mut self, lost: FamilySet) {
        self.routes.retain(|(prefix, _), (_, stale)| !(*stale && lost.contains(Family::of(prefix))));
        if !self.routes.values().any(|(_, stale)| *stale) {
            self.stale_until = None;
        }
    }
}

struct Model {
    peers: BTreeMap<u32, ModelPeer>,
    resolutions: BTreeMap<TrackedNextHop, Resolution>,
    originate: BTreeSet<IpNet>,
    max_paths: usize,
    tracking: bool,
    seconds: u64,
    cluster: Ipv4Addr,
    /// Whether what was learned is told.
    advertising: bool,
}

/// A path in the model: whose, its attributes, its metric, its identifier.
type ModelPath = (Option<u32>, PathAttributes, u32, u32);

impl Model {
    fn tracked(&self, peer: u32, attributes: &PathAttributes) -> TrackedNextHop {
        TrackedNextHop { address: attributes.next_hop, default_route: !is_external(peer), link: None }
    }

    /// What policy makes of a route that passes everything but its next hop.
    fn passes(&self, peer: u32, prefix: &IpNet, attributes: &PathAttributes) -> Option<PathAttributes> {
        let config = &self.peers[&peer].config;
        let passes = attributes.originator_id != Some(ROUTER_ID)
            && !attributes.cluster_list.contains(&self.cluster)
            && attributes.as_path.occurrences(OWN) <= usize::from(config.allowed_own_as);
        let verdict =
            verdict(&config.import, prefix, RouteSource::RemotePeers, attributes).filter(|_| passes)?;
        Some(rewritten(verdict, attributes.clone()))
    }

    fn eligible(&self, prefix: &IpNet, local: &PathAttributes) -> Vec<ModelPath> {
        let mut paths = vec![];
        if self.originate.contains(prefix) {
            paths.push((None, local.clone(), 0, 0));
        }
        let routes = self.peers.iter().flat_map(|(peer, state)| {
            let of_prefix = state.routes.range((*prefix, 0)..=(*prefix, u32::MAX));
            of_prefix.map(move |((_, id), (attributes, _))| (peer, *id, attributes))
        });
        for (peer, id, attributes) in routes {
            let Some(attributes) = self.passes(*peer, prefix, attributes) else { continue };
            match self.resolutions.get(&self.tracked(*peer, &attributes)).filter(|_| self.tracking) {
                _ if !self.tracking => paths.push((Some(*peer), attributes, 0, id)),
                Some(Resolution::OnLink) => paths.push((Some(*peer), attributes, 0, id)),
                Some(Resolution::Gateway { metric }) if !is_external(*peer) => {
                    paths.push((Some(*peer), attributes, *metric, id));
                }
                _ => {}
            }
        }
        paths
    }

    /// The best path, and all that are used.
    fn decide(&self, prefix: &IpNet, local: &PathAttributes) -> Vec<ModelPath> {
        let mut paths = self.eligible(prefix, local);
        if self.originate.contains(prefix) {
            paths.retain(|p| p.0.is_none());
        }
        let pref = |p: &ModelPath| local_pref(p.0, &p.1);
        let best = paths.iter().map(pref).max();
        paths.retain(|p| Some(pref(p)) == best);
        let best = paths.iter().map(|p| p.1.as_path.length()).min();
        paths.retain(|p| Some(p.1.as_path.length()) == best);
        let best = paths.iter().map(|p| p.1.origin).min();
        paths.retain(|p| Some(p.1.origin) == best);
        let all = paths.clone();
        let med = |p: &ModelPath| p.1.med.unwrap_or(0);
        paths.retain(|p| !all.iter().any(|q| q.1.as_path.first() == p.1.as_path.first() && med(q) < med(p)));
        if paths.iter().any(|p| p.0.is_some_and(is_external)) {
            paths.retain(|p| p.0.is_some_and(is_external));
        }
        let best = paths.iter().map(|p| p.2).min();
        paths.retain(|p| Some(p.2) == best);
        let identifier = |p: &ModelPath| match (p.0, p.1.originator_id) {
            (Some(peer), None) => Ipv4Addr::from(peer),
            (_, originator) => originator.unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        paths.sort_by_key(|p| (identifier(p), p.1.cluster_list.len(), p.0, p.3));
        // Those over the first so many next hops.
        let mut next_hops: Vec<IpAddr> = vec![];
        paths.retain(|(from, attributes, ..)| {
            let own = from.is_some().then_some(attributes.next_hop);
            let known = own.is_some_and(|own| next_hops.contains(&own));
            let used = known || next_hops.len() < self.max_paths;
            next_hops.extend(own.filter(|_| used && !known));
            used
        });
        paths
    }

    /// What a peer is told of a path to a prefix.
    fn told(&self, peer: u32, prefix: &IpNet, best: Option<&ModelPath>) -> Option<PathAttributes> {
        let (from, ..) = best?;
        let told = self.tellable(peer, prefix, best)?;
        (*from != Some(peer) && told.next_hop != address(peer)).then_some(told)
    }

    /// The same, told or not to the one that it came from, or leads to.
    fn tellable(&self, peer: u32, prefix: &IpNet, best: Option<&ModelPath>) -> Option<PathAttributes> {
        let (from, attributes, ..) = best.filter(|(from, ..)| self.advertising || from.is_none())?;
        let external = is_external(peer);
        let internal = from.filter(|from| !is_external(*from) && !external);
        let source = match (from, internal) {
            (None, _) => RouteSource::Local,
            (Some(_), None) => RouteSource::RemotePeers,
            (Some(_), Some(_)) => RouteSource::Reflected,
        };
        let is_client = |peer: u32| self.peers[&peer].config.route_reflector_client;
        let forbidden = attributes.communities.contains(&0xFFFF_FF02)
            || external && attributes.communities.contains(&0xFFFF_FF01);
        if internal.is_some_and(|from| !is_client(from) && !is_client(peer)) || forbidden {
            return None;
        }
        let verdict = verdict(&self.peers[&peer].config.export, prefix, source, attributes)?;
        let next_hop = match prefix {
            _ if !external && from.is_some() => attributes.next_hop,
            IpNet::V4(_) => ip("192.0.2.255"),
            IpNet::V6(_) => ip("2001:db8::ff"),
        };
        let plain = PathAttributes {
            next_hop,
            med: attributes.med.filter(|_| !external),
            local_pref: Some(local_pref(*from, attributes)),
            ..attributes.clone()
        };
        let mut told = rewritten(verdict, plain);
        if external {
            told.as_path.prepend(OWN);
            told.local_pref = None;
            told.originator_id = None;
            told.cluster_list.clear();
        } else {
            if let Some(from) = internal {
                told.next_hop = next_hop;
                told.originator_id.get_or_insert(Ipv4Addr::from(from));
                told.cluster_list.insert(0, self.cluster);
            }
        }
        Some(told)
    }

    /// What a peer that is told several paths is told of a prefix.
    fn told_several(
        &self,
        peer: u32,
        send: AddPathSend,
        prefix: &IpNet,
        local: &PathAttributes,
    ) -> Vec<PathAttributes> {
        let paths = match send.paths {
            PathChoice::All => self.eligible(prefix, local),
            PathChoice::Multipath => self.decide(prefix, local),
        };
        // Of as many as may be told; what it tells itself, or would lead to it, is among them.
        let tellable = paths.iter().filter(|path| self.tellable(peer, prefix, Some(path)).is_some());
        tellable.take(send.limit.into()).filter_map(|path| self.told(peer, prefix, Some(path))).collect()
    }
}

/// The verdict of a policy, if it accepts.
fn verdict<'a>(
    policy: &'a Policy,
    prefix: &IpNet,
    source: RouteSource,
    attributes: &PathAttributes,
) -> Option<&'a Verdict> {
    let matches = |rule: &&Rule| {
        let named = rule.source.is_none_or(|s| s == source)
            || (rule.source, source) == (Some(RouteSource::RemotePeers), RouteSource::Reflected);
        let carried =
            |c: &Community| matches!(c, Community::Standard(c) if attributes.communities.contains(c));
        let asns: Vec<Asn> = attributes.as_path.0.iter().flat_map(|s| s.asns.clone()).collect();
        named
            && rule.prefixes.as_ref().is_none_or(|m| m.ranges.iter().any(|r| r.net.contains(prefix)))
            && rule.communities.iter().all(carried)
            && asns.starts_with(&rule.as_path_prefix)
    };
    let verdict = policy.rules.iter().find(matches).map(|rule| &rule.verdict);
    verdict.filter(|verdict| !matches!(verdict, Verdict::Reject(_)))
}

/// Whether there is the same in both, whatever the order.
fn same(mut heard: Vec<(IpNet, &PathAttributes)>, wanted: &[(IpNet, PathAttributes)]) -> bool {
    let takes = |(prefix, attributes): &(IpNet, PathAttributes)| {
        let place = heard.iter().position(|path| *path == (*prefix, attributes));
        place.map(|place| heard.swap_remove(place)).is_some()
    };
    wanted.iter().all(takes) && heard.is_empty()
}

/// Both, fed the same.
struct Both {
    lab: Lab,
    model: Model,
    started: std::time::Instant,
}

impl Both {
    fn new() -> Self {
        let mut lab = Lab::new();
        // One prefix at a time, so that peers lag behind everywhere.
        lab.credit = 1;
        let mut peers = BTreeMap::new();
        for peer in 0..PEERS {
            let config = PeerConfig { route_reflector_client: peer == 5, ..peer_config(peer) };
            lab.peer(peer, config.clone());
            lab.up(peer_session(peer));
            peers.insert(peer, ModelPeer { up: Some(true), config, ..ModelPeer::new(peer) });
        }
        let model = Model {
            peers,
            resolutions: BTreeMap::new(),
            originate: BTreeSet::new(),
            max_paths: 16,
            tracking: false,
            seconds: 0,
            cluster: ROUTER_ID,
            advertising: false,
        };
        let started = lab.now;
        Self { lab, model, started }
    }

    fn configure_peer(&mut self, peer: u32, change: impl FnOnce(&mut PeerConfig)) {
        let state = self.model.peers.get_mut(&peer).unwrap();
        change(&mut state.config);
        self.lab.peer(peer, state.config.clone());
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Announce(peer, bits, announcement) => {
                for prefix in some_prefixes(*bits) {
                    let attributes = announcement.attributes(*peer, Family::of(&prefix));
                    let path_id = if receives(*peer, Family::of(&prefix)) { announcement.path_id } else { 0 };
                    self.lab.path(*peer, path_id, Some(attributes.clone()), &[prefix]);
                    let state = self.model.peers.get_mut(peer).unwrap();
                    if state.up == Some(true) {
                        state.routes.insert((prefix, path_id), (attributes, false));
                    }
                }
            }
            Event::Withdraw(peer, bits, path_id) => {
                for prefix in some_prefixes(*bits) {
                    let path_id = if receives(*peer, Family::of(&prefix)) { *path_id } else { 0 };
                    self.lab.path(*peer, path_id, None, &[prefix]);
                    let state = self.model.peers.get_mut(peer).unwrap();
                    if state.up == Some(true) {
                        state.routes.remove(&(prefix, path_id));
                    }
                }
            }
            Event::Up(peer, kept) => self.up(*peer, kept.map(families)),
            Event::Restart(peer, kept) => self.restart(*peer, families(*kept)),
            Event::Death(peer) => {
                self.lab.down(*peer, Down::Death);
                let state = self.model.peers.get_mut(peer).unwrap();
                (state.up, state.stale_until) = (None, None);
                state.routes.clear();
            }
            Event::EndOfRib(peer, family) => {
                self.lab.input(RibInput::EndOfRib { peer: PeerId(*peer), family: *family });
                let state = self.model.peers.get_mut(peer).unwrap();
                if state.up == Some(true) {
                    state.drop_stale([*family].into_iter().collect());
                }
            }
            Event::Import(peer, number) => {
                self.configure_peer(*peer, |c| c.import = Arc::new(policy(*number)));
            }
            Event::Export(peer, number) => {
                self.configure_peer(*peer, |c| c.export = Arc::new(policy(*number)));
            }
            Event::AllowedOwnAs(peer, times) => self.configure_peer(*peer, |c| c.allowed_own_as = *times),
            Event::NextHop(family, number, default_route, resolution) => {
                self.next_hop(*family, *number, *default_route, *resolution);
            }
            Event::Settings { originate, max_paths, tracking } => {
                self.lab.configure(*tracking, *max_paths, some_prefixes(*originate));
                self.model.originate = some_prefixes(*originate).collect();
                self.model.max_paths = usize::from(*max_paths);
                self.model.tracking = *tracking;
            }
            Event::Client(peer, client) => {
                self.configure_peer(*peer, |c| c.route_reflector_client = *client);
            }
            Event::Cluster(first) => {
                self.model.cluster = CLUSTERS[usize::from(!first)];
                self.lab.cluster_id = Some(self.model.cluster);
                let (tracking, max_paths) =
                    (self.model.tracking, u16::try_from(self.model.max_paths).unwrap());
                self.lab.configure(tracking, max_paths, self.model.originate.clone());
            }
            Event::Advertise => {
                self.lab.input(RibInput::Advertise);
                self.model.advertising = true;
            }
            Event::Read(peer, pieces) => self.lab.read(*peer, *pieces),
            Event::Refresh(peer, family) => {
                if let Some(group) = self.lab.group_of.get(&PeerId(*peer)).copied() {
                    self.lab.egress(group, EgressInput::Refresh { peer: PeerId(*peer), family: *family });
                }
            }
            Event::Wait(seconds) => self.wait(*seconds),
            Event::Remove(peer) => {
                self.lab.sinks.remove(&PeerId(*peer));
                self.lab.input(RibInput::RemovePeer(PeerId(*peer)));
                self.model.peers.insert(*peer, ModelPeer::new(*peer));
                self.lab.peer(*peer, peer_config(*peer));
            }
        }
        // What is not asked about any more is not known any more.
        self.model.resolutions.retain(|next_hop, _| self.lab.tracked.contains(next_hop));
        // Most next hops resolve at once.
        let unknown = self.lab.tracked.iter().filter(|t| !self.model.resolutions.contains_key(t));
        for next_hop in unknown.copied().collect::<Vec<_>>() {
            let resolution = match next_hop.address.to_string().chars().last() {
                Some('0') => Resolution::OnLink,
                Some('1') if next_hop.default_route => Resolution::Gateway { metric: 10 },
                Some('1') => Resolution::OnLink,
                _ => Resolution::Unresolved,
            };
            self.lab.input(RibInput::NextHops(vec![(next_hop, resolution)]));
            self.model.resolutions.insert(next_hop, resolution);
        }
    }

    fn up(&mut self, peer: u32, kept: Option<FamilySet>) {
        let mut session = peer_session(peer);
        session.graceful_restart = kept.map(graceful);
        let state = self.model.peers.get_mut(&peer).unwrap();
        if state.up == Some(true) {
            return;
        }
        self.lab.up(session);
        state.up = Some(true);
        let lost = kept.unwrap_or_default();
        state.stale_until = Some(self.model.seconds + 120);
        state.drop_stale(Family::ALL.into_iter().filter(|f| !lost.contains(*f)).collect());
    }

    fn restart(&mut self, peer: u32, kept: FamilySet) {
        let state = self.model.peers.get_mut(&peer).unwrap();
        if state.up != Some(true) {
            return;
        }
        self.lab.down(peer, Down::Restart { families: kept, restart_time: Duration::from_secs(60) });
        state.up = Some(false);
        state.routes.retain(|(prefix, _), (_, stale)| !*stale && kept.contains(Family::of(prefix)));
        state.routes.values_mut().for_each(|(_, stale)| *stale = true);
        state.stale_until = (!state.routes.is_empty()).then_some(self.model.seconds + 60);
    }

    fn next_hop(&mut self, family: Family, number: u8, default_route: bool, resolution: u8) {
        let next_hop = TrackedNextHop { address: next_hop(family, number), default_route, link: None };
        let resolution = match resolution {
            0 => Resolution::Unresolved,
            1 => Resolution::Gateway { metric: 10 },
            2 => Resolution::Gateway { metric: 20 },
            _ => Resolution::OnLink,
        };
        self.lab.input(RibInput::NextHops(vec![(next_hop, resolution)]));
        self.model.resolutions.insert(next_hop, resolution);
    }

    fn wait(&mut self, seconds: u64) {
        self.model.seconds += seconds;
        let now = self.model.seconds;
        self.lab.now = self.started + Duration::from_secs(now);
        self.lab.input(RibInput::Tick);
        for state in self.model.peers.values_mut() {
            if state.stale_until.is_some_and(|until| until <= now) {
                state.drop_stale(FamilySet::all());
            }
        }
    }

    fn compare(&mut self) {
        self.lab.read_all();
        let local =
            |prefix: &IpNet| attributes(&[], if matches!(prefix, IpNet::V4(_)) { "0.0.0.0" } else { "::" });
        let mut kernel = BTreeMap::new();
        let mut told: BTreeMap<u32, BTreeMap<IpNet, PathAttributes>> = BTreeMap::new();
        let mut several: BTreeMap<u32, Vec<(IpNet, PathAttributes)>> = BTreeMap::new();
        for prefix in prefixes() {
            let local = local(&prefix);
            let paths = self.model.decide(&prefix, &local);
            let mut next_hops = vec![];
            for (peer, attributes, ..) in &paths {
                let Some(tracked) = peer.map(|peer| self.model.tracked(peer, attributes)) else { continue };
                if !next_hops.contains(&tracked) {
                    next_hops.push(tracked);
                }
            }
            if !next_hops.is_empty() {
                kernel.insert(prefix, next_hops);
            }
            for (peer, state) in &self.model.peers {
                if let Some(send) = sends(*peer, Family::of(&prefix)) {
                    let paths = self.model.told_several(*peer, send, &prefix, &local);
                    let paths = paths.into_iter().filter(|_| state.up == Some(true));
                    several.entry(*peer).or_default().extend(paths.map(|attributes| (prefix, attributes)));
                } else if let Some(attributes) = self.model.told(*peer, &prefix, paths.first())
                    && state.up == Some(true)
                {
                    told.entry(*peer).or_default().insert(prefix, attributes);
                }
            }
        }
        assert_eq!(self.lab.kernel, kernel);
        for (id, sink) in &self.lab.sinks {
            assert_eq!(&sink.table, told.get(&id.0).unwrap_or(&BTreeMap::new()), "told to {id:?}");
            let heard = sink.several.iter().map(|((prefix, _), attributes)| (*prefix, attributes)).collect();
            let wanted = several.remove(&id.0).unwrap_or_default();
            assert!(same(heard, &wanted), "{id:?} is told {:?}, not {wanted:?}", sink.several);
            let ended: &[Family] = if self.model.advertising { &Family::ALL } else { &[] };
            assert_eq!(sink.end_of_rib, ended, "{id:?}");
            self.compare_queries(*id, told.get(&id.0).unwrap_or(&BTreeMap::new()));
        }
        self.compare_tracking();
    }

    fn compare_queries(&self, id: PeerId, told: &BTreeMap<IpNet, PathAttributes>) {
        let out = self.lab.rib.routes(RibView::Out(address(id.0).into()), RouteSelect::All);
        let mut shown = (BTreeMap::new(), BTreeMap::new());
        for route in out {
            for path in route.paths {
                let attributes = (*path.attributes).clone();
                let before = match path.path_id {
                    Some(id) => shown.1.insert((route.prefix, id), attributes),
                    None => shown.0.insert(route.prefix, attributes),
                };
                assert_eq!(before, None, "{id:?}: one path of {} by one identifier", route.prefix);
            }
        }
        let several = &self.lab.sinks[&id].several;
        assert_eq!((&shown.0, &shown.1), (told, several), "{id:?}'s Adj-RIB-Out as shown");
        let egress = &self.lab.egresses[&self.lab.group_of[&id]];
        let state = &self.model.peers[&id.0];
        for status in self.lab.rib.family_status(id, FamilySet::all()) {
            let of_family = |prefix: &&IpNet| Family::of(prefix) == status.family;
            let routes = state.routes.iter().filter(|((prefix, _), _)| of_family(&prefix));
            assert_eq!(status.received, routes.clone().count());
            assert_eq!(status.stale, routes.filter(|(_, (_, stale))| *stale).count());
            let paths = several.keys().map(|(prefix, _)| prefix).filter(of_family).count();
            assert_eq!(egress.advertised(id, status.family), told.keys().filter(of_family).count() + paths);
        }
        let accepted: usize =
            self.lab.rib.family_status(id, FamilySet::all()).iter().map(|status| status.accepted).sum();
        let inward = self.lab.rib.routes(RibView::In(address(id.0).into()), RouteSelect::All);
        let paths = || inward.iter().flat_map(|route| &route.paths);
        assert_eq!(accepted, paths().filter(|path| path.valid).count());
        assert_eq!(paths().count(), state.routes.len());
        let ids = inward.iter().flat_map(|route| route.paths.iter().map(|path| (route.prefix, path.path_id)));
        let wanted = state.routes.keys().map(|(prefix, path_id)| {
            (*prefix, Some(*path_id).filter(|_| receives(id.0, Family::of(prefix))))
        });
        assert_eq!(ids.collect::<BTreeSet<_>>(), wanted.collect());
    }

    fn compare_tracking(&self) {
        let mut wanted = BTreeSet::new();
        for (peer, state) in self.model.peers.iter().filter(|_| self.model.tracking) {
            for ((prefix, _), (attributes, _)) in &state.routes {
                if let Some(attributes) = self.model.passes(*peer, prefix, attributes) {
                    wanted.insert(self.model.tracked(*peer, &attributes));
                }
            }
        }
        assert_eq!(self.lab.tracked, wanted);
        let deadline = self.model.peers.values().filter_map(|state| state.stale_until).min();
        let expected = deadline.map(|seconds| self.started + Duration::from_secs(seconds));
        assert_eq!(self.lab.rib.next_deadline().map(|(at, _)| at), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_rib_agrees_with_the_model(restarted: bool, events in prop::collection::vec(event(), 1..120)) {
        let mut both = Both::new();
        if !restarted {
            both.play(&Event::Advertise);
        }
        for (i, event) in events.iter().enumerate() {
            both.play(event);
            if i % 20 == 19 {
                both.compare();
            }
        }
        both.compare();
    }
}

/// A message of policy 3 is alarmed once for a path, and again only after that path was gone.
#[test]
fn a_duplicate_origin_is_alarmed_once() {
    let mut both = Both::new();
    both.configure_peer(0, |config| config.import = Arc::new(policy(3)));
    let announcement = |hops| Announcement {
        hops,
        origin: Origin::Igp,
        med: None,
        local_pref: 100,
        community: None,
        own_as: false,
        next_hop: 0,
        reflected: 0,
        path_id: 0,
    };
    both.play(&Event::Announce(0, 0b111, announcement(0)));
    both.play(&Event::Announce(0, 0b111, announcement(1)));
    let duplicate = |text| (PeerId(0), net(text));
    let once = vec![duplicate("10.0.0.0/24"), duplicate("10.0.1.0/24")];
    assert_eq!(both.lab.alarms, once);
    both.play(&Event::Withdraw(0, 1, 0));
    both.play(&Event::Announce(0, 1, announcement(0)));
    assert_eq!(both.lab.alarms, [&once[..], &once[..1]].concat());
}
