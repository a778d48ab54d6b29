//! Path attributes as octets: a quarter of the memory that they take as a value. Tables keep them like that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::attribute_set::{self, Purpose};
use super::decode::Agreed;
use super::encode::put_all;
use super::errors::Errors;
use super::multiprotocol::MpNextHop;
use crate::types::{FamilySet, PeerType};
use crate::wire::attributes::PathAttributes;

/// The octets of a next hop, their number before them; then all other attributes with AS numbers of four octets, NEXT_HOP among them if it is
/// an IPv4 address. Equal attributes have equal octets. None at all: an attribute has more octets than the wire can tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored(Arc<[u8]>);

impl Stored {
    /// Writes attributes over what is in `out`, as [`Self::new`] keeps them.
    pub fn write(attributes: &PathAttributes, out: &mut BytesMut) {
        out.clear();
        match (attributes.next_hop, attributes.next_hop_link_local) {
            (IpAddr::V4(address), _) => put_next_hop(&[&address.octets()], out),
            (IpAddr::V6(address), None) => put_next_hop(&[&address.octets()], out),
            (IpAddr::V6(address), Some(local)) => put_next_hop(&[&address.octets(), &local.octets()], out),
        }
        if put_all(attributes, attributes.next_hop.is_ipv4(), true, out).is_err() {
            out.clear();
        }
    }

    /// Keeps what [`Self::write`] has written.
    #[must_use]
    pub fn new(written: &[u8]) -> Self {
        Self(written.into())
    }

    /// What was written.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Next hop and all attributes but that, unless it is an IPv4 address.
    pub(super) fn parts(&self) -> Option<(MpNextHop, &[u8])> {
        let (length, rest) = self.0.split_first()?;
        let (next_hop, attributes) = rest.split_at_checked(usize::from(*length))?;
        let v6 = |octets: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?));
        let next_hop = match next_hop.len() {
            4 => MpNextHop {
                global: Ipv4Addr::from(<[u8; 4]>::try_from(next_hop).ok()?).into(),
                link_local: None,
            },
            _ => {
                let (global, link_local) = next_hop.split_at_checked(16)?;
                MpNextHop { global: v6(global)?.into(), link_local: v6(link_local) }
            }
        };
        Some((next_hop, attributes))
    }

    /// The next hop, the global one of two.
    pub(crate) fn next_hop(&self) -> Option<IpAddr> {
        self.parts().map(|(next_hop, _)| next_hop.global)
    }

    /// The attributes as a value again. None: they were too long.
    #[must_use]
    pub fn attributes(&self) -> Option<PathAttributes> {
        let (next_hop, octets) = self.parts()?;
        let agreed = Agreed {
            families: FamilySet::all(),
            four_octet_as: true,
            extended_next_hop: true,
            add_path: FamilySet::EMPTY,
            peer_type: PeerType::Internal,
        };
        attribute_set::decode(octets, Purpose::Copy(next_hop), &agreed, &mut Errors::default())
    }
}

fn put_next_hop(addresses: &[&[u8]], out: &mut BytesMut) {
    let length: usize = addresses.iter().map(|address| address.len()).sum();
    out.put_u8(u8::try_from(length).unwrap_or(u8::MAX));
    addresses.iter().for_each(|address| out.put_slice(address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(attributes: &PathAttributes) -> Stored {
        let mut out = BytesMut::from(&b"what was there"[..]);
        Stored::write(attributes, &mut out);
        Stored::new(&out)
    }

    #[test]
    fn next_hops_of_every_kind_come_back() {
        let link_local = Some("fe80::1".parse().unwrap());
        for (next_hop, next_hop_link_local) in [
            ("192.0.2.1", None),
            ("0.0.0.0", None),
            ("2001:db8::1", None),
            ("2001:db8::1", link_local),
            ("::", None),
        ] {
            let next_hop = next_hop.parse().unwrap();
            let attributes = PathAttributes { next_hop_link_local, ..PathAttributes::new(next_hop) };
            let stored = stored(&attributes);
            assert_eq!((stored.next_hop(), stored.attributes()), (Some(next_hop), Some(attributes)));
        }
    }

    #[test]
    fn what_no_message_can_carry_is_empty() {
        let communities = (0..20_000).collect();
        let attributes = PathAttributes { communities, ..PathAttributes::new([192, 0, 2, 1].into()) };
        let stored = stored(&attributes);
        assert_eq!((stored.octets(), stored.next_hop(), stored.attributes()), (&[][..], None, None));
    }
}
