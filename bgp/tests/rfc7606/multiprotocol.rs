//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760, RFC 7606 sections 5 and 7.11, RFC 2545).

use crate::table::{
    Expect, Kind, NEXT_HOP, NEXT_HOP_V6, Routes, Table, V4, V6, attribute, reach, unreach, update,
};

use Expect::{Accepted, Kept, Rejected, Reset, TreatAsWithdraw, Withdrawn};

const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

pub(crate) fn add(table: &mut Table) {
    for on in Kind::BOTH {
        next_hops(table, on);
        incorrect(table, on);
        nlri(table, on);
        unwanted(table, on);
        combinations(table, on);
        unreachable(table, on);
    }
    not_agreed(table, Kind::Ipv4Only);
}

/// A set whose MP_REACH_NLRI is this.
fn set(on: Kind, reach: Vec<u8>) -> Vec<Vec<u8>> {
    [vec![reach], on.without_next_hop()].concat()
}

fn next_hops(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 7.11";
    let of = |length: usize| vec![0x20; length];
    for length in [0, 1, 3, 4, 8, 12, 15, 17, 24, 31, 33, 48, 64, 255] {
        let name = format!("a next hop of {length} octets for IPv6");
        table.v6(on, &name, rfc, &set(on, reach(2, 1, &of(length), &V6)), Reset(3, 9));
    }
    for length in [0, 3, 5, 8, 12] {
        let name = format!("a next hop of {length} octets for IPv4");
        table.v6(on, &name, rfc, &set(on, reach(1, 1, &of(length), &V4)), Reset(3, 9));
    }
    // RFC 8950 has not been agreed on.
    for length in [16, 32] {
        let name = format!("a next hop of {length} octets for IPv4");
        table.v6(on, &name, "RFC 8950 section 3", &set(on, reach(1, 1, &of(length), &V4)), Reset(3, 9));
    }
    let rfc2545 = "RFC 2545 section 3";
    let invalid = "RFC 4271 section 6.3, RFC 7606 section 3 e";
    let hops: [(&str, &str, Vec<u8>, Expect); 7] = [
        ("a global address", rfc2545, NEXT_HOP_V6.to_vec(), Accepted),
        ("a global and a link-local address", rfc2545, [NEXT_HOP_V6, LINK_LOCAL].concat(), Accepted),
        ("two global addresses", rfc2545, [NEXT_HOP_V6, NEXT_HOP_V6].concat(), Accepted),
        (
            "a link-local address and no link",
            "RFC 4007 section 6",
            LINK_LOCAL.to_vec(),
            Rejected("next-hop-unresolved"),
        ),
        ("::", invalid, vec![0; 16], TreatAsWithdraw),
        ("a multicast address", invalid, [&[0xff, 2][..], &[0; 14]].concat(), TreatAsWithdraw),
        (
            "our own address",
            "RFC 4271 section 5.1.3",
            "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec(),
            Rejected("own-next-hop"),
        ),
    ];
    for (name, rfc, hop, expect) in hops {
        table.v6(on, &format!("next hop: {name}"), rfc, &set(on, reach(2, 1, &hop, &V6)), expect);
    }
}

