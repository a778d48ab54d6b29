//! Values that have the right length and are wrong, unwanted or merely unusual; what is missing; orders; several errors at once.

use weft_bgp::wire::attributes::SegmentKind;

use crate::table::{
    Check, Expect, Kind, NEXT_HOP_V6, OWN_AS, OWN_ID, Routes, Table, V4, V6, attribute, reach, update,
};

use Expect::{Accepted, Discard, Rejected, Reset, TreatAsWithdraw};

pub(crate) fn add(table: &mut Table) {
    for on in Kind::BOTH {
        origins(table, on);
        as_paths(table, on);
        next_hops(table, on);
        numbers(table, on);
        unknown(table, on);
        missing(table, on);
        orders(table, on);
        several(table, on);
    }
}

fn origins(table: &mut Table, on: Kind) {
    for (value, expect) in
        [(0, Accepted), (1, Accepted), (2, Accepted), (3, TreatAsWithdraw), (255, TreatAsWithdraw)]
    {
        let set = on.with(attribute(0x40, 1, &[value]));
        table.v4(on, &format!("ORIGIN of {value}"), "RFC 7606 section 7.1", &set, expect);
    }
}

fn as_paths(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 7.2";
    let good = on.path();
    let and = |segment: &[u8]| [&good[..], segment].concat();
    let from_outside = if on.is_internal() { Accepted } else { TreatAsWithdraw };
    let confed_set = if on.is_internal() { Rejected("as-set") } else { TreatAsWithdraw };
    let first_as = if on.is_internal() { Accepted } else { Rejected("first-as") };
    let long: Vec<u16> = (1..=255).collect();
    let cases: [(&str, &str, Vec<u8>, Expect); 20] = [
        ("segment type 0", rfc, and(&on.segment(0, &[1])), TreatAsWithdraw),
        ("segment type 5", rfc, and(&on.segment(5, &[1])), TreatAsWithdraw),
        ("segment type 255", rfc, and(&on.segment(255, &[1])), TreatAsWithdraw),
        ("an empty sequence", rfc, and(&[2, 0]), TreatAsWithdraw),
        ("an empty set", rfc, and(&[1, 0]), TreatAsWithdraw),
        ("an empty segment alone", rfc, vec![2, 0], TreatAsWithdraw),
        ("a segment longer than the attribute", rfc, and(&[2, 9, 0, 0, 0, 1]), TreatAsWithdraw),
        ("a segment of 255 that is not there", rfc, and(&[2, 255]), TreatAsWithdraw),
        ("one octet after the last segment", rfc, and(&[2]), TreatAsWithdraw),
        ("AS numbers of two octets", rfc, vec![2, 2, 0xfd, 0xea, 0xfd, 0xf2], TreatAsWithdraw),
        ("AS 0", "RFC 7607 section 2", and(&on.segment(2, &[0])), TreatAsWithdraw),
        ("AS 0 in a set", "RFC 7607 section 2", and(&on.segment(1, &[65020, 0])), TreatAsWithdraw),
        ("a confederation sequence", "RFC 5065 section 5", and(&on.segment(3, &[65020])), from_outside),
        ("a confederation set", "RFC 5065 section 5", and(&on.segment(4, &[65020])), confed_set),
        (
            "a set behind the sequence",
            "RFC 9774 section 3",
            and(&on.segment(1, &[65020, 65021])),
            Rejected("as-set"),
        ),
        ("a set in front", "RFC 9774 section 3", on.segment(1, &[on.asn(), 65020]), Rejected("as-set")),
        ("another AS in front", "RFC 4271 section 6.3", on.segment(2, &[65020, 65010]), first_as),
        ("our own AS", "RFC 4271 section 9.1.2", and(&on.segment(2, &[OWN_AS])), Rejected("own-as-in-path")),
        (
            "510 numbers in two segments",
            "RFC 4271 section 5.1.2",
            and(&[on.segment(2, &long), on.segment(2, &long)].concat()),
            Accepted,
        ),
        (
            "AS_TRANS from a four-octet speaker",
            "RFC 6793 section 4.2.3",
            and(&on.segment(2, &[23456])),
            Accepted,
        ),
    ];
    for (name, rfc, path, expect) in cases {
        table.v4(on, &format!("AS_PATH: {name}"), rfc, &on.with(attribute(0x40, 2, &path)), expect);
    }
}

