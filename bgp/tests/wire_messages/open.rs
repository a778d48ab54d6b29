//! OPEN and the small messages, byte by byte.

use std::net::Ipv4Addr;

use bytes::Bytes;
use weft_bgp::types::Asn;
use weft_bgp::wire::capability::{AfiSafi, Capability, NextHopEncoding};
use weft_bgp::wire::header::{Header, MESSAGE_MAX, MessageType};
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;
use weft_bgp::wire::route_refresh::RouteRefresh;
use weft_bgp::wire::{ErrorCode, Message, Severity};

/// Version 4, AS 65002, hold time 90, identifier 10.0.0.2.
const FIXED: [u8; 9] = [4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2];

fn decode(parameters: &[u8]) -> Result<Open, ErrorCode> {
    Open::decode(&[&FIXED[..], parameters].concat()).map_err(|error| {
        assert_eq!(error.severity, Severity::SessionReset);
        error.code
    })
}

/// Proves RFC 4271 4.2, RFC 5492, RFC 4760, RFC 6793.
#[test]
fn an_open_is_read_and_written_to_the_octet() {
    let parameters = [16, 2, 14, 1, 4, 0, 2, 0, 1, 65, 4, 0xfa, 0x56, 0xea, 0x02, 2, 0];
    let expected = Open {
        my_as: 65002,
        hold_time: 90,
        bgp_identifier: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: vec![
            Capability::Multiprotocol(AfiSafi { afi: 2, safi: 1 }),
            Capability::FourOctetAs(Asn(4_200_000_002)),
            Capability::RouteRefresh,
        ],
    };
    assert_eq!(decode(&parameters), Ok(expected.clone()));
    assert_eq!(expected.asn(), Asn(4_200_000_002));
    let written = Message::Open(expected).encode();
    assert_eq!(written[..19], [&[0xff; 16][..], &[0, 45, 1]].concat());
    assert_eq!(written[19..], [&FIXED[..], &parameters].concat());
}

/// RFC 8950 section 4: AFI, SAFI and the next hop's AFI, two octets each.
/// Proves RFC 8950 3.
#[test]
fn extended_next_hop_encoding_is_read_and_written_to_the_octet() {
    let parameters = [10, 2, 8, 5, 6, 0, 1, 0, 1, 0, 2];
    let open = decode(&parameters).unwrap();
    assert_eq!(open.capabilities, [Capability::ExtendedNextHop(vec![NextHopEncoding::IPV4_OVER_IPV6])]);
    assert_eq!(Message::Open(open).encode()[28..], parameters);
}

#[test]
fn capabilities_may_be_spread_over_parameters_and_be_unknown() {
    let open = decode(&[10, 2, 2, 2, 0, 2, 4, 199, 2, 7, 8]).unwrap();
    let unknown = Capability::Unknown { code: 199, value: Bytes::from_static(&[7, 8]) };
    assert_eq!(open.capabilities, [Capability::RouteRefresh, unknown]);
}

/// RFC 9072: lengths of two octets, whatever the first length says, as long as it is not zero.
/// Proves RFC 9072 2.
#[test]
fn extended_optional_parameters_are_read() {
    for length in [255, 1, 9] {
        let open = decode(&[length, 255, 0, 5, 2, 0, 2, 2, 0]).unwrap();
        assert_eq!(open.capabilities, [Capability::RouteRefresh]);
    }
    assert_eq!(decode(&[0, 255, 0, 5, 2, 0, 2, 2, 0]), Err(ErrorCode::OPEN_UNSPECIFIC));
}

/// Proves RFC 9072 2.
#[test]
fn many_capabilities_are_written_extended() {
    let capability = Capability::Unknown { code: 199, value: Bytes::from(vec![1; 100]) };
    let open = Open {
        my_as: 1,
        hold_time: 0,
        bgp_identifier: Ipv4Addr::LOCALHOST,
        capabilities: vec![capability; 3],
    };
    let written = Message::Open(open.clone()).encode();
    assert_eq!(written[28..35], [255, 255, 1, 53, 2, 1, 50]);
    assert_eq!(Open::decode(&written[19..]), Ok(open));
}

/// CVE-2022-40302, 2022-40318, 2022-43681, 2022-36440, 2024-31949 and their kind: lengths in OPEN that lie.
/// Proves RFC 4271 6.2, RFC 5492, RFC 9072.
#[test]
fn lengths_that_lie_are_refused() {
    let lies: [&[u8]; 14] = [
        &[],
        &[1],
        &[1, 2],
        &[2, 2, 1],
        &[3, 2, 2, 2],
        &[4, 2, 2, 2],
        &[4, 2, 2, 2, 9],
        &[5, 2, 2, 2, 0],
        &[255, 255],
        &[255, 255, 0],
        &[255, 255, 0, 5, 2, 0],
        &[255, 255, 0, 1, 2],
        &[255, 255, 255, 255, 2, 0, 0],
        &[8, 2, 6, 1, 5, 0, 1, 0, 1],
    ];
    for parameters in lies {
        assert_eq!(decode(parameters), Err(ErrorCode::OPEN_UNSPECIFIC), "{parameters:?}");
    }
    // A capability whose code says how long it is.
    for (code, length) in [
        (1, 3),
        (1, 5),
        (2, 1),
        (5, 4),
        (5, 7),
        (6, 1),
        (64, 1),
        (64, 3),
        (64, 7),
        (65, 2),
        (65, 5),
        (69, 3),
        (69, 5),
        (70, 1),
    ] {
        let capability = [&[code, length][..], &vec![0; length.into()]].concat();
        let parameters = [&[length + 4, 2, length + 2][..], &capability].concat();
        assert_eq!(decode(&parameters), Err(ErrorCode::OPEN_UNSPECIFIC), "capability {code} of {length}");
    }
}