fn incorrect(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 5.3";
    let good = reach(2, 1, &NEXT_HOP_V6, &V6);
    for (name, flags) in [("not optional, but transitive", 0x40), ("transitive", 0xc0), ("neither", 0x00)] {
        let wrong = |mut attribute: Vec<u8>| {
            attribute[0] = flags;
            attribute
        };
        table.v6(
            on,
            &format!("MP_REACH_NLRI: flags: {name}"),
            "RFC 7606 section 3 c",
            &set(on, wrong(good.clone())),
            TreatAsWithdraw,
        );
        table.v6(
            on,
            &format!("MP_UNREACH_NLRI: flags: {name}"),
            "RFC 7606 section 3 c",
            &[wrong(unreach(2, 1, &V6))],
            TreatAsWithdraw,
        );
    }
    for flags in [0xa0, 0x8f, 0x90] {
        let mut attribute = attribute(flags, 14, &good[3..]);
        attribute[0] = flags;
        table.v6(
            on,
            &format!("MP_REACH_NLRI: flags {flags:#x}"),
            "RFC 4271 section 4.3",
            &set(on, attribute),
            Accepted,
        );
    }
    for length in 0..5 {
        let short = attribute(0x80, 14, &[0, 2, 1, 0, 0][..length]);
        table.v6(on, &format!("MP_REACH_NLRI of {length} octets"), rfc, &set(on, short), Reset(3, 9));
    }
    for length in 0..3 {
        let short = attribute(0x80, 15, &[0, 2, 1][..length]);
        table.v6(on, &format!("MP_UNREACH_NLRI of {length} octets"), rfc, &[short], Reset(3, 9));
    }
    for (name, length) in [("an octet", 24), ("all there is", 255)] {
        let mut beyond = reach(2, 1, &NEXT_HOP_V6, &V6);
        beyond[6] = length;
        table.v6(
            on,
            &format!("MP_REACH_NLRI: a next hop longer than it by {name}"),
            rfc,
            &set(on, beyond),
            Reset(3, 9),
        );
    }
    let no_reserved = attribute(0x80, 14, &[&[0, 2, 1, 16][..], &NEXT_HOP_V6].concat());
    table.v6(on, "MP_REACH_NLRI without the reserved octet", rfc, &set(on, no_reserved), Reset(3, 9));
    let mut reserved = reach(2, 1, &NEXT_HOP_V6, &V6);
    reserved[23] = 0xff;
    table.v6(
        on,
        "MP_REACH_NLRI with a reserved octet of 255",
        "RFC 4760 section 3",
        &set(on, reserved),
        Accepted,
    );
    let twice = "RFC 7606 section 3 g";
    let again = [set(on, good.clone()), vec![good]].concat();
    table.v6(on, "MP_REACH_NLRI twice", twice, &again, Reset(3, 1));
    let again = vec![unreach(2, 1, &V6); 2];
    table.v6(on, "MP_UNREACH_NLRI twice", twice, &again, Reset(3, 1));
    let again = vec![reach(25, 70, &[1], &[]); 2];
    table.v6(
        on,
        "MP_REACH_NLRI of an unknown family twice",
        twice,
        &[again, on.without_next_hop()].concat(),
        Reset(3, 1),
    );
}

fn nlri(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 5.3";
    let bad: [(&str, Vec<u8>); 6] = [
        ("129 bits", [&[129][..], &[1; 17]].concat()),
        ("255 bits", [&[255][..], &[1; 32]].concat()),
        ("128 bits in 15 octets", [&[128][..], &[1; 15]].concat()),
        ("a length and nothing more", vec![64]),
        ("one octet too few", V6[..6].to_vec()),
        ("a second prefix cut short", [&V6[..], &[64, 1]].concat()),
    ];
    for (name, nlri) in bad {
        table.v6(
            on,
            &format!("MP_REACH_NLRI: {name}"),
            rfc,
            &set(on, reach(2, 1, &NEXT_HOP_V6, &nlri)),
            Reset(3, 9),
        );
        table.v6(on, &format!("MP_UNREACH_NLRI: {name}"), rfc, &[unreach(2, 1, &nlri)], Reset(3, 9));
    }
    table.v6(
        on,
        "MP_REACH_NLRI: 33 bits for IPv4",
        rfc,
        &set(on, reach(1, 1, &NEXT_HOP, &[33, 1, 2, 3, 4, 5])),
        Reset(3, 9),
    );
    let host_bits = [48, 0x20, 0x01, 0x0d, 0xb8, 0x01, 0x00, 47, 0x20, 0x01, 0x0d, 0xb8, 0x02, 0x01];
    table.v6(
        on,
        "MP_REACH_NLRI: bits behind a prefix",
        "RFC 4760 section 5",
        &set(on, reach(2, 1, &NEXT_HOP_V6, &host_bits)),
        Accepted,
    );
    let edges = [&V6[..], &[0, 128], &[0x20; 16], &V6].concat();
    table.v6(
        on,
        "MP_REACH_NLRI: lengths 0 and 128, and a prefix twice",
        "RFC 4760 section 5",
        &set(on, reach(2, 1, &NEXT_HOP_V6, &edges)),
        Accepted,
    );
    table.v6(
        on,
        "MP_REACH_NLRI without a prefix",
        "RFC 4760 section 3",
        &set(on, reach(2, 1, &NEXT_HOP_V6, &[])),
        Kept,
    );
}

