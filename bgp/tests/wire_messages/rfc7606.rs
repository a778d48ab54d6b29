//! UPDATEs that are wrong, and what RFC 7606 and RFC 4271 section 6.3 make of each.

use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::Family;
use weft_bgp::wire::error::{ErrorCode, Severity, WireError};
use weft_bgp::wire::update::{Agreed, Decoder};

use crate::generate::{EXTERNAL, INTERNAL, attribute, good, nets, update};

/// The errors of an UPDATE, and what is left of it.
fn errors(agreed: Agreed, body: &[u8]) -> (Vec<WireError>, RouteBatch) {
    let mut batch = RouteBatch::default();
    match Decoder::new(agreed).decode(body, &mut batch) {
        Ok(decoded) => (decoded.errors, batch),
        Err(error) => {
            assert_eq!((error.severity, batch.prefixes.len()), (Severity::SessionReset, 0));
            (vec![error], batch)
        }
    }
}

/// The only error of an UPDATE for 10.0.0.0/8; checks that its routes are as the severity says.
fn error(agreed: Agreed, attributes: &[Vec<u8>]) -> WireError {
    let (mut errors, batch) = errors(agreed, &update(&[], attributes, &[8, 10]));
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = errors.remove(0);
    let announced = batch.runs.iter().filter(|run| run.attributes.is_some()).count();
    match error.severity {
        Severity::Discard => assert_eq!((announced, batch.runs.len()), (1, 1), "{error}"),
        Severity::TreatAsWithdraw => {
            assert_eq!((announced, batch.prefixes), (0, nets(&["10.0.0.0/8"])), "{error}");
        }
        Severity::SessionReset => assert_eq!(batch.runs.len(), 0, "{error}"),
    }
    error
}

/// The good set, with one attribute in place of that of its type, or in addition.
fn with(attribute: Vec<u8>) -> Vec<Vec<u8>> {
    let mut set = good();
    set.retain(|other| other[1] != attribute[1]);
    set.push(attribute);
    set
}

/// With whom, flags, code, value; severity and error code that the attribute calls for.
type Case<'a> = (Agreed, u8, u8, &'a [u8], Severity, ErrorCode);

