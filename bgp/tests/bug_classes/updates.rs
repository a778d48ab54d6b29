//! UPDATE: fields, attributes, and families that nobody has asked for.

use weft_bgp::ingress::{IncidentKind, IngressOutput};
use weft_bgp::session::State;
use weft_bgp::wire::ErrorCode;
use weft_bgp::wire::attributes::PathAttributes;

use crate::generate::{attribute, good, update};
use crate::pair::peer_config;
use crate::solo::{Solo, open};

/// What a fresh session makes of an UPDATE.
struct Answer {
    /// The NOTIFICATION that it was answered with.
    reset: Option<ErrorCode>,
    treated_as_withdraw: bool,
    /// The attributes of what was announced, by runs; none: withdrawn.
    runs: Vec<Option<PathAttributes>>,
}

impl Answer {
    fn is_accepted(&self) -> bool {
        self.reset.is_none() && !self.treated_as_withdraw && matches!(self.runs[..], [Some(_)])
    }

    fn is_withdraw(&self) -> bool {
        self.reset.is_none() && self.treated_as_withdraw && self.runs.iter().all(Option::is_none)
    }

    fn is_ignored(&self) -> bool {
        self.reset.is_none() && !self.treated_as_withdraw && self.runs.is_empty()
    }
}

fn answer(body: &[u8]) -> Answer {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    solo.bytes(connection, &[&[0xff; 16][..], &length, &[2], body].concat());
    let established = solo.ingress.state() == State::Established;
    let batches = solo.outputs.iter().filter_map(|output| match output {
        IngressOutput::Routes(batch) => Some(batch),
        _ => None,
    });
    let runs = batches.flat_map(|batch| &batch.runs);
    Answer {
        reset: (!established).then(|| solo.notification(connection).code),
        treated_as_withdraw: solo
            .count(|o| matches!(o, IngressOutput::Incident(i) if i.kind == IncidentKind::TreatedAsWithdraw))
            > 0,
        runs: runs.map(|run| run.attributes.as_deref().cloned()).collect(),
    }
}

/// 10.0.0.0/8 with a good set and this attribute.
fn with(attribute: Vec<u8>) -> Answer {
    let mut set = good();
    set.retain(|other| other[1] != attribute[1]);
    set.push(attribute);
    answer(&update(&[], &set, &[8, 10]))
}