/// Families that no end has offered, or that nobody knows: what is in them is not looked at.
fn unwanted(table: &mut Table, on: Kind) {
    let rfc = "RFC 4760 section 8";
    for (name, afi, safi) in [
        ("IPv6 multicast", 2, 2),
        ("IPv6 labelled", 2, 4),
        ("VPNv6", 2, 128),
        ("IPv6 flow specification", 2, 133),
        ("IPv4 flow specification", 1, 133),
        ("EVPN", 25, 70),
        ("BGP-LS", 16388, 71),
        ("AFI 0", 0, 1),
        ("SAFI 0", 2, 0),
        ("AFI 65535", 65535, 255),
    ] {
        let odd = reach(afi, safi, &[0x20; 24], &[255, 255, 0, 1]);
        table.v6(on, &format!("MP_REACH_NLRI of {name}"), rfc, &set(on, odd), Kept);
        table.v6(
            on,
            &format!("MP_UNREACH_NLRI of {name}"),
            rfc,
            &[unreach(afi, safi, &[255, 255, 0, 1])],
            Kept,
        );
        table.v6(
            on,
            &format!("End-of-RIB of {name}"),
            "RFC 4724 section 2",
            &[unreach(afi, safi, &[])],
            Kept,
        );
    }
    let odd = reach(1, 133, &[], &[0]);
    table.v4(
        on,
        "NLRI beside MP_REACH_NLRI of flow specification",
        rfc,
        &[vec![odd], on.good()].concat(),
        Expect::Discard,
    );
}

fn combinations(table: &mut Table, on: Kind) {
    let any = "RFC 7606 section 5.1";
    let v6 = reach(2, 1, &NEXT_HOP_V6, &V6);
    let gone = unreach(2, 1, &V6);
    let both = [vec![v6.clone()], on.good()].concat();
    table.message(on, "NLRI and MP_REACH_NLRI", any, Routes::Both, update(&[], &both, &V4), Accepted);
    table.v6(
        on,
        "one prefix in MP_UNREACH_NLRI and MP_REACH_NLRI",
        "RFC 4271 section 4.3",
        &[vec![gone.clone()], set(on, v6.clone())].concat(),
        Accepted,
    );
    table.v6(
        on,
        "one prefix in MP_REACH_NLRI and MP_UNREACH_NLRI",
        "RFC 4271 section 4.3",
        &[set(on, v6.clone()), vec![gone.clone()]].concat(),
        Accepted,
    );
    table.message(
        on,
        "withdrawn routes and MP_UNREACH_NLRI",
        any,
        Routes::Both,
        update(&V4, std::slice::from_ref(&gone), &[]),
        Withdrawn,
    );
    table.message(
        on,
        "withdrawn routes and MP_REACH_NLRI of the same",
        any,
        Routes::Both,
        update(&V4, &[vec![v6.clone()], on.good()].concat(), &V4),
        Accepted,
    );
    table.message(
        on,
        "MP_UNREACH_NLRI and NLRI without mandatory attributes",
        "RFC 7606 section 3 d",
        Routes::Both,
        update(&[], &[gone], &V4),
        TreatAsWithdraw,
    );
    let ipv4 = update(&[], &set(on, reach(1, 1, &NEXT_HOP, &V4)), &[]);
    table.message(on, "IPv4 in MP_REACH_NLRI", "RFC 4760 section 3", Routes::V4, ipv4, Accepted);
    // An attribute that is meant for NLRI is checked even so.
    let beside = [set(on, v6.clone()), vec![attribute(0x40, 3, &[1, 2, 3])]].concat();
    table.v6(
        on,
        "a malformed NEXT_HOP beside MP_REACH_NLRI",
        "RFC 7606 section 7.3",
        &beside,
        TreatAsWithdraw,
    );
    let beside = [set(on, v6.clone()), vec![attribute(0x40, 3, &[0; 4])]].concat();
    table.v6(on, "a NEXT_HOP of 0.0.0.0 beside MP_REACH_NLRI", "RFC 4760 section 3", &beside, Accepted);
    for (name, code, value) in [("ORIGIN", 1, &[9][..]), ("AS_PATH", 2, &[2, 0]), ("COMMUNITIES", 8, &[1])] {
        let mut set = set(on, v6.clone());
        set.retain(|attribute| attribute[1] != code);
        set.push(attribute(if code == 8 { 0xc0 } else { 0x40 }, code, value));
        table.v6(
            on,
            &format!("a malformed {name} beside MP_REACH_NLRI"),
            "RFC 7606 section 2",
            &set,
            TreatAsWithdraw,
        );
    }
    let overrun = [set(on, v6), vec![vec![0xc0, 99, 9, 1]]].concat();
    table.v6(
        on,
        "an attribute beyond the field, behind MP_REACH_NLRI",
        "RFC 7606 section 4",
        &overrun,
        TreatAsWithdraw,
    );
}

