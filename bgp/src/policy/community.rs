//! Communities as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::wire::attributes::{GRACEFUL_SHUTDOWN, LLGR_STALE, NO_LLGR, PathAttributes};

/// NO_EXPORT (RFC 1997): not to be told across the border of the AS.
pub const NO_EXPORT: u32 = 0xFFFF_FF01;
/// NO_ADVERTISE (RFC 1997): not to be told to any peer.
pub const NO_ADVERTISE: u32 = 0xFFFF_FF02;
/// NO_EXPORT_SUBCONFED (RFC 1997): not to be told to any external peer, one of the confederation included.
pub const NO_EXPORT_SUBCONFED: u32 = 0xFFFF_FF03;
/// BLACKHOLE (RFC 7999): packets to the prefix are to be dropped. It has no effect of its own: a policy sets [`DISCARD`].
pub const BLACKHOLE: u32 = 0xFFFF_029A;

/// The next hop, of either family, of a route whose packets are to be dropped: an address of the discard prefix (RFC 6666). Only a
/// policy of ours sets it.
pub const DISCARD: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// Whether a next hop is of the discard prefix, 100::/64 (RFC 6666).
#[must_use]
pub fn is_discard(next_hop: IpAddr) -> bool {
    matches!(next_hop, IpAddr::V6(address) if address.segments().starts_with(&[0x100, 0, 0, 0]))
}

/// The registry's names (IANA "BGP Well-known Communities").
const WELL_KNOWN: [(&str, u32); 7] = [
    ("no-export", NO_EXPORT),
    ("no-advertise", NO_ADVERTISE),
    ("no-export-subconfed", NO_EXPORT_SUBCONFED),
    ("graceful-shutdown", GRACEFUL_SHUTDOWN),
    ("llgr-stale", LLGR_STALE),
    ("no-llgr", NO_LLGR),
    ("blackhole", BLACKHOLE),
];

/// The sub-types of extended communities that have a name here (RFC 4360 sections 4 and 5).
const ROUTE_TARGET: u8 = 2;
const ROUTE_ORIGIN: u8 = 3;

/// One community of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// Standard (RFC 1997): `65000:1`, or a well-known name.
    Standard(u32),
    /// Extended (RFC 4360): `rt:65000:1` or `ro:192.0.2.1:1`.
    Extended([u8; 8]),
    /// Large (RFC 8092): `65000:1:2`.
    Large([u32; 3]),
}

impl Community {
    /// Whether a path carries it.
    #[must_use]
    pub fn is_on(&self, attributes: &PathAttributes) -> bool {
        match self {
            Self::Standard(community) => attributes.communities.binary_search(community).is_ok(),
            Self::Extended(community) => attributes.ext_communities.binary_search(community).is_ok(),
            Self::Large(community) => attributes.large_communities.binary_search(community).is_ok(),
        }
    }

    /// Puts it on a path that does not carry it.
    pub fn add_to(self, attributes: &mut PathAttributes) {
        match self {
            Self::Standard(community) => insert(&mut attributes.communities, community),
            Self::Extended(community) => insert(&mut attributes.ext_communities, community),
            Self::Large(community) => insert(&mut attributes.large_communities, community),
        }
    }

    /// Takes it off a path that carries it.
    pub fn remove_from(&self, attributes: &mut PathAttributes) {
        match self {
            Self::Standard(community) => attributes.communities.retain(|c| c != community),
            Self::Extended(community) => attributes.ext_communities.retain(|c| c != community),
            Self::Large(community) => attributes.large_communities.retain(|c| c != community),
        }
        attributes.tidy_partial();
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, value: T) {
    if let Err(place) = sorted.binary_search(&value) {
        sorted.insert(place, value);
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(community) => match WELL_KNOWN.iter().find(|(_, known)| known == community) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", community >> 16, community & 0xffff),
            },
            Self::Large([global, first, second]) => write!(f, "{global}:{first}:{second}"),
            Self::Extended([kind @ 0..=2, sub_type @ (ROUTE_TARGET | ROUTE_ORIGIN), a, b, c, d, e, g])
                if *kind != 2 || (*a, *b) != (0, 0) =>
            {
                f.write_str(if *sub_type == ROUTE_TARGET { "rt:" } else { "ro:" })?;
                let (four, two) = (u32::from_be_bytes([*a, *b, *c, *d]), u16::from_be_bytes([*e, *g]));
                match kind {
                    0 => write!(f, "{}:{}", four >> 16, u32::from_be_bytes([*c, *d, *e, *g])),
                    1 => write!(f, "{}:{two}", Ipv4Addr::from(four)),
                    _ => write!(f, "{four}:{two}"),
                }
            }
            // One that has no notation, as it is on the wire.
            Self::Extended(octets) => octets.iter().try_for_each(|octet| write!(f, "{octet:02x}")),
        }
    }
}

