//! UPDATEs that are right.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::BytesMut;
use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::{Asn, Family, FamilySet};
use weft_bgp::wire::attributes::{Aggregator, AsPath, Segment, SegmentKind, UnknownAttribute};
use weft_bgp::wire::update::{Agreed, Decoder, end_of_rib};

use crate::generate::{EXTERNAL, INTERNAL, attribute, attributes, good, nets, path, update};

pub(crate) fn decode(agreed: Agreed, body: &[u8]) -> RouteBatch {
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(agreed).decode(body, &mut batch).expect("a good UPDATE");
    assert_eq!(decoded.errors, []);
    batch
}

/// Proves RFC 4271 4.3.
#[test]
fn an_update_of_rfc_4271_to_the_octet() {
    let mut set = good();
    set.push(attribute(0x80, 4, &[0, 0, 0, 7]));
    set.push(attribute(0xc0, 8, &[0, 1, 0, 2, 0, 1, 0, 1, 0, 1, 0, 2]));
    set.push(attribute(0xc0, 32, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]));
    let body = update(&[8, 10, 0], &set, &[24, 192, 0, 2, 32, 192, 0, 2, 1]);
    let batch = decode(EXTERNAL.four_octets(), &body);
    assert_eq!(batch.prefixes, nets(&["10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24", "192.0.2.1/32"]));
    let [withdrawn, announced] = &batch.runs[..] else { panic!("{:?}", batch.runs) };
    assert_eq!((withdrawn.range.clone(), &withdrawn.attributes), (0..2, &None));
    let mut expected = attributes("192.0.2.2");
    expected.med = Some(7);
    expected.communities = vec![0x0001_0001, 0x0001_0002];
    expected.large_communities = vec![[1, 2, 3]];
    assert_eq!(announced.range, 2..4);
    assert_eq!(announced.attributes.as_deref(), Some(&expected));
}

#[test]
fn host_bits_in_nlri_are_cleared() {
    let batch = decode(EXTERNAL.four_octets(), &update(&[], &good(), &[9, 10, 0xff, 31, 1, 2, 3, 0xff]));
    assert_eq!(batch.prefixes, nets(&["10.128.0.0/9", "1.2.3.254/31"]));
}

/// MP_REACH_NLRI with a global and a link-local next hop, and one prefix.
fn mp_reach(next_hops: &[&str]) -> Vec<u8> {
    let octets: Vec<u8> =
        next_hops.iter().flat_map(|hop| hop.parse::<std::net::Ipv6Addr>().unwrap().octets()).collect();
    let length = u8::try_from(octets.len()).unwrap();
    let value = [&[0, 2, 1, length][..], &octets, &[0, 32, 0x20, 1, 0x0d, 0xb8]].concat();
    attribute(0x80, 14, &value)
}

/// Proves RFC 4760 3, RFC 2545 3.
#[test]
fn ipv6_comes_in_mp_reach_with_one_or_two_next_hops() {
    for hops in [&["2001:db8::2"][..], &["2001:db8::2", "fe80::2"]] {
        let mut set = good();
        set.pop();
        set.insert(1, mp_reach(hops));
        let batch = decode(EXTERNAL.four_octets(), &update(&[], &set, &[]));
        assert_eq!(batch.prefixes, nets(&["2001:db8::/32"]));
        let got = batch.runs[0].attributes.as_ref().unwrap();
        assert_eq!(got.next_hop.to_string(), "2001:db8::2");
        assert_eq!(got.next_hop_link_local.map(|a| a.to_string()).as_deref(), hops.get(1).copied());
    }
}

