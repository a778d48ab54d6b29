//! Exact octets, and what a reader makes of them.

use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use weft_bgp::ingress::RouteBatch;
use weft_bgp::mrt::{
    Encoding, IndexedPeer, Observation, Observed, Peering, RibEntry, Table, Timestamp, put_observation,
};
use weft_bgp::session::State;
use weft_bgp::types::{Asn, FamilySet, PeerType};
use weft_bgp::wire::attributes::{AsPath, PathAttributes, Segment, SegmentKind, UnknownAttribute};
use weft_bgp::wire::nlri::Nlri;
use weft_bgp::wire::update::{Agreed, Decoder};

use crate::reader::{records, routes};

const TIME: Timestamp = Timestamp { seconds: 0x4d83_b034, microseconds: 0x0001_0203 };

/// What an UPDATE with these attributes for this prefix says: MP_REACH_NLRI, which comes first, is put back to its whole form.
fn decoded(attributes: &[u8], prefix: &IpNet) -> PathAttributes {
    let mut nlri = BytesMut::new();
    prefix.encode(&mut nlri);
    let (mut whole, mut field) = (BytesMut::new(), nlri.clone());
    if attributes[1] == 14 {
        let length = usize::from(attributes[2]);
        let next_hop = &attributes[3..3 + length];
        assert_eq!(usize::from(next_hop[0]), length - 1);
        whole.put_slice(&[0x80, 14, u8::try_from(2 + 1 + length + 1 + nlri.len()).unwrap(), 0]);
        whole.put_slice(&[if prefix.addr().is_ipv4() { 1 } else { 2 }, 1]);
        whole.put_slice(next_hop);
        whole.put_u8(0);
        whole.put_slice(&nlri);
        whole.put_slice(&attributes[3 + length..]);
        field.clear();
    } else {
        whole.put_slice(attributes);
    }
    let mut body = BytesMut::new();
    body.put_u16(0);
    body.put_u16(u16::try_from(whole.len()).unwrap());
    body.put_slice(&whole);
    body.put_slice(&field);
    let agreed = Agreed {
        families: FamilySet::all(),
        four_octet_as: true,
        extended_next_hop: true,
        peer_type: PeerType::Internal,
        add_path: FamilySet::default(),
    };
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(agreed).decode(&body.freeze(), &mut batch).unwrap();
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    assert_eq!(batch.prefixes, [*prefix]);
    PathAttributes::clone(batch.runs[0].attributes.as_ref().unwrap())
}

fn path(next_hop: &str, asns: &[u32]) -> PathAttributes {
    let asns = asns.iter().copied().map(Asn).collect();
    PathAttributes {
        as_path: AsPath(vec![Segment { kind: SegmentKind::Sequence, asns }]),
        ..PathAttributes::new(next_hop.parse().unwrap())
    }
}

fn peering(remote: &str, local: &str) -> Peering {
    Peering {
        remote_as: Asn(64_496),
        local_as: Asn(4_200_000_000),
        interface: 7,
        remote: Some(remote.parse().unwrap()),
        local: local.parse().ok(),
        encoding: Encoding::PLAIN,
    }
}

fn observation(peering: Peering, observed: Observed) -> BytesMut {
    let mut out = BytesMut::new();
    put_observation(TIME, &Observation { peering, observed }, &mut out);
    out
}

/// Proves RFC 6396 2, RFC 6396 3, RFC 6396 4.4.3.
#[test]
fn rfc6396_a_message_is_written_with_the_time_both_ends_and_its_octets() {
    let message = Bytes::from_static(b"a message");
    let received = observation(peering("192.0.2.85", "198.51.100.4"), Observed::Received(message.clone()));
    let expected = [
        &[0x4d, 0x83, 0xb0, 0x34, 0, 17, 0, 4, 0, 0, 0, 33, 0, 1, 2, 3][..],
        &[0, 0, 0xfb, 0xf0, 0xfa, 0x56, 0xea, 0x00, 0, 7, 0, 1, 192, 0, 2, 85, 198, 51, 100, 4],
        b"a message",
    ];
    assert_eq!(received, expected.concat());
    let sent = observation(peering("192.0.2.85", "198.51.100.4"), Observed::Sent(message.clone()));
    assert_eq!((&sent[7], &sent[8..]), (&7, &received[8..]));
    // With AS paths of two octets in the message the numbers in front of it have two as well.
    let two_octets = Peering {
        encoding: Encoding { four_octet_as: false, add_path: false },
        ..peering("2001:db8::1", "2001:db8::2")
    };
    for (observed, subtype) in
        [(Observed::Received(message.clone()), 1), (Observed::Sent(message.clone()), 6)]
    {
        let record = observation(two_octets, observed);
        assert_eq!(record[4..12], [0, 17, 0, subtype, 0, 0, 0, 4 + 4 + 4 + 32 + 9]);
        assert_eq!(record[16..24], [0xfb, 0xf0, 0x5b, 0xa0, 0, 7, 0, 2]);
    }
}

