//! RFC 6793: AS_PATH, AGGREGATOR and their four-octet companions from peers with two-octet AS numbers.

use weft_bgp::types::Asn;
use weft_bgp::wire::attributes::PathAttributes;

use crate::table::{Check, Expect, Kind, Table, attribute};

use Expect::{Accepted, Discard, TreatAsWithdraw};

pub(crate) fn add(table: &mut Table) {
    for on in [Kind::ExternalOld, Kind::InternalOld] {
        paths(table, on);
        aggregators(table, on);
    }
}

/// An AS_PATH of `(peer's AS,) AS_TRANS`.
fn trans(on: Kind) -> Vec<u8> {
    let path = if on.is_internal() { on.segment(2, &[23456]) } else { on.segment(2, &[on.asn(), 23456]) };
    attribute(0x40, 2, &path)
}

fn paths(table: &mut Table, on: Kind) {
    let rfc = "RFC 6793 section 6";
    let merged = |a: &PathAttributes| a.as_path.occurrences(Asn(65536)) == 1;
    let unmerged = |a: &PathAttributes| a.as_path.occurrences(Asn(65536)) == 0;
    let cases: [(&str, u8, &[u8], Expect, Check); 12] = [
        ("good", 0xc0, &[2, 1, 0, 1, 0, 0], Accepted, merged),
        ("empty", 0xc0, &[], Discard, unmerged),
        ("an unknown segment", 0xc0, &[9, 1, 0, 1, 0, 0], Discard, unmerged),
        ("an empty segment", 0xc0, &[2, 0], Discard, unmerged),
        ("a segment longer than the attribute", 0xc0, &[2, 9, 0, 1, 0, 0], Discard, unmerged),
        ("one octet after the last segment", 0xc0, &[2, 1, 0, 1, 0, 0, 2], Discard, unmerged),
        ("AS 0", 0xc0, &[2, 1, 0, 0, 0, 0], Discard, unmerged),
        ("one octet", 0xc0, &[2], Discard, unmerged),
        ("confederation segments", 0xc0, &[3, 1, 0, 1, 0, 1, 2, 1, 0, 1, 0, 0], Accepted, |a| {
            a.as_path.0.len() == 1
        }),
        ("longer than AS_PATH", 0xc0, &[2, 3, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 2], Accepted, unmerged),
        ("partial bit set", 0xe0, &[2, 1, 0, 1, 0, 0], Accepted, merged),
        ("not transitive", 0x80, &[2, 1, 0, 1, 0, 0], TreatAsWithdraw, unmerged),
    ];
    for (name, flags, value, expect, check) in cases {
        let set = [on.with(trans(on)), vec![attribute(flags, 17, value)]].concat();
        let case = table.v4(on, &format!("AS4_PATH: {name}"), rfc, &set, expect);
        case.check = Some(check).filter(|_| expect != TreatAsWithdraw);
    }
    // CVE-2026-41643: malformed, and in front of AS_PATH.
    let set = [vec![attribute(0xc0, 17, &[2, 9, 0])], on.with(trans(on))].concat();
    table.v4(on, "AS4_PATH: malformed, in front of AS_PATH", rfc, &set, Discard);
    let set = [on.without(2), vec![attribute(0xc0, 17, &[2, 1, 0, 1, 0, 0])]].concat();
    table.v4(on, "AS4_PATH: no AS_PATH", "RFC 7606 section 3 d", &set, TreatAsWithdraw);
    let four = attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xea]);
    table.v4(
        on,
        "AS_PATH: AS numbers of four octets",
        "RFC 7606 section 7.2",
        &on.with(four),
        TreatAsWithdraw,
    );
}

fn aggregators(table: &mut Table, on: Kind) {
    let rfc = "RFC 6793 section 4.2.3";
    let new = attribute(0xc0, 18, &[0, 1, 0, 0, 10, 0, 0, 9]);
    let aggregator = |asn: u16| attribute(0xc0, 7, &[&asn.to_be_bytes()[..], &[10, 0, 0, 8]].concat());
    let set = |asn, more: &[Vec<u8>]| [on.with(trans(on)), vec![aggregator(asn)], more.to_vec()].concat();
    table.v4(on, "AGGREGATOR: good", rfc, &set(65010, &[]), Accepted);
    table.v4(
        on,
        "AGGREGATOR: eight octets",
        "RFC 7606 section 7.7",
        &on.with(attribute(0xc0, 7, &[1; 8])),
        Discard,
    );
    table.v4(on, "AGGREGATOR: AS 0", "RFC 7607 section 2", &set(0, &[]), Discard);
    table.v4(on, "AS4_AGGREGATOR: good", rfc, &set(23456, std::slice::from_ref(&new)), Accepted).check =
        Some(|a| a.aggregator.is_some_and(|aggregator| aggregator.asn.0 == 65536));
    let path = attribute(0xc0, 17, &[2, 1, 0, 1, 0, 0]);
    table
        .v4(
            on,
            "AS4_AGGREGATOR: beside an AGGREGATOR of another AS",
            rfc,
            &set(65010, &[new, path]),
            Accepted,
        )
        .check = Some(|a| {
        a.aggregator.is_some_and(|aggregator| aggregator.asn.0 == 65010)
            && a.as_path.occurrences(Asn(65536)) == 0
    });
    for (name, value) in [
        ("six octets", &[1; 6][..]),
        ("nine octets", &[1; 9]),
        ("no octet", &[]),
        ("AS 0", &[0, 0, 0, 0, 1, 1, 1, 1]),
    ] {
        let bad = attribute(0xc0, 18, value);
        table.v4(on, &format!("AS4_AGGREGATOR: {name}"), "RFC 6793 section 6", &set(23456, &[bad]), Discard);
    }
}