/// RFC 8950, and what speakers without a global address on the link make of RFC 2545: zeros, or the link-local address, in the
/// global one's place.
/// Proves RFC 8950 3.
#[test]
fn ipv4_over_ipv6_has_the_next_hops_of_ipv6() {
    for (hops, expected) in [
        (&["2001:db8::2"][..], ("2001:db8::2", None)),
        (&["2001:db8::2", "fe80::2"], ("2001:db8::2", Some("fe80::2"))),
        (&["fe80::2"], ("fe80::2", None)),
        (&["fe80::2", "fe80::2"], ("fe80::2", Some("fe80::2"))),
        (&["::", "fe80::2"], ("fe80::2", None)),
        // What stands for the link-local address and is none leads nowhere.
        (&["2001:db8::2", "::"], ("2001:db8::2", None)),
        (&["2001:db8::2", "ff02::1"], ("2001:db8::2", None)),
        (&["2001:db8::2", "2001:db8::3"], ("2001:db8::2", None)),
    ] {
        let octets: Vec<u8> =
            hops.iter().flat_map(|hop| hop.parse::<std::net::Ipv6Addr>().unwrap().octets()).collect();
        let length = u8::try_from(octets.len()).unwrap();
        let mut set = good();
        set.pop();
        set.push(attribute(0x80, 14, &[&[0, 1, 1, length][..], &octets, &[0, 8, 10]].concat()));
        let batch = decode(EXTERNAL.extended_next_hop(), &update(&[], &set, &[]));
        assert_eq!(batch.prefixes, nets(&["10.0.0.0/8"]));
        let got = batch.runs[0].attributes.as_ref().unwrap();
        let link_local = got.next_hop_link_local.map(|address| address.to_string());
        assert_eq!((got.next_hop.to_string().as_str(), link_local.as_deref()), expected);
    }
}

/// One message for both families: each has the next hop of its own field.
#[test]
fn mp_reach_and_nlri_in_one_update_have_their_own_next_hops() {
    let mut set = good();
    set.push(mp_reach(&["2001:db8::2"]));
    set.push(attribute(0x80, 15, &[0, 2, 1, 16, 0x20, 2]));
    let batch = decode(EXTERNAL.four_octets(), &update(&[8, 11], &set, &[8, 10]));
    assert_eq!(batch.prefixes, nets(&["11.0.0.0/8", "2002::/16", "10.0.0.0/8", "2001:db8::/32"]));
    let next_hops: Vec<_> =
        batch.runs.iter().map(|run| run.attributes.as_ref().map(|a| a.next_hop.to_string())).collect();
    let hop = |hop: &str| Some(hop.to_owned());
    assert_eq!(next_hops, [None, None, hop("192.0.2.2"), hop("2001:db8::2")]);
}

#[test]
fn ipv4_in_mp_reach_is_understood() {
    let mut set = good();
    set.pop();
    set.push(attribute(0x80, 14, &[0, 1, 1, 4, 192, 0, 2, 9, 0, 8, 10]));
    let batch = decode(EXTERNAL.four_octets(), &update(&[], &set, &[]));
    assert_eq!(batch.prefixes, nets(&["10.0.0.0/8"]));
    assert_eq!(batch.runs[0].attributes.as_ref().unwrap().next_hop, Ipv4Addr::new(192, 0, 2, 9));
}

/// Proves RFC 4724 2.
#[test]
fn end_of_rib_of_each_family() {
    for family in Family::ALL {
        let mut out = BytesMut::new();
        end_of_rib(family, &mut out);
        let mut batch = RouteBatch::default();
        let decoded = Decoder::new(EXTERNAL.four_octets()).decode(&out[19..], &mut batch).unwrap();
        assert_eq!((decoded.end_of_rib, batch.runs.len()), (Some(family), 0));
    }
    // A withdrawal of nothing beside an announcement is no marker.
    let mut set = good();
    set.pop();
    set.extend([mp_reach(&["2001:db8::2"]), attribute(0x80, 15, &[0, 2, 1])]);
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(EXTERNAL.four_octets()).decode(&update(&[], &set, &[]), &mut batch).unwrap();
    assert_eq!((decoded.end_of_rib, batch.prefixes.len()), (None, 1));
    let only_v4 = Agreed { families: FamilySet::from_iter([Family::Ipv4Unicast]), ..EXTERNAL.four_octets() };
    let body = update(&[], &[attribute(0x80, 15, &[0, 2, 1])], &[]);
    let decoded = Decoder::new(only_v4).decode(&body, &mut batch).unwrap();
    assert_eq!(decoded.end_of_rib, None, "of a family that was not agreed on");
}