/// Proves RFC 6396 4.4.4, RFC 6396 4.4.1.
#[test]
fn rfc6396_a_change_of_state_is_written_by_number() {
    let change = Observed::State { from: State::OpenConfirm, to: State::Established };
    let record = observation(peering("fe80::1", "unknown"), change);
    let expected = [
        &[0x4d, 0x83, 0xb0, 0x34, 0, 17, 0, 5, 0, 0, 0, 52, 0, 1, 2, 3][..],
        &[0, 0, 0xfb, 0xf0, 0xfa, 0x56, 0xea, 0x00, 0, 7, 0, 2],
        &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0; 16],
        &[0, 5, 0, 6],
    ];
    assert_eq!(record, expected.concat());
    let change = Observed::State { from: State::Idle, to: State::Connect };
    let record = observation(peering("192.0.2.85", "unknown"), change);
    assert_eq!(record[26..], [0, 1, 192, 0, 2, 85, 0, 0, 0, 0, 0, 1, 0, 2]);
}

/// Proves RFC 6396 4.3.1, RFC 6396 4.3.2, RFC 6396 4.3.4.
#[test]
fn rfc6396_a_table_is_written_with_its_peers_and_each_path() {
    let mut table = Table::new(TIME);
    let mut out = BytesMut::new();
    let peers = [("10.0.0.1", 64_500), ("2001:db8::9", 4_200_000_000)].map(|(address, asn)| IndexedPeer {
        id: Ipv4Addr::new(192, 0, 2, 1),
        address: address.parse().unwrap(),
        asn: Asn(asn),
    });
    table.put_peers(Ipv4Addr::new(198, 51, 100, 1), &peers, &mut out);
    let (v4, v6) = (path("10.0.0.1", &[64_500]), path("2001:db8::9", &[4_200_000_000]));
    let entry = |peer, attributes| RibEntry { peer, originated: 0x0102_0304, path_id: 0, attributes };
    table.put_routes(&"10.1.0.0/18".parse().unwrap(), false, [entry(0, &v4)].into_iter(), &mut out);
    table.put_routes(&"2001:db8:1::/48".parse().unwrap(), false, [entry(1, &v6)].into_iter(), &mut out);
    let none = std::iter::empty::<RibEntry<&PathAttributes>>();
    table.put_routes(&"10.2.0.0/16".parse().unwrap(), false, none, &mut out);
    let records = records(&out);
    assert_eq!(records.iter().map(|r| (r.kind, r.subtype)).collect::<Vec<_>>(), [(13, 1), (13, 2), (13, 4)]);
    let index = [
        &[198, 51, 100, 1, 0, 0, 0, 2][..],
        &[2, 192, 0, 2, 1, 10, 0, 0, 1, 0, 0, 0xfb, 0xf4],
        &[3, 192, 0, 2, 1, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0xfa, 0x56, 0xea, 0],
    ];
    assert_eq!(records[0].body, index.concat());
    let ipv4 = [
        &[0, 0, 0, 0, 18, 10, 1, 0, 0, 1, 0, 0, 1, 2, 3, 4, 0, 20][..],
        &[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf4, 0x40, 3, 4, 10, 0, 0, 1],
    ];
    assert_eq!(records[1].body, ipv4.concat());
    // Of MP_REACH_NLRI there is the length of the next hop and the next hop, and nothing else.
    let ipv6 = [
        &[0, 0, 0, 1, 48, 0x20, 1, 0x0d, 0xb8, 0, 1, 0, 1, 0, 1, 1, 2, 3, 4, 0, 33][..],
        &[0x80, 14, 17, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        &[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0xfa, 0x56, 0xea, 0],
    ];
    assert_eq!(records[2].body, ipv6.concat());
}

/// Proves RFC 6396 4.3.4, RFC 8950 3.
#[test]
fn rfc6396_attributes_of_a_table_are_what_was_received() {
    let link_local = Some("fe80::9".parse().unwrap());
    let full = PathAttributes {
        med: Some(7),
        local_pref: Some(200),
        atomic_aggregate: true,
        communities: vec![0xffff_0000, 0xffff_ff01],
        ext_communities: vec![[0, 2, 0xfb, 0xf4, 0, 0, 0, 1]],
        large_communities: (0..40).map(|n| [64_500, n, 2]).collect(),
        originator_id: Some(Ipv4Addr::new(10, 9, 9, 9)),
        cluster_list: vec![Ipv4Addr::new(10, 0, 0, 8), Ipv4Addr::new(10, 0, 0, 7)],
        ..path("10.0.0.1", &[64_500, 4_200_000_000])
    };
    let v6 = PathAttributes {
        next_hop: "2001:db8::9".parse().unwrap(),
        next_hop_link_local: link_local,
        ..full.clone()
    };
    for (prefix, attributes) in [
        ("10.0.0.0/8", full),
        ("2001:db8::/32", v6.clone()),
        // An IPv6 next hop of IPv4 prefixes.
        ("10.64.0.0/10", v6),
    ] {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut out = BytesMut::new();
        let entry = RibEntry { peer: 3, originated: 0, path_id: 0, attributes: &attributes };
        Table::new(TIME).put_routes(&prefix, false, std::iter::once(entry), &mut out);
        let (_, of, entries) = routes(&records(&out)[0]);
        assert_eq!((of, entries.len(), entries[0].0), (prefix, 1, 3));
        assert_eq!(decoded(&entries[0].2, &prefix), attributes);
    }
}

/// Attributes of about so many octets.
fn of_size(octets: usize) -> PathAttributes {
    let unknown = |code, octets| UnknownAttribute { flags: 0xc0, code, value: vec![0xaa; octets].into() };
    let unknown = vec![unknown(200, octets / 2), unknown(201, octets / 2)];
    PathAttributes { unknown, ..path("10.0.0.1", &[64_500]) }
}

/// Bug class 26 (553f44e8bc, FRR): a set of paths that no record holds is dumped for ever.
/// Proves RFC 6396 4.3.2.
#[test]
fn a_set_of_paths_that_no_record_holds_is_written_in_several() {
    let (small, large, too_large) = (path("10.0.0.1", &[64_500]), of_size(60_000), of_size(66_000));
    let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
    // More than can be counted, long ones among them, and some that no entry can hold: first, last, and in between.
    let attributes = |n: u32| match n {
        0 | 40_000 | 69_999 => &too_large,
        n if n % 10_000 == 5_000 => &large,
        _ => &small,
    };
    let entry = |n: u32| RibEntry { peer: n as u16, originated: n, path_id: 0, attributes: attributes(n) };
    let mut table = Table::new(TIME);
    let mut out = BytesMut::new();
    table.put_routes(&prefix, false, (0..70_000).map(entry), &mut out);
    assert_eq!(table.omitted, 3);
    let records = records(&out);
    let mut times = Vec::new();
    for (sequence, record) in records.iter().enumerate() {
        assert!(record.body.len() < 0x4_0000 + 0x1_0000, "a record of {} octets", record.body.len());
        let (number, of, entries) = routes(record);
        assert_eq!((number as usize, of), (sequence, prefix));
        assert!(!entries.is_empty());
        times.extend(entries.into_iter().map(|(_, time, _)| time));
    }
    let expected: Vec<u32> = (1..69_999).filter(|n| *n != 40_000).collect();
    assert!(records.len() > 1 && times == expected, "each path once, in order");

    // Nothing but what no record can hold.
    let mut out = BytesMut::new();
    table.put_routes(
        &prefix,
        false,
        std::iter::once(RibEntry { peer: 0, originated: 0, path_id: 0, attributes: &too_large }),
        &mut out,
    );
    assert_eq!((table.omitted, out.len()), (4, 0));
}

#[test]
fn more_peers_than_can_be_counted_are_left_out() {
    let address: IpAddr = [10, 0, 0, 1].into();
    let peers = vec![IndexedPeer { id: 1.into(), address, asn: Asn(1) }; 70_000];
    let mut out = BytesMut::new();
    Table::new(TIME).put_peers(1.into(), &peers, &mut out);
    let records = records(&out);
    assert_eq!((records.len(), records[0].body.len()), (1, 8 + 65_535 * 13));
    assert_eq!(records[0].body[6..8], [0xff, 0xff]);
}

/// Proves RFC 8050 3, RFC 8050 4.
#[test]
fn rfc8050_paths_with_identifiers_are_told_apart() {
    let mut out = BytesMut::new();
    let attributes = path("10.0.0.1", &[64_500]);
    let entries = [7, 9].map(|path_id| RibEntry { peer: 1, originated: 0, path_id, attributes: &attributes });
    Table::new(TIME).put_routes(&"10.0.0.0/8".parse().unwrap(), true, entries.into_iter(), &mut out);
    let record = &records(&out)[0];
    assert_eq!((record.kind, record.subtype), (13, 8));
    let entry = |path_id: u8| {
        let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfb, 0xf4, 0x40, 3, 4, 10, 0, 0, 1];
        [&[0, 1, 0, 0, 0, 0, 0, 0, 0, path_id, 0, 20][..], &attributes].concat()
    };
    assert_eq!(record.body, [&[0, 0, 0, 0, 8, 10, 0, 2][..], &entry(7), &entry(9)].concat());
    let mut out = BytesMut::new();
    Table::new(TIME).put_routes(&"fd00::/8".parse().unwrap(), true, entries.into_iter(), &mut out);
    assert_eq!(records(&out)[0].subtype, 10);

    for (four_octet_as, received, sent) in [(true, 9, 11), (false, 8, 10)] {
        let peering = Peering {
            encoding: Encoding { four_octet_as, add_path: true },
            ..peering("192.0.2.85", "198.51.100.4")
        };
        let subtype = |observed| records(&observation(peering, observed))[0].subtype;
        let message = Bytes::from_static(b"a message");
        assert_eq!(subtype(Observed::Received(message.clone())), received);
        assert_eq!(subtype(Observed::Sent(message)), sent);
    }
}
