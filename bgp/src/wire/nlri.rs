//! Prefixes on the wire: a length in bits and as many octets as those bits need (RFC 4271 section 4.3, RFC 4760 section 5), behind a path
//! identifier where that was agreed on (RFC 7911 section 3).

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reader::Reader;
use crate::types::Family;

/// What a field of prefixes is written of.
pub trait Nlri {
    /// The prefix.
    fn prefix(&self) -> IpNet;

    /// Which of the sender's paths to it is meant; none: it has but one.
    fn path_id(&self) -> Option<u32> {
        None
    }

    /// How many octets it takes.
    fn encoded_length(&self) -> usize {
        self.path_id().map_or(0, |_| PATH_ID) + 1 + usize::from(self.prefix().prefix_len()).div_ceil(8)
    }

    /// Appends it.
    fn encode(&self, out: &mut BytesMut) {
        if let Some(id) = self.path_id() {
            out.put_u32(id);
        }
        encode_prefix(&self.prefix(), out);
    }
}

impl Nlri for IpNet {
    fn prefix(&self) -> IpNet {
        *self
    }
}

/// One of several paths to a prefix (RFC 7911 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathNlri {
    /// The path identifier: of the prefix's paths only, and of one direction of one session.
    pub path_id: u32,
    /// The prefix.
    pub prefix: IpNet,
}

impl Nlri for PathNlri {
    fn prefix(&self) -> IpNet {
        self.prefix
    }

    fn path_id(&self) -> Option<u32> {
        Some(self.path_id)
    }
}

/// Octets of a path identifier.
const PATH_ID: usize = 4;

/// Why a field of prefixes cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// More bits than an address of the family has.
    #[error("a prefix of {length} bits, not 0 to {max}")]
    Length {
        /// The length found.
        length: u8,
        /// The longest that would do.
        max: u8,
    },
    /// The last prefix needs more octets than are left.
    #[error("a prefix of {length} bits, but only {left} octets are left")]
    Truncated {
        /// The length found.
        length: u8,
        /// The octets left.
        left: usize,
    },
    /// No prefix follows the last path identifier, or it is cut short itself.
    #[error("{left} octets are left, not a path identifier and a prefix")]
    PathId {
        /// The octets left.
        left: usize,
    },
}

/// Appends the prefixes of a field to `out`, and the path identifiers in front of them to `path_ids`, if there are any. Bits behind the
/// prefix are of no significance (RFC 4271 section 4.3) and cleared.
///
/// # Errors
/// See [`NlriError`]; the prefixes before the wrong one have then been appended.
pub fn decode_prefixes(
    family: Family,
    field: &[u8],
    out: &mut Vec<IpNet>,
    mut path_ids: Option<&mut Vec<u32>>,
) -> Result<(), NlriError> {
    let mut reader = Reader::new(field);
    while !reader.is_empty() {
        let left = reader.rest().len();
        if let Some(path_ids) = &mut path_ids {
            path_ids.push(reader.u32().ok_or(NlriError::PathId { left })?);
        }
        let length = reader.u8().ok_or(NlriError::PathId { left })?;
        let prefix = match family {
            Family::Ipv4Unicast => decode_v4(length, &mut reader)?,
            Family::Ipv6Unicast => decode_v6(length, &mut reader)?,
        };
        out.push(prefix);
    }
    Ok(())
}

fn decode_v4(length: u8, reader: &mut Reader<'_>) -> Result<IpNet, NlriError> {
    let address = Ipv4Addr::from(address_octets::<4>(length, reader)?);
    let net = Ipv4Net::new(address, length).map_err(|_| NlriError::Length { length, max: 32 })?;
    Ok(net.trunc().into())
}

fn decode_v6(length: u8, reader: &mut Reader<'_>) -> Result<IpNet, NlriError> {
    let address = Ipv6Addr::from(address_octets::<16>(length, reader)?);
    let net = Ipv6Net::new(address, length).map_err(|_| NlriError::Length { length, max: 128 })?;
    Ok(net.trunc().into())
}

/// The octets of a prefix of `length` bits, filled up with zeros.
fn address_octets<const N: usize>(length: u8, reader: &mut Reader<'_>) -> Result<[u8; N], NlriError> {
    let octets = usize::from(length).div_ceil(8);
    let mut address = [0; N];
    let Some(room) = address.get_mut(..octets) else {
        return Err(NlriError::Length { length, max: u8::try_from(N * 8).unwrap_or(u8::MAX) });
    };
    let left = reader.rest().len();
    room.copy_from_slice(reader.take(octets).ok_or(NlriError::Truncated { length, left })?);
    Ok(address)
}

fn encode_prefix(prefix: &IpNet, out: &mut BytesMut) {
    let length = prefix.prefix_len();
    let octets = usize::from(length).div_ceil(8);
    out.put_u8(length);
    match prefix {
        IpNet::V4(net) => out.put_slice(net.network().octets().get(..octets).unwrap_or_default()),
        IpNet::V6(net) => out.put_slice(net.network().octets().get(..octets).unwrap_or_default()),
    }
}
