//! Nexthop objects (`struct nhmsg`, linux/nexthop.h), which the codec crates do not know.
//!
//! With `net.ipv4.nexthop_compat_mode=0` the kernel leaves gateway and link out of a route that names an object, so the
//! objects are read to know where it leads, other programs' too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NlasIterator};
use nix::errno::Errno;

use super::message::Encoder;
use super::{Error, Mode, Request, Socket};
use crate::nexthop::{Nexthop, NexthopKind, Nexthops, Resilience};
use crate::route::{NextHop, Protocol};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
/// Length of `struct nhmsg`: family, scope, protocol, reserved, flags.
const HEADER_LEN: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_RES_GROUP: u16 = 12;
/// A value of `NHA_GROUP_TYPE`; 0 is the usual kind.
const NEXTHOP_GRP_TYPE_RES: u16 = 1;
/// The attributes in `NHA_RES_GROUP`. Times are in hundredths of a second (`USER_HZ`).
const NHA_RES_GROUP_BUCKETS: u16 = 1;
const NHA_RES_GROUP_IDLE_TIMER: u16 = 2;
const NHA_RES_GROUP_UNBALANCED_TIMER: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;
const RTNH_F_ONLINK: u32 = 4;

impl Nexthop {
    /// Appends the request that writes the object.
    pub(super) fn encode(&self, mode: Mode, sequence: u32, out: &mut Vec<u8>) {
        let flags = match mode {
            Mode::Add => NLM_F_CREATE | NLM_F_EXCL,
            Mode::Replace => NLM_F_REPLACE,
        };
        let (family, onlink) = match &self.kind {
            NexthopKind::Leg(leg) => {
                let family = leg.gateway.map_or(libc::AF_INET, |gateway| match gateway {
                    IpAddr::V4(_) => libc::AF_INET,
                    IpAddr::V6(_) => libc::AF_INET6,
                });
                (family, leg.onlink)
            }
            NexthopKind::Group { .. } | NexthopKind::Other => (libc::AF_UNSPEC, false),
        };
        let mut request = Encoder::new(out, RTM_NEWNEXTHOP, flags, sequence);
        request.bytes(&header(family, self.protocol, if onlink { RTNH_F_ONLINK } else { 0 }));
        request.attribute(NHA_ID, &self.id.to_ne_bytes());
        match &self.kind {
            NexthopKind::Leg(leg) => {
                request.attribute(NHA_OIF, &leg.link.to_ne_bytes());
                if let Some(gateway) = leg.gateway {
                    request.address(NHA_GATEWAY, gateway);
                }
            }
            NexthopKind::Group { members, resilience } => {
                let members: Vec<u8> = members.iter().flat_map(member).collect();
                request.attribute(NHA_GROUP, &members);
                if let Some(resilience) = resilience {
                    request.attribute(NHA_GROUP_TYPE, &NEXTHOP_GRP_TYPE_RES.to_ne_bytes());
                    request.attribute(NHA_RES_GROUP | NLA_F_NESTED, &resilience.encode());
                }
            }
            // The kernel refuses it: there is nothing that it stands for.
            NexthopKind::Other => {}
        }
        request.end();
    }

    /// The request that deletes the object, and the routes over it.
    pub fn delete(&self) -> Request {
        let mut payload = header(libc::AF_UNSPEC, Protocol(0), 0).to_vec();
        payload.extend(8u16.to_ne_bytes());
        payload.extend(NHA_ID.to_ne_bytes());
        payload.extend(self.id.to_ne_bytes());
        Request::raw(RTM_DELNEXTHOP, 0, payload)
    }