fn unreachable(table: &mut Table, on: Kind) {
    table.v6(on, "MP_UNREACH_NLRI", "RFC 4760 section 4", &[unreach(2, 1, &V6)], Withdrawn);
    table.v6(
        on,
        "MP_UNREACH_NLRI with attributes",
        "RFC 4760 section 4",
        &[on.good(), vec![unreach(2, 1, &V6)]].concat(),
        Withdrawn,
    );
    let other = unreach(2, 1, &[32, 0x20, 0x01, 0x0d, 0xb9]);
    table.v6(on, "MP_UNREACH_NLRI of what is not there", "RFC 4271 section 9", &[other], Kept);
    table.v6(on, "End-of-RIB", "RFC 4724 section 2", &[unreach(2, 1, &[])], Kept);
    let bad = [unreach(2, 1, &V6), attribute(0x40, 1, &[9])];
    table.v6(on, "MP_UNREACH_NLRI beside a malformed ORIGIN", "RFC 7606 section 5.2", &bad, Reset(3, 6));
    let bad = [unreach(2, 1, &V6), attribute(0x40, 6, &[9])];
    table.v6(
        on,
        "MP_UNREACH_NLRI beside a malformed ATOMIC_AGGREGATE",
        "RFC 7606 section 5.2",
        &bad,
        Expect::WithdrawnDiscard,
    );
    let bad = [set(on, reach(2, 1, &NEXT_HOP_V6, &[])), vec![attribute(0x80, 4, &[1])]].concat();
    table.v6(
        on,
        "MP_REACH_NLRI without a prefix beside a malformed MED",
        "RFC 7606 section 5.2",
        &bad,
        Reset(3, 5),
    );
}

/// IPv6 from a peer that has not offered it.
fn not_agreed(table: &mut Table, on: Kind) {
    let rfc = "RFC 4760 section 8";
    let v6 = reach(2, 1, &NEXT_HOP_V6, &V6);
    table.v4(
        on,
        "IPv6 that is not agreed on, beside NLRI",
        rfc,
        &[vec![v6.clone()], on.good()].concat(),
        Expect::Discard,
    );
    table.message(on, "IPv6 that is not agreed on", rfc, Routes::V4, update(&[], &set(on, v6), &[]), Kept);
    table.message(
        on,
        "End-of-RIB that is not agreed on",
        rfc,
        Routes::V4,
        update(&[], &[unreach(2, 1, &[])], &[]),
        Kept,
    );
    let odd = reach(2, 1, &[0x20; 5], &V6);
    table.message(
        on,
        "a next hop of 5 octets in IPv6 that is not agreed on",
        "RFC 7606 section 7.11",
        Routes::V4,
        update(&[], &set(on, odd), &[]),
        Reset(3, 9),
    );
}
