//! Fields of UPDATE, framing, and messages that are out of place.

use crate::table::{Expect, Kind, OWN_AS, Routes, Table, V4, V6, attribute, unreach, update};
use crate::transport_support::{KEEPALIVE, OPEN, UPDATE, message};

use Expect::{Accepted, Discard, Kept, Reset, TreatAsWithdraw, Withdrawn};

pub(crate) fn add(table: &mut Table) {
    for on in Kind::BOTH {
        fields(table, on);
        prefixes(table, on);
        withdrawals(table, on);
        without_prefixes(table, on);
        framing(table, on);
    }
    extended(table);
}

fn raw(table: &mut Table, on: Kind, name: &str, rfc: &'static str, body: &[u8], expect: Expect) {
    table.message(on, name, rfc, Routes::Both, message(UPDATE, body), expect);
}

/// Lengths of fields that contradict that of the message.
fn fields(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 3 b";
    raw(
        table,
        on,
        "withdrawn routes longer than the message",
        rfc,
        &[0, 9, 24, 198, 51, 100, 0, 0],
        Reset(3, 1),
    );
    raw(table, on, "65535 octets of withdrawn routes", rfc, &[255, 255, 0, 0], Reset(3, 1));
    raw(table, on, "withdrawn routes up to the end", rfc, &[0, 2, 8, 10], Reset(3, 1));
    raw(table, on, "attributes longer than the message", rfc, &[0, 0, 0, 9, 0x40, 1, 1, 0], Reset(3, 1));
    raw(table, on, "65535 octets of attributes", rfc, &[0, 0, 255, 255], Reset(3, 1));
    raw(
        table,
        on,
        "attributes an octet longer than the message",
        rfc,
        &[0, 0, 0, 5, 0x40, 1, 1, 0],
        Reset(3, 1),
    );
    let mut shorter = update(&[], &on.good(), &V4);
    // The last octet of the attributes becomes the first of the NLRI: a prefix of 2 bits, and what is left is none.
    let length = u16::from_be_bytes([shorter[21], shorter[22]]) - 1;
    shorter[21..23].copy_from_slice(&length.to_be_bytes());
    table.message(
        on,
        "attributes an octet shorter than they are",
        "RFC 7606 section 5.3",
        Routes::Both,
        shorter,
        Reset(3, 10),
    );
}

fn prefixes(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 5.3";
    for (name, nlri) in [
        ("33 bits", &[33, 1, 2, 3, 4, 5][..]),
        ("255 bits", &[255, 1, 2, 3, 4]),
        ("24 bits in two octets", &[24, 1, 2]),
        ("a length and nothing more", &[32]),
        ("a second prefix cut short", &[24, 198, 51, 100, 16, 1]),
    ] {
        table.message(
            on,
            &format!("NLRI: {name}"),
            rfc,
            Routes::Both,
            update(&[], &on.good(), nlri),
            Reset(3, 10),
        );
        table.message(
            on,
            &format!("withdrawn routes: {name}"),
            "RFC 7606 section 3 i",
            Routes::Both,
            update(nlri, &[], &[]),
            Reset(3, 10),
        );
    }
    let mut add = |name: &str, nlri: &[u8]| {
        table.message(
            on,
            &format!("NLRI: {name}"),
            "RFC 4271 section 4.3",
            Routes::V4,
            update(&[], &on.good(), nlri),
            Accepted,
        );
    };
    add("bits behind the prefix", &[24, 198, 51, 100, 23, 198, 51, 101]);
    add("lengths 0 and 32", &[&V4[..], &[0, 32, 198, 51, 100, 9]].concat());
    add("a prefix twice", &[V4, V4].concat());
}

