//! PathAttributes and prefixes → UPDATEs.

use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net};
use weft_bgp::types::{Asn, Family};
use weft_bgp::wire::attributes::{Aggregator, UnknownAttribute};
use weft_bgp::wire::nlri::PathNlri;
use weft_bgp::wire::update::{AttributeBlock, pack, pack_withdrawn};

use crate::generate::{EXTERNAL, attribute, attributes, good, nets, path, update};
use crate::update::decode;

fn packed(block: &AttributeBlock, prefixes: &[IpNet]) -> BytesMut {
    let mut out = BytesMut::new();
    assert_eq!(pack(block, prefixes, 4096, &mut out), prefixes.len());
    out
}

/// Proves RFC 4271 4.3.
#[test]
fn an_ipv4_update_to_the_octet() {
    let block = AttributeBlock::new(&attributes("192.0.2.2"), Family::Ipv4Unicast, true);
    let expected = [
        &[0xff; 16][..],
        &[0, 48, 2, 0, 0, 0, 20],
        &[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 192, 0, 2, 2],
        &[24, 10, 1, 2, 0],
    ];
    assert_eq!(packed(&block, &nets(&["10.1.2.0/24", "0.0.0.0/0"]))[..], expected.concat());
}

/// Proves RFC 4760 3, RFC 2545 3, RFC 7606 5.1.
#[test]
fn an_ipv6_update_has_mp_reach_first() {
    let mut set = attributes("2001:db8::2");
    set.next_hop_link_local = Some("fe80::2".parse().unwrap());
    let block = AttributeBlock::new(&set, Family::Ipv6Unicast, true);
    let out = packed(&block, &nets(&["2001:db8::/32"]));
    assert_eq!(out[19..31], [0, 0, 0, 59, 0x90, 14, 0, 42, 0, 2, 1, 32]);
    assert_eq!(block.family(), Family::Ipv6Unicast);
    let batch = decode(EXTERNAL.four_octets(), &out[19..]);
    assert_eq!(batch.runs[0].attributes.as_deref(), Some(&set));
}

#[test]
fn withdrawals_to_the_octet() {
    let mut out = BytesMut::new();
    assert_eq!(pack_withdrawn(Family::Ipv4Unicast, &nets(&["10.0.0.0/8"]), 4096, &mut out), 1);
    assert_eq!(out[16..], [0, 25, 2, 0, 2, 8, 10, 0, 0]);
    out.clear();
    assert_eq!(pack_withdrawn(Family::Ipv6Unicast, &nets(&["2001::/16"]), 4096, &mut out), 1);
    assert_eq!(out[16..], [0, 33, 2, 0, 0, 0, 10, 0x90, 15, 0, 6, 0, 2, 1, 16, 0x20, 1]);
}

/// Proves RFC 7911 3.
#[test]
fn path_identifiers_to_the_octet() {
    let paths = |prefixes: &[&str]| -> Vec<PathNlri> {
        let path = |(prefix, path_id)| PathNlri { path_id, prefix };
        nets(prefixes).into_iter().zip([1, 0x0102_0304]).map(path).collect()
    };
    let (v4, v6) = (paths(&["10.1.2.0/24", "10.1.2.0/24"]), paths(&["2001::/16", "::/0"]));
    let mut out = BytesMut::new();
    let block = AttributeBlock::new(&attributes("192.0.2.2"), Family::Ipv4Unicast, true);
    assert_eq!(pack(&block, &v4, 4096, &mut out), 2);
    assert_eq!(out[43..], [0, 0, 0, 1, 24, 10, 1, 2, 1, 2, 3, 4, 24, 10, 1, 2]);
    out.clear();
    let block = AttributeBlock::new(&attributes("2001:db8::2"), Family::Ipv6Unicast, true);
    assert_eq!(pack(&block, &v6, 4096, &mut out), 2);
    let reach = [0x90, 14, 0, 33, 0, 2, 1, 16];
    assert_eq!((&out[23..31], &out[47..60]), (&reach[..], &[0, 0, 0, 0, 1, 16, 0x20, 1, 1, 2, 3, 4, 0][..]));
    out.clear();
    assert_eq!(pack_withdrawn(Family::Ipv4Unicast, &v4[..1], 4096, &mut out), 1);
    assert_eq!(out[16..], [0, 31, 2, 0, 8, 0, 0, 0, 1, 24, 10, 1, 2, 0, 0]);
    out.clear();
    assert_eq!(pack_withdrawn(Family::Ipv6Unicast, &v6[..1], 4096, &mut out), 1);
    assert_eq!(out[16..], [0, 37, 2, 0, 0, 0, 14, 0x90, 15, 0, 10, 0, 2, 1, 0, 0, 0, 1, 16, 0x20, 1]);
}

#[test]
fn messages_are_filled_to_the_limit_and_not_beyond() {
    let prefixes: Vec<IpNet> =
        (0..3000u32).map(|n| Ipv4Net::new((0x0a00_0000 + n).into(), 32).unwrap().into()).collect();
    let block = AttributeBlock::new(&attributes("192.0.2.2"), Family::Ipv4Unicast, true);
    for max in [4096u16, 65535] {
        let mut rest = &prefixes[..];
        let mut total = 0;
        while !rest.is_empty() {
            let mut out = BytesMut::new();
            let count = pack(&block, rest, max, &mut out);
            assert!(out.len() <= max.into());
            assert!(count == rest.len() || out.len() + 5 > max.into(), "one more would have fitted");
            total += decode(EXTERNAL.four_octets(), &out[19..]).prefixes.len();
            rest = &rest[count..];
        }
        assert_eq!(total, prefixes.len());
    }
}

