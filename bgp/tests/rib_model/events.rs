//! Who the peers are, and what may happen.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_bgp::config::{AddPath, AddPathSend, Aggregation, PathChoice, PeerConfig};
use weft_bgp::ingress::{AddPathFamilies, LongLived, PeerGracefulRestart, Session};
use weft_bgp::policy::{Community, Operation, Policy, PrefixMatch, PrefixRange, RouteSource, Rule, Verdict};
use weft_bgp::role::Role;
use weft_bgp::types::{Asn, Family, FamilySet, Reason};
use weft_bgp::wire::attributes::{LLGR_STALE, NO_LLGR, Origin, PathAttributes};

use crate::rib_support::*;

/// Peers 0 and 1 are external and of one AS, 2 is external, 3 to 5 are internal, 5 at first a client. 1, 3 and 4 tell several paths of a
/// prefix, of IPv6 alone 3; 2 and 5 are told all, 4 two of those that are used, of IPv4 alone.
pub(crate) const PEERS: u32 = 6;

/// What we are called, and the clusters that we are of by turns.
pub(crate) const ROUTER_ID: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
pub(crate) const CLUSTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(7, 7, 7, 7), ROUTER_ID];

/// Our role to each external peer.
pub(crate) type Roles = [Option<Role>; 3];

pub(crate) fn is_external(peer: u32) -> bool {
    peer < 3
}

/// Whether prefixes of a family come from a peer with path identifiers.
pub(crate) fn receives(peer: u32, family: Family) -> bool {
    matches!((peer, family), (1 | 4, _) | (3, Family::Ipv6Unicast))
}

/// Which paths a peer is told of a family.
pub(crate) fn sends(peer: u32, family: Family) -> Option<AddPathSend> {
    match (peer, family) {
        (2 | 5, _) => Some(AddPathSend { paths: PathChoice::All, limit: 64 }),
        (4, Family::Ipv4Unicast) => Some(AddPathSend { paths: PathChoice::Multipath, limit: 2 }),
        _ => None,
    }
}

pub(crate) fn peer_config(peer: u32) -> PeerConfig {
    let send = Family::ALL.into_iter().find_map(|family| sends(peer, family));
    PeerConfig { add_path: AddPath { receive: true, send }, ..config() }
}

pub(crate) fn peer_session(peer: u32, roles: &Roles) -> Session {
    let families = |has: &dyn Fn(&Family) -> bool| Family::ALL.into_iter().filter(has).collect();
    let receive = families(&|family| receives(peer, *family));
    let send = families(&|family| sends(peer, *family).is_some());
    let role = roles.get(peer as usize).copied().flatten();
    Session { add_path: AddPathFamilies { receive, send }, role, ..session(peer, remote_as(peer)) }
}

pub(crate) fn remote_as(peer: u32) -> Asn {
    match peer {
        0 | 1 => Asn(65001),
        2 => Asn(65002),
        _ => OWN,
    }
}

/// The next hops of routes: one of IPv4 is a peer.
pub(crate) fn next_hop(family: Family, number: u8) -> IpAddr {
    match (family, number) {
        (Family::Ipv4Unicast, 2) => address(4),
        (Family::Ipv4Unicast, _) => Ipv4Addr::new(192, 0, 2, 100 + number).into(),
        (Family::Ipv6Unicast, _) => ip(&format!("2001:db8::{}", 100 + number)),
    }
}

/// What a peer says of its restarts that is back and has kept these families: its paths are kept for longer if that was agreed on.
pub(crate) fn restarts(kept: FamilySet, long_lived: bool) -> PeerGracefulRestart {
    let [ipv4, ipv6] = LONG_LIVED.map(Duration::from_secs);
    let long_lived = long_lived.then_some(LongLived { ipv4, ipv6, forwarding: kept });
    PeerGracefulRestart { long_lived, ..graceful(kept) }
}

/// For how many seconds paths of each family are kept beyond the restart time.
pub(crate) const LONG_LIVED: [u64; 2] = [300, 40];

/// What may be aggregates: there are more specific prefixes.
pub(crate) fn wholes() -> [IpNet; 2] {
    ["10.0.0.0/23", "2001:db8::/32"].map(net)
}

pub(crate) fn prefixes() -> Vec<IpNet> {
    ["10.0.0.0/24", "10.0.1.0/24", "10.1.0.0/16", "192.168.0.0/16", "2001:db8:1::/48", "2001:db8:2::/48"]
        .map(net)
        .into_iter()
        .chain(wholes())
        .collect()
}

#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) hops: u32,
    pub(crate) origin: Origin,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: u32,
    pub(crate) community: Option<u32>,
    pub(crate) only_to_customer: Option<u32>,
    pub(crate) own_as: bool,
    pub(crate) next_hop: u8,
    /// Between internal peers: no reflector before, another one, us, or we are the origin.
    pub(crate) reflected: u8,
    /// Where it is told by such.
    pub(crate) path_id: u32,
}