/// CVE-2026-5122, CVE-2023-41361, CVE-2023-31489: lengths inside capabilities that can be done without.
#[test]
fn capabilities_that_do_not_matter_are_kept_as_bytes_when_malformed() {
    for (code, value) in [(73, &[9, b'a'][..]), (75, &[200, 1]), (71, &[1, 2, 3]), (73, &[1, 0xff, 0])] {
        let length = u8::try_from(value.len()).unwrap();
        let parameters = [&[length + 4, 2, length + 2, code, length][..], value].concat();
        let open = decode(&parameters).unwrap();
        let kept = Capability::Unknown { code, value: Bytes::copy_from_slice(value) };
        assert_eq!(open.capabilities, [kept]);
    }
}

/// A host's name may take all the room there is; what does not fit is cut between characters.
#[test]
fn long_names_come_back_whole_as_far_as_they_fit() {
    let come_back = |host: &str, domain: &str| {
        let fqdn = Capability::Fqdn { host: host.into(), domain: domain.into() };
        let open =
            Open { my_as: 1, hold_time: 0, bgp_identifier: Ipv4Addr::LOCALHOST, capabilities: vec![fqdn] };
        match Open::decode(&Message::Open(open).encode()[19..]).unwrap().capabilities.remove(0) {
            Capability::Fqdn { host, domain } => (host, domain),
            other => panic!("{other:?}"),
        }
    };
    for (host, domain) in [(253, 0), (0, 253), (200, 53), (126, 127)] {
        let names = ("h".repeat(host), "d".repeat(domain));
        assert_eq!(come_back(&names.0, &names.1), names);
    }
    assert_eq!(come_back(&"ß".repeat(200), "d"), ("ß".repeat(126), "d".to_owned()));
    assert_eq!(come_back(&"h".repeat(300), "d"), ("h".repeat(253), String::new()));
}

/// Proves RFC 4271 6.2.
#[test]
fn other_versions_and_parameters_are_refused() {
    let error = Open::decode(&[3, 0xfd]).unwrap_err();
    assert_eq!((error.code, &error.data[..]), (ErrorCode::UNSUPPORTED_VERSION_NUMBER, &[0, 4][..]));
    assert_eq!(decode(&[3, 1, 1, 0]), Err(ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER));
}

#[test]
fn an_open_cut_anywhere_is_refused() {
    let whole = [&FIXED[..], &[4, 2, 2, 2, 0]].concat();
    for end in 0..whole.len() {
        assert!(Open::decode(&whole[..end]).is_err(), "cut to {end} octets");
    }
}

/// Proves RFC 4271 4.4, RFC 2918 3, RFC 4271 4.5.
#[test]
fn the_small_messages_to_the_octet() {
    let marker = [0xff; 16];
    assert_eq!(Message::Keepalive.encode()[..], [&marker[..], &[0, 19, 4]].concat());
    let refresh = RouteRefresh { family: AfiSafi { afi: 2, safi: 1 }, subtype: 0 };
    assert_eq!(Message::RouteRefresh(refresh).encode()[..], [&marker[..], &[0, 23, 5, 0, 2, 0, 1]].concat());
    let cease = Notification::cease(2, "bye");
    assert_eq!(
        Message::Notification(cease).encode()[..],
        [&marker[..], &[0, 25, 3, 6, 2, 3], b"bye"].concat()
    );
    assert_eq!(Notification::cease(3, "bye").data.len(), 0, "only two subcodes carry a text");
    let long = Notification::cease(4, &"ß".repeat(200));
    assert_eq!(long.data[0], 254, "whole characters");
    assert_eq!(long.text().unwrap(), "ß".repeat(127));
}

/// Proves RFC 4271 6.1.
#[test]
fn a_header_of_each_type_has_its_lengths() {
    let decode = |length: u16, kind: u8, max| {
        let mut header = [0xff; 19];
        header[16..18].copy_from_slice(&length.to_be_bytes());
        header[18] = kind;
        Header::decode(&header, max)
    };
    for (kind, lengths) in [(1, 29..=4096), (2, 23..=4096), (3, 21..=4096), (4, 19..=19), (5, 19..=4096)] {
        for length in [18, 19, 20, 21, 22, 23, 28, 29, 4096, 4097] {
            let good = decode(length, kind, MESSAGE_MAX).is_ok();
            assert_eq!(good, lengths.contains(&length), "type {kind}, length {length}");
        }
    }
    let update = Header { length: 65535, kind: MessageType::Update };
    assert_eq!(decode(65535, 2, u16::MAX), Ok(update));
    assert!(decode(4097, 1, u16::MAX).is_err(), "OPEN never grows (RFC 8654)");
}