#[test]
fn what_does_not_fit_is_reported() {
    let mut set = attributes("192.0.2.2");
    set.communities = (0..1100).collect();
    let prefixes = nets(&["10.0.0.0/8"]);
    let mut out = BytesMut::new();
    let block = AttributeBlock::new(&set, Family::Ipv4Unicast, true);
    assert_eq!(pack(&block, &prefixes, 4096, &mut out), 0);
    assert_eq!(pack(&block, &prefixes, 65535, &mut out), 1);
    out.clear();
    // No attribute has more than 65535 octets.
    set.communities = (0..20_000).collect();
    let block = AttributeBlock::new(&set, Family::Ipv4Unicast, true);
    assert_eq!((pack(&block, &prefixes, 65535, &mut out), out.len()), (0, 0));
    let v6 = nets(&["2001:db8::/32"]);
    let block = AttributeBlock::new(&attributes("192.0.2.2"), Family::Ipv4Unicast, true);
    assert_eq!((pack(&block, &v6, 4096, &mut out), pack(&block, &nets(&[]), 4096, &mut out)), (0, 0));
    assert_eq!(pack_withdrawn(Family::Ipv4Unicast, &v6, 4096, &mut out), 0);
    assert_eq!(out.len(), 0);
}

/// CVE-2025-20115, CVE-2017-16227 and their kind: a path whose segment is full, and one more AS in front.
/// Proves RFC 4271 4.3.
#[test]
fn paths_of_more_than_255_are_split_and_come_back_whole() {
    for length in [254, 255, 256, 510, 511, 900] {
        for four_octets in [true, false] {
            let mut set = attributes("192.0.2.2");
            set.as_path = path(1..=length);
            set.as_path.prepend(Asn(4_200_000_000));
            let block = AttributeBlock::new(&set, Family::Ipv4Unicast, four_octets);
            let mut out = BytesMut::new();
            assert_eq!(pack(&block, &nets(&["10.0.0.0/8"]), 65535, &mut out), 1);
            let agreed = if four_octets { EXTERNAL.four_octets() } else { EXTERNAL.two_octets() };
            let batch = decode(agreed, &out[19..]);
            assert_eq!(batch.runs[0].attributes.as_ref().unwrap().as_path, set.as_path);
        }
    }
}

/// Proves RFC 6793 4.2.2.
#[test]
fn a_two_octet_peer_gets_as_trans_and_the_as4_attributes() {
    let mut set = attributes("192.0.2.2");
    set.as_path = path([4_200_000_000, 65002]);
    set.aggregator = Some(Aggregator { asn: Asn(4_200_000_001), address: "1.1.1.1".parse().unwrap() });
    let out = packed(&AttributeBlock::new(&set, Family::Ipv4Unicast, false), &nets(&["10.0.0.0/8"]));
    let has = |bytes: &[u8]| out.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&[0x40, 2, 6, 2, 2, 0x5b, 0xa0, 0xfd, 0xea]), "AS_TRANS in AS_PATH");
    assert!(has(&[0xc0, 7, 6, 0x5b, 0xa0, 1, 1, 1, 1]), "AS_TRANS in AGGREGATOR");
    assert!(has(&[0xc0, 17, 10, 2, 2]) && has(&[0xc0, 18, 8]));
    let batch = decode(EXTERNAL.two_octets(), &out[19..]);
    assert_eq!(batch.runs[0].attributes.as_deref(), Some(&set));
    // Where every number fits there is nothing to add.
    set.as_path = path([65001, 65002]);
    set.aggregator = None;
    let out = packed(&AttributeBlock::new(&set, Family::Ipv4Unicast, false), &nets(&["10.0.0.0/8"]));
    assert!(!out.windows(2).any(|window| window == [0xc0, 17]));
}

/// Whoever passes them on sets the partial bit; here they stay as they are.
/// Bug class 42 (CVE-2010-3035, IOS XR): the same, written again.
/// Proves RFC 4271 5.
#[test]
fn unknown_attributes_are_written_with_the_partial_bit_that_they_have() {
    let mut set = attributes("192.0.2.2");
    let value: Box<[u8]> = (0..3900_u16).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for flags in [0xc0, 0xe0] {
        set.unknown = vec![UnknownAttribute { flags, code: 99, value: value.clone() }];
        let out = packed(&AttributeBlock::new(&set, Family::Ipv4Unicast, true), &nets(&["10.0.0.0/8"]));
        assert!(out.windows(4).any(|window| window == [flags | 0x10, 99, 15, 60]));
        let batch = decode(EXTERNAL.four_octets(), &out[19..]);
        let passed = &batch.runs[0].attributes.as_ref().unwrap().unknown[0];
        assert_eq!((passed.flags, &passed.value), (flags, &value));
    }
}

/// That somebody on the way did not know them stays true.
/// Proves RFC 4271 5.
#[test]
fn known_attributes_are_written_with_the_partial_bit_that_they_have() {
    let known: [(u8, &[u8]); 5] = [
        (7, &[0, 0, 0xfd, 0xe9, 192, 0, 2, 9]),
        (8, &[0; 4]),
        (16, &[0; 8]),
        (32, &[0; 12]),
        (35, &[0, 0, 0, 9]),
    ];
    for partial in 0..=known.len() {
        let flags = |n| if n == partial { 0xe0 } else { 0xc0 };
        let set = known.iter().enumerate().map(|(n, (code, value))| attribute(flags(n), *code, value));
        let set: Vec<Vec<u8>> = good().into_iter().chain(set).collect();
        let batch = decode(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
        let told = batch.runs[0].attributes.as_ref().unwrap();
        let out = packed(&AttributeBlock::new(told, Family::Ipv4Unicast, true), &nets(&["10.0.0.0/8"]));
        assert_eq!(out[23..], [set.concat(), vec![8, 10]].concat());
    }
}