impl Announcement {
    pub(crate) fn attributes(&self, peer: u32, family: Family) -> PathAttributes {
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
            only_to_customer: self.only_to_customer.map(Asn),
            ..attributes(&asns, &next_hop)
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Announce(u32, u8, Announcement),
    Withdraw(u32, u8, u32),
    /// Which families it kept while it was away, if it does graceful restart, and whether it wants them kept for long.
    Up(u32, Option<u8>, bool),
    Restart(u32, u8),
    Death(u32),
    EndOfRib(u32, Family),
    RefreshBegins(u32, Family),
    RefreshEnds(u32, Family),
    Import(u32, u8),
    Export(u32, u8),
    AllowedOwnAs(u32, u8),
    NextHop(Family, u8, bool, u8),
    Settings {
        originate: u8,
        aggregates: [Option<Aggregation>; 2],
        max_paths: u16,
        tracking: bool,
    },
    Read(u32, usize),
    Refresh(u32, Family),
    Wait(u64),
    Remove(u32),
    Client(u32, bool),
    Cluster(bool),
    Advertise,
}

pub(crate) fn families(bits: u8) -> FamilySet {
    Family::ALL.into_iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, f)| f).collect()
}

pub(crate) fn some_prefixes(bits: u8) -> impl Iterator<Item = IpNet> {
    prefixes().into_iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, p)| p)
}

pub(crate) fn policy(number: u8) -> Policy {
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
pub(crate) fn rewriting(number: u8) -> Verdict {
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
pub(crate) fn rewritten(verdict: &Verdict, mut attributes: PathAttributes) -> PathAttributes {
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

pub(crate) fn announcement() -> impl Strategy<Value = Announcement> {
    (
        0u32..2,
        prop_oneof![3 => Just(Origin::Igp), 1 => Just(Origin::Incomplete)],
        prop::option::of(0u32..3),
        prop_oneof![3 => Just(100u32), 1 => Just(200u32)],
        prop_oneof![4 => Just(None), 1 => Just(Some(0xFFFF_FF01)), 1 => Just(Some(0xFFFF_FF02)), 1 => Just(Some(7)),
            1 => Just(Some(0xFFFF_0000)), 1 => Just(Some(LLGR_STALE)), 1 => Just(Some(NO_LLGR))],
        prop_oneof![4 => Just(None), 1 => Just(Some(65001)), 1 => Just(Some(64600))],
        prop::bool::weighted(0.1),
        0u8..3,
        prop_oneof![6 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8), 1 => Just(3u8)],
        0u32..3,
    )
        .prop_map(|(hops, origin, med, local_pref, community, only_to_customer, own_as, next_hop, reflected, path_id)| Announcement {
            hops,
            origin,
            med,
            local_pref,
            community,
            only_to_customer,
            own_as,
            next_hop,
            reflected,
            path_id,
        })
}

/// Our role to an external peer.
pub(crate) fn role() -> impl Strategy<Value = Option<Role>> {
    use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    let roles = [Customer, Peer, Provider, RouteServer, RouteServerClient].map(Some).to_vec();
    prop_oneof![Just(None), prop::sample::select(roles)]
}

pub(crate) fn aggregation() -> impl Strategy<Value = Option<Aggregation>> {
    let some = vec![Some(Aggregation::WithSpecifics), Some(Aggregation::SummaryOnly)];
    prop_oneof![2 => Just(None), 1 => prop::sample::select(some)]
}

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let peer = 0..PEERS;
    prop_oneof![
        12 => (peer.clone(), any::<u8>(), announcement()).prop_map(|(p, s, a)| Event::Announce(p, s, a)),
        4 => (peer.clone(), any::<u8>(), 0u32..3).prop_map(|(p, s, id)| Event::Withdraw(p, s, id)),
        8 => (peer.clone(), prop::option::of(0u8..4), any::<bool>()).prop_map(|(p, f, l)| Event::Up(p, f, l)),
        2 => (peer.clone(), 0u8..4).prop_map(|(p, f)| Event::Restart(p, f)),
        1 => peer.clone().prop_map(Event::Death),
        2 => (peer.clone(), family()).prop_map(|(p, f)| Event::EndOfRib(p, f)),
        1 => (peer.clone(), family()).prop_map(|(p, f)| Event::RefreshBegins(p, f)),
        1 => (peer.clone(), family()).prop_map(|(p, f)| Event::RefreshEnds(p, f)),
        4 => (peer.clone(), 0u8..6).prop_map(|(p, n)| Event::Import(p, n)),
        6 => (peer.clone(), 0u8..6).prop_map(|(p, n)| Event::Export(p, n)),
        1 => (peer.clone(), 0u8..2).prop_map(|(p, n)| Event::AllowedOwnAs(p, n)),
        8 => (family(), 0u8..3, any::<bool>(), 0u8..4).prop_map(|(f, h, d, r)| Event::NextHop(f, h, d, r)),
        2 => (any::<u8>(), prop::array::uniform2(aggregation()), 1u16..4, prop::bool::weighted(0.7))
            .prop_map(|(originate, aggregates, max_paths, tracking)| Event::Settings { originate, aggregates, max_paths, tracking }),
        6 => (peer.clone(), 1usize..3).prop_map(|(p, n)| Event::Read(p, n)),
        1 => (peer.clone(), family()).prop_map(|(p, f)| Event::Refresh(p, f)),
        1 => (1u64..200).prop_map(Event::Wait),
        1 => peer.prop_map(Event::Remove),
        3 => (3..PEERS, any::<bool>()).prop_map(|(p, c)| Event::Client(p, c)),
        1 => any::<bool>().prop_map(Event::Cluster),
        2 => Just(Event::Advertise),
    ]
}