#[test]
fn a_set_that_comes_again_is_not_decoded_again() {
    let mut decoder = Decoder::new(EXTERNAL.four_octets());
    let mut batch = RouteBatch::default();
    let mut v6 = good();
    v6.pop();
    v6.push(mp_reach(&["2001:db8::2"]));
    for _ in 0..2 {
        decoder.decode(&update(&[], &good(), &[8, 10]), &mut batch).unwrap();
        decoder.decode(&update(&[], &v6, &[]), &mut batch).unwrap();
    }
    let sets: Vec<_> = batch.runs.iter().map(|run| run.attributes.clone().unwrap()).collect();
    assert!(Arc::ptr_eq(&sets[0], &sets[2]) && Arc::ptr_eq(&sets[1], &sets[3]));
    assert!(!Arc::ptr_eq(&sets[0], &sets[1]));
    // Another next hop is another set.
    v6.pop();
    v6.push(mp_reach(&["2001:db8::3"]));
    decoder.decode(&update(&[], &v6, &[]), &mut batch).unwrap();
    assert_eq!(batch.runs[4].attributes.as_ref().unwrap().next_hop.to_string(), "2001:db8::3");
}

#[test]
fn runs_of_one_set_become_one() {
    let mut decoder = Decoder::new(EXTERNAL.four_octets());
    let mut batch = RouteBatch::default();
    for octet in 10..20 {
        decoder.decode(&update(&[], &good(), &[8, octet]), &mut batch).unwrap();
    }
    assert_eq!((batch.prefixes.len(), batch.runs.len()), (10, 1));
    assert_eq!(batch.runs[0].range, 0..10);
}

#[test]
fn families_that_were_not_agreed_on_are_ignored() {
    let only_v6 = Agreed { families: FamilySet::from_iter([Family::Ipv6Unicast]), ..EXTERNAL.four_octets() };
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(only_v6).decode(&update(&[8, 11], &good(), &[8, 10]), &mut batch).unwrap();
    assert_eq!((batch.prefixes.len(), decoded.errors.len()), (0, 1));
    let only_v4 = Agreed { families: FamilySet::from_iter([Family::Ipv4Unicast]), ..EXTERNAL.four_octets() };
    let mut set = good();
    set.push(mp_reach(&["2001:db8::2"]));
    set.push(attribute(0x80, 15, &[64, 4, 70, 1, 2, 3]));
    let decoded = Decoder::new(only_v4).decode(&update(&[], &set, &[8, 10]), &mut batch).unwrap();
    assert_eq!((batch.prefixes.len(), decoded.errors.len()), (1, 2));
}