fn next_hops(table: &mut Table, on: Kind) {
    let invalid = "RFC 4271 section 6.3, RFC 7606 section 3 e";
    for (name, hop, rfc, expect) in [
        ("0.0.0.0", [0, 0, 0, 0], invalid, TreatAsWithdraw),
        ("255.255.255.255", [255, 255, 255, 255], invalid, TreatAsWithdraw),
        ("a multicast address", [224, 0, 0, 5], invalid, TreatAsWithdraw),
        ("a reserved address", [240, 0, 0, 1], invalid, TreatAsWithdraw),
        ("our own address", [127, 19, 0, 1], "RFC 4271 section 5.1.3", Rejected("own-next-hop")),
    ] {
        table.v4(on, &format!("NEXT_HOP of {name}"), rfc, &on.with(attribute(0x40, 3, &hop)), expect);
    }
}

fn numbers(table: &mut Table, on: Kind) {
    let max = u32::MAX.to_be_bytes();
    table
        .v4(on, "the highest MED", "RFC 4271 section 5.1.4", &on.with(attribute(0x80, 4, &max)), Accepted)
        .check = Some(|a| a.med == Some(u32::MAX));
    let aggregator = |asn: [u8; 4], address: [u8; 4]| on.with(attribute(0xc0, 7, &[asn, address].concat()));
    table.v4(on, "AGGREGATOR of AS 0", "RFC 7607 section 2", &aggregator([0; 4], [1; 4]), Discard).check =
        Some(|a| a.aggregator.is_none());
    table.v4(
        on,
        "AGGREGATOR of six octets",
        "RFC 7606 section 7.7",
        &on.with(attribute(0xc0, 7, &[1; 6])),
        Discard,
    );
    table.v4(
        on,
        "AGGREGATOR at 0.0.0.0",
        "RFC 4271 section 5.1.7",
        &aggregator([0, 0, 0, 9], [0; 4]),
        Accepted,
    );
    let lists: [(&str, &str, u8, Vec<u8>, Check); 4] = [
        ("COMMUNITIES with one twice", "RFC 1997", 8, [[0, 9, 0, 9]; 2].concat(), |a| {
            a.communities.len() == 1
        }),
        (
            "EXTENDED COMMUNITIES of unknown types",
            "RFC 7606 section 7.14",
            16,
            [[0xfe; 8], [0x3f; 8]].concat(),
            |a| a.ext_communities.len() == 2,
        ),
        ("LARGE_COMMUNITY with one twice", "RFC 8092 section 5", 32, vec![7; 24], |a| {
            a.large_communities.len() == 1
        }),
        (
            "COMMUNITIES of 300",
            "RFC 1997",
            8,
            (0..300_u32).flat_map(|n| (n + (9 << 16)).to_be_bytes()).collect(),
            |a| a.communities.len() == 300,
        ),
    ];
    for (name, rfc, code, value, check) in lists {
        table.v4(on, name, rfc, &on.with(attribute(0xc0, code, &value)), Accepted).check = Some(check);
    }
    if !on.is_internal() {
        return;
    }
    for (name, value) in [("lowest", 0_u32), ("highest", u32::MAX)] {
        let set = on.with(attribute(0x40, 5, &value.to_be_bytes()));
        table.v4(on, &format!("the {name} LOCAL_PREF"), "RFC 4271 section 5.1.5", &set, Accepted);
    }
    let long: Vec<u8> = (0..60).flat_map(|n| [10, 7, 7, n]).collect();
    table.v4(on, "CLUSTER_LIST of 60", "RFC 4456 section 8", &on.with(attribute(0x80, 10, &long)), Accepted);
    let looped = on.with(attribute(0x80, 10, &[&long[..], &OWN_ID].concat()));
    table.v4(on, "CLUSTER_LIST with our own id", "RFC 4456 section 8", &looped, Rejected("own-cluster"));
    let own = on.with(attribute(0x80, 9, &OWN_ID));
    table.v4(on, "ORIGINATOR_ID of our own", "RFC 4456 section 8", &own, Rejected("own-originator"));
}

/// Types that this speaker does not know, those among them whose bytes have reset sessions around the world.
fn unknown(table: &mut Table, on: Kind) {
    let rfc = "RFC 4271 section 9";
    for code in [
        0, 11, 12, 13, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 33, 34, 36, 37, 38, 39, 40, 99, 128, 241,
        255,
    ] {
        for (name, value) in [("empty", vec![]), ("of zeros", vec![0; 7]), ("of ones", vec![0xff; 300])] {
            let passed = on.with(attribute(0xc0, code, &value));
            table.v4(on, &format!("unknown {code}, {name}"), rfc, &passed, Accepted).check =
                Some(|a| a.unknown.len() == 1);
        }
        let ignored = on.with(attribute(0x80, code, &[0xff; 3]));
        table.v4(on, &format!("unknown {code}, not transitive"), rfc, &ignored, Accepted).check =
            Some(|a| a.unknown.is_empty());
    }
    for (name, flags) in [("transitive", 0x40), ("not transitive", 0x00)] {
        let set = on.with(attribute(flags, 99, &[1]));
        table.v4(
            on,
            &format!("unknown 99, said to be well-known, {name}"),
            "RFC 4271 section 6.3",
            &set,
            Reset(3, 2),
        );
    }
}