/// An attribute of any length.
fn long(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags | 0x10, code][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// Values whose inner lengths lie, as sub-TLVs of one or two octets of length would have it.
fn lies() -> Vec<Vec<u8>> {
    let lies: [&[u8]; 10] = [
        &[],
        &[0],
        &[1, 255],
        &[1, 0, 255],
        &[0, 0, 0, 0],
        &[255; 3],
        &[0, 13, 0, 8, 4, 6, 1, 2],
        &[0, 1, 0, 0, 0, 1, 0, 0],
        &[3, 0, 200, 0, 1, 0, 30],
        &[5, 0, 2, 0, 1, 0xff, 0xff],
    ];
    let mut lies: Vec<Vec<u8>> = lies.iter().map(|lie| lie.to_vec()).collect();
    lies.extend([vec![0; 1000], vec![0xff; 1000], [1, 1].repeat(500)]);
    lies
}

/// Whatever is in an attribute that is not known here, the route stands, and the attribute goes on as it came.
fn assert_not_looked_at(code: u8) {
    for value in lies() {
        let answer = with(long(0xc0, code, &value));
        assert!(answer.is_accepted(), "attribute {code} of {value:?}");
        let [Some(attributes)] = &answer.runs[..] else { unreachable!() };
        assert_eq!(&*attributes.unknown[0].value, &value[..]);
    }
}

/// Bug class 8 (CVE-2023-31490, CVE-2024-31948, FRR): a Prefix-SID whose sub-TLVs lie about their lengths.
#[test]
fn a_prefix_sid_is_not_looked_at() {
    assert_not_looked_at(40);
}

/// Bug class 9 (CVE-2023-38802, FRR): a corrupt tunnel encapsulation that resets one session after the other.
/// Bug class 21 (CVE-2024-44070, 6107151ac9, 44f3385741, FRR): a tunnel encapsulation TLV that is longer than what is left.
#[test]
fn a_tunnel_encapsulation_is_not_looked_at() {
    assert_not_looked_at(23);
}

/// Bug class 10 (CVE-2023-4481, Junos): an obsolete transitive attribute, the entropy label, resets sessions further on.
#[test]
fn an_entropy_label_is_not_looked_at() {
    assert_not_looked_at(28);
}

/// Bug class 24 (CVE-2026-37459, FRR): a next hop dependent characteristic whose TLV length underflows.
#[test]
fn next_hop_dependent_characteristics_are_not_looked_at() {
    assert_not_looked_at(39);
}

/// Bug class 25 (CVE-2026-37460, FRR): a crafted UPDATE for the remote forwarders' interface (attribute 255).
#[test]
fn virtual_network_control_is_not_looked_at() {
    assert_not_looked_at(255);
}

/// Bug class 42 (CVE-2010-3035, IOS XR): a large unknown attribute (99) is corrupted on its way.
#[test]
fn a_large_unknown_attribute_goes_on_as_it_came() {
    assert_not_looked_at(99);
    let value: Vec<u8> = (0..3900_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let answer = with(long(0xc0, 99, &value));
    let [Some(attributes)] = &answer.runs[..] else { panic!("{:?}", answer.reset) };
    assert_eq!(&*attributes.unknown[0].value, &value[..]);
}

/// Bug class 31 (2025-10-24, BIRD ≤ 2.0.8): an Only-to-Customer attribute that claims 1024 octets.
#[test]
fn an_only_to_customer_attribute_of_a_wrong_length_resets_nothing() {
    for length in [0, 3, 5, 8, 1024] {
        let answer = with(long(0xc0, 35, &vec![0; length]));
        assert!(answer.is_withdraw(), "{length} octets");
    }
    assert!(with(vec![0xd0, 35, 4, 0, 0, 0, 0xfd, 0xea]).is_withdraw(), "beyond the field");
}

/// Bug class 32 (2025-05-20, EOS): a Prefix-SID of zeros, passed on by others.
#[test]
fn a_prefix_sid_of_zeros_resets_nothing() {
    for length in [0, 1, 7, 10, 200] {
        assert!(with(long(0xc0, 40, &vec![0; length])).is_accepted());
        assert!(with(long(0xe0, 40, &vec![0; length])).is_accepted());
    }
}

/// Bug class 11 (CVE-2023-38283, OpenBGPD): attributes that are longer than they may be, or than the field.
#[test]
fn an_attribute_has_another_length_than_its_type() {
    for (flags, code, length) in [(0x40, 1, 1), (0x40, 3, 4), (0x80, 4, 4)] {
        for wrong in (0..20).filter(|wrong| *wrong != length) {
            assert!(with(long(flags, code, &vec![0; wrong])).is_withdraw(), "type {code} of {wrong}");
        }
    }
    for tail in [&[0xc0, 8, 200, 1][..], &[0xd0, 8, 255, 255], &[0xd0, 8, 0], &[0xd0, 8], &[0xc0]] {
        assert!(answer(&update(&[], &[good().concat(), tail.to_vec()], &[8, 10])).is_withdraw(), "{tail:?}");
    }
}

/// MP_REACH_NLRI.
fn reach(afi: u8, safi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let head = [0, afi, safi, u8::try_from(next_hop.len()).unwrap()];
    attribute(0x80, 14, &[&head, next_hop, &[0], nlri].concat())
}

/// Bug class 12 (CVE-2023-38406, CVE-2023-38407, FRR): a flow specification of no length; a label stack past the end.
#[test]
fn flow_specifications_and_labels_that_nobody_asked_for_are_ignored() {
    for nlri in
        [&[0][..], &[0, 0, 0], &[240, 0], &[255, 255, 1], &[24, 0, 0, 0], &[8, 1], &[88, 0, 0, 0, 0, 0, 0]]
    {
        for (afi, safi) in [(1, 133), (2, 133), (1, 134), (1, 4), (2, 4), (1, 128)] {
            let mut set = good();
            set.push(reach(afi, safi, &[], nlri));
            assert!(answer(&update(&[], &set, &[])).is_ignored(), "AFI {afi} SAFI {safi}: {nlri:?}");
            let unreach = attribute(0x80, 15, &[&[0, afi, safi][..], nlri].concat());
            assert!(answer(&update(&[], &[unreach], &[])).is_ignored(), "AFI {afi} SAFI {safi}: {nlri:?}");
        }
    }
}

/// Bug class 16 (CVE-2023-41909, FRR): a flow specification without attributes.
#[test]
fn a_flow_specification_without_attributes_is_ignored() {
    assert!(answer(&update(&[], &[reach(1, 133, &[], &[3, 1, 8, 10])], &[])).is_ignored());
}

/// Bug class 23 (CVE-2026-37457, FRR): operators of a flow specification that go on without an end.
/// Bug class 30 (2.19.2 and 3.3.2, BIRD): a flow specification that overflows the stack.
#[test]
fn operators_of_a_flow_specification_are_not_looked_at() {
    for operators in [[3, 0x01, 6].repeat(60), vec![5; 240], [4, 0x31, 1].repeat(80)] {
        let length = u8::try_from(operators.len()).unwrap();
        let nlri = [&[length][..], &operators].concat();
        let mut set = good();
        set.push(long(0x80, 14, &[&[0, 1, 133, 0, 0][..], &nlri].concat()));
        assert!(answer(&update(&[], &set, &[])).is_ignored());
    }
}

/// Bug class 17 (CVE-2023-46752, FRR): a malformed MP_REACH_NLRI, cut anywhere.
#[test]
fn an_mp_reach_nlri_cut_anywhere_is_no_route() {
    let whole = reach(2, 1, &[0x20; 16], &[64, 0x20, 1, 0, 0, 0, 0, 0, 0]);
    for length in 0..whole.len() - 3 {
        let mut cut = whole[..3 + length].to_vec();
        cut[2] = u8::try_from(length).unwrap();
        let answer = answer(&update(&[], &[good(), vec![cut]].concat(), &[]));
        // What ends behind the reserved octet announces nothing.
        let nothing = length == 21 && answer.is_ignored();
        assert!(nothing || answer.reset == Some(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR), "{length} octets");
    }
}

/// Bug class 18 (CVE-2023-46753, FRR): nothing but an unknown transitive attribute, with and without prefixes.
#[test]
fn an_unknown_attribute_alone_makes_no_route() {
    let set = [attribute(0xc0, 99, b"x")];
    assert!(answer(&update(&[], &set, &[])).is_ignored());
    assert!(answer(&update(&[], &set, &[8, 10])).is_withdraw());
}

/// Bug class 19 (CVE-2023-47234, CVE-2023-47235, FRR): MP_UNREACH_NLRI and NLRI without mandatory attributes; End-of-RIB that is none.
#[test]
fn an_end_of_rib_with_more_in_it_is_none() {
    let unreach = attribute(0x80, 15, &[0, 2, 1, 16, 0x20, 1]);
    assert!(answer(&update(&[], std::slice::from_ref(&unreach), &[8, 10])).is_withdraw());
    let empty = attribute(0x80, 15, &[0, 2, 1]);
    let ends = |body: &[u8]| {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
        solo.bytes(connection, &[&[0xff; 16][..], &length, &[2], body].concat());
        solo.count(|output| matches!(output, IngressOutput::EndOfRib(_)))
    };
    assert_eq!(ends(&update(&[], std::slice::from_ref(&empty), &[])), 1);
    assert_eq!(ends(&update(&[], &[unreach], &[])), 0);
    assert_eq!(ends(&update(&[], &[empty.clone(), attribute(0x40, 1, &[9])], &[])), 0);
    assert_eq!(ends(&update(&[], &[empty], &[8, 10])), 0);
    assert_eq!(ends(&update(&[], &[attribute(0x40, 1, &[0])], &[])), 0);
}

/// Bug class 34 (CVE-2026-30405, GoBGP): a NEXT_HOP of less than four octets.
#[test]
fn a_next_hop_that_is_too_short_is_treated_as_withdraw() {
    for length in [0, 1, 2, 3, 5, 16] {
        assert!(with(attribute(0x40, 3, &vec![1; length])).is_withdraw(), "{length} octets");
    }
}

/// Bug class 35 (CVE-2026-37461, GoBGP): IPv6 extended communities that are no multiple of 20.
#[test]
fn ipv6_extended_communities_of_a_wrong_length_are_treated_as_withdraw() {
    for length in 0..70 {
        let answer = with(attribute(0xc0, 25, &vec![1; length]));
        let good = length > 0 && length % 20 == 0;
        assert!(if good { answer.is_accepted() } else { answer.is_withdraw() }, "{length} octets");
    }
}

/// Bug class 41 (CVE-2010-1674, CVE-2011-3327, Quagga): extended communities that are no multiple of eight.
#[test]
fn extended_communities_of_a_wrong_length_are_treated_as_withdraw() {
    for length in 0..40 {
        let answer = with(attribute(0xc0, 16, &vec![1; length]));
        let good = length > 0 && length % 8 == 0;
        assert!(if good { answer.is_accepted() } else { answer.is_withdraw() }, "{length} octets");
    }
}

/// Bug class 40 (CVE-2018-5379, Quagga): an unknown attribute that occurs twice.
#[test]
fn an_unknown_attribute_twice_is_kept_once() {
    let set = [good(), vec![attribute(0xc0, 99, b"first"), attribute(0xc0, 99, b"second")]].concat();
    let answer = answer(&update(&[], &set, &[8, 10]));
    let [Some(attributes)] = &answer.runs[..] else { panic!("{:?}", answer.reset) };
    assert_eq!((attributes.unknown.len(), &*attributes.unknown[0].value), (1, &b"first"[..]));
}

/// Bug class 50 (ff3549981, OpenBGPD): MP_REACH_NLRI and NLRI, but no NEXT_HOP; AS4_PATH, but no AS_PATH.
#[test]
fn nlri_beside_mp_reach_nlri_needs_its_own_next_hop() {
    let mut set = good();
    set.retain(|attribute| attribute[1] != 3);
    set.push(reach(2, 1, &[0x20; 16], &[16, 0x20, 1]));
    assert!(answer(&update(&[], &set, &[8, 10])).is_withdraw());
    let mut set = good();
    set.retain(|attribute| attribute[1] != 2);
    set.push(attribute(0xc0, 17, &[2, 1, 0, 1, 0, 0]));
    assert!(answer(&update(&[], &set, &[8, 10])).is_withdraw());
}

/// Bug class 51 (8c3a20d, RustyBGP; Quagga): prefixes longer than an address, and bits behind a prefix.
#[test]
fn bogus_prefixes_are_refused_and_trailing_bits_do_not_count() {
    for length in 33..=255_u8 {
        let nlri = [&[length][..], &[1; 32]].concat();
        assert_eq!(
            answer(&update(&[], &good(), &nlri)).reset,
            Some(ErrorCode::INVALID_NETWORK_FIELD),
            "/{length}"
        );
    }
    for length in 129..=255_u8 {
        let mut set = good();
        set.push(reach(2, 1, &[0x20; 16], &[&[length][..], &[1; 32]].concat()));
        assert_eq!(
            answer(&update(&[], &set, &[])).reset,
            Some(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR),
            "/{length}"
        );
    }
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let body = update(&[], &good(), &[25, 10, 0, 0, 0xff]);
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    solo.bytes(connection, &[&[0xff; 16][..], &length, &[2], &body].concat());
    let prefixes = solo.outputs.iter().find_map(|output| match output {
        IngressOutput::Routes(batch) => Some(batch.prefixes.clone()),
        _ => None,
    });
    assert_eq!(prefixes.unwrap(), ["10.0.0.128/25".parse().unwrap()]);
}

/// Bug class 52 (bgp_aspath_zero, bgp_aggregator_zero, FRR): AS 0 in AS_PATH and in AGGREGATOR.
#[test]
fn as_0_is_in_no_path_and_forms_no_aggregate() {
    for path in [&[2, 1, 0, 0, 0, 0][..], &[2, 2, 0, 0, 0xfd, 0xea, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0]] {
        assert!(with(attribute(0x40, 2, path)).is_withdraw(), "{path:?}");
    }
    let answer = with(attribute(0xc0, 7, &[0, 0, 0, 0, 1, 1, 1, 1]));
    assert!(answer.is_accepted() && answer.runs[0].as_ref().unwrap().aggregator.is_none());
}