    /// Appends the request that deletes the object with this id, whosever it is.
    pub(super) fn encode_delete(id: u32, sequence: u32, out: &mut Vec<u8>) {
        let mut request = Encoder::new(out, RTM_DELNEXTHOP, 0, sequence);
        request.bytes(&header(libc::AF_UNSPEC, Protocol(0), 0));
        request.attribute(NHA_ID, &id.to_ne_bytes());
        request.end();
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = payload.split_first_chunk::<HEADER_LEN>()?;
        let [_, _, protocol, _, a, b, c, d] = *header;
        let onlink = u32::from_ne_bytes([a, b, c, d]) & RTNH_F_ONLINK != 0;
        let (mut id, mut link, mut gateway, mut group, mut resilience) = (None, None, None, None, None);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            let value = attribute.value();
            match attribute.kind() {
                NHA_ID => id = value.try_into().ok().map(u32::from_ne_bytes),
                NHA_OIF => link = value.try_into().ok().map(u32::from_ne_bytes),
                NHA_GATEWAY => gateway = address(value),
                NHA_GROUP => group = Some(members(value)),
                NHA_RES_GROUP => resilience = Some(Resilience::decode(value)),
                _ => {}
            }
        }
        let kind = match (group, link) {
            (Some(members), _) => NexthopKind::Group { members, resilience },
            (None, Some(link)) => NexthopKind::Leg(NextHop { gateway, link, weight: 1, onlink }),
            (None, None) => NexthopKind::Other,
        };
        Some(Self { id: id?, protocol: Protocol(protocol), kind })
    }
}

impl Resilience {
    /// The attributes in `NHA_RES_GROUP`.
    fn encode(&self) -> Vec<u8> {
        let mut attributes = Vec::new();
        let mut attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
            attributes.extend(length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()));
            attributes.extend_from_slice(value);
            attributes.resize(attributes.len().next_multiple_of(4), 0);
        };
        attribute(NHA_RES_GROUP_BUCKETS, &self.buckets.to_ne_bytes());
        attribute(NHA_RES_GROUP_IDLE_TIMER, &ticks(self.idle_time).to_ne_bytes());
        attribute(NHA_RES_GROUP_UNBALANCED_TIMER, &ticks(self.unbalanced_time).to_ne_bytes());
        attributes
    }

    fn decode(value: &[u8]) -> Self {
        let mut read = Self { buckets: 0, idle_time: Duration::ZERO, unbalanced_time: Duration::ZERO };
        let time = |value: &[u8]| {
            let ticks = value.try_into().map(u32::from_ne_bytes).unwrap_or_default();
            Duration::from_millis(u64::from(ticks).saturating_mul(10))
        };
        for attribute in NlasIterator::new(value).map_while(Result::ok) {
            let value = attribute.value();
            match attribute.kind() {
                NHA_RES_GROUP_BUCKETS => {
                    read.buckets = value.try_into().map(u16::from_ne_bytes).unwrap_or_default();
                }
                NHA_RES_GROUP_IDLE_TIMER => read.idle_time = time(value),
                NHA_RES_GROUP_UNBALANCED_TIMER => read.unbalanced_time = time(value),
                _ => {}
            }
        }
        read
    }
}

/// Hundredths of a second.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 10).unwrap_or(u32::MAX)
}

fn header(family: libc::c_int, protocol: Protocol, flags: u32) -> [u8; HEADER_LEN] {
    let family = u8::try_from(family).unwrap_or_default();
    let [a, b, c, d] = flags.to_ne_bytes();
    [family, 0, protocol.0, 0, a, b, c, d]
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(value).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || <[u8; 16]>::try_from(value).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    v4().or_else(v6)
}

/// `struct nexthop_grp`: id, weight less one in two parts (the high one since Linux 6.13; 0 for weights up to 256), and two reserved
/// bytes.
fn member((id, weight): &(u32, u16)) -> [u8; 8] {
    let [a, b, c, d] = id.to_ne_bytes();
    let weight = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
    [a, b, c, d, weight, 0, 0, 0]
}

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

