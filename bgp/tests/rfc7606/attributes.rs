//! Each attribute × what is wrong with any attribute: length, flags, duplicates, the end of the field.

use crate::table::{Expect, Kind, Table, attribute};

/// An attribute as its RFC specifies it.
struct Attribute {
    name: &'static str,
    code: u8,
    flags: u8,
    /// A good value.
    value: fn(Kind) -> Vec<u8>,
    /// Of good values: what an eBGP peer's and an iBGP peer's come to.
    good: [Expect; 2],
    /// Of values that are an octet too long or too short, likewise.
    malformed: [Expect; 2],
    rfc: &'static str,
}

const DISCARD: [Expect; 2] = [Expect::Discard; 2];
const WITHDRAW: [Expect; 2] = [Expect::TreatAsWithdraw; 2];
const ACCEPTED: [Expect; 2] = [Expect::Accepted; 2];
const INTERNAL_ONLY: [Expect; 2] = [Expect::Discard, Expect::Accepted];
const INTERNAL_MALFORMED: [Expect; 2] = [Expect::Discard, Expect::TreatAsWithdraw];

const ATTRIBUTES: [Attribute; 17] = [
    Attribute {
        name: "ORIGIN",
        code: 1,
        flags: 0x40,
        value: |_| vec![1],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.1",
    },
    Attribute {
        name: "AS_PATH",
        code: 2,
        flags: 0x40,
        value: Kind::path,
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.2",
    },
    Attribute {
        name: "NEXT_HOP",
        code: 3,
        flags: 0x40,
        value: |_| vec![192, 0, 2, 8],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.3",
    },
    Attribute {
        name: "MULTI_EXIT_DISC",
        code: 4,
        flags: 0x80,
        value: |_| vec![0, 0, 0, 7],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.4",
    },
    Attribute {
        name: "LOCAL_PREF",
        code: 5,
        flags: 0x40,
        value: |_| vec![0, 0, 0, 200],
        good: INTERNAL_ONLY,
        malformed: INTERNAL_MALFORMED,
        rfc: "RFC 7606 section 7.5",
    },
    Attribute {
        name: "ATOMIC_AGGREGATE",
        code: 6,
        flags: 0x40,
        value: |_| vec![],
        good: ACCEPTED,
        malformed: DISCARD,
        rfc: "RFC 7606 section 7.6",
    },
    Attribute {
        name: "AGGREGATOR",
        code: 7,
        flags: 0xc0,
        value: |_| vec![0, 0, 0xfd, 0xf2, 10, 0, 0, 9],
        good: ACCEPTED,
        malformed: DISCARD,
        rfc: "RFC 7606 section 7.7",
    },
    Attribute {
        name: "COMMUNITIES",
        code: 8,
        flags: 0xc0,
        value: |_| vec![0xfd, 0xe8, 0, 3],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.8",
    },
    Attribute {
        name: "ORIGINATOR_ID",
        code: 9,
        flags: 0x80,
        value: |_| vec![10, 8, 8, 8],
        good: INTERNAL_ONLY,
        malformed: INTERNAL_MALFORMED,
        rfc: "RFC 7606 section 7.9",
    },
    Attribute {
        name: "CLUSTER_LIST",
        code: 10,
        flags: 0x80,
        value: |_| vec![10, 8, 8, 9],
        good: INTERNAL_ONLY,
        malformed: INTERNAL_MALFORMED,
        rfc: "RFC 7606 section 7.10",
    },
    Attribute {
        name: "EXTENDED COMMUNITIES",
        code: 16,
        flags: 0xc0,
        value: |_| vec![0, 2, 0xfd, 0xe8, 0, 0, 0, 1],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.14",
    },
    Attribute {
        name: "AS4_PATH",
        code: 17,
        flags: 0xc0,
        value: |_| vec![2, 1, 0, 1, 0, 0],
        good: DISCARD,
        malformed: DISCARD,
        rfc: "RFC 6793 section 3",
    },
    Attribute {
        name: "AS4_AGGREGATOR",
        code: 18,
        flags: 0xc0,
        value: |_| vec![0, 1, 0, 0, 10, 0, 0, 9],
        good: DISCARD,
        malformed: DISCARD,
        rfc: "RFC 6793 section 3",
    },
    Attribute {
        name: "IPv6 EXTENDED COMMUNITIES",
        code: 25,
        flags: 0xc0,
        value: |_| vec![9; 20],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 7606 section 7.15",
    },
    Attribute {
        name: "LARGE_COMMUNITY",
        code: 32,
        flags: 0xc0,
        value: |_| vec![3; 12],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 8092 section 6",
    },
    Attribute {
        name: "ONLY_TO_CUSTOMER",
        code: 35,
        flags: 0xc0,
        value: |_| vec![0, 0, 0xfd, 0xf2],
        good: ACCEPTED,
        malformed: WITHDRAW,
        rfc: "RFC 9234 section 5",
    },
    Attribute {
        name: "unknown 222",
        code: 222,
        flags: 0xc0,
        value: |_| vec![1, 2, 3],
        good: ACCEPTED,
        malformed: ACCEPTED,
        rfc: "RFC 4271 section 9",
    },
];

