//! Nexthop objects (`struct nhmsg`, linux/nexthop.h), which the codec crates do not know.
//!
//! Other routing daemons install routes that only name such an object. With `net.ipv4.nexthop_compat_mode=0` the
//! kernel then leaves gateway and link out of the route, so the objects are read to know where it leads.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;

use super::{Error, Request, Socket};
use crate::route::{NextHop, NextHops};

const RTM_GETNEXTHOP: u16 = 106;
/// Length of `struct nhmsg`: family, scope, protocol, reserved, flags.
const HEADER_LEN: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nexthop {
    id: u32,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A single leg.
    Leg(NextHop),
    /// Ids of single objects with their weights.
    Group(Vec<(u32, u16)>),
    /// A blackhole, or an object for something other than routes.
    Other,
}

impl Nexthop {
    fn decode(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = payload.split_first_chunk::<HEADER_LEN>()?;
        let [.., a, b, c, d] = *header;
        let onlink = u32::from_ne_bytes([a, b, c, d]) & RTNH_F_ONLINK != 0;
        let (mut id, mut link, mut gateway, mut group) = (None, None, None, None);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            let value = attribute.value();
            match attribute.kind() {
                NHA_ID => id = value.try_into().ok().map(u32::from_ne_bytes),
                NHA_OIF => link = value.try_into().ok().map(u32::from_ne_bytes),
                NHA_GATEWAY => gateway = address(value),
                NHA_GROUP => group = Some(members(value)),
                _ => {}
            }
        }
        let kind = match (group, link) {
            (Some(members), _) => Kind::Group(members),
            (None, Some(link)) => Kind::Leg(NextHop { gateway, link, weight: 1, onlink }),
            (None, None) => Kind::Other,
        };
        Some(Self { id: id?, kind })
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(value).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || <[u8; 16]>::try_from(value).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4().or_else(v6)
}

/// Reads an array of `struct nexthop_grp`: id, weight less one in two parts (the high one since Linux 6.13), and
/// two reserved bytes.
fn members(value: &[u8]) -> Vec<(u32, u16)> {
    let (entries, _) = value.as_chunks::<8>();
    entries
        .iter()
        .map(|[a, b, c, d, low, high, ..]| {
            let weight = u16::from_be_bytes([*high, *low]).saturating_add(1);
            (u32::from_ne_bytes([*a, *b, *c, *d]), weight)
        })
        .collect()
}

/// The legs that the objects of a namespace stand for, by id.
#[derive(Debug, Default)]
pub(super) struct Nexthops(BTreeMap<u32, Kind>);

impl Nexthops {
    /// The legs behind an id; none for a blackhole or an id that is not there.
    pub(super) fn legs(&self, id: u32) -> NextHops {
        match self.0.get(&id) {
            Some(Kind::Leg(leg)) => NextHops::from(*leg),
            Some(Kind::Group(members)) => members
                .iter()
                .filter_map(|(id, weight)| match self.0.get(id) {
                    Some(Kind::Leg(leg)) => Some(NextHop { weight: *weight, ..*leg }),
                    _ => None,
                })
                .collect(),
            Some(Kind::Other) | None => NextHops::default(),
        }
    }
}

impl Socket {
    /// All nexthop objects of the namespace.
    pub(super) fn nexthops(&mut self) -> Result<Nexthops, Error> {
        let request = Request::raw(RTM_GETNEXTHOP, 0, vec![0; HEADER_LEN]);
        let objects = self.dump(&request, |_, payload| Nexthop::decode(payload))?;
        Ok(Nexthops(objects.into_iter().map(|object| (object.id, object.kind)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes
    }

    fn object(id: u32, rest: &[Vec<u8>]) -> Nexthop {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(attribute(NHA_ID, &id.to_ne_bytes()));
        bytes.extend(rest.concat());
        Nexthop::decode(&bytes).unwrap()
    }

    #[test]
    fn groups_stand_for_the_legs_of_their_members() {
        let leg =
            object(1, &[attribute(NHA_OIF, &3u32.to_ne_bytes()), attribute(NHA_GATEWAY, &[10, 0, 0, 1])]);
        let mut members = Vec::new();
        for (id, weight) in [(1u32, 4u8), (9, 0)] {
            members.extend_from_slice(&id.to_ne_bytes());
            members.extend_from_slice(&[weight, 0, 0, 0]);
        }
        let group = object(2, &[attribute(NHA_GROUP, &members)]);
        assert_eq!(group.kind, Kind::Group(vec![(1, 5), (9, 1)]));
        let objects = Nexthops([leg, group].into_iter().map(|object| (object.id, object.kind)).collect());
        let expected = NextHops::from(NextHop::via("10.0.0.1".parse().unwrap(), 3));
        assert_eq!((objects.legs(1), objects.legs(2)), (expected.clone(), expected));
        assert!(objects.legs(7).is_empty());
    }

    #[test]
    fn short_messages_are_refused() {
        for length in 0..HEADER_LEN + 8 {
            assert_eq!(Nexthop::decode(&vec![0; length]), None);
        }
    }
}