impl Socket {
    /// All nexthop objects of the namespace; `None` where the kernel has no such thing.
    pub fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        let request = Request::raw(RTM_GETNEXTHOP, 0, vec![0; HEADER_LEN]);
        match self.dump(&request, |_, payload| Nexthop::decode(payload)) {
            Ok(objects) => Ok(Some(objects.into_iter().collect())),
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
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

    fn object(id: u32, kind: NexthopKind) -> Nexthop {
        Nexthop { id, protocol: Protocol::WEFT, kind }
    }

    #[test]
    fn objects_are_encoded_as_linux_nexthop_h_says() {
        let leg = NextHop { onlink: true, ..NextHop::via([10, 0, 0, 1].into(), 3) };
        let mut bytes = Vec::new();
        object(7, NexthopKind::Leg(leg)).encode(Mode::Add, 9, &mut bytes);
        let expected = [
            48u32.to_ne_bytes().to_vec(),
            104u16.to_ne_bytes().to_vec(),
            0x601u16.to_ne_bytes().to_vec(),
            9u32.to_ne_bytes().to_vec(),
            vec![0; 4],
            vec![2, 0, 176, 0],
            4u32.to_ne_bytes().to_vec(),
            attribute(NHA_ID, &7u32.to_ne_bytes()),
            attribute(NHA_OIF, &3u32.to_ne_bytes()),
            attribute(NHA_GATEWAY, &[10, 0, 0, 1]),
        ];
        assert_eq!(bytes, expected.concat());
        bytes.clear();
        Nexthop::encode_delete(7, 9, &mut bytes);
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[24..], attribute(NHA_ID, &7u32.to_ne_bytes()));
        let mut request = Vec::new();
        object(7, NexthopKind::Other).delete().encode(9, 0, &mut request);
        assert_eq!(request, bytes);
    }

    const RESILIENCE: Resilience = Resilience {
        buckets: 512,
        idle_time: Duration::from_secs(120),
        unbalanced_time: Duration::from_millis(70),
    };

    #[test]
    fn a_resilient_group_says_its_type_and_times_in_hundredths_of_a_second() {
        let kind = NexthopKind::Group { members: vec![(5, 3)], resilience: Some(RESILIENCE) };
        let mut bytes = Vec::new();
        object(7, kind).encode(Mode::Add, 9, &mut bytes);
        let nested = [
            attribute(NHA_RES_GROUP_BUCKETS, &[&512u16.to_ne_bytes()[..], &[0; 2]].concat()),
            attribute(NHA_RES_GROUP_IDLE_TIMER, &12_000u32.to_ne_bytes()),
            attribute(NHA_RES_GROUP_UNBALANCED_TIMER, &7u32.to_ne_bytes()),
        ];
        let mut nested = nested.concat();
        // The length of an attribute is without its padding.
        nested[..2].copy_from_slice(&6u16.to_ne_bytes());
        let mut kind = attribute(NHA_GROUP_TYPE, &[&1u16.to_ne_bytes()[..], &[0; 2]].concat());
        kind[..2].copy_from_slice(&6u16.to_ne_bytes());
        let group = attribute(NHA_GROUP, &[&5u32.to_ne_bytes()[..], &[2, 0, 0, 0]].concat());
        let expected =
            [attribute(NHA_ID, &7u32.to_ne_bytes()), group, kind, attribute(NHA_RES_GROUP | 0x8000, &nested)];
        assert_eq!(bytes[24..], expected.concat());
    }

    #[test]
    fn what_is_encoded_is_read_as_it_was() {
        let via = |address: &str| NexthopKind::Leg(NextHop::via(address.parse().unwrap(), 3));
        let resilience = Some(RESILIENCE);
        for kind in [
            via("10.0.0.1"),
            via("fe80::1"),
            NexthopKind::Group { members: vec![(1, 1), (2, 256)], resilience: None },
            NexthopKind::Group { members: vec![(1, 1)], resilience },
            NexthopKind::Other,
        ] {
            let (object, mut bytes) = (object(5, kind), Vec::new());
            object.encode(Mode::Replace, 1, &mut bytes);
            assert_eq!(Nexthop::decode(&bytes[16..]), Some(object));
        }
    }

    #[test]
    fn short_messages_are_refused() {
        for length in 0..HEADER_LEN + 8 {
            assert_eq!(Nexthop::decode(&vec![0; length]), None);
        }
    }
}