pub(crate) fn add(table: &mut Table) {
    for (which, on) in Kind::BOTH.into_iter().enumerate() {
        for attribute in &ATTRIBUTES {
            lengths(table, on, which, attribute);
            flags(table, on, which, attribute);
            duplicates(table, on, which, attribute);
        }
    }
}

fn lengths(table: &mut Table, on: Kind, which: usize, a: &Attribute) {
    let value = (a.value)(on);
    let (good, malformed) = (a.good[which], a.malformed[which]);
    let mut add = |name: &str, value: &[u8], expect| {
        let set = on.with(attribute(a.flags, a.code, value));
        table.v4(on, &format!("{}: {name}", a.name), a.rfc, &set, expect);
    };
    add("good", &value, good);
    add("an octet more", &[&value[..], &[0]].concat(), malformed);
    if let Some((_, shorter)) = value.split_last() {
        add("an octet less", shorter, malformed);
        let empty = match a.name {
            // An AS_PATH may be empty; that of an eBGP route begins with the peer's AS (RFC 4271 section 6.3).
            "AS_PATH" if on.is_internal() => Expect::Accepted,
            "AS_PATH" => Expect::Rejected("first-as"),
            _ => malformed,
        };
        add("no octet", &[], empty);
    }
    let set = on.with(attribute(a.flags | 0x10, a.code, &value));
    table.v4(on, &format!("{}: a length in two octets", a.name), "RFC 4271 section 4.3", &set, good);
    // The last attribute of the field says that it is longer than what is left of the field.
    let mut overrun = attribute(a.flags, a.code, &value);
    overrun[2] += 4;
    let set = on.with(overrun);
    table.v4(
        on,
        &format!("{}: beyond the field", a.name),
        "RFC 7606 section 4",
        &set,
        Expect::TreatAsWithdraw,
    );
    let set = on.with(vec![a.flags, a.code]);
    table.v4(on, &format!("{}: no length", a.name), "RFC 7606 section 4", &set, Expect::TreatAsWithdraw);
}

fn flags(table: &mut Table, on: Kind, which: usize, a: &Attribute) {
    let value = (a.value)(on);
    let known = a.code != 222;
    let conflict = |flags: u8| match flags & 0xc0 {
        _ if known => Expect::TreatAsWithdraw,
        // Of an unknown attribute the bits say what to do with it.
        0x00 | 0x40 => Expect::Reset(3, 2),
        _ => Expect::Accepted,
    };
    let mut add = |name: &str, flags: u8, rfc, expect| {
        let set = on.with(attribute(flags, a.code, &value));
        table.v4(on, &format!("{}: {name}", a.name), rfc, &set, expect);
    };
    let rfc = if known { "RFC 7606 section 3 c" } else { "RFC 4271 section 6.3" };
    for (name, bits) in
        [("optional bit wrong", 0x80), ("transitive bit wrong", 0x40), ("both bits wrong", 0xc0)]
    {
        add(name, a.flags ^ bits, rfc, conflict(a.flags ^ bits));
    }
    add("partial bit set", a.flags | 0x20, "RFC 4271 section 4.3", a.good[which]);
    add("unused bits set", a.flags | 0x0f, "RFC 4271 section 4.3", a.good[which]);
}

fn duplicates(table: &mut Table, on: Kind, which: usize, a: &Attribute) {
    let value = (a.value)(on);
    // A set in which the attribute is good by itself is accepted; the second one is discarded in any case.
    let expect = if a.good[which] == Expect::Accepted { Expect::Discard } else { a.good[which] };
    let mut twice = on.with(attribute(a.flags, a.code, &value));
    twice.push(attribute(a.flags, a.code, &value));
    table.v4(on, &format!("{}: twice", a.name), "RFC 7606 section 3 g", &twice, expect);
    *twice.last_mut().unwrap() = attribute(a.flags, a.code, &[&value[..], &[1]].concat());
    table.v4(on, &format!("{}: good, then malformed", a.name), "RFC 7606 section 3 g", &twice, expect);
    *twice.last_mut().unwrap() = attribute(a.flags ^ 0xc0, a.code, &value);
    table.v4(on, &format!("{}: good, then with wrong flags", a.name), "RFC 7606 section 3 g", &twice, expect);
    if a.code != 222 {
        let malformed = a.malformed[which];
        let mut first = on.with(attribute(a.flags, a.code, &[&value[..], &[1]].concat()));
        first.push(attribute(a.flags, a.code, &value));
        table.v4(on, &format!("{}: malformed, then good", a.name), "RFC 7606 section 3 g", &first, malformed);
    }
}
