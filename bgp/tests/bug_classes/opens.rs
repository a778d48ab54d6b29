//! OPEN and its capabilities.

use weft_bgp::session::State;
use weft_bgp::wire::ErrorCode;

use crate::pair::peer_config;
use crate::solo::Solo;

/// Version 4, AS 65002, hold time 90, identifier 10.0.0.2.
const FIXED: [u8; 9] = [4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2];

/// What a session makes of an OPEN with these octets behind the identifier; none: it is content and waits for KEEPALIVE.
fn answer(parameters: &[u8]) -> Option<ErrorCode> {
    let body = [&FIXED[..], parameters].concat();
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    let mut solo = Solo::new(peer_config(65001, 65002));
    let connection = solo.accept();
    solo.bytes(connection, &[&[0xff; 16][..], &length, &[1], &body].concat());
    match solo.ingress.state() {
        State::OpenConfirm => None,
        _ => Some(solo.notification(connection).code),
    }
}

/// The same, of an OPEN with this capability.
fn answer_to_capability(code: u8, length: u8, value: &[u8]) -> Option<ErrorCode> {
    let room = u8::try_from(value.len()).unwrap();
    answer(&[&[room + 4, 2, room + 2, code, length], value].concat())
}

const REFUSED: Option<ErrorCode> = Some(ErrorCode::OPEN_UNSPECIFIC);

/// Bug class 1 (CVE-2022-40302, FRR): extended optional parameters that are longer than the OPEN.
#[test]
fn extended_optional_parameters_are_longer_than_the_open() {
    for parameters in
        [&[255, 255, 0, 9, 2, 0, 2, 2, 0][..], &[255, 255, 255, 255], &[255, 255, 16, 0, 2, 0, 2, 2, 0]]
    {
        assert_eq!(answer(parameters), REFUSED, "{parameters:?}");
    }
}

/// Bug class 2 (CVE-2022-40318, FRR): the header of extended optional parameters, or of one of them, is cut short.
#[test]
fn the_header_of_extended_optional_parameters_is_cut() {
    for parameters in [&[255, 255][..], &[255, 255, 0], &[255, 255, 0, 1, 2], &[255, 255, 0, 2, 2, 0]] {
        assert_eq!(answer(parameters), REFUSED, "{parameters:?}");
    }
}

/// Bug class 3 (CVE-2022-43681, FRR): an OPEN that ends behind the parameters' length, or in front of a parameter's.
#[test]
fn an_open_ends_before_a_length_that_it_needs() {
    for parameters in [&[1][..], &[2], &[1, 2], &[5, 2, 2, 2, 0], &[255]] {
        assert_eq!(answer(parameters), REFUSED, "{parameters:?}");
    }
}

/// Bug class 4 (CVE-2022-36440, e1eb4ba98a, FRR): a four-octet AS capability whose length is not four, or a lie.
#[test]
fn a_four_octet_as_capability_has_a_wrong_length() {
    for length in (0..12).filter(|length| *length != 4) {
        assert_eq!(answer_to_capability(65, length, &vec![0; length.into()]), REFUSED, "{length}");
        assert_eq!(answer_to_capability(65, length, &[0, 0, 0xfd, 0xea]), REFUSED, "{length} for 4");
    }
}

/// Bug class 7 (CVE-2023-31489, FRR): a long-lived graceful restart capability that is no multiple of seven.
#[test]
fn a_long_lived_graceful_restart_capability_has_a_wrong_length() {
    for length in 0..30 {
        let answer = answer_to_capability(71, length, &vec![0xff; length.into()]);
        assert!(answer.is_none_or(|code| code.code == 2), "{length}: {answer:?}");
    }
    assert_eq!(answer_to_capability(71, 14, &[0; 7]), REFUSED);
}

/// Bug class 15 (CVE-2023-41361, FRR; CVE-2025-43971, GoBGP): a software version whose length is a lie.
#[test]
fn a_software_version_is_longer_than_its_capability() {
    for value in [&[200, b'1'][..], &[255], &[2, b'1'], &[0, b'1'], &[]] {
        let length = u8::try_from(value.len()).unwrap();
        assert_eq!(answer_to_capability(75, length, value), None, "{value:?}: of no consequence");
    }
    assert_eq!(answer_to_capability(75, 200, &[199, b'1']), REFUSED);
}

/// Bug class 20 (CVE-2024-31949, FRR): dynamic capabilities over which a parser never gets on.
#[test]
fn dynamic_capabilities_are_passed_over() {
    for code in [66, 67] {
        for value in [&[][..], &[0], &[0; 40], &[0xff; 40]] {
            assert_eq!(answer_to_capability(code, u8::try_from(value.len()).unwrap(), value), None);
        }
    }
}

/// Bug class 37 (CVE-2026-5122, GoBGP): a host or domain name that is longer than its capability.
#[test]
fn a_domain_name_is_longer_than_its_capability() {
    for value in [&[1, b'a', 9, b'b'][..], &[9, b'a'], &[1, b'a'], &[1, b'a', 255], &[0, 0, 7], &[]] {
        let length = u8::try_from(value.len()).unwrap();
        assert_eq!(answer_to_capability(73, length, value), None, "{value:?}: of no consequence");
    }
}

/// Bug class 40 (CVE-2018-5381, Quagga): capabilities without a value, over which a parser never gets on, as many as there is room.
#[test]
fn capabilities_without_a_value_end() {
    for code in [0, 3, 66, 128, 255] {
        let many = [code, 0].repeat(2030);
        let length = u16::try_from(many.len()).unwrap();
        let parameters =
            [&[255, 255][..], &(length + 3).to_be_bytes(), &[2], &length.to_be_bytes(), &many].concat();
        assert_eq!(answer(&parameters), None, "capability {code}");
    }
    let empty = [&[240][..], &[2, 0].repeat(120)].concat();
    assert_eq!(answer(&empty), None, "parameters without a capability");
}

/// Bug class 41 (CVE-2012-1820, Quagga): an outbound route filtering capability that is malformed.
#[test]
fn a_malformed_route_filtering_capability_is_passed_over() {
    for code in [3, 130] {
        for value in [&[][..], &[0, 1, 0, 1], &[0, 1, 0, 1, 255, 64, 3], &[0xff; 60]] {
            assert_eq!(
                answer_to_capability(code, u8::try_from(value.len()).unwrap(), value),
                None,
                "{value:?}"
            );
        }
        assert_eq!(answer_to_capability(code, 60, &[0, 1, 0, 1, 1, 64, 3]), REFUSED);
    }
}

/// Bug class 52 (bgp_aspath_zero, FRR): AS 0 in OPEN.
#[test]
fn an_open_of_as_0_is_refused() {
    assert_eq!(answer_to_capability(65, 4, &[0; 4]), Some(ErrorCode::BAD_PEER_AS));
    let mut solo = Solo::new(peer_config(65001, 65002));
    let connection = solo.accept();
    solo.bytes(connection, &[&[0xff; 16][..], &[0, 29, 1, 4, 0, 0, 0, 90, 10, 0, 0, 2, 0]].concat());
    assert_eq!(solo.notification(connection).code, ErrorCode::BAD_PEER_AS);
}
