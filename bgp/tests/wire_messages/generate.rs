//! Messages made at random, and by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weft_bgp::types::{Asn, Family, FamilySet, PeerType};
use weft_bgp::wire::attributes::{
    Aggregator, AsPath, Origin, PathAttributes, Segment, SegmentKind, UnknownAttribute,
};
use weft_bgp::wire::capability::{
    AddPathFamily, AfiSafi, Capability, GracefulRestartCapability, LongLivedFamily, NextHopEncoding,
};
use weft_bgp::wire::nlri::PathNlri;
use weft_bgp::wire::open::Open;
use weft_bgp::wire::update::Agreed;

pub(crate) const EXTERNAL: Agreed4 = Agreed4(PeerType::External);
pub(crate) const INTERNAL: Agreed4 = Agreed4(PeerType::Internal);

/// What is agreed on with a peer of this type.
#[derive(Clone, Copy)]
pub(crate) struct Agreed4(PeerType);

impl Agreed4 {
    pub(crate) fn four_octets(self) -> Agreed {
        Agreed {
            families: FamilySet::all(),
            four_octet_as: true,
            extended_next_hop: false,
            add_path: FamilySet::EMPTY,
            peer_type: self.0,
        }
    }

    pub(crate) fn extended_next_hop(self) -> Agreed {
        Agreed { extended_next_hop: true, ..self.four_octets() }
    }

    pub(crate) fn add_path(self) -> Agreed {
        Agreed { add_path: FamilySet::all(), ..self.extended_next_hop() }
    }

    pub(crate) fn two_octets(self) -> Agreed {
        Agreed { four_octet_as: false, ..self.four_octets() }
    }
}

/// The smallest good set.
pub(crate) fn attributes(next_hop: &str) -> PathAttributes {
    PathAttributes {
        origin: Origin::Igp,
        as_path: path([65002]),
        next_hop: next_hop.parse().expect("an address"),
        next_hop_link_local: None,
        med: None,
        local_pref: None,
        atomic_aggregate: false,
        aggregator: None,
        communities: Vec::new(),
        ext_communities: Vec::new(),
        large_communities: Vec::new(),
        originator_id: None,
        cluster_list: Vec::new(),
        only_to_customer: None,
        unknown: Vec::new(),
        partial: <_>::default(),
    }
}

/// A path of one sequence.
pub(crate) fn path(asns: impl IntoIterator<Item = u32>) -> AsPath {
    AsPath(vec![Segment { kind: SegmentKind::Sequence, asns: asns.into_iter().map(Asn).collect() }])
}

pub(crate) fn nets(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect()
}

/// An attribute with these flags, its length in one octet.
pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("a short value");
    [&[flags, code, length], value].concat()
}

/// ORIGIN IGP, AS_PATH 65002 (four octets), NEXT_HOP 192.0.2.2.
pub(crate) fn good() -> Vec<Vec<u8>> {
    vec![
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xea]),
        attribute(0x40, 3, &[192, 0, 2, 2]),
    ]
}

/// The body of an UPDATE.
pub(crate) fn update(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("a short field").to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(&attributes)[..], &attributes, nlri].concat()
}

pub(crate) fn any_prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::Ipv4Unicast => (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, length)| {
                Ipv4Net::new(Ipv4Addr::from(bits), length).expect("in range").trunc().into()
            })
            .boxed(),
        Family::Ipv6Unicast => (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, length)| {
                Ipv6Net::new(Ipv6Addr::from(bits), length).expect("in range").trunc().into()
            })
            .boxed(),
    }
}

pub(crate) fn any_path_nlri(family: Family) -> impl Strategy<Value = PathNlri> {
    (any::<u32>(), any_prefix(family)).prop_map(|(path_id, prefix)| PathNlri { path_id, prefix })
}

fn any_path() -> impl Strategy<Value = AsPath> {
    let asn = prop_oneof![1u32..=65535, 65536u32..=u32::MAX].prop_map(Asn);
    let kind = prop_oneof![
        Just(SegmentKind::Set),
        Just(SegmentKind::Sequence),
        Just(SegmentKind::ConfedSequence),
        Just(SegmentKind::ConfedSet),
    ];
    let segment = (kind, vec(asn, 1..300)).prop_map(|(kind, mut asns)| {
        // Only a sequence may be split on the wire without becoming another path.
        if kind != SegmentKind::Sequence {
            asns.truncate(255);
        }
        Segment { kind, asns }
    });
    vec(segment, 0..4).prop_map(|mut segments| {
        // Neighbouring sequences are one.
        segments.dedup_by(|a, b| a.kind == SegmentKind::Sequence && b.kind == SegmentKind::Sequence);
        AsPath(segments)
    })
}