impl FromStr for Community {
    /// A sentence that says what is wrong.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, community)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Standard(*community));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let number = |part: &str, max: u32| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| part.parse::<u32>().ok()).flatten().filter(|number| *number <= max);
            number.ok_or_else(|| format!("\"{part}\" in \"{text}\" is not a number from 0 to {max}"))
        };
        let (two, four) = (u32::from(u16::MAX), u32::MAX);
        match parts.as_slice() {
            ["rt", administrator, value] => extended(ROUTE_TARGET, administrator, value, number),
            ["ro", administrator, value] => extended(ROUTE_ORIGIN, administrator, value, number),
            [asn, value] => Ok(Self::Standard(number(asn, two)? << 16 | number(value, two)?)),
            [global, first, second] => {
                Ok(Self::Large([number(global, four)?, number(first, four)?, number(second, four)?]))
            }
            _ => Err(format!("\"{text}\" is not a community")),
        }
    }
}

/// An address and 16 bits, an AS of two octets and 32 bits, or an AS of four octets and 16 bits (RFC 4360 section 3, RFC 5668).
fn extended(
    sub_type: u8,
    administrator: &str,
    value: &str,
    number: impl Fn(&str, u32) -> Result<u32, String>,
) -> Result<Community, String> {
    let short = |value: &str| {
        number(value, u32::from(u16::MAX)).map(|value| {
            let [_, _, e, f] = value.to_be_bytes();
            [e, f]
        })
    };
    let (kind, [a, b, c, d], [e, f]) = if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        (1, address.octets(), short(value)?)
    } else {
        let asn = number(administrator, u32::MAX)?;
        match u16::try_from(asn) {
            Ok(asn) => {
                let ([a, b], [c, d, e, f]) = (asn.to_be_bytes(), number(value, u32::MAX)?.to_be_bytes());
                (0, [a, b, c, d], [e, f])
            }
            Err(_) => (2, asn.to_be_bytes(), short(value)?),
        }
    };
    Ok(Community::Extended([kind, sub_type, a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::samples;
    use proptest::prelude::*;

    #[test]
    fn communities_of_every_kind_are_read_and_shown() {
        for (text, community) in [
            ("65000:1", Community::Standard(65000 << 16 | 1)),
            ("0:0", Community::Standard(0)),
            ("no-export", Community::Standard(0xFFFF_FF01)),
            ("no-advertise", Community::Standard(0xFFFF_FF02)),
            ("no-export-subconfed", Community::Standard(0xFFFF_FF03)),
            ("graceful-shutdown", Community::Standard(0xFFFF_0000)),
            ("llgr-stale", Community::Standard(0xFFFF_0006)),
            ("no-llgr", Community::Standard(0xFFFF_0007)),
            ("blackhole", Community::Standard(65535 << 16 | 666)),
            ("4200000000:1:4294967295", Community::Large([4_200_000_000, 1, u32::MAX])),
            ("rt:65000:70000", Community::Extended([0, 2, 0xfd, 0xe8, 0, 1, 0x11, 0x70])),
            ("ro:192.0.2.1:7", Community::Extended([1, 3, 192, 0, 2, 1, 0, 7])),
            ("rt:65536:257", Community::Extended([2, 2, 0, 1, 0, 0, 1, 1])),
        ] {
            assert_eq!(text.parse(), Ok(community));
            assert_eq!(community.to_string(), text);
        }
        // Numbers mean what the names mean.
        assert_eq!("65535:65281".parse(), Ok(Community::Standard(NO_EXPORT)));
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in [
            "",
            "1",
            ":",
            "65536:1",
            "1:65536",
            "-1:1",
            "+1:1",
            "1:2:3:4",
            "1::2",
            "rt:1",
            "rt:65536:65536",
            "rt:192.0.2.1:65536",
            "ro:a:1",
            "1:4294967296:0",
            "internet",
            "No-Export",
            " 1:2",
            "1:2 ",
        ] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(standard: u32, large: [u32; 3], kind in 0u8..3, target: bool, value: [u8; 6]) {
            let [a, b, c, d, e, f] = value;
            // A four-octet form of a number that fits into two is another community, which has no notation of its own.
            prop_assume!(kind != 2 || a != 0 || b != 0);
            let extended = [kind, if target { 2 } else { 3 }, a, b, c, d, e, f];
            for community in [Community::Standard(standard), Community::Large(large), Community::Extended(extended)] {
                prop_assert_eq!(community.to_string().parse(), Ok(community));
            }
        }

        #[test]
        fn adding_and_removing_keeps_a_sorted_set(steps in prop::collection::vec((0u32..6, any::<bool>()), 0..30)) {
            let mut attributes = samples::attributes();
            let mut reference = std::collections::BTreeSet::new();
            for (number, add) in steps {
                let community = Community::Standard(number);
                if add {
                    community.add_to(&mut attributes);
                    reference.insert(number);
                } else {
                    community.remove_from(&mut attributes);
                    reference.remove(&number);
                }
                prop_assert_eq!(community.is_on(&attributes), add);
            }
            prop_assert_eq!(attributes.communities, reference.into_iter().collect::<Vec<_>>());
        }
    }
}