fn withdrawals(table: &mut Table, on: Kind) {
    let rfc = "RFC 4271 section 4.3";
    table.message(on, "withdrawn", rfc, Routes::V4, update(&V4, &[], &[]), Withdrawn);
    table.message(on, "withdrawn, with attributes", rfc, Routes::V4, update(&V4, &on.good(), &[]), Withdrawn);
    table.message(on, "withdrawn twice", rfc, Routes::V4, update(&[V4, V4].concat(), &[], &[]), Withdrawn);
    table.message(
        on,
        "withdrawn with bits behind it",
        rfc,
        Routes::V4,
        update(&[24, 198, 51, 100, 25, 198, 51, 100, 0x7f], &[], &[]),
        Withdrawn,
    );
    table.message(on, "withdrawn and announced", rfc, Routes::V4, update(&V4, &on.good(), &V4), Accepted);
    table.message(
        on,
        "withdrawn, and never announced",
        "RFC 4271 section 9",
        Routes::Both,
        update(&[16, 203, 0], &[], &[]),
        Kept,
    );
    table.message(
        on,
        "withdrawn and announced malformed",
        "RFC 7606 section 2",
        Routes::V4,
        update(&V4, &on.with(attribute(0x40, 1, &[7])), &V4),
        TreatAsWithdraw,
    );
    table.message(on, "End-of-RIB of IPv4", "RFC 4724 section 2", Routes::Both, update(&[], &[], &[]), Kept);
}

/// What has no prefix to withdraw resets, unless it is only to be discarded.
fn without_prefixes(table: &mut Table, on: Kind) {
    let rfc = "RFC 7606 section 5.2";
    let mut add = |name: &str, set: &[Vec<u8>], expect| {
        table.message(on, &format!("no prefix: {name}"), rfc, Routes::Both, update(&[], set, &[]), expect);
    };
    add("good attributes", &on.good(), Kept);
    add("an unknown attribute alone", &[attribute(0xc0, 99, &[1])], Kept);
    add("a mandatory attribute missing", &on.without(1), Kept);
    add("a malformed ATOMIC_AGGREGATE", &on.with(attribute(0x40, 6, &[1])), Kept);
    add("a malformed AGGREGATOR", &on.with(attribute(0xc0, 7, &[1])), Kept);
    add("a malformed ORIGIN", &on.with(attribute(0x40, 1, &[9])), Reset(3, 6));
    add("a malformed AS_PATH", &on.with(attribute(0x40, 2, &[9])), Reset(3, 11));
    add("a malformed NEXT_HOP", &on.with(attribute(0x40, 3, &[9])), Reset(3, 5));
    add("a malformed MED", &on.with(attribute(0x80, 4, &[9])), Reset(3, 5));
    add("malformed COMMUNITIES", &on.with(attribute(0xc0, 8, &[9])), Reset(3, 5));
    add("malformed EXTENDED COMMUNITIES", &on.with(attribute(0xc0, 16, &[9])), Reset(3, 5));
    add("malformed LARGE_COMMUNITY", &on.with(attribute(0xc0, 32, &[9])), Reset(3, 5));
    add("wrong flags", &on.with(attribute(0xc0, 1, &[0])), Reset(3, 4));
    add("an attribute beyond the field", &on.with(vec![0xc0, 99, 9, 1]), Reset(3, 1));
    table.message(
        on,
        "only withdrawals: a malformed ORIGIN",
        rfc,
        Routes::Both,
        update(&V4, &[attribute(0x40, 1, &[9])], &[]),
        Reset(3, 6),
    );
    table.message(
        on,
        "only withdrawals: an attribute beyond the field",
        rfc,
        Routes::Both,
        update(&V4, &[vec![0xc0, 99, 9]], &[]),
        Reset(3, 1),
    );
}