fn missing(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 3 d";
    let v6 = reach(2, 1, &NEXT_HOP_V6, &V6);
    for (name, code) in [("ORIGIN", 1), ("AS_PATH", 2), ("NEXT_HOP", 3)] {
        table.v4(on, &format!("no {name}"), rfc, &on.without(code), TreatAsWithdraw);
        let set = [vec![v6.clone()], on.without(code)].concat();
        // NEXT_HOP has no meaning for what MP_REACH_NLRI announces.
        let expect = if code == 3 { Accepted } else { TreatAsWithdraw };
        table.v6(on, &format!("no {name} beside MP_REACH_NLRI"), rfc, &set, expect);
    }
    table.v4(on, "no attribute at all", rfc, &[], TreatAsWithdraw);
    table.v6(on, "no attribute but MP_REACH_NLRI", rfc, std::slice::from_ref(&v6), TreatAsWithdraw);
    table.v4(on, "only an unknown attribute", rfc, &[attribute(0xc0, 99, &[1])], TreatAsWithdraw);
    table.v4(
        on,
        "only unwanted attributes",
        rfc,
        &[attribute(0x80, 99, &[]), attribute(0x80, 4, &[0; 4])],
        TreatAsWithdraw,
    );
    let without_next_hop = [vec![v6], on.without(3)].concat();
    table.message(
        on,
        "no NEXT_HOP for NLRI beside MP_REACH_NLRI",
        rfc,
        Routes::Both,
        update(&[], &without_next_hop, &V4),
        TreatAsWithdraw,
    );
    if on.is_internal() {
        table.v4(on, "no LOCAL_PREF", "RFC 4271 section 5.1.5", &on.without(5), Accepted);
    }
}

fn orders(table: &mut Table, on: Kind) {
    let rfc = "RFC 4271 section 5, RFC 7606 section 5.1";
    let all = |mut set: Vec<Vec<u8>>| {
        set.extend([attribute(0x80, 4, &[0; 4]), attribute(0xc0, 32, &[7; 12]), attribute(0xc0, 99, &[7])]);
        set
    };
    let mut reversed = all(on.good());
    reversed.reverse();
    table.v4(on, "attributes in reverse order", rfc, &reversed, Accepted);
    let v6 = reach(2, 1, &NEXT_HOP_V6, &V6);
    for (name, place) in [("first", 0), ("third", 2), ("last", 5)] {
        let mut set = all(on.without_next_hop());
        set.insert(place, v6.clone());
        table.v6(on, &format!("MP_REACH_NLRI {name}"), rfc, &set, Accepted);
    }
    table
        .v4(
            on,
            "AS_PATH of two sequences",
            "RFC 4271 section 5.1.2",
            &on.with(attribute(0x40, 2, &[on.path(), on.segment(2, &[9])].concat())),
            Accepted,
        )
        .check = Some(|a| a.as_path.0.len() == 1 && a.as_path.0[0].kind == SegmentKind::Sequence);
}

/// The strongest of several errors decides.
fn several(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 3 h";
    let (discard, withdraw, reset) =
        (attribute(0x40, 6, &[1]), attribute(0x80, 4, &[1]), attribute(0x40, 99, &[]));
    let set = |more: &[&Vec<u8>]| [on.good(), more.iter().map(|a| (*a).clone()).collect()].concat();
    let weaker = [&attribute(0xc0, 7, &[1]), &discard];
    table.v4(on, "two to discard", rfc, &set(&weaker), Discard);
    table.v4(on, "discard, then withdraw", rfc, &set(&[&discard, &withdraw]), TreatAsWithdraw);
    table.v4(on, "withdraw, then discard", rfc, &set(&[&withdraw, &discard]), TreatAsWithdraw);
    table.v4(on, "withdraw, then reset", rfc, &set(&[&withdraw, &reset]), Reset(3, 2));
    table.v4(on, "reset, then withdraw and discard", rfc, &set(&[&reset, &withdraw, &discard]), Reset(3, 2));
    let many = [on.good(), vec![discard; 500], vec![withdraw]].concat();
    table.v4(on, "five hundred to discard, one to withdraw", rfc, &many, TreatAsWithdraw);
    let both = [vec![reach(2, 1, &NEXT_HOP_V6, &V6)], on.with(attribute(0x40, 1, &[9]))].concat();
    table.message(
        on,
        "ORIGIN for both families",
        "RFC 7606 section 2",
        Routes::Both,
        update(&[], &both, &V4),
        TreatAsWithdraw,
    );
}