/// Every malformed attribute by itself.
/// Proves RFC 7606 7.
#[test]
fn every_attribute_malformed_has_its_severity_and_code() {
    use ErrorCode as E;
    use Severity::{Discard, TreatAsWithdraw as Withdraw};
    let (ext, int) = (EXTERNAL.four_octets(), INTERNAL.four_octets());
    let old = EXTERNAL.two_octets();
    let cases: &[Case<'_>] = &[
        // 7.1 ORIGIN
        (ext, 0x40, 1, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0x40, 1, &[0, 0], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0x40, 1, &[3], Withdraw, E::INVALID_ORIGIN_ATTRIBUTE),
        // 7.2 AS_PATH: unknown segment, overrun, underrun, empty segment; AS 0 (RFC 7607); confederations from outside
        (ext, 0x40, 2, &[5, 1, 0, 0, 0, 1], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[2, 2, 0, 0, 0, 1], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[2, 1, 0, 0, 0, 1, 2], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[2, 0], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[2, 1, 0, 0, 0, 0], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[3, 1, 0, 0, 0, 1], Withdraw, E::MALFORMED_AS_PATH),
        (ext, 0x40, 2, &[4, 1, 0, 0, 0, 1], Withdraw, E::MALFORMED_AS_PATH),
        // 7.3 NEXT_HOP
        (ext, 0x40, 3, &[192, 0, 2], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0x40, 3, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.4 MULTI_EXIT_DISC
        (ext, 0x80, 4, &[0; 3], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.5 LOCAL_PREF
        (ext, 0x40, 5, &[0; 4], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        (int, 0x40, 5, &[0; 5], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.6 ATOMIC_AGGREGATE
        (ext, 0x40, 6, &[1], Discard, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.7 AGGREGATOR, of eight octets or of six
        (ext, 0xc0, 7, &[1; 6], Discard, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 7, &[1; 9], Discard, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        // 7.8 COMMUNITIES
        (ext, 0xc0, 8, &[0; 5], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 8, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.9 ORIGINATOR_ID
        (ext, 0x80, 9, &[1; 4], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        (int, 0x80, 9, &[1; 3], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.10 CLUSTER_LIST
        (ext, 0x80, 10, &[1; 4], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        (int, 0x80, 10, &[1; 6], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (int, 0x80, 10, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // 7.14 EXTENDED COMMUNITIES; RFC 8092 LARGE_COMMUNITY
        (ext, 0xc0, 16, &[0; 7], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 16, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 32, &[0; 11], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 32, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        // RFC 9234 section 5 ONLY_TO_CUSTOMER
        (ext, 0xc0, 35, &[0; 3], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (int, 0xc0, 35, &[0; 5], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0xc0, 35, &[], Withdraw, E::ATTRIBUTE_LENGTH_ERROR),
        (ext, 0x80, 35, &[0; 4], Withdraw, E::ATTRIBUTE_FLAGS_ERROR),
        // RFC 6793 section 3: from a four-octet speaker; section 6: malformed
        (ext, 0xc0, 17, &[2, 1, 0, 0, 0, 1], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        (ext, 0xc0, 18, &[1; 8], Discard, E::OPTIONAL_ATTRIBUTE_ERROR),
        (old, 0xc0, 18, &[1; 6], Discard, E::ATTRIBUTE_LENGTH_ERROR),
    ];
    for (agreed, flags, code, value, severity, error_code) in cases {
        let bad = attribute(*flags, *code, value);
        let mut set = with(bad.clone());
        if !agreed.four_octet_as {
            set[1] = attribute(0x40, 2, &[2, 1, 0xfd, 0xea]);
        }
        let error = error(*agreed, &set);
        assert_eq!((error.severity, error.code), (*severity, *error_code), "type {code}, value {value:?}");
        assert_eq!(error.data, bad, "the data is the attribute");
    }
}

/// Bug class 33 (CVE-2026-41643, GoBGP): an AS4_PATH that is malformed, and in front of AS_PATH.
/// Proves RFC 6793 6.
#[test]
fn a_malformed_as4_path_before_as_path_is_discarded() {
    for value in [&[2, 9, 0, 0, 0, 1][..], &[9, 1, 0, 0, 0, 1], &[2, 1, 0, 0, 0, 0], &[2]] {
        let set = [
            attribute(0xc0, 17, value),
            attribute(0x40, 1, &[0]),
            attribute(0x40, 2, &[2, 1, 0xfd, 0xea]),
            attribute(0x40, 3, &[192, 0, 2, 2]),
        ];
        let error = error(EXTERNAL.two_octets(), &set);
        assert_eq!((error.severity, error.code), (Severity::Discard, ErrorCode::OPTIONAL_ATTRIBUTE_ERROR));
    }
}

/// Section 3 c.
/// Proves RFC 7606 3.
#[test]
fn wrong_optional_or_transitive_bits_are_treated_as_withdraw() {
    for (flags, code, value) in [
        (0xc0, 1, &[0][..]),
        (0x00, 1, &[0]),
        (0xc0, 2, &[2, 1, 0, 0, 0xfd, 0xea]),
        (0xc0, 3, &[192, 0, 2, 2]),
        (0xc0, 4, &[0; 4]),
        (0xc0, 6, &[]),
        (0x40, 7, &[1; 8]),
        (0x80, 8, &[0; 4]),
        (0x40, 32, &[0; 12]),
    ] {
        let error = error(EXTERNAL.four_octets(), &with(attribute(flags, code, value)));
        let expected = (Severity::TreatAsWithdraw, ErrorCode::ATTRIBUTE_FLAGS_ERROR);
        assert_eq!((error.severity, error.code), expected, "flags {flags:#x} of type {code}");
    }
}

#[test]
fn unused_flag_bits_and_the_partial_bit_do_no_harm() {
    let mut set = good();
    set[0][0] = 0x4f;
    set[0].splice(2..3, []);
    set[0] = vec![0x5f, 1, 0, 1, 0];
    set.push(attribute(0xe0, 8, &[0; 4]));
    let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    assert_eq!(errors, []);
    assert!(batch.runs[0].attributes.is_some());
}

/// Section 3 d.
/// Bug class 13 (CVE-2023-41358, FRR): NLRI without any attribute.
/// Proves RFC 7606 3.
#[test]
fn missing_mandatory_attributes_are_treated_as_withdraw() {
    for (index, code) in [(0, 1), (1, 2), (2, 3)] {
        let mut set = good();
        set.remove(index);
        let error = error(EXTERNAL.four_octets(), &set);
        assert_eq!(error.severity, Severity::TreatAsWithdraw);
        assert_eq!((error.code, &error.data[..]), (ErrorCode::MISSING_WELL_KNOWN_ATTRIBUTE, &[code][..]));
    }
    let (all, batch) = errors(EXTERNAL.four_octets(), &update(&[], &[], &[8, 10]));
    assert_eq!(all.len(), 3, "CVE-2023-41358: NLRI without attributes");
    assert!(batch.runs.iter().all(|run| run.attributes.is_none()));
}

/// CVE-2023-46753: nothing but an unknown transitive attribute, and no prefix.
#[test]
fn attributes_without_prefixes_are_no_error() {
    for set in [vec![attribute(0xc0, 99, b"x")], good()] {
        let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[]));
        assert_eq!((errors, batch.prefixes.len()), (vec![], 0));
    }
}

/// Section 5.2: what should be withdrawn may have been lost to the error.
/// Proves RFC 7606 5.2.
#[test]
fn a_malformed_attribute_without_any_prefix_resets() {
    let bad = attribute(0x40, 1, &[9]);
    for withdrawn in [&[][..], &[8, 10]] {
        let (errors, _) = errors(EXTERNAL.four_octets(), &update(withdrawn, std::slice::from_ref(&bad), &[]));
        assert_eq!(errors[0].severity, Severity::SessionReset);
    }
    // An MP_REACH_NLRI that has a next hop and no prefix.
    let reach = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &[0x20; 16], &[0]].concat());
    let (list, _) = errors(EXTERNAL.four_octets(), &update(&[], &[bad, reach], &[]));
    assert_eq!(list[0].severity, Severity::SessionReset);
    let discarded = attribute(0x40, 6, &[1]);
    let (errors, _) = errors(EXTERNAL.four_octets(), &update(&[], &[discarded], &[]));
    assert_eq!(errors[0].severity, Severity::Discard);
}

/// Section 3 g.
/// Bug class 49 (4446353561, FRR): an attribute that occurs twice.
/// Proves RFC 7606 3.
#[test]
fn of_an_attribute_that_occurs_twice_the_first_counts() {
    for (again, first_med) in [(attribute(0x80, 4, &[0, 0, 0, 2]), 1), (attribute(0x80, 4, &[9]), 1)] {
        let mut set = good();
        set.push(attribute(0x80, 4, &[0, 0, 0, 1]));
        set.push(again);
        let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
        assert_eq!((errors.len(), errors[0].severity), (1, Severity::Discard));
        assert_eq!(batch.runs[0].attributes.as_ref().unwrap().med, Some(first_med));
    }
    let mut set = good();
    set.extend([attribute(0xc0, 99, b"first"), attribute(0xc0, 99, b"second")]);
    let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    assert_eq!(errors.len(), 1);
    let unknown = &batch.runs[0].attributes.as_ref().unwrap().unknown;
    assert_eq!((unknown.len(), &*unknown[0].value), (1, &b"first"[..]));
}

/// Bug class 49 (4446353561, FRR): MP_REACH_NLRI or MP_UNREACH_NLRI that occurs twice.
/// Proves RFC 7606 3.
#[test]
fn a_second_mp_reach_or_mp_unreach_resets() {
    let reach = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &[0x20; 16], &[0]].concat());
    for twice in [reach, attribute(0x80, 15, &[0, 2, 1])] {
        let mut set = good();
        set.extend([twice.clone(), twice]);
        let error = error(EXTERNAL.four_octets(), &set);
        assert_eq!(
            (error.severity, error.code),
            (Severity::SessionReset, ErrorCode::MALFORMED_ATTRIBUTE_LIST)
        );
    }
}

/// Section 4: the last attribute is longer than the field, or less than a header is left.
/// Proves RFC 7606 4.
#[test]
fn an_attribute_overrun_is_treated_as_withdraw_when_the_prefixes_are_there() {
    for tail in [&[0x40][..], &[0xc0, 99], &[0xd0, 99, 0], &[0xc0, 99, 5, 1], &[0xd0, 99, 255, 255, 0]] {
        let mut set = good();
        set.push(tail.to_vec());
        let error = error(EXTERNAL.four_octets(), &set);
        let expected = (Severity::TreatAsWithdraw, ErrorCode::MALFORMED_ATTRIBUTE_LIST);
        assert_eq!((error.severity, error.code), expected, "{tail:?}");
        // Nothing to withdraw: MP_REACH_NLRI may be behind it.
        let (errors, _) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[]));
        assert_eq!(errors[0].severity, Severity::SessionReset);
    }
}

/// Bug class 36 (CVE-2026-37462, GoBGP): fields of an UPDATE that are longer than the message.
#[test]
fn fields_longer_than_the_message_reset() {
    for body in
        [&[][..], &[0], &[0, 5, 8, 10], &[0, 0, 0], &[0, 0, 0, 1], &[255, 255, 0, 0], &[0, 0, 255, 255]]
    {
        let (errors, _) = errors(EXTERNAL.four_octets(), body);
        let expected = (Severity::SessionReset, ErrorCode::MALFORMED_ATTRIBUTE_LIST);
        assert_eq!((errors[0].severity, errors[0].code), expected, "{body:?}");
    }
}

/// Proves RFC 7606 5.3.
#[test]
fn prefixes_that_cannot_be_parsed_reset() {
    for field in [&[33, 1, 2, 3, 4, 5][..], &[255], &[24, 1, 2], &[8], &[8, 10, 9]] {
        for body in [update(field, &[], &[]), update(&[], &good(), field)] {
            let (errors, _) = errors(EXTERNAL.four_octets(), &body);
            let expected = (Severity::SessionReset, ErrorCode::INVALID_NETWORK_FIELD);
            assert_eq!((errors[0].severity, errors[0].code), expected, "{field:?}");
        }
    }
}

/// The same behind path identifiers, of either family; what has none where they were agreed on cannot be told from that.
/// Proves RFC 7606 5.3, RFC 7911 3.
#[test]
fn prefixes_with_path_identifiers_that_cannot_be_parsed_reset() {
    let id = [0, 0, 0, 9];
    let identified = |rest: &[u8]| [&id[..], rest].concat();
    for field in [
        identified(&[]),
        identified(&[33, 1, 2, 3, 4, 5]),
        identified(&[24, 1, 2]),
        vec![0, 0, 0],
        vec![8, 10],
    ] {
        for body in [update(&field, &[], &[]), update(&[], &good(), &field)] {
            let (errors, _) = errors(EXTERNAL.add_path(), &body);
            let expected = (Severity::SessionReset, ErrorCode::INVALID_NETWORK_FIELD);
            assert_eq!((errors[0].severity, errors[0].code), expected, "{field:?}");
        }
    }
    for field in [identified(&[]), identified(&[129, 0x20, 1]), identified(&[24, 0x20, 1]), vec![0, 0, 0]] {
        let reach = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &[0x20; 16], &[0], &field].concat());
        let unreach = attribute(0x80, 15, &[&[0, 2, 1][..], &field].concat());
        for set in [[good(), vec![reach]].concat(), vec![unreach]] {
            let (errors, _) = errors(EXTERNAL.add_path(), &update(&[], &set, &[]));
            let expected = (Severity::SessionReset, ErrorCode::OPTIONAL_ATTRIBUTE_ERROR);
            assert_eq!((errors[0].severity, errors[0].code), expected, "{field:?}");
        }
    }
}

/// Where one family has path identifiers, the other's prefixes count as path 0.
#[test]
fn each_family_has_path_identifiers_of_its_own() {
    let only_v6 = [Family::Ipv6Unicast].into_iter().collect();
    let agreed = Agreed { add_path: only_v6, ..EXTERNAL.four_octets() };
    let mut set = good();
    set.push(attribute(0x80, 15, &[0, 2, 1, 0, 0, 0, 7, 16, 0x20, 1]));
    let (errors, batch) = errors(agreed, &update(&[8, 11], &set, &[8, 10]));
    assert_eq!(errors, []);
    assert_eq!(batch.prefixes, nets(&["11.0.0.0/8", "2001::/16", "10.0.0.0/8"]));
    assert_eq!(batch.path_ids, [0, 7, 0]);
}

/// Sections 5.3, 7.11 and 7.12; CVE-2023-46752.
#[test]
fn malformed_multiprotocol_attributes_reset() {
    let reach = |head: &[u8], rest: &[u8]| attribute(0x80, 14, &[head, &[0x20; 16], rest].concat());
    let cases = [
        (attribute(0x80, 14, &[]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 14, &[0, 2, 1]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 14, &[0, 2, 1, 0]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 14, &[0, 2, 1, 0, 0]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 14, &[0, 2, 1, 4, 1, 2, 3, 4, 0]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (
            attribute(0x80, 14, &[0, 2, 1, 24].iter().copied().chain([0; 25]).collect::<Vec<_>>()),
            ErrorCode::OPTIONAL_ATTRIBUTE_ERROR,
        ),
        // An IPv6 next hop for IPv4 has not been agreed on (RFC 8950).
        (reach(&[0, 1, 1, 16], &[0, 8, 10]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        // The next hop is longer than the attribute.
        (reach(&[0, 2, 1, 32], &[]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (reach(&[0, 2, 1, 16], &[]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (reach(&[0, 2, 1, 16], &[0, 129, 1]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (reach(&[0, 2, 1, 16], &[0, 64, 1]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 15, &[0, 2]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        (attribute(0x80, 15, &[0, 2, 1, 16, 1]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
        // Wrong flags may be lived with, an attribute that cannot be read may not.
        (attribute(0x40, 14, &[0, 2, 1, 0]), ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
    ];
    for (bad, code) in cases {
        let error = error(EXTERNAL.four_octets(), &with(bad.clone()));
        assert_eq!((error.severity, error.code), (Severity::SessionReset, code), "{bad:?}");
        assert_eq!(error.data, bad);
    }
}

/// RFC 8950 section 3 lets a next hop of IPv4 prefixes have 4, 16 or 32 octets, once that is agreed on.
#[test]
fn next_hops_of_other_lengths_reset_with_extended_next_hops_too() {
    let agreed = EXTERNAL.extended_next_hop();
    for (family, length) in [(1, 0), (1, 5), (1, 15), (1, 17), (1, 24), (1, 31), (1, 33), (2, 4), (2, 24)] {
        let head = [0, family, 1, length];
        let bad = attribute(0x80, 14, &[&head[..], &vec![0x20; length.into()], &[0, 8, 10]].concat());
        let error = error(agreed, &with(bad.clone()));
        let expected = (Severity::SessionReset, ErrorCode::OPTIONAL_ATTRIBUTE_ERROR);
        assert_eq!((error.severity, error.code), expected, "{length} octets");
        assert_eq!(error.data, bad);
    }
}

/// CVE-2023-47234: MP_UNREACH_NLRI and NLRI, but no mandatory attribute.
#[test]
fn mp_unreach_beside_nlri_without_attributes_is_treated_as_withdraw() {
    let unreach = attribute(0x80, 15, &[0, 2, 1, 16, 0x20, 1]);
    let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &[unreach], &[8, 10]));
    assert!(errors.iter().all(|error| error.severity == Severity::TreatAsWithdraw));
    assert_eq!(batch.prefixes, nets(&["2001::/16", "10.0.0.0/8"]));
    assert!(batch.runs.iter().all(|run| run.attributes.is_none()));
    assert!(batch.runs.iter().all(|run| {
        let families = batch.prefixes[run.range.clone()].iter().map(Family::of);
        families.collect::<std::collections::BTreeSet<_>>().len() == 1
    }));
}

#[test]
fn next_hops_that_are_no_hosts_are_treated_as_withdraw() {
    for hop in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], [240, 0, 0, 1]] {
        let error = error(EXTERNAL.four_octets(), &with(attribute(0x40, 3, &hop)));
        let expected = (Severity::TreatAsWithdraw, ErrorCode::INVALID_NEXT_HOP_ATTRIBUTE);
        assert_eq!((error.severity, error.code), expected, "{hop:?}");
    }
    for first in [0, 0xff] {
        let mut value = vec![0, 2, 1, 16, first];
        value.extend([0; 15]);
        value.extend([0, 16, 0x20, 1]);
        let mut set = good();
        set.pop();
        set.push(attribute(0x80, 14, &value));
        let (errors, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[]));
        assert_eq!(errors[0].code, ErrorCode::INVALID_NEXT_HOP_ATTRIBUTE);
        assert!(batch.runs[0].attributes.is_none());
    }
}

#[test]
fn an_unknown_attribute_that_says_it_is_well_known_resets() {
    let unknown = attribute(0x40, 99, b"?");
    let error = error(EXTERNAL.four_octets(), &with(unknown.clone()));
    let expected = (Severity::SessionReset, ErrorCode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE);
    assert_eq!((error.severity, error.code, &error.data[..]), (expected.0, expected.1, &unknown[..]));
}

/// Attributes 23, 28 and 40, whose bytes have reset sessions around the world, are none of our business: they are passed on.
#[test]
fn the_values_of_unknown_attributes_are_not_looked_at() {
    for code in [23, 28, 40, 128, 255] {
        for value in [&[][..], &[0; 3], &[0xff; 200]] {
            let (errors, batch) =
                errors(EXTERNAL.four_octets(), &update(&[], &with(attribute(0xc0, code, value)), &[8, 10]));
            assert_eq!(errors, []);
            assert_eq!(&*batch.runs[0].attributes.as_ref().unwrap().unknown[0].value, value);
        }
    }
}

/// Section 3 h.
/// Proves RFC 7606 3.
#[test]
fn of_many_errors_the_strongest_decides() {
    let mut set = good();
    set.push(attribute(0x40, 6, &[1]));
    set.push(attribute(0x80, 4, &[1]));
    let (found, batch) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    let severities: Vec<_> = found.iter().map(|error| error.severity).collect();
    assert_eq!(severities, [Severity::Discard, Severity::TreatAsWithdraw]);
    assert!(batch.runs[0].attributes.is_none());
    set.push(attribute(0x40, 99, &[]));
    let (found, _) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    assert_eq!(found[0].severity, Severity::SessionReset);
    // Thousands of them are not all kept, but the strongest is.
    let mut set = good();
    set.extend(std::iter::repeat_n(attribute(0xc0, 99, &[]), 1000));
    set.push(attribute(0x80, 4, &[1]));
    let (found, _) = errors(EXTERNAL.four_octets(), &update(&[], &set, &[8, 10]));
    assert!(found.len() < 20 && found.iter().any(|error| error.severity == Severity::TreatAsWithdraw));
}

#[test]
fn a_set_with_an_error_is_complained_of_every_time() {
    let mut decoder = Decoder::new(EXTERNAL.four_octets());
    for _ in 0..3 {
        let mut batch = RouteBatch::default();
        let body = update(&[], &with(attribute(0x40, 5, &[0; 4])), &[8, 10]);
        let decoded = decoder.decode(&body, &mut batch).unwrap();
        assert_eq!(decoded.errors.len(), 1);
        assert_eq!(batch.runs[0].attributes.as_ref().unwrap().local_pref, None);
    }
}