/// RFC 6793 section 4.2.3, from a peer with two-octet numbers.
/// Proves RFC 6793 4.2.3.
#[test]
fn as4_path_is_merged() {
    let sequence = |asns: &[u16]| {
        let octets: Vec<u8> = asns.iter().flat_map(|asn| asn.to_be_bytes()).collect();
        [&[2, u8::try_from(asns.len()).unwrap()][..], &octets].concat()
    };
    let sequence4 = |asns: &[u32]| {
        let octets: Vec<u8> = asns.iter().flat_map(|asn| asn.to_be_bytes()).collect();
        [&[2, u8::try_from(asns.len()).unwrap()][..], &octets].concat()
    };
    let set = Segment { kind: SegmentKind::Set, asns: vec![Asn(5), Asn(6)] };
    let cases: [(Vec<u8>, Vec<u8>, AsPath); 5] = [
        (sequence(&[100, 23456, 300]), sequence4(&[70000, 300]), path([100, 70000, 300])),
        (sequence(&[23456]), sequence4(&[70000]), path([70000])),
        (sequence(&[100]), sequence4(&[70000, 300]), path([100])),
        (
            [sequence(&[100]), vec![1, 2, 0, 5, 0, 6], sequence(&[23456])].concat(),
            sequence4(&[70000]),
            AsPath(vec![path([100]).0.remove(0), set, path([70000]).0.remove(0)]),
        ),
        // A confederation segment has no place in AS4_PATH.
        (sequence(&[100, 23456]), [vec![3, 1, 0, 0, 0, 9], sequence4(&[70000])].concat(), path([100, 70000])),
    ];
    for (as_path, as4_path, expected) in cases {
        let set = [
            attribute(0x40, 1, &[0]),
            attribute(0xc0, 17, &as4_path),
            attribute(0x40, 2, &as_path),
            attribute(0x40, 3, &[192, 0, 2, 2]),
        ];
        let batch = decode(EXTERNAL.two_octets(), &update(&[], &set, &[8, 10]));
        assert_eq!(batch.runs[0].attributes.as_ref().unwrap().as_path, expected);
    }
}

/// Proves RFC 6793 4.2.3.
#[test]
fn as4_aggregator_counts_only_where_aggregator_is_as_trans() {
    for (asn, merged) in [(23456u16, true), (100, false)] {
        let set = [
            attribute(0x40, 1, &[0]),
            attribute(0x40, 2, &[2, 1, 0x5b, 0xa0]),
            attribute(0x40, 3, &[192, 0, 2, 2]),
            attribute(0xc0, 7, &[&asn.to_be_bytes()[..], &[1, 1, 1, 1]].concat()),
            attribute(0xc0, 17, &[2, 1, 0, 1, 0x11, 0x70]),
            attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 2, 2, 2, 2]),
        ];
        let batch = decode(EXTERNAL.two_octets(), &update(&[], &set, &[8, 10]));
        let got = batch.runs[0].attributes.as_ref().unwrap();
        let (expected, as_path) = if merged {
            (Aggregator { asn: Asn(70000), address: Ipv4Addr::new(2, 2, 2, 2) }, path([70000]))
        } else {
            (Aggregator { asn: Asn(100), address: Ipv4Addr::new(1, 1, 1, 1) }, path([23456]))
        };
        assert_eq!((got.aggregator, &got.as_path), (Some(expected), &as_path));
    }
}

/// Proves RFC 4271 5.
#[test]
fn unknown_attributes_are_kept_if_transitive_and_dropped_if_not() {
    let mut set = good();
    set.push(attribute(0xc0, 99, b"kept"));
    set.push(attribute(0x80, 98, b"dropped"));
    set.push(attribute(0xe0, 50, &[]));
    let batch = decode(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    let expected = vec![
        UnknownAttribute { flags: 0xe0, code: 50, value: [].into() },
        UnknownAttribute { flags: 0xc0, code: 99, value: (*b"kept").into() },
    ];
    assert_eq!(batch.runs[0].attributes.as_ref().unwrap().unknown, expected);
}

/// Proves RFC 7606 7, RFC 4456 7, RFC 5065 5.
#[test]
fn what_only_internal_peers_may_say_is_believed_of_them() {
    let mut set = good();
    set.push(attribute(0x40, 5, &[0, 0, 0, 200]));
    set.push(attribute(0x80, 9, &[10, 0, 0, 9]));
    set.push(attribute(0x80, 10, &[1, 1, 1, 1, 2, 2, 2, 2]));
    let batch = decode(INTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    let got = batch.runs[0].attributes.as_ref().unwrap();
    assert_eq!((got.local_pref, got.originator_id), (Some(200), Some(Ipv4Addr::new(10, 0, 0, 9))));
    assert_eq!(got.cluster_list, [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)]);
}