/// Message Header Error, and messages that Established has no use for.
fn framing(table: &mut Table, on: Kind) {
    let rfc = "RFC 4271 section 6.1";
    let mut add = |name: &str, rfc, message: Vec<u8>, expect| {
        table.message(on, name, rfc, Routes::Both, message, expect);
    };
    let of =
        |length: u16, kind: u8, body: &[u8]| [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat();
    let mut marker = of(19, KEEPALIVE, &[]);
    marker[7] = 0xfe;
    add("a marker that is not all ones", rfc, marker, Reset(1, 1));
    add("length 0", rfc, of(0, UPDATE, &[]), Reset(1, 2));
    add("length 18", rfc, of(18, KEEPALIVE, &[]), Reset(1, 2));
    add("length 4097", rfc, of(4097, UPDATE, &[0; 4078]), Reset(1, 2));
    add("length 65535", rfc, of(65535, UPDATE, &[]), Reset(1, 2));
    add("KEEPALIVE of 20 octets", rfc, of(20, KEEPALIVE, &[0]), Reset(1, 2));
    add("OPEN of 28 octets", rfc, of(28, OPEN, &[0; 9]), Reset(1, 2));
    add("UPDATE of 22 octets", rfc, of(22, UPDATE, &[0; 3]), Reset(1, 2));
    add("ROUTE-REFRESH of 22 octets", "RFC 7313 section 5", of(22, 5, &[0; 3]), Reset(1, 2));
    add("message type 0", rfc, of(19, 0, &[]), Reset(1, 3));
    add("message type 6, which is not negotiated", rfc, of(23, 6, &[0; 4]), Reset(1, 3));
    add("message type 255", rfc, of(19, 255, &[]), Reset(1, 3));
    let id = [10, 9, 9, on as u8 + 1];
    let open =
        [&[4][..], &(if on.is_internal() { OWN_AS } else { on.asn() }).to_be_bytes(), &[0, 0], &id, &[0]]
            .concat();
    add("OPEN in Established", "RFC 6608 section 3", message(OPEN, &open), Reset(5, 3));
}

/// RFC 8654.
fn extended(table: &mut Table) {
    let rfc = "RFC 8654 section 4";
    let on = Kind::Extended;
    let long: Vec<u16> = (0..3000).map(|n| 1000 + n % 500).collect();
    let path: Vec<u8> = long.chunks(255).flat_map(|asns| on.segment(2, asns)).collect();
    let path = [on.path(), path].concat();
    table.v4(on, "an AS_PATH of 3000 numbers", rfc, &on.with(attribute(0x40, 2, &path)), Accepted);
    table.v4(
        on,
        "an unknown attribute of 60000 octets",
        rfc,
        &on.with(attribute(0xc0, 99, &[7; 60_000])),
        Accepted,
    );
    table.v4(
        on,
        "a malformed ORIGIN in 60000 octets",
        "RFC 7606 section 7.1",
        &[on.with(attribute(0x40, 1, &[7])), vec![attribute(0xc0, 99, &[7; 60_000])]].concat(),
        TreatAsWithdraw,
    );
    table.v4(
        on,
        "20000 empty attributes of one type",
        "RFC 7606 section 3 g",
        &[on.good(), vec![attribute(0xc0, 99, &[]); 20_000]].concat(),
        Discard,
    );
    let withdrawn = [&V4[..], &[8, 10].repeat(30_000)].concat();
    table.message(on, "30001 withdrawals", rfc, Routes::V4, update(&withdrawn, &[], &[]), Withdrawn);
    let gone = unreach(2, 1, &[&V6[..], &[16, 0x20, 0x02].repeat(15_000)].concat());
    table.message(
        on,
        "15001 withdrawals in MP_UNREACH_NLRI",
        rfc,
        Routes::V6,
        update(&[], &[gone], &[]),
        Withdrawn,
    );
    let bad = update(&[24, 1, 2, 3].repeat(16_000)[..63_999], &[], &[]);
    table.message(
        on,
        "16000 withdrawals, the last cut short",
        "RFC 7606 section 3 i",
        Routes::Both,
        bad,
        Reset(3, 10),
    );
    table.message(
        on,
        "KEEPALIVE of 4097 octets",
        rfc,
        Routes::Both,
        [&[0xff; 16][..], &[16, 1, KEEPALIVE], &[0; 4078]].concat(),
        Reset(1, 2),
    );
    table.message(
        on,
        "OPEN of 4097 octets",
        rfc,
        Routes::Both,
        [&[0xff; 16][..], &[16, 1, OPEN], &[0; 4078]].concat(),
        Reset(1, 2),
    );
}