fn sorted<T: Ord + std::fmt::Debug>(items: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = Vec<T>> {
    items.prop_map(|mut items| {
        items.sort_unstable();
        items.dedup();
        items
    })
}

fn any_unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let value = vec(any::<u8>(), 0..300);
    proptest::collection::btree_map(40u8..=255, value, 0..4).prop_map(|unknown| {
        let attribute =
            |(code, value): (u8, Vec<u8>)| UnknownAttribute { flags: 0xe0, code, value: value.into() };
        unknown.into_iter().map(attribute).collect()
    })
}

prop_compose! {
    /// Whatever an internal peer may say of prefixes of this family.
    pub(crate) fn any_attributes(family: Family)(
        numbers in (0u8..3, any::<bool>(), option::of(any::<u32>()), option::of(any::<u32>())),
        as_path in any_path(),
        v4 in (1u32..0x0100_0000).prop_map(|n| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | n))),
        v6 in (1u64..).prop_map(|n| IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n)))),
        link_local in option::of((1u64..).prop_map(|n| Ipv6Addr::from(0xfe80 << 112 | u128::from(n)))),
        aggregator in option::of((1u32.., any::<u32>())),
        communities in sorted(vec(any::<u32>(), 0..80)),
        ext_communities in sorted(vec(any::<[u8; 8]>(), 0..5)),
        large_communities in sorted(vec(any::<[u32; 3]>(), 0..5)),
        reflection in (option::of(any::<u32>()), vec(any::<u32>(), 0..5)),
        only_to_customer in option::of(any::<u32>()),
        unknown in any_unknown(),
    ) -> PathAttributes {
        let origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(numbers.0)];
        let is_v4 = family == Family::Ipv4Unicast;
        PathAttributes {
            origin,
            as_path,
            next_hop: if is_v4 { v4 } else { v6 },
            next_hop_link_local: if is_v4 { None } else { link_local },
            med: numbers.2,
            local_pref: numbers.3,
            atomic_aggregate: numbers.1,
            aggregator: aggregator.map(|(asn, address)| Aggregator { asn: Asn(asn), address: address.into() }),
            communities,
            ext_communities,
            large_communities,
            originator_id: reflection.0.map(Ipv4Addr::from),
            cluster_list: reflection.1.into_iter().map(Ipv4Addr::from).collect(),
            only_to_customer: only_to_customer.map(Asn),
            unknown,
            partial: <_>::default(),
        }
    }
}

fn any_capability() -> impl Strategy<Value = Capability> {
    let family = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi });
    let restart = (any::<[bool; 2]>(), 0u16..4096, vec((family.clone(), any::<bool>()), 0..6)).prop_map(
        |([restarting, notification], restart_time, families)| {
            let restart = GracefulRestartCapability { restarting, notification, restart_time, families };
            Capability::GracefulRestart(restart)
        },
    );
    prop_oneof![
        family.clone().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedMessage),
        vec(any::<[u16; 3]>(), 0..6).prop_map(|encodings| {
            let encoding = |[afi, safi, next_hop_afi]: [u16; 3]| NextHopEncoding { afi, safi, next_hop_afi };
            Capability::ExtendedNextHop(encodings.into_iter().map(encoding).collect())
        }),
        Just(Capability::EnhancedRouteRefresh),
        any::<u8>().prop_map(Capability::Role),
        vec((family.clone(), any::<bool>(), 0u32..0x100_0000), 0..4).prop_map(|families| {
            let of = |(family, forwarding, stale_time)| LongLivedFamily { family, forwarding, stale_time };
            Capability::LongLivedGracefulRestart(families.into_iter().map(of).collect())
        }),
        any::<u32>().prop_map(|asn| Capability::FourOctetAs(Asn(asn))),
        vec((family.clone(), any::<u8>()), 0..4).prop_map(|families| {
            let of = |(family, send_receive)| AddPathFamily { family, send_receive };
            Capability::AddPath(families.into_iter().map(of).collect())
        }),
        restart,
        ("[a-z]{0,20}", "[a-z.]{0,20}").prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        (128u8.., vec(any::<u8>(), 0..256))
            .prop_map(|(code, value)| Capability::Unknown { code, value: Bytes::from(value) }),
    ]
}

prop_compose! {
    pub(crate) fn any_open()(
        my_as in any::<u16>(),
        hold_time in any::<u16>(),
        identifier in any::<u32>(),
        capabilities in vec(any_capability(), 0..12),
    ) -> Open {
        Open { my_as, hold_time, bgp_identifier: identifier.into(), capabilities }
    }
}
